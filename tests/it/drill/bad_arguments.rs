//! What is refused before anything is started.

use crate::support::{Sandbox, processes_in};

/// What it tells users of the limits and the bounds.
const PAGE: &str = include_str!("../../../docs/drills.md");

#[test]
fn the_list_has_each_fault_with_what_it_does() {
    let sandbox = Sandbox::new();
    let list = sandbox.ok(&["drill", "list", "-o", "jsonl"]).stdout;
    let faults: Vec<(String, String)> = list
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap().to_owned();
            (text("fault"), text("what"))
        })
        .collect();
    let help = sandbox.ok(&["drill", "--help"]).stdout;
    let table = sandbox.ok(&["drill", "list"]).stdout;
    let wide = table.lines().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None);
    // A long line is broken.
    let table = table.split_whitespace().collect::<Vec<_>>().join(" ");
    for (fault, what) in &faults {
        assert!(
            !what.is_empty() && PAGE.contains(&format!("| `{fault}` |")),
            "{fault}"
        );
        assert!(
            table.contains(&format!(" {fault} {what}")),
            "{fault}: {table}"
        );
        assert!(help.contains(&format!("- {fault}:")), "{fault}");
    }
    let array = sandbox.ok(&["drill", "list", "-o", "json"]).stdout;
    let array: Vec<serde_json::Value> = serde_json::from_str(&array).unwrap();
    assert_eq!(array.len(), faults.len());
    assert!(faults.len() > 11);
}

#[test]
fn what_makes_no_sense_is_a_usage_error_and_starts_nothing() {
    let sandbox = Sandbox::new();
    for (arguments, why) in [
        (["drill", "nonsense"].as_slice(), "possible values"),
        (&["drill", "kill", "--runs", "0"], "--runs"),
        (&["drill", "kill", "--rate", "x"], "--rate"),
        (&["drill", "kill", "--slo", "outage=soon"], "is not a time"),
        (
            &["drill", "kill", "--slo", "nothing=1"],
            "cannot be limited",
        ),
        (
            &["drill", "handoff", "--direct"],
            "--direct does without nodes",
        ),
        (
            &["drill", "stepdown", "--member", "other"],
            "chooses its victims itself",
        ),
        (
            &["drill", "kill", "--fresh", "--name", "x"],
            "cannot be used with",
        ),
        (
            &["drill", "kill", "--compose", "x", "--fresh"],
            "cannot be used with",
        ),
        (
            &["drill", "kill", "--servers", "http://127.0.0.1:1"],
            "must reach the processes",
        ),
    ] {
        let outcome = sandbox.run(arguments);
        assert_eq!(outcome.status, 2, "{arguments:?}: {outcome:#?}");
        assert!(outcome.stderr.contains(why), "{arguments:?}: {outcome:#?}");
        assert!(outcome.stdout.is_empty());
    }
    let bare = sandbox.run(&["drill"]);
    assert_eq!(bare.status, 2, "{bare:#?}");
    let absent = ["drill", "kill", "--name", "absent"];
    for confirmed in [&[][..], &["--confirm", "absent"]] {
        let absent = sandbox.run(&[&absent[..], confirmed].concat());
        assert_eq!(absent.status, 1, "{absent:#?}");
        assert!(absent.stderr.contains("does not run"), "{absent:#?}");
    }
    let meant = sandbox.run(&["drill", "kill", "--confirm", "absent"]);
    assert_eq!(meant.status, 1, "{meant:#?}");
    assert!(meant.stderr.contains("names 'absent'"), "{meant:#?}");
    assert!(processes_in(sandbox.folder()).is_empty());
}

#[test]
fn a_flag_chooses_before_the_environment() {
    let sandbox = Sandbox::new().set("DRUMLINE_MONGODB", "mongodb://127.0.0.1:1");
    let named = sandbox.run(&["drill", "stepdown", "--servers", "http://127.0.0.1:1"]);
    assert_eq!(named.status, 2, "{named:#?}");
    assert!(
        named.stderr.contains("must reach the processes"),
        "{named:#?}"
    );
}

#[test]
fn every_bound_is_kept_and_told() {
    let sandbox = Sandbox::new();
    for (arguments, why, told) in [
        (
            ["--runs", "1001"].as_slice(),
            "from 1 to 1000",
            "`--runs` | 1,000",
        ),
        (
            &["--seconds", "1801"],
            "from 1 to 1800",
            "`--seconds` | 1,800",
        ),
        (
            &["--clients", "1001"],
            "from 1 to 1000",
            "`--clients` | 1,000",
        ),
        (&["--rate", "20001"], "from 1 to 20000", "`--rate` | 20,000"),
        (
            &["--runs", "1000", "--seconds", "37"],
            "--runs times --seconds is 36000 at most",
            "`--runs` times `--seconds` | 36,000",
        ),
        (
            &["--rate", "20000", "--seconds", "501"],
            "--rate times --seconds is 10000000 at most",
            "`--rate` times `--seconds` | 10,000,000",
        ),
    ] {
        let outcome = sandbox.run(&[&["drill", "kill"], arguments].concat());
        assert_eq!(outcome.status, 2, "{arguments:?}: {outcome:#?}");
        assert!(outcome.stderr.contains(why), "{arguments:?}: {outcome:#?}");
        assert!(PAGE.contains(&format!("\n| {told} |")), "no row {told:?}");
    }
}

/// The program tells its keys to who asks for another.
#[test]
fn every_key_of_a_limit_is_told() {
    let asked = Sandbox::new().run(&["drill", "kill", "--slo", "nothing=1"]);
    let (_, keys) = asked.stderr.split_once("one of ").unwrap();
    let rows: Vec<_> = PAGE
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    for key in keys.lines().next().unwrap().split(", ") {
        let shown = format!("`{key}`");
        assert!(
            rows.iter().any(|row| row.contains(&shown)),
            "no row of {key}"
        );
    }
}
