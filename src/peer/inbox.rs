//! Messages from peers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::http::request;
use hyper::{HeaderMap, StatusCode};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::credentials::{Admitted, Credentials};
use super::proof::{Content, REQUEST_HEADERS, keep_only};
use super::refused::Refused;
use super::{Event, Knocks, Letter};
use crate::model::{Beat, NodeName};

/// How many different refusals are told of in the log. More are not: each is a stranger's choice.
const COMPLAINTS_MAX: usize = 32;

/// Takes what peers send, if they are peers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inbox {
    credentials: Option<Credentials>,
    peers: Arc<BTreeSet<NodeName>>,
    events: mpsc::Sender<Event>,
    beats: watch::Receiver<Beat>,
    knocks: Knocks,
    complaints: Arc<Mutex<BTreeSet<Refused>>>,
}

impl Inbox {
    /// Without credentials nobody is let in.
    pub fn new(
        credentials: Option<Credentials>,
        peers: BTreeSet<NodeName>,
        events: mpsc::Sender<Event>,
        beats: watch::Receiver<Beat>,
        knocks: Knocks,
    ) -> Self {
        Self {
            credentials,
            peers: Arc::new(peers),
            events,
            beats,
            knocks,
            complaints: Arc::default(),
        }
    }

    /// Who sends a request with this head, if it is a peer, and for the first time. What the proof
    /// does not cover is taken out of the head. Each kind of refusal is logged once.
    pub fn admit(&self, head: &mut request::Parts) -> Result<Admitted, Refused> {
        let admitted = self.check(head);
        match &admitted {
            Ok(_) => keep_only(&REQUEST_HEADERS, &mut head.headers),
            // That is how a peer learns of this process.
            Err(Refused::Stale { .. }) => {}
            Err(why) => self.complain(why),
        }
        admitted
    }

    fn check(&self, head: &request::Parts) -> Result<Admitted, Refused> {
        let credentials = self.credentials.as_ref().ok_or(Refused::Secret)?;
        let request = credentials.check(head)?;
        if !self.peers.contains(&request.from) {
            return Err(Refused::Stranger(request.from.to_string()));
        }
        credentials.admit(request)
    }

    /// Tells the sender of a stale request what it needs to send it again.
    pub fn greet(&self, reply: &mut HeaderMap, from: &NodeName, nonce: &str) {
        if let Some(credentials) = &self.credentials {
            credentials.greet(reply, from, nonce);
        }
    }

    /// Proves to the peer that the reply to its request is this node's, and so is the body if this
    /// is given.
    pub fn sign(
        &self,
        request: &Admitted,
        status: StatusCode,
        reply: &mut HeaderMap,
        body: Option<Content>,
    ) {
        if let Some(credentials) = &self.credentials {
            credentials.sign(request, status, reply, body);
        }
    }

    /// Takes a message and gives the body of the reply; `None` if it is none. What does not fit into
    /// the queue is dropped, as a network might.
    pub fn take(&self, from: &NodeName, body: &[u8]) -> Option<Vec<u8>> {
        let letter: Letter = serde_json::from_slice(body).ok()?;
        if letter.beat.rank.node != *from {
            return None;
        }
        let event = Event::Heard {
            from: from.clone(),
            beat: letter.beat,
            message: letter.message,
        };
        let _ = self.events.try_send(event);
        self.knocks.note(from);
        serde_json::to_vec(&*self.beats.borrow()).ok()
    }

    fn complain(&self, why: &Refused) {
        let mut complaints = self
            .complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if complaints.len() < COMPLAINTS_MAX && complaints.insert(why.clone()) {
            warn!(%why, "refused a message of another node; further ones like it are not logged");
        }
    }
}
