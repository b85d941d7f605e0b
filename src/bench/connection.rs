//! One keep-alive connection of one client, without a pool in between.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::Seen;
use crate::client::wire::{Message, Received};
use crate::config::ServerUrl;

/// How long one insert may take before its outcome counts as unknown.
pub(super) const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(2);

/// What one insert came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Inserted {
    Ok {
        stamp: Option<i64>,
        position: Option<i64>,
    },
    /// Nothing was done.
    Failed(String),
    /// It may have been done.
    Unknown(String),
}

/// A client's connection to one server at a time; after a failure the next server has its turn.
#[derive(Debug)]
pub(super) struct Connection {
    servers: Vec<ServerUrl>,
    key: Option<HeaderValue>,
    current: usize,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// Not connected yet. `first` spreads the clients over the servers.
    pub(super) fn new(servers: Vec<ServerUrl>, key: Option<HeaderValue>, first: usize) -> Self {
        let current = first % servers.len().max(1);
        Self {
            servers,
            key,
            current,
            sender: None,
        }
    }

    /// Connects if the connection is not there, or not any more.
    async fn ready(&mut self) -> Result<(), String> {
        if let Some(sender) = &mut self.sender
            && sender.ready().await.is_ok()
        {
            return Ok(());
        }
        let connected = timeout(CONNECT_WAIT_MAX, connect(&self.servers[self.current])).await;
        match connected.unwrap_or_else(|_| Err("connect timed out".into())) {
            Ok(sender) => {
                self.sender = Some(sender);
                Ok(())
            }
            Err(why) => {
                self.fail_over();
                Err(why)
            }
        }
    }

    /// Connects to the first server that can be reached.
    pub(super) async fn connect_to_any(&mut self) -> Result<(), String> {
        let mut whys = Vec::new();
        for _ in 0..self.servers.len() {
            let server = self.servers[self.current].clone();
            match self.ready().await {
                Ok(()) => return Ok(()),
                Err(why) => whys.push(format!("{server}: {why}")),
            }
        }
        Err(format!("no server can be reached: {}", whys.join("; ")))
    }

    pub(super) async fn insert(&mut self, message: &Message) -> Inserted {
        if let Err(why) = self.ready().await {
            return Inserted::Failed(why);
        }
        let (Ok(request), Some(sender)) = (self.request(message), &mut self.sender) else {
            return Inserted::Failed("the request could not be built".into());
        };
        let outcome = match timeout(ANSWER_WAIT_MAX, exchange(sender, request)).await {
            Ok(Ok(received)) => judge(&received),
            Ok(Err(error)) if error.is_canceled() => Inserted::Failed("connection closed".into()),
            Ok(Err(_)) => Inserted::Unknown("connection lost".into()),
            Err(_) => Inserted::Unknown("no answer in time".into()),
        };
        if !matches!(outcome, Inserted::Ok { .. }) {
            self.fail_over();
        }
        outcome
    }

    /// The message for a connection of its own: only the path goes into the request line.
    fn request(&self, message: &Message) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request = message.to_request(
            &self.servers[self.current],
            self.key.as_ref(),
            &Seen::default(),
        )?;
        let uri = request.uri();
        let host =
            HeaderValue::from_str(uri.authority().map_or("", |authority| authority.as_str()))?;
        let path = uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .parse::<Uri>()?;
        *request.uri_mut() = path;
        request.headers_mut().insert(HOST, host);
        Ok(request)
    }

    fn fail_over(&mut self) {
        self.sender = None;
        self.current = (self.current + 1) % self.servers.len();
    }
}

async fn connect(server: &ServerUrl) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(server.address())
        .await
        .map_err(|error| error.kind().to_string())?;
    stream
        .set_nodelay(true)
        .map_err(|error| error.to_string())?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // Its end shows at the sender; there is nobody else to tell.
    tokio::spawn(connection);
    Ok(sender)
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Received, hyper::Error> {
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Received::new(head.status, &head.headers, body))
}

/// The kinds of errors are few, so that they can be counted: no text of the server is in them.
fn judge(received: &Received) -> Inserted {
    let kind = || format!("HTTP {}", received.status.as_u16());
    match received.status.as_u16() {
        200..300 => Inserted::Ok {
            stamp: received.stamp,
            position: received.position,
        },
        503 => Inserted::Failed(kind()),
        500.. => Inserted::Unknown(kind()),
        _ => Inserted::Failed(kind()),
    }
}
