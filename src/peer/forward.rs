//! Requests of clients that this node passes on to the coordinator.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::CONTENT_LENGTH;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::task::spawn_blocking;

use super::credentials::{Credentials, Sent, content_of};
use super::link::Peer;
use super::proof::{Content, REPLY_HEADERS, keep_only};
use super::{ACTION_PATH, NOT_COORDINATOR};
use crate::config::ServerUrl;
use crate::model::NodeName;

const CONNECT_WAIT_MAX: Duration = Duration::from_secs(1);
/// Shorter than a node keeps an idle connection open, so that none is used as it closes.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// A body that takes milliseconds to hash.
const LONG_BYTES: usize = 256 << 10;
/// The bodies of longer replies are not covered by a proof: they are read as they come.
pub const PROVEN_BYTES_MAX: usize = 64 << 10;

/// A client's request as it came, without its credentials.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// The action's name.
    pub action: &'static str,
    /// Those headers that mean something to the coordinator.
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// The coordinator's reply: its head, and a body that may still be on its way.
pub type Relayed = Response<Either<Full<Bytes>, Incoming>>;

/// Why a request that was passed on has no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardError {
    /// It did not leave. Not done.
    Unsent,
    /// The peer is not coordinator and did not begin it. Not done.
    NotCoordinator,
    /// The connection broke before the reply. It may have been done.
    Lost,
}

/// Passes requests on. Cheap to clone; all clones share the connections.
#[derive(Debug, Clone)]
pub struct Forwarder {
    peers: BTreeMap<NodeName, ServerUrl>,
    credentials: Option<Credentials>,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Forwarder {
    /// Without credentials no peer takes what is passed on.
    pub fn new(peers: &[Peer], credentials: Option<Credentials>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_WAIT_MAX));
        connector.set_nodelay(true);
        let peers = peers.iter();
        Self {
            peers: peers
                .map(|peer| (peer.name.clone(), peer.url.clone()))
                .collect(),
            credentials,
            client: Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_MAX)
                .build(connector),
        }
    }

    /// Passes a request on to this peer. The peer passes it on to nobody.
    pub async fn forward(
        &self,
        to: &NodeName,
        envelope: Envelope,
    ) -> Result<Relayed, ForwardError> {
        let credentials = self.credentials.as_ref().ok_or(ForwardError::Unsent)?;
        let content = content_of_long(&envelope.body).await;
        let (mut response, mut asked) = self.send(credentials, to, &envelope, content).await?;
        if credentials.learns(&asked, response.status(), response.headers()) {
            (response, asked) = self.send(credentials, to, &envelope, content).await?;
        }
        let proven = credentials.is_reply_to(&asked, response.status(), response.headers());
        match response.status() {
            // Clients were checked here: it is this node that the peer does not let in.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(ForwardError::Unsent),
            _ if !proven => return Err(ForwardError::Lost),
            NOT_COORDINATOR => return Err(ForwardError::NotCoordinator),
            _ => {}
        }
        relayed(response).await
    }

    async fn send(
        &self,
        credentials: &Credentials,
        to: &NodeName,
        envelope: &Envelope,
        content: Content,
    ) -> Result<(Response<Incoming>, Sent), ForwardError> {
        let request = self.request(to, envelope).ok_or(ForwardError::Unsent)?;
        let (mut head, body) = request.into_parts();
        let asked = credentials.write(&mut head, to, content);
        match self.client.request(Request::from_parts(head, body)).await {
            Ok(response) => Ok((response, asked)),
            Err(error) if error.is_connect() => Err(ForwardError::Unsent),
            Err(_) => Err(ForwardError::Lost),
        }
    }

    fn request(&self, to: &NodeName, envelope: &Envelope) -> Option<Request<Full<Bytes>>> {
        let url = self.peers.get(to)?;
        let uri = format!("{url}{ACTION_PATH}{}", envelope.action);
        let body = Full::new(envelope.body.clone());
        let mut request = Request::post(uri).body(body).ok()?;
        *request.headers_mut() = envelope.headers.clone();
        Some(request)
    }
}

/// Heartbeats share the threads: a long body is hashed aside.
async fn content_of_long(body: &Bytes) -> Content {
    if body.len() <= LONG_BYTES {
        return Content::of(body);
    }
    let bytes = body.clone();
    let aside = spawn_blocking(move || Content::of(&bytes)).await;
    aside.unwrap_or_else(|_| Content::of(body))
}

/// A reply as it can go on to the client: with what its proof covers.
async fn relayed(response: Response<Incoming>) -> Result<Relayed, ForwardError> {
    let (mut head, body) = response.into_parts();
    let content = content_of(&head.headers);
    keep_only(&REPLY_HEADERS, &mut head.headers);
    if let Some(length) = body.size_hint().exact() {
        head.headers.insert(CONTENT_LENGTH, length.into());
    }
    let Some(content) = content else {
        return Ok(Response::from_parts(head, Either::Right(body)));
    };
    let body = Limited::new(body, PROVEN_BYTES_MAX).collect().await;
    let body = body.map_err(|_| ForwardError::Lost)?.to_bytes();
    if Content::of(&body) != content {
        return Err(ForwardError::Lost);
    }
    Ok(Response::from_parts(head, Either::Left(Full::new(body))))
}
