//! What runs now: `run.json`, kept by the supervisor, read by every other command.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::error::Error;
use super::handles::is_held;
use super::place::{Place, write_private};
use super::process::Identity;

/// The processes of a running cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub supervisor: Identity,
    pub ready: bool,
    pub children: Vec<ChildRun>,
}

/// A child of the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildRun {
    pub name: String,
    pub process: Identity,
    /// A folder that its command line names, so that no other program is taken for it.
    pub folder: PathBuf,
}

impl ChildRun {
    pub fn alive(&self) -> bool {
        self.process.works_in(&self.folder)
    }

    /// Signals the process if it is still this child.
    pub fn signal(&self, signal: Signal) -> bool {
        self.process
            .signal_if(signal, |process| process.works_in(&self.folder))
    }
}

impl Run {
    /// What the file says; `None` if there is none, or a damaged one.
    pub fn load(place: &Place) -> Option<Self> {
        serde_json::from_slice(&fs::read(place.run()).ok()?).ok()
    }

    /// What the file says if its supervisor is alive.
    pub fn live(place: &Place) -> Option<Self> {
        Self::load(place).filter(|run| run.supervisor.alive())
    }

    pub fn pid_of(&self, name: &str) -> u32 {
        self.children
            .iter()
            .find(|child| child.name == name)
            .map_or(0, |child| child.process.pid)
    }
}

/// The supervisor's handle on the run file: every change is on disk when the call returns.
#[derive(Debug, Clone)]
pub struct RunFile {
    place: Place,
    run: Arc<Mutex<Run>>,
}

impl RunFile {
    /// Begins the file of this process's cluster.
    pub fn begin(place: &Place) -> Result<Self, Error> {
        let supervisor = Identity::of(std::process::id())
            .map_err(Error::io("read", "/proc/self/stat".as_ref()))?;
        let file = Self {
            place: place.clone(),
            run: Arc::new(Mutex::new(Run {
                supervisor,
                ready: false,
                children: Vec::new(),
            })),
        };
        file.change(|_| {})?;
        Ok(file)
    }

    /// Notes a child that was started, in place of the one of that name.
    pub fn started(&self, child: ChildRun) -> Result<(), Error> {
        self.change(|run| {
            run.children.retain(|known| known.name != child.name);
            run.children.push(child);
        })
    }

    pub fn ready(&self) -> Result<(), Error> {
        self.change(|run| run.ready = true)
    }

    /// Whether a drill holds the child: it shall stay away when it ends.
    pub fn is_held(&self, child: &str) -> bool {
        is_held(&self.place, child)
    }

    pub fn read(&self) -> Run {
        self.run
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Deletes the file: nothing runs any more.
    pub fn end(place: &Place) {
        let _ = fs::remove_file(place.run());
    }

    fn change(&self, edit: impl FnOnce(&mut Run)) -> Result<(), Error> {
        let mut run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        edit(&mut run);
        let text = serde_json::to_vec_pretty(&*run)
            .map_err(|error| Error::Failed(format!("cannot describe the processes: {error}")))?;
        write_private(&self.place.run(), &text)
    }
}
