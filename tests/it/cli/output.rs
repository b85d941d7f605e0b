//! What comes out.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use rustix::process::Signal;

use super::one_line;
use super::server::{Reply, Server};
use crate::support::{Sandbox, kill};

#[test]
fn a_document_that_is_not_there_is_status_1() {
    let sandbox = Sandbox::new();
    let server = Server::start([Reply::new(200, r#"{"document":null}"#)]);
    let outcome = sandbox.run(&["get", "shop.orders", "-5", "--servers", &server.url]);
    assert_eq!((outcome.status, outcome.stdout.as_str()), (1, ""));
    assert_eq!(
        one_line(&outcome),
        "drumline: shop.orders has no document with _id -5"
    );
}

#[test]
fn output_has_three_forms() {
    let sandbox = Sandbox::new();
    let documents = r#"{"documents":[{"_id":1,"at":{"$date":{"$numberLong":"0"}}},{"_id":2}]}"#;
    let server = Server::start([Reply::new(200, documents)]);
    let find = |form| {
        sandbox
            .ok(&["find", "shop.orders", "--servers", &server.url, "-o", form])
            .stdout
    };
    assert_eq!(
        find("jsonl"),
        "{\"_id\":1,\"at\":{\"$date\":\"1970-01-01T00:00:00Z\"}}\n{\"_id\":2}\n"
    );
    assert_eq!(find("table"), "_id  at\n1    1970-01-01T00:00:00Z\n2\n");
    let value: serde_json::Value = serde_json::from_str(&find("json")).unwrap();
    assert_eq!(value.as_array().unwrap().len(), 2);
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let sandbox = Sandbox::new();
    let documents: Vec<_> = (0..20_000).map(|n| format!("{{\"_id\":{n}}}")).collect();
    let body = format!("{{\"documents\":[{}]}}", documents.join(","));
    let server = Server::start([Reply::new(200, &body)]);
    for form in ["jsonl", "json", "table"] {
        let mut command = sandbox
            .drumline(&["find", "shop.orders", "--servers", &server.url, "-o", form])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(command.stdout.take());
        let output = command.wait_with_output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{form}: {output:?}"
        );
    }
}

#[test]
fn the_log_is_followed_until_ctrl_c() {
    let sandbox = Sandbox::new();
    let page = |position| {
        Reply::new(
            200,
            &format!(r#"{{"entries":[{{"_id":{{"$numberLong":"{position}"}}}}]}}"#),
        )
    };
    let empty = || Reply::new(200, r#"{"entries":[]}"#);
    let server = Server::start([page(5), empty(), page(6), empty()]);
    let mut command = sandbox
        .drumline(&["log", "--from", "5", "--follow", "--servers", &server.url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(command.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "{\"_id\":5}");
    assert_eq!(lines.next().unwrap().unwrap(), "{\"_id\":6}");
    kill(command.id(), Signal::INT);
    assert!(command.wait().unwrap().success());
    let paths: Vec<_> = server
        .asked()
        .into_iter()
        .map(|asked| asked.path)
        .take(3)
        .collect();
    assert_eq!(
        paths,
        [
            "/log?from=5&limit=100",
            "/log?from=6&limit=100",
            "/log?from=6&limit=100"
        ]
    );
}

#[test]
fn a_bench_counts_what_was_acknowledged() {
    let sandbox = Sandbox::new();
    let server = Server::start([
        Reply::inserted(13),
        Reply::error(503, "no coordinator"),
        Reply::inserted(14),
    ]);
    let history = sandbox.path("history.jsonl");
    let outcome = sandbox.run(&[
        "bench",
        "--servers",
        &server.url,
        "--clients",
        "3",
        "--seconds",
        "1",
        "--keep",
        "--history",
        history.to_str().unwrap(),
    ]);
    assert_eq!(outcome.status, 3, "{outcome:#?}");
    let report: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(report["errors"]["HTTP 503"], 1);
    let history = fs::read_to_string(history).unwrap();
    let count = |outcome: &str| {
        history
            .matches(&format!("\"outcome\":\"{outcome}\""))
            .count()
    };
    assert_eq!(count("fail"), 1);
    // The first insert, which makes the collection, is in the history but not measured.
    assert_eq!(count("ok") as u64, report["inserts"].as_u64().unwrap() + 1);
}

#[test]
fn completions_and_manual_pages_are_made() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(
            sandbox
                .ok(&["completions", shell])
                .stdout
                .contains("drumline")
        );
    }
    let folder = sandbox.path("man/man1");
    sandbox.ok(&["man", folder.to_str().unwrap()]);
    assert!(
        fs::read_to_string(folder.join("drumline-insert.1"))
            .unwrap()
            .contains("request")
    );
}
