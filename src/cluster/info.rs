//! What runs where in a local cluster: the form of `drumline info -o json`, which other programs
//! rely on.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::place::{Place, Root, write_private};
use super::run::Run;
use super::secrets::Secrets;
use super::spec::{ClusterName, Spec};
use super::stop::sweep;

/// A local cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterInfo {
    pub name: String,
    /// With credentials: this text is a secret.
    pub mongodb_uri: String,
    pub api_key: String,
    pub nodes: Vec<NodeInfo>,
    pub members: Vec<MemberInfo>,
}

/// A front-end process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    pub name: String,
    pub url: String,
    pub pid: u32,
    pub log: String,
}

/// A mongod process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    pub host: String,
    pub pid: u32,
    pub dbpath: String,
    pub log: String,
}

impl ClusterInfo {
    pub(super) fn of(place: &Place, spec: &Spec, secrets: &Secrets, run: &Run) -> Self {
        let nodes = spec.nodes.iter().map(|part| NodeInfo {
            name: part.name.clone(),
            url: format!("http://{}", part.host()),
            pid: run.pid_of(&part.name),
            log: place.node_log(&part.name).display().to_string(),
        });
        let members = spec.members.iter().map(|part| MemberInfo {
            host: part.host(),
            pid: run.pid_of(&part.name),
            dbpath: place.member_data(&part.name).display().to_string(),
            log: place.member_log(&part.name).display().to_string(),
        });
        Self {
            name: spec.name.to_string(),
            mongodb_uri: secrets.mongodb_uri.clone(),
            api_key: secrets.api_key.clone(),
            nodes: nodes.collect(),
            members: members.collect(),
        }
    }

    /// Writes the JSON form to a file that only its owner reads: it holds secrets.
    pub(super) fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec(self)
            .map_err(|error| Error::Failed(format!("cannot describe the cluster: {error}")))?;
        write_private(path, &text)
    }

    /// The cluster at `place` if it runs and is ready.
    pub(super) fn live(place: &Place) -> Option<(Self, Spec)> {
        let run = Run::live(place).filter(|run| run.ready)?;
        let spec = Spec::load(place).ok()??;
        let secrets = Secrets::load(place, &spec).ok()?;
        Some((Self::of(place, &spec, &secrets, &run), spec))
    }
}

/// The clusters of this user that run now.
pub fn running() -> Vec<ClusterInfo> {
    let Ok(root) = Root::of_user() else {
        return Vec::new();
    };
    let names = root.names().into_iter();
    names
        .filter_map(|name| ClusterInfo::live(&root.place(&name)))
        .map(|(info, _)| info)
        .collect()
}

/// The name of a cluster of this user that is there, beside this one.
pub fn other_than(name: &str) -> Option<String> {
    let root = Root::of_user().ok()?;
    let mut names = root.names().into_iter();
    let is_other = |other: &ClusterName| {
        let other_name = other.to_string();
        other_name != name && State::of(&root.place(other)).is_some()
    };
    names.find(is_other).map(|other| other.to_string())
}

/// The running cluster of that name, and where its data is.
pub fn find(name: &ClusterName) -> Result<(ClusterInfo, Place), Error> {
    let place = Root::of_user()?.place(name);
    if let Some((info, _)) = ClusterInfo::live(&place) {
        return Ok((info, place));
    }
    let state = match State::of(&place) {
        Some(state) => format!("the cluster '{name}' is {}", state.as_str()),
        None => format!("there is no cluster '{name}'"),
    };
    Err(Error::Failed(format!(
        "{state}; `drumline up --name {name}` starts it, `drumline ls` lists all"
    )))
}

/// Whether a cluster runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Running,
    Starting,
    Stopped,
}

impl State {
    fn of(place: &Place) -> Option<Self> {
        if !place.exists() {
            return None;
        }
        Some(match Run::live(place) {
            Some(run) if run.ready => Self::Running,
            Some(_) => Self::Starting,
            None => Self::Stopped,
        })
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Starting => "starting",
            Self::Stopped => "stopped",
        }
    }
}

/// A line of `drumline ls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    pub name: String,
    pub state: State,
    pub data: String,
}

/// All clusters of this user. Removes what a crash left of ephemeral ones.
pub fn list() -> Result<Vec<Listed>, Error> {
    let root = Root::of_user()?;
    let mut listed = Vec::new();
    for name in root.names() {
        let place = root.place(&name);
        sweep(&place)?;
        listed.extend(State::of(&place).map(|state| Listed {
            name: name.to_string(),
            state,
            data: place.folder().display().to_string(),
        }));
    }
    Ok(listed)
}
