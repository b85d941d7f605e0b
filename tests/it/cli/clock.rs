//! The client's clock between commands.

use std::fs;
use std::process::Stdio;

use super::server::{Reply, Server};
use super::{DOC, insert, one_line, saved_clocks};
use crate::support::Sandbox;

#[test]
fn the_clock_goes_out_with_the_next_command() {
    let sandbox = Sandbox::new();
    let server = Server::start([Reply::inserted(13), Reply::inserted(14), Reply::inserted(2)]);
    for _ in 0..3 {
        insert(&sandbox, &[&server.url], &[]);
    }
    let sent: Vec<_> = server
        .asked()
        .iter()
        .map(|asked| asked.headers["drumline-stamp"].clone())
        .collect();
    assert_eq!(sent, ["0", "13", "14"]);
    assert_eq!(saved_clocks(&sandbox), [14]);
}

#[test]
fn the_token_goes_out_with_the_next_command_as_it_came() {
    let sandbox = Sandbox::new();
    let token = "a.token/of=anyForm";
    let server = Server::start([
        Reply::inserted(13).with("drumline-token", token),
        // No longer than a header may be, and longer than a client keeps.
        Reply::inserted(14).with("drumline-token", &"x".repeat(1_000)),
    ]);
    for _ in 0..3 {
        insert(&sandbox, &[&server.url], &[]);
    }
    let asked = server.asked();
    let sent = asked
        .iter()
        .map(|asked| asked.headers.get("drumline-token"));
    assert_eq!(
        sent.collect::<Vec<_>>(),
        [None, Some(&token.to_owned()), None]
    );
}

#[test]
fn a_read_raises_the_clock_and_a_log_that_was_begun_anew_sets_it_back() {
    let sandbox = Sandbox::new();
    let found = |stamp| Reply::new(200, r#"{"documents":[]}"#).at(stamp);
    let find = |server: &Server, flags: &[&str]| {
        let arguments = ["find", "shop.orders", "--servers", &server.url];
        sandbox.ok(&[&arguments, flags].concat())
    };
    // Of a causal read nothing follows, and one linearizable read may be shown too early.
    let server = Server::start([57, 3, 56, 58, 4, 4, 4].map(found));
    assert_eq!(find(&server, &[]).stderr, "");
    assert_eq!(find(&server, &["--read", "causal"]).stderr, "");
    assert_eq!(find(&server, &[]).stderr, "");
    assert_eq!(saved_clocks(&sandbox), [58]);
    let told = find(&server, &[]);
    assert!(
        one_line(&told).contains("ends at stamp 4, before stamp 58"),
        "{told:#?}"
    );
    assert_eq!(saved_clocks(&sandbox), [4]);
    assert_eq!(find(&server, &[]).stderr, "");
    let asked = server.asked();
    let sent = asked
        .iter()
        .map(|asked| asked.headers["drumline-stamp"].as_str());
    assert_eq!(
        sent.collect::<Vec<_>>(),
        ["0", "57", "57", "57", "58", "58", "4"]
    );
}

#[test]
fn twenty_commands_at_once_leave_the_largest_clock() {
    let sandbox = Sandbox::new();
    // The first to be answered has the largest stamp, so that whoever saves last has a smaller one.
    let server = Server::start(
        (0..20)
            .map(|n| Reply::inserted(1_000 - n))
            .collect::<Vec<_>>(),
    );
    let commands: Vec<_> = (0..20)
        .map(|_| {
            let mut command =
                sandbox.drumline(&["insert", "shop.orders", DOC, "--servers", &server.url]);
            command
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for command in commands {
        let output = command.wait_with_output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
    }
    assert_eq!(saved_clocks(&sandbox), [1_000]);
}

#[test]
fn a_broken_clock_file_is_told_and_replaced() {
    let sandbox = Sandbox::new();
    let server = Server::start([Reply::inserted(13)]);
    insert(&sandbox, &[&server.url], &[]);
    let folder = sandbox.path("state/drumline");
    let clock = fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let clock = clock
        .filter(|path| path.extension().is_none())
        .last()
        .unwrap();
    fs::write(&clock, "soon").unwrap();
    let outcome = insert(&sandbox, &[&server.url], &[]);
    assert_eq!(outcome.status, 0, "{outcome:#?}");
    assert!(
        one_line(&outcome).contains("the saved clock is not used"),
        "{outcome:#?}"
    );
    assert_eq!(saved_clocks(&sandbox), [13]);
}
