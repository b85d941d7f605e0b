//! Drills of a cluster of their own: what they tell, and that nothing is left.

use std::fs;
use std::io::{self, Write as _};
use std::process::Command;

use drumline::config::env_path;
use drumline::drill::report::{Confirmed, Report, Run};

use rustix::process::Signal;

use super::{drill, until_the_fault};
use crate::faults::turn;
use crate::lifetime::supervisor_of;
use crate::support::drills::read;
use crate::support::{Sandbox, kill, processes_in, wait_until};

/// Drills a cluster of its own. All must hold.
fn holds(arguments: &[&str]) -> Report {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("report");
    let printed = ["--report", folder.to_str().unwrap(), "-o", "table"];
    let outcome = drill(&sandbox, &[arguments, &printed].concat());
    assert_eq!(outcome.status, 0, "{outcome:#?}");
    assert!(outcome.stdout.starts_with("HOLDS"), "{outcome:#?}");
    read(&folder)
}

fn evidence(run: &Run) -> String {
    run.confirmation.evidence.join("\n")
}

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
    let last = outcome.stdout.trim_end().rsplit("\n\n").next().unwrap();
    assert!(
        outcome.stdout.starts_with(last),
        "the verdict is last too: {last}"
    );

    let report = read(&folder);
    let run = &report.runs[0];
    let calm = run.calm.as_ref().unwrap();
    assert_eq!(calm.carried, !last.contains("was already late"), "{calm:?}");
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
    let (outage_at, stall_at) = (outage.outage_at_ms.unwrap(), outage.stall_at_ms.unwrap());
    assert!(
        run.fault_from_ms <= outage_at && outage_at < stall_at,
        "{outage:?}"
    );
    assert!(stall_at >= run.fault_to_ms, "{outage:?}");
    assert!(
        stall_at + outage.stall_ms.unwrap() <= run.length_ms,
        "{outage:?}"
    );
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
fn an_isolated_member_is_silent_while_it_runs_and_joined_however_the_drill_ends() {
    let _turn = turn();
    let sandbox = Sandbox::new();
    let folder = sandbox.path("report");
    let path = folder.to_str().unwrap();
    let before = rules();
    // A secondary: its primary goes on at once, and so does the test.
    let outcome = drill(
        &sandbox,
        &["isolate", "--member", "other", "--report", path],
    );
    if outcome.stderr.contains("cannot be isolated here") {
        skipped(&outcome.stderr);
        return;
    }
    assert_eq!(outcome.status, 0, "{outcome:#?}");
    let evidence = evidence(&read(&folder).runs[0]);
    assert!(
        evidence.contains("is silent, its process runs, and what it sends is dropped"),
        "{evidence}"
    );
    assert_eq!(rules(), before);
    a_cut_that_nobody_lived_to_take_back_is_swept();
}

/// The rules of the packet filter for what this machine receives and sends; none where there is no filter.
fn rules() -> Vec<String> {
    let list = |chain: &str| {
        let listed = Command::new("iptables").args(["-S", chain]).output();
        let listed = listed.map_or(Vec::new(), |listed| listed.stdout);
        String::from_utf8(listed).unwrap()
    };
    let rules = [list("INPUT"), list("OUTPUT")].concat();
    rules.lines().map(str::to_owned).collect()
}

/// The drill and its supervisor are killed while a member is cut off.
fn a_cut_that_nobody_lived_to_take_back_is_swept() {
    let sandbox = Sandbox::new();
    let before = rules();
    let mut drill = until_the_fault(&sandbox, &["isolate"]);
    wait_until("a member is cut off", || rules().len() == before.len() + 3);
    let name = sandbox.listed()[0]["name"].as_str().unwrap().to_owned();
    let supervisor = supervisor_of(&sandbox.cluster(&name));
    // Neither may act on the other's end.
    for signal in [Signal::STOP, Signal::KILL] {
        kill(drill.id(), signal);
        kill(supervisor, signal);
    }
    drill.wait().unwrap();
    wait_until("no process is left", || {
        processes_in(sandbox.folder()).is_empty()
    });
    assert_eq!(rules().len(), before.len() + 3);
    sandbox.ok(&["down", "--name", &name]);
    assert_eq!(rules(), before);
    assert_eq!(sandbox.listed(), serde_json::json!([]));
}

/// Says that this machine cannot cut a member off; with `DRUMLINE_REQUIRE_CUT=1` that fails the test.
fn skipped(why: &str) {
    let required = env_path("DRUMLINE_REQUIRE_CUT").is_some();
    assert!(!required, "DRUMLINE_REQUIRE_CUT is set, but {why}");
    // Not by `eprintln!`: a skipped test must not look like one that passed.
    let _ = writeln!(io::stderr(), "skipped, nothing can be cut here: {why}");
}

#[test]
fn without_a_majority_nothing_is_acknowledged() {
    let _turn = turn();
    let report = holds(&["majority-loss"]);
    let run = &report.runs[0];
    for name in [
        "no acknowledgement without a majority",
        "writes were asked for without a majority",
    ] {
        let check = run.checks.iter().find(|check| check.name == name);
        assert!(check.is_some_and(|check| check.holds), "{name}: {check:?}");
    }
    let told = evidence(run);
    let primary = |host: &str| told.starts_with(&format!("before: primary {host} in"));
    assert_eq!(run.victims.len(), 2);
    assert!(!run.victims.iter().any(|host| primary(host)), "{told}");
    // Longer than MongoDB's election time-out: the primary steps down meanwhile.
    assert!(run.fault_to_ms - run.fault_from_ms >= 12_000.0, "{told}");
    assert!(run.outage.from_its_end && run.outage.first_ack_ms.is_some());
}

#[test]
fn all_members_are_restarted_and_the_primary_last() {
    let _turn = turn();
    let report = holds(&["restart-rolling"]);
    let run = &report.runs[0];
    let told = evidence(run);
    let last = run.victims.last().unwrap();
    let begin = format!("before: primary {last} in");
    assert!(told.starts_with(&begin), "{last} was last: {told}");
    for member in &run.members {
        let restarted = format!("{} was process ", member.name);
        assert!(told.contains(&restarted), "{restarted:?}: {told}");
    }
    assert_eq!(run.members.len(), 3);
}

#[test]
fn a_random_drill_tells_what_it_has_drawn() {
    let _turn = turn();
    // This seed draws those that no other test drills.
    let report = holds(&["random", "--seed", "1388", "--runs", "3"]);
    let told: Vec<_> = report.runs.iter().map(evidence).collect();
    for (told, fault) in told.iter().zip([
        "drawn: stepdown-force\n",
        "drawn: coordinator-and-primary\n",
        "drawn: coordinator-freeze\n",
    ]) {
        assert!(told.starts_with(fault), "{fault:?}: {told}");
    }
    let [stepdown, both, freeze] = report.runs.as_slice() else {
        panic!("{} runs", report.runs.len())
    };
    assert!(told[0].contains("is no primary any more"), "{}", told[0]);
    assert_eq!(stepdown.victims.len(), 1);
    let [node, member] = both.victims.as_slice() else {
        panic!("{:?}", both.victims)
    };
    for victim in [node, member] {
        let gone = |when: &str| {
            let begin = format!("{when}: {victim}, process ");
            let mut lines = told[1].lines();
            lines.any(|line| line.starts_with(&begin) && line.ends_with("is gone"))
        };
        assert!(gone("right after it") && gone("at its end"), "{}", told[1]);
    }
    assert!(both.nodes.iter().any(|lane| lane.name == *node));
    assert!(both.members.iter().any(|lane| lane.name == *member));
    assert!(told[2].contains("is frozen"), "{}", told[2]);
    assert!(
        freeze
            .nodes
            .iter()
            .any(|lane| lane.name == freeze.victims[0])
    );
}
