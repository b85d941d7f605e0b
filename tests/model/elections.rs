//! The model of elections: three machines, messages between them, and claims in a log.
//!
//! Timers end at any moment, so that no safety can rest on time, and a node may suspect a peer that
//! lives. A node is frozen for as long as it takes no step, and cut off for as long as it is not
//! heard. All schedules up to a number of steps are checked; `schedules` runs some that are long.

use std::collections::BTreeSet;
use std::sync::Arc;

use drumline::election::{Input, Looked, Machine, NotClaimed, Output, Timer};
use drumline::model::{Beat, Epoch, Liveness, Message, NodeName, Rank, Role, Tenure};
use stateright::{Model, Property};

/// The bounds of the state space, and a mistake that the checker must find.
#[derive(Debug, Clone)]
pub struct Elections {
    /// Begins with the middle rank as coordinator whom all follow, instead of three new nodes.
    pub settled: bool,
    /// Whoever lost the race for an epoch takes it for won.
    pub served_unclaimed: bool,
    /// How many claims the log takes.
    pub claims: usize,
    /// How often a node suspects a peer, gives up a claim, or is killed and born again: all together.
    pub faults: u8,
    /// How many messages other than heartbeats are under way. More get lost.
    pub letters: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Claim {
    /// On its way, over this epoch.
    Sent(Epoch),
    /// Decided, and the word of it is on its way.
    Decided(Input),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Node {
    machine: Machine,
    life: u8,
    timers: BTreeSet<Timer>,
    looks: bool,
    drains: bool,
    claim: Option<Claim>,
    /// The epochs that it was told to serve in this life.
    served: BTreeSet<Epoch>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Letter {
    from: usize,
    to: usize,
    beat: Beat,
    message: Message,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    nodes: Vec<Arc<Node>>,
    /// Who has claimed, in which life; the first began epoch 1.
    claims: Vec<(usize, u8)>,
    /// Claims that were given up and may still land.
    late: Vec<(usize, u8, Epoch)>,
    letters: Vec<Letter>,
    faults: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The first hears the second's heartbeat.
    Hear(usize, usize),
    Read(usize),
    Lose(usize),
    Timeout(usize, Timer),
    LookQuiet(usize),
    LookActive(usize),
    Land(usize),
    LandLate(usize),
    Decided(usize),
    GiveUp(usize),
    Drained(usize),
    /// The sequencer meets the last claim.
    Deposed(usize),
    Suspect(usize, usize),
    Reborn(usize),
}

fn name(index: usize) -> NodeName {
    NodeName::parse(&format!("n{}", index + 1)).unwrap()
}

impl Node {
    fn new(index: usize, life: u8, nodes: usize) -> Self {
        let rank = Rank {
            number: u64::try_from(index).unwrap(),
            node: name(index),
        };
        let peers = || (0..nodes).filter(|peer| *peer != index).map(name);
        let mut machine = Machine::new(rank, peers());
        machine.step(Input::Start);
        machine.step(Input::Reaches(true));
        for peer in peers() {
            machine.step(Input::Became(peer, Liveness::Alive));
        }
        Self {
            machine,
            life,
            timers: [Timer::Discover].into(),
            looks: false,
            drains: false,
            claim: None,
            served: BTreeSet::new(),
        }
    }

    /// A timer whose end would change nothing now is set anew before it would.
    fn forget_idle_timers(&mut self) {
        let machine = &self.machine;
        self.timers.retain(|timer| {
            let mut after = machine.clone();
            let outputs = after.step(Input::Timeout(*timer));
            !outputs.is_empty() || after != *machine
        });
    }

    fn liveness(&self, peer: usize) -> Liveness {
        let (_, liveness, _) = self
            .machine
            .peers()
            .find(|(one, ..)| **one == name(peer))
            .unwrap();
        liveness
    }

    /// The epoch that this node believes it coordinates.
    fn coordinates(&self) -> Option<Epoch> {
        let coordinator = self.machine.role() == Role::Coordinator;
        coordinator.then(|| self.machine.coordinator().unwrap().epoch)
    }
}

impl State {
    fn last_claim(&self) -> Option<Tenure> {
        let (node, _) = self.claims.last()?;
        Some(Tenure {
            node: name(*node),
            epoch: self.last_epoch(),
        })
    }

    fn last_epoch(&self) -> Epoch {
        Epoch(i64::try_from(self.claims.len()).unwrap())
    }

    fn node(&mut self, index: usize) -> &mut Node {
        Arc::make_mut(&mut self.nodes[index])
    }

    /// A claim reaches the log, which takes it if no other has come first.
    fn land(&mut self, node: usize, life: u8, over: Epoch) -> Input {
        if self.last_epoch() == over {
            self.claims.push((node, life));
            return Input::Claimed(self.last_epoch());
        }
        let first = self.last_claim().unwrap();
        Input::NotClaimed(NotClaimed::Superseded(first))
    }
}

impl Elections {
    fn step(&self, state: &mut State, index: usize, input: Input) {
        for output in state.node(index).machine.step(input) {
            self.carry_out(state, index, output);
        }
        state.node(index).forget_idle_timers();
    }

    fn carry_out(&self, state: &mut State, index: usize, output: Output) {
        let node = state.node(index);
        match output {
            // A heartbeat can be heard at any moment anyway.
            Output::Send(_, Message::Heartbeat | Message::Coordinator) => {}
            Output::Send(to, message) => {
                let beat = node.machine.beat();
                let to = (0..state.nodes.len()).find(|one| name(*one) == to).unwrap();
                let letter = Letter {
                    from: index,
                    to,
                    beat,
                    message,
                };
                if state.letters.len() < self.letters && !state.letters.contains(&letter) {
                    state.letters.push(letter);
                }
            }
            Output::SetTimer(timer) => {
                node.timers.insert(timer);
            }
            Output::Look(_) => node.looks = true,
            Output::Claim { over } => node.claim = Some(Claim::Sent(over)),
            Output::Serve(epoch) => {
                node.served.insert(epoch);
            }
            Output::Drain => node.drains = true,
            Output::StepDown { .. } => {}
        }
    }

    /// The first election, without any trouble: this node claims and is heard.
    fn settle(&self, state: &mut State, first: usize) {
        self.step(state, first, Input::Timeout(Timer::Discover));
        self.step(state, first, Input::Looked(Looked::Quiet(None)));
        let word = state.land(first, 0, Epoch::ZERO);
        state.node(first).claim = None;
        state.node(first).looks = false;
        self.step(state, first, word);
        for (to, from) in [(0, 1), (2, 1), (0, 2), (1, 0), (1, 2), (2, 0)] {
            let beat = state.nodes[from].machine.beat();
            self.hear(state, to, from, beat, Message::Heartbeat);
        }
    }

    fn hear(&self, state: &mut State, to: usize, from: usize, beat: Beat, message: Message) {
        if state.nodes[to].liveness(from) != Liveness::Alive {
            self.step(state, to, Input::Became(name(from), Liveness::Alive));
        }
        self.step(
            state,
            to,
            Input::Heard {
                from: name(from),
                beat,
                message,
            },
        );
    }

    fn give_up(&self, state: &mut State, index: usize) {
        state.faults += 1;
        let node = state.node(index);
        let life = node.life;
        if let Some(Claim::Sent(over)) = node.claim.take() {
            state.late.push((index, life, over));
        }
        let unknown = Input::NotClaimed(NotClaimed::Unreachable);
        self.step(state, index, unknown);
    }

    fn reborn(state: &mut State, index: usize) {
        state.faults += 1;
        let nodes = state.nodes.len();
        let node = state.node(index);
        let life = node.life;
        let claim = node.claim.take();
        *node = Node::new(index, life + 1, nodes);
        if let Some(Claim::Sent(over)) = claim {
            state.late.push((index, life, over));
        }
    }

    fn actions_of(&self, state: &State, index: usize, actions: &mut Vec<Action>) {
        let node = &state.nodes[index];
        let peers = || (0..state.nodes.len()).filter(|peer| *peer != index);
        actions.extend(peers().map(|peer| Action::Hear(index, peer)));
        actions.extend(
            node.timers
                .iter()
                .map(|timer| Action::Timeout(index, *timer)),
        );
        if node.looks {
            actions.push(Action::LookQuiet(index));
            let works = |(last, _): &(usize, u8)| {
                *last != index && state.nodes[*last].coordinates().is_some()
            };
            if state.claims.last().is_some_and(works) {
                actions.push(Action::LookActive(index));
            }
        }
        match &node.claim {
            Some(Claim::Sent(over))
                if state.claims.len() < self.claims || state.last_epoch() != *over =>
            {
                actions.push(Action::Land(index));
            }
            Some(Claim::Sent(_)) => {}
            Some(Claim::Decided(_)) => actions.push(Action::Decided(index)),
            None => {}
        }
        if node.drains {
            actions.push(Action::Drained(index));
        }
        if node
            .coordinates()
            .is_some_and(|epoch| epoch < state.last_epoch())
        {
            actions.push(Action::Deposed(index));
        }
        if state.faults < self.faults {
            let alive = peers().filter(|peer| node.liveness(*peer) == Liveness::Alive);
            actions.extend(alive.map(|peer| Action::Suspect(index, peer)));
            actions.push(Action::Reborn(index));
            if node.claim.is_some() {
                actions.push(Action::GiveUp(index));
            }
        }
    }
}

impl Model for Elections {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let nodes = (0..3).map(|index| Arc::new(Node::new(index, 0, 3)));
        let mut state = State {
            nodes: nodes.collect(),
            claims: Vec::new(),
            late: Vec::new(),
            letters: Vec::new(),
            faults: 0,
        };
        if self.settled {
            self.settle(&mut state, 1);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for index in 0..state.nodes.len() {
            self.actions_of(state, index, actions);
        }
        for letter in 0..state.letters.len() {
            actions.extend([Action::Read(letter), Action::Lose(letter)]);
        }
        let landing = |(_, _, over): &(usize, u8, Epoch)| {
            *over == state.last_epoch() && state.claims.len() < self.claims
        };
        let late = (0..state.late.len()).filter(|at| landing(&state.late[*at]));
        actions.extend(late.map(Action::LandLate));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Hear(to, from) => {
                let beat = state.nodes[from].machine.beat();
                self.hear(&mut state, to, from, beat, Message::Heartbeat);
            }
            Action::Read(at) => {
                let letter = state.letters.remove(at);
                let (to, from) = (letter.to, letter.from);
                self.hear(&mut state, to, from, letter.beat, letter.message);
            }
            Action::Lose(at) => drop(state.letters.remove(at)),
            Action::Timeout(index, timer) => {
                state.node(index).timers.remove(&timer);
                self.step(&mut state, index, Input::Timeout(timer));
            }
            Action::LookQuiet(index) => {
                state.node(index).looks = false;
                let quiet = Looked::Quiet(state.last_claim());
                self.step(&mut state, index, Input::Looked(quiet));
            }
            Action::LookActive(index) => {
                state.node(index).looks = false;
                let active = Looked::Active(state.last_claim()?);
                self.step(&mut state, index, Input::Looked(active));
            }
            Action::Land(index) => {
                let node = state.node(index);
                let life = node.life;
                let Some(Claim::Sent(over)) = node.claim.take() else {
                    return None;
                };
                let mut word = state.land(index, life, over);
                if self.served_unclaimed && matches!(word, Input::NotClaimed(_)) {
                    word = Input::Claimed(over.next());
                }
                state.node(index).claim = Some(Claim::Decided(word));
            }
            Action::LandLate(at) => {
                let (node, life, over) = state.late.remove(at);
                state.land(node, life, over);
            }
            Action::Decided(index) => {
                let Some(Claim::Decided(word)) = state.node(index).claim.take() else {
                    return None;
                };
                self.step(&mut state, index, word);
            }
            Action::GiveUp(index) => self.give_up(&mut state, index),
            Action::Drained(index) => {
                state.node(index).drains = false;
                self.step(&mut state, index, Input::Drained);
            }
            Action::Deposed(index) => {
                let later = Input::Deposed(state.last_epoch());
                self.step(&mut state, index, later);
            }
            Action::Suspect(index, peer) => {
                state.faults += 1;
                let suspect = Input::Became(name(peer), Liveness::Suspect);
                self.step(&mut state, index, suspect);
            }
            Action::Reborn(index) => Self::reborn(&mut state, index),
        }
        // A claim over an epoch that is over can do nothing any more.
        let last_epoch = state.last_epoch();
        state.late.retain(|(.., over)| *over >= last_epoch);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let always = Property::<Self>::always;
        let sometimes = Property::<Self>::sometimes;
        let mut properties = vec![
            always("whoever serves has claimed in this life", |_, state| {
                let mut nodes = state.nodes.iter().enumerate();
                nodes.all(|(index, node)| {
                    node.served.iter().all(|epoch| {
                        let at = usize::try_from(epoch.0).unwrap() - 1;
                        state.claims.get(at) == Some(&(index, node.life))
                    })
                })
            }),
            always("an epoch has one coordinator", |_, state| {
                let epochs = || state.nodes.iter().filter_map(|node| node.coordinates());
                epochs().count() == epochs().collect::<BTreeSet<_>>().len()
            }),
            always(
                "a node coordinates what it was told to serve",
                |_, state| {
                    let mut nodes = state.nodes.iter();
                    nodes.all(|node| {
                        node.coordinates()
                            .is_none_or(|epoch| node.served.contains(&epoch))
                    })
                },
            ),
            sometimes("all follow one coordinator", |_, state| {
                let first = state.nodes[0].machine.coordinator();
                let mut nodes = state.nodes.iter();
                first.is_some() && nodes.all(|node| node.machine.coordinator() == first)
            }),
            sometimes("two nodes claim over one epoch", |_, state| {
                let over = |node: &Arc<Node>| match &node.claim {
                    Some(Claim::Sent(over)) => Some(*over),
                    _ => None,
                };
                let over: Vec<Epoch> = state.nodes.iter().filter_map(over).collect();
                over.iter().collect::<BTreeSet<_>>().len() < over.len()
            }),
        ];
        if self.settled {
            properties.push(sometimes(
                "two nodes believe that they coordinate",
                |_, state| {
                    let nodes = state.nodes.iter();
                    nodes.filter_map(|node| node.coordinates()).count() > 1
                },
            ));
            properties.push(sometimes("a tenure is handed over", |_, state| {
                let mut letters = state.letters.iter();
                letters.any(|letter| letter.message == Message::Handover)
            }));
        }
        if !self.settled {
            properties.push(sometimes("a claim comes second", |_, state| {
                let second = |node: &Arc<Node>| {
                    matches!(node.claim, Some(Claim::Decided(Input::NotClaimed(_))))
                };
                state.nodes.iter().any(second)
            }));
        }
        properties
    }
}
