//! `up`, `info`, `ls` and `down`: one cluster a name, its data kept, contradictions refused.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Cluster, SMALL, Sandbox, kill, processes_in, up, wait_for};

#[test]
fn up_twice_is_the_same_cluster_and_keeps_its_data() {
    let sandbox = Sandbox::new();
    let first = sandbox.ok(&["up", "--name", "kept", "--base-port", "0", "--detach"]);
    assert!(first.stderr.contains("initiated"), "{first:#?}");
    assert!(
        first.stdout.contains("drumline down --name kept"),
        "{first:#?}"
    );
    assert!(
        first.stdout.contains(":***@"),
        "the password is masked: {first:#?}"
    );
    let before = sandbox.info("kept");
    assert_eq!((before.nodes.len(), before.members.len()), (3, 3));
    sandbox.ok(&["insert", "shop.orders", r#"{"item":"drum"}"#]);

    let second = sandbox.ok(&["up", "--name", "kept", "--detach"]);
    assert!(second.stderr.contains("runs already"), "{second:#?}");
    assert_eq!(second.stdout, first.stdout);
    assert_eq!(sandbox.info("kept"), before);

    sandbox.ok(&["down", "--name", "kept"]);
    assert_eq!(sandbox.listed()[0]["state"], "stopped");
    let third = sandbox.ok(&["up", "--name", "kept", "--detach"]);
    assert!(!third.stderr.contains("initiated"), "{third:#?}");
    let after = sandbox.info("kept");
    assert_eq!(after.mongodb_uri, before.mongodb_uri);
    assert_eq!(after.api_key, before.api_key);
    assert_eq!(after.nodes[0].url, before.nodes[0].url);
    let found = sandbox.ok(&["find", "shop.orders"]);
    assert!(found.stdout.contains("drum"), "{found:#?}");

    sandbox.ok(&["down", "--name", "kept", "--purge"]);
    assert_eq!(sandbox.listed(), Value::Array(vec![]));
    assert!(!sandbox.cluster("kept").exists());
}

#[test]
fn two_ups_at_once_make_one_cluster() {
    let sandbox = Sandbox::new();
    let flags = up("raced", &["--base-port", "0", "--detach"]);
    let start = || {
        let mut command = sandbox.drumline(&flags);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut racers = [start(), start(), start()];
    for racer in &mut racers {
        let status = wait_for("up returns", || racer.try_wait().unwrap());
        assert!(status.success());
    }
    assert_eq!(processes_in(&sandbox.cluster("raced")).len(), 1);
    sandbox.ok(&["down", "--name", "raced"]);
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
    assert_eq!(sandbox.listed(), Value::Array(vec![]));
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
    let member = sandbox.info("moved").members.swap_remove(0);
    assert!(Path::new(&member.dbpath).starts_with(&elsewhere));
    sandbox.ok(&["down", "--name", "moved"]);
    assert_eq!(sandbox.listed()[0]["data"], folder);

    let outcome = sandbox.run(&up("other", &["--base-port", "0", "--data-dir", folder]));
    assert_eq!(outcome.status, 2);
    assert!(
        outcome.stderr.contains("holds the cluster 'moved'"),
        "{outcome:#?}"
    );
    assert_eq!(sandbox.listed().as_array().map(Vec::len), Some(1));

    fs::write(elsewhere.join("mine.txt"), "kept").unwrap();
    sandbox.ok(&["down", "--name", "moved", "--purge"]);
    assert_eq!(sandbox.listed(), Value::Array(vec![]));
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
            .args(["-t", "tmpfs", "-o", "size=256k", "drumline-test"])
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
        // Only a failed test leaves any.
        for pid in processes_in(&self.0) {
            kill(pid, Signal::KILL);
        }
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
