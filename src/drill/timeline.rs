//! What was seen of members and nodes over time. Pure.

use super::report::{Lane, Span};

/// Changes kept of one member or node; a run has some tens.
const CHANGES_MAX: usize = 20_000;

/// What a member was at one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSeen {
    pub state: String,
    pub term: Option<i64>,
    /// The term of the newest write that it knows a majority to hold.
    pub committed_term: Option<i64>,
}

/// What a node said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSeen {
    /// `down` if it said nothing.
    pub role: String,
    pub epoch: Option<i64>,
}

/// The changes of one of them.
#[derive(Debug, Clone)]
pub struct Track<T> {
    pub name: String,
    changes: Vec<(u64, T)>,
}

impl<T: PartialEq + Clone> Track<T> {
    pub fn new(name: String) -> Self {
        Self {
            name,
            changes: Vec::new(),
        }
    }

    /// Notes a look at `ns`, if it shows something new.
    pub fn see(&mut self, ns: u64, seen: T) {
        let known = self.changes.last().is_some_and(|(_, last)| *last == seen);
        if !known && self.changes.len() < CHANGES_MAX {
            self.changes.push((ns, seen));
        }
    }

    pub fn last(&self) -> Option<&T> {
        self.changes.last().map(|(_, seen)| seen)
    }

    /// The changes from `ns` on.
    fn since(&self, ns: u64) -> impl Iterator<Item = &(u64, T)> {
        self.changes.iter().filter(move |(at, _)| *at >= ns)
    }

    fn lane(&self, start_ns: u64, end_ns: u64, show: impl Fn(&T) -> (String, Option<i64>)) -> Lane {
        let mut spans: Vec<Span> = Vec::new();
        let millis = |ns: u64| ns.clamp(start_ns, end_ns).saturating_sub(start_ns) / 1_000_000;
        for (number, (at, seen)) in self.changes.iter().enumerate() {
            let (state, term) = show(seen);
            let until = self.changes.get(number + 1).map_or(end_ns, |(at, _)| *at);
            match spans.last_mut() {
                Some(last) if last.state == state && last.term == term => {
                    last.to_ms = millis(until);
                }
                _ if millis(*at) == millis(until) => {}
                _ => spans.push(Span {
                    from_ms: millis(*at),
                    to_ms: millis(until),
                    state,
                    term,
                }),
            }
        }
        Lane {
            name: self.name.clone(),
            spans,
        }
    }
}

/// Everything that was seen.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    pub members: Vec<Track<MemberSeen>>,
    pub nodes: Vec<Track<NodeSeen>>,
}

/// The moments in which an outage falls apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moments {
    pub detected_ns: Option<u64>,
    pub elected_ns: Option<u64>,
    pub recovered_ns: Option<u64>,
}

/// Who leads now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Situation {
    pub primary: Option<String>,
    pub term: Option<i64>,
    pub coordinator: Option<String>,
    pub epoch: Option<i64>,
}

impl Timeline {
    pub fn new(members: &[String], nodes: &[String]) -> Self {
        Self {
            members: members.iter().cloned().map(Track::new).collect(),
            nodes: nodes.iter().cloned().map(Track::new).collect(),
        }
    }

    /// Who led by the last looks; of two that say so, the one of the newest term or epoch.
    pub fn situation(&self) -> Situation {
        let members = self.members.iter();
        let primaries = members.filter_map(|track| Some((track, track.last()?)));
        let primary = primaries
            .filter(|(_, seen)| seen.state == "primary")
            .max_by_key(|(_, seen)| seen.term);
        let nodes = self.nodes.iter();
        let said = nodes.filter_map(|track| Some((track, track.last()?)));
        let coordinator = said
            .filter(|(_, seen)| seen.role == "coordinator")
            .max_by_key(|(_, seen)| seen.epoch);
        let terms = self.members.iter().filter_map(|track| track.last()?.term);
        let epochs = self.nodes.iter().filter_map(|track| track.last()?.epoch);
        Situation {
            primary: primary.map(|(track, _)| track.name.clone()),
            term: terms.max(),
            coordinator: coordinator.map(|(track, _)| track.name.clone()),
            epoch: epochs.max(),
        }
    }

    /// How MongoDB came to a primary of a later term than `before`.
    pub fn election(&self, before: &Situation, from_ns: u64) -> Moments {
        let old = before.term.unwrap_or(0);
        let first = |is: &dyn Fn(&MemberSeen) -> bool| {
            let tracks = self.members.iter();
            let found = tracks.filter_map(|track| {
                let mut changes = track.since(from_ns);
                changes.find(|(_, seen)| is(seen)).map(|(at, _)| *at)
            });
            found.min()
        };
        let later = |term: Option<i64>| term.is_some_and(|term| term > old);
        Moments {
            detected_ns: first(&|seen| later(seen.term)),
            elected_ns: first(&|seen| seen.state == "primary" && later(seen.term)),
            recovered_ns: first(&|seen| later(seen.committed_term)),
        }
    }

    /// How the nodes came to another coordinator than `before`.
    pub fn claim(&self, before: &Situation, from_ns: u64) -> Moments {
        let others = || {
            let is_old = |name: &String| before.coordinator.as_ref() == Some(name);
            self.nodes.iter().filter(move |track| !is_old(&track.name))
        };
        let first = |role: &[&str]| {
            let found = others().filter_map(|track| {
                let mut changes = track.since(from_ns);
                changes
                    .find(|(_, seen)| role.contains(&seen.role.as_str()))
                    .map(|(at, _)| *at)
            });
            found.min()
        };
        Moments {
            detected_ns: first(&["electing", "coordinator"]),
            elected_ns: first(&["coordinator"]),
            recovered_ns: None,
        }
    }

    pub fn member_lanes(&self, start_ns: u64, end_ns: u64) -> Vec<Lane> {
        let show = |seen: &MemberSeen| (seen.state.clone(), seen.term);
        let members = self.members.iter();
        members
            .map(|track| track.lane(start_ns, end_ns, show))
            .collect()
    }

    pub fn node_lanes(&self, start_ns: u64, end_ns: u64) -> Vec<Lane> {
        let show = |seen: &NodeSeen| (seen.role.clone(), None);
        let nodes = self.nodes.iter();
        nodes
            .map(|track| track.lane(start_ns, end_ns, show))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn seen(state: &str, term: i64, committed: i64) -> MemberSeen {
        MemberSeen {
            state: state.into(),
            term: Some(term),
            committed_term: Some(committed),
        }
    }

    fn failover() -> Timeline {
        let mut timeline = Timeline::new(&["a".into(), "b".into()], &[]);
        timeline.members[0].see(0, seen("primary", 4, 4));
        timeline.members[0].see(110 * MS, seen("down", 4, 4));
        timeline.members[1].see(0, seen("secondary", 4, 4));
        timeline.members[1].see(10 * MS, seen("secondary", 4, 4));
        timeline.members[1].see(150 * MS, seen("secondary", 5, 4));
        timeline.members[1].see(170 * MS, seen("primary", 5, 4));
        timeline.members[1].see(230 * MS, seen("primary", 5, 5));
        timeline
    }

    #[test]
    fn an_election_falls_into_its_moments() {
        let timeline = failover();
        let before = Situation {
            primary: Some("a".into()),
            term: Some(4),
            ..Situation::default()
        };
        let moments = timeline.election(&before, 100 * MS);
        assert_eq!(moments.detected_ns, Some(150 * MS));
        assert_eq!(moments.elected_ns, Some(170 * MS));
        assert_eq!(moments.recovered_ns, Some(230 * MS));
        let now = timeline.situation();
        assert_eq!((now.primary.as_deref(), now.term), (Some("b"), Some(5)));
    }

    #[test]
    fn a_lane_holds_states_and_terms_without_gaps() {
        let lane = &failover().member_lanes(0, 300 * MS)[1];
        let spans = lane.spans.iter();
        let spans: Vec<_> = spans
            .map(|span| (span.from_ms, span.to_ms, span.state.as_str(), span.term))
            .collect();
        assert_eq!(
            spans,
            [
                (0, 150, "secondary", Some(4)),
                (150, 170, "secondary", Some(5)),
                (170, 300, "primary", Some(5))
            ]
        );
    }
}
