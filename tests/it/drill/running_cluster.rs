//! Drills of a cluster that somebody else has started: only with its name, and it is well again after it.

use std::time::{Duration, Instant};

use bson::doc;
use rustix::process::Signal;
use tokio::runtime::Runtime;

use super::{drill, until_the_fault};
use crate::faults::turn;
use crate::support::drills::{read, until_it_says};
use crate::support::proxy::direct;
use crate::support::{Cluster, alive, kill, state, wait_for, wait_until};

#[test]
fn a_running_cluster_is_harmed_only_with_its_name_and_given_back_well() {
    let _turn = turn();
    let cluster = Cluster::start(&[]);
    let sandbox = cluster.sandbox();
    let pids = |cluster: &Cluster| -> Vec<u32> {
        (0..3)
            .flat_map(|index| [cluster.node_pid(index), cluster.member_pid(index)])
            .collect()
    };
    let before = pids(&cluster);
    let refused = drill(sandbox, &["kill"]);
    assert_eq!(refused.status, 1, "{refused:#?}");
    assert!(refused.stderr.contains("--confirm test"), "{refused:#?}");
    let other = drill(sandbox, &["kill", "--confirm", "other"]);
    assert_eq!(other.status, 1, "{other:#?}");
    assert!(other.stderr.contains("names 'other'"), "{other:#?}");
    for (arguments, why) in [
        (
            ["isolate", "--confirm", "test"].as_slice(),
            "only a cluster that was started for it",
        ),
        (
            &["kill", "--direct", "--confirm", "test"],
            "--direct measures MongoDB without Drumline",
        ),
    ] {
        let refused = drill(sandbox, arguments);
        assert_eq!(refused.status, 1, "{refused:#?}");
        assert!(refused.stderr.contains(why), "{refused:#?}");
    }
    assert_eq!(pids(&cluster), before, "nothing was harmed");

    let folder = sandbox.path("report");
    let path = folder.to_str().unwrap();
    let handoff = drill(sandbox, &["handoff", "--confirm", "test", "--report", path]);
    assert_eq!(handoff.status, 0, "{handoff:#?}");
    let victim = read(&folder).runs[0].victims[0].clone();
    let index = cluster
        .info
        .nodes
        .iter()
        .position(|node| node.name == victim)
        .unwrap();
    assert_ne!(
        cluster.node_pid(index),
        before[2 * index],
        "it was started again"
    );
    assert_eq!(sandbox.run(&["status", "--name", Cluster::NAME]).status, 0);
    assert_eq!(left_by_the_load(&cluster), [""; 0]);
}

/// The collections of the load. The log tells that there was one.
fn left_by_the_load(cluster: &Cluster) -> Vec<String> {
    let log = cluster
        .sandbox()
        .ok(&["log", "--name", Cluster::NAME, "-o", "jsonl"]);
    assert!(log.stdout.contains("\"ns\":\"drill.run_"));
    Runtime::new().unwrap().block_on(async {
        let uri = &cluster.info.mongodb_uri;
        let client = mongodb::Client::with_uri_str(uri).await.unwrap();
        let database = client.database("drill");
        database.list_collection_names().await.unwrap()
    })
}

#[test]
fn a_fault_that_did_not_last_is_no_pass() {
    let _turn = turn();
    let cluster = Cluster::start(&[]);
    let pids: Vec<_> = (0..3).map(|index| cluster.member_pid(index)).collect();
    let waker = std::thread::spawn(move || {
        let frozen = wait_for("a member is frozen", || {
            pids.iter().copied().find(|pid| state(*pid) == Some('T'))
        });
        // Somebody wakes it while the drill believes that it sleeps.
        kill(frozen, Signal::CONT);
    });
    let sandbox = cluster.sandbox();
    let folder = sandbox.path("report");
    let path = folder.to_str().unwrap();
    let outcome = drill(
        sandbox,
        &[
            "freeze",
            "--member",
            "other",
            "--confirm",
            "test",
            "--report",
            path,
        ],
    );
    waker.join().unwrap();
    assert_eq!(outcome.status, 1, "{outcome:#?}");
    let evidence = read(&folder).runs[0].confirmation.evidence.join("\n");
    assert!(evidence.contains("and not frozen"), "{evidence}");
    wait_until("all is well", || {
        sandbox.run(&["status", "--name", Cluster::NAME]).status == 0
    });
}

#[test]
fn a_killed_member_that_came_back_too_early_is_no_pass() {
    let _turn = turn();
    let cluster = Cluster::start(&[]);
    let pids: Vec<_> = (0..3).map(|index| cluster.member_pid(index)).collect();
    let holds = cluster.folder().join("hold");
    let helper = std::thread::spawn(move || {
        wait_until("two members are gone", || {
            pids.iter().filter(|pid| !alive(**pid)).count() == 2
        });
        // Somebody has them started again while the drill believes that they are away.
        for member in ["m1", "m2", "m3"] {
            let _ = std::fs::remove_file(holds.join(member));
        }
    });
    let sandbox = cluster.sandbox();
    let folder = sandbox.path("report");
    let path = folder.to_str().unwrap();
    let arguments = ["majority-loss", "--confirm", "test", "--report", path];
    let outcome = drill(sandbox, &arguments);
    helper.join().unwrap();
    assert_eq!(outcome.status, 1, "{outcome:#?}");
    let evidence = read(&folder).runs[0].confirmation.evidence.join("\n");
    assert!(evidence.contains("runs again, as process"), "{evidence}");
}

#[test]
fn ctrl_c_takes_the_fault_back_and_until_then_no_other_drill_begins() {
    let _turn = turn();
    let cluster = Cluster::start(&[]);
    let sandbox = cluster.sandbox();
    let pids: Vec<_> = (0..3).map(|index| cluster.member_pid(index)).collect();
    let frozen = || pids.iter().any(|pid| state(*pid) == Some('T'));
    let arguments = ["freeze", "--member", "other", "--confirm", "test"];
    // The fault comes after 5 s: long after the other drill was refused.
    let long = ["--seconds", "20", "--rate", "100"];
    let mut first = until_it_says("load", sandbox, &[&arguments[..], &long].concat());
    let second = drill(sandbox, &["kill", "--confirm", "test"]);
    assert_eq!(second.status, 1, "{second:#?}");
    assert!(
        second.stderr.contains("another drill harms the cluster"),
        "{second:#?}"
    );
    wait_until("a member is frozen", frozen);
    kill(first.id(), Signal::INT);
    let status = wait_for("the drill ends", || first.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    assert!(!frozen());
    assert!(pids.iter().all(|pid| alive(*pid)), "nothing was killed");
    assert_eq!(left_by_the_load(&cluster), [""; 0]);
}

/// MongoDB keeps a member that a drill made step down from elections for 30 s.
const ELECTABLE_MAX: Duration = Duration::from_secs(20);

#[test]
fn after_ctrl_c_a_member_that_stepped_down_may_be_elected_at_once() {
    let _turn = turn();
    let cluster = Cluster::start(&[]);
    let runtime = Runtime::new().unwrap();
    let primary = runtime.block_on(cluster.primary_pid());
    let members = &cluster.info.members;
    let host = &members.iter().find(|m| m.pid == primary).unwrap().host;
    let uri = direct(&cluster.info.mongodb_uri, host);
    let admin = runtime.block_on(async {
        let client = mongodb::Client::with_uri_str(&uri).await.unwrap();
        client.database("admin")
    });
    let ask = |command| runtime.block_on(async { admin.run_command(command).await });
    let mut first = until_the_fault(cluster.sandbox(), &["stepdown", "--confirm", "test"]);
    wait_until("the primary has stepped down", || {
        let hello = ask(doc! {"hello": 1});
        hello.is_ok_and(|hello| !hello.get_bool("isWritablePrimary").unwrap())
    });
    let stepped_down = Instant::now();
    kill(first.id(), Signal::INT);
    let status = wait_for("the drill ends", || first.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    // Before it has caught up with the new primary nobody votes for it.
    wait_until("it is elected", || ask(doc! {"replSetStepUp": 1}).is_ok());
    assert!(stepped_down.elapsed() < ELECTABLE_MAX, "it had to wait");
}

#[test]
fn a_replica_set_by_its_uri_steps_down_and_nothing_else() {
    let _turn = turn();
    let cluster = Cluster::start(&["--nodes", "0"]);
    let sandbox = cluster.sandbox();
    let uri = sandbox.path("uri");
    std::fs::write(&uri, &cluster.info.mongodb_uri).unwrap();
    let uri = uri.to_str().unwrap();
    let hosts: Vec<_> = cluster
        .info
        .members
        .iter()
        .map(|m| m.host.as_str())
        .collect();
    let hosts = hosts.join(",");
    let refused = drill(
        sandbox,
        &["kill", "--mongodb-file", uri, "--confirm", &hosts],
    );
    assert_eq!(refused.status, 2, "{refused:#?}");
    let asked = drill(sandbox, &["stepdown", "--mongodb-file", uri]);
    assert_eq!(asked.status, 1, "{asked:#?}");
    assert!(
        asked.stderr.contains(&format!("--confirm {hosts}")),
        "{asked:#?}"
    );
    let folder = sandbox.path("report");
    let path = folder.to_str().unwrap();
    let outcome = drill(
        sandbox,
        &[
            "stepdown",
            "--mongodb-file",
            uri,
            "--confirm",
            &hosts,
            "--report",
            path,
        ],
    );
    assert_eq!(outcome.status, 0, "{outcome:#?}");
    let text = std::fs::read_to_string(folder.join("report.json")).unwrap();
    let password = cluster.info.mongodb_uri.split([':', '@']).nth(2).unwrap();
    assert!(!text.contains(password) && !outcome.stderr.contains(password));
}
