//! The cluster that is drilled: how to reach it, and which of its processes can be harmed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Mutex;
use std::time::Duration;

use bson::doc;
use tokio::time::{Instant, sleep};

use super::hands::Hands;
use super::reach::Reach;
use super::scenario::Fault;
use super::watch::{NODE_WAIT_MAX, NodeAddress, lock};
use super::worker::Route;
use crate::client::{Client, Clock};
use crate::cluster::info::ClusterInfo;
use crate::cluster::{ClusterName, Handles, Throwaway, Turn};
use crate::compose::Containers;
use crate::config::{Secret, ServerUrl};
use crate::model::{Namespace, RequestId, Write};
use crate::store::{Direct, Probe, members_of};

/// How long a cluster may take to be well again after a drill.
const WELL_MAX: Duration = Duration::from_secs(90);
const WELL_POLL: Duration = Duration::from_millis(100);
/// All is well when nobody has changed whom it copies from for this long: nodes that help MongoDB put that in
/// order after a fault, and a fault in the middle of it is another fault.
const SETTLED: Duration = Duration::from_secs(3);
/// Some sets never come to rest.
const SETTLED_MAX: Duration = Duration::from_secs(15);
/// A secondary has caught up if its last write is at most this many seconds older than the primary's.
const LAG_MAX: u32 = 1;

/// How long a node may take to finish what it has taken in.
const FINISH_MAX: Duration = Duration::from_secs(15);
/// How long a primary is looked for to remove what the load wrote.
const REMOVE_MAX: Duration = Duration::from_secs(15);

/// How long a member is asked again to stand, and the pause between two times. A primary refuses too, and needs it not.
const STAND_MAX: Duration = Duration::from_secs(2);
const STAND_POLL: Duration = Duration::from_millis(50);

/// From whom each member copies the oplog, by host.
type Sources = BTreeMap<String, Option<String>>;

/// A cluster, and the way to it.
#[derive(Debug)]
pub struct Site {
    /// What it is, in words.
    pub target: String,
    pub reach: Reach,
    pub members: Vec<String>,
    pub nodes: Vec<NodeAddress>,
    pub key: Option<Secret>,
    /// `None`: it can be asked, and none of its processes touched.
    pub hands: Option<Hands>,
    throwaway: Option<Throwaway>,
    /// Of a cluster that `drumline up` runs: no other drill may harm it meanwhile.
    _turn: Option<Turn>,
    /// The member that was told to step down, and so does not stand for election for a while.
    resting: Mutex<Option<String>>,
    /// Where the load writes, of a cluster that stays.
    written: Mutex<Option<Namespace>>,
}

impl Site {
    /// Starts a cluster for this drill alone. `told` hears of its start.
    pub async fn throw_away(
        nodes: usize,
        fault: Fault,
        told: &(dyn Fn(&str) + Sync),
    ) -> Result<Self, String> {
        let more: &[OsString] = match fault {
            Fault::Isolate => &["--can-be-cut".into()],
            _ => &[],
        };
        let started = Throwaway::start(nodes, more, told).await;
        let throwaway = started.map_err(|error| error.to_string())?;
        let target = format!("a throw-away cluster of 3 members and {nodes} nodes");
        let info = throwaway.info.clone();
        let mut site = Self::local(target, info, throwaway.handles.clone())?;
        site.throwaway = Some(throwaway);
        Ok(site)
    }

    /// Whether a cluster of that name goes with the drill that started it.
    pub fn is_of_a_drill(name: &str) -> bool {
        Throwaway::is_named(name)
    }

    /// Any replica set. None of its processes is touched, and no node stands in front of it.
    pub async fn replica_set(uri: &Secret) -> Result<Self, String> {
        let members = members_of(uri.expose())
            .await
            .map_err(|error| error.to_string())?;
        Ok(Self {
            target: format!("the replica set of {}", members.join(", ")),
            reach: Reach::by_name(uri.clone()),
            members,
            nodes: Vec::new(),
            key: None,
            hands: None,
            throwaway: None,
            _turn: None,
            resting: Mutex::default(),
            written: Mutex::default(),
        })
    }

    /// Looks for a cluster that `drumline up` runs.
    pub fn find(name: &str) -> Result<(Handles, ClusterInfo), String> {
        let name = ClusterName::parse(name).map_err(|error| error.to_string())?;
        Handles::open(&name).map_err(|error| error.to_string())
    }

    /// A cluster that `drumline up` runs.
    pub fn running(name: &str) -> Result<Self, String> {
        let (handles, info) = Self::find(name)?;
        let turn = handles.take_turn().map_err(|error| error.to_string())?;
        let mut site = Self::local(format!("the cluster '{name}'"), info, handles)?;
        site._turn = Some(turn);
        Ok(site)
    }

    /// The containers of a compose project.
    pub async fn compose(project: &str) -> Result<Self, String> {
        let opened = Containers::open(project).await;
        let opened = opened.map_err(|error| error.to_string())?;
        let nodes = opened.nodes.into_iter();
        Ok(Self {
            target: format!("the compose project '{project}'"),
            reach: Reach::at(opened.mongodb_uri, opened.containers.addresses()),
            members: opened.members,
            nodes: nodes.map(|(name, url)| NodeAddress { name, url }).collect(),
            key: Some(opened.api_key),
            hands: Some(Hands::Compose(opened.containers)),
            throwaway: None,
            _turn: None,
            resting: Mutex::default(),
            written: Mutex::default(),
        })
    }

    fn local(target: String, info: ClusterInfo, handles: Handles) -> Result<Self, String> {
        let nodes = info.nodes.iter().map(|node| {
            Ok(NodeAddress {
                name: node.name.clone(),
                url: ServerUrl::parse(&node.url)?,
            })
        });
        Ok(Self {
            target,
            reach: Reach::by_name(Secret::new(info.mongodb_uri)),
            members: info.members.into_iter().map(|member| member.host).collect(),
            nodes: nodes.collect::<Result<_, String>>()?,
            key: Some(Secret::new(info.api_key)),
            hands: Some(Hands::local(handles)),
            throwaway: None,
            _turn: None,
            resting: Mutex::default(),
            written: Mutex::default(),
        })
    }

    /// Whether it goes with the drill.
    pub const fn is_throwaway(&self) -> bool {
        self.throwaway.is_some()
    }

    /// The way of the load.
    pub async fn route(&self, direct: bool) -> Result<Route, String> {
        if direct {
            let connected = Direct::as_shipped(self.reach.uri().expose()).await;
            return connected
                .map(Route::Direct)
                .map_err(|error| error.to_string());
        }
        Ok(Route::Servers {
            urls: self.nodes.iter().map(|node| node.url.clone()).collect(),
            key: self.key.clone(),
        })
    }

    /// A client of its nodes for all but the load.
    pub fn client(&self, timeout: Duration) -> Result<Client, String> {
        let urls = self.nodes.iter().map(|node| node.url.clone()).collect();
        Client::new(urls, self.key.as_ref(), timeout).map_err(|error| error.to_string())
    }

    /// The versions of what is drilled.
    pub async fn mongodb_version(&self) -> Option<String> {
        self.any_probe().await?.version().await.ok()
    }

    pub async fn election_timeout(&self) -> Option<Duration> {
        self.any_probe().await?.election_timeout().await.ok()?
    }

    /// All members but this one.
    pub fn members_but<'a>(&'a self, host: &'a str) -> impl Iterator<Item = String> + 'a {
        let members = self.members.iter();
        members.filter(move |other| *other != host).cloned()
    }

    async fn any_probe(&self) -> Option<Probe> {
        let host = self.members.first()?;
        self.reach.open(host).await.ok()
    }

    /// Waits until all members are primary or secondary and have caught up, and all nodes agree.
    pub async fn wait_until_well(&self) -> Result<(), String> {
        self.wait(Duration::ZERO).await
    }

    /// Waits for that, and until the members have settled from whom they copy.
    pub async fn wait_until_settled(&self) -> Result<(), String> {
        self.wait(SETTLED).await
    }

    /// Waits until a run may begin: all is well and settled, and each member has a fresh checkpoint. MongoDB writes
    /// one a minute, so one that is killed in each run would never have one, and take longer with each to come back.
    pub async fn prepare(&self) -> Result<(), String> {
        self.wait_until_well().await?;
        for host in &self.members {
            // A user who may not ask for it drills without.
            if let Ok(probe) = self.reach.open(host).await {
                let _ = probe.checkpoint().await;
            }
        }
        self.wait_until_settled().await
    }

    async fn wait(&self, settled: Duration) -> Result<(), String> {
        self.resolve().await?;
        let began = Instant::now();
        let end = began + WELL_MAX;
        let mut last = (began, None);
        loop {
            let now = Instant::now();
            let why = match self.well().await {
                Ok(sources) => {
                    if last.1.as_ref() != Some(&sources) {
                        last = (now, Some(sources));
                    }
                    let rests = now >= last.0 + settled || now > began + SETTLED_MAX;
                    if rests || self.nodes.is_empty() {
                        return Ok(());
                    }
                    "members change from whom they copy".to_owned()
                }
                Err(why) => why,
            };
            if now > end {
                return Err(format!(
                    "waited {} s in vain until all is well: {why}",
                    WELL_MAX.as_secs()
                ));
            }
            sleep(WELL_POLL).await;
        }
    }

    /// If all is well, from whom each member copies.
    async fn well(&self) -> Result<Sources, String> {
        let mut looks = Vec::new();
        for host in &self.members {
            let probe = self.reach.open(host).await;
            let probe = probe.map_err(|error| format!("{host}: {error}"))?;
            let look = probe.look().await;
            looks.push((host, look.map_err(|error| format!("{host}: {error}"))?));
        }
        let primaries = looks.iter().filter(|(_, look)| look.is_primary());
        let Some(newest) = primaries.map(|(_, look)| look.applied.0).max() else {
            return Err("there is no primary".into());
        };
        for (host, look) in &looks {
            if !look.is_primary() && look.state != "secondary" {
                return Err(format!("{host} is neither primary nor secondary"));
            }
            if look.applied.0 + LAG_MAX < newest {
                return Err(format!("{host} lags"));
            }
        }
        self.nodes_agree().await
    }

    async fn nodes_agree(&self) -> Result<Sources, String> {
        let mut sources = Sources::new();
        let mut coordinator: Option<String> = None;
        for node in &self.nodes {
            let client = Client::new(vec![node.url.clone()], None, NODE_WAIT_MAX);
            let client = client.map_err(|error| error.to_string())?;
            let view = client.look().await;
            let view = view.map_err(|error| format!("{}: {error}", node.name))?;
            if let Some(trouble) = view.troubles().first() {
                return Err(format!("{} says: {trouble}", node.name));
            }
            let theirs = view.coordinator;
            if coordinator.is_some() && coordinator != theirs {
                return Err("the nodes do not agree on a coordinator".into());
            }
            coordinator = theirs;
            let members = view.members.into_iter();
            sources = members.map(|m| (m.host, m.sync_source)).collect();
        }
        Ok(sources)
    }

    /// Looks up where the members are now.
    async fn resolve(&self) -> Result<(), String> {
        match &self.hands {
            Some(hands) => hands.resolve().await,
            None => Ok(()),
        }
    }

    /// Notes where the load is about to write: that is removed when the run ends, or the drill.
    pub fn will_write(&self, namespace: &Namespace) {
        if !self.is_throwaway() {
            *lock(&self.written) = Some(namespace.clone());
        }
    }

    /// Removes what the load wrote, if it may be there still.
    pub async fn remove_what_was_written(&self) -> Result<(), String> {
        let Some(namespace) = lock(&self.written).clone() else {
            return Ok(());
        };
        let end = Instant::now() + REMOVE_MAX;
        while let Err(why) = self.drop_collection(&namespace).await {
            if Instant::now() > end {
                return Err(format!("the collection {namespace} is left: {why}"));
            }
            sleep(WELL_POLL).await;
        }
        *lock(&self.written) = None;
        Ok(())
    }

    /// The same after an interrupt: what the nodes have taken in by then is still done.
    async fn remove_what_is_left(&self) -> Result<(), String> {
        let written = lock(&self.written).clone();
        if let Some(namespace) = written {
            self.let_nodes_finish(&namespace).await;
        }
        self.remove_what_was_written().await
    }

    /// A write through each node, which comes after all that it has taken in before.
    async fn let_nodes_finish(&self, namespace: &Namespace) {
        for node in &self.nodes {
            let client = Client::new(vec![node.url.clone()], self.key.as_ref(), FINISH_MAX);
            let Ok(client) = client else {
                continue;
            };
            let nothing = Write::Delete {
                filter: doc! {"_id": -1_i64},
                many: false,
            };
            let (id, clock) = (RequestId::fresh(), Clock::default());
            let _ = client.write(namespace, nothing, &id, &clock).await;
        }
    }

    /// The primary is asked, past the nodes: their clients can only empty a collection.
    async fn drop_collection(&self, namespace: &Namespace) -> Result<(), String> {
        self.resolve().await?;
        for host in &self.members {
            let Ok(probe) = self.reach.open(host).await else {
                continue;
            };
            if probe.look().await.is_ok_and(|look| look.is_primary()) {
                let dropped = probe.drop_collection(namespace).await;
                return dropped.map_err(|error| error.to_string());
            }
        }
        Err("there is no primary".into())
    }

    /// Notes that a member is about to be told to step down: it is to be let stand again.
    pub fn will_rest(&self, host: &str) {
        *lock(&self.resting) = Some(host.to_owned());
    }

    /// Lets a member that has stepped down stand for election again. Otherwise the next fault may find none
    /// that may be elected.
    pub async fn let_stand_again(&self) -> Result<(), String> {
        let Some(host) = lock(&self.resting).clone() else {
            return Ok(());
        };
        let probe = self.reach.open(&host).await;
        let probe = probe.map_err(|error| error.to_string())?;
        let end = Instant::now() + STAND_MAX;
        // A step-down that was interrupted may be under way still: until it is over a member refuses.
        while let Err(error) = probe.let_stand().await {
            if Instant::now() < end {
                sleep(STAND_POLL).await;
            } else if probe.look().await.is_ok_and(|look| look.is_primary()) {
                break;
            } else {
                return Err(format!("{host} may not stand again for a while: {error}"));
            }
        }
        *lock(&self.resting) = None;
        Ok(())
    }

    /// Takes back whatever a fault has left, and stops the cluster if it is the drill's own.
    pub async fn leave(mut self) -> Result<(), String> {
        let restored = match &self.hands {
            Some(hands) => hands.put_back().await,
            None => Ok(()),
        };
        let ended = match self.throwaway.take() {
            Some(throwaway) => throwaway.end().await.map_err(|error| error.to_string()),
            None => self.let_stand_again().await,
        };
        let removed = self.remove_what_is_left().await;
        let wrong: Vec<_> = [restored, ended, removed]
            .into_iter()
            .filter_map(Result::err)
            .collect();
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(wrong.join("; ")),
        }
    }
}
