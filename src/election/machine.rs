//! The election's decisions: messages, beliefs and looks at the log in; messages, looks and claims
//! out.
//!
//! Never does any IO and has no clock: timers are outputs. It may be wrong about who lives. The claim
//! in the log decides (I2, I8), so that a mistake costs a handover and never an acknowledged write.

use std::collections::BTreeMap;

use super::phase::{Evidence, Peer, Phase};
use super::steps::{Input, Looked, NotClaimed, Output, Patience, Timer};
use crate::model::{Beat, Epoch, Liveness, Message, NodeName, Rank, Role, Tenure};

/// The election's state in one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Machine {
    me: Rank,
    peers: BTreeMap<NodeName, Peer>,
    /// The largest epoch that is known.
    epoch: Epoch,
    phase: Phase,
    reaches: bool,
    leaving: bool,
    /// As coordinator: the dwell time has passed, a larger rank may take over.
    settled: bool,
    /// As coordinator: the abdication timer runs.
    abdicating: bool,
    /// The last epoch whose coordinator has said itself that it has ended: no voucher outweighs that.
    resigned: Epoch,
    /// A later claim has ended this node's last tenure.
    deposed: bool,
    version: u64,
}

impl Machine {
    pub fn new(me: Rank, peers: impl IntoIterator<Item = NodeName>) -> Self {
        let unknown = Peer {
            liveness: Liveness::Suspect,
            refused: false,
            beat: None,
        };
        let peers = peers.into_iter().map(|peer| (peer, unknown.clone()));
        Self {
            me,
            peers: peers.collect(),
            epoch: Epoch::ZERO,
            phase: Phase::Discovering,
            reaches: false,
            leaving: false,
            settled: false,
            abdicating: false,
            resigned: Epoch::ZERO,
            deposed: false,
            version: 0,
        }
    }

    /// Takes one input and says what to do. The only way in.
    pub fn step(&mut self, input: Input) -> Vec<Output> {
        let before = self.beat();
        let mut out = Vec::new();
        match input {
            Input::Start => out.push(Output::SetTimer(Timer::Discover)),
            Input::Heard {
                from,
                beat,
                message,
            } => self.heard(&from, beat, message, &mut out),
            Input::Became(peer, liveness) => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.liveness = liveness;
                    peer.refused &= liveness != Liveness::Alive;
                }
            }
            Input::Refused(peer) => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.liveness = Liveness::Down;
                    peer.refused = true;
                }
            }
            Input::Reaches(reaches) => self.reaches(reaches, &mut out),
            Input::Timeout(timer) => self.timeout(timer, &mut out),
            Input::Looked(looked) => self.looked(looked, &mut out),
            Input::Claimed(epoch) => self.claimed(epoch, &mut out),
            Input::NotClaimed(why) => self.not_claimed(why, &mut out),
            Input::LogFault => self.log_fault(&mut out),
            Input::Deposed(epoch) => self.deposed(epoch, &mut out),
            Input::Drained => self.drained(&mut out),
            Input::Leave => self.leave(&mut out),
        }
        self.check_discovery(&mut out);
        self.check_coordinator(&mut out);
        self.check_own_reach(&mut out);
        if self.beat() != before {
            self.version += 1;
        }
        out
    }

    /// What this node says of itself.
    pub fn beat(&self) -> Beat {
        Beat {
            rank: self.me.clone(),
            version: self.version,
            role: self.role(),
            coordinator: self.coordinator(),
            hears_coordinator: match &self.phase {
                Phase::Coordinating | Phase::HandingOver(_) => true,
                Phase::Following { tenure, evidence } => {
                    *evidence == Evidence::Heard
                        && self.liveness(&tenure.node) == Some(Liveness::Alive)
                }
                _ => false,
            },
            eligible: self.eligible(),
        }
    }

    pub const fn role(&self) -> Role {
        match &self.phase {
            Phase::Coordinating | Phase::HandingOver(_) => Role::Coordinator,
            Phase::Following { .. } | Phase::Looking(Some(_)) => Role::Follower,
            Phase::Discovering
            | Phase::Asking(_)
            | Phase::Waiting
            | Phase::Looking(None)
            | Phase::Claiming => Role::Electing,
        }
    }

    /// The coordinator that this node knows of; itself perhaps.
    pub fn coordinator(&self) -> Option<Tenure> {
        match &self.phase {
            Phase::Coordinating | Phase::HandingOver(_) => Some(Tenure {
                node: self.me.node.clone(),
                epoch: self.epoch,
            }),
            Phase::Following { tenure, .. } | Phase::Looking(Some(tenure)) => Some(tenure.clone()),
            _ => None,
        }
    }

    /// The largest epoch that this node knows.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether a peer may be cut off from this coordinator and watch for signs of its life.
    pub fn must_show_life(&self) -> bool {
        let cut_off = |peer: &Peer| peer.liveness != Liveness::Alive;
        self.role() == Role::Coordinator && self.peers.values().any(cut_off)
    }

    /// Each peer with what is believed of it, and its last word.
    pub fn peers(&self) -> impl Iterator<Item = (&NodeName, Liveness, Option<&Beat>)> {
        let peers = self.peers.iter();
        peers.map(|(name, peer)| (name, peer.liveness, peer.beat.as_ref()))
    }

    fn heard(&mut self, from: &NodeName, beat: Beat, message: Message, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(from) else {
            return;
        };
        let late = |known: &Beat| known.rank == beat.rank && known.version > beat.version;
        if !peer.beat.as_ref().is_some_and(late) {
            peer.beat = Some(beat.clone());
            self.learn(from, &beat, out);
        }
        match message {
            Message::Heartbeat | Message::Coordinator | Message::PrimaryLost { .. } => {}
            Message::Election => self.asked(from, &beat, out),
            Message::Answer => self.answered(out),
            Message::Request => self.requested(from, out),
            Message::Handover => self.handed_over(from, out),
        }
    }

    /// After each input of a new node: can everyone vote?
    fn check_discovery(&mut self, out: &mut Vec<Output>) {
        let all = self.peers.keys().all(|peer| self.is_candidate(peer));
        if self.phase == Phase::Discovering && all && self.eligible() {
            self.stand(Patience::None, out);
        }
    }

    /// Takes from a beat whom its sender takes for coordinator.
    fn learn(&mut self, from: &NodeName, beat: &Beat, out: &mut Vec<Output>) {
        let Some(tenure) = &beat.coordinator else {
            return;
        };
        let itself = tenure.node == *from;
        // Only those who hear a coordinator are believed: hearsay of hearsay would never end.
        if tenure.node == self.me.node || !beat.hears_coordinator {
            return;
        }
        if tenure.epoch > self.epoch {
            return self.later(tenure, itself, out);
        }
        if tenure.epoch < self.epoch || (!itself && tenure.epoch == self.resigned) {
            return;
        }
        match &mut self.phase {
            Phase::Following { evidence, .. } if itself => *evidence = Evidence::Heard,
            Phase::Discovering | Phase::Asking(_) | Phase::Waiting | Phase::Looking(_) => {
                self.follow(tenure, itself, out);
            }
            _ => {}
        }
    }

    /// A later epoch has begun than this node knew of.
    fn later(&mut self, tenure: &Tenure, itself: bool, out: &mut Vec<Output>) {
        if self.role() == Role::Coordinator {
            let before = self.epoch.next();
            out.push(Output::StepDown { before });
        }
        self.epoch = tenure.epoch;
        // A claim that is on its way cannot be called back: its end decides.
        if self.phase != Phase::Claiming {
            self.follow(tenure, itself, out);
        }
    }

    fn follow(&mut self, tenure: &Tenure, itself: bool, out: &mut Vec<Output>) {
        self.phase = Phase::Following {
            tenure: tenure.clone(),
            evidence: if itself {
                Evidence::Heard
            } else {
                Evidence::Told
            },
        };
        self.deposed = false;
        out.push(Output::SetTimer(Timer::Dwell));
        if !itself {
            out.push(Output::SetTimer(Timer::Confirm));
        }
    }

    /// A smaller rank would be coordinator.
    fn asked(&mut self, from: &NodeName, beat: &Beat, out: &mut Vec<Output>) {
        let hears = self.beat().hears_coordinator;
        if hears || !self.eligible() || beat.rank > self.me {
            // The beat that goes with the reply says all there is to say.
            return out.push(Output::Send(from.clone(), Message::Heartbeat));
        }
        out.push(Output::Send(from.clone(), Message::Answer));
        if matches!(self.phase, Phase::Discovering | Phase::Waiting) {
            self.stand(Patience::Long, out);
        }
    }

    fn answered(&mut self, out: &mut Vec<Output>) {
        if matches!(self.phase, Phase::Asking(_)) {
            self.wait(out);
        }
    }

    /// A larger rank would take over.
    fn requested(&mut self, from: &NodeName, out: &mut Vec<Output>) {
        let larger = self.rank_of(from).is_some_and(|rank| *rank > self.me);
        let may = self.settled && self.eligible() && self.is_candidate(from);
        if self.phase == Phase::Coordinating && larger && may {
            self.hand_over_to(from.clone(), out);
        }
    }

    fn hand_over_to(&mut self, successor: NodeName, out: &mut Vec<Output>) {
        self.phase = Phase::HandingOver(successor);
        out.push(Output::Drain);
    }

    fn drained(&mut self, out: &mut Vec<Output>) {
        let Phase::HandingOver(successor) = &self.phase else {
            return;
        };
        out.push(Output::Send(successor.clone(), Message::Handover));
        self.wait(out);
    }

    fn handed_over(&mut self, from: &NodeName, out: &mut Vec<Output>) {
        let meant = match &self.phase {
            Phase::Following { tenure, .. } => tenure.node == *from,
            phase => matches!(phase, Phase::Asking(_) | Phase::Waiting | Phase::Looking(_)),
        };
        if meant && self.eligible() {
            self.claim(out);
        }
    }

    fn leave(&mut self, out: &mut Vec<Output>) {
        self.leaving = true;
        if self.phase != Phase::Coordinating {
            return;
        }
        let candidates = self.peers.keys().filter(|peer| self.is_candidate(peer));
        let largest = candidates.max_by_key(|peer| self.rank_of(peer));
        if let Some(successor) = largest.cloned() {
            self.hand_over_to(successor, out);
        }
    }

    fn reaches(&mut self, reaches: bool, out: &mut Vec<Output>) {
        let gained = reaches && !self.reaches;
        self.reaches = reaches;
        if gained && self.phase == Phase::Waiting {
            self.stand(Patience::Long, out);
        }
    }

    fn timeout(&mut self, timer: Timer, out: &mut Vec<Output>) {
        match (timer, &self.phase) {
            (Timer::Discover, Phase::Discovering) => self.stand(Patience::Long, out),
            (Timer::Coordinator, Phase::Waiting) => self.go_on_alone(out),
            (Timer::Answer, Phase::Asking(patience)) => {
                let patience = *patience;
                self.look(patience, None, out);
            }
            (Timer::Confirm, Phase::Following { tenure, evidence }) => {
                let (tenure, evidence) = (tenure.clone(), *evidence);
                self.confirm(&tenure, evidence, out);
            }
            (Timer::Dwell, Phase::Coordinating) => self.settled = true,
            (Timer::Dwell, Phase::Following { tenure, .. }) => {
                let coordinator = tenure.node.clone();
                self.ask_to_hand_over(&coordinator, out);
            }
            (Timer::Abdicate, _) if self.is_stranded() => {
                self.abdicating = false;
                let before = self.epoch.next();
                out.push(Output::StepDown { before });
                self.wait(out);
            }
            _ => {}
        }
    }

    /// Whoever was to become coordinator has had its time. Larger ranks are not asked again: one
    /// that answers and never claims would keep all others waiting.
    fn go_on_alone(&mut self, out: &mut Vec<Output>) {
        match self.eligible() {
            true => self.look(Patience::Long, None, out),
            false => self.wait(out),
        }
    }

    /// A coordinator that was told of, or seen in the log, has had its time to be heard.
    fn confirm(&mut self, tenure: &Tenure, evidence: Evidence, out: &mut Vec<Output>) {
        match evidence {
            Evidence::Heard => {}
            _ if self.vouched_for(tenure) => out.push(Output::SetTimer(Timer::Confirm)),
            Evidence::Told => self.stand(self.patience_with(&tenure.node), out),
            Evidence::Log if self.is_usurped() => {}
            Evidence::Log => self.look(Patience::Long, Some(tenure.clone()), out),
        }
    }

    /// Asks a smaller rank to hand over, if this node is the one that should have it.
    fn ask_to_hand_over(&mut self, coordinator: &NodeName, out: &mut Vec<Output>) {
        out.push(Output::SetTimer(Timer::Dwell));
        let smaller = self
            .rank_of(coordinator)
            .is_some_and(|rank| *rank < self.me);
        let alive = self.liveness(coordinator) == Some(Liveness::Alive);
        if smaller && alive && self.eligible() && self.larger_candidates().is_empty() {
            out.push(Output::Send(coordinator.clone(), Message::Request));
        }
    }

    fn looked(&mut self, looked: Looked, out: &mut Vec<Output>) {
        if !matches!(self.phase, Phase::Looking(_)) {
            return;
        }
        match looked {
            Looked::Unreachable => self.wait(out),
            // A node that leaves could serve for a moment only.
            Looked::Quiet(_) if !self.eligible() => self.wait(out),
            Looked::Active(tenure) => {
                self.epoch = self.epoch.max(tenure.epoch);
                self.phase = Phase::Following {
                    tenure,
                    evidence: Evidence::Log,
                };
                out.push(Output::SetTimer(Timer::Confirm));
                out.push(Output::SetTimer(Timer::Dwell));
            }
            Looked::Quiet(Some(last)) if last.epoch > self.epoch => self.newer_claim(&last, out),
            Looked::Quiet(_) => self.claim(out),
        }
    }

    /// The log holds a claim that this node had not heard of.
    fn newer_claim(&mut self, last: &Tenure, out: &mut Vec<Output>) {
        self.epoch = last.epoch;
        match self.liveness(&last.node) {
            // It may be the very first moment of its tenure.
            Some(Liveness::Alive) => self.follow(last, false, out),
            _ if last.node == self.me.node => self.claim(out),
            // Two nodes that do not know each other would depose each other for ever.
            None if self.deposed => {
                self.phase = Phase::Following {
                    tenure: last.clone(),
                    evidence: Evidence::Log,
                };
            }
            _ => self.look(Patience::Long, None, out),
        }
    }

    fn claim(&mut self, out: &mut Vec<Output>) {
        self.phase = Phase::Claiming;
        out.push(Output::Claim { over: self.epoch });
    }

    fn claimed(&mut self, epoch: Epoch, out: &mut Vec<Output>) {
        let over = epoch <= self.epoch || self.leaving;
        self.epoch = self.epoch.max(epoch);
        if over {
            return self.stand(Patience::None, out);
        }
        self.phase = Phase::Coordinating;
        self.settled = false;
        self.abdicating = false;
        self.deposed = false;
        out.push(Output::Serve(epoch));
        out.push(Output::SetTimer(Timer::Dwell));
        let peers = self.peers.keys().cloned();
        out.extend(peers.map(|peer| Output::Send(peer, Message::Coordinator)));
    }

    fn not_claimed(&mut self, why: NotClaimed, out: &mut Vec<Output>) {
        if self.phase != Phase::Claiming {
            return;
        }
        match why {
            NotClaimed::Superseded(tenure) if tenure.node == self.me.node => {
                // A claim of this node that was given up, or of its earlier life.
                self.epoch = self.epoch.max(tenure.epoch);
                self.stand(Patience::None, out);
            }
            NotClaimed::Superseded(tenure) => {
                self.epoch = self.epoch.max(tenure.epoch);
                self.follow(&tenure, false, out);
            }
            NotClaimed::Behind(epoch) => {
                // What was heard of was rolled back, or never was: the log decides downwards too.
                self.epoch = epoch;
                self.stand(Patience::None, out);
            }
            NotClaimed::Unreachable => self.wait(out),
        }
    }

    fn deposed(&mut self, epoch: Epoch, out: &mut Vec<Output>) {
        // A handoff ends its own tenure.
        if self.phase != Phase::Coordinating || epoch <= self.epoch {
            return;
        }
        self.deposed = true;
        self.stand(Patience::None, out);
    }

    /// A node that cannot append is no candidate, and coordinates nothing.
    fn log_fault(&mut self, out: &mut Vec<Output>) {
        self.reaches(false, out);
        if self.role() == Role::Coordinator {
            let before = self.epoch.next();
            out.push(Output::StepDown { before });
            self.wait(out);
        }
    }

    /// Would be coordinator: asks larger ranks first.
    fn stand(&mut self, patience: Patience, out: &mut Vec<Output>) {
        if !self.eligible() {
            return self.wait(out);
        }
        let larger = self.larger_candidates();
        if larger.is_empty() {
            return self.look(patience, None, out);
        }
        self.phase = Phase::Asking(patience);
        out.push(Output::SetTimer(Timer::Answer));
        let ask = |peer| Output::Send(peer, Message::Election);
        out.extend(larger.into_iter().map(ask));
    }

    fn look(&mut self, patience: Patience, seen: Option<Tenure>, out: &mut Vec<Output>) {
        self.phase = Phase::Looking(seen);
        out.push(Output::Look(patience));
    }

    fn wait(&mut self, out: &mut Vec<Output>) {
        self.phase = Phase::Waiting;
        out.push(Output::SetTimer(Timer::Coordinator));
    }

    /// After each input: does the coordinator that this node follows still live?
    fn check_coordinator(&mut self, out: &mut Vec<Output>) {
        let Phase::Following {
            tenure,
            evidence: Evidence::Heard,
        } = &self.phase
        else {
            return;
        };
        let alive = self.liveness(&tenure.node) == Some(Liveness::Alive);
        let beat = self
            .peers
            .get(&tenure.node)
            .and_then(|peer| peer.beat.as_ref());
        if beat.is_some_and(|beat| beat.coordinator.as_ref() != Some(tenure)) {
            self.resigned = tenure.epoch;
            self.stand(Patience::None, out);
        } else if !alive && !self.vouched_for(tenure) {
            self.stand(self.patience_with(&tenure.node), out);
        }
    }

    /// How sure it is that a coordinator which is not heard has ended.
    fn patience_with(&self, coordinator: &NodeName) -> Patience {
        match self.peers.get(coordinator) {
            Some(peer) if peer.liveness == Liveness::Alive => Patience::None,
            Some(peer) if peer.refused => Patience::Short,
            _ => Patience::Long,
        }
    }

    /// After each input: does this coordinator reach MongoDB, if others do?
    fn check_own_reach(&mut self, out: &mut Vec<Output>) {
        if !self.is_stranded() {
            self.abdicating = false;
        } else if !self.abdicating {
            self.abdicating = true;
            out.push(Output::SetTimer(Timer::Abdicate));
        }
    }

    fn is_stranded(&self) -> bool {
        let mut names = self.peers.keys();
        self.role() == Role::Coordinator
            && !self.reaches
            && names.any(|name| self.is_candidate(name))
    }

    /// A peer that is heard hears this very coordinator.
    fn vouched_for(&self, tenure: &Tenure) -> bool {
        self.peers.iter().any(|(name, peer)| {
            let hears =
                |beat: &Beat| beat.hears_coordinator && beat.coordinator.as_ref() == Some(tenure);
            *name != tenure.node
                && peer.liveness == Liveness::Alive
                && peer.beat.as_ref().is_some_and(hears)
        })
    }

    fn eligible(&self) -> bool {
        self.reaches && !self.leaving && !self.is_usurped()
    }

    /// A node that is no peer of this one has deposed it.
    fn is_usurped(&self) -> bool {
        let known = |node: &NodeName| *node == self.me.node || self.peers.contains_key(node);
        matches!(&self.phase, Phase::Following { tenure, .. } if self.deposed && !known(&tenure.node))
    }

    fn is_candidate(&self, peer: &NodeName) -> bool {
        self.peers.get(peer).is_some_and(|peer| {
            let eligible = peer.beat.as_ref().is_some_and(|beat| beat.eligible);
            eligible && peer.liveness == Liveness::Alive
        })
    }

    fn larger_candidates(&self) -> Vec<NodeName> {
        let larger = |peer: &&NodeName| {
            self.is_candidate(peer) && self.rank_of(peer).is_some_and(|rank| *rank > self.me)
        };
        self.peers.keys().filter(larger).cloned().collect()
    }

    fn rank_of(&self, peer: &NodeName) -> Option<&Rank> {
        self.peers.get(peer)?.beat.as_ref().map(|beat| &beat.rank)
    }

    fn liveness(&self, peer: &NodeName) -> Option<Liveness> {
        self.peers.get(peer).map(|peer| peer.liveness)
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
