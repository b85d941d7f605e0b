//! Drills of a cluster of their own: what they tell, and that nothing is left.

use std::fs;

use drumline::drill::report::Confirmed;

use super::{drill, read};
use crate::faults::turn;
use crate::support::{Sandbox, processes_in};

#[test]
fn a_drill_tells_the_whole_story_and_leaves_only_its_report() {
    let _turn = turn();
    let sandbox = Sandbox::new();
    let folder = sandbox.path("report");
    let path = folder.to_str().unwrap();
    let outcome = drill(
        &sandbox,
        &[
            "coordinator-kill",
            "--seed",
            "7",
            "--report",
            path,
            "-o",
            "table",
        ],
    );
    assert_eq!(outcome.status, 0, "{outcome:#?}");
    assert!(outcome.stdout.starts_with("HOLDS"), "{outcome:#?}");

    let report = read(&folder);
    let run = &report.runs[0];
    assert_eq!(run.confirmation.verdict, Confirmed::Confirmed);
    assert!(run.victims[0].starts_with('n'), "{:?}", run.victims);
    assert!(run.counts.acknowledged > 100, "{:?}", run.counts);
    assert!(run.fault_from_ms < run.fault_to_ms && run.fault_to_ms < run.length_ms);
    let outage = &run.outage;
    let first = outage.first_ack_ms.unwrap();
    let parts = [
        outage.detect_ms,
        outage.elect_ms,
        outage.recover_ms,
        outage.answer_ms,
    ];
    let sum: f64 = parts.into_iter().flatten().sum();
    assert!((sum - first).abs() < 0.01, "{outage:?}");
    assert_eq!((run.members.len(), run.nodes.len()), (3, 3));
    // Killed, and back before the run ends.
    let victim = run.nodes.iter().find(|lane| lane.name == run.victims[0]);
    let states: Vec<_> = victim
        .unwrap()
        .spans
        .iter()
        .map(|s| s.state.as_str())
        .collect();
    assert!(
        states.contains(&"coordinator") && states.contains(&"down"),
        "{states:?}"
    );
    assert_ne!(states.last(), Some(&"down"), "{states:?}");
    assert!(report.command.contains("--seed 7"), "{}", report.command);

    let operations = fs::read_to_string(folder.join("history.jsonl")).unwrap();
    assert!(operations.lines().count() as u64 > run.counts.acknowledged);
    assert!(
        fs::read_to_string(folder.join("report.html"))
            .unwrap()
            .contains("<svg")
    );
    // What the drill checked can be checked again.
    let history = folder.join("history.jsonl");
    let log = folder.join("log.jsonl");
    sandbox.ok(&[
        "check",
        history.to_str().unwrap(),
        "--log",
        log.to_str().unwrap(),
    ]);
    assert_eq!(sandbox.listed(), serde_json::json!([]));
    assert!(processes_in(sandbox.folder()).is_empty());
}

#[test]
fn several_runs_have_a_folder_each_and_limits_decide() {
    let _turn = turn();
    let sandbox = Sandbox::new();
    let folder = sandbox.path("report");
    let path = folder.to_str().unwrap();
    let run = ["stepdown", "--runs", "2", "--report", path, "-o", "json"];
    let outcome = drill(
        &sandbox,
        &[&run[..], &["--slo", "first-ack=1ms,loss=0"]].concat(),
    );
    assert_eq!(outcome.status, 1, "{outcome:#?}");
    let report = read(&folder);
    assert_eq!(report.runs.len(), 2);
    assert_ne!(report.runs[0].seed, report.runs[1].seed);
    assert_eq!(report.distributions["first_ack_ms"].runs, 2);
    let limits = report
        .verdict
        .iter()
        .filter(|line| line.name.starts_with("slo "));
    let limits: Vec<_> = limits
        .map(|line| (line.name.as_str(), line.holds))
        .collect();
    assert_eq!(limits, [("slo first-ack=1ms", false), ("slo loss=0", true)]);
    for run in ["run-001", "run-002"] {
        assert!(folder.join(run).join("history.jsonl").exists());
    }
    let junit = fs::read_to_string(folder.join("junit.xml")).unwrap();
    assert!(junit.contains("<failure"), "{junit}");
    let printed: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(printed["runs"].as_array().unwrap().len(), 2);
    // Compared with itself nothing differs.
    let diff = sandbox.ok(&["drill", "diff", path, path]);
    assert!(
        diff.stdout.contains("The same drill on both sides."),
        "{diff:#?}"
    );
    assert!(diff.stdout.contains("No verdict changed."), "{diff:#?}");
}

#[test]
fn the_plain_driver_is_drilled_without_nodes() {
    let _turn = turn();
    let sandbox = Sandbox::new();
    let folder = sandbox.path("report");
    let path = folder.to_str().unwrap();
    let outcome = drill(&sandbox, &["stepdown", "--direct", "--report", path]);
    assert_eq!(outcome.status, 0, "{outcome:#?}");
    let report = read(&folder);
    assert!(report.direct && report.runs[0].nodes.is_empty());
    let history = fs::read_to_string(folder.join("history.jsonl")).unwrap();
    assert!(history.contains("\"stamp\":null") && !history.contains("\"stamp\":1"));
    assert!(!folder.join("log.jsonl").exists());
}

#[test]
fn an_isolated_member_is_silent_while_it_runs() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: it needs root");
        return;
    }
    let _turn = turn();
    let sandbox = Sandbox::new();
    let folder = sandbox.path("report");
    let path = folder.to_str().unwrap();
    // A secondary: its primary goes on at once, and so does the test.
    let outcome = drill(
        &sandbox,
        &["isolate", "--member", "other", "--report", path],
    );
    if outcome.stderr.contains("cannot be isolated here") {
        eprintln!("skipped: {}", outcome.stderr);
        return;
    }
    assert_eq!(outcome.status, 0, "{outcome:#?}");
    let run = &read(&folder).runs[0];
    let evidence = run.confirmation.evidence.join("\n");
    assert!(
        evidence.contains("is silent, and its process runs"),
        "{evidence}"
    );
    let rules = std::process::Command::new("iptables")
        .arg("-S")
        .output()
        .unwrap();
    let rules = String::from_utf8(rules.stdout).unwrap();
    assert!(!rules.contains("drumline-drill"), "{rules}");
}
