//! What `drumline drill` may harm: the choice of a cluster, and the question before it is harmed.

use std::io::{self, IsTerminal as _, Write as _};

use super::args::Remote;
use super::exit::{ExitError, say};
use crate::cluster::info::{self, ClusterInfo};
use crate::config::{self, Secret, ServerUrl, Settings};
use crate::drill::{Fault, Site};

/// The nodes of a throw-away cluster.
const NODES: usize = 3;

/// What is drilled.
#[derive(Debug)]
pub enum Target {
    /// A cluster of the drill's own.
    ThrowAway,
    /// The cluster of that name, which `drumline up` runs.
    Running(String),
    /// The containers of that compose project.
    Compose(String),
    /// Any replica set.
    ReplicaSet(Secret),
}

/// What is to be done to it.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub fault: Fault,
    /// The cluster that `--confirm` names.
    pub confirmed: Option<&'a str>,
}

/// What the flags choose; else what the settings name; else the running cluster; else one of the drill's own.
pub fn choose(
    remote: &Remote,
    settings: &Settings,
    fresh: bool,
    compose: Option<&str>,
) -> Result<Target, ExitError> {
    if fresh {
        return Ok(Target::ThrowAway);
    }
    if let Some(project) = compose {
        return Ok(Target::Compose(project.to_owned()));
    }
    if let Some(name) = &remote.name {
        // Before anybody is asked to confirm it.
        Site::find(name).map_err(|message| ExitError {
            exit: super::Exit::Failed,
            message,
        })?;
        return Ok(Target::Running(name.clone()));
    }
    let mut running = info::running();
    running.retain(|cluster| !Site::is_of_a_drill(&cluster.name));
    match settings.target() {
        Some(config::Target::Mongodb(uri)) => Ok(Target::ReplicaSet(uri)),
        Some(config::Target::Servers(urls)) => behind(&urls, running),
        None => the_running(&running),
    }
}

/// The cluster that runs here and has all these nodes.
fn behind(urls: &[ServerUrl], running: Vec<ClusterInfo>) -> Result<Target, ExitError> {
    let has = |cluster: &ClusterInfo| {
        let mut urls = urls.iter();
        urls.all(|url| cluster.nodes.iter().any(|node| node.url == url.as_str()))
    };
    match running.into_iter().find(has) {
        Some(cluster) => Ok(Target::Running(cluster.name)),
        None => Err(ExitError::usage(
            "a drill must reach the processes or the replica set behind the servers: give --name NAME of a cluster \
             that `drumline up` runs here, --compose PROJECT, or --mongodb-file FILE for a step-down",
        )),
    }
}

fn the_running(running: &[ClusterInfo]) -> Result<Target, ExitError> {
    match running {
        [] => Ok(Target::ThrowAway),
        [cluster] => Ok(Target::Running(cluster.name.clone())),
        many => {
            let names: Vec<_> = many.iter().map(|cluster| cluster.name.as_str()).collect();
            Err(ExitError::usage(format!(
                "{} clusters run ({}): choose one with --name, or start another with --fresh",
                many.len(),
                names.join(", ")
            )))
        }
    }
}

/// Refuses what cannot be done to the target, and asks before a cluster is harmed that the drill did
/// not start. `command` is what was typed.
pub fn permit(target: &Target, wanted: &Wanted<'_>, command: &str) -> Result<(), ExitError> {
    let name = match target {
        Target::ThrowAway => return none_is_meant(wanted.confirmed),
        Target::Running(name) | Target::Compose(name) => name.clone(),
        Target::ReplicaSet(uri) => {
            if !wanted.fault.is_a_command() {
                return Err(ExitError::usage(format!(
                    "{} needs the processes of the members; of a replica set by its URI only stepdown and stepdown-force \
                     can be had",
                    wanted.fault.name()
                )));
            }
            super::route::hosts(uri.expose()).to_owned()
        }
    };
    if wanted.confirmed == Some(&name) || (wanted.confirmed.is_none() && agreed(&name, wanted)?) {
        return Ok(());
    }
    let problem = match wanted.confirmed {
        Some(other) => format!("--confirm names '{other}', and the drill would harm '{name}'"),
        None => format!("the drill would harm '{name}', which it did not start"),
    };
    Err(ExitError {
        exit: super::Exit::Failed,
        message: format!(
            "{problem}; to do that: {command} --confirm {name}; to drill a cluster of its own instead: --fresh"
        ),
    })
}

/// A drill of a cluster of its own says nothing about one that was named and does not run.
fn none_is_meant(confirmed: Option<&str>) -> Result<(), ExitError> {
    let Some(name) = confirmed else {
        return Ok(());
    };
    Err(ExitError {
        exit: super::Exit::Failed,
        message: format!(
            "--confirm names '{name}', and no cluster runs here; start it, or leave --confirm out to drill a cluster of \
             the drill's own"
        ),
    })
}

/// Asks on a terminal; elsewhere nobody can agree.
fn agreed(name: &str, wanted: &Wanted<'_>) -> Result<bool, ExitError> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    let ask = || {
        eprint!(
            "Drill '{name}' with {}, under load? Type its name to agree: ",
            wanted.fault.name()
        );
        io::stderr().flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(answer.trim() == name)
    };
    ask().map_err(|error: io::Error| ExitError {
        exit: super::Exit::Failed,
        message: format!("cannot ask: {error}"),
    })
}

/// Reaches the target, or starts it. `told` hears of the start.
pub async fn open(
    target: &Target,
    fault: Fault,
    direct: bool,
    told: &(dyn Fn(&str) + Sync),
) -> Result<Site, String> {
    let site = match target {
        Target::ThrowAway => {
            let nodes = if direct { 0 } else { NODES };
            say(&format!(
                "starting a cluster of 3 members and {nodes} nodes for this drill"
            ));
            return Site::throw_away(nodes, fault, told).await;
        }
        Target::Running(_) if fault == Fault::Isolate => {
            return Err(
                "only a cluster that was started for it can be cut: isolate a member of a cluster of the drill's own with \
                 --fresh, or freeze one of this cluster, which its peers cannot tell from a cut"
                    .into(),
            );
        }
        Target::Running(name) => Site::running(name)?,
        Target::Compose(project) => Site::compose(project).await?,
        Target::ReplicaSet(uri) => return Site::replica_set(uri).await,
    };
    if direct && !site.nodes.is_empty() {
        return Err(
            "--direct measures MongoDB without Drumline, and this cluster has nodes that act when a member fails: \
             drill a cluster without nodes (drumline up --nodes 0), or give --fresh"
                .into(),
        );
    }
    if !direct && site.nodes.is_empty() {
        return Err("this cluster has no node: give --direct".into());
    }
    Ok(site)
}
