//! `up`: becomes the supervisor of a cluster, starts one in the background, or finds one.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::cut::Groups;
use super::error::Error;
use super::guard::THIS_PROGRAM;
use super::info::ClusterInfo;
use super::mongod::{self, Mongod};
use super::place::{Lock, Place, Root, open_log};
use super::process::Identity;
use super::report::{self, Console};
use super::run::{Run, RunFile};
use super::secrets::Secrets;
use super::signals::StopRequests;
use super::spec::{ClusterName, Spec, Wish};
use super::stop::{stop_orphans, sweep};
use super::supervisor::{Prepared, Supervisor};

const POLL: Duration = Duration::from_millis(25);
/// How long another command may hold the lock without a supervisor: it deletes data, or starts.
const LOCK_MAX: Duration = Duration::from_secs(20);

/// What `up` was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    pub name: ClusterName,
    pub data_dir: Option<PathBuf>,
    pub wish: Wish,
    /// Nodes ask a member to stand for election when the primary is lost.
    pub assist_elections: bool,
    pub ready_file: Option<PathBuf>,
    pub detach: bool,
    /// This is the process that `detach` starts.
    pub background: bool,
    /// Stop when stdin ends.
    pub exit_with_parent: bool,
    /// A drill shall be able to cut members off.
    pub can_be_cut: bool,
}

/// Runs the cluster; with `detach` returns when it is ready.
pub async fn up(options: Options) -> Result<(), Error> {
    let console = Console::new();
    if options.background {
        // Away from the terminal's signals: Ctrl-C, and the end of the session.
        rustix::process::setsid()
            .map_err(|error| Error::io("leave", "the terminal's session".as_ref())(error.into()))?;
    }
    let mut stop = StopRequests::listen()?;
    if options.exit_with_parent {
        stop = stop.listen_to_stdin();
    }
    let root = Root::of_user()?;
    for name in root.names() {
        sweep(&root.place(&name))?;
    }
    if options.detach {
        return start_in_background(&options, &root, &stop).await;
    }
    match own(&options, &root).await? {
        Owned::Running(info, spec, place) => {
            if let Some(path) = &options.ready_file {
                info.write(path)?;
            }
            greet(&info, &spec, &place);
            Ok(())
        }
        Owned::Ours(place, lock) => supervise(options, place, lock, &console, stop).await,
    }
}

fn greet(info: &ClusterInfo, spec: &Spec, place: &Place) {
    Console::new().line(&format!("The cluster '{}' runs already.", info.name));
    report::show(&report::block(info, spec, place.folder()));
}

/// Who owns the cluster now.
enum Owned {
    Ours(Place, Lock),
    Running(ClusterInfo, Spec, Place),
}

/// Takes the cluster's lock, or waits until the supervisor that has it is ready.
async fn own(options: &Options, root: &Root) -> Result<Owned, Error> {
    let place = root.make(&options.name, options.data_dir.as_deref())?;
    let begin = Instant::now();
    loop {
        if let Some((info, spec)) = ClusterInfo::live(&place) {
            spec.accept(&options.name, &options.wish)?;
            return Ok(Owned::Running(info, spec, place));
        }
        let starting = Run::live(&place).is_some();
        if !starting && let Some(lock) = place.lock()? {
            return Ok(Owned::Ours(place, lock));
        }
        if !starting && begin.elapsed() > LOCK_MAX {
            return Err(Error::Failed(format!(
                "another command works on the cluster '{}'; try again in a moment",
                options.name
            )));
        }
        sleep(POLL).await;
    }
}

async fn supervise(
    options: Options,
    place: Place,
    lock: Lock,
    console: &Console,
    stop: StopRequests,
) -> Result<(), Error> {
    let prepared = tokio::select! {
        prepared = prepare(&options, &place, console) => prepared,
        () = stop.asked() => Err(Error::Interrupted),
    };
    let groups = match options.can_be_cut {
        true => Groups::of(&options.name).map(Some),
        false => Ok(None),
    };
    let ready = prepared.and_then(|prepared| Ok((prepared, groups?)));
    let result = match ready {
        Ok((prepared, groups)) => {
            let supervisor = Supervisor {
                groups,
                place: place.clone(),
                cluster: prepared,
                assist_elections: options.assist_elections,
                stop,
                ready_file: options.ready_file,
                background: options.background,
            };
            supervisor.supervise().await
        }
        Err(error) => Err(error),
    };
    leave(&place, lock)?;
    result
}

/// Everything that can be refused before a process is started.
async fn prepare(options: &Options, place: &Place, console: &Console) -> Result<Prepared, Error> {
    if let Some(run) = Run::load(place)
        && stop_orphans(&run).await?
    {
        console.step("stopped what a crash had left");
    }
    let known = Spec::load(place)?;
    if let Some(spec) = &known {
        spec.accept(&options.name, &options.wish)?;
    }
    let run = RunFile::begin(place)?;
    let mongod = mongod::find(console).await?;
    console.step(&format!(
        "MongoDB {} ({})",
        mongod.version,
        mongod.path.display()
    ));
    let spec = match known {
        Some(spec) => same_version(spec, &mongod)?,
        None => Spec::new(&options.name, &options.wish, mongod.version.major)?,
    };
    spec.check_ports()?;
    spec.save(place)?;
    Ok(Prepared {
        secrets: Secrets::make(place, &spec)?,
        console: console.clone().with_log(open_log(&place.log())?),
        spec,
        mongod,
        run,
    })
}

/// MongoDB does not read the files of another major version without an upgrade by hand.
fn same_version(spec: Spec, mongod: &Mongod) -> Result<Spec, Error> {
    if spec.mongod == mongod.version.major {
        return Ok(spec);
    }
    Err(Error::Failed(format!(
        "the data of the cluster '{}' is of MongoDB {}.x, and {} is {}; set DRUMLINE_MONGOD to a \
         mongod {}.x",
        spec.name,
        spec.mongod,
        mongod.path.display(),
        mongod.version,
        spec.mongod
    )))
}

/// Leaves a stopped cluster as it should be found: its data without a run file, or no trace of
/// one that was ephemeral or that was refused before it was made.
fn leave(place: &Place, lock: Lock) -> Result<(), Error> {
    let kept = place.spec().exists() && !matches!(Spec::load(place), Ok(Some(s)) if s.ephemeral);
    if kept {
        RunFile::end(place);
        return Ok(());
    }
    place.delete(lock)
}

/// Starts this program again as a supervisor of its own, and waits until it is ready.
async fn start_in_background(
    options: &Options,
    root: &Root,
    stop: &StopRequests,
) -> Result<(), Error> {
    let place = root.place(&options.name);
    if let Some((info, spec)) = ClusterInfo::live(&place) {
        root.make(&options.name, options.data_dir.as_deref())?;
        spec.accept(&options.name, &options.wish)?;
        if let Some(path) = &options.ready_file {
            info.write(path)?;
        }
        greet(&info, &spec, &place);
        return Ok(());
    }
    // It inherits stdout and stderr, and so tells its steps and its error itself.
    let mut child = Command::new(THIS_PROGRAM)
        .arg0("drumline")
        .args(arguments(options))
        .stdin(Stdio::null())
        .spawn()
        .map_err(Error::io("start", "the supervisor".as_ref()))?;
    tokio::select! {
        result = wait_for_ready(options, root, &mut child) => return result,
        () = stop.asked() => {}
    }
    if let Some(supervisor) = child.id().and_then(|pid| Identity::of(pid).ok()) {
        supervisor.signal_if(Signal::TERM, Identity::alive);
    }
    let _ = child.wait().await;
    Err(Error::Interrupted)
}

async fn wait_for_ready(options: &Options, root: &Root, child: &mut Child) -> Result<(), Error> {
    let pid = child.id();
    loop {
        let ended = child
            .try_wait()
            .map_err(Error::io("wait for", "the supervisor".as_ref()))?;
        if let Some(status) = ended {
            // It has said why. Success means that it found the cluster running.
            return if status.success() {
                Ok(())
            } else {
                Err(Error::AlreadyTold(status))
            };
        }
        let place = root.place(&options.name);
        let ready = Run::load(&place).filter(|run| run.ready && Some(run.supervisor.pid) == pid);
        let told = options.ready_file.as_ref().is_none_or(|path| path.exists());
        if ready.is_some()
            && told
            && let Some((info, spec)) = ClusterInfo::live(&place)
        {
            report::show(&report::block(&info, &spec, place.folder()));
            return Ok(());
        }
        sleep(POLL).await;
    }
}

/// The command line of the background supervisor.
fn arguments(options: &Options) -> Vec<OsString> {
    let wish = &options.wish;
    let mut arguments: Vec<OsString> = vec!["up".into(), "--background".into()];
    let mut flag = |name: &str, value: Option<OsString>| {
        if let Some(value) = value {
            arguments.extend([name.into(), value]);
        }
    };
    flag("--name", Some(options.name.as_str().into()));
    flag("--data-dir", options.data_dir.clone().map(Into::into));
    flag("--ready-file", options.ready_file.clone().map(Into::into));
    flag("--nodes", wish.nodes.map(|n| n.to_string().into()));
    flag("--members", wish.members.map(|n| n.to_string().into()));
    flag("--base-port", wish.base_port.map(|p| p.to_string().into()));
    if wish.ephemeral {
        arguments.push("--ephemeral".into());
    }
    let assist = options.assist_elections;
    arguments.push(format!("--assist-elections={assist}").into());
    arguments
}
