//! `drumline status` against servers that say what a test wants.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{ChildStderr, ChildStdout, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::one_line;
use super::server::{Reply, Server, nobody};
use crate::support::{Outcome, Sandbox, kill};

fn view() -> Value {
    let node = |name: &str, role: &str| json!({"name": name, "url": "http://127.0.0.1:1", "rank": u64::MAX, "role": role, "state": "alive"});
    let member = |host: &str, state: &str| json!({"host": host, "state": state, "lag_ms": 1, "rtt_ms": 0.25, "sync_source": null});
    json!({
        "coordinator": "n1", "epoch": 2, "position": 7, "stamp": {"t": 9, "n": "n1"},
        "primary": "a:1", "term": 3,
        "nodes": [node("n1", "coordinator"), node("n2", "follower")],
        "members": [member("a:1", "primary"), member("b:1", "secondary"), member("c:1", "secondary")],
    })
}

fn reply(view: &Value) -> Reply {
    Reply::new(200, &view.to_string())
}

fn status(sandbox: &Sandbox, server: &str, flags: &[&str]) -> Outcome {
    let mut arguments = vec!["status", "--servers", server];
    arguments.extend(flags);
    sandbox.run(&arguments)
}

#[test]
fn the_first_server_that_answers_is_believed_and_printed_in_each_form() {
    let sandbox = Sandbox::new();
    let server = Server::start([reply(&view())]);
    let servers = format!("{},{}", nobody(), server.url);
    let told = |form| status(&sandbox, &servers, &["-o", form]);
    assert_eq!(told("jsonl").stdout, format!("{}\n", view()));
    assert_eq!(told("json").stdout, format!("{:#}\n", view()));
    let table = told("table");
    assert_eq!((table.status, table.stderr.as_str()), (0, ""));
    assert!(table.stdout.contains("ffffffffffffffff"), "{table:#?}");
    assert!(!table.stdout.contains('\u{1b}'), "{table:#?}");
    assert!(server.asked().iter().all(|asked| asked.path == "/status"));
}

#[test]
fn each_thing_that_is_wrong_is_status_3() {
    let sandbox = Sandbox::new();
    let mut ill: Vec<(Value, &str)> = Vec::new();
    let mut add = |why, pointer: &str, value: Value| {
        let mut view = view();
        *view.pointer_mut(pointer).unwrap() = value;
        ill.push((view, why));
    };
    add("no node is coordinator", "/coordinator", Value::Null);
    add("n2 is suspect", "/nodes/1/state", json!("suspect"));
    add("n2 is down", "/nodes/1/state", json!("down"));
    add(
        "n2 knows no coordinator",
        "/nodes/1/role",
        json!("electing"),
    );
    add("the replica set has no primary", "/primary", Value::Null);
    add("c:1 is rollback", "/members/2/state", json!("rollback"));
    for (view, why) in ill {
        let server = Server::start([reply(&view)]);
        let outcome = status(&sandbox, &server.url, &["-o", "table"]);
        assert_eq!(outcome.status, 3, "{outcome:#?}");
        let told = outcome.stdout.lines().last().unwrap();
        assert_eq!(told, format!("degraded: {why}"));
        let outcome = status(&sandbox, &server.url, &["-o", "json"]);
        assert_eq!(outcome.status, 3, "{outcome:#?}");
        assert_eq!(outcome.stdout, format!("{view:#}\n"));
    }
}

#[test]
fn without_an_answer_it_says_which_server_failed_and_how() {
    let sandbox = Sandbox::new();
    let gone = nobody();
    let outcome = status(&sandbox, &gone, &["--timeout", "300ms"]);
    assert_eq!((outcome.status, outcome.stdout.as_str()), (4, ""));
    assert!(one_line(&outcome).contains(&format!("{gone}: connection refused")));

    let other = Server::start([Reply::new(200, r#"{"hello": "world"}"#)]);
    let outcome = status(&sandbox, &other.url, &[]);
    assert_eq!((outcome.status, outcome.stdout.as_str()), (1, ""));
    assert!(one_line(&outcome).contains("not as a Drumline server does"));
}

#[test]
fn wrong_flags_are_named() {
    let sandbox = Sandbox::new();
    let uri = ["status", "--mongodb", "mongodb://127.0.0.1:1/"];
    for (arguments, named) in [
        (uri.as_slice(), "give --servers"),
        (&["status", "now"], "'now'"),
        (&["status", "--watch=2"], "--watch"),
        (&["status", "-o", "xml"], "--output"),
    ] {
        let outcome = sandbox.run(arguments);
        assert_eq!((outcome.status, outcome.stdout.as_str()), (2, ""));
        assert!(one_line(&outcome).contains(named), "{outcome:#?}");
    }
}

/// A watch in the background, with what it prints.
struct Watch {
    process: std::process::Child,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
}

impl Watch {
    fn start(sandbox: &Sandbox, server: &str, form: &str) -> Self {
        let mut process = sandbox
            .drumline(&["status", "--watch", "--timeout", "300ms", "-o", form])
            .args(["--servers", server])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            out: BufReader::new(process.stdout.take().unwrap()),
            err: BufReader::new(process.stderr.take().unwrap()),
            process,
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    fn error(&mut self) -> String {
        let mut line = String::new();
        self.err.read_line(&mut line).unwrap();
        line
    }

    /// Its exit status after this signal.
    fn end(mut self, signal: Signal) -> Option<i32> {
        kill(self.process.id(), signal);
        self.process.wait().unwrap().code()
    }
}

#[test]
fn a_watch_in_a_pipe_goes_on_over_failures_until_ctrl_c() {
    let sandbox = Sandbox::new();
    let mut later = view();
    later["position"] = json!(8);
    let broken = Reply::error(503, "not now");
    let server = Server::start([reply(&view()), Reply::HangUp, broken, reply(&later)]);
    let mut watch = Watch::start(&sandbox, &server.url, "json");
    assert_eq!(watch.line(), format!("{}\n", view()));
    assert_eq!(watch.line(), format!("{later}\n"));
    assert_eq!(watch.end(Signal::INT), Some(0));

    let gone = nobody();
    let mut watch = Watch::start(&sandbox, &gone, "table");
    for _ in 0..2 {
        let said = watch.error();
        assert!(said.contains("no server can be reached"), "{said}");
    }
    assert_eq!(watch.end(Signal::TERM), Some(0));
}

#[test]
fn a_watch_in_a_pipe_appends_one_block_after_the_other() {
    let sandbox = Sandbox::new();
    let server = Server::start([reply(&view())]);
    let block = status(&sandbox, &server.url, &["-o", "table"]).stdout;
    let mut watch = Watch::start(&sandbox, &server.url, "table");
    let mut lines = |count: usize| (0..count).map(|_| watch.line()).collect::<String>();
    let count = block.lines().count();
    assert_eq!(lines(count), block);
    assert_eq!(lines(count + 1), format!("\n{block}"));
    drop(watch.out);
    assert_eq!(watch.process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_watch_on_a_terminal_draws_in_place_and_gives_the_cursor_back() {
    let sandbox = Sandbox::new();
    let server = Server::start([reply(&view())]);
    let program = env!("CARGO_BIN_EXE_drumline");
    let watch = format!(
        "stty cols 60 rows 9; exec env --default-signal=INT '{program}' status --watch --servers {}",
        server.url
    );
    let mut terminal = sandbox
        .command("script")
        .args(["--quiet", "--flush", "--return", "--command", &watch])
        .arg("/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut screen = terminal.stdout.take().unwrap();
    let mut shown = String::new();
    let mut read_until = |condition: &dyn Fn(&str) -> bool| {
        let mut buffer = [0; 4096];
        while !condition(&shown) {
            let count = screen.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "the terminal closed: {shown:?}");
            shown += std::str::from_utf8(&buffer[..count]).unwrap();
        }
        shown.clone()
    };
    // Of nine lines, eight hold the frame: it goes up by as many, and no line is wrapped.
    let up = "\u{1b}[8F";
    read_until(&|shown| shown.matches(up).count() == 2);
    terminal.stdin.take().unwrap().write_all(b"\x03").unwrap();
    let shown = read_until(&|shown| shown.ends_with("\u{1b}[?25h"));
    assert!(terminal.wait().unwrap().success());
    assert!(shown.starts_with("\u{1b}[?25l"), "{shown:?}");
    let frame = shown.split(up).nth(1).unwrap();
    assert!(frame.starts_with("coordinator  n1") && frame.contains("a:1"));
    assert_eq!(frame.matches("\r\n").count(), 8, "{frame:?}");
}
