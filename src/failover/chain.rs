//! Who should copy the oplog from whom: the successor from the primary, the other secondary from the
//! successor. Pure.
//!
//! When the primary is lost, the successor is elected and the other one copies from it already. A
//! secondary that copies from a frozen primary would notice that after 10 s (docs/failover.md).

use std::collections::BTreeSet;

use crate::store::MemberLook;

/// A secondary that is farther behind is no successor.
const LAG_MAX_MS: i64 = 2_000;

/// A member that is to copy from another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub member: String,
    pub source: String,
}

/// The next change towards the chain; `None` if it stands, or if this is no set of three with two
/// members that answer at least. `still` are those that stand still: nobody is to copy from them.
pub fn plan(members: &[MemberLook], still: &BTreeSet<String>) -> Option<Change> {
    let primary = members.iter().find(|member| member.state == "primary")?;
    let secondaries: Vec<_> = members
        .iter()
        .filter(|member| member.state == "secondary")
        .collect();
    match secondaries[..] {
        [one, other] if members.len() == 3 => {
            // Whether one that copies from it would stand still too is not known yet.
            let held_up = |(by, held): (&MemberLook, &MemberLook)| {
                still.contains(&by.host) && held.sync_source.as_ref() == Some(&by.host)
            };
            match [(one, other), (other, one)]
                .into_iter()
                .find(|pair| held_up(*pair))
            {
                Some((_, held)) => follow(held, primary),
                None => chain(primary, one, other, still),
            }
        }
        // The member that it copied from is lost, or on its way to it.
        [lone] if members.len() == 3 => follow(lone, primary),
        _ => None,
    }
}

fn chain(
    primary: &MemberLook,
    one: &MemberLook,
    other: &MemberLook,
    still: &BTreeSet<String>,
) -> Option<Change> {
    let fit = |member: &MemberLook| keeps_up(member, primary) && !still.contains(&member.host);
    let (successor, trailing) = match (fit(one), fit(other)) {
        (false, false) => return None,
        (true, false) => (one, other),
        (false, true) => (other, one),
        // The one that MongoDB prefers when a primary steps down: of equals the first in its
        // configuration.
        (true, true) if place(other) < place(one) => (other, one),
        (true, true) => (one, other),
    };
    if successor.sync_source.as_ref() != Some(&primary.host) {
        return follow(successor, primary);
    }
    // One that lags is left to catch up.
    if !fit(trailing) {
        return None;
    }
    follow(trailing, successor)
}

/// The change that is needed, if it is known where the member copies from.
fn follow(member: &MemberLook, source: &MemberLook) -> Option<Change> {
    let now = member.sync_source.as_ref()?;
    (*now != source.host).then(|| Change {
        member: member.host.clone(),
        source: source.host.clone(),
    })
}

fn place(member: &MemberLook) -> (usize, &str) {
    (member.index.unwrap_or(usize::MAX), &member.host)
}

fn keeps_up(member: &MemberLook, primary: &MemberLook) -> bool {
    let lag = primary.applied_ms.zip(member.applied_ms);
    lag.is_some_and(|(primary, member)| primary - member <= LAG_MAX_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(host: &str, state: &str, source: Option<&str>) -> MemberLook {
        MemberLook {
            host: host.into(),
            state: state.into(),
            applied_ms: Some(10_000),
            round_trip: None,
            sync_source: source.map(str::to_owned),
            term: Some(1),
            index: None,
            apart: None,
        }
    }

    /// Primary a, secondaries b and c with these sources.
    fn set(b: &str, c: &str) -> [MemberLook; 3] {
        [
            member("a", "primary", None),
            member("b", "secondary", Some(b)),
            member("c", "secondary", Some(c)),
        ]
    }

    fn planned(members: &[MemberLook]) -> Option<Change> {
        plan(members, &BTreeSet::new())
    }

    fn still(hosts: &[&str]) -> BTreeSet<String> {
        hosts.iter().map(|host| (*host).to_owned()).collect()
    }

    fn change(member: &str, source: &str) -> Option<Change> {
        Some(Change {
            member: member.into(),
            source: source.into(),
        })
    }

    #[test]
    fn a_star_becomes_a_chain_and_a_chain_stays() {
        assert_eq!(planned(&set("a", "a")), change("c", "b"));
        assert_eq!(planned(&set("a", "b")), None);
    }

    #[test]
    fn the_successor_is_the_first_in_the_configuration() {
        assert_eq!(planned(&set("c", "a")), change("b", "a"));
        let mut numbered = set("c", "a");
        numbered[1].index = Some(2);
        numbered[2].index = Some(1);
        assert_eq!(planned(&numbered), None);
    }

    #[test]
    fn from_any_sources_the_chain_is_reached() {
        for b in ["a", "c", "gone"] {
            for c in ["a", "b", "gone"] {
                let mut set = set(b, c);
                let mut changes = 0;
                while let Some(change) = planned(&set) {
                    let member = set.iter_mut().find(|member| member.host == change.member);
                    member.unwrap().sync_source = Some(change.source);
                    changes += 1;
                    assert!(changes <= 2, "from {b} and {c}");
                }
            }
        }
    }

    #[test]
    fn nobody_copies_from_one_that_lags() {
        let mut lagging = set("a", "b");
        lagging[1].applied_ms = Some(1_000);
        assert_eq!(planned(&lagging), change("c", "a"));
        lagging[2].sync_source = Some("a".into());
        assert_eq!(planned(&lagging), None, "b is left to catch up");
        lagging[2].applied_ms = None;
        assert_eq!(planned(&lagging), None);
    }

    #[test]
    fn nobody_copies_from_one_that_stands_still() {
        // c copies from b, so it stands still too.
        let chained = set("a", "b");
        assert_eq!(plan(&chained, &still(&["b", "c"])), change("c", "a"));
        assert_eq!(plan(&chained, &still(&["b"])), change("c", "a"));
        assert_eq!(plan(&set("c", "a"), &still(&["c"])), change("b", "a"));
        // Nothing holds up anybody any more, and no chain is made over it.
        let star = set("a", "a");
        assert_eq!(plan(&star, &still(&["b"])), None);
        assert_eq!(plan(&star, &still(&["c"])), None);
        assert_eq!(plan(&star, &still(&["b", "c"])), None);
        assert_eq!(plan(&star, &still(&[])), change("c", "b"));
    }

    #[test]
    fn the_last_secondary_copies_from_the_primary() {
        let mut lost = set("a", "b");
        lost[1] = member("b", "down", None);
        assert_eq!(planned(&lost), change("c", "a"));
    }

    #[test]
    fn what_is_not_known_is_left_alone() {
        assert_eq!(planned(&[]), None);
        let mut unknown = set("a", "a");
        unknown[2].sync_source = None;
        assert_eq!(planned(&unknown), None);
        // A primary that has stepped down rests before it copies: nobody must depend on it.
        let resting = [
            member("a", "secondary", None),
            member("b", "primary", None),
            member("c", "secondary", Some("b")),
        ];
        assert_eq!(planned(&resting), None);
        let mut headless = set("a", "a");
        headless[0].state = "down".into();
        assert_eq!(planned(&headless), None);
        let mut five = set("a", "a").to_vec();
        five.extend(["d", "e"].map(|host| member(host, "secondary", Some("a"))));
        assert_eq!(planned(&five), None);
    }
}
