//! The processes of a running cluster in the hands of a drill: signalled, and held when they end.
//!
//! A hold keeps the supervisor from starting an ended child again. It is a file that names the process
//! which asked for it, and counts only as long as that process lives: a drill that dies leaves no
//! cluster crippled.

use std::fs;

use rustix::process::Signal;

use super::cut::Groups;
use super::error::Error;
use super::info::ClusterInfo;
use super::place::{Lock, Place, Root, make_private_folder, write_private};
use super::process::Identity;
use super::run::{ChildRun, Run};
use super::spec::{ClusterName, Part, Spec};

/// Ends when it is dropped, or with its process.
#[derive(Debug)]
pub struct Turn {
    _lock: Lock,
}

/// A way to a running cluster's processes.
#[derive(Debug, Clone)]
pub struct Handles {
    place: Place,
    spec: Spec,
}

impl Handles {
    /// The cluster of that name, and what the commands know of it; it must run.
    pub fn open(name: &ClusterName) -> Result<(Self, ClusterInfo), Error> {
        let place = Root::of_user()?.place(name);
        match ClusterInfo::live(&place) {
            Some((info, spec)) => Ok((Self { place, spec }, info)),
            None => Err(Error::Failed(format!(
                "the cluster '{name}' does not run; `drumline ls` lists all"
            ))),
        }
    }

    /// Its holder is the only one that harms this cluster: another drill would take back what this one
    /// did.
    pub fn take_turn(&self) -> Result<Turn, Error> {
        match Lock::take(&self.place.hold("drill.lock"))? {
            Some(lock) => Ok(Turn { _lock: lock }),
            None => Err(Error::Failed(format!(
                "another drill harms the cluster '{}': wait until it ends, or drill a cluster of its own with --fresh",
                self.spec.name
            ))),
        }
    }

    /// The names of all children.
    pub fn children(&self) -> Vec<String> {
        let parts = self.spec.nodes.iter().chain(&self.spec.members);
        parts.map(|part| part.name.clone()).collect()
    }

    /// What the supervisor calls the member at this host.
    pub fn member_at(&self, host: &str) -> Option<&str> {
        let mut members = self.spec.members.iter();
        let part = members.find(|part| part.host() == host)?;
        Some(&part.name)
    }

    /// The process that is this child now, or was it last.
    pub fn process(&self, child: &str) -> Option<Process> {
        let run = Run::load(&self.place)?;
        let mut children = run.children.into_iter();
        children.find(|known| known.name == child).map(Process)
    }

    /// From now on the child is not started again when it ends.
    pub fn hold(&self, child: &str) -> Result<(), Error> {
        let path = self.place.hold(child);
        let holder = Identity::of(std::process::id())
            .map_err(Error::io("read", "/proc/self/stat".as_ref()))?;
        let text = serde_json::to_vec(&holder)
            .map_err(|error| Error::Failed(format!("cannot hold {child}: {error}")))?;
        if let Some(folder) = path.parent() {
            make_private_folder(folder)?;
        }
        write_private(&path, &text)
    }

    /// The child may be started again, and is at once if it has ended.
    pub fn release(&self, child: &str) {
        let _ = fs::remove_file(self.place.hold(child));
    }
}

impl Handles {
    /// Cuts a member off from everybody, both ways.
    pub fn cut(&self, member: &str) -> Result<(), Error> {
        let groups = Groups::of(&self.spec.name)?;
        match self.member(member) {
            Some(part) => groups.cut(part),
            None => Err(Error::Failed(format!("{member} is no member"))),
        }
    }

    /// Whether what a member sends is seen to be dropped.
    pub fn is_cut(&self, member: &str) -> bool {
        let groups = Groups::of(&self.spec.name).ok();
        let dropped = groups.zip(self.member(member));
        dropped.is_some_and(|(groups, part)| groups.dropped(part) > Some(0))
    }

    /// Takes a cut back; there need not be one.
    pub fn rejoin(&self, member: &str) -> Result<(), Error> {
        match self.member(member) {
            Some(part) => Groups::of(&self.spec.name)?.rejoin(part),
            None => Ok(()),
        }
    }

    fn member(&self, name: &str) -> Option<&Part> {
        self.spec.members.iter().find(|part| part.name == name)
    }
}

/// Whether somebody who lives holds the child.
pub(super) fn is_held(place: &Place, child: &str) -> bool {
    let Ok(text) = fs::read(place.hold(child)) else {
        return false;
    };
    serde_json::from_slice::<Identity>(&text).is_ok_and(Identity::alive)
}

/// One process of the cluster. Another with the same pid is never taken for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process(ChildRun);

impl Process {
    pub const fn pid(&self) -> u32 {
        self.0.process.pid
    }

    /// Signals it if it still runs.
    pub fn signal(&self, signal: Signal) -> bool {
        self.0.signal(signal)
    }

    /// Its state in `/proc` (`S`, `R`, `T`, ...); `None` if it is gone.
    pub fn state(&self) -> Option<char> {
        self.0.process.state()
    }
}
