//! The hands of a drill on what it harms: processes that a supervisor here has started, or containers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::cluster::{Handles, Process};
use crate::compose::{Containers, Life, Status};

/// Between two looks at a process in `/proc`.
const PROCESS_PAUSE: Duration = Duration::from_millis(2);
/// Between two looks at a container; each is a process of its own.
const CONTAINER_PAUSE: Duration = Duration::from_millis(50);

/// A way to the processes of a cluster.
#[derive(Debug, Clone)]
pub enum Hands {
    Local(Local),
    Compose(Containers),
}

/// The children of a supervisor on this machine.
#[derive(Debug, Clone)]
pub struct Local {
    handles: Handles,
    /// A member was cut off at some time.
    was_cut: Arc<AtomicBool>,
}

/// A member or a node, in the life that it had when it was chosen.
#[derive(Debug, Clone)]
pub enum Part {
    Child {
        local: Local,
        name: String,
        process: Process,
    },
    Container {
        containers: Containers,
        service: String,
        life: Life,
    },
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Killed,
    Asked,
}

/// What a process does, as far as a drill cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Running,
    Frozen,
    Gone,
}

impl Condition {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Frozen => "frozen",
            Self::Gone => "gone",
        }
    }
}

impl Hands {
    pub fn local(handles: Handles) -> Self {
        Self::Local(Local {
            handles,
            was_cut: Arc::default(),
        })
    }

    /// The member at this host, or the node of this name.
    pub async fn part(&self, name: &str, is_member: bool) -> Option<Part> {
        match self {
            Self::Local(local) => {
                let child = match is_member {
                    true => local.handles.member_at(name)?,
                    false => name,
                };
                Some(Part::Child {
                    process: local.handles.process(child)?,
                    name: child.to_owned(),
                    local: local.clone(),
                })
            }
            Self::Compose(containers) => {
                let service = containers.service(name, is_member)?;
                Some(Part::Container {
                    life: containers.life(service).await.ok()?,
                    service: service.to_owned(),
                    containers: containers.clone(),
                })
            }
        }
    }

    /// Looks up where the members are now.
    pub async fn resolve(&self) -> Result<(), String> {
        match self {
            Self::Local(_) => Ok(()),
            Self::Compose(containers) => containers.resolve_all().await.map_err(told),
        }
    }

    /// Takes back whatever a fault has left. May be called at any time.
    pub async fn put_back(&self) -> Result<(), String> {
        match self {
            Self::Local(local) => local.put_back(),
            Self::Compose(containers) => containers.put_back().await.map_err(told),
        }
    }
}

impl Local {
    /// Wakes what is frozen, lets go of what is held, and joins what is cut.
    fn put_back(&self) -> Result<(), String> {
        let mut joined = Ok(());
        for child in self.handles.children() {
            self.handles.release(&child);
            if self.was_cut.load(Ordering::Relaxed) {
                joined = joined.and(self.handles.rejoin(&child).map_err(told));
            }
            // Whether it looks frozen or not: a signal that was sent may not have worked yet.
            if let Some(process) = self.handles.process(&child) {
                process.signal(Signal::CONT);
            }
        }
        joined
    }
}

impl Part {
    /// The process that it was.
    pub const fn pid(&self) -> u32 {
        match self {
            Self::Child { process, .. } => process.pid(),
            Self::Container { life, .. } => life.pid,
        }
    }

    /// The pause between two looks at it.
    pub const fn pause(&self) -> Duration {
        match self {
            Self::Child { .. } => PROCESS_PAUSE,
            Self::Container { .. } => CONTAINER_PAUSE,
        }
    }

    /// From now on it stays away when it ends. The engine keeps what it was told to end by itself.
    pub fn hold(&self) -> Result<(), String> {
        match self {
            Self::Child { local, name, .. } => local.handles.hold(name).map_err(told),
            Self::Container { .. } => Ok(()),
        }
    }

    /// Ends it; it must be held.
    pub async fn end(&self, how: Ending) -> Result<(), String> {
        match self {
            Self::Child { .. } => self.signal(match how {
                Ending::Killed => Signal::KILL,
                Ending::Asked => Signal::TERM,
            }),
            Self::Container {
                containers,
                service,
                ..
            } => {
                let signal = match how {
                    Ending::Killed => "KILL",
                    Ending::Asked => "TERM",
                };
                containers.end(service, signal).await.map_err(told)
            }
        }
    }

    /// It may be started again, and is if it has ended.
    pub async fn start(&self) -> Result<(), String> {
        match self {
            Self::Child { local, name, .. } => {
                local.handles.release(name);
                Ok(())
            }
            Self::Container {
                containers,
                service,
                ..
            } => containers.start(service).await.map_err(told),
        }
    }

    pub async fn freeze(&self) -> Result<(), String> {
        match self {
            Self::Child { .. } => self.signal(Signal::STOP),
            Self::Container {
                containers,
                service,
                ..
            } => containers.pause(service).await.map_err(told),
        }
    }

    pub async fn wake(&self) -> Result<(), String> {
        match self {
            Self::Child { .. } => self.signal(Signal::CONT),
            Self::Container {
                containers,
                service,
                ..
            } => containers.unpause(service).await.map_err(told),
        }
    }

    /// Cuts it off from everybody, both ways.
    pub async fn cut(&self) -> Result<(), String> {
        match self {
            Self::Child { local, name, .. } => {
                local.was_cut.store(true, Ordering::Relaxed);
                local.handles.cut(name).map_err(told)
            }
            Self::Container {
                containers,
                service,
                ..
            } => containers.cut(service).await.map_err(told),
        }
    }

    /// Takes the cut back.
    pub async fn rejoin(&self) -> Result<(), String> {
        match self {
            Self::Child { local, name, .. } => local.handles.rejoin(name).map_err(told),
            Self::Container {
                containers,
                service,
                ..
            } => containers.rejoin(service).await.map_err(told),
        }
    }

    /// Whether what it sends goes nowhere. The engine has taken a container that is cut off out of all networks.
    pub fn is_cut(&self) -> bool {
        match self {
            Self::Child { local, name, .. } => local.handles.is_cut(name),
            Self::Container { .. } => true,
        }
    }

    /// What it does now; `None` if that cannot be seen.
    pub async fn condition(&self) -> Option<Condition> {
        match self {
            Self::Child { process, .. } => Some(match process.state() {
                None => Condition::Gone,
                Some('T') => Condition::Frozen,
                Some(_) => Condition::Running,
            }),
            Self::Container {
                containers,
                service,
                ..
            } => {
                let life = containers.life(service).await.ok()?;
                Some(match life.status {
                    Status::Running => Condition::Running,
                    Status::Paused => Condition::Frozen,
                    Status::Ended => Condition::Gone,
                })
            }
        }
    }

    /// The process that runs in its place now, and whether it is another.
    pub async fn replacement(&self) -> Option<(u32, bool)> {
        match self {
            Self::Child {
                local,
                name,
                process,
            } => {
                let now = local.handles.process(name)?;
                Some((now.pid(), now != *process && now.state().is_some()))
            }
            Self::Container {
                containers,
                service,
                life,
            } => {
                let now = containers.life(service).await.ok()?;
                let runs = now.status == Status::Running;
                Some((now.pid, runs && now.is_another_than(life)))
            }
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        match self {
            Self::Child { process, .. } if process.signal(signal) => Ok(()),
            _ => Err("it ended before the fault could be done to it".to_owned()),
        }
    }
}

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}
