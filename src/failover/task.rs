//! Watches the primary, agrees with the peers that it is gone, and has a member asked to stand.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::ask::{Found, ask, look_around};
use super::hearsay::Hearsay;
use super::keeper::Keeper;
use super::quorum::{Input, Output, Quorum, Time, Told, Voice};
use crate::election::Leadership;
use crate::job::{Job, working};
use crate::metrics::Metrics;
use crate::model::{Message, Rank};
use crate::store::{Greeting, Members, STATE_CHANGE, Store, StoreError};

/// Between two knocks at a primary that was lost; with the next heartbeat they begin anew.
const KNOCK_PAUSES: [Duration; 4] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(40),
];
/// How long a node waits before it asks again what its MongoDB user may do.
const RIGHTS_PAUSE: Duration = Duration::from_secs(1);
/// How often the set's configuration is asked for members that the driver does not hear of.
const HIDDEN_INTERVAL: Duration = Duration::from_secs(10);
/// A node that slept gives the primary another chance, but not again and again.
const EXCUSE_REST: u32 = 4;
/// How long MongoDB may take to elect another when the primary is a secondary by its own word: it hands over at once,
/// or, if it was forced to step down, to nobody.
const HANDOVER_MAX: Duration = Duration::from_millis(500);
/// How long a peer with a larger rank may take to have a member elected.
const ACT_MAX: Duration = Duration::from_secs(1);
/// A replica set that elects more often than so is not made to elect again: it may be that its members
/// are too slow for `--primary-timeout`.
const ELECTIONS_MAX: usize = 10;
const ELECTIONS_TIME: Duration = Duration::from_secs(60);

/// How a node helps its replica set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assist {
    /// How long a primary may be silent before it counts as gone. One that refuses connections does
    /// at once.
    pub primary_timeout: Duration,
}

impl Default for Assist {
    fn default() -> Self {
        Self {
            primary_timeout: Duration::from_secs(2),
        }
    }
}

/// The way to the same task of the peers.
#[derive(Debug)]
pub struct Wire {
    pub heard: mpsc::Receiver<(Rank, Message)>,
    /// To all peers.
    pub tell: mpsc::Sender<Message>,
}

/// What takes part.
#[derive(Debug)]
pub struct Parts {
    pub store: Store,
    pub rank: Rank,
    /// How many there are.
    pub peers: usize,
    pub assist: Assist,
    /// The time between two heartbeats, and how long one is valid.
    pub heartbeat: Duration,
    pub patience: Duration,
    pub wire: Wire,
    pub leadership: watch::Receiver<Leadership>,
    pub metrics: Metrics,
}

/// Starts to watch. Ends with the node.
pub fn spawn(parts: Parts) {
    tokio::spawn(async move {
        let missing = missing_rights(&parts.store).await;
        if missing.contains(&STATE_CHANGE) {
            warn!(
                "the MongoDB user lacks {STATE_CHANGE}: losing the primary will take MongoDB's own election, 11 to 12 s; the role clusterManager allows it"
            );
            return;
        }
        if !missing.is_empty() {
            info!(
                "the MongoDB user lacks {}: losing a member may take a second longer; the role clusterAdmin allows it",
                missing.join(", ")
            );
        }
        let sets = !missing.contains(&"setParameter");
        let (store, metrics) = (parts.store.clone(), parts.metrics.clone());
        let keeper = Keeper::new(store, parts.leadership.clone(), metrics, sets);
        tokio::spawn(keeper.run());
        Task::new(parts).run().await;
    });
}

async fn missing_rights(store: &Store) -> Vec<&'static str> {
    loop {
        match store.missing_rights().await {
            Ok(missing) => return missing,
            Err(_) => sleep(RIGHTS_PAUSE).await,
        }
    }
}

struct Task {
    parts: Parts,
    quorum: Quorum,
    members: Members,
    /// The last primary that the driver found.
    primary: Option<String>,
    /// The driver takes it for primary now.
    seen: bool,
    /// Enough members answer the driver to elect one.
    can_elect: bool,
    /// When the primary last answered; or when it was found, or given another chance.
    heard_at: Instant,
    excused_at: Instant,
    /// Since when it has been a secondary, and no other is primary.
    stepped_down_at: Option<Instant>,
    hearsay: Hearsay,
    /// When a primary of a later term was heard of, for [`ELECTIONS_TIME`], at most [`ELECTIONS_MAX`].
    elections: VecDeque<Instant>,
    /// The agreement's timer.
    waits_until: Option<Instant>,
    ping: Job<(Instant, Result<Greeting, StoreError>)>,
    /// The host, if it refuses connections.
    knock: Job<Option<String>>,
    /// The term in which this node acted last, or is about to.
    acts_in: i64,
    looking: Job<Found>,
    asking: Job<Option<String>>,
    learning: Job<()>,
    learnt_at: Option<Instant>,
}

impl Task {
    fn new(parts: Parts) -> Self {
        let now = Instant::now();
        Self {
            quorum: Quorum::new(parts.rank.clone(), parts.peers),
            members: parts.store.topology(),
            parts,
            primary: None,
            seen: false,
            can_elect: false,
            heard_at: now,
            excused_at: now,
            stepped_down_at: None,
            hearsay: Hearsay::default(),
            elections: VecDeque::new(),
            waits_until: None,
            ping: None,
            knock: None,
            acts_in: 0,
            looking: None,
            asking: None,
            learning: None,
            learnt_at: None,
        }
    }

    async fn run(mut self) {
        self.sighted();
        let mut beats = beats(self.parts.heartbeat);
        loop {
            let waited = self.waits_until;
            tokio::select! {
                changed = self.members.changed() => match changed {
                    true => self.sighted(),
                    false => return,
                },
                heard = self.parts.wire.heard.recv() => match heard {
                    Some((rank, message)) => self.heard(rank, message),
                    None => return,
                },
                (began, answer) = working(&mut self.ping) => self.pinged(began, answer),
                refused = working(&mut self.knock) => self.knocked(refused),
                found = working(&mut self.looking) => self.found(found),
                elected = working(&mut self.asking) => self.asked(elected),
                () = working(&mut self.learning) => self.sighted(),
                () = sleep_until(waited.unwrap_or_else(Instant::now)), if waited.is_some() => {
                    self.waits_until = None;
                    self.step(Input::Waited);
                }
                due = beats.tick() => self.beat(due),
            }
        }
    }

    /// What the driver sees has changed.
    fn sighted(&mut self) {
        let sight = self.members.sight();
        self.seen = sight.primary.is_some();
        self.can_elect = sight.can_elect();
        self.judge();
        let primary = self.primary.as_ref();
        let stepped_down = !self.seen && primary.is_some_and(|p| sight.secondaries.contains(p));
        let since = self.stepped_down_at.unwrap_or_else(Instant::now);
        self.stepped_down_at = stepped_down.then_some(since);
        if self.seen && sight.primary != self.primary {
            self.primary = sight.primary;
            self.heard_at = Instant::now();
            self.ping = None;
            self.knock = None;
        }
        match self.seen {
            true => self.send_ping(),
            false => self.send_knock(),
        }
    }

    fn send_ping(&mut self) {
        if self.ping.is_some() {
            return;
        }
        let Some(host) = self.primary.clone() else {
            return;
        };
        let store = self.parts.store.clone();
        let ping = async move { (Instant::now(), store.hello(&host).await) };
        self.ping = Some(ping.boxed());
    }

    /// A connection was lost: does anybody still listen there?
    fn send_knock(&mut self) {
        if self.knock.is_some() {
            return;
        }
        let Some(host) = self.primary.clone() else {
            return;
        };
        let store = self.parts.store.clone();
        self.knock = Some(knock(store, host).boxed());
    }

    fn pinged(&mut self, began: Instant, answer: Result<Greeting, StoreError>) {
        match answer {
            Ok(Greeting {
                primary: true,
                term,
                ..
            }) => {
                self.heard_at = self.heard_at.max(began);
                self.led(term.unwrap_or(0));
            }
            // It has stepped down. Another one is elected at once, or not at all.
            Ok(_) => {}
            Err(_) => self.send_knock(),
        }
    }

    fn led(&mut self, term: i64) {
        let known = self.quorum.term();
        if known > 0 && term > known {
            self.elections.truncate(ELECTIONS_MAX - 1);
            self.elections.push_front(Instant::now());
        }
        self.step(Input::Led(term));
        if self.looking.take().is_some() {
            self.step(Input::Unasked);
        }
        // One of a later term was asked by this node, it may be, and it has to finish with it.
        if term <= self.acts_in && self.asking.take().is_some() {
            info!("the primary is back: nobody else is asked to stand");
            // A member may have been asked already, so this was the term's attempt.
            self.step(Input::InVain);
        }
    }

    /// Whether to act is worth it now.
    fn judge(&mut self) {
        self.elections.retain(|at| at.elapsed() < ELECTIONS_TIME);
        let calm = self.elections.len() < ELECTIONS_MAX;
        self.step(Input::Fit(self.can_elect && calm));
    }

    fn learn_hidden(&mut self, now: Instant) {
        let due = self.learnt_at.is_none_or(|at| now > at + HIDDEN_INTERVAL);
        if due && self.learning.is_none() {
            self.learnt_at = Some(now);
            let store = self.parts.store.clone();
            let learning = async move {
                if let Err(error) = store.learn_hidden().await {
                    debug!(%error, "cannot read which members are hidden");
                }
            };
            self.learning = Some(learning.boxed());
        }
    }

    fn knocked(&mut self, refused: Option<String>) {
        if refused.is_some() && refused == self.primary {
            self.lose("refuses connections");
        }
    }

    fn heard(&mut self, rank: Rank, message: Message) {
        let Message::PrimaryLost { term, passes } = message else {
            return;
        };
        let now = Instant::now();
        self.hearsay.heard(rank.node.clone(), term, now);
        if self.is_to_check(now) {
            self.send_knock();
        }
        self.step(Input::Voice(Voice { rank, term, passes }));
    }

    /// A process that was killed may take a tenth of a second to close all its connections. So the peers'
    /// word is checked also while the driver still sees the primary, but not each time: it may be out of
    /// their reach alone.
    fn is_to_check(&mut self, now: Instant) -> bool {
        if self.has_lost() || self.knock.is_some() {
            return false;
        }
        !self.seen || self.hearsay.takes_a_knock(now)
    }

    /// Whether this node finds no primary, and tells its peers so.
    const fn has_lost(&self) -> bool {
        self.quorum.told().is_some()
    }

    fn beat(&mut self, due: Instant) {
        let now = Instant::now();
        self.excuse(due, now);
        for node in self.hearsay.hushed(self.parts.patience, now) {
            self.step(Input::Hushed(node));
        }
        self.judge();
        self.learn_hidden(now);
        if now > self.heard_at + self.parts.assist.primary_timeout {
            self.lose("does not answer, and no other is primary");
        }
        let handover_end = self.stepped_down_at.map(|at| at + HANDOVER_MAX);
        if handover_end.is_some_and(|end| now > end) {
            self.lose("has stepped down, and no other is primary");
        }
        if let Some(told) = self.quorum.told() {
            self.tell(told);
        }
        match self.seen {
            true => self.send_ping(),
            false if !self.has_lost() => self.send_knock(),
            false => {}
        }
    }

    /// If this node itself has slept, the primary's answer may wait to be read.
    fn excuse(&mut self, due: Instant, now: Instant) {
        let timeout = self.parts.assist.primary_timeout;
        let slept = now > due + self.parts.heartbeat;
        if slept && now > self.excused_at + timeout * EXCUSE_REST {
            self.excused_at = now;
            self.heard_at = self.heard_at.max(now - timeout / 2);
        }
    }

    fn lose(&mut self, why: &str) {
        if !self.has_lost() {
            let primary = self.primary.as_deref().unwrap_or("none");
            warn!(%primary, "the primary is gone: it {why}");
            self.parts.metrics.primary_lost();
        }
        self.step(Input::Lost);
    }

    fn step(&mut self, input: Input) {
        for output in self.quorum.step(input) {
            match output {
                Output::Tell(told) => self.tell(told),
                Output::Wait(time) => self.waits_until = Some(Instant::now() + self.span(time)),
                Output::Ask { term } => self.look(term),
            }
        }
    }

    fn tell(&self, Told { term, passes }: Told) {
        let message = Message::PrimaryLost { term, passes };
        let _ = self.parts.wire.tell.try_send(message);
    }

    const fn span(&self, time: Time) -> Duration {
        match time {
            Time::Heartbeat => self.parts.heartbeat,
            Time::Act => ACT_MAX,
        }
    }

    fn look(&mut self, term: i64) {
        if self.acts_in != term {
            let (agreeing, nodes) = self.quorum.agreeing();
            info!(
                term,
                "{agreeing} of {nodes} nodes agree that the primary is gone"
            );
        }
        self.acts_in = term;
        let store = self.parts.store.clone();
        self.looking = Some(async move { look_around(&store).await }.boxed());
    }

    fn found(&mut self, found: Found) {
        let members = match found {
            Found::Members(members) if !members.candidates().is_empty() => members,
            Found::Members(_) => {
                debug!("no member answers that could win");
                return self.step(Input::Unasked);
            }
            Found::Primary(host) => {
                debug!(%host, "a member is primary already");
                return self.step(Input::Unasked);
            }
        };
        self.parts.metrics.asked();
        let (store, metrics) = (self.parts.store.clone(), self.parts.metrics.clone());
        let lost = self.primary.clone();
        let asking = async move { ask(&store, &metrics, lost.as_deref(), &members).await };
        self.asking = Some(asking.boxed());
    }

    fn asked(&mut self, elected: Option<String>) {
        match elected {
            Some(_) => self.parts.metrics.elected(),
            None => {
                warn!("no member was elected on this node's word");
                self.step(Input::InVain);
            }
        }
    }
}

/// The host, if it refuses connections. The kernel takes some time to close what a killed process had open.
async fn knock(store: Store, host: String) -> Option<String> {
    for pause in KNOCK_PAUSES {
        if store.refuses(&host).await {
            return Some(host);
        }
        sleep(pause).await;
    }
    store.refuses(&host).await.then_some(host)
}

fn beats(heartbeat: Duration) -> Interval {
    let mut beats = interval(heartbeat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}
