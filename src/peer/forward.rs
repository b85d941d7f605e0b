//! Requests of clients that this node passes on to the coordinator.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, DATE, HeaderMap, TRANSFER_ENCODING};
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::credentials::Credentials;
use super::link::Peer;
use super::{ACTION_PATH, NOT_COORDINATOR};
use crate::config::ServerUrl;
use crate::model::NodeName;

const CONNECT_WAIT_MAX: Duration = Duration::from_secs(1);
/// Shorter than a node keeps an idle connection open, so that none is used as it closes.
const IDLE_MAX: Duration = Duration::from_secs(5);

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
pub type Relayed = Response<Incoming>;

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
        let mut request = self.request(to, envelope).ok_or(ForwardError::Unsent)?;
        let asked = credentials.write(request.headers_mut(), to);
        let mut response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Err(ForwardError::Unsent),
            Err(_) => return Err(ForwardError::Lost),
        };
        let proven = credentials.is_reply_to(&asked, response.headers_mut());
        match response.status() {
            NOT_COORDINATOR => return Err(ForwardError::NotCoordinator),
            // Clients were checked here: it is this node that the peer does not let in.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(ForwardError::Unsent),
            _ if !proven => return Err(ForwardError::Lost),
            _ => {}
        }
        for connection_header in [CONNECTION, TRANSFER_ENCODING, DATE] {
            response.headers_mut().remove(connection_header);
        }
        Ok(response)
    }

    fn request(&self, to: &NodeName, envelope: Envelope) -> Option<Request<Full<Bytes>>> {
        let url = self.peers.get(to)?;
        let uri = format!("{url}{ACTION_PATH}{}", envelope.action);
        let mut request = Request::post(uri).body(Full::new(envelope.body)).ok()?;
        *request.headers_mut() = envelope.headers;
        Some(request)
    }
}
