//! Reads that are fresh enough: a snapshot that is too old is taken anew, or on another member.

use std::time::Duration;

use mongodb::options::ServerAddress;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use super::error::StoreError;
use super::log::Tail;
use super::nearest::ANSWER_MAX;
use super::read::{Question, Snapshot};
use super::{Store, within};
use crate::budget::Reservation;
use crate::model::limits::CAUSAL_WAIT_MAX;
use crate::model::order::CLOCK_AHEAD_MAX;
use crate::model::{Documents, Failure, Position, Read};
use crate::mutants::{self, Mutant};

/// The pause before a snapshot that was too old is taken again. A secondary has an acknowledged
/// write about this much later than the primary.
const PAUSE: Duration = Duration::from_millis(1);
/// It doubles up to this: a client may ask for a stamp that never comes.
const PAUSE_MAX: Duration = Duration::from_millis(64);
/// From this pause on, each further look goes to another member.
const PAUSE_AT_ONE_MEMBER_MAX: Duration = Duration::from_millis(16);

impl Store {
    /// Runs a read in a snapshot of the primary whose log reaches `least`. It waits for that
    /// without a bound of its own.
    pub async fn read_primary(
        &self,
        question: Question<'_>,
        least: Position,
        memory: &mut Reservation,
    ) -> Result<Documents, Failure> {
        let mut pause = PAUSE;
        loop {
            match self.snapshot(question.read, None).await? {
                Some(snapshot) if snapshot.tail.position >= least => {
                    match self.read_in(snapshot, question, memory).await {
                        Err(Failure::Stale(why)) => debug!(why, "a snapshot is taken anew"),
                        read => return read,
                    }
                }
                _ => {}
            }
            sleep(pause).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }

    /// Runs a read in a snapshot of the nearest member whose stamps reach `clock`. Members that lag
    /// behind or do not answer are passed over. If none is fresh within [`CAUSAL_WAIT_MAX`] the
    /// read fails; it never shows anything older.
    pub async fn read_nearest(
        &self,
        question: Question<'_>,
        clock: i64,
        memory: &mut Reservation,
    ) -> Result<Documents, Failure> {
        let deadline = Instant::now() + CAUSAL_WAIT_MAX;
        let mut search = Search::new(clock);
        loop {
            let fresh = timeout_at(deadline, self.fresh_snapshot(question.read, &mut search)).await;
            let (member, snapshot) = fresh.map_err(|_| search.late())??;
            tokio::select! {
                result = self.read_in(snapshot, question, memory) => match result {
                    Err(Failure::Unavailable(why) | Failure::Stale(why)) => debug!(%member, why, "a member failed in a read"),
                    result => return result,
                },
                () = self.silence(&member) => debug!(%member, "a member became silent in a read"),
            }
            self.pass_over(member, &mut search);
            search.rest().await;
        }
    }

    async fn fresh_snapshot(
        &self,
        read: &Read,
        search: &mut Search,
    ) -> Result<(ServerAddress, Snapshot), Failure> {
        loop {
            let Some(member) = self.nearest(&search.passed_over).await else {
                search.passed_over.clear();
                search.rest().await;
                continue;
            };
            match within(ANSWER_MAX, self.snapshot(read, Some(&member))).await {
                Ok(Some(snapshot)) if search.accepts(&snapshot.tail)? => {
                    return Ok((member, snapshot));
                }
                Ok(_) if search.pause <= PAUSE_AT_ONE_MEMBER_MAX => {}
                Ok(_) => self.pass_over(member, search),
                Err(error @ (StoreError::Unavailable(_) | StoreError::TimedOut(_))) => {
                    debug!(%member, %error, "a member gave no snapshot");
                    self.pass_over(member, search);
                }
                Err(error) => return Err(error.into_failure()),
            }
            search.rest().await;
        }
    }

    fn pass_over(&self, member: ServerAddress, search: &mut Search) {
        self.nearest.drop_choice(&member);
        search.passed_over.push(member);
    }
}

/// One read's search for a member that is fresh enough.
#[derive(Debug)]
struct Search {
    clock: i64,
    /// The members that were too old or silent; when all are, each gets another chance.
    passed_over: Vec<ServerAddress>,
    /// The last stamp of the freshest snapshot so far.
    furthest: Option<i64>,
    pause: Duration,
}

impl Search {
    const fn new(clock: i64) -> Self {
        Self {
            clock,
            passed_over: Vec::new(),
            furthest: None,
            pause: PAUSE,
        }
    }

    /// By I3 a snapshot whose last stamp reaches the clock holds every write up to it.
    fn accepts(&mut self, tail: &Tail) -> Result<bool, Failure> {
        if self.clock.saturating_sub(tail.clock) > CLOCK_AHEAD_MAX {
            return Err(Failure::clock_too_far_ahead());
        }
        self.furthest = self.furthest.max(Some(tail.clock));
        Ok(tail.clock >= self.clock || mutants::active(Mutant::StaleReads))
    }

    async fn rest(&mut self) {
        sleep(self.pause).await;
        self.pause = PAUSE_MAX.min(self.pause * 2);
    }

    fn late(&self) -> Failure {
        let Some(furthest) = self.furthest else {
            return StoreError::TimedOut(CAUSAL_WAIT_MAX).into_failure();
        };
        Failure::Stale(format!(
            "stamp {} was asked for, and the freshest member that answered is at {furthest}; if the log was begun \
             anew since, the stamp of a linearizable read is one of the new log",
            self.clock
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Epoch;

    const fn tail(clock: i64) -> Tail {
        Tail {
            position: Position(1),
            epoch: Epoch(1),
            clock,
            node: None,
            batch: None,
        }
    }

    #[test]
    fn a_snapshot_must_reach_the_clock() {
        let mut search = Search::new(7);
        for (clock, fresh) in [(6, false), (7, true), (8, true)] {
            assert_eq!(search.accepts(&tail(clock)), Ok(fresh));
        }
    }

    #[test]
    fn a_read_that_is_late_says_what_was_asked_for_and_what_there_is() {
        let mut search = Search::new(57);
        assert!(matches!(search.late(), Failure::Unavailable(_)));
        for clock in [2, 3, 1] {
            assert_eq!(search.accepts(&tail(clock)), Ok(false));
        }
        let Failure::Stale(text) = search.late() else {
            panic!("a member has answered")
        };
        assert!(text.contains("57") && text.contains("at 3;"), "{text}");
    }

    #[test]
    fn a_clock_that_no_log_reaches_is_refused_at_once() {
        let mut search = Search::new(CLOCK_AHEAD_MAX + 4);
        assert_eq!(search.accepts(&tail(4)), Ok(false));
        assert!(matches!(search.accepts(&tail(3)), Err(Failure::Invalid(_))));
    }
}
