//! Nodes among themselves: rank, role, and what one believes of another.

use std::fmt;

use bson::Uuid;
use serde::{Deserialize, Serialize};

use super::id::NodeName;
use super::order::Epoch;

/// A node's place in elections: the largest wins. The number is drawn at each start; the name
/// breaks ties (Garcia-Molina 1982).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rank {
    pub number: u64,
    pub node: NodeName,
}

impl Rank {
    /// A number at random for this node.
    pub fn draw(node: NodeName) -> Self {
        // Six bits of a random UUID are fixed, at different places in its two halves.
        let bytes = Uuid::new().bytes();
        let mixed = bytes[..8].iter().zip(&bytes[8..]);
        let number = mixed.fold(0, |number, (a, b)| number << 8 | u64::from(a ^ b));
        Self { number, node }
    }
}

/// What a node does in its cluster at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Its claim is the last in the log, as far as it knows: it puts writes in order.
    Coordinator,
    /// It knows a coordinator and passes requests on.
    Follower,
    /// It knows no coordinator.
    Electing,
}

/// What a node believes of a peer. A belief only: a peer that is thought down may live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    Alive,
    /// Some heartbeats in a row are missing.
    Suspect,
    /// Nothing listens at its address, or it has been silent for long.
    Down,
}

/// A coordinator and its epoch, as a claim in the log made them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tenure {
    pub node: NodeName,
    pub epoch: Epoch,
}

/// What a node says of itself in each message to a peer, and in the reply to each of theirs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Beat {
    pub rank: Rank,
    /// Grows with each change of what follows: an older beat may arrive late.
    pub version: u64,
    pub role: Role,
    /// Whom it takes for coordinator: itself, or the node that it follows.
    pub coordinator: Option<Tenure>,
    /// It hears from that coordinator itself, or is it.
    pub hears_coordinator: bool,
    /// It reaches MongoDB and does not stop: it could be coordinator.
    pub eligible: bool,
}

/// What a node asks of a peer, or tells it, beside its [`Beat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Message {
    /// Nothing more: "I live".
    Heartbeat,
    /// To larger ranks: "I would be coordinator" (Garcia-Molina 1982).
    Election,
    /// From a larger rank: "leave it to me".
    Answer,
    /// "I am coordinator": my claim is in the log.
    Coordinator,
    /// To the coordinator: "my rank is larger, hand over to me".
    Request,
    /// From the coordinator: "I have finished my last batch, claim after it".
    Handover,
    /// "I find no primary; the last was of this term; and I leave it to you to do something, or not." Not
    /// about the election of nodes.
    PrimaryLost { term: i64, passes: bool },
}

impl Role {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Follower => "follower",
            Self::Electing => "electing",
        }
    }
}

impl Liveness {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
