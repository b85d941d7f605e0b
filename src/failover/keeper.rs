//! Keeps a successor ready, from the coordinator: the sync chain stands, and a member that loses its
//! sync source gets another one at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::chain::{self, Change};
use super::source::have_copy;
use super::stillness::Stillness;
use crate::election::Leadership;
use crate::job::{Job, working};
use crate::metrics::Metrics;
use crate::model::Role;
use crate::store::{MemberLook, Members, Store};

/// How often the members are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How soon again while one of them is behind: it may stand still.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long the members are left alone after a sync source was changed. Doubled each time, up to
/// [`REST_MAX`], until the chain stands: a member that rests tells no source.
const REST: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(64);
/// How long they are left alone after another became primary. A member that is told to change its
/// source rests for a second, and if the next one steps down meanwhile no majority is there in time.
const REST_OF_NEW: Duration = Duration::from_secs(3);

pub struct Keeper {
    store: Store,
    members: Members,
    leadership: watch::Receiver<Leadership>,
    metrics: Metrics,
    /// May set a member's parameters.
    sets: bool,
    /// The primary at the last look.
    primary: Option<String>,
    /// From whom each member copied at the last look.
    sources: BTreeMap<String, String>,
    stillness: Stillness,
    /// The members that wait for word of another sync source.
    patient: BTreeSet<String>,
    rest: Duration,
    rests_until: Instant,
}

impl Keeper {
    pub fn new(
        store: Store,
        leadership: watch::Receiver<Leadership>,
        metrics: Metrics,
        sets: bool,
    ) -> Self {
        Self {
            members: store.topology(),
            store,
            leadership,
            metrics,
            sets,
            primary: None,
            sources: BTreeMap::new(),
            stillness: Stillness::default(),
            patient: BTreeSet::new(),
            rest: REST,
            rests_until: Instant::now(),
        }
    }

    /// Ends with the node.
    pub async fn run(mut self) {
        let mut next_look = Instant::now();
        let mut look: Job<Vec<MemberLook>> = None;
        loop {
            tokio::select! {
                members = working(&mut look) => {
                    self.looked(&members).await;
                    if self.stillness.is_anyone_behind() {
                        next_look = next_look.min(Instant::now() + LOOK_AGAIN);
                    }
                }
                changed = self.members.changed() => match changed {
                    true => self.changed().await,
                    false => return,
                },
                () = sleep_until(next_look) => {
                    next_look = Instant::now() + LOOK_INTERVAL;
                    if look.is_none() && self.is_coordinator() {
                        let store = self.store.clone();
                        look = Some(async move { store.members().await }.boxed());
                    }
                }
            }
        }
    }

    /// One node is enough, and two might contradict each other for a moment.
    fn is_coordinator(&self) -> bool {
        self.leadership.borrow().role == Role::Coordinator
    }

    async fn looked(&mut self, members: &[MemberLook]) {
        if !self.is_coordinator() {
            self.primary = None;
            self.sources.clear();
            self.patient.clear();
            self.stillness.forget();
            return;
        }
        let primary = members.iter().find(|member| member.state == "primary");
        let primary = primary.map(|member| member.host.clone());
        if self.primary.is_some() && primary != self.primary {
            self.rests_until = self.rests_until.max(Instant::now() + REST_OF_NEW);
        }
        self.primary = primary;
        self.sources = members
            .iter()
            .filter_map(|member| Some((member.host.clone(), member.sync_source.clone()?)))
            .collect();
        self.make_patient(members).await;
        let still = self.stillness.look(members, Instant::now().into_std());
        match chain::plan(members, &still) {
            None => self.rest = REST,
            Some(_) if Instant::now() < self.rests_until => {}
            Some(change) => {
                self.rests_until = Instant::now() + self.rest;
                self.rest = REST_MAX.min(self.rest * 2);
                if let Some(primary) = &self.primary {
                    let why = "the successor is to be copied from";
                    have_copy(&self.store, &self.metrics, primary, &change, why).await;
                }
            }
        }
    }

    /// A member forgets it when it restarts.
    async fn make_patient(&mut self, members: &[MemberLook]) {
        let up = |member: &&MemberLook| matches!(&*member.state, "primary" | "secondary");
        let up: BTreeSet<_> = members.iter().filter(up).map(|m| m.host.clone()).collect();
        self.patient.retain(|host| up.contains(host));
        if !self.sets {
            return;
        }
        for host in up {
            if self.patient.contains(&host) {
                continue;
            }
            match self.store.make_patient(&host).await {
                Ok(()) => {
                    self.patient.insert(host);
                }
                Err(error) => debug!(%host, %error, "a member cannot be told to be patient"),
            }
        }
    }

    /// A member is there or gone. One that copied from it would look for another source, find none
    /// that is further ahead, and rest for a second: it is told which one to take.
    async fn changed(&mut self) {
        let sight = self.members.sight();
        self.patient.retain(|host| sight.has(host));
        let Some(primary) = &sight.primary else {
            return;
        };
        // Whoever asked a new primary to stand has told the others to copy from it. Told twice, they rest.
        if !self.is_coordinator() || self.primary.as_ref() != Some(primary) {
            return;
        }
        for member in &sight.secondaries {
            let source = self.sources.get(member);
            if source.is_none_or(|source| sight.has(source)) {
                continue;
            }
            let change = Change {
                member: member.clone(),
                source: primary.clone(),
            };
            self.sources.insert(member.clone(), primary.clone());
            self.rests_until = self.rests_until.max(Instant::now() + REST);
            let why = "its sync source is lost";
            have_copy(&self.store, &self.metrics, primary, &change, why).await;
        }
    }
}
