//! Whether this node's own calls get through to the primary. Where they get no answer, and the primary
//! answers by new connections, it is the connections that are ill: they are made anew.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mongodb::options::ReadConcern;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::connections::Counts;
use super::error::StoreError;
use super::gate::Gate;
use super::line::Others;
use super::log::Tail;
use super::{Store, within};
use crate::model::Epoch;
use crate::mutants::{self, Mutant};

/// A look that takes longer is doubted.
const SILENCE_MAX: Duration = Duration::from_millis(700);
/// How long it is waited for then, and again when new connections have answered.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// Connections that gave answers for so long are well.
const WELL_AFTER: Duration = Duration::from_secs(60);
/// The pause before new connections are tried again; it doubles each time.
const PAUSE_FIRST: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Health {
    trouble: watch::Sender<Option<String>>,
    tries: Mutex<Tries>,
}

#[derive(Debug)]
struct Tries {
    last: Instant,
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
        let now = Instant::now();
        Self {
            last: now,
            next: now,
            pause: PAUSE_FIRST,
        }
    }

    /// Whether it is time for another try; the next one comes later.
    fn is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.next;
        if due {
            self.last = now;
            self.next = now + self.pause;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        due
    }
}

impl Store {
    /// The log's last epoch, if the primary answers in time; by the connections that batches take.
    /// If it does not, and does twice by new connections meanwhile, these take their place. (On a
    /// machine that is slow the old ones, which have no handshake before them, are first.)
    pub async fn probe(&self) -> Option<Epoch> {
        let mut look = Box::pin(self.tail_with(ReadConcern::majority()));
        let looked = match timeout(SILENCE_MAX, &mut look).await {
            Ok(looked) => looked,
            Err(_) => self.wait_or_renew(look).await,
        };
        let epoch = self.heed(looked).await.ok()?.epoch;
        self.health.recovered();
        // This look is no barrier, but it may come before a batch meets one.
        Some(match mutants::active(Mutant::NoFence) {
            true => Epoch::ZERO,
            false => epoch,
        })
    }

    /// Waits on for a look, and tries new connections beside it.
    async fn wait_or_renew(
        &self,
        mut look: impl Future<Output = Result<Tail, StoreError>> + Unpin,
    ) -> Result<Tail, StoreError> {
        let others = tokio::select! {
            looked = timeout(WAIT_MAX, &mut look) => {
                return looked.unwrap_or(Err(StoreError::TimedOut(WAIT_MAX)));
            }
            Some(others) = self.others_that_answer() => others,
        };
        if let Ok(looked) = timeout(WAIT_MAX, &mut look).await {
            return looked;
        }
        if !others.answer(WAIT_MAX).await {
            return Err(StoreError::TimedOut(WAIT_MAX));
        }
        // What has cut these off has cut off the others too.
        let reads = self.log_reads.line().begin_others()?;
        let vital = self.vital.line().begin_others()?;
        self.health.renewed();
        self.order.line().turn_to(others);
        self.log_reads.line().turn_to(reads);
        self.vital.line().turn_to(vital);
        within(WAIT_MAX, self.tail_with(ReadConcern::majority())).await
    }

    async fn others_that_answer(&self) -> Option<Others> {
        if !self.health.is_due() || mutants::active(Mutant::NoRenewal) {
            return None;
        }
        let others = self.order.line().begin_others().ok()?;
        others.answer(WAIT_MAX).await.then_some(others)
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
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        if tries.last.elapsed() > WELL_AFTER {
            *tries = Tries::new();
        }
        drop(tries);
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
        assert_eq!(due, [0, 2, 6, 14, 30, 60, 90]);
    }
}
