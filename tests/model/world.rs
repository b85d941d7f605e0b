//! A small world for the election: nodes with machine and detector, a network between them, MongoDB
//! with its log, and a clock that only events move. Everything is drawn from one seed.

use std::collections::BTreeMap;

use drumline::election::{Input, Looked, Machine, NotClaimed, Output};
use drumline::liveness::{Detector, Input as Sign, Output as Belief};
use drumline::model::{Epoch, Message, Rank, Role, Tenure};

use super::events::{Arrival, ClaimEnd, Event, Fault, Letter, Sight};
use super::node::Node;
use super::random::Random;
use super::times::{BEAT_MS, CLAIM_LANDS_MS, CLAIM_MAX_MS, ms, timing};

pub struct World {
    pub now_ms: u64,
    random: Random,
    events: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    pub nodes: Vec<Node>,
    /// Who claimed each epoch, in which life; epoch 1 first.
    pub claims: Vec<(usize, u32)>,
    appended: u64,
    presence: u64,
    /// How many faults block connections from the first to the second.
    blocked: BTreeMap<(usize, usize), u32>,
    weather: u32,
    /// Of eight ticks of a coordinator, how many append a batch.
    load: u64,
    /// What the machines had done, heartbeats and timers left out, by node and second.
    pub activity: BTreeMap<(usize, u64), u32>,
    /// When which tenure began, as machines said.
    pub tenures: Vec<(u64, Tenure, Rank)>,
}

impl World {
    /// Nodes n1, n2, ... that start one after the other within `spread_ms`.
    pub fn new(seed: u64, nodes: usize, spread_ms: u64) -> Self {
        let mut random = Random::new(seed);
        let load = random.pick(&[0, 0, 1, 4, 8]);
        let mut world = Self {
            now_ms: 0,
            events: BTreeMap::new(),
            scheduled: 0,
            nodes: (0..nodes).map(Node::absent).collect(),
            claims: Vec::new(),
            appended: 0,
            presence: 0,
            blocked: BTreeMap::new(),
            weather: 0,
            load,
            activity: BTreeMap::new(),
            tenures: Vec::new(),
            random,
        };
        for node in 0..nodes {
            let at_ms = world.random.below(spread_ms + 1);
            world.schedule(at_ms, Event::Starts(node));
        }
        world
    }

    pub fn fault(&mut self, fault: Fault, from_ms: u64, to_ms: Option<u64>) {
        self.schedule_at(from_ms, Event::Fault(fault.clone()));
        if let Some(to_ms) = to_ms {
            self.schedule_at(to_ms, Event::Heals(fault));
        }
    }

    pub fn run_until(&mut self, end_ms: u64) {
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > end_ms {
                break;
            }
            let ((at_ms, _), event) = entry.remove_entry();
            self.now_ms = at_ms;
            self.happen(event);
        }
        self.now_ms = end_ms;
    }

    /// Runs until all nodes know the one coordinator; says what is wrong if that takes longer.
    pub fn run_until_agreed(&mut self, within_ms: u64) -> Result<Tenure, String> {
        let end_ms = self.now_ms + within_ms;
        loop {
            let agreed = self.agreed();
            if agreed.is_ok() || self.now_ms >= end_ms {
                return agreed;
            }
            self.run_until(self.now_ms + BEAT_MS / 2);
        }
    }

    /// The one coordinator that all nodes know, or what is wrong.
    fn agreed(&self) -> Result<Tenure, String> {
        let up = || self.nodes.iter().filter(|node| node.up);
        let mut coordinators = up().filter(|node| node.machine.role() == Role::Coordinator);
        let Some(coordinator) = coordinators.next() else {
            return Err("nobody is coordinator".into());
        };
        let tenure = coordinator.machine.coordinator().unwrap();
        if let Some(other) = coordinators.next() {
            return Err(format!("{} and {} coordinate", tenure.node, other.name));
        }
        if coordinator.serving != Some(tenure.epoch) {
            return Err(format!("{tenure:?} does not serve"));
        }
        if coordinator.without_mongo > 0 {
            return Err(format!("{tenure:?} does not reach MongoDB"));
        }
        if Some(&tenure) != self.last_claim().as_ref() {
            return Err(format!("{tenure:?} is not the last claim"));
        }
        let stray = up().find(|node| node.machine.coordinator().as_ref() != Some(&tenure));
        match stray {
            Some(stray) => Err(format!(
                "{} does not follow: {:?}",
                stray.name, stray.machine
            )),
            None => Ok(tenure),
        }
    }

    pub fn largest_rank(&self) -> Rank {
        let up = self.nodes.iter().filter(|node| node.up);
        up.map(|node| node.machine.beat().rank).max().unwrap()
    }

    fn schedule(&mut self, after_ms: u64, event: Event) {
        self.schedule_at(self.now_ms + after_ms, event);
    }

    fn schedule_at(&mut self, at_ms: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((at_ms, self.scheduled), event);
    }

    fn arrive(&mut self, after_ms: u64, node: usize, arrival: Arrival) {
        let life = self.nodes[node].life;
        self.schedule(after_ms, Event::Arrives(node, Some(life), arrival));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives(node, life, arrival) => self.deliver(node, life, arrival),
            Event::ClaimLands {
                node,
                life,
                claim,
                over,
            } => self.land(node, life, claim, over),
            Event::Starts(node) => self.start(node),
            Event::Fault(fault) => self.set_fault(&fault, true),
            Event::Heals(fault) => self.set_fault(&fault, false),
        }
    }

    fn set_fault(&mut self, fault: &Fault, on: bool) {
        let count = |counter: &mut u32| *counter = if on { *counter + 1 } else { *counter - 1 };
        match *fault {
            Fault::Killed(node) if on => self.nodes[node].up = false,
            Fault::Stopped(node) if on => {
                let gone_ms = self.now_ms + 500;
                self.fault(Fault::Killed(node), gone_ms, None);
                if self.nodes[node].up && !self.nodes[node].frozen {
                    self.step(node, Input::Leave);
                }
            }
            Fault::Killed(node) | Fault::Stopped(node) => self.start(node),
            Fault::Frozen(node) if on => self.nodes[node].frozen = true,
            Fault::Frozen(node) => self.thaw(node),
            Fault::WithoutMongo(node) => count(&mut self.nodes[node].without_mongo),
            Fault::Deaf(from, to) => count(self.blocked.entry((from, to)).or_default()),
            Fault::Cut(one, other) => {
                count(self.blocked.entry((one, other)).or_default());
                count(self.blocked.entry((other, one)).or_default());
            }
            Fault::Alone(node) => {
                for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
                    count(self.blocked.entry((node, peer)).or_default());
                    count(self.blocked.entry((peer, node)).or_default());
                }
            }
            Fault::Weather => count(&mut self.weather),
        }
    }

    fn start(&mut self, index: usize) {
        if self.nodes[index].up {
            return;
        }
        let rank = Rank {
            number: self.random.below(1 << 20),
            node: self.nodes[index].name.clone(),
        };
        self.start_with(index, rank);
    }

    /// Starts a node that is down, with a rank that is given.
    pub fn start_with(&mut self, index: usize, rank: Rank) {
        let names: Vec<_> = self.nodes.iter().map(|node| node.name.clone()).collect();
        let peers: Vec<_> = names
            .into_iter()
            .filter(|name| *name != rank.node)
            .collect();
        let (detector, timers) = Detector::new(peers.clone());
        let node = &mut self.nodes[index];
        *node = Node {
            life: node.life + 1,
            up: true,
            machine: Machine::new(rank, peers),
            detector,
            without_mongo: node.without_mongo,
            ..Node::absent(index)
        };
        self.believe(index, timers);
        self.step(index, Input::Start);
        let first_ms = self.random.below(BEAT_MS);
        self.arrive(first_ms, index, Arrival::Tick);
    }

    fn thaw(&mut self, index: usize) {
        self.nodes[index].frozen = false;
        let mut missed = std::mem::take(&mut self.nodes[index].missed);
        // What waited in sockets and what waited for the clock come in no certain order.
        while !missed.is_empty() {
            let chosen = self.random.below(missed.len().min(4) as u64);
            let arrival = missed.remove(usize::try_from(chosen).unwrap());
            self.receive(index, arrival);
        }
    }

    fn deliver(&mut self, index: usize, life: Option<u32>, arrival: Arrival) {
        let node = &mut self.nodes[index];
        if life.is_some_and(|life| life != node.life) {
            return;
        }
        if !node.up {
            if let Arrival::Letter(Letter {
                from, request_of, ..
            }) = arrival
            {
                let refused = Arrival::Refused(index);
                self.schedule(1, Event::Arrives(from, request_of, refused));
            }
            return;
        }
        if !node.frozen {
            return self.receive(index, arrival);
        }
        // Sockets hold so much and no more; its own clock and work wait for the node.
        let letter = matches!(arrival, Arrival::Letter(_));
        if node.missed.len() < 64 || !letter {
            node.missed.push(arrival);
        }
    }

    fn receive(&mut self, index: usize, arrival: Arrival) {
        if !self.nodes[index].up {
            return;
        }
        match arrival {
            Arrival::Tick => self.tick(index),
            Arrival::Letter(letter) => self.read(index, letter),
            Arrival::Refused(peer) => {
                let peer = self.nodes[peer].name.clone();
                self.step(index, Input::Refused(peer.clone()));
                self.sign(index, Sign::Refused(peer));
            }
            Arrival::Timer(timer, set) if self.nodes[index].timers.get(&timer) == Some(&set) => {
                self.step(index, Input::Timeout(timer));
            }
            Arrival::PeerTimer(peer, set)
                if self.nodes[index].peer_timers.get(&peer) == Some(&set) =>
            {
                self.sign(index, Sign::Timeout(peer));
            }
            Arrival::Timer(..) | Arrival::PeerTimer(..) => {}
            Arrival::LookEnds { look, before } if self.nodes[index].look == look => {
                let looked = self.looked(index, &before);
                self.step(index, Input::Looked(looked));
            }
            Arrival::LookEnds { .. } => {}
            Arrival::ClaimEnds { claim, end } if self.nodes[index].claim == claim => {
                self.nodes[index].claim = 0;
                self.step(
                    index,
                    match end {
                        ClaimEnd::Claimed(epoch) => Input::Claimed(epoch),
                        ClaimEnd::Superseded(by) => Input::NotClaimed(NotClaimed::Superseded(by)),
                        ClaimEnd::NoAnswer => Input::NotClaimed(NotClaimed::Unreachable),
                    },
                );
            }
            Arrival::ClaimEnds { .. } => {}
            Arrival::Drained if self.nodes[index].without_mongo > 0 => {
                self.arrive(BEAT_MS, index, Arrival::Drained);
            }
            Arrival::Drained => self.step(index, Input::Drained),
        }
    }

    fn tick(&mut self, index: usize) {
        self.arrive(BEAT_MS, index, Arrival::Tick);
        let node = &mut self.nodes[index];
        node.ticks += 1;
        let (reaches, shows) = (node.without_mongo == 0, node.ticks.is_multiple_of(2));
        if reaches != node.knows_reach {
            node.knows_reach = reaches;
            self.step(index, Input::Reaches(reaches));
        }
        for peer in (0..self.nodes.len()).filter(|peer| *peer != index) {
            self.post(index, peer, Message::Heartbeat);
        }
        let node = &self.nodes[index];
        if reaches && shows && node.machine.must_show_life() {
            self.show_life(index);
        }
        if reaches && self.random.below(8) < self.load {
            self.append(index);
        }
    }

    /// The sign is fenced as a batch is, so that an idle coordinator learns of its end.
    fn show_life(&mut self, index: usize) {
        let epoch = self.nodes[index].machine.coordinator().unwrap().epoch;
        let last = self.last_epoch();
        if epoch == last {
            self.presence += 1;
        } else {
            self.step(index, Input::Deposed(last));
        }
    }

    /// Each node that serves writes once: a claim that landed late is met by then.
    pub fn everybody_writes(&mut self) {
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            if node.up && !node.frozen && node.without_mongo == 0 {
                self.append(index);
            }
        }
    }

    /// A coordinator's batch, if it serves: the fence lets it through, or deposes it.
    fn append(&mut self, index: usize) {
        let Some(epoch) = self.nodes[index].serving else {
            return;
        };
        let last = self.last_epoch();
        if epoch == last {
            self.appended += 1;
            return;
        }
        self.nodes[index].serving = None;
        self.step(index, Input::Deposed(last));
    }

    fn last_epoch(&self) -> Epoch {
        Epoch(i64::try_from(self.claims.len()).unwrap())
    }

    fn last_claim(&self) -> Option<Tenure> {
        self.claims.last().map(|(node, _)| Tenure {
            node: self.nodes[*node].name.clone(),
            epoch: self.last_epoch(),
        })
    }

    fn sight(&self) -> Sight {
        Sight {
            appended: self.appended,
            presence: self.presence,
        }
    }

    fn looked(&self, index: usize, before: &Sight) -> Looked {
        if self.nodes[index].without_mongo > 0 {
            return Looked::Unreachable;
        }
        let now = self.sight();
        match self.last_claim() {
            Some(last) if now != *before => Looked::Active(last),
            last => Looked::Quiet(last),
        }
    }

    /// The claim reaches the log, whatever has become of its sender meanwhile.
    fn land(&mut self, node: usize, life: u32, claim: u64, over: Epoch) {
        let end = if self.last_epoch() == over {
            self.claims.push((node, life));
            self.appended += 1;
            ClaimEnd::Claimed(self.last_epoch())
        } else {
            ClaimEnd::Superseded(self.last_claim().unwrap())
        };
        let lost = self.weather > 0 && self.random.below(3) == 0;
        if lost || self.nodes[node].without_mongo > 0 {
            return;
        }
        let after_ms = self.travel_ms();
        let arrival = Arrival::ClaimEnds { claim, end };
        self.schedule(after_ms, Event::Arrives(node, Some(life), arrival));
    }

    fn travel_ms(&mut self) -> u64 {
        match self.weather {
            0 => 1 + self.random.below(10),
            _ => 1 + self.random.below(5 * BEAT_MS),
        }
    }

    fn post(&mut self, from: usize, to: usize, message: Message) {
        let blocked = self.blocked.get(&(from, to)).is_some_and(|by| *by > 0);
        let copies = match self.weather {
            _ if blocked => 0,
            0 => 1,
            _ => self.random.pick(&[0, 1, 1, 2]),
        };
        let letter = Letter {
            from,
            beat: self.nodes[from].machine.beat(),
            message,
            request_of: Some(self.nodes[from].life),
        };
        for _ in 0..copies {
            let after_ms = self.travel_ms();
            let arrival = Arrival::Letter(letter.clone());
            self.schedule(after_ms, Event::Arrives(to, None, arrival));
        }
    }

    fn read(&mut self, index: usize, letter: Letter) {
        let from = self.nodes[letter.from].name.clone();
        self.sign(index, Sign::Heard(from.clone()));
        let (beat, message) = (letter.beat, letter.message);
        self.step(
            index,
            Input::Heard {
                from,
                beat,
                message,
            },
        );
        let lost = self.weather > 0 && self.random.below(4) == 0;
        let blocked = self.blocked.get(&(letter.from, index));
        if letter.request_of.is_none() || lost || blocked.is_some_and(|by| *by > 0) {
            return;
        }
        let reply = Letter {
            from: index,
            beat: self.nodes[index].machine.beat(),
            message: Message::Heartbeat,
            request_of: None,
        };
        let after_ms = self.travel_ms();
        let arrival = Arrival::Letter(reply);
        self.schedule(
            after_ms,
            Event::Arrives(letter.from, letter.request_of, arrival),
        );
    }

    fn sign(&mut self, index: usize, sign: Sign) {
        let beliefs = self.nodes[index].detector.step(sign);
        self.believe(index, beliefs);
    }

    fn believe(&mut self, index: usize, beliefs: Vec<Belief>) {
        for belief in beliefs {
            match belief {
                Belief::Became(peer, liveness) => {
                    self.step(index, Input::Became(peer, liveness));
                }
                Belief::SetTimer(peer, wait) => {
                    let set = self.scheduled;
                    self.nodes[index].peer_timers.insert(peer.clone(), set);
                    self.arrive(
                        ms(timing().belief(wait)),
                        index,
                        Arrival::PeerTimer(peer, set),
                    );
                }
            }
        }
    }

    fn step(&mut self, index: usize, input: Input) {
        for output in self.nodes[index].machine.step(input) {
            self.carry_out(index, output);
        }
        self.check(index);
    }

    fn carry_out(&mut self, index: usize, output: Output) {
        if !matches!(output, Output::SetTimer(_)) {
            let second = self.now_ms / 1000;
            *self.activity.entry((index, second)).or_default() += 1;
        }
        match output {
            Output::Send(to, message) => {
                let to = self.nodes.iter().position(|node| node.name == to).unwrap();
                self.post(index, to, message);
            }
            Output::SetTimer(timer) => {
                let set = self.scheduled;
                self.nodes[index].timers.insert(timer, set);
                self.arrive(ms(timing().timer(timer)), index, Arrival::Timer(timer, set));
            }
            Output::Look(patience) => {
                let look = self.scheduled;
                self.nodes[index].look = look;
                let before = self.sight();
                let after_ms = ms(timing().look(patience)) + self.travel_ms();
                self.arrive(after_ms, index, Arrival::LookEnds { look, before });
            }
            Output::Claim { over } => self.claim(index, over),
            Output::Serve(epoch) => self.serve(index, epoch),
            Output::Drain => {
                self.nodes[index].serving = None;
                let after_ms = self.travel_ms();
                self.arrive(after_ms, index, Arrival::Drained);
            }
            Output::StepDown { before } => {
                let node = &mut self.nodes[index];
                node.serving = node.serving.filter(|epoch| *epoch >= before);
            }
        }
    }

    fn claim(&mut self, index: usize, over: Epoch) {
        let claim = self.scheduled + 1;
        assert_eq!(self.nodes[index].claim, 0, "two claims of one node at once");
        self.nodes[index].claim = claim;
        let end = ClaimEnd::NoAnswer;
        self.arrive(CLAIM_MAX_MS, index, Arrival::ClaimEnds { claim, end });
        let node = &self.nodes[index];
        // A claim that was sent in time may land long after its sender has given it up.
        let lost = node.without_mongo > 0 || self.weather > 0 && self.random.below(4) == 0;
        if lost {
            return;
        }
        let life = node.life;
        let late = self.weather > 0 && self.random.below(4) == 0;
        let after_ms = if late {
            self.random.below(CLAIM_LANDS_MS)
        } else {
            self.travel_ms()
        };
        let lands = Event::ClaimLands {
            node: index,
            life,
            claim,
            over,
        };
        self.schedule(after_ms, lands);
    }

    fn serve(&mut self, index: usize, epoch: Epoch) {
        self.nodes[index].serving = Some(epoch);
        let machine = &self.nodes[index].machine;
        let began = (
            self.now_ms,
            machine.coordinator().unwrap(),
            machine.beat().rank,
        );
        self.tenures.push(began);
    }

    /// Whoever is coordinator is so by a claim of its own, made in this very life.
    fn check(&self, index: usize) {
        let node = &self.nodes[index];
        if node.machine.role() != Role::Coordinator {
            return;
        }
        let epoch = node.machine.coordinator().unwrap().epoch;
        let claimed = self.claims[usize::try_from(epoch.0).unwrap() - 1];
        assert_eq!(claimed, (index, node.life), "epoch {epoch} is another's");
    }

    /// The most that one node did in one second, heartbeats and timers left out.
    pub fn busiest(&self) -> u32 {
        self.activity.values().copied().max().unwrap_or(0)
    }
}
