//! Stopping a cluster from outside its supervisor, and deleting one.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::time::sleep;

use super::cut::Groups;
use super::error::Error;
use super::place::{Lock, Place, Root};
use super::process::Identity;
use super::report::Console;
use super::run::{ChildRun, Run};
use super::spec::{ClusterName, Spec};

/// A supervisor gives its children this long at most, and some more to itself.
const PATIENCE: Duration = Duration::from_secs(45);
const PATIENCE_AFTER_KILL: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(25);
const PROGRESS: Duration = Duration::from_secs(5);

/// What `down` found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It ran and has stopped.
    Now,
    /// It did not run.
    Before,
}

/// Stops the cluster of that name.
pub async fn down(name: &ClusterName) -> Result<Stopped, Error> {
    let place = known(name)?;
    let Some(run) = Run::load(&place) else {
        return Ok(Stopped::Before);
    };
    if run.supervisor.alive() {
        stop_supervisor(run.supervisor).await?;
        return Ok(Stopped::Now);
    }
    let orphans = stop_orphans(&run).await?;
    sweep(&place)?;
    Ok(if orphans {
        Stopped::Now
    } else {
        Stopped::Before
    })
}

/// Deletes the data of a stopped cluster.
pub fn purge(name: &ClusterName) -> Result<(), Error> {
    let place = Root::of_user()?.place(name);
    if !place.exists() {
        // It was ephemeral, and went when it stopped.
        return Ok(());
    }
    match place.lock()? {
        Some(lock) => place.delete(lock),
        None => Err(Error::Failed(format!(
            "the cluster '{name}' runs; stop it first with `drumline down --name {name}`"
        ))),
    }
}

/// Removes what a crash left of an ephemeral cluster.
pub(super) fn sweep(place: &Place) -> Result<(), Error> {
    if Run::live(place).is_some() || !place.spec().exists() {
        return Ok(());
    }
    let ephemeral = matches!(Spec::load(place), Ok(Some(spec)) if spec.ephemeral);
    if !ephemeral {
        return Ok(());
    }
    match place.lock()? {
        Some(lock) => sweep_locked(place, lock),
        None => Ok(()),
    }
}

fn sweep_locked(place: &Place, lock: Lock) -> Result<(), Error> {
    let remains = Run::load(place).is_some_and(|run| run.children.iter().any(ChildRun::alive));
    if remains {
        return Ok(());
    }
    // The spec alone tells the ports that are cut off.
    if let Ok(Some(spec)) = Spec::load(place) {
        Groups::sweep(&spec.name, &spec.members)?;
    }
    place.delete(lock)
}

fn known(name: &ClusterName) -> Result<Place, Error> {
    let place = Root::of_user()?.place(name);
    if place.exists() {
        return Ok(place);
    }
    Err(Error::Failed(format!(
        "there is no cluster '{name}'; `drumline ls` lists all"
    )))
}

async fn stop_supervisor(supervisor: Identity) -> Result<(), Error> {
    supervisor.signal_if(Signal::TERM, Identity::alive);
    if ended(PATIENCE, || !supervisor.alive()).await {
        return Ok(());
    }
    // The second signal means "at once".
    supervisor.signal_if(Signal::TERM, Identity::alive);
    if ended(PATIENCE_AFTER_KILL, || !supervisor.alive()).await {
        return Ok(());
    }
    Err(Error::Failed(format!(
        "the supervisor, process {}, does not stop; `kill -9 {}` ends it and all its children",
        supervisor.pid, supervisor.pid
    )))
}

/// Stops children whose supervisor is gone. The guard makes these next to impossible.
pub(super) async fn stop_orphans(run: &Run) -> Result<bool, Error> {
    let orphans: Vec<_> = run.children.iter().filter(|c| c.alive()).collect();
    for orphan in &orphans {
        orphan.signal(Signal::TERM);
    }
    let none = || !orphans.iter().any(|orphan| orphan.alive());
    if !ended(PATIENCE, none).await {
        for orphan in &orphans {
            orphan.signal(Signal::KILL);
        }
        if !ended(PATIENCE_AFTER_KILL, none).await {
            let text = "processes of a crashed cluster do not end, not even when killed";
            return Err(Error::Failed(text.into()));
        }
    }
    Ok(!orphans.is_empty())
}

/// Waits for a condition, and tells every few seconds that it still does.
async fn ended(patience: Duration, condition: impl Fn() -> bool) -> bool {
    let console = Console::new();
    let begin = Instant::now();
    let mut next = PROGRESS;
    while !condition() {
        let waited = begin.elapsed();
        if waited > patience {
            return false;
        }
        if waited > next {
            console.step("still stopping");
            next += PROGRESS;
        }
        sleep(POLL).await;
    }
    true
}
