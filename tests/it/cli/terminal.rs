//! What a person sees in a terminal of 80 columns.

use super::server::{Reply, Server};
use crate::support::{Cluster, Sandbox, on_terminal};

const ID: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
const DOCUMENT: &str = r#"{"_id": {"$binary": {"base64": "a6e4EJ2tEdGAtADAT9QwyA==", "subType": "04"}},
    "qty": 1, "QTY": 2, "item": "太鼓", "owner": "a\u202eb\u009b2Jc"}"#;

fn found() -> Server {
    let all = format!(r#"{{"documents":[{DOCUMENT},{{"_id":1,"qty":7,"item":"drum"}}]}}"#);
    Server::start([Reply::new(200, &all)])
}

#[test]
fn a_table_says_what_the_documents_hold() {
    let sandbox = Sandbox::new();
    let server = found();
    let line = format!("drumline find shop.orders --servers {}", server.url);
    let shown = on_terminal(&sandbox, &line).stdout;
    let expected = format!(
        "\
_id                                   qty  QTY  item  owner
{ID}  1    2    太鼓  a\\u{{202e}}b\\u{{9b}}2Jc
1                                     7         drum
"
    );
    assert_eq!(shown, expected);
}

#[test]
fn no_form_of_output_steers_a_terminal_and_a_pipe_gets_each_byte() {
    let sandbox = Sandbox::new();
    let one = format!(r#"{{"document":{DOCUMENT}}}"#);
    for (command, form) in [
        ("get shop.orders 1", ""),
        ("get shop.orders 1", "-o json"),
        ("get shop.orders 1", "-o jsonl"),
        ("find shop.orders", "-o table"),
        ("find shop.orders", "-o json"),
        ("find shop.orders", "-o jsonl"),
    ] {
        let server = match command.starts_with("get") {
            true => Server::start([Reply::new(200, &one)]),
            false => found(),
        };
        let line = format!("drumline {command} --servers {} {form}", server.url);
        let shown = on_terminal(&sandbox, &line).stdout;
        assert!(
            !shown.contains(['\u{202e}', '\u{9b}']) && shown.contains("202e"),
            "{line}: {shown}"
        );
        let is_uuid = shown.contains(ID);
        assert_eq!(is_uuid, !form.contains("json"), "{line}: {shown}");
    }
    let server = Server::start([Reply::new(200, &one)]);
    let piped = sandbox.ok(&["get", "shop.orders", "1", "--servers", &server.url]);
    assert!(piped.stdout.contains("a\u{202e}b\u{9b}2Jc"), "{piped:#?}");
    assert!(piped.stdout.contains("$binary"), "{piped:#?}");
}

#[test]
fn the_text_of_an_error_steers_nothing() {
    let sandbox = Sandbox::new();
    let server = Server::start([Reply::error(400, "E11000 \u{1b}[2J\u{202e}{ x }\nmore")]);
    let line = format!("drumline insert a.b '{{}}' --servers {}", server.url);
    let shown = on_terminal(&sandbox, &line);
    assert_eq!(shown.status, 1, "{shown:#?}");
    assert_eq!(
        shown.stdout,
        "drumline: E11000 \\u{1b}[2J\\u{202e}{ x }\\nmore\n"
    );
}

#[test]
fn nothing_found_is_said_to_a_person_only() {
    let sandbox = Sandbox::new();
    for (command, reply, told) in [
        (
            "find shop.orders",
            r#"{"documents":[]}"#,
            "no document was found",
        ),
        (
            "aggregate shop.orders []",
            r#"{"documents":[]}"#,
            "no document was found",
        ),
        ("log", r#"{"entries":[]}"#, "the log is empty"),
        (
            "log --from 9",
            r#"{"entries":[]}"#,
            "the log has nothing from position 9 on",
        ),
    ] {
        let server = Server::start([Reply::new(200, reply)]);
        let line = format!("drumline {command} --servers {}", server.url);
        let shown = on_terminal(&sandbox, &line);
        let told = format!("drumline: {told}\n");
        assert_eq!((shown.status, shown.stdout.as_str()), (0, told.as_str()));
        let mut arguments: Vec<&str> = command.split(' ').collect();
        arguments.extend(["--servers", &server.url]);
        let piped = sandbox.ok(&arguments);
        assert_eq!((piped.stdout.as_str(), piped.stderr.as_str()), ("", ""));
        arguments.extend(["-o", "table"]);
        let table = sandbox.ok(&arguments);
        assert_eq!(
            (table.stdout.as_str(), table.stderr.as_str()),
            ("", told.as_str())
        );
    }
}

#[test]
fn the_log_fits() {
    let sandbox = Sandbox::new();
    let entry = |position: u64, node: &str, ops: &[&str]| {
        let ops: Vec<_> = ops
            .iter()
            .map(|op| serde_json::json!({ "op": op }))
            .collect();
        let kind = if ops.is_empty() { "claim" } else { "batch" };
        serde_json::json!({
            "_id": {"$numberLong": position.to_string()}, "epoch": 3, "kind": kind, "node": node,
            "first": {"$numberLong": (position + 10).to_string()},
            "last": {"$numberLong": (position + 19).to_string()},
            "at": {"$date": "2026-01-31T12:00:00.123Z"}, "entries": ops,
        })
    };
    let ops = ["insert", "updateOne", "replaceOne", "deleteMany"];
    let entries = [
        entry(1, "n1", &[]),
        entry(12_389, "n2", &ops[..2]),
        entry(12_390, "guest-0123456789abcdef", &ops[3..]),
        entry(12_391, "n2", &ops),
    ];
    let body = serde_json::json!({ "entries": entries }).to_string();
    let server = Server::start([Reply::new(200, &body), Reply::new(200, r#"{"entries":[]}"#)]);
    let line = format!("drumline log --servers {}", server.url);
    let shown = on_terminal(&sandbox, &line).stdout;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 5, "{shown}");
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{shown}"
    );
    assert!(lines[1].ends_with("  claim"), "{shown}");
    assert!(lines[2].contains("  12399-408  "), "{shown}");
    assert!(lines[2].ends_with("  1 insert, 1 updateOne"), "{shown}");
    assert!(
        lines[3].contains("guest-") && lines[3].ends_with("  1 deleteMany"),
        "{shown}"
    );
    assert!(lines[4].ends_with('…'), "{shown}");
}

#[test]
fn a_cluster_that_nobody_named_is_told() {
    let sandbox = Cluster::shared().sandbox();
    let told = "in the cluster 'test', the only one that runs";
    let line = "drumline delete terminal.c '{}'";
    assert!(on_terminal(sandbox, line).stdout.contains(told));
    let named = format!("{line} --name test");
    assert!(!on_terminal(sandbox, &named).stdout.contains(told));
    let piped = sandbox.ok(&["delete", "terminal.c", "{}"]);
    assert_eq!(piped.stderr, "", "a program has no use for it");
}
