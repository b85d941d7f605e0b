//! A cluster that lives as long as the command which needs it, and leaves nothing.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
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

    /// Starts a cluster of three members and waits until it is ready.
    pub async fn start(nodes: usize, more: &[OsString]) -> Result<Self, Error> {
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
        let said = child
            .stderr
            .take()
            .map(|errors| tokio::spawn(listen(errors)));
        let Some((handles, info)) = ready(&name, &mut child).await? else {
            let said = match said {
                Some(said) => said.await.unwrap_or_default(),
                None => Vec::new(),
            };
            return Err(Error::Failed(format!(
                "the cluster for the drill did not start: {}",
                said.join("; ")
            )));
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
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Failed(format!(
                "the throw-away cluster '{name}' does not stop; `drumline down --name {name}` ends it",
                name = self.info.name
            ))),
        }
    }
}

/// The last lines that it says, when it has ended. Whoever does not read them stops it.
async fn listen(errors: ChildStderr) -> Vec<String> {
    let mut last = VecDeque::new();
    let mut lines = BufReader::new(errors).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if last.len() == LINES_MAX {
            last.pop_front();
        }
        last.push_back(line);
    }
    last.into()
}

/// `None` if it ends before it is ready.
async fn ready(
    name: &ClusterName,
    child: &mut Child,
) -> Result<Option<(Handles, ClusterInfo)>, Error> {
    loop {
        if let Ok(found) = Handles::open(name) {
            return Ok(Some(found));
        }
        let ended = child
            .try_wait()
            .map_err(Error::io("wait for", "the supervisor".as_ref()))?;
        if ended.is_some() {
            return Ok(None);
        }
        sleep(POLL).await;
    }
}
