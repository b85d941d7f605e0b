//! `drumline check` on histories of a real cluster.

use std::fs::{self, File};
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Cluster, Sandbox};

/// A history of the bench and the log after it, in the sandbox of the cluster.
fn recorded(cluster: &Cluster, bench_flags: &[&str]) -> (String, String) {
    let sandbox = cluster.sandbox();
    let name = |kind: &str| {
        let path = sandbox.path(&format!("{kind}-{}.jsonl", bench_flags.len()));
        path.to_str().unwrap().to_owned()
    };
    let (history, log) = (name("history"), name("log"));
    let mut bench = vec!["bench", "--seconds", "1", "--clients", "8"];
    bench.extend(["--history", &history]);
    bench.extend(bench_flags);
    sandbox.ok(&bench);
    fs::write(&log, sandbox.ok(&["log", "-o", "jsonl"]).stdout).unwrap();
    (history, log)
}

fn rule<'a>(report: &'a Value, part: &str) -> &'a Value {
    let rules = report["rules"].as_array().unwrap();
    let named = |rule: &&Value| rule["name"].as_str().unwrap().contains(part);
    rules.iter().find(named).unwrap()
}

#[test]
fn a_real_history_holds_and_a_forged_one_does_not() {
    let cluster = Cluster::start(&Cluster::ONE_NODE);
    let sandbox = cluster.sandbox();
    let (history, log) = recorded(&cluster, &["--keep"]);
    let checked = sandbox.ok(&["check", &history, "--log", &log, "-o", "json"]);
    let report: Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!(report["holds"], true, "{report:#}");
    assert_eq!(report["not_checked"].as_array().unwrap().len(), 0);
    assert!(rule(&report, "(I4)")["checked"].as_bool().unwrap());

    // Without a log it says what it did not look at.
    let alone = sandbox.ok(&["check", &history]).stdout;
    assert!(alone.contains("not checked: without a log"), "{alone}");

    // An entry of the log is gone, as if the write had been rolled back.
    let text = fs::read_to_string(&history).unwrap();
    let operation: Value = serde_json::from_str(text.lines().nth(3).unwrap()).unwrap();
    let id = operation["request"].as_str().unwrap();
    let forged = sandbox.path("forged.jsonl");
    let forged = forged.to_str().unwrap();
    fs::write(
        forged,
        fs::read_to_string(&log).unwrap().replace(id, "other"),
    )
    .unwrap();
    let found = sandbox.run(&["check", &history, "--log", forged]);
    assert_eq!(found.status, 5, "{found:#?}");
    assert!(
        found.stdout.contains("line 4 was acknowledged"),
        "{found:#?}"
    );
    assert!(found.stdout.contains("4: {\"process\":"), "{found:#?}");

    // A cleaned-up collection is no violation: it happened after the history.
    let (history, log) = recorded(&cluster, &[]);
    sandbox.ok(&["check", &history, "--log", &log]);
}

#[test]
fn a_history_of_the_plain_driver_is_checked_without_stamps() {
    let cluster = Cluster::start(&Cluster::ONE_NODE);
    let sandbox = cluster.sandbox();
    let uri = sandbox.path("uri");
    fs::write(&uri, &cluster.info.mongodb_uri).unwrap();
    let flags = ["--direct", "--mongodb-file", uri.to_str().unwrap()];
    let (history, _) = recorded(&cluster, &flags);
    let stamped = sandbox.run(&["check", &history]);
    assert_eq!(
        stamped.status, 5,
        "a missing stamp is an alarm: {stamped:#?}"
    );
    let plain = sandbox.ok(&["check", &history, "--unstamped"]);
    assert!(
        plain.stdout.contains("not checked: without stamps"),
        "{plain:#?}"
    );
}

#[test]
fn what_proves_nothing_is_no_pass() {
    let sandbox = Sandbox::new();
    let path = |name: &str| sandbox.path(name).to_str().unwrap().to_owned();
    let run = |arguments: &[&str], status: i32, part: &str| {
        let outcome = sandbox.run(arguments);
        assert_eq!(outcome.status, status, "{arguments:?}: {outcome:#?}");
        assert!(outcome.stderr.contains(part), "{arguments:?}: {outcome:#?}");
    };
    let (empty, broken) = (path("empty"), path("broken"));
    fs::write(&empty, "").unwrap();
    fs::write(&broken, "\n{\"process\": -1}\n").unwrap();
    run(&["check", &empty], 1, "the history is empty");
    run(&["check", &broken], 1, "line 2 of the history");
    run(&["check", &path("absent")], 1, "cannot read");
    let (folder, text) = (path("folder"), path("text"));
    fs::create_dir(&folder).unwrap();
    fs::write(&text, "no history\n").unwrap();
    let unreadable = format!("cannot read {folder}: ");
    run(&["check", &folder], 1, &unreadable);
    run(&["check", &empty, "--log", &folder], 1, &unreadable);
    run(&["check", &text], 1, "line 1 of the history: expected");
    run(&["check", "-"], 1, "the history is empty");
    run(
        &["check", "-", "--export", "elle", &path("x")],
        2,
        "give a file",
    );
    run(
        &["check", &empty, "--unstamped", "--log", &empty],
        2,
        "--log",
    );
    run(
        &["check", &empty, "--export", "xml", &path("x")],
        2,
        "porcupine and elle",
    );
}

const HISTORY: &str = r#"{"process":0,"request":"a","op":"insert","key":1,"value":5,"invoke_ns":10,"return_ns":30,"outcome":"ok","result":null,"stamp":2,"position":2}
{"process":1,"request":null,"op":"read","key":1,"value":null,"invoke_ns":50,"return_ns":60,"outcome":"ok","result":5,"stamp":2,"position":2}
"#;

#[test]
fn a_cut_last_line_is_left_out_of_the_check_and_of_the_export() {
    let sandbox = Sandbox::new();
    let (history, exported) = (sandbox.path("history.jsonl"), sandbox.path("exported"));
    fs::write(&history, &HISTORY[..HISTORY.len() - 20]).unwrap();
    let (history, file) = (history.to_str().unwrap(), exported.to_str().unwrap());
    let alone = sandbox.ok(&["check", history]);
    assert!(alone.stdout.contains("(2) is cut off"), "{alone:#?}");
    let both = sandbox.ok(&["check", history, "--export", "porcupine", file]);
    assert_eq!(both.stdout, alone.stdout);
    let exported: Value = serde_json::from_slice(&fs::read(&exported).unwrap()).unwrap();
    assert_eq!(exported.as_array().unwrap().len(), 1);
}

#[test]
fn what_flows_is_read_once() {
    let sandbox = Sandbox::new();
    let history = sandbox.path("history.jsonl");
    fs::write(&history, HISTORY.replace("\"result\":5", "\"result\":6")).unwrap();
    // To open the pipe again would wait for one who writes to it, for ever.
    let pipe = sandbox.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let mut check = sandbox.drumline(&["check", pipe.to_str().unwrap()]);
    let writer = std::thread::spawn(move || fs::copy(history, pipe));
    let output = check.output().unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
}

#[test]
fn stdin_is_read_and_exports_are_written() {
    let sandbox = Sandbox::new();
    let history = sandbox.path("history.jsonl");
    fs::write(&history, HISTORY).unwrap();
    let mut check = sandbox.drumline(&["check", "-"]);
    check.stdin(Stdio::from(File::open(&history).unwrap()));
    let output = check.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    for form in ["porcupine", "elle"] {
        let out = sandbox.path(form);
        let arguments = ["check", history.to_str().unwrap(), "--export", form];
        sandbox.ok(&[&arguments[..], &[out.to_str().unwrap()]].concat());
        let exported: Value = serde_json::from_slice(&fs::read(out).unwrap()).unwrap();
        let expected = if form == "elle" { 4 } else { 2 };
        assert_eq!(exported.as_array().unwrap().len(), expected);
    }
}
