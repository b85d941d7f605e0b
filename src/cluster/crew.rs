//! Children of the supervisor: started through the guard, kept alive, stopped in order.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::error::Error;
use super::guard::THIS_PROGRAM;
use super::place::{make_private_folder, open_log};
use super::process::Identity;
use super::report::Console;
use super::run::{ChildRun, RunFile};

const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A child that ran this long was well: its next failure starts the backoff anew.
const HEALTHY: Duration = Duration::from_secs(30);

/// How often a hold is looked at.
const HOLD_POLL: Duration = Duration::from_millis(10);

/// A program to run and keep running.
#[derive(Debug, Clone)]
pub struct Program {
    pub name: String,
    pub command: Vec<OsString>,
    /// Takes stdout and stderr.
    pub log: PathBuf,
    /// A folder that the command names; it is made if it is not there.
    pub folder: PathBuf,
    /// The control group that it starts in, so that it can be cut off.
    pub group: Option<PathBuf>,
    /// The signal that asks it to stop.
    pub stop_signal: Signal,
    /// How long it may take to stop by itself.
    pub grace: Duration,
}

/// A child that ended while the cluster was starting.
#[derive(Debug)]
pub struct Fallen {
    pub program: Program,
    pub how: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// A child that ends is a failure.
    Start,
    /// A child that ends is started again.
    Keep,
    Stop,
    Kill,
}

/// The children of one kind. They share their fate.
#[derive(Debug)]
pub struct Crew {
    order: watch::Sender<Order>,
    keepers: JoinSet<Result<(), Fallen>>,
}

impl Default for Crew {
    /// A crew without children.
    fn default() -> Self {
        Self {
            order: watch::Sender::new(Order::Start),
            keepers: JoinSet::new(),
        }
    }
}

impl Crew {
    /// Starts one child per program.
    pub fn start(
        programs: impl IntoIterator<Item = Program>,
        run: &RunFile,
        console: &Console,
    ) -> Result<Self, Error> {
        let mut crew = Self::default();
        for program in programs {
            let child = program.start(run)?;
            let keeper = Keeper {
                program,
                run: run.clone(),
                console: console.clone(),
                orders: crew.order.subscribe(),
            };
            crew.keepers.spawn(keeper.tend(child));
        }
        Ok(crew)
    }

    /// Waits for a child that ends while the cluster starts; for ever if all is well.
    pub async fn fallen(&mut self) -> Fallen {
        while let Some(ended) = self.keepers.join_next().await {
            if let Ok(Err(fallen)) = ended {
                return fallen;
            }
        }
        std::future::pending().await
    }

    /// From now on a child that ends is started again.
    pub fn keep(&self) {
        self.order.send_replace(Order::Keep);
    }

    /// Stops all children and waits for their end. May be dropped and called again.
    pub async fn stop(&mut self) {
        self.finish(Order::Stop).await;
    }

    /// Kills all children and waits for their end.
    pub async fn kill(&mut self) {
        self.finish(Order::Kill).await;
    }

    async fn finish(&mut self, order: Order) {
        self.order.send_replace(order);
        while self.keepers.join_next().await.is_some() {}
    }
}

impl Program {
    fn start(&self, run: &RunFile) -> Result<Child, Error> {
        make_private_folder(&self.folder)?;
        let log = open_log(&self.log)?;
        let errors = log.try_clone().map_err(Error::io("open", &self.log))?;
        let mut guard = Command::new(THIS_PROGRAM);
        guard
            .arg0("drumline")
            .arg("guard")
            .arg("--parent")
            .arg(std::process::id().to_string());
        if let Some(group) = &self.group {
            guard.arg("--group").arg(group);
        }
        let child = guard
            .arg("--")
            .args(&self.command)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Ctrl-C in a terminal goes to its whole process group; only the supervisor shall
            // get it, so that the children stop in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::io("start", self.name.as_ref()))?;
        self.note(&child, run)?;
        Ok(child)
    }

    fn note(&self, child: &Child, run: &RunFile) -> Result<(), Error> {
        // Not reaped yet, so its pid is its own, even if it has ended already.
        let process = Identity::of(child.id().unwrap_or_default())
            .map_err(Error::io("observe", self.name.as_ref()))?;
        run.started(ChildRun {
            name: self.name.clone(),
            process,
            folder: self.folder.clone(),
        })
    }
}

/// Minds one child, and those that follow it.
struct Keeper {
    program: Program,
    run: RunFile,
    console: Console,
    orders: watch::Receiver<Order>,
}

impl Keeper {
    async fn tend(mut self, mut child: Child) -> Result<(), Fallen> {
        let mut backoff = BACKOFF_FIRST;
        loop {
            let born = Instant::now();
            let status = tokio::select! {
                status = child.wait() => status,
                () = told_to_end(&mut self.orders) => {
                    self.end(child).await;
                    return Ok(());
                }
            };
            let how = status.map_or_else(|error| error.to_string(), describe);
            let order = *self.orders.borrow();
            match order {
                Order::Keep => {}
                Order::Stop | Order::Kill => return Ok(()),
                Order::Start => {
                    let program = self.program;
                    return Err(Fallen { program, how });
                }
            }
            if born.elapsed() > HEALTHY {
                backoff = BACKOFF_FIRST;
            }
            child = match self.start_again(&how, &mut backoff).await {
                Some(child) => child,
                None => return Ok(()),
            };
        }
    }

    /// Starts the program until that works; `None` when told to end meanwhile.
    async fn start_again(&mut self, how: &str, backoff: &mut Duration) -> Option<Child> {
        let name = &self.program.name;
        let mut why = format!("{name} ended ({how})");
        if self.run.is_held(name) {
            self.console.step(&format!("{why}; a drill holds it"));
            tokio::select! {
                () = released(&self.run, name) => {}
                () = told_to_end(&mut self.orders) => return None,
            }
            match self.program.start(&self.run) {
                Ok(child) => {
                    self.console.step(&format!("{name} started again"));
                    return Some(child);
                }
                Err(error) => why = format!("{name} does not start ({error})"),
            }
        }
        loop {
            let pause = backoff.as_secs_f32();
            self.console
                .step(&format!("{why}; starting it again in {pause:.1} s"));
            tokio::select! {
                () = sleep(*backoff) => {}
                () = told_to_end(&mut self.orders) => return None,
            }
            *backoff = (*backoff * 2).min(BACKOFF_MAX);
            match self.program.start(&self.run) {
                Ok(child) => {
                    self.console.step(&format!("{name} started again"));
                    return Some(child);
                }
                Err(error) => why = format!("{name} does not start ({error})"),
            }
        }
    }

    /// Asks the child to stop, and kills it at its deadline or when told to.
    async fn end(mut self, mut child: Child) {
        if *self.orders.borrow() == Order::Stop {
            signal(&child, self.program.stop_signal);
            let orders = &mut self.orders;
            let killed = async { _ = orders.wait_for(|order| *order == Order::Kill).await };
            tokio::select! {
                ended = timeout(self.program.grace, child.wait()) => {
                    if ended.is_ok() {
                        return;
                    }
                    let name = &self.program.name;
                    let grace = self.program.grace.as_secs();
                    self.console.step(&format!("{name} did not stop in {grace} s; killing it"));
                }
                () = killed => {}
            }
        }
        let _ = child.kill().await;
    }
}

/// Waits until nobody holds the child.
async fn released(run: &RunFile, child: &str) {
    while run.is_held(child) {
        sleep(HOLD_POLL).await;
    }
}

async fn told_to_end(orders: &mut watch::Receiver<Order>) {
    let ends = |order: &Order| matches!(order, Order::Stop | Order::Kill);
    // An error means that the crew is gone; its children go with it.
    _ = orders.wait_for(ends).await;
}

/// The child is not reaped yet, so its pid can be no other's.
fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
