//! Looks at every member and every node while a drill runs.
//!
//! Each is asked straight, on a connection of its own. Never changes anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::reach::Reach;
use super::timeline::{MemberSeen, NodeSeen, Situation, Timeline};
use crate::check::record::monotonic_ns;
use crate::client::Client;
use crate::config::ServerUrl;
use crate::store::{Probe, StoreError};

/// Between two looks at a member.
const MEMBER_PAUSE: Duration = Duration::from_millis(10);
/// Between two looks at a node; each costs the node a look at the members now and then.
const NODE_PAUSE: Duration = Duration::from_millis(50);
/// Between two knocks at the port of a member that is down.
const KNOCK_PAUSE: Duration = Duration::from_millis(20);
const KNOCK_MAX: Duration = Duration::from_millis(200);
/// How long a node may take to say how it is: it looks at frozen members for a second before.
pub const NODE_WAIT_MAX: Duration = Duration::from_millis(1_500);
/// Neither a member nor a node: it does not answer.
const DOWN: &str = "down";

/// A node to look at.
#[derive(Debug, Clone)]
pub struct NodeAddress {
    pub name: String,
    pub url: ServerUrl,
}

/// Looks until it is dropped.
#[derive(Debug)]
pub struct Watch {
    timeline: Arc<Mutex<Timeline>>,
    sharp: Arc<AtomicBool>,
    /// Its tasks end with it.
    _lookers: JoinSet<()>,
}

impl Watch {
    pub fn begin(reach: &Reach, members: &[String], nodes: &[NodeAddress]) -> Result<Self, String> {
        let names: Vec<_> = nodes.iter().map(|node| node.name.clone()).collect();
        let timeline = Arc::new(Mutex::new(Timeline::new(members, &names)));
        let sharp = Arc::new(AtomicBool::new(false));
        let mut lookers = JoinSet::new();
        for (number, host) in members.iter().enumerate() {
            let looker = MemberLooker {
                number,
                host: host.clone(),
                reach: reach.clone(),
                timeline: Arc::clone(&timeline),
                sharp: Arc::clone(&sharp),
            };
            lookers.spawn(looker.look());
        }
        for (number, node) in nodes.iter().enumerate() {
            let client = Client::new(vec![node.url.clone()], None, NODE_WAIT_MAX);
            let client = client.map_err(|error| error.to_string())?;
            let timeline = Arc::clone(&timeline);
            lookers.spawn(look_at_node(number, node.name.clone(), client, timeline));
        }
        Ok(Self {
            timeline,
            sharp,
            _lookers: lookers,
        })
    }

    /// Whether to ask the members for the term too, which is dearer: around the fault it tells when an
    /// election began.
    pub fn sharpen(&self, sharp: bool) {
        self.sharp.store(sharp, Ordering::Relaxed);
    }

    pub fn situation(&self) -> Situation {
        lock(&self.timeline).situation()
    }

    /// What was last seen of a member.
    pub fn member(&self, host: &str) -> Option<MemberSeen> {
        let timeline = lock(&self.timeline);
        let mut members = timeline.members.iter();
        members.find(|track| track.name == host)?.last().cloned()
    }

    pub fn timeline(&self) -> Timeline {
        lock(&self.timeline).clone()
    }
}

/// What a panic has left behind is whole: each change of it is one step.
pub(super) fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

struct MemberLooker {
    number: usize,
    host: String,
    reach: Reach,
    timeline: Arc<Mutex<Timeline>>,
    sharp: Arc<AtomicBool>,
}

impl MemberLooker {
    /// Opens a connection whenever the member can be reached, and looks until it cannot.
    async fn look(self) {
        let mut last = MemberSeen {
            state: DOWN.into(),
            term: None,
            committed_term: None,
        };
        loop {
            if let Ok(probe) = self.reach.open(&self.host).await {
                let _ = self.look_through(&probe, &mut last).await;
            }
            last.state = DOWN.into();
            self.see(monotonic_ns(), &last);
            // The driver looks again after half a second at the earliest: knock first.
            while !self.listens().await {
                sleep(KNOCK_PAUSE).await;
            }
            sleep(KNOCK_PAUSE).await;
        }
    }

    async fn listens(&self) -> bool {
        let Some(address) = self.reach.address(&self.host) else {
            return false;
        };
        let knock = timeout(KNOCK_MAX, TcpStream::connect(address)).await;
        matches!(knock, Ok(Ok(_)))
    }

    async fn look_through(&self, probe: &Probe, last: &mut MemberSeen) -> Result<(), StoreError> {
        loop {
            let asked_ns = monotonic_ns();
            let look = match probe.look().await {
                Ok(look) => look,
                Err(error) => {
                    // It was silent from when it was asked.
                    last.state = DOWN.into();
                    self.see(asked_ns, last);
                    return Err(error);
                }
            };
            let mut term = look.term.max(last.term);
            if self.sharp.load(Ordering::Relaxed) {
                term = term.max(probe.term().await?);
            }
            *last = MemberSeen {
                state: look.state,
                term,
                committed_term: look.committed_term.max(last.committed_term),
            };
            self.see(monotonic_ns(), last);
            sleep(MEMBER_PAUSE).await;
        }
    }

    fn see(&self, ns: u64, seen: &MemberSeen) {
        lock(&self.timeline).members[self.number].see(ns, seen.clone());
    }
}

async fn look_at_node(number: usize, name: String, client: Client, timeline: Arc<Mutex<Timeline>>) {
    loop {
        let asked_ns = monotonic_ns();
        let (at, seen) = match client.look().await {
            Ok(view) => {
                let own = view.nodes.iter().find(|node| node.name == name);
                let role = own.and_then(|node| node.role);
                let seen = NodeSeen {
                    role: role.map_or("starting".into(), |role| role.to_string()),
                    epoch: view.epoch,
                };
                (monotonic_ns(), seen)
            }
            Err(_) => (
                asked_ns,
                NodeSeen {
                    role: DOWN.into(),
                    epoch: None,
                },
            ),
        };
        lock(&timeline).nodes[number].see(at, seen);
        sleep(NODE_PAUSE).await;
    }
}
