//! `up`, `down`, `info` and `ls`: one cluster a name, nothing lost, nothing left, nobody hurt.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use drumline::cluster::info::ClusterInfo;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    Cluster, Sandbox, alive, kill, kill_group, processes_in, wait_for, wait_until,
};

/// The smallest cluster: one member, no node.
const SMALL: [&str; 4] = ["--nodes", "0", "--members", "1"];

fn up<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["up", "--name", name];
    arguments.extend(SMALL);
    arguments.extend(more);
    arguments
}

fn info(sandbox: &Sandbox, name: &str) -> ClusterInfo {
    let outcome = sandbox.ok(&["info", "--name", name, "-o", "json"]);
    serde_json::from_str(&outcome.stdout).unwrap()
}

fn listed(sandbox: &Sandbox) -> Value {
    serde_json::from_str(&sandbox.ok(&["ls", "-o", "json"]).stdout).unwrap()
}

#[test]
fn up_twice_is_the_same_cluster_and_keeps_its_data() {
    let sandbox = Sandbox::new();
    let flags = ["--base-port", "0", "--detach"];
    let first = sandbox.ok(&[
        "up", "--name", "kept", "--nodes", "0", flags[0], flags[1], flags[2],
    ]);
    assert!(first.stderr.contains("initiated"), "{first:#?}");
    assert!(
        first.stdout.contains("drumline down --name kept"),
        "{first:#?}"
    );
    assert!(
        first.stdout.contains(":***@"),
        "the password is masked: {first:#?}"
    );
    let before = info(&sandbox, "kept");
    assert_eq!(before.members.len(), 3);

    let second = sandbox.ok(&["up", "--name", "kept", "--detach"]);
    assert!(second.stderr.contains("runs already"), "{second:#?}");
    assert_eq!(second.stdout, first.stdout);
    assert_eq!(info(&sandbox, "kept"), before);

    sandbox.ok(&["down", "--name", "kept"]);
    assert_eq!(listed(&sandbox)[0]["state"], "stopped");
    let third = sandbox.ok(&["up", "--name", "kept", "--detach"]);
    assert!(!third.stderr.contains("initiated"), "{third:#?}");
    let after = info(&sandbox, "kept");
    assert_eq!(after.mongodb_uri, before.mongodb_uri);
    assert_eq!(after.api_key, before.api_key);
    let hosts =
        |info: &ClusterInfo| -> Vec<_> { info.members.iter().map(|m| m.host.clone()).collect() };
    assert_eq!(hosts(&after), hosts(&before));

    sandbox.ok(&["down", "--name", "kept", "--purge"]);
    assert_eq!(listed(&sandbox), Value::Array(vec![]));
    assert!(!sandbox.cluster("kept").exists());
}

#[test]
fn flags_that_contradict_the_cluster_are_refused() {
    let sandbox = Sandbox::new();
    sandbox.ok(&up("firm", &["--base-port", "0", "--detach"]));
    let contradictions: [&[&str]; 5] = [
        &["--members", "3"],
        &["--nodes", "2"],
        &["--base-port", "9000"],
        &["--ephemeral"],
        &["--data-dir", "elsewhere"],
    ];
    for running in [true, false] {
        for flags in contradictions {
            let mut arguments = vec!["up", "--name", "firm", "--detach"];
            arguments.extend(flags);
            let outcome = sandbox.run(&arguments);
            assert_eq!(outcome.status, 2, "{flags:?} {outcome:#?}");
            assert_eq!(outcome.stderr.lines().count(), 1, "{flags:?} {outcome:#?}");
            assert!(
                outcome.stderr.contains("another --name"),
                "{flags:?} {outcome:#?}"
            );
        }
        if running {
            sandbox.ok(&["down", "--name", "firm"]);
        }
    }
}

#[test]
fn bad_arguments_are_refused_and_leave_nothing() {
    let sandbox = Sandbox::new();
    let cases: [&[&str]; 7] = [
        &["--name", "a/b"],
        &["--name", ".."],
        &["--name", ""],
        &["--members", "2"],
        &["--members", "0"],
        &["--nodes", "10"],
        &["--base-port", "80"],
    ];
    for case in cases {
        let mut arguments = vec!["up"];
        arguments.extend(case);
        let outcome = sandbox.run(&arguments);
        assert_eq!(outcome.status, 2, "{case:?} {outcome:#?}");
    }
    assert_eq!(listed(&sandbox), Value::Array(vec![]));
    for command in ["down", "info"] {
        let outcome = sandbox.run(&[command, "--name", "nobody"]);
        assert_eq!(outcome.status, 1);
        assert!(
            outcome.stderr.contains("no cluster 'nobody'"),
            "{outcome:#?}"
        );
    }
}

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
    // The shell holds the supervisor's stdin open, and is killed.
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
    sandbox.ok(&[
        "up",
        "--name",
        "crash",
        "--nodes",
        "0",
        "--base-port",
        "0",
        "--detach",
    ]);
    let before = info(&sandbox, "crash");
    let folder = sandbox.cluster("crash");
    assert_eq!(processes_in(&folder).len(), 3);
    kill(supervisor_of(&folder), Signal::KILL);
    wait_until("all members end", || processes_in(&folder).is_empty());
    assert_eq!(listed(&sandbox)[0]["state"], "stopped");

    let again = sandbox.ok(&["up", "--name", "crash", "--detach"]);
    assert!(!again.stderr.contains("initiated"), "{again:#?}");
    assert_eq!(info(&sandbox, "crash").mongodb_uri, before.mongodb_uri);
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
    wait_until("all members end", || processes_in(&folder).is_empty());
    assert!(folder.exists());
    assert_eq!(listed(&sandbox), Value::Array(vec![]));
    assert!(!folder.exists());
}

fn run_file(folder: &Path) -> PathBuf {
    folder.join("run.json")
}

fn read_run(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(run_file(folder)).unwrap()).unwrap()
}

fn supervisor_of(folder: &Path) -> u32 {
    let pid = read_run(folder)["supervisor"]["pid"].as_u64().unwrap();
    pid.try_into().unwrap()
}

#[test]
fn a_killed_member_comes_back_and_info_has_its_new_pid() {
    let cluster = Cluster::start(&["--nodes", "0"]);
    let victim = &cluster.info.members[0];
    kill(victim.pid, Signal::KILL);
    let replaced = wait_for("the member comes back", || {
        let now = info(cluster.sandbox(), Cluster::NAME)
            .members
            .swap_remove(0);
        (now.pid != victim.pid && alive(now.pid)).then_some(now)
    });
    assert_eq!(replaced.host, victim.host);
    wait_until("the member listens", || {
        std::net::TcpStream::connect(&victim.host).is_ok()
    });
    let said = cluster.said();
    assert!(
        said.contains("m1 ended (signal 9); starting it again"),
        "{said}"
    );
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
    wait_until("all members end", || processes_in(&folder).is_empty());
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
fn a_taken_port_is_named_with_the_way_out() {
    let sandbox = Sandbox::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    // Members listen at the base port + 11 and up.
    let base = (port - 11).to_string();
    let outcome = sandbox.run(&up("crowded", &["--base-port", &base, "--detach"]));
    assert_eq!(outcome.status, 1, "{outcome:#?}");
    assert!(
        outcome.stderr.contains(&format!("port {port}")),
        "{outcome:#?}"
    );
    assert!(outcome.stderr.contains("--base-port 0"), "{outcome:#?}");
    assert!(!sandbox.cluster("crowded").exists());
}

#[test]
fn a_data_dir_is_found_by_name_and_foreign_files_are_safe() {
    let sandbox = Sandbox::new();
    let elsewhere = sandbox.path("elsewhere");
    let folder = elsewhere.to_str().unwrap();
    sandbox.ok(&up(
        "moved",
        &["--base-port", "0", "--data-dir", folder, "--detach"],
    ));
    let member = info(&sandbox, "moved").members.swap_remove(0);
    assert!(Path::new(&member.dbpath).starts_with(&elsewhere));
    sandbox.ok(&["down", "--name", "moved"]);
    assert_eq!(listed(&sandbox)[0]["data"], folder);

    fs::write(elsewhere.join("mine.txt"), "kept").unwrap();
    sandbox.ok(&["down", "--name", "moved", "--purge"]);
    assert_eq!(listed(&sandbox), Value::Array(vec![]));
    let left: Vec<_> = fs::read_dir(&elsewhere).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "only the user's own file is left: {left:?}");

    let outcome = sandbox.run(&up("moved", &["--base-port", "0", "--data-dir", folder]));
    assert_eq!(outcome.status, 2);
    assert!(outcome.stderr.contains("holds other files"), "{outcome:#?}");
}

#[test]
fn secrets_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let cluster = Cluster::start(&SMALL);
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let secrets = cluster.folder().join("secrets");
    assert_eq!(mode(secrets.clone()), 0o700);
    for secret in ["keyfile", "api-key", "password", "mongodb-uri"] {
        assert_eq!(mode(secrets.join(secret)), 0o600, "{secret}");
    }
    assert_eq!(mode(cluster.sandbox().path("ready.json")), 0o600);
}

/// A small file system of its own; `None` where the tests may not mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: PathBuf) -> Option<Self> {
        fs::create_dir(&folder).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "drumline-test"])
            .arg(&folder)
            .stderr(Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_in_plain_words() {
    let sandbox = Sandbox::new();
    let Some(disk) = SmallDisk::mount(sandbox.path("disk")) else {
        eprintln!("skipped: mounting a file system is not permitted here");
        return;
    };
    let folder = disk.0.to_str().unwrap();
    let outcome = sandbox.run(&up(
        "full",
        &["--base-port", "0", "--data-dir", folder, "--detach"],
    ));
    assert_eq!(outcome.status, 1, "{outcome:#?}");
    assert!(outcome.stderr.contains("no space left"), "{outcome:#?}");
    assert!(processes_in(&disk.0).is_empty());
}
