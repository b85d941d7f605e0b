//! Traffic between nodes, over HTTP: messages of the election with heartbeats, and requests that
//! are passed on to the coordinator.
//!
//! Never decides who lives or who is coordinator; never passes a request on a second time.

mod credentials;
mod forward;
mod inbox;
mod link;
mod proof;
mod refused;
mod seen;

pub use credentials::{Admitted, Credentials};
pub use forward::{Envelope, ForwardError, Forwarder, PROVEN_BYTES_MAX, Relayed};
pub use inbox::Inbox;
pub use link::{Links, Pace, Peer};
pub use proof::{Content, REPLY_HEADERS, REQUEST_HEADERS};
pub use refused::Refused;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::model::{Beat, Message, NodeName};

/// Where a node takes messages of its peers.
pub const MESSAGE_PATH: &str = "/peer/message";
/// Where a node takes requests that a peer passes on; the action's name follows.
pub const ACTION_PATH: &str = "/peer/action/";
/// Says that the request was not begun: this node is not coordinator.
pub const NOT_COORDINATOR: hyper::StatusCode = hyper::StatusCode::MISDIRECTED_REQUEST;

/// What is heard of peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Heard {
        from: NodeName,
        beat: Beat,
        message: Message,
    },
    /// Nothing listens at the peer's address.
    Refused(NodeName),
}

/// When each peer last sent a message of its own. Its reply told it all that a heartbeat would.
#[derive(Debug, Clone, Default)]
pub struct Knocks(Arc<Mutex<BTreeMap<NodeName, Instant>>>);

impl Knocks {
    fn note(&self, from: &NodeName) {
        let mut knocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        knocks.insert(from.clone(), Instant::now());
    }

    fn last(&self, from: &NodeName) -> Option<Instant> {
        let knocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        knocks.get(from).copied()
    }
}

/// The body of a message.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Letter {
    beat: Beat,
    message: Message,
}
