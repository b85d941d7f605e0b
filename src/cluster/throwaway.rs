//! A cluster that lives as long as the command which needs it, and leaves nothing.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::error::Error;
use super::guard::THIS_PROGRAM;
use super::handles::Handles;
use super::info::ClusterInfo;
use super::spec::{ClusterName, random_bytes};

const POLL: Duration = Duration::from_millis(25);
/// What the names of throw-away clusters begin with.
const NAME_BEGIN: &str = "drill-";
/// Lines of its start that are kept to tell why it failed.
const LINES_MAX: usize = 20;
/// The program `mongod` may have to be fetched first.
const START_MAX: Duration = Duration::from_secs(1_800);
/// Its supervisor kills the members and deletes their data.
const END_MAX: Duration = Duration::from_secs(20);

/// A supervisor of its own, bound to this process by a pipe: whatever ends this process ends the
/// cluster too.
#[derive(Debug)]
pub struct Throwaway {
    child: Child,
    leash: Option<ChildStdin>,
    pub handles: Handles,
    pub info: ClusterInfo,
}

impl Throwaway {
    /// Whether a cluster of that name is one of these.
    pub fn is_named(name: &str) -> bool {
        name.starts_with(NAME_BEGIN)
    }

    /// Starts a cluster of three members and waits until it is ready. `told` hears what its supervisor says.
    pub async fn start(
        nodes: usize,
        more: &[OsString],
        told: &(dyn Fn(&str) + Sync),
    ) -> Result<Self, Error> {
        let tag = u32::from_le_bytes(random_bytes()?);
        let name = ClusterName::parse(&format!("{NAME_BEGIN}{tag:08x}"))?;
        let mut child = Command::new(THIS_PROGRAM)
            .arg0("drumline")
            .args(["up", "--ephemeral", "--exit-with-parent"])
            .args(["--base-port", "0", "--members", "3", "--name"])
            .arg(name.as_str())
            .args(["--nodes", &nodes.to_string()])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for the drill: it ends the cluster in its own time.
            .process_group(0)
            .spawn()
            .map_err(Error::io("start", "a cluster".as_ref()))?;
        let leash = child.stdin.take();
        let (say, mut said) = mpsc::channel(LINES_MAX);
        if let Some(errors) = child.stderr.take() {
            tokio::spawn(listen(errors, say));
        }
        let mut last = Vec::new();
        let (handles, info) = tokio::select! {
            found = timeout(START_MAX, ready(&name)) => match found {
                Ok(found) => found,
                Err(_) => return Err(did_not_start("it takes too long")),
            },
            // It has closed its stderr: it has ended, or is about to.
            () = pass_on(&mut said, &mut last, told) => {
                return Err(did_not_start(&last.join("; ")));
            }
        };
        Ok(Self {
            child,
            leash,
            handles,
            info,
        })
    }

    /// Stops it, and waits until nothing is left.
    pub async fn end(mut self) -> Result<(), Error> {
        drop(self.leash.take());
        match timeout(END_MAX, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(ended) => Err(Error::Failed(format!(
                "the throw-away cluster '{}' did not end well: {}",
                self.info.name,
                ended.map_or_else(|error| error.to_string(), |status| status.to_string())
            ))),
            Err(_) => Err(Error::Failed(format!(
                "the throw-away cluster '{name}' does not stop; `drumline down --name {name}` ends it",
                name = self.info.name
            ))),
        }
    }
}

fn did_not_start(why: &str) -> Error {
    Error::Failed(format!("the cluster for the drill did not start: {why}"))
}

/// What it says, line by line. Whoever does not read that stops it: what nobody takes any more is left out.
async fn listen(errors: ChildStderr, say: mpsc::Sender<String>) {
    let mut lines = BufReader::new(errors).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let _ = say.try_send(line);
    }
}

/// Ends when it says nothing more, and has its last lines then.
async fn pass_on(
    said: &mut mpsc::Receiver<String>,
    last: &mut Vec<String>,
    told: &(dyn Fn(&str) + Sync),
) {
    while let Some(line) = said.recv().await {
        told(line.trim());
        if last.len() == LINES_MAX {
            last.remove(0);
        }
        last.push(line);
    }
}

async fn ready(name: &ClusterName) -> (Handles, ClusterInfo) {
    loop {
        if let Ok(found) = Handles::open(name) {
            return found;
        }
        sleep(POLL).await;
    }
}
