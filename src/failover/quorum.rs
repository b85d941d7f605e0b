//! Whether the nodes agree that there is no primary, and which of them acts on it. Pure: no clock and
//! no channel inside.

use std::collections::BTreeMap;

use crate::model::{NodeName, Rank};

/// What happens to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// This node heard from the primary of this term.
    Led(i64),
    /// This node finds no primary any more.
    Lost,
    /// A peer finds none either. It has asked members to stand, in vain, or not.
    Voice { rank: Rank, spent: bool },
    /// A peer has not said so for a while, or is gone.
    Hushed(NodeName),
    /// Whether enough members answer to elect one of them.
    Enough(bool),
    /// The peers had the time of a heartbeat to say something.
    Waited,
    /// The members that this node asked to stand were not elected.
    InVain,
}

/// What a node is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Tell the peers, now and with each heartbeat, that this node finds no primary.
    Tell { spent: bool },
    /// Say so no more.
    Hush,
    /// Set a timer to the time of a heartbeat.
    Wait,
    /// Ask a member to stand, in place of the primary of this term.
    Ask { term: i64 },
}

/// One node's part in the agreement.
///
/// It acts if a majority of all nodes finds no primary, itself included, and the others have had the
/// time to say so: of those the largest rank that has not acted in vain, once a term. So a term sees
/// as many acts as there are nodes at most, and nothing is left to do then but to wait for MongoDB's
/// own election.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Quorum {
    me: Rank,
    /// All nodes of the cluster.
    nodes: usize,
    /// Of the last primary; 0 if there was none.
    term: i64,
    lost: bool,
    /// Enough members answer to elect one: it is worth the one act of the term.
    enough: bool,
    waits: Waits,
    /// The last term in which this node acted.
    asked_in: Option<i64>,
    /// It was in vain.
    spent: bool,
    /// The peers that find no primary, and whether they have acted in vain.
    voices: BTreeMap<NodeName, (Rank, bool)>,
}

/// Whether a node that agrees with a majority has given the others time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Waits {
    NotYet,
    Begun,
    Over,
}

impl Quorum {
    pub fn new(me: Rank, peers: usize) -> Self {
        Self {
            me,
            nodes: peers + 1,
            term: 0,
            lost: false,
            enough: true,
            waits: Waits::NotYet,
            asked_in: None,
            spent: false,
            voices: BTreeMap::new(),
        }
    }

    /// How many nodes find no primary, as far as this one knows, of how many.
    pub fn agreeing(&self) -> (usize, usize) {
        (self.voices.len() + usize::from(self.lost), self.nodes)
    }

    pub fn step(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Led(term) => {
                if term > self.term {
                    self.term = term;
                    self.spent = false;
                }
                self.waits = Waits::NotYet;
                if std::mem::take(&mut self.lost) {
                    out.push(Output::Hush);
                }
            }
            Input::Lost if self.lost => {}
            Input::Lost => {
                self.lost = true;
                out.push(self.tell());
            }
            Input::Voice { rank, spent } => {
                self.voices.insert(rank.node.clone(), (rank, spent));
            }
            Input::Hushed(node) => {
                self.voices.remove(&node);
            }
            Input::Enough(enough) => self.enough = enough,
            Input::Waited if self.waits == Waits::Begun => self.waits = Waits::Over,
            Input::Waited => {}
            Input::InVain => {
                self.spent = self.asked_in == Some(self.term);
                if self.lost {
                    out.push(self.tell());
                }
            }
        }
        self.act(&mut out);
        out
    }

    fn tell(&self) -> Output {
        Output::Tell { spent: self.spent }
    }

    fn act(&mut self, out: &mut Vec<Output>) {
        let (agreeing, nodes) = self.agreeing();
        if !self.lost || agreeing * 2 <= nodes || self.asked_in == Some(self.term) {
            return;
        }
        if !self.enough {
            return;
        }
        if agreeing < nodes && self.waits != Waits::Over {
            if self.waits == Waits::NotYet {
                self.waits = Waits::Begun;
                out.push(Output::Wait);
            }
            return;
        }
        let mut others = self.voices.values();
        if others.any(|(rank, spent)| !spent && *rank > self.me) {
            return;
        }
        self.asked_in = Some(self.term);
        out.push(Output::Ask { term: self.term });
    }
}
