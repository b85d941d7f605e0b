//! Drills of a cluster that somebody else has started: only with its name, and it is well again after it.

use rustix::process::Signal;

use super::{drill, read};
use crate::faults::turn;
use crate::support::{Cluster, kill, wait_for, wait_until};

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
    // What the load wrote is removed.
    let found = sandbox.ok(&["log", "--name", Cluster::NAME, "-o", "jsonl"]);
    let namespace = found
        .stdout
        .split("\"ns\":\"")
        .find(|part| part.starts_with("drill.run_"));
    let namespace = namespace.unwrap().split('"').next().unwrap();
    let left = sandbox.ok(&["find", namespace, "--name", Cluster::NAME, "-o", "jsonl"]);
    assert_eq!(left.stdout, "");
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

fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
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
