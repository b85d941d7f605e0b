//! A thin HTTP client to Drumline's nodes: it tries each server until one executes the request.
//!
//! Never speaks to MongoDB, never gives a request a second id, keeps nothing between its requests but its clock.

mod attempt;
mod clock;
mod error;
mod events;
mod follow;
mod rotation;
mod state;
pub mod wire;

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::header::HeaderValue;
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::{Secret, ServerUrl};
use crate::model::{Consistency, Namespace, Read, RequestId, Write};
use crate::view::ClusterView;

pub use clock::{Clock, Seen};
pub use error::{ClientError, Setbacks};
pub use events::Event;
pub use follow::{Following, Told};
pub use state::ClockFile;
pub use wire::{Found, Written};

use attempt::{Connections, Tried};
use rotation::{Next, Rotation};
use wire::{Message, Received};

/// A client with its list of servers. All its requests share one pool of connections.
#[derive(Debug)]
pub struct Client {
    servers: Vec<ServerUrl>,
    key: Option<HeaderValue>,
    timeout: Duration,
    connections: Connections,
    tries: AtomicU64,
}

impl Client {
    /// `timeout` bounds each request with all its tries.
    pub fn new(
        servers: Vec<ServerUrl>,
        key: Option<&Secret>,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        if servers.is_empty() {
            return Err(ClientError::Invalid("the list of servers is empty".into()));
        }
        Ok(Self {
            key: key.map(wire::key_header).transpose()?,
            connections: Connections::new(servers.iter().any(ServerUrl::is_https), timeout),
            servers,
            timeout,
            tries: AtomicU64::new(0),
        })
    }

    /// How many times it has asked a server so far.
    pub fn tries(&self) -> u64 {
        self.tries.load(Ordering::Relaxed)
    }

    /// Runs a write. It carries `id` on each try, so that it is done at most once.
    pub async fn write(
        &self,
        namespace: &Namespace,
        write: Write,
        id: &RequestId,
        clock: &Clock,
    ) -> Result<Written, ClientError> {
        let op = write.op();
        let message = Message::write(namespace, write, id);
        let (server, received) = self.send(&message, clock).await?;
        wire::written(op, &received).map_err(|why| strange(server, &received, why))
    }

    /// Runs a read.
    pub async fn read(
        &self,
        namespace: &Namespace,
        read: Read,
        consistency: Consistency,
        clock: &Clock,
    ) -> Result<Found, ClientError> {
        let message = Message::read(namespace, read, consistency);
        let (server, received) = self.send(&message, clock).await?;
        wire::found(&received).map_err(|why| strange(server, &received, why))
    }

    /// Up to `limit` documents of the log, from position `from` on.
    pub async fn log(
        &self,
        from: i64,
        limit: u32,
        clock: &Clock,
    ) -> Result<Vec<bson::Document>, ClientError> {
        let message = Message::log(from, limit);
        let (server, received) = self.send(&message, clock).await?;
        wire::entries(&received).map_err(|why| strange(server, &received, why))
    }

    /// The cluster as the first server that answers sees it.
    pub async fn status(&self) -> Result<ClusterView, ClientError> {
        let (server, received) = self.send(&Message::status(), &Clock::default()).await?;
        wire::view(&received).map_err(|why| strange(server, &received, why))
    }

    /// The cluster as the first server sees it now; it is asked once.
    pub async fn look(&self) -> Result<ClusterView, ClientError> {
        let (message, clock) = (Message::status(), Clock::default());
        let asked = self.attempt(0, &message, &clock);
        let server = &self.servers[0];
        let why = match timeout(self.timeout, asked).await {
            Ok((_, Tried::Definite(received))) => {
                let view = wire::view(&received);
                return view.map_err(|why| strange(server, &received, why));
            }
            Ok((_, Tried::Setback(setback))) => setback.why,
            Err(_) => format!("no answer within {:?}", self.timeout),
        };
        Err(ClientError::Unreachable(Setbacks::one(server, why)))
    }

    /// Sends a message to one server after the other until one gives a definite answer.
    ///
    /// A server that stays silent keeps its try while the next one is asked too: it may be frozen,
    /// or the request may be slow. The request id makes that safe for a write.
    async fn send(
        &self,
        message: &Message,
        clock: &Clock,
    ) -> Result<(&ServerUrl, Received), ClientError> {
        let mut rotation = Rotation::new(self.servers.len(), Instant::now());
        let mut tries = FuturesUnordered::new();
        let mut deadline = pin!(sleep_until(Instant::now() + self.timeout));
        loop {
            let wake = match rotation.next(Instant::now()) {
                Next::Try(index) => {
                    rotation.began(index, Instant::now());
                    tries.push(self.attempt(index, message, clock));
                    continue;
                }
                Next::At(instant) => Some(instant),
                Next::AfterAnAnswer => None,
            };
            tokio::select! {
                Some((index, tried)) = tries.next() => match tried {
                    Tried::Definite(received) => {
                        let server = &self.servers[index];
                        return definite(server, received).map(|received| (server, received));
                    }
                    Tried::Setback(setback) => rotation.failed(index, setback, Instant::now()),
                },
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
                () = &mut deadline => return Err(error::at_deadline(&self.servers, rotation, message, self.timeout)),
            }
        }
    }

    async fn attempt(&self, index: usize, message: &Message, clock: &Clock) -> (usize, Tried) {
        let server = &self.servers[index];
        self.tries.fetch_add(1, Ordering::Relaxed);
        let tried = match message.to_request(server, self.key.as_ref(), &clock.seen()) {
            Ok(request) => self.connections.attempt(request).await,
            Err(error) => Tried::Setback(attempt::Setback::unsent(error.to_string())),
        };
        if let Tried::Definite(received) = &tried
            && let Some(seen) = received.seen()
        {
            clock.witness(seen);
        }
        (index, tried)
    }
}

/// Tells an answer from a refusal.
fn definite(server: &ServerUrl, received: Received) -> Result<Received, ClientError> {
    if received.status.is_success() {
        return Ok(received);
    }
    match wire::refusal(&received) {
        Some((message, code)) => Err(ClientError::Refused {
            status: received.status.as_u16(),
            code,
            message,
        }),
        None => Err(strange(
            server,
            &received,
            "the body is no Data API error".into(),
        )),
    }
}

fn strange(server: &ServerUrl, received: &Received, why: String) -> ClientError {
    ClientError::Strange {
        server: server.clone(),
        status: received.status.as_u16(),
        why,
    }
}
