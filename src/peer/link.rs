//! The connection to each peer: sends messages and heartbeats, and notices at once when it breaks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::warn;

use super::credentials::{Credentials, Sent, content_of};
use super::proof::Content;
use super::{Event, Knocks, Letter, MESSAGE_PATH};
use crate::config::ServerUrl;
use crate::model::{Beat, Message, NodeName};

/// Messages that wait for one peer. One more is dropped, as a network might.
const OUTBOX_MAX: usize = 16;
/// A beat is some hundred bytes.
const REPLY_BYTES_MAX: usize = 16 << 10;
/// How long a peer that refuses us is left alone.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// How many different texts of a peer's refusals are logged.
const COMPLAINTS_MAX: usize = 8;

/// A peer and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub name: NodeName,
    pub url: ServerUrl,
}

/// How often a node speaks to its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The time between two heartbeats.
    pub interval: Duration,
    /// How long an answer may take.
    pub patience: Duration,
}

/// The connections to all peers. They end with this.
#[derive(Debug)]
pub struct Links {
    outboxes: BTreeMap<NodeName, mpsc::Sender<Message>>,
    _tasks: JoinSet<()>,
}

impl Links {
    /// Begins to send heartbeats, one each interval, and at once when the beat changes. While a peer
    /// sends its own, the replies to those do: of two nodes one asks.
    pub fn open(
        peers: &[Peer],
        credentials: &Credentials,
        pace: Pace,
        beats: &watch::Receiver<Beat>,
        events: &mpsc::Sender<Event>,
        knocks: &Knocks,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let mut outboxes = BTreeMap::new();
        for peer in peers {
            let (outbox, messages) = mpsc::channel(OUTBOX_MAX);
            outboxes.insert(peer.name.clone(), outbox);
            let link = Link {
                peer: peer.clone(),
                credentials: credentials.clone(),
                pace,
                knocks: knocks.clone(),
                beats: beats.clone(),
                messages,
                events: events.clone(),
                complaints: BTreeSet::new(),
            };
            tasks.spawn(link.run());
        }
        Self {
            outboxes,
            _tasks: tasks,
        }
    }

    /// No links, for a node without peers.
    pub fn none() -> Self {
        Self {
            outboxes: BTreeMap::new(),
            _tasks: JoinSet::new(),
        }
    }

    /// Sends a message. It may be lost.
    pub fn send(&self, to: &NodeName, message: Message) {
        if let Some(outbox) = self.outboxes.get(to) {
            let _ = outbox.try_send(message);
        }
    }
}

struct Link {
    peer: Peer,
    credentials: Credentials,
    pace: Pace,
    knocks: Knocks,
    beats: watch::Receiver<Beat>,
    messages: mpsc::Receiver<Message>,
    events: mpsc::Sender<Event>,
    /// The peer's refusals that were logged.
    complaints: BTreeSet<String>,
}

/// An open connection. Its task ends when the connection does.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a peer says to a message.
struct Reply {
    status: StatusCode,
    /// It is the peer's, as it is here.
    proven: bool,
    /// The peer could not take the message and has said what it needs: it takes it now.
    is_greeting: bool,
    body: Bytes,
}

/// Why a conversation ended.
enum End {
    /// The connection broke, or the peer did not answer in time.
    Broken,
    /// The peer does not want us; its text.
    Unwelcome(String),
}

impl Link {
    async fn run(mut self) {
        loop {
            let began = Instant::now();
            match timeout(self.pace.patience, connect(&self.peer.url)).await {
                Ok(Ok(connection)) => match self.converse(connection).await {
                    // At once: whether the address refuses tells a dead peer from a broken line.
                    End::Broken if began.elapsed() >= self.pace.interval => continue,
                    End::Broken => {}
                    End::Unwelcome(why) => {
                        self.complain(why);
                        sleep(REFUSED_PAUSE).await;
                    }
                },
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    let refused = Event::Refused(self.peer.name.clone());
                    let _ = self.events.send(refused).await;
                }
                Ok(Err(_)) | Err(_) => {}
            }
            sleep_until(began + self.pace.interval).await;
        }
    }

    async fn converse(&mut self, mut connection: Connection) -> End {
        // What waited for a connection is old by now.
        while self.messages.try_recv().is_ok() {}
        let mut next = Instant::now();
        loop {
            let message = tokio::select! {
                biased;
                Some(message) = self.messages.recv() => message,
                _ = &mut connection.task => return End::Broken,
                Ok(()) = self.beats.changed() => Message::Heartbeat,
                () = sleep_until(next) => match self.peer_asks_until() {
                    Some(later) => {
                        next = later;
                        continue;
                    }
                    None => Message::Heartbeat,
                },
            };
            next = Instant::now() + self.pace.interval;
            let reply = timeout(self.pace.patience, self.exchange(&mut connection, message)).await;
            match reply {
                Ok(Ok(beat)) => {
                    let heard = Event::Heard {
                        from: self.peer.name.clone(),
                        beat,
                        message: Message::Heartbeat,
                    };
                    let _ = self.events.send(heard).await;
                }
                Ok(Err(end)) => return end,
                Err(_) => return End::Broken,
            }
        }
    }

    /// Until when the peer's own heartbeats spare it ours, if it sent one a moment ago. It may be a
    /// quarter of an interval late.
    fn peer_asks_until(&self) -> Option<Instant> {
        let asked = self.knocks.last(&self.peer.name)?;
        let until = asked + self.pace.interval * 5 / 4;
        (until > Instant::now()).then_some(until)
    }

    async fn exchange(
        &mut self,
        connection: &mut Connection,
        message: Message,
    ) -> Result<Beat, End> {
        let mut reply = self.try_once(connection, message).await?;
        if reply.is_greeting {
            reply = self.try_once(connection, message).await?;
        }
        let Reply {
            status,
            proven,
            body,
            ..
        } = reply;
        if status != StatusCode::OK {
            let said = String::from_utf8_lossy(&body).trim().to_owned();
            return Err(End::Unwelcome(format!("{status}: {said}")));
        }
        if !proven {
            return Err(End::Unwelcome("its reply proves nothing".into()));
        }
        let beat: Option<Beat> = serde_json::from_slice(&body).ok();
        beat.filter(|beat| beat.rank.node == self.peer.name)
            .ok_or_else(|| End::Unwelcome("its reply is no beat of its own".into()))
    }

    async fn try_once(
        &mut self,
        connection: &mut Connection,
        message: Message,
    ) -> Result<Reply, End> {
        let (request, asked) = self.request(message).map_err(|_| End::Broken)?;
        let sent = connection.sender.send_request(request).await;
        let response = sent.map_err(|_| End::Broken)?;
        let (head, body) = response.into_parts();
        let (status, headers) = (head.status, head.headers);
        let body = read(body).await.ok_or(End::Broken)?;
        let proven = self.credentials.is_reply_to(&asked, status, &headers)
            && content_of(&headers) == Some(Content::of(&body));
        Ok(Reply {
            is_greeting: self.credentials.learns(&asked, status, &headers),
            status,
            proven,
            body,
        })
    }

    fn request(
        &mut self,
        message: Message,
    ) -> Result<(Request<Full<Bytes>>, Sent), hyper::http::Error> {
        let beat = self.beats.borrow_and_update().clone();
        let letter = serde_json::to_vec(&Letter { beat, message }).unwrap_or_default();
        let (mut head, ()) = Request::post(MESSAGE_PATH)
            .header(HOST, self.peer.url.authority())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(())?
            .into_parts();
        let content = Content::of(&letter);
        let asked = self.credentials.write(&mut head, &self.peer.name, content);
        let body = Full::new(Bytes::from(letter));
        Ok((Request::from_parts(head, body), asked))
    }

    fn complain(&mut self, why: String) {
        let peer = &self.peer;
        if self.complaints.len() < COMPLAINTS_MAX && self.complaints.insert(why.clone()) {
            warn!(peer = %peer.name, url = %peer.url, why, "a peer refuses this node's messages");
        }
    }
}

async fn connect(url: &ServerUrl) -> io::Result<Connection> {
    let stream = TcpStream::connect(url.address()).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let task = tokio::spawn(async move {
        let _ = connection.await; // that it ended is all there is to know
    });
    Ok(Connection { sender, task })
}

async fn read(body: Incoming) -> Option<Bytes> {
    let body = Limited::new(body, REPLY_BYTES_MAX);
    Some(body.collect().await.ok()?.to_bytes())
}
