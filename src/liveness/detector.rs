//! The failure detector: heartbeats in, beliefs out.
//!
//! Never does any IO and has no clock: a timer is an output, its end an input.

use std::collections::BTreeMap;

use crate::model::{Liveness, NodeName};

/// What happens to the detector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    /// The peer has sent something, or answered.
    Heard(NodeName),
    /// Nothing listens at the peer's address.
    Refused(NodeName),
    /// The timer of this peer has ended.
    Timeout(NodeName),
}

/// How long a timer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wait {
    /// As long as the heartbeats that may be missing take.
    Suspicion,
    /// As long as a suspect may be silent before it is down.
    Death,
}

/// What the task is to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output {
    Became(NodeName, Liveness),
    /// Start the peer's timer anew; it has only one.
    SetTimer(NodeName, Wait),
}

/// The beliefs of one node about its peers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Detector {
    peers: BTreeMap<NodeName, Liveness>,
}

impl Detector {
    /// A peer that was never heard is suspect, until it is heard or its first timer ends.
    pub fn new(peers: impl IntoIterator<Item = NodeName>) -> (Self, Vec<Output>) {
        let peers: BTreeMap<_, _> = peers
            .into_iter()
            .map(|peer| (peer, Liveness::Suspect))
            .collect();
        let timers = peers.keys().cloned();
        let timers = timers.map(|peer| Output::SetTimer(peer, Wait::Death));
        let timers = timers.collect();
        (Self { peers }, timers)
    }

    /// Takes one input and says what to do. Peers that it does not know are ignored.
    pub fn step(&mut self, input: Input) -> Vec<Output> {
        match input {
            Input::Heard(peer) => self.become_(peer, Liveness::Alive, Some(Wait::Suspicion)),
            Input::Refused(peer) => self.become_(peer, Liveness::Down, None),
            Input::Timeout(peer) => match self.peers.get(&peer) {
                Some(Liveness::Alive) => self.become_(peer, Liveness::Suspect, Some(Wait::Death)),
                Some(Liveness::Suspect) => self.become_(peer, Liveness::Down, None),
                Some(Liveness::Down) | None => Vec::new(),
            },
        }
    }

    fn become_(&mut self, peer: NodeName, now: Liveness, timer: Option<Wait>) -> Vec<Output> {
        let Some(known) = self.peers.get_mut(&peer) else {
            return Vec::new();
        };
        let mut out = Vec::new();
        if *known != now {
            *known = now;
            out.push(Output::Became(peer.clone(), now));
        }
        out.extend(timer.map(|wait| Output::SetTimer(peer, wait)));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).unwrap()
    }

    fn detector() -> Detector {
        Detector::new([name("n2"), name("n3")]).0
    }

    #[test]
    fn silence_makes_a_peer_suspect_and_then_down() {
        let (mut detector, timers) = Detector::new([name("n2")]);
        assert_eq!(timers, [Output::SetTimer(name("n2"), Wait::Death)]);
        assert_eq!(
            detector.step(Input::Heard(name("n2"))),
            [
                Output::Became(name("n2"), Liveness::Alive),
                Output::SetTimer(name("n2"), Wait::Suspicion),
            ]
        );
        assert_eq!(
            detector.step(Input::Timeout(name("n2"))),
            [
                Output::Became(name("n2"), Liveness::Suspect),
                Output::SetTimer(name("n2"), Wait::Death),
            ]
        );
        assert_eq!(
            detector.step(Input::Timeout(name("n2"))),
            [Output::Became(name("n2"), Liveness::Down)]
        );
        assert_eq!(detector.step(Input::Timeout(name("n2"))), []);
    }

    #[test]
    fn each_heartbeat_begins_the_wait_anew() {
        let mut detector = detector();
        detector.step(Input::Heard(name("n2")));
        assert_eq!(
            detector.step(Input::Heard(name("n2"))),
            [Output::SetTimer(name("n2"), Wait::Suspicion)]
        );
    }

    #[test]
    fn a_refused_connection_is_enough_and_a_heartbeat_undoes_it() {
        let mut detector = detector();
        detector.step(Input::Heard(name("n2")));
        assert_eq!(
            detector.step(Input::Refused(name("n2"))),
            [Output::Became(name("n2"), Liveness::Down)]
        );
        assert_eq!(detector.step(Input::Refused(name("n2"))), []);
        let heard = detector.step(Input::Heard(name("n2")));
        assert_eq!(heard[0], Output::Became(name("n2"), Liveness::Alive));
    }

    #[test]
    fn strangers_are_ignored() {
        let mut detector = detector();
        let before = detector.clone();
        for input in [Input::Heard, Input::Refused, Input::Timeout] {
            assert_eq!(detector.step(input(name("n9"))), []);
        }
        assert_eq!(detector, before);
    }
}
