//! How long the election waits, in heartbeats.

use std::time::Duration;

use super::steps::{Patience, Timer};
use crate::liveness::Wait;

/// The waits of one node. All nodes of a cluster should have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The time between two heartbeats.
    pub heartbeat: Duration,
    /// So many heartbeats in a row may be missing before a peer is suspect.
    pub missed: u32,
    /// How long a coordinator is left in peace by larger ranks.
    pub dwell: Duration,
}

impl Default for Timing {
    /// For nodes of one site. Farther apart, a heartbeat should take several round trips.
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            missed: 3,
            dwell: Duration::from_secs(10),
        }
    }
}

impl Timing {
    /// How long an answer of a peer may take.
    pub fn patience(self) -> Duration {
        self.heartbeat * self.missed
    }

    /// How long the detector's timers run.
    pub fn belief(self, wait: Wait) -> Duration {
        match wait {
            Wait::Suspicion => self.patience(),
            Wait::Death => self.patience() * 3,
        }
    }

    /// How long the machine's timers run.
    pub fn timer(self, timer: Timer) -> Duration {
        match timer {
            Timer::Discover => self.heartbeat * 10,
            Timer::Answer => self.heartbeat * 2,
            // A look, a claim that waits for locks, and the way back.
            Timer::Coordinator => self.heartbeat * 15,
            Timer::Confirm => self.patience(),
            Timer::Dwell => self.dwell,
            // Longer than a driver may take to find a new primary after another has found it.
            Timer::Abdicate => self.heartbeat * 30,
        }
    }

    /// How long a look watches. A coordinator that is cut off from this node notices that as late as
    /// this node does, and shows its first sign of life then.
    pub fn look(self, patience: Patience) -> Duration {
        match patience {
            Patience::None => Duration::ZERO,
            Patience::Short => self.heartbeat * 3 / 2,
            Patience::Long => self.life() * 2,
        }
    }

    /// The time between two signs of life.
    pub fn life(self) -> Duration {
        self.heartbeat * 2
    }
}
