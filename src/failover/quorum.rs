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
    /// A peer finds none either.
    Voice(Voice),
    /// A peer has not said so for a while, or is gone.
    Hushed(NodeName),
    /// Whether it is worth to act: enough members answer to elect one, and elections are not too many.
    Fit(bool),
    /// The time of [`Output::Wait`] is over.
    Waited,
    /// No member could be asked to stand, or none needed to be: this does not count as an act.
    Unasked,
    /// The members that this node asked to stand were not elected; or it asks no more of them, and one may
    /// be elected yet.
    InVain,
}

/// What a peer says that finds no primary.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Voice {
    pub rank: Rank,
    /// Of the last primary that it knew.
    pub term: i64,
    /// It leaves it to others to act.
    pub passes: bool,
}

/// What a node is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Tell the peers now: it is what [`Quorum::told`] has them told with each heartbeat.
    Tell(Told),
    /// Set the one timer there is.
    Wait(Time),
    /// Ask a member to stand, in place of the primary of this term.
    Ask { term: i64 },
}

/// What the peers are told by a node that finds no primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Told {
    /// Of the last primary that it knew.
    pub term: i64,
    /// It leaves it to others to act.
    pub passes: bool,
}

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// Of a heartbeat: the peers say something in it.
    Heartbeat,
    /// That a peer needs at most to have a member elected.
    Act,
}

/// One node's part in the agreement.
///
/// It acts if a majority of all nodes finds no primary, itself included, and the others have had the
/// time to say so: of those the largest rank that does not pass, once a term. A rank that neither acts
/// nor passes is passed over after a while. So a term sees as many acts as there are nodes at most, and
/// nothing is left to do then but to wait for MongoDB's own election.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Quorum {
    me: Rank,
    /// All nodes of the cluster.
    nodes: usize,
    /// Of the last primary that this node knows of; 0 if there was none.
    term: i64,
    lost: bool,
    fit: bool,
    waits: Waits,
    /// The last term in which this node acted.
    asked_in: Option<i64>,
    /// The last term in which it did so in vain.
    in_vain_in: Option<i64>,
    /// The peers that find no primary.
    voices: BTreeMap<NodeName, Voice>,
    told: Option<Told>,
}

/// What a node that agrees with a majority waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Waits {
    /// It has not waited for the others since it lost the primary.
    NotYet,
    /// Nobody could be asked a moment ago.
    ToTryAgain,
    /// The others may be about to agree too.
    ForVoices,
    /// They had the time, or the heartbeat after a try is over.
    NoMore,
    /// A larger rank is to act.
    ForAnAct,
    /// It had the time.
    ForNobody,
}

impl Quorum {
    pub fn new(me: Rank, peers: usize) -> Self {
        Self {
            me,
            nodes: peers + 1,
            term: 0,
            lost: false,
            fit: true,
            waits: Waits::NotYet,
            asked_in: None,
            in_vain_in: None,
            voices: BTreeMap::new(),
            told: None,
        }
    }

    /// How many nodes find no primary, as far as this one knows, of how many.
    pub fn agreeing(&self) -> (usize, usize) {
        (self.voices.len() + usize::from(self.lost), self.nodes)
    }

    /// Of the last primary that this node knows of; 0 if there was none.
    pub const fn term(&self) -> i64 {
        self.term
    }

    /// What the peers are to be told with each heartbeat; `None` while this node finds a primary.
    pub const fn told(&self) -> Option<Told> {
        self.told
    }

    pub fn step(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Led(term) => {
                self.learn(term);
                self.waits = Waits::NotYet;
                self.lost = false;
            }
            Input::Lost => self.lost = true,
            Input::Voice(voice) => self.heard(voice),
            Input::Hushed(node) => {
                self.voices.remove(&node);
            }
            Input::Fit(fit) => self.fit = fit,
            Input::Waited => {
                self.waits = match self.waits {
                    Waits::ToTryAgain | Waits::ForVoices => Waits::NoMore,
                    Waits::ForAnAct => Waits::ForNobody,
                    waits => waits,
                }
            }
            Input::Unasked => {
                self.asked_in = None;
                if self.lost {
                    self.wait(Waits::ToTryAgain, Time::Heartbeat, &mut out);
                }
            }
            Input::InVain => self.in_vain_in = self.asked_in,
        }
        self.act(&mut out);
        self.tell(&mut out);
        out
    }

    /// A peer that knows an older primary has not looked for the newer one yet.
    fn heard(&mut self, voice: Voice) {
        if self.lost {
            self.learn(voice.term);
        }
        if voice.term >= self.term {
            self.voices.insert(voice.rank.node.clone(), voice);
        }
    }

    fn learn(&mut self, term: i64) {
        if term > self.term {
            self.term = term;
            self.voices.retain(|_, voice| voice.term >= term);
        }
    }

    const fn passes(&self) -> bool {
        let in_vain = matches!(self.in_vain_in, Some(term) if term == self.term);
        in_vain || !self.fit || matches!(self.waits, Waits::ToTryAgain)
    }

    /// Says what has changed.
    fn tell(&mut self, out: &mut Vec<Output>) {
        let saying = self.lost.then(|| Told {
            term: self.term,
            passes: self.passes(),
        });
        if saying == self.told {
            return;
        }
        self.told = saying;
        out.extend(saying.map(Output::Tell));
    }

    fn act(&mut self, out: &mut Vec<Output>) {
        let (agreeing, nodes) = self.agreeing();
        let acted = self.asked_in == Some(self.term);
        if !self.lost || !self.fit || agreeing * 2 <= nodes || acted {
            return;
        }
        match self.waits {
            Waits::ToTryAgain => return,
            Waits::NotYet if agreeing < nodes => {
                return self.wait(Waits::ForVoices, Time::Heartbeat, out);
            }
            Waits::ForVoices if agreeing < nodes => return,
            // Nobody else is left to agree, or those had the time.
            Waits::NotYet
            | Waits::ForVoices
            | Waits::NoMore
            | Waits::ForAnAct
            | Waits::ForNobody => {}
        }
        if self.waits != Waits::ForNobody && self.another_is_to_act() {
            if self.waits != Waits::ForAnAct {
                self.wait(Waits::ForAnAct, Time::Act, out);
            }
            return;
        }
        self.asked_in = Some(self.term);
        out.push(Output::Ask { term: self.term });
    }

    fn another_is_to_act(&self) -> bool {
        let mut voices = self.voices.values();
        voices.any(|voice| !voice.passes && voice.rank > self.me)
    }

    fn wait(&mut self, what: Waits, time: Time, out: &mut Vec<Output>) {
        self.waits = what;
        out.push(Output::Wait(time));
    }
}
