//! Which members stand still: there is something to copy, and they do not apply it. Pure.
//!
//! One that is frozen answers nobody. One whose storage is locked (`fsyncLock` for a backup) or hangs
//! answers, votes, and holds up whoever copies from it. How far it lags does not tell: where a
//! majority needs it, the primary itself goes no further.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::store::MemberLook;

/// A secondary that applies nothing for so long, while the primary is ahead, stands still.
const STILL_AFTER: Duration = Duration::from_millis(500);

/// How far the secondaries were at the looks until now.
#[derive(Debug, Default)]
pub struct Stillness {
    /// Those that are behind: how far each is, and since when it is there.
    behind: BTreeMap<String, (i64, Instant)>,
}

impl Stillness {
    /// Takes in another look, and says who stands still.
    pub fn look(&mut self, members: &[MemberLook], now: Instant) -> BTreeSet<String> {
        let primary = members.iter().find(|member| member.state == "primary");
        let Some(end) = primary.and_then(|primary| primary.applied_ms) else {
            self.behind.clear();
            return BTreeSet::new();
        };
        let before = std::mem::take(&mut self.behind);
        let secondaries = members.iter().filter(|member| member.state == "secondary");
        for member in secondaries {
            let Some(applied) = member.applied_ms.filter(|applied| *applied < end) else {
                continue;
            };
            let same = before.get(&member.host).filter(|(at, _)| *at == applied);
            let since = same.map_or(now, |(_, since)| *since);
            self.behind.insert(member.host.clone(), (applied, since));
        }
        let stands = |since: &Instant| now.duration_since(*since) >= STILL_AFTER;
        let still = self.behind.iter().filter(|(_, (_, since))| stands(since));
        still.map(|(host, _)| host.clone()).collect()
    }

    /// Whether a secondary was behind at the last look: the next look is to come soon.
    pub fn is_anyone_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    pub fn forget(&mut self) {
        self.behind.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(host: &str, state: &str, applied_ms: Option<i64>) -> MemberLook {
        MemberLook {
            host: host.into(),
            state: state.into(),
            applied_ms,
            round_trip: None,
            sync_source: None,
            term: Some(1),
            index: None,
            apart: None,
        }
    }

    /// Primary a and secondaries b and c, which have applied this much.
    fn set(a: i64, b: i64, c: i64) -> [MemberLook; 3] {
        [
            member("a", "primary", Some(a)),
            member("b", "secondary", Some(b)),
            member("c", "secondary", Some(c)),
        ]
    }

    fn after(begun: Instant, ms: u64) -> Instant {
        begun + Duration::from_millis(ms)
    }

    #[test]
    fn one_that_applies_nothing_while_the_primary_is_ahead_stands_still() {
        let (mut stillness, begun) = (Stillness::default(), Instant::now());
        assert!(stillness.look(&set(9, 7, 8), begun).is_empty());
        assert!(stillness.is_anyone_behind());
        assert!(stillness.look(&set(9, 7, 8), after(begun, 499)).is_empty());
        let still = stillness.look(&set(10, 7, 9), after(begun, 500));
        assert_eq!(still, BTreeSet::from(["b".to_owned()]));
        assert!(stillness.look(&set(10, 8, 9), after(begun, 600)).is_empty());
    }

    #[test]
    fn where_nothing_is_to_be_copied_nobody_stands_still() {
        let (mut stillness, begun) = (Stillness::default(), Instant::now());
        for ms in [0, 500, 1_000, 60_000] {
            let still = stillness.look(&set(9, 9, 9), after(begun, ms));
            assert!(still.is_empty() && !stillness.is_anyone_behind());
        }
        // The time counts from when it was first seen behind.
        assert!(
            stillness
                .look(&set(10, 9, 9), after(begun, 60_500))
                .is_empty()
        );
        assert_eq!(
            stillness.look(&set(10, 9, 9), after(begun, 61_000)).len(),
            2
        );
    }

    #[test]
    fn without_a_primary_that_tells_nobody_stands_still() {
        let (mut stillness, begun) = (Stillness::default(), Instant::now());
        stillness.look(&set(9, 7, 7), begun);
        let mut silent = set(9, 7, 7);
        silent[0].applied_ms = None;
        assert!(stillness.look(&silent, after(begun, 1_000)).is_empty());
        assert!(
            stillness
                .look(&set(9, 7, 7), after(begun, 1_100))
                .is_empty()
        );
        let mut unknown = set(9, 7, 7);
        unknown[1] = member("b", "down", Some(7));
        unknown[2].applied_ms = None;
        assert!(stillness.look(&unknown, after(begun, 5_000)).is_empty());
    }
}
