//! Arguments and settings.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use super::server::{Reply, Server};
use super::{DOC, one_line};
use crate::support::Sandbox;

#[test]
fn bad_arguments_are_named_in_one_line() {
    let sandbox = Sandbox::new();
    let config = sandbox.path("wrong.toml");
    fs::write(&config, "servers = [\"http://127.0.0.1:1\"]\nserver = 1\n").unwrap();
    let ns = "shop.orders";
    let table: &[(&[&str], &str)] = &[
        (&["insert"], "<NS>"),
        (&["insert", "shop", DOC], "'shop' is not a namespace"),
        (
            &["insert", ns, "{a: 1}"],
            "DOC: it is no JSON (key must be a string at column 2)",
        ),
        (&["insert", ns, "5"], "DOC: value 1 in it is no object"),
        (&["insert", ns, "[]"], "DOC: it holds no document"),
        (
            &["insert", ns, r#"{"_id": {"$oid": "x"}}"#],
            "DOC: it is no Extended JSON",
        ),
        (&["insert", ns, DOC, "--request-id", "a b"], "--request-id"),
        (&["put", ns, "5", r#"{"_id": 6}"#], "DOC: its _id is 6"),
        (&["get", ns, "[1]"], "ID: MongoDB takes no array"),
        (&["get", ns, r#"{"$gt": 1}"#], "ID: it holds an operator"),
        (&["find", ns, "[]"], "FILTER: it is JSON, but no object"),
        (
            &["find", ns, "{}", "--sort", "qty"],
            "--sort: it is no JSON",
        ),
        (&["find", ns, "--limit", "50001"], "--limit"),
        (&["find", ns, "--limit", "1.5"], "--limit"),
        (&["find", ns, "--skip", "-1"], "--skip"),
        (&["find", ns, "--read", "dirty"], "--read"),
        (&["update", ns, "{}"], "<UPDATE>"),
        (
            &["update", ns, "{}", "[5]"],
            "UPDATE: value 1 in it is no object",
        ),
        (&["update", ns, "-", "-"], "only one argument can be `-`"),
        (
            &["replace", ns, "{}", "\"x\""],
            "DOC: it is JSON, but no object",
        ),
        (&["delete", ns], "<FILTER>"),
        (
            &["aggregate", ns, "{}"],
            "PIPELINE: it is JSON, but no array",
        ),
        (&["log", "--from", "0"], "--from"),
        (&["backup"], "<DIR>"),
        (&["backup", "dir", "--every", "1ms"], "--every"),
        (&["backup", "verify"], "<DIR>"),
        (&["restore"], "<DIR>"),
        (&["restore", "dir", "--to-position", "x"], "--to-position"),
        (&["restore", "dir", "--to-time", "soon"], "--to-time"),
        (
            &[
                "restore",
                "dir",
                "--to-position",
                "1",
                "--to-time",
                "2026-01-31T12:00:00Z",
            ],
            "--to-time",
        ),
        (&["get", ns, "1", "--timeout", "soon"], "--timeout"),
        (&["get", ns, "1", "-o", "xml"], "--output"),
        (&["get", ns, "1", "--servers", "localhost"], "--servers"),
        (
            &[
                "get",
                ns,
                "1",
                "--servers",
                "http://a:1",
                "--mongodb",
                "mongodb://b",
            ],
            "--mongodb",
        ),
        (
            &["get", ns, "1", "--api-key-file", "/nowhere/key"],
            "/nowhere/key",
        ),
        (&["bench", "--clients", "0"], "--clients"),
        (&["completions", "dos"], "<SHELL>"),
        (&["fetch"], "fetch"),
    ];
    for (arguments, names) in table {
        let outcome = sandbox.run(arguments);
        assert_eq!(outcome.status, 2, "{arguments:?}: {outcome:#?}");
        assert!(
            one_line(&outcome).contains(names),
            "{arguments:?}: {outcome:#?}"
        );
        assert_eq!(outcome.stdout, "");
    }
    let sandbox = sandbox.set("DRUMLINE_CONFIG", config.to_str().unwrap());
    let outcome = sandbox.run(&["get", ns, "1"]);
    assert_eq!(outcome.status, 2);
    assert!(
        one_line(&outcome).contains("wrong.toml:2: unknown field `server`"),
        "{outcome:#?}"
    );
}

#[test]
fn settings_come_from_flags_then_environment_then_file() {
    let [flag, variable, file] = [13, 14, 15].map(|stamp| Server::start([Reply::inserted(stamp)]));
    let sandbox = Sandbox::new();
    let (config, key) = (sandbox.path("config.toml"), sandbox.path("key"));
    fs::write(&key, "s3cret\n").unwrap();
    fs::write(
        &config,
        format!("servers = [\"{}\"]\napi_key_file = \"key\"\n", file.url),
    )
    .unwrap();
    let stamp = |sandbox: &Sandbox, flags: &[&str]| {
        let mut arguments = vec!["insert", "shop.orders", DOC];
        arguments.extend(flags);
        let value: serde_json::Value =
            serde_json::from_str(&sandbox.ok(&arguments).stdout).unwrap();
        value["stamp"].clone()
    };
    let sandbox = sandbox.set("DRUMLINE_CONFIG", config.to_str().unwrap());
    assert_eq!(stamp(&sandbox, &[]), 15);
    assert_eq!(file.asked()[0].headers["api-key"], "s3cret");
    let sandbox = sandbox.set("DRUMLINE_SERVERS", &variable.url);
    assert_eq!(stamp(&sandbox, &[]), 14);
    assert_eq!(stamp(&sandbox, &["--servers", &flag.url]), 13);
}

#[test]
fn documents_are_read_from_stdin() {
    let sandbox = Sandbox::new();
    let server = Server::start([Reply::new(201, r#"{"insertedIds":[1,2]}"#)]);
    let mut command = sandbox
        .drumline(&["insert", "shop.orders", "-", "--servers", &server.url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    command
        .stdin
        .take()
        .unwrap()
        .write_all(b"{\"b\": 1, \"a\": 1.0}\n{\"a\": 2}\n")
        .unwrap();
    let output = command.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"{\"insertedIds\":[1,2]}\n");
    let asked = server.asked();
    assert_eq!(asked[0].path, "/action/insertMany");
    assert!(
        asked[0].body.contains(r#"[{"b":1,"a":1.0},{"a":2}]"#),
        "{}",
        asked[0].body
    );
}
