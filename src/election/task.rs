//! Carries out what the machine decides: messages, timers, looks, claims; and feeds it with what
//! happens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{debug, info};

use super::join::joined;
use super::machine::Machine;
use super::steps::{Input, Looked, NotClaimed, Output, Timer};
use super::timing::Timing;
use super::work::{claim, look};
use crate::job::{Job, working};
use crate::liveness::{self, Detector};
use crate::model::{Beat, Epoch, Liveness, Message, NodeName, Rank, Role, Tenure};
use crate::peer::{Credentials, Event, Inbox, Knocks, Links, Pace, Peer};
use crate::sequencer::{Handle, Progress};
use crate::store::{Claimed, Instance, Store};
use crate::view::{NodeView, NodesView};

/// Events that wait for the election. One more is dropped, as a network might.
const EVENTS_MAX: usize = 256;
/// How often a coordinator tries whether MongoDB's primary can be reached.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// Other nodes try only at each so many of these times.
const FOLLOWERS_PROBE: u32 = 2;
/// How long a handover may wait until it is noted how far the log has come.
const NOTE_MAX: Duration = Duration::from_millis(100);
/// How long a node that stops waits for its successor to be handed over to.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// What takes part in the election.
#[derive(Debug)]
pub struct Parts {
    pub store: Store,
    /// This process, among those that may have the same name.
    pub instance: Instance,
    pub sequencer: Handle,
    /// Where claims go that are to be served.
    pub claims: mpsc::Sender<Claimed>,
    pub rank: Rank,
    /// Where others reach this node.
    pub url: String,
    pub peers: Vec<Peer>,
    /// Needed if there are peers.
    pub credentials: Option<Credentials>,
    pub timing: Timing,
    pub aside: Aside,
    /// Becomes true when this node may take part: the name is its own.
    pub join: watch::Receiver<bool>,
}

/// The way through the same connections for what is not about the election of nodes.
#[derive(Debug)]
pub struct Aside {
    /// Goes to all peers. It may be lost.
    pub outgoing: mpsc::Receiver<Message>,
    /// One more than fits is dropped, as a network might.
    pub incoming: mpsc::Sender<(Rank, Message)>,
}

/// Who is coordinator, as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    pub role: Role,
    pub coordinator: Option<Tenure>,
    /// This node can pass requests on to the coordinator, or is it.
    pub reachable: bool,
}

/// The view of the election, and the way to leave it.
#[derive(Debug, Clone)]
pub struct Election {
    pub leadership: watch::Receiver<Leadership>,
    /// This node and its peers, as it believes them to be.
    pub nodes: watch::Receiver<NodesView>,
    leave: mpsc::Sender<oneshot::Sender<()>>,
}

impl Election {
    /// Hands over if this node is coordinator, and never stands again. Returns when that is done, or
    /// after a second.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        let _ = self.leave.send(done).await;
        let _ = timeout(LEAVE_MAX, left).await;
    }
}

/// Starts the election of a node. It ends when nobody holds an [`Election`] any more.
pub fn spawn(parts: Parts) -> (Election, Inbox) {
    let names: BTreeSet<NodeName> = parts.peers.iter().map(|peer| peer.name.clone()).collect();
    let machine = Machine::new(parts.rank.clone(), names.iter().cloned());
    let (detector, beliefs) = Detector::new(names.iter().cloned());
    let (events_out, events) = mpsc::channel(EVENTS_MAX);
    let (beats, beats_in) = watch::channel(machine.beat());
    let (leadership, leadership_in) = watch::channel(leadership_of(&machine));
    let (nodes, nodes_in) = watch::channel(NodesView::default());
    let (leave, leaving) = mpsc::channel(1);
    let knocks = Knocks::default();
    let pace = Pace {
        interval: parts.timing.heartbeat,
        patience: parts.timing.patience(),
    };
    let open = {
        let (credentials, peers) = (parts.credentials.clone(), parts.peers.clone());
        let (beats, events, knocks) = (beats_in.clone(), events_out.clone(), knocks.clone());
        move || match &credentials {
            Some(known) => Links::open(&peers, known, pace, &beats, &events, &knocks),
            None => Links::none(),
        }
    };
    let inbox = Inbox::new(parts.credentials, names, events_out, beats_in, knocks);
    let mut task = Task {
        progress: parts.sequencer.watch(),
        store: parts.store,
        instance: parts.instance,
        sequencer: parts.sequencer,
        claims: parts.claims,
        urls: urls(parts.url, parts.rank.node, parts.peers),
        timing: parts.timing,
        machine,
        detector,
        links: Links::none(),
        timers: BTreeMap::new(),
        belief_timers: BTreeMap::new(),
        jobs: Jobs::default(),
        claimed: None,
        prepared: false,
        excused: Instant::now(),
        next_life: Instant::now(),
        lives: 0,
        left: None,
        hands_over: false,
        aside: parts.aside,
        beats,
        leadership,
        nodes,
    };
    let join = parts.join;
    tokio::spawn(async move {
        let (mut events, mut leaving) = (events, leaving);
        if joined(join, &mut events, &mut leaving).await {
            task.links = open();
            task.run(events, leaving, beliefs).await;
        }
    });
    let election = Election {
        leadership: leadership_in,
        nodes: nodes_in,
        leave,
    };
    (election, inbox)
}

struct Task {
    store: Store,
    instance: Instance,
    sequencer: Handle,
    progress: watch::Receiver<Progress>,
    claims: mpsc::Sender<Claimed>,
    /// Of all nodes of the cluster.
    urls: BTreeMap<NodeName, String>,
    timing: Timing,
    machine: Machine,
    detector: Detector,
    links: Links,
    timers: BTreeMap<Timer, Instant>,
    belief_timers: BTreeMap<NodeName, Instant>,
    jobs: Jobs,
    /// A claim that stands in the log and is not served yet.
    claimed: Option<Claimed>,
    /// The log and its indexes are known to be there.
    prepared: bool,
    /// When peers were last given another wait because this node had slept.
    excused: Instant,
    next_life: Instant,
    /// How many signs of life were shown.
    lives: i64,
    /// Who waits until this node is not coordinator any more.
    left: Option<oneshot::Sender<()>>,
    /// Was coordinator when it was told to stop. Then it goes when another is: if it went before its
    /// last messages arrive, its successor would take it for dead, and watch for signs of life first.
    hands_over: bool,
    aside: Aside,
    beats: watch::Sender<Beat>,
    leadership: watch::Sender<Leadership>,
    nodes: watch::Sender<NodesView>,
}

/// What is under way in MongoDB and in the sequencer: one of each kind at most.
#[derive(Default)]
struct Jobs {
    look: Job<Looked>,
    claim: Job<Result<Claimed, NotClaimed>>,
    drain: Job<()>,
    probe: Job<Option<Epoch>>,
    life: Job<()>,
}

impl Task {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut leaving: mpsc::Receiver<oneshot::Sender<()>>,
        beliefs: Vec<liveness::Output>,
    ) {
        let mut probes = probes();
        let mut ticks = FOLLOWERS_PROBE - 1; // the first one counts
        let mut fault = self.store.log_fault();
        self.believe(beliefs);
        self.step(Input::Start);
        loop {
            let alarm = self.alarm();
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.event(event),
                    None => return,
                },
                left = leaving.recv() => match left {
                    Some(left) => {
                        self.hands_over = self.machine.role() == Role::Coordinator;
                        self.left = Some(left);
                        self.step(Input::Leave);
                        if self.jobs.drain.is_none() && self.hands_over {
                            self.go(); // there is nobody to hand over to
                        }
                    }
                    None => return,
                },
                Ok(()) = self.progress.changed() => {
                    let ended_before = self.progress.borrow_and_update().ended_before;
                    self.met(ended_before);
                }
                Ok(()) = fault.changed() => {
                    if fault.borrow_and_update().is_some() {
                        self.step(Input::LogFault);
                    }
                }
                Some(message) = self.aside.outgoing.recv() => self.send_to_all(message),
                looked = working(&mut self.jobs.look) => self.step(Input::Looked(looked)),
                claimed = working(&mut self.jobs.claim) => self.claim_ended(claimed),
                () = working(&mut self.jobs.drain) => self.step(Input::Drained),
                last = working(&mut self.jobs.probe) => self.probed(last),
                () = working(&mut self.jobs.life) => {}
                () = sleep_until(alarm.unwrap_or_else(Instant::now)), if alarm.is_some() => self.ring(),
                _ = probes.tick() => {
                    ticks = (ticks + 1) % FOLLOWERS_PROBE;
                    if ticks == 0 || self.machine.role() == Role::Coordinator {
                        self.probe();
                    }
                }
            }
            self.show_life();
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Heard {
                from,
                beat,
                message,
            } => {
                let heard = liveness::Input::Heard(from.clone());
                let beliefs = self.detector.step(heard);
                self.believe(beliefs);
                if matches!(message, Message::PrimaryLost { .. }) {
                    let _ = self.aside.incoming.try_send((beat.rank.clone(), message));
                }
                self.step(Input::Heard {
                    from,
                    beat,
                    message,
                });
            }
            Event::Refused(peer) => {
                self.step(Input::Refused(peer.clone()));
                let beliefs = self.detector.step(liveness::Input::Refused(peer));
                self.believe(beliefs);
            }
        }
    }

    fn send_to_all(&self, message: Message) {
        for (peer, ..) in self.machine.peers() {
            self.links.send(peer, message);
        }
    }

    fn believe(&mut self, beliefs: Vec<liveness::Output>) {
        for belief in beliefs {
            match belief {
                liveness::Output::SetTimer(peer, wait) => {
                    let end = Instant::now() + self.timing.belief(wait);
                    self.belief_timers.insert(peer, end);
                }
                liveness::Output::Became(peer, liveness) => {
                    info!(%peer, "is {liveness}");
                    self.step(Input::Became(peer, liveness));
                }
            }
        }
    }

    fn step(&mut self, input: Input) {
        let outputs = self.machine.step(input);
        for output in outputs {
            self.carry_out(output);
        }
        self.publish();
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send(to, message) => self.links.send(&to, message),
            Output::SetTimer(timer) => {
                let end = Instant::now() + self.timing.timer(timer);
                self.timers.insert(timer, end);
            }
            Output::Look(patience) => {
                let me = self.machine.beat().rank.node;
                let look = look(self.store.clone(), me, self.timing.look(patience));
                debug!(?patience, "looks for signs of life in the log");
                self.jobs.look = Some(look.boxed());
            }
            Output::Claim { over } => {
                let claim = claim(
                    self.store.clone(),
                    self.instance.clone(),
                    over,
                    self.prepared,
                );
                self.jobs.claim = Some(claim.boxed());
            }
            Output::Serve(epoch) => self.serve(epoch),
            Output::Drain => {
                let sequencer = self.sequencer.clone();
                let before = self.machine.epoch().next();
                let store = self.store.clone();
                let drain = async move {
                    sequencer.drain(before).await;
                    // The successor sees by that whether the log went back meanwhile.
                    let _ = timeout(NOTE_MAX, store.note_progress()).await;
                };
                self.jobs.drain = Some(drain.boxed());
            }
            Output::StepDown { before } => {
                let sequencer = self.sequencer.clone();
                tokio::spawn(async move { sequencer.depose(before).await });
            }
        }
    }

    fn claim_ended(&mut self, claimed: Result<Claimed, NotClaimed>) {
        match claimed {
            Ok(claimed) => {
                self.prepared = true;
                let epoch = claimed.epoch;
                self.claimed = Some(claimed);
                self.step(Input::Claimed(epoch));
            }
            Err(why) => self.step(Input::NotClaimed(why)),
        }
    }

    fn serve(&mut self, epoch: Epoch) {
        let claimed = self.claimed.take().filter(|claim| claim.epoch == epoch);
        let Some(claimed) = claimed else {
            debug_assert!(false, "a claim is to be served that was not made");
            return;
        };
        let claims = self.claims.clone();
        // The sequencer takes it as soon as nothing of an earlier tenure is in doubt.
        tokio::spawn(async move { claims.send(claimed).await });
    }

    /// The next moment at which a timer ends.
    fn alarm(&self) -> Option<Instant> {
        let timers = self.timers.values().chain(self.belief_timers.values());
        let life = self.machine.must_show_life() && self.jobs.life.is_none();
        let life = life.then_some(&self.next_life);
        timers.chain(life).min().copied()
    }

    fn ring(&mut self) {
        let now = Instant::now();
        self.excuse_peers(now);
        // One by one: a step may set the next timer anew.
        while let Some(peer) = ended(&mut self.belief_timers, now) {
            let beliefs = self.detector.step(liveness::Input::Timeout(peer));
            self.believe(beliefs);
        }
        while let Some(timer) = ended(&mut self.timers, now) {
            self.step(Input::Timeout(timer));
        }
    }

    /// If this node itself has slept, what its peers sent meanwhile has yet to be read: they get
    /// another wait. Not again and again: a node that is always late must judge in the end.
    fn excuse_peers(&mut self, now: Instant) {
        let wait = self.timing.patience();
        let first = self.belief_timers.values().min();
        let slept = first.is_some_and(|end| now > *end + self.timing.heartbeat);
        if !slept || now < self.excused + wait * 4 {
            return;
        }
        self.excused = now;
        for end in self.belief_timers.values_mut() {
            *end = (*end).max(now + wait);
        }
    }

    fn probed(&mut self, last: Option<Epoch>) {
        let serves = last.is_some() && self.store.known_log_fault().is_none();
        self.step(Input::Reaches(serves));
        // A coordinator without work learns here that another has claimed, if nobody tells it.
        self.met(last.unwrap_or_default());
    }

    /// The log has come to this epoch.
    fn met(&mut self, epoch: Epoch) {
        if epoch > self.machine.epoch() {
            self.step(Input::Deposed(epoch));
        }
    }

    fn probe(&mut self) {
        if self.jobs.probe.is_none() {
            let store = self.store.clone();
            self.jobs.probe = Some(async move { store.probe().await }.boxed());
        }
    }

    fn show_life(&mut self) {
        let due = self.machine.must_show_life() && self.next_life <= Instant::now();
        if !due || self.jobs.life.is_some() {
            return;
        }
        self.next_life = Instant::now() + self.timing.life();
        self.lives += 1;
        let (store, epoch, count) = (self.store.clone(), self.machine.epoch(), self.lives);
        let show = async move {
            if let Err(error) = store.show_life(epoch, count).await {
                debug!(%error, "cannot show a sign of life");
            }
        };
        self.jobs.life = Some(show.boxed());
    }

    fn publish(&mut self) {
        let beat = self.machine.beat();
        self.beats.send_if_modified(|known| {
            let differs = *known != beat;
            known.clone_from(&beat);
            differs
        });
        let now = leadership_of(&self.machine);
        let before = self.leadership.borrow().clone();
        if now != before {
            tell(&before, &now);
            self.leadership.send_replace(now);
        }
        let may_go = match self.machine.role() {
            Role::Coordinator => false,
            Role::Electing => !self.hands_over,
            Role::Follower => true,
        };
        if may_go {
            self.go();
        }
        let nodes = self.views();
        self.nodes.send_if_modified(|known| {
            let differs = *known != nodes;
            *known = nodes;
            differs
        });
    }

    fn go(&mut self) {
        if let Some(left) = self.left.take() {
            let _ = left.send(()); // whoever asked may have given up
        }
    }

    fn views(&self) -> NodesView {
        let me = self.machine.beat();
        let mut known: BTreeMap<_, _> = self
            .machine
            .peers()
            .map(|(name, liveness, beat)| (name, (liveness, beat)))
            .collect();
        known.insert(&me.rank.node, (Liveness::Alive, Some(&me)));
        let view = |(name, (state, beat)): (&NodeName, (Liveness, Option<&Beat>))| NodeView {
            name: name.to_string(),
            url: self.urls.get(name).cloned().unwrap_or_default(),
            rank: beat.map(|beat| beat.rank.number),
            // What a silent node does is not known.
            role: beat
                .filter(|_| state == Liveness::Alive)
                .map(|beat| beat.role),
            state,
        };
        let coordinator = self.machine.coordinator();
        NodesView {
            coordinator: coordinator.map(|tenure| tenure.node.to_string()),
            nodes: known.into_iter().map(view).collect(),
        }
    }
}

fn urls(own: String, me: NodeName, peers: Vec<Peer>) -> BTreeMap<NodeName, String> {
    let peers = peers
        .into_iter()
        .map(|peer| (peer.name, peer.url.to_string()));
    peers.chain([(me, own)]).collect()
}

fn probes() -> Interval {
    let mut probes = interval(PROBE_INTERVAL);
    probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    probes
}

/// Takes out a timer that has ended by then.
fn ended<K: Ord + Clone>(timers: &mut BTreeMap<K, Instant>, by: Instant) -> Option<K> {
    let (timer, _) = timers.iter().find(|(_, end)| **end <= by)?;
    let timer = timer.clone();
    timers.remove(&timer);
    Some(timer)
}

fn leadership_of(machine: &Machine) -> Leadership {
    let coordinator = machine.coordinator();
    let alive = |tenure: &Tenure| {
        let peer = machine.peers().find(|(name, ..)| **name == tenure.node);
        peer.is_some_and(|(_, liveness, _)| liveness == Liveness::Alive)
    };
    Leadership {
        role: machine.role(),
        reachable: machine.role() == Role::Coordinator || coordinator.as_ref().is_some_and(alive),
        coordinator,
    }
}

fn tell(before: &Leadership, now: &Leadership) {
    if (before.role, &before.coordinator) == (now.role, &now.coordinator) {
        return;
    }
    match (now.role, &now.coordinator) {
        (Role::Coordinator, Some(tenure)) => info!(epoch = %tenure.epoch, "is coordinator"),
        (_, Some(tenure)) => info!(coordinator = %tenure.node, epoch = %tenure.epoch, "follows"),
        (_, None) => info!("knows no coordinator"),
    }
}
