//! The model of writes: sequencer cores that claim at any moment, and a log that takes one document a
//! position.
//!
//! Who claims when is left open altogether, so that whatever an election does is among the
//! possibilities; `elections` checks what this model takes for granted of it. A step is one effect at
//! one place, in any order, so a node that is frozen or cut off is one that takes no step for a
//! while, and a killed one takes none any more; born again it has no memory and is a node like any
//! other. So nodes have no names here, and states that differ only in who is who are one.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use drumline::model::{BatchId, Digest, Epoch, Position, RequestId};
use drumline::sequencer::{Batch, Core, Input, Output, Ran, Reject, Resolved, Submission, Ticket};
use stateright::{Model, Property};

/// A mistake that the checker must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    None,
    /// A document of a later epoch at the batch's position is taken for a guest's.
    NoFence,
    /// A position that is looked at in doubt counts as it is, whatever may still land there.
    NoBurial,
    /// Callers are answered when their batch begins.
    AnswerBeforeCommit,
}

/// The bounds of the state space.
#[derive(Debug, Clone)]
pub struct Writes {
    pub mistake: Mistake,
    pub nodes: usize,
    pub epochs: i64,
    pub requests: u8,
    /// How often a client sends each request.
    pub tries: u8,
    /// How often a batch is begun at one position.
    pub attempts: u32,
    /// How often a command without a server appends.
    pub guests: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Document {
    epoch: Epoch,
    what: What,
    clock: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum What {
    Claim,
    Guest,
    /// Tickets in order.
    Batch(BatchId, Vec<Ticket>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Work {
    /// The transaction is on its way.
    Sent(Batch<()>),
    /// MongoDB has decided, and its word is on its way.
    Done(Ran),
    /// Whether that nothing stands there is to be proven.
    Resolve(Batch<()>, bool),
    Look(Batch<()>),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Node {
    core: Core<()>,
    /// A claim of this node that stands in the log and is not served yet.
    granted: Option<Position>,
    serves: bool,
    epoch: i64,
    tail: i64,
    work: Option<Work>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    log: Vec<Document>,
    nodes: Vec<Node>,
    /// Transactions that nobody waits for any more and that may still commit, by session. A claim
    /// opens one session, which its epoch names here.
    zombies: BTreeMap<Epoch, Vec<Batch<()>>>,
    /// How often each request was sent.
    sent: Vec<u8>,
    /// Answers: to whom, for which position, and in which epoch if it is no replay.
    answered: BTreeSet<(Ticket, Position, Option<Epoch>)>,
    /// Callers that were told that nothing was done.
    undone: BTreeSet<Ticket>,
}

/// A node is named by its place, a zombie by its session and its place there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Claim(usize),
    Serve(usize),
    Depose(usize),
    Submit(usize, u8),
    /// MongoDB takes or refuses the transaction.
    Execute(usize),
    /// Its word arrives.
    Reply(usize),
    /// The node waits for it no longer.
    Doubt(usize),
    ExecuteZombie(Epoch, usize),
    Resolve(usize),
    ResolveByYesterday(usize),
    Look(usize),
    Guest,
}

fn ticket(request: u8, time: u8) -> Ticket {
    u64::from(request) * 10 + u64::from(time)
}

fn request_of(ticket: Ticket) -> u64 {
    ticket / 10
}

fn submission(request: u8, time: u8) -> Submission<()> {
    Submission {
        ticket: ticket(request, time),
        id: RequestId::parse(&format!("r{request}")).unwrap(),
        digest: Some(Digest([request; 32])),
        clock: 0,
        bytes: 1,
        touches: None,
        loops: false,
        payload: (),
    }
}

impl State {
    fn tail(&self) -> Position {
        Position(i64::try_from(self.log.len()).unwrap())
    }

    fn at(&self, position: Position) -> Option<&Document> {
        self.log.get(usize::try_from(position.0).unwrap() - 1)
    }

    fn last_epoch(&self) -> Epoch {
        self.log.last().map_or(Epoch::ZERO, |last| last.epoch)
    }

    fn claims(&self) -> i64 {
        let claims = self.log.iter().filter(|one| one.what == What::Claim);
        i64::try_from(claims.count()).unwrap()
    }

    fn clock(&self) -> i64 {
        self.log.last().map_or(0, |last| last.clock)
    }

    fn append(&mut self, epoch: Epoch, what: What, clock: i64) {
        self.log.push(Document { epoch, what, clock });
    }

    fn tickets(&self) -> impl Iterator<Item = Ticket> {
        self.log
            .iter()
            .flat_map(|document| match &document.what {
                What::Batch(_, tickets) => tickets.as_slice(),
                What::Claim | What::Guest => &[],
            })
            .copied()
    }

    fn place_of(&self, request: u64) -> Option<Position> {
        let holds = |document: &Document| match &document.what {
            What::Batch(_, tickets) => tickets.iter().any(|one| request_of(*one) == request),
            What::Claim | What::Guest => false,
        };
        let index = self.log.iter().position(holds)?;
        Some(Position(i64::try_from(index).unwrap() + 1))
    }

    /// One transaction: the position and the request ids are unique, or nothing is done.
    fn execute(&mut self, batch: &Batch<()>) -> Ran {
        let tickets: Vec<Ticket> = batch
            .slots
            .iter()
            .map(|slot| slot.submission.ticket)
            .collect();
        let repeated = tickets
            .iter()
            .any(|one| self.place_of(request_of(*one)).is_some());
        if repeated || batch.position != self.tail().next() {
            return Ran::Doubt { repeated };
        }
        let count = tickets.len();
        let clock = batch.slots.last().unwrap().stamp;
        self.append(batch.epoch, What::Batch(batch.id, tickets), clock);
        Ran::Committed { count }
    }

    fn standing(&self, batch: &Batch<()>, mistake: Mistake) -> Resolved {
        let guest = Resolved::Guest {
            tail: self.tail(),
            clock: self.clock(),
        };
        match self.at(batch.position) {
            None => Resolved::Absent,
            Some(Document {
                what: What::Batch(id, tickets),
                ..
            }) if *id == batch.id => Resolved::Mine {
                count: tickets.len(),
            },
            Some(_) if mistake == Mistake::NoFence => guest,
            Some(_) if self.last_epoch() > batch.epoch => Resolved::Fenced,
            Some(_) => guest,
        }
    }

    fn fences(&self, batch: &Batch<()>) -> bool {
        let there = self.at(batch.position);
        there.is_some_and(|document| document.epoch > batch.epoch)
    }

    /// A zombie whose position is taken can do nothing any more.
    fn forget_harmless_zombies(&mut self) {
        let tail = self.tail();
        self.zombies.retain(|_, zombies| {
            zombies.retain(|batch| batch.position > tail);
            !zombies.is_empty()
        });
    }

    /// The epoch that the last claim up to this position began.
    fn epoch_at(&self, position: Position) -> Epoch {
        let up_to = &self.log[..usize::try_from(position.0).unwrap()];
        let mut claims = up_to.iter().filter(|one| one.what == What::Claim);
        claims.next_back().map_or(Epoch::ZERO, |claim| claim.epoch)
    }

    /// The same state, with the nodes in an order that does not depend on their places.
    pub fn representative(&self) -> Self {
        let mut same = self.clone();
        same.nodes.sort_by_cached_key(|node| {
            let mut hasher = DefaultHasher::new();
            node.hash(&mut hasher);
            hasher.finish()
        });
        same
    }
}

impl Writes {
    fn step(&self, state: &mut State, index: usize, input: Input<()>) {
        for output in state.nodes[index].core.step(input) {
            self.carry_out(state, index, output);
        }
    }

    fn carry_out(&self, state: &mut State, index: usize, output: Output<()>) {
        let node = &mut state.nodes[index];
        match output {
            // No request meets a lock here.
            Output::Rest { .. } | Output::AwaitLeft => {}
            Output::Run(batch) => {
                if self.mistake == Mistake::AnswerBeforeCommit {
                    let epoch = Some(batch.epoch);
                    let early = batch.slots.iter().map(|slot| slot.submission.ticket);
                    state
                        .answered
                        .extend(early.map(|one| (one, batch.position, epoch)));
                }
                node.work = Some(Work::Sent(batch));
            }
            Output::Resolve(batch) => node.work = Some(Work::Resolve(batch, false)),
            Output::Prove(batch) => node.work = Some(Work::Resolve(batch, true)),
            Output::Look(batch) => node.work = Some(Work::Look(batch)),
            Output::Answer {
                ticket, position, ..
            } => {
                let epoch = Some(Epoch(node.epoch));
                state.answered.insert((ticket, position, epoch));
            }
            Output::Replay { ticket, .. } => {
                let place = state.place_of(request_of(ticket)).unwrap();
                state.answered.insert((ticket, place, None));
            }
            Output::Reject { ticket, why } => {
                if why != Reject::Unknown {
                    state.undone.insert(ticket);
                }
            }
            Output::Advanced { tail, .. } => node.tail = tail.0,
            Output::Fenced => node.serves = false,
        }
    }

    fn take_work(state: &mut State, index: usize) -> Option<Work> {
        state.nodes[index].work.take()
    }

    fn serve(&self, state: &mut State, index: usize, position: Position) {
        let claim = state.at(position).unwrap();
        let (epoch, clock) = (claim.epoch, claim.clock);
        let node = &mut state.nodes[index];
        node.granted = None;
        (node.serves, node.epoch) = (true, epoch.0);
        let nonce = u64::try_from(epoch.0).unwrap();
        self.step(
            state,
            index,
            Input::Serve {
                epoch,
                tail: position,
                clock,
                nonce,
            },
        );
    }

    fn doubt(&self, state: &mut State, index: usize) {
        if let Some(Work::Sent(batch)) = Self::take_work(state, index) {
            state.zombies.entry(batch.epoch).or_default().push(batch);
        }
        let doubt = Ran::Doubt { repeated: false };
        self.step(state, index, Input::Ran(doubt));
    }

    fn resolve(&self, state: &mut State, index: usize) -> Option<()> {
        let Some(Work::Resolve(batch, proven)) = Self::take_work(state, index) else {
            return None;
        };
        if self.mistake != Mistake::NoBurial {
            state.zombies.remove(&batch.epoch);
        }
        let resolved = match state.standing(&batch, self.mistake) {
            Resolved::Absent if !proven => Resolved::Vacant,
            resolved => resolved,
        };
        self.step(state, index, Input::Resolved(resolved));
        Some(())
    }

    /// A primary of yesterday is asked: it knows of nothing, and what it ends is ended there alone.
    fn resolve_by_yesterday(&self, state: &mut State, index: usize) -> Option<()> {
        let Some(Work::Resolve(..)) = Self::take_work(state, index) else {
            return None;
        };
        self.step(state, index, Input::Resolved(Resolved::Vacant));
        Some(())
    }

    fn look(&self, state: &mut State, index: usize) -> Option<()> {
        let Some(Work::Look(batch)) = Self::take_work(state, index) else {
            return None;
        };
        let slots = batch.slots.iter().enumerate();
        let seen = slots.filter_map(|(at, slot)| {
            state.place_of(request_of(slot.submission.ticket))?;
            Some((at, slot.submission.digest))
        });
        let seen = seen.collect();
        self.step(state, index, Input::Looked(seen));
        Some(())
    }
}

impl Model for Writes {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            log: Vec::new(),
            nodes: vec![Node::default(); self.nodes],
            zombies: BTreeMap::new(),
            sent: vec![0; usize::from(self.requests)],
            answered: BTreeSet::new(),
            undone: BTreeSet::new(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (index, node) in state.nodes.iter().enumerate() {
            if node.granted.is_none() && state.claims() < self.epochs {
                actions.push(Action::Claim(index));
            }
            if node.granted.is_some_and(|at| at.0 > node.tail) && node.core.is_idle() {
                actions.push(Action::Serve(index));
            }
            if node.serves {
                actions.push(Action::Depose(index));
                let requests =
                    (0..self.requests).filter(|one| state.sent[usize::from(*one)] < self.tries);
                actions.extend(requests.map(|one| Action::Submit(index, one)));
            }
            match node.work {
                Some(Work::Sent(_)) => {
                    actions.extend([Action::Execute(index), Action::Doubt(index)]);
                }
                Some(Work::Done(Ran::Doubt { .. })) => actions.push(Action::Reply(index)),
                Some(Work::Done(_)) => actions.extend([Action::Reply(index), Action::Doubt(index)]),
                Some(Work::Resolve(_, proven)) => {
                    actions.push(Action::Resolve(index));
                    if !proven {
                        actions.push(Action::ResolveByYesterday(index));
                    }
                }
                Some(Work::Look(_)) => actions.push(Action::Look(index)),
                None => {}
            }
        }
        for (session, zombies) in &state.zombies {
            actions.extend((0..zombies.len()).map(|at| Action::ExecuteZombie(*session, at)));
        }
        let guests = state.log.iter().filter(|one| one.what == What::Guest);
        if guests.count() < self.guests && !state.log.is_empty() {
            actions.push(Action::Guest);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Claim(index) => {
                let (epoch, clock) = (state.last_epoch().next(), state.clock() + 1);
                state.append(epoch, What::Claim, clock);
                state.nodes[index].granted = Some(state.tail());
            }
            Action::Serve(index) => {
                let position = state.nodes[index].granted?;
                self.serve(&mut state, index, position);
            }
            Action::Depose(index) => {
                state.nodes[index].serves = false;
                self.step(&mut state, index, Input::Depose);
            }
            Action::Submit(index, request) => {
                let time = &mut state.sent[usize::from(request)];
                *time += 1;
                let submission = submission(request, *time);
                self.step(&mut state, index, Input::Submit(submission));
            }
            Action::Execute(index) => {
                let Some(Work::Sent(batch)) = Self::take_work(&mut state, index) else {
                    return None;
                };
                let ran = state.execute(&batch);
                state.nodes[index].work = Some(Work::Done(ran));
            }
            Action::Reply(index) => {
                let Some(Work::Done(ran)) = Self::take_work(&mut state, index) else {
                    return None;
                };
                self.step(&mut state, index, Input::Ran(ran));
            }
            Action::Doubt(index) => self.doubt(&mut state, index),
            Action::ExecuteZombie(session, at) => {
                let zombies = state.zombies.get_mut(&session)?;
                let batch = zombies.remove(at);
                if zombies.is_empty() {
                    state.zombies.remove(&session);
                }
                state.execute(&batch);
            }
            Action::Resolve(index) => self.resolve(&mut state, index)?,
            Action::ResolveByYesterday(index) => self.resolve_by_yesterday(&mut state, index)?,
            Action::Look(index) => self.look(&mut state, index)?,
            Action::Guest => {
                let (epoch, clock) = (state.last_epoch(), state.clock() + 1);
                state.append(epoch, What::Guest, clock);
            }
        }
        state.forget_harmless_zombies();
        Some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        let begun = |node: &Node| match &node.work {
            Some(Work::Sent(batch)) => batch.attempt,
            _ => 0,
        };
        state.nodes.iter().map(begun).max() <= Some(self.attempts)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let always = Property::<Self>::always;
        let sometimes = Property::<Self>::sometimes;
        let mut properties = vec![
            always("epochs never decrease (I2)", |_, state| {
                state.log.is_sorted_by_key(|one| one.epoch)
            }),
            always("stamps strictly increase (I3)", |_, state| {
                state.log.is_sorted_by(|one, next| one.clock < next.clock)
            }),
            always("an answered request is in the log (I4)", |_, state| {
                state.answered.iter().all(|(ticket, position, _)| {
                    state.place_of(request_of(*ticket)) == Some(*position)
                })
            }),
            always("a request is in the log once (I5)", |_, state| {
                let requests: Vec<u64> = state.tickets().map(request_of).collect();
                let once: BTreeSet<u64> = requests.iter().copied().collect();
                once.len() == requests.len()
            }),
            always(
                "only the coordinator of a position answers for it (I8)",
                |_, state| {
                    state.answered.iter().all(|(_, position, epoch)| {
                        epoch.is_none_or(|epoch| {
                            position.0 <= state.tail().0 && state.epoch_at(*position) == epoch
                        })
                    })
                },
            ),
            always("what was not done never happens", |_, state| {
                state
                    .tickets()
                    .all(|ticket| !state.undone.contains(&ticket))
            }),
            sometimes("two epochs have answered", |_, state| {
                let epochs = state.answered.iter().filter_map(|(.., epoch)| *epoch);
                epochs.collect::<BTreeSet<_>>().len() > 1
            }),
            sometimes("all requests are answered", |model, state| {
                let requests = state
                    .answered
                    .iter()
                    .map(|(ticket, ..)| request_of(*ticket));
                requests.collect::<BTreeSet<_>>().len() == usize::from(model.requests)
            }),
            sometimes("a late transaction meets the fence", |_, state| {
                state.nodes.iter().any(|node| match &node.work {
                    Some(Work::Sent(batch)) => state.fences(batch),
                    _ => false,
                })
            }),
            sometimes("a doubt is about a batch that stands", |_, state| {
                in_doubt(state).any(|batch| {
                    state.standing(batch, Mistake::None) == Resolved::Mine { count: 1 }
                })
            }),
            sometimes("a doubt is about a batch that was not done", |_, state| {
                in_doubt(state)
                    .any(|batch| state.standing(batch, Mistake::None) == Resolved::Absent)
            }),
            sometimes("a doubt meets the fence", |_, state| {
                in_doubt(state)
                    .any(|batch| state.standing(batch, Mistake::None) == Resolved::Fenced)
            }),
        ];
        if self.tries > 1 {
            properties.push(sometimes("a stored answer is replayed", |_, state| {
                state.answered.iter().any(|(.., epoch)| epoch.is_none())
            }));
        }
        if self.guests > 0 {
            properties.push(sometimes("a doubt meets a guest", |_, state| {
                let meets = |batch| {
                    let standing = state.standing(batch, Mistake::None);
                    matches!(standing, Resolved::Guest { .. })
                };
                in_doubt(state).any(meets)
            }));
        }
        properties
    }
}

fn in_doubt(state: &State) -> impl Iterator<Item = &Batch<()>> {
    state.nodes.iter().filter_map(|node| match &node.work {
        Some(Work::Resolve(batch, _)) => Some(batch),
        _ => None,
    })
}
