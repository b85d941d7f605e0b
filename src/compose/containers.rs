//! The containers of a project: what a drill does to them, and how it is taken back.
//!
//! What was found at the beginning is what everything is put back to. A container that `docker kill` has ended counts
//! as stopped by hand: its restart policy does not start it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::engine::Engine;
use super::error::Error;
use super::inspect::{Container, Endpoint, State, Status};
use super::roles::{self, Roles};
use super::turn::Turn;
use crate::config::{Secret, ServerUrl};
use crate::store::Probe;

const PROJECT: &str = "com.docker.compose.project";
/// Where mongo/secrets.sh keeps what the nodes need.
const URI_FILE: &str = "/run/nodes/mongodb-uri";
const KEY_FILE: &str = "/run/nodes/api-key";
/// How long what was told to end may take: a member lets its clients go for 15 s.
const END_MAX: Duration = Duration::from_secs(30);
const END_PAUSE: Duration = Duration::from_millis(100);

/// A project, and the way to it.
#[derive(Debug)]
pub struct Opened {
    pub containers: Containers,
    pub mongodb_uri: Secret,
    pub api_key: Secret,
    /// The members by the names that the replica set knows them by.
    pub members: Vec<String>,
    /// Each node's name, and where it is published.
    pub nodes: Vec<(String, ServerUrl)>,
}

/// Where this machine reaches the members now, by the names that the replica set knows them by: containers
/// change their addresses when they are started again.
#[derive(Debug, Clone, Default)]
pub struct Addresses(Arc<Mutex<BTreeMap<String, String>>>);

impl Addresses {
    /// `None` if it has none now.
    pub fn of(&self, host: &str) -> Option<String> {
        lock(&self.0).get(host).cloned()
    }

    fn set(&self, host: &str, address: Option<String>) {
        match address {
            Some(address) => lock(&self.0).insert(host.to_owned(), address),
            None => lock(&self.0).remove(host),
        };
    }
}

/// The members and the nodes of a project. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Containers {
    engine: Engine,
    project: String,
    parts: Arc<[Part]>,
    /// The ids of those that the drill has done something to.
    touched: Arc<Mutex<BTreeSet<String>>>,
    /// The ids of those that were told to end and not started since.
    ending: Arc<Mutex<BTreeSet<String>>>,
    addresses: Addresses,
    _turn: Arc<Turn>,
}

/// A container that can be harmed.
#[derive(Debug)]
struct Part {
    id: String,
    service: String,
    /// A member's host or a node's name.
    name: String,
    is_member: bool,
    /// Its places when it was found.
    home: Vec<Endpoint>,
}

/// One life of a container's process, from its start to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    pub status: Status,
    pub pid: u32,
    started_at: String,
}

impl From<&State> for Life {
    fn from(state: &State) -> Self {
        Self {
            status: state.status,
            pid: state.pid,
            started_at: state.started_at.clone(),
        }
    }
}

impl Life {
    /// Whether this one began after that one.
    pub fn is_another_than(&self, before: &Self) -> bool {
        (self.pid, &self.started_at) != (before.pid, &before.started_at)
    }
}

impl Containers {
    /// Finds the members and the nodes of a running project.
    pub async fn open(project: &str) -> Result<Opened, Error> {
        let engine = Engine::default();
        engine.check().await?;
        let ids = engine.labelled(PROJECT, project).await?;
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        if ids.is_empty() {
            return Err(Error::NoProject(project.to_owned()));
        }
        let turn = Turn::take(project)?;
        let unfit = |why| Error::Unfit {
            project: project.to_owned(),
            why,
        };
        let roles = Roles::of(engine.inspect(&ids).await?).map_err(unfit)?;
        let node = &roles.nodes[0].container;
        let mongodb_uri = secret(&engine, node, URI_FILE).await?;
        let api_key = secret(&engine, node, KEY_FILE).await?;
        let members = named(&mongodb_uri, &roles.members).await.map_err(unfit)?;
        let hosts = members.iter().map(|(host, _)| host.clone()).collect();
        let nodes = roles.nodes.iter();
        let containers = Self {
            engine,
            project: project.to_owned(),
            parts: parts(&members, &roles),
            touched: Arc::default(),
            ending: Arc::default(),
            addresses: Addresses::default(),
            _turn: Arc::new(turn),
        };
        for (host, container) in members {
            containers
                .addresses
                .set(&host, roles::address(container, &host));
        }
        Ok(Opened {
            containers,
            mongodb_uri,
            api_key,
            members: hosts,
            nodes: nodes
                .map(|node| (node.name.clone(), node.url.clone()))
                .collect(),
        })
    }

    /// They change with the containers.
    pub fn addresses(&self) -> Addresses {
        self.addresses.clone()
    }

    /// The service of the member at this host, or of the node of this name.
    pub fn service(&self, name: &str, is_member: bool) -> Option<&str> {
        let mut parts = self.parts.iter();
        let part = parts.find(|part| part.name == name && part.is_member == is_member)?;
        Some(&part.service)
    }

    /// What its process does now.
    pub async fn life(&self, service: &str) -> Result<Life, Error> {
        let part = self.part(service)?;
        Ok(Life::from(&self.look(part).await?.state))
    }

    /// Sends its process a signal that ends it; it is not started again until [`Containers::start`].
    pub async fn end(&self, service: &str, signal: &str) -> Result<(), Error> {
        let signal = format!("--signal={signal}");
        let part = self.touch(service)?;
        lock(&self.ending).insert(part.id.clone());
        self.engine.run(&["kill", &signal, &part.id]).await?;
        if part.is_member {
            // Another may be given its address.
            self.addresses.set(&part.name, None);
        }
        Ok(())
    }

    /// Starts it if it has ended.
    pub async fn start(&self, service: &str) -> Result<(), Error> {
        let part = self.touch(service)?;
        self.engine.run(&["start", &part.id]).await?;
        lock(&self.ending).remove(&part.id);
        self.resolve(part).await
    }

    pub async fn pause(&self, service: &str) -> Result<(), Error> {
        let part = self.touch(service)?;
        self.engine.run(&["pause", &part.id]).await.map(drop)
    }

    pub async fn unpause(&self, service: &str) -> Result<(), Error> {
        let part = self.touch(service)?;
        self.engine.run(&["unpause", &part.id]).await.map(drop)
    }

    /// Takes it out of all its networks.
    pub async fn cut(&self, service: &str) -> Result<(), Error> {
        let part = self.touch(service)?;
        for endpoint in &part.home {
            let leave = ["network", "disconnect", &endpoint.network, &part.id];
            self.engine.run(&leave).await?;
        }
        Ok(())
    }

    /// Puts it back into the networks that it is not in, under its names there.
    pub async fn rejoin(&self, service: &str) -> Result<(), Error> {
        let part = self.touch(service)?;
        let now = self.look(part).await?;
        self.connect(part, &now).await?;
        self.resolve(part).await
    }

    /// Looks up where the members can be reached now.
    pub async fn resolve_all(&self) -> Result<(), Error> {
        for part in self.parts.iter().filter(|part| part.is_member) {
            self.resolve(part).await?;
        }
        Ok(())
    }

    /// Puts back all that a drill has done, whatever was under way.
    pub async fn put_back(&self) -> Result<(), Error> {
        self.engine.quiet().await;
        let touched = lock(&self.touched).clone();
        let mut failed = None;
        for part in self.parts.iter().filter(|part| touched.contains(&part.id)) {
            if let Err(error) = self.put_back_one(part).await {
                failed.get_or_insert_with(|| format!("{}: {error}", part.service));
            }
        }
        match failed {
            None => Ok(()),
            Some(why) => Err(Error::NotPutBack {
                project: self.project.clone(),
                why,
            }),
        }
    }

    async fn put_back_one(&self, part: &Part) -> Result<(), Error> {
        let mut now = self.look(part).await?;
        if now.state.status == Status::Paused {
            self.engine.run(&["unpause", &part.id]).await?;
        }
        self.connect(part, &now).await?;
        // The engine starts nothing again that was told to end, and it may end only now.
        if lock(&self.ending).contains(&part.id) {
            now = self.until_ended(part).await?;
        }
        if now.state.status == Status::Ended {
            self.engine.run(&["start", &part.id]).await?;
        }
        Ok(())
    }

    /// As it is then.
    async fn until_ended(&self, part: &Part) -> Result<Container, Error> {
        let end = Instant::now() + END_MAX;
        loop {
            let now = self.look(part).await?;
            if now.state.status == Status::Ended {
                return Ok(now);
            }
            if Instant::now() > end {
                return Err(Error::Endless(part.service.clone()));
            }
            sleep(END_PAUSE).await;
        }
    }

    async fn connect(&self, part: &Part, now: &Container) -> Result<(), Error> {
        let is_in = |endpoint: &Endpoint| {
            let mut places = now.endpoints.iter();
            places.any(|place| place.network == endpoint.network)
        };
        for endpoint in part.home.iter().filter(|endpoint| !is_in(endpoint)) {
            let words = endpoint.connecting(&part.id);
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            self.engine.run(&words).await?;
        }
        Ok(())
    }

    async fn resolve(&self, part: &Part) -> Result<(), Error> {
        if part.is_member {
            let now = self.look(part).await?;
            self.addresses
                .set(&part.name, roles::address(&now, &part.name));
        }
        Ok(())
    }

    async fn look(&self, part: &Part) -> Result<Container, Error> {
        let mut told = self.engine.inspect(&[&part.id]).await?;
        told.pop().ok_or_else(|| self.lacks(&part.service))
    }

    /// From now on it is put back at the end.
    fn touch(&self, service: &str) -> Result<&Part, Error> {
        let part = self.part(service)?;
        lock(&self.touched).insert(part.id.clone());
        Ok(part)
    }

    fn part(&self, service: &str) -> Result<&Part, Error> {
        let mut parts = self.parts.iter();
        let part = parts.find(|part| part.service == service);
        part.ok_or_else(|| self.lacks(service))
    }

    fn lacks(&self, service: &str) -> Error {
        Error::Unfit {
            project: self.project.clone(),
            why: format!("it has no container {service} any more"),
        }
    }
}

/// The members and the nodes, each with what it is called in a report.
fn parts(members: &[(String, &Container)], roles: &Roles) -> Arc<[Part]> {
    let part = |name: &str, is_member, container: &Container| Part {
        id: container.id.clone(),
        service: container.service.clone(),
        name: name.to_owned(),
        is_member,
        home: container.endpoints.clone(),
    };
    let members = members
        .iter()
        .map(|(host, container)| part(host, true, container));
    let nodes = roles.nodes.iter();
    let nodes = nodes.map(|node| part(&node.name, false, &node.container));
    members.chain(nodes).collect()
}

/// Reads a secret by a command in a node's container: it is in no argument and in no error.
async fn secret(engine: &Engine, node: &Container, file: &str) -> Result<Secret, Error> {
    let text = engine.run(&["exec", &node.id, "cat", file]).await?;
    Secret::parse(&text).map_err(|why| Error::Unreadable {
        what: format!("exec {} cat {file}", node.service),
        why: why.to_owned(),
    })
}

/// The members by the names that the replica set knows them by, as one of them tells.
async fn named<'a>(
    uri: &Secret,
    members: &'a [Container],
) -> Result<Vec<(String, &'a Container)>, String> {
    let mut last = "no member was asked".to_owned();
    for member in members {
        match hosts(uri, member).await {
            Ok(hosts) if hosts.is_empty() => {
                last = format!("{} is in no replica set", member.service);
            }
            Ok(hosts) => return pair(hosts, members),
            Err(why) => last = why,
        }
    }
    Err(format!(
        "{last}; a drill reaches the members at their containers' addresses, so the engine must run on this machine"
    ))
}

async fn hosts(uri: &Secret, member: &Container) -> Result<Vec<String>, String> {
    let service = &member.service;
    let Some(address) = roles::address(member, service) else {
        return Err(format!("{service} has no address in a network"));
    };
    let failed = |error: crate::store::StoreError| format!("cannot ask {service}: {error}");
    let probe = Probe::open(uri.expose(), &address).await.map_err(failed)?;
    let look = probe.look().await.map_err(failed)?;
    Ok(look.hosts)
}

fn pair(hosts: Vec<String>, members: &[Container]) -> Result<Vec<(String, &Container)>, String> {
    let found = hosts.into_iter().map(|host| {
        let container = members
            .iter()
            .find(|member| roles::is_called(member, &host));
        match container {
            Some(container) => Ok((host, container)),
            None => Err(format!("its member {host} is none of its containers")),
        }
    });
    found.collect()
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
