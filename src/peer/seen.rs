//! Which messages of the peers have come already, in a memory that does not grow with their number.

use std::collections::BTreeMap;

use bson::Uuid;

use super::refused::Refused;
use crate::model::NodeName;
use crate::model::limits::{MESSAGE_AGE_MAX, MESSAGES_BEHIND_MAX as BEHIND_MAX};

const WORDS: usize = (BEHIND_MAX / 64) as usize;
/// Processes of one peer whose messages could still be in time. A node that is started anew more
/// often than this in some seconds has to wait.
const PROCESSES_MAX: usize = 8;

/// The messages that were taken, by peer and process.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<NodeName, Vec<Process>>);

/// A process numbers its messages from 1.
#[derive(Debug)]
struct Process {
    id: Uuid,
    newest: u64,
    /// A bit for each of the last [`BEHIND_MAX`] numbers, at the number modulo their count.
    taken: Box<[u64; WORDS]>,
    /// When a message of it was taken last, in milliseconds.
    heard: u64,
}

impl Seen {
    /// Takes this message, unless it was taken before. `now` is in milliseconds.
    pub(super) fn take(
        &mut self,
        from: &NodeName,
        process: Uuid,
        number: u64,
        now: u64,
    ) -> Result<(), Refused> {
        let processes = self.0.entry(from.clone()).or_default();
        if let Some(known) = processes.iter_mut().find(|known| known.id == process) {
            known.take(number)?;
            known.heard = now;
            return Ok(());
        }
        // What was taken was at most so old, or so early: by now its time keeps it out.
        let over = 2 * u64::try_from(MESSAGE_AGE_MAX.as_millis()).unwrap_or(u64::MAX);
        processes.retain(|known| now.saturating_sub(known.heard) <= over);
        if processes.len() >= PROCESSES_MAX {
            return Err(Refused::Crowded(from.clone()));
        }
        processes.push(Process {
            id: process,
            newest: number,
            taken: Box::new([0; WORDS]),
            heard: now,
        });
        processes
            .last_mut()
            .map_or(Ok(()), |fresh| fresh.take(number))
    }
}

impl Process {
    fn take(&mut self, number: u64) -> Result<(), Refused> {
        let ahead = number.saturating_sub(self.newest);
        if ahead >= BEHIND_MAX {
            self.taken.fill(0);
        } else if ahead > 0 {
            for between in self.newest + 1..=number {
                let (word, bit) = place(between);
                if let Some(word) = self.taken.get_mut(word) {
                    *word &= !bit;
                }
            }
        }
        self.newest = self.newest.max(number);
        let (word, bit) = place(number);
        match self.taken.get_mut(word) {
            Some(word) if self.newest - number < BEHIND_MAX && *word & bit == 0 => {
                *word |= bit;
                Ok(())
            }
            _ => Err(Refused::Repeated),
        }
    }
}

/// The word and the bit of a number.
const fn place(number: u64) -> (usize, u64) {
    // Smaller than the number of words.
    #[allow(clippy::cast_possible_truncation, reason = "it is below BEHIND_MAX")]
    let at = (number % BEHIND_MAX) as usize;
    (at / 64, 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> NodeName {
        NodeName::parse("n1").unwrap()
    }

    #[test]
    fn each_number_is_taken_once_in_any_order() {
        let (mut seen, process) = (Seen::default(), Uuid::new());
        let mut take = |number| seen.take(&name(), process, number, 0).is_ok();
        // As many as the memory holds, the second half first, then all again.
        let half = BEHIND_MAX / 2;
        assert!((half..BEHIND_MAX).chain(0..half).all(&mut take));
        assert!(!(0..BEHIND_MAX).any(&mut take));
        // It forgets none of them when newer ones come, near ones or far ones.
        for newer in [BEHIND_MAX, BEHIND_MAX + 7, 10 * BEHIND_MAX, u64::MAX] {
            assert!(take(newer), "{newer}");
            assert!(!take(newer), "{newer} again");
            assert!(!(0..BEHIND_MAX).any(&mut take), "after {newer}");
        }
        assert!(take(u64::MAX - BEHIND_MAX + 1));
        assert!(!take(u64::MAX - BEHIND_MAX), "too far behind");
    }

    #[test]
    fn those_that_are_skipped_may_come_later() {
        let (mut seen, process) = (Seen::default(), Uuid::new());
        let mut take = |number| seen.take(&name(), process, number, 0);
        let beyond = BEHIND_MAX + 1000;
        for number in [1, 1000, beyond] {
            assert_eq!(take(number), Ok(()));
        }
        assert_eq!(take(1001), Ok(()), "just not too far behind");
        assert_eq!(take(1000), Err(Refused::Repeated));
        assert_eq!(take(beyond - 1), Ok(()));
    }

    #[test]
    fn processes_are_few_and_are_forgotten_when_their_messages_are_old() {
        let mut seen = Seen::default();
        let old: Vec<_> = (0..PROCESSES_MAX).map(|_| Uuid::new()).collect();
        for process in &old {
            assert_eq!(seen.take(&name(), *process, 1, 0), Ok(()));
        }
        let crowded = Err(Refused::Crowded(name()));
        assert_eq!(seen.take(&name(), Uuid::new(), 1, 10_000), crowded);
        assert_eq!(
            seen.take(&name(), old[0], 1, 10_000),
            Err(Refused::Repeated)
        );
        assert_eq!(seen.take(&name(), Uuid::new(), 1, 10_001), Ok(()));
        let other = NodeName::parse("n2").unwrap();
        assert_eq!(seen.take(&other, Uuid::new(), 1, 10_000), Ok(()));
    }
}
