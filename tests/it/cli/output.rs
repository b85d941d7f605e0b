//! What comes out.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;

use super::one_line;
use super::server::{Reply, Server};
use crate::support::{Sandbox, kill, wait_until};

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
    let stream = |positions: &[i64]| {
        let event = |at| format!("id: {at}\ndata: {{\"_id\":{{\"$numberLong\":\"{at}\"}}}}\n\n");
        let events: String = positions.iter().map(event).collect();
        Reply::new(200, &events).with("content-type", "text/event-stream")
    };
    // Each ends, so the command asks for the next, which may begin too early.
    let busy = || Reply::error(429, "too many");
    let server = Server::start([stream(&[5]), busy(), stream(&[5, 6, 7]), stream(&[])]);
    let mut command = sandbox
        .drumline(&["log", "--from", "5", "--follow", "--servers", &server.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(command.stdout.take().unwrap()).lines();
    for expected in ["{\"_id\":5}", "{\"_id\":6}", "{\"_id\":7}"] {
        assert_eq!(lines.next().unwrap().unwrap(), expected);
    }
    wait_until("it asks again", || server.asked().len() > 3);
    kill(command.id(), Signal::INT);
    let output = command.wait_with_output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.starts_with("drumline: waiting for a server: http"),
        "{said}"
    );
    let asked: Vec<_> = server.asked().into_iter().take(4).collect();
    for asked in &asked {
        assert_eq!(asked.path, "/log?from=5");
        assert!(asked.headers["accept"].starts_with("text/event-stream"));
    }
    let resumed = asked.iter().map(|asked| asked.headers.get("last-event-id"));
    let resumed: Vec<_> = resumed.map(|id| id.map(String::as_str)).collect();
    assert_eq!(resumed, [None, Some("5"), Some("5"), Some("7")]);
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
fn completions_offer_what_is_for_people() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = sandbox.ok(&["completions", shell]).stdout;
        for offered in ["insert", "data-dir", "diff"] {
            assert!(script.contains(offered), "{shell}: {offered}");
        }
        for internal in [
            "guard",
            "initiate",
            "exit-with-parent",
            "can-be-cut",
            "--background",
            "-l background",
            "--rank",
            "-l rank",
        ] {
            assert!(!script.contains(internal), "{shell} offers {internal}");
        }
    }
}

#[test]
fn manual_pages_tell_examples_statuses_variables_and_files() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("man/man1");
    sandbox.ok(&["man", folder.to_str().unwrap()]);
    let read = |name: &str| {
        let page = fs::read_to_string(folder.join(format!("{name}.1"))).unwrap();
        page.replace("\\-", "-")
    };
    for name in [
        "drumline",
        "drumline-insert",
        "drumline-serve",
        "drumline-up",
    ] {
        let page = read(name);
        for title in ["EXAMPLES", "EXIT STATUS", "ENVIRONMENT", "FILES"] {
            let section = format!(".SH \"{title}\"");
            assert!(page.contains(&section), "{name}: {title}");
        }
        assert!(page.contains(&format!("\\fB{}", name.replace('-', " "))));
    }
    assert!(!folder.join("drumline-guard.1").exists());
    assert!(!read("drumline-up").contains("can-be-cut"));
    let page = read("drumline");
    let section = page.split(".SH \"ENVIRONMENT\"").nth(1).unwrap();
    let section = section.split(".SH").next().unwrap();
    let read = variables_that_are_read();
    assert!(read.len() > 12, "{read:?}");
    let names: BTreeSet<String> = section
        .lines()
        .filter(|line| line.starts_with("\\fB"))
        .flat_map(|line| line[3..].split("\\fR").next().unwrap().split(", "))
        .map(str::to_owned)
        .collect();
    assert_eq!(names, read, "the page and what the program reads");
}

/// The names in the calls of the readers of the environment, in all of the program's text.
fn variables_that_are_read() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            for call in [
                "setting(\"",
                "env_path(\"",
                "from_variable(\"",
                "user_dir(\"",
                "user_folder(\"",
            ] {
                for after in text.split(call).skip(1) {
                    names.insert(after.split('"').next().unwrap().to_owned());
                }
            }
        }
    }
    // Other texts are names of files. What every program reads, and what the tests of the tests set,
    // is on no page.
    let is_variable = |name: &str| name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    names.retain(|name| is_variable(name));
    names.retain(|name| name != "PATH" && name != "DRUMLINE_MUTANT");
    names
}
