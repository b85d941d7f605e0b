//! Where a node stands in the election.

use super::steps::Patience;
use crate::model::{Beat, Liveness, NodeName, Tenure};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// New: waits to hear of a coordinator, or of all peers.
    Discovering,
    Following {
        tenure: Tenure,
        evidence: Evidence,
    },
    /// Has asked larger ranks.
    Asking(Patience),
    /// A larger rank, or whoever was handed over to, is to become coordinator; or nobody can.
    Waiting,
    /// Watches for signs of life before it claims. The coordinator that it saw at work before.
    Looking(Option<Tenure>),
    Claiming,
    Coordinating,
    /// Finishes its last batch for this successor.
    HandingOver(NodeName),
}

/// How a node knows of the coordinator that it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Evidence {
    /// The coordinator has said so itself.
    Heard,
    /// Another node has, or a claim in the log.
    Told,
    /// It was seen at work in the log, and cannot be heard.
    Log,
}

/// What a node knows of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    pub liveness: Liveness,
    /// Nothing listened at its address when last tried.
    pub refused: bool,
    /// Its last word, however long ago.
    pub beat: Option<Beat>,
}
