//! The cluster at a glance: nodes, members, and how far the log has come.
//!
//! Never does IO: it puts together what others have seen.

use serde::{Deserialize, Serialize};

use crate::model::{Liveness, Role};
use crate::store::{MemberLook, Tail};

/// What one node knows of its cluster. The JSON form is what `/status` sends and
/// `drumline status -o json` prints; what is not known is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// The coordinator's name.
    pub coordinator: Option<String>,
    pub epoch: Option<i64>,
    /// The last position of the log that this node knows to be durable.
    pub position: Option<i64>,
    /// The last stamp up to there.
    pub stamp: Option<StampView>,
    /// The primary's host.
    pub primary: Option<String>,
    /// MongoDB's term.
    pub term: Option<i64>,
    pub nodes: Vec<NodeView>,
    pub members: Vec<MemberView>,
    /// What keeps the node that was asked from serving, with the way out. Left out if there is
    /// nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
}

/// A stamp: its counter, and the node that gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StampView {
    pub t: i64,
    pub n: String,
}

/// The nodes, as the one that was asked believes them to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodesView {
    /// The name of the node that it takes for coordinator, even if it does not hear it.
    pub coordinator: Option<String>,
    pub nodes: Vec<NodeView>,
}

/// A node, as the one that was asked believes it to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    pub name: String,
    pub url: String,
    /// The number that it drew for elections.
    pub rank: Option<u64>,
    pub role: Option<Role>,
    pub state: Liveness,
}

/// A member of the replica set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberView {
    pub host: String,
    /// `primary`, `secondary`, `down`, or MongoDB's name of any other state in lower case.
    pub state: String,
    /// How much older than the primary's its last write is, in milliseconds.
    pub lag_ms: Option<i64>,
    /// One `hello` and back, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// The member that it copies the oplog from.
    pub sync_source: Option<String>,
    /// Clients do not see it. Left out if they do.
    #[serde(default, skip_serializing_if = "is_false")]
    pub hidden: bool,
    /// How far behind it is held on purpose, in seconds. Left out if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_s: Option<i64>,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out a reference"
)]
fn is_false(value: &bool) -> bool {
    !*value
}

impl ClusterView {
    /// `tail` is the end of the log, as far as it is known.
    pub fn new(known: NodesView, members: &[MemberLook], tail: Option<&Tail>) -> Self {
        let primary = primary(members);
        Self {
            coordinator: known.coordinator,
            epoch: tail.map(|tail| tail.epoch.0),
            position: tail.map(|tail| tail.position.0),
            stamp: tail.and_then(stamp),
            primary: primary.map(|member| member.host.clone()),
            term: members.iter().filter_map(|member| member.term).max(),
            members: members
                .iter()
                .map(|member| member_view(member, primary))
                .collect(),
            nodes: known.nodes,
            faults: Vec::new(),
        }
    }

    /// Why the cluster is degraded, one line each; empty if all is well.
    pub fn troubles(&self) -> Vec<String> {
        let mut troubles = self.faults.clone();
        if self.coordinator.is_none() {
            troubles.push("no node is coordinator".to_owned());
        }
        troubles.extend(self.nodes.iter().filter_map(|node| self.trouble_of(node)));
        if self.primary.is_none() {
            troubles.push("the replica set has no primary".to_owned());
        }
        let ill = self.members.iter().filter(|member| !member.is_well());
        troubles.extend(ill.map(|member| format!("{} is {}", member.host, member.state)));
        troubles
    }

    fn trouble_of(&self, node: &NodeView) -> Option<String> {
        let name = &node.name;
        if node.state != Liveness::Alive {
            return Some(format!("{name} is {}", node.state));
        }
        // Without any coordinator all nodes are electing, and that was said.
        let alone = node.role == Some(Role::Electing) && self.coordinator.is_some();
        alone.then(|| format!("{name} knows no coordinator"))
    }
}

impl MemberView {
    /// Whether it does what a member should.
    pub fn is_well(&self) -> bool {
        matches!(self.state.as_str(), "primary" | "secondary" | "arbiter")
    }
}

/// One that was cut off may still call itself primary: the newest term counts.
fn primary(members: &[MemberLook]) -> Option<&MemberLook> {
    let primaries = members.iter().filter(|member| member.state == "primary");
    primaries.max_by_key(|member| member.term)
}

fn member_view(look: &MemberLook, primary: Option<&MemberLook>) -> MemberView {
    let newest = primary.and_then(|primary| primary.applied_ms);
    let lag = |(newest, own): (i64, i64)| newest.saturating_sub(own).max(0);
    MemberView {
        host: look.host.clone(),
        state: look.state.clone(),
        lag_ms: newest.zip(look.applied_ms).map(lag),
        rtt_ms: look
            .round_trip
            .map(|time| time.as_micros() as f64 / 1_000.0),
        sync_source: look.sync_source.clone(),
        hidden: look.apart.is_some_and(|apart| apart.hidden),
        delay_s: look
            .apart
            .map(|apart| apart.delay)
            .filter(|delay| *delay > 0),
    }
}

fn stamp(tail: &Tail) -> Option<StampView> {
    Some(StampView {
        t: tail.clock,
        n: tail.node.as_ref()?.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Epoch, NodeName, Position};

    fn node(name: &str, role: Role, state: Liveness) -> NodeView {
        NodeView {
            name: name.into(),
            url: format!("http://{name}:1"),
            rank: Some(u64::MAX),
            role: Some(role),
            state,
        }
    }

    fn member(host: &str, state: &str, applied_ms: i64, term: i64) -> MemberLook {
        MemberLook {
            host: host.into(),
            state: state.into(),
            applied_ms: Some(applied_ms),
            round_trip: Some(Duration::from_micros(1_234)),
            sync_source: None,
            term: Some(term),
            index: None,
            apart: None,
        }
    }

    fn silent(host: &str) -> MemberLook {
        MemberLook {
            applied_ms: None,
            round_trip: None,
            term: None,
            index: None,
            ..member(host, "down", 0, 0)
        }
    }

    fn healthy() -> (Vec<NodeView>, Vec<MemberLook>) {
        let nodes = vec![
            node("n1", Role::Coordinator, Liveness::Alive),
            node("n2", Role::Follower, Liveness::Alive),
        ];
        let members = vec![
            member("a:1", "primary", 5_000, 3),
            member("b:1", "secondary", 4_988, 3),
            member("c:1", "secondary", 5_001, 3),
        ];
        (nodes, members)
    }

    fn known(nodes: Vec<NodeView>) -> NodesView {
        let leads = |node: &&NodeView| {
            node.role == Some(Role::Coordinator) && node.state == Liveness::Alive
        };
        let coordinator = nodes.iter().find(leads).map(|node| node.name.clone());
        NodesView { coordinator, nodes }
    }

    fn troubles(nodes: Vec<NodeView>, members: &[MemberLook]) -> Vec<String> {
        ClusterView::new(known(nodes), members, None).troubles()
    }

    #[test]
    fn the_json_form_is_exact() {
        let (mut nodes, members) = healthy();
        nodes.truncate(1);
        let tail = Tail {
            position: Position(7),
            epoch: Epoch(2),
            clock: 9,
            node: NodeName::parse("n1").ok(),
            batch: None,
        };
        let view = ClusterView::new(known(nodes), &members[..2], Some(&tail));
        let json = serde_json::to_string(&view).unwrap();
        let expected = r#"{"coordinator":"n1","epoch":2,"position":7,"stamp":{"t":9,"n":"n1"},"primary":"a:1","term":3,
            "nodes":[{"name":"n1","url":"http://n1:1","rank":18446744073709551615,"role":"coordinator","state":"alive"}],
            "members":[{"host":"a:1","state":"primary","lag_ms":0,"rtt_ms":1.234,"sync_source":null},
            {"host":"b:1","state":"secondary","lag_ms":12,"rtt_ms":1.234,"sync_source":null}]}"#;
        let expected: String = expected.lines().map(str::trim_start).collect();
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<ClusterView>(&json).unwrap(), view);
    }

    #[test]
    fn what_is_not_known_is_null() {
        let view = ClusterView::new(NodesView::default(), &[silent("a:1")], None);
        assert_eq!(
            serde_json::to_string(&view).unwrap(),
            r#"{"coordinator":null,"epoch":null,"position":null,"stamp":null,"primary":null,"term":null,"nodes":[],"members":[{"host":"a:1","state":"down","lag_ms":null,"rtt_ms":null,"sync_source":null}]}"#
        );
    }

    #[test]
    fn lag_is_never_negative_and_unknown_without_a_primary() {
        let (nodes, mut members) = healthy();
        let lags = |members: &[MemberLook]| -> Vec<_> {
            let view = ClusterView::new(known(nodes.clone()), members, None);
            view.members.iter().map(|member| member.lag_ms).collect()
        };
        assert_eq!(lags(&members), [Some(0), Some(12), Some(0)]);
        members[0] = silent("a:1");
        assert_eq!(lags(&members), [None, None, None]);
    }

    #[test]
    fn of_two_primaries_the_one_of_the_newer_term_counts() {
        let (nodes, mut members) = healthy();
        members[1] = member("b:1", "primary", 6_000, 4);
        let view = ClusterView::new(known(nodes), &members, None);
        assert_eq!((view.primary.as_deref(), view.term), (Some("b:1"), Some(4)));
    }

    #[test]
    fn each_trouble_is_named() {
        let (nodes, members) = healthy();
        assert!(troubles(nodes.clone(), &members).is_empty());

        let mut ill = nodes.clone();
        ill[1].state = Liveness::Suspect;
        assert_eq!(troubles(ill.clone(), &members), ["n2 is suspect"]);
        ill[1].state = Liveness::Down;
        assert_eq!(troubles(ill.clone(), &members), ["n2 is down"]);
        ill[1] = node("n2", Role::Electing, Liveness::Alive);
        assert_eq!(troubles(ill, &members), ["n2 knows no coordinator"]);

        let electing = vec![node("n1", Role::Electing, Liveness::Alive)];
        assert_eq!(troubles(electing, &members), ["no node is coordinator"]);
        // A coordinator that does not live is none.
        let dead = vec![node("n1", Role::Coordinator, Liveness::Down)];
        assert_eq!(
            troubles(dead, &members),
            ["no node is coordinator", "n1 is down"]
        );

        let mut lost = members.clone();
        lost[0] = silent("a:1");
        lost[1].state = "recovering".into();
        assert_eq!(
            troubles(nodes.clone(), &lost),
            [
                "the replica set has no primary",
                "a:1 is down",
                "b:1 is recovering"
            ]
        );
        let mut with_arbiter = members;
        with_arbiter[2].state = "arbiter".into();
        assert!(troubles(nodes, &with_arbiter).is_empty());
    }
}
