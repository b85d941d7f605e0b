//! An ephemeral cluster that lives as long as its test, or as long as the test binary.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use drumline::cluster::info::ClusterInfo;

use tokio::time::timeout;

use super::http::Http;
use super::{Pid, Sandbox, processes, wait_for};

/// A frozen node never answers.
const STATUS_MAX: Duration = Duration::from_secs(3);

/// A running `drumline up --ephemeral` on free ports.
#[derive(Debug)]
pub struct Cluster {
    pub info: ClusterInfo,
    /// Its stdin is a pipe from this process: when the test process ends, by whatever cause, the
    /// pipe closes and the cluster stops.
    supervisor: Child,
    sandbox: Sandbox,
}

impl Cluster {
    pub const NAME: &str = "test";
    /// For tests of what a node does alone.
    pub const ONE_NODE: [&str; 2] = ["--nodes", "1"];

    /// Starts a cluster with these further flags of `up`.
    pub fn start(flags: &[&str]) -> Self {
        Self::start_in(Sandbox::new(), flags)
    }

    pub fn start_in(sandbox: Sandbox, flags: &[&str]) -> Self {
        let ready = sandbox.path("ready.json");
        let log = sandbox.path("up.log");
        let mut arguments = vec![
            "up",
            "--name",
            Self::NAME,
            "--ephemeral",
            "--base-port",
            "0",
        ];
        arguments.extend([
            "--exit-with-parent",
            "--ready-file",
            ready.to_str().unwrap(),
        ]);
        arguments.extend(flags);
        let mut supervisor = sandbox
            .drumline(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let info = wait_for("the cluster is ready", || {
            if let Some(status) = supervisor.try_wait().unwrap() {
                panic!("up: {status}\n{}", fs::read_to_string(&log).unwrap());
            }
            serde_json::from_slice(&fs::read(&ready).ok()?).ok()
        });
        Self {
            info,
            supervisor,
            sandbox,
        }
    }

    /// The cluster with three nodes that tests share which do not harm it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[]))
    }

    /// The pid of a node now: a node that was killed comes back with another.
    pub fn node_pid(&self, index: usize) -> Pid {
        self.sandbox.info(Self::NAME).nodes[index].pid
    }

    /// The pid of a member now.
    pub fn member_pid(&self, index: usize) -> Pid {
        self.sandbox.info(Self::NAME).members[index].pid
    }

    /// Waits until a node that answers names a coordinator, and gives its index.
    pub async fn coordinator(&self) -> usize {
        super::eventually("a coordinator is named", async || {
            for node in &self.info.nodes {
                let http = Http::new(&node.url, &self.info.api_key);
                let asked = timeout(STATUS_MAX, http.try_get("/status")).await;
                let Ok(Ok(reply)) = asked else { continue };
                let view = reply.json();
                let mut nodes = self.info.nodes.iter();
                if let Some(found) = nodes.position(|node| view["coordinator"] == node.name) {
                    return Some(found);
                }
            }
            None
        })
        .await
    }

    /// The pid of the member that is primary now.
    pub async fn primary_pid(&self) -> Pid {
        let driver = mongodb::Client::with_uri_str(&self.info.mongodb_uri)
            .await
            .unwrap();
        let hello = driver
            .database("admin")
            .run_command(bson::doc! {"hello": 1})
            .await
            .unwrap();
        let primary = hello.get_str("primary").unwrap();
        let info = self.sandbox.info(Self::NAME);
        let member = info.members.iter().find(|member| member.host == primary);
        member.unwrap().pid
    }

    /// From now on a child (`m1`, `n1`, ...) is not started again when it ends, as in a drill.
    #[allow(dead_code, reason = "tests/mutants.rs uses it")]
    pub fn hold(&self, child: &str) {
        let holder = std::process::id();
        let began = processes::began(holder);
        let folder = self.folder().join("hold");
        fs::create_dir_all(&folder).unwrap();
        let text = serde_json::json!({"pid": holder, "start": began}).to_string();
        fs::write(folder.join(child), text).unwrap();
    }

    /// The child may be started again, and is at once if it has ended.
    #[allow(dead_code, reason = "tests/mutants.rs uses it")]
    pub fn release(&self, child: &str) {
        fs::remove_file(self.folder().join("hold").join(child)).unwrap();
    }

    pub fn supervisor(&self) -> Pid {
        self.supervisor.id()
    }

    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The cluster's data folder.
    pub fn folder(&self) -> PathBuf {
        self.sandbox.cluster(Self::NAME)
    }

    /// What the supervisor has said until now.
    pub fn said(&self) -> String {
        fs::read_to_string(self.sandbox.path("up.log")).unwrap()
    }

    /// Waits for the supervisor's end and gives its exit status; `None` if a signal ended it.
    pub fn ended(&mut self) -> Option<i32> {
        let supervisor = &mut self.supervisor;
        wait_for("the supervisor ends", || supervisor.try_wait().unwrap()).code()
    }

    /// The mongod program that tests run with, wherever it came from.
    pub fn mongod() -> &'static Path {
        static MONGOD: OnceLock<PathBuf> = OnceLock::new();
        MONGOD.get_or_init(|| {
            let cluster = Self::start(&["--nodes", "0", "--members", "1"]);
            let member = cluster.info.members[0].pid;
            fs::read_link(format!("/proc/{member}/exe")).unwrap()
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}
