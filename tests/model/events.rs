//! What happens in the [world](super::world) of the seeded schedules.

use drumline::election::Timer;
use drumline::model::{Beat, Epoch, Message, NodeName, Tenure};

/// What arrives at a node; a frozen node finds it all when it thaws.
#[derive(Debug, Clone)]
pub enum Arrival {
    Tick,
    Letter(Letter),
    Refused(usize),
    Timer(Timer, u64),
    PeerTimer(NodeName, u64),
    LookEnds { look: u64, before: Sight },
    ClaimEnds { claim: u64, end: ClaimEnd },
    Drained,
}

#[derive(Debug, Clone)]
pub enum ClaimEnd {
    Claimed(Epoch),
    Superseded(Tenure),
    NoAnswer,
}

#[derive(Debug, Clone)]
pub struct Letter {
    pub from: usize,
    pub beat: Beat,
    pub message: Message,
    /// A request is answered; its answer goes to this life of the asker alone.
    pub request_of: Option<u32>,
}

/// What a look compares at its two ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    pub appended: u64,
    pub presence: u64,
}

#[derive(Debug, Clone)]
pub enum Event {
    /// For the node of this index, in this life; `None` if any life will do.
    Arrives(usize, Option<u32>, Arrival),
    ClaimLands {
        node: usize,
        life: u32,
        claim: u64,
        over: Epoch,
    },
    Starts(usize),
    Fault(Fault),
    Heals(Fault),
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`; it heals by a new start with a new rank.
    Killed(usize),
    /// A planned stop: the node is told, and ends 500 ms later.
    Stopped(usize),
    Frozen(usize),
    /// The node reaches no member of MongoDB.
    WithoutMongo(usize),
    /// No connection from the first to the second.
    Deaf(usize, usize),
    Cut(usize, usize),
    /// Cut from all peers.
    Alone(usize),
    /// Loss, duplicates and long delays everywhere, MongoDB included.
    Weather,
}
