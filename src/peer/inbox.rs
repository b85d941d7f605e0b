//! Messages from peers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::HeaderMap;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::credentials::{Admitted, Credentials, Refused};
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

    /// Who sends a request with these headers, if it is a peer. Each kind of refusal is logged once.
    pub fn admit(&self, headers: &HeaderMap) -> Result<Admitted, Refused> {
        let checked = match &self.credentials {
            Some(credentials) => credentials.check(headers),
            None => Err(Refused::Secret),
        };
        let admitted = checked.and_then(|request| match self.peers.contains(&request.from) {
            true => Ok(request),
            false => Err(Refused::Stranger(request.from.to_string())),
        });
        if let Err(why) = &admitted {
            self.complain(why);
        }
        admitted
    }

    /// Proves to the peer that the reply to its request is this node's.
    pub fn sign(&self, reply: &mut HeaderMap, request: &Admitted) {
        if let Some(credentials) = &self.credentials {
            credentials.sign(reply, request);
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
