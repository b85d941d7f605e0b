//! A user of their own for each test: data, configuration and state in a folder that goes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use drumline::cluster::info::ClusterInfo;
use serde_json::Value;

use super::{alive, processes_in, wait_until};

/// The smallest cluster: one member, no node.
pub const SMALL: [&str; 4] = ["--nodes", "0", "--members", "1"];

/// The arguments that start a smallest cluster of this name, and more flags.
pub fn up<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["up", "--name", name];
    arguments.extend(SMALL);
    arguments.extend(more);
    arguments
}

/// A folder with this user's files, deleted at the end of the test.
#[derive(Debug)]
pub struct Sandbox {
    folder: PathBuf,
    variables: Vec<(String, Option<String>)>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Sandbox {
    pub fn new() -> Self {
        static SWEPT: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        SWEPT.call_once(|| sweep(base));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = base.join(format!("it-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self {
            folder,
            variables: Vec::new(),
        }
    }

    /// Sets a variable of the environment for the commands of this sandbox.
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), Some(value.into())));
        self
    }

    /// Removes a variable from their environment.
    pub fn unset(mut self, name: &str) -> Self {
        self.variables.push((name.to_owned(), None));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The default data folder of a cluster.
    pub fn cluster(&self, name: &str) -> PathBuf {
        self.path("data").join("drumline").join(name)
    }

    /// The program, ready to run as this sandbox's user.
    pub fn drumline(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_drumline"));
        command.args(arguments);
        command
    }

    /// Any program, ready to run as this sandbox's user. The cache of fetched programs is the
    /// real user's, so that a mongod is fetched once and not once a test.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        let folders = [
            ("XDG_DATA_HOME", "data"),
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_STATE_HOME", "state"),
        ];
        for (variable, folder) in folders {
            command.env(variable, self.path(folder));
        }
        for variable in [
            "DRUMLINE_SERVERS",
            "DRUMLINE_API_KEY",
            "DRUMLINE_MONGODB",
            "DRUMLINE_CONFIG",
            "DRUMLINE_TIMEOUT",
        ] {
            command.env_remove(variable);
        }
        for (variable, value) in &self.variables {
            match value {
                Some(value) => command.env(variable, value),
                None => command.env_remove(variable),
            };
        }
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        let Output {
            status,
            stdout,
            stderr,
        } = self.drumline(arguments).output().unwrap();
        Outcome {
            status: status.code().unwrap_or(-1),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Runs a command that must succeed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Outcome {
        let outcome = self.run(arguments);
        assert_eq!(outcome.status, 0, "drumline {arguments:?}: {outcome:#?}");
        outcome
    }

    /// Stops the clusters of a failed test.
    pub fn stop_all(&self) {
        let clusters = fs::read_dir(self.path("data").join("drumline"));
        for cluster in clusters.into_iter().flatten().flatten() {
            if let Some(name) = cluster.file_name().to_str() {
                self.run(&["down", "--name", name]);
            }
        }
    }

    /// What `info -o json` says of a running cluster.
    #[track_caller]
    pub fn info(&self, name: &str) -> ClusterInfo {
        let outcome = self.ok(&["info", "--name", name, "-o", "json"]);
        serde_json::from_str(&outcome.stdout).unwrap()
    }

    /// What `ls -o json` says.
    #[track_caller]
    pub fn listed(&self) -> Value {
        serde_json::from_str(&self.ok(&["ls", "-o", "json"]).stdout).unwrap()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let left = !processes_in(&self.folder).is_empty();
        if left && std::thread::panicking() {
            // A failed test must not hide its reason behind a second failure.
            self.stop_all();
        } else if left {
            let folder = &self.folder;
            wait_until("no process is left behind", || {
                processes_in(folder).is_empty()
            });
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Deletes what earlier test processes left because they were killed.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix("it-")?.split('-').next()?.parse().ok());
        if owner.is_some_and(|pid| !alive(pid)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
