//! Whether this node's own calls get through to the primary. Where they get no answer, and the primary
//! answers by new connections, it is the connections that are ill: they are made anew.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mongodb::options::ReadConcern;
use tokio::sync::watch;
use tokio::time::Instant;

use super::connections::Counts;
use super::error::StoreError;
use super::gate::Gate;
use super::log::Tail;
use super::{Store, within};
use crate::model::Epoch;
use crate::mutants::{self, Mutant};

/// A look that takes longer tells nothing in time.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How long the primary may take to answer by new connections.
const NEW_ANSWER_MAX: Duration = Duration::from_secs(1);
/// The pause before connections are tried anew that were tried in vain; it doubles each time.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Health {
    trouble: watch::Sender<Option<String>>,
    tries: Mutex<Tries>,
}

#[derive(Debug)]
struct Tries {
    next: Instant,
    pause: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            trouble: watch::Sender::new(None),
            tries: Mutex::new(Tries::new()),
        }
    }
}

impl Tries {
    fn new() -> Self {
        Self {
            next: Instant::now(),
            pause: PAUSE_FIRST,
        }
    }

    /// Whether it is time for another try; the next one comes later.
    fn is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now + self.pause;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        due
    }
}

impl Store {
    /// The log's last epoch, if the primary answers within a second; by the connections that batches
    /// take. If it does not, and does by new connections, they take the place of the old ones.
    pub async fn probe(&self) -> Option<Epoch> {
        let looked = self.look_by_order().await;
        let looked = match looked {
            Err(ref error) if error.is_silence() && self.try_anew().await => {
                self.look_by_order().await
            }
            looked => looked,
        };
        let epoch = looked.ok()?.epoch;
        self.health.recovered();
        // This look is no barrier, but it may come before a batch meets one.
        Some(match mutants::active(Mutant::NoFence) {
            true => Epoch::ZERO,
            false => epoch,
        })
    }

    async fn look_by_order(&self) -> Result<Tail, StoreError> {
        let tail = within(LOOK_MAX, self.tail_with(ReadConcern::majority())).await;
        self.heed(tail).await
    }

    /// Makes the connections anew, if the primary answers by new ones.
    async fn try_anew(&self) -> bool {
        if !self.health.is_due() || !self.order.line().renew(NEW_ANSWER_MAX).await {
            return false;
        }
        // What has cut these off has cut off the others too.
        tokio::join!(
            self.log_reads.line().renew(NEW_ANSWER_MAX),
            self.vital.line().renew(NEW_ANSWER_MAX),
        );
        self.health.renewed();
        true
    }

    /// What is wrong with this node's own connections. It changes as that changes.
    pub fn trouble_with_connections(&self) -> watch::Receiver<Option<String>> {
        self.health.trouble.subscribe()
    }

    /// How often the connections were made anew.
    pub fn renewals(&self) -> u64 {
        self.order.line().renewals()
    }

    /// The connections by what they are for: order, reads, signs of life.
    pub fn connections(&self) -> [(&'static str, Counts); 3] {
        let of = |gate: &Gate| gate.line().counts();
        [
            ("order", of(&self.order)),
            ("reads", of(&self.log_reads)),
            ("vital", of(&self.vital)),
        ]
    }
}

impl Health {
    fn is_due(&self) -> bool {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        tries.is_due(Instant::now())
    }

    fn renewed(&self) {
        let text = "this node's calls got no answer, although the primary answers others; its \
                    connections were made anew";
        self.trouble.send_replace(Some(text.to_owned()));
    }

    fn recovered(&self) {
        *self.tries.lock().unwrap_or_else(PoisonError::into_inner) = Tries::new();
        self.trouble
            .send_if_modified(|trouble| trouble.take().is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_in_vain_come_later_and_later() {
        let mut tries = Tries::new();
        let begun = tries.next;
        let after = |secs| begun + Duration::from_secs(secs);
        let due: Vec<u64> = (0..100).filter(|secs| tries.is_due(after(*secs))).collect();
        assert_eq!(due, [0, 1, 3, 7, 15, 31, 61, 91]);
    }
}
