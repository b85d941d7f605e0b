//! How a cluster ends: by request, by a crash, in pieces. Nothing is left, nobody else is hurt.

use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use drumline::cluster::info::ClusterInfo;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    Cluster, SMALL, Sandbox, alive, kill, kill_group, processes_in, up, wait_for, wait_until,
};

#[test]
fn an_ephemeral_cluster_leaves_nothing() {
    let mut cluster = Cluster::start(&SMALL);
    let (folder, ready) = (cluster.folder(), cluster.sandbox().path("ready.json"));
    let member = Path::new(&cluster.info.members[0].dbpath);
    assert!(member.starts_with(&folder) && member.exists());
    kill(cluster.supervisor(), Signal::TERM);
    assert_eq!(cluster.ended(), Some(0));
    assert!(!folder.exists());
    assert!(!ready.exists());
    assert!(processes_in(&folder).is_empty());
}

#[test]
fn a_cluster_ends_with_the_process_that_started_it() {
    let sandbox = Sandbox::new();
    let ready = sandbox.path("ready.json");
    let arguments = up(
        "bound",
        &["--ephemeral", "--base-port", "0", "--exit-with-parent"],
    );
    let mut supervisor = sandbox
        .drumline(&arguments)
        .arg("--ready-file")
        .arg(&ready)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the cluster is ready", || ready.exists());
    drop(supervisor.stdin.take());
    let status = wait_for("the supervisor ends", || supervisor.try_wait().unwrap());
    assert!(status.success());
    assert!(!sandbox.cluster("bound").exists());
}

#[test]
fn a_killed_supervisor_leaves_no_process_and_its_data_starts_again() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["up", "--name", "crash", "--base-port", "0", "--detach"]);
    let before = sandbox.info("crash");
    let folder = sandbox.cluster("crash");
    assert_eq!(processes_in(&folder).len(), 6);
    kill(supervisor_of(&folder), Signal::KILL);
    wait_until("all children end", || processes_in(&folder).is_empty());
    assert_eq!(sandbox.listed()[0]["state"], "stopped");

    let again = sandbox.ok(&["up", "--name", "crash", "--detach"]);
    assert!(!again.stderr.contains("initiated"), "{again:#?}");
    assert_eq!(sandbox.info("crash").mongodb_uri, before.mongodb_uri);
    sandbox.ok(&["down", "--name", "crash"]);
}

#[test]
fn what_a_crash_leaves_of_an_ephemeral_cluster_is_swept() {
    let sandbox = Sandbox::new();
    sandbox.ok(&up(
        "swept",
        &["--ephemeral", "--base-port", "0", "--detach"],
    ));
    let folder = sandbox.cluster("swept");
    kill(supervisor_of(&folder), Signal::KILL);
    wait_until("all children end", || processes_in(&folder).is_empty());
    assert!(folder.exists());
    assert_eq!(sandbox.listed(), Value::Array(vec![]));
    assert!(!folder.exists());
}

fn run_file(folder: &Path) -> PathBuf {
    folder.join("run.json")
}

fn read_run(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(run_file(folder)).unwrap()).unwrap()
}

/// The process that owns the cluster in this folder.
pub fn supervisor_of(folder: &Path) -> u32 {
    let pid = read_run(folder)["supervisor"]["pid"].as_u64().unwrap();
    pid.try_into().unwrap()
}

#[test]
fn a_killed_child_comes_back_and_info_has_its_new_pid() {
    let cluster = Cluster::start(&[]);
    let pids = |info: &ClusterInfo| (info.nodes[0].pid, info.members[0].pid);
    let (node, member) = pids(&cluster.info);
    kill(node, Signal::KILL);
    kill(member, Signal::KILL);
    wait_until("both come back", || {
        let now = pids(&cluster.sandbox().info(Cluster::NAME));
        now.0 != node && now.1 != member && alive(now.0) && alive(now.1)
    });
    for host in [
        &cluster.info.members[0].host,
        &host_of(&cluster.info.nodes[0].url),
    ] {
        wait_until("it listens", || TcpStream::connect(host).is_ok());
    }
    let said = cluster.said();
    for name in ["n1", "m1"] {
        let line = format!("{name} ended (signal 9); starting it again");
        assert!(said.contains(&line), "{said}");
    }
}

fn host_of(url: &str) -> String {
    url.strip_prefix("http://").unwrap().to_owned()
}

/// A process of the test that looks, by its command line, like a member of the cluster.
struct Bystander(Child);

impl Bystander {
    fn new(folder: &Path) -> Self {
        let child = Command::new("sh")
            .args(["-c", "read line", "sh"])
            .arg(folder)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn start_time(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let rest = stat.rsplit_once(')').unwrap().1;
        rest.split_ascii_whitespace()
            .nth(19)
            .unwrap()
            .parse()
            .unwrap()
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_process_is_signalled_only_if_pid_start_time_and_folder_are_ours() {
    let sandbox = Sandbox::new();
    sandbox.ok(&up("mistaken", &["--base-port", "0", "--detach"]));
    let folder = sandbox.cluster("mistaken");
    kill(supervisor_of(&folder), Signal::KILL);
    wait_until("all children end", || processes_in(&folder).is_empty());
    let left_by_crash = read_run(&folder);

    let data = folder.join("members/m1/data");
    let other = sandbox.path("other");
    // (the folder in its command line, what is added to its start time, whether it is ours)
    for (named, drift, ours) in [(&data, 1, false), (&other, 0, false), (&data, 0, true)] {
        let mut bystander = Bystander::new(named);
        let mut run = left_by_crash.clone();
        run["children"][0]["process"]["pid"] = bystander.0.id().into();
        run["children"][0]["process"]["start"] = (bystander.start_time() + drift).into();
        fs::write(run_file(&folder), run.to_string()).unwrap();
        let outcome = sandbox.ok(&["down", "--name", "mistaken"]);
        assert_eq!(bystander.runs(), !ours, "{outcome:#?}");
        let words = if ours { "has stopped" } else { "does not run" };
        assert!(outcome.stderr.contains(words), "{outcome:#?}");
    }

    // A supervisor whose pid another process has now.
    let mut bystander = Bystander::new(&data);
    let mut run = left_by_crash;
    run["supervisor"]["pid"] = bystander.0.id().into();
    fs::write(run_file(&folder), run.to_string()).unwrap();
    sandbox.ok(&["down", "--name", "mistaken", "--purge"]);
    assert!(bystander.runs());
}

#[test]
fn ctrl_c_stops_gracefully_and_the_data_is_clean() {
    let sandbox = Sandbox::new();
    let ready = sandbox.path("ready.json");
    let log = sandbox.path("up.log");
    // A terminal's Ctrl-C goes to the whole process group.
    let mut supervisor = sandbox
        .drumline(&up("polite", &["--base-port", "0", "--ready-file"]))
        .arg(&ready)
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    wait_until("the cluster is ready", || ready.exists());
    kill_group(supervisor.id(), Signal::INT);
    let status = wait_for("the supervisor ends", || supervisor.try_wait().unwrap());
    let said = fs::read_to_string(&log).unwrap();
    assert!(status.success(), "{said}");
    assert!(
        said.contains("stopping") && said.contains("stopped"),
        "{said}"
    );
    assert!(!ready.exists());
    let mongod = fs::read_to_string(sandbox.cluster("polite").join("members/m1/mongod.log"));
    assert!(
        mongod.unwrap().contains("\"exitCode\":0"),
        "mongod shut down by itself"
    );
}

#[test]
fn a_second_ctrl_c_does_not_wait_for_a_child_that_hangs() {
    let mut cluster = Cluster::start(&["--members", "1"]);
    let node = cluster.info.nodes[0].pid;
    kill(node, Signal::STOP);
    kill(cluster.supervisor(), Signal::INT);
    wait_until("it stops", || cluster.said().contains("stopping"));
    kill(cluster.supervisor(), Signal::INT);
    assert_eq!(cluster.ended(), Some(0));
    assert!(!alive(node));
    // Its own deadline would have said so.
    assert!(
        !cluster.said().contains("did not stop"),
        "{}",
        cluster.said()
    );
}

#[test]
fn ctrl_c_while_a_detached_cluster_starts_stops_it() {
    let sandbox = Sandbox::new();
    let mut starter = sandbox
        .drumline(&up("hasty", &["--base-port", "0", "--detach"]))
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let folder = sandbox.cluster("hasty");
    wait_until("a member starts", || !processes_in(&folder).is_empty());
    kill_group(starter.id(), Signal::INT);
    let status = wait_for("up returns", || starter.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    assert!(processes_in(&folder).is_empty());
}
