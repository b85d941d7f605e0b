//! Which server is asked, how often, with which id, and what is said at the end.

use std::time::{Duration, Instant};

use super::server::{Frozen, Reply, Server, nobody};
use super::{insert, one_line, saved_clocks};
use crate::support::Sandbox;

/// Runs it with a short time, and with longer ones where a busy machine has not got to it in that.
fn in_time<T>(run: impl Fn(&str) -> T, enough: impl Fn(&T) -> bool) -> T {
    let longer = ["2s", "20s"].into_iter();
    longer.fold(
        run("300ms"),
        |ran, time| {
            if enough(&ran) { ran } else { run(time) }
        },
    )
}

#[test]
fn the_next_server_is_asked_when_one_refuses_the_connection() {
    let sandbox = Sandbox::new();
    let good = Server::start([Reply::inserted(13)]);
    let outcome = insert(&sandbox, &[&nobody(), &nobody(), &good.url], &[]);
    assert_eq!(outcome.status, 0, "{outcome:#?}");
    assert_eq!(
        outcome.stdout,
        "{\"insertedId\":7,\"position\":12,\"stamp\":13}\n"
    );
    assert_eq!(good.asked().len(), 1);
}

#[test]
fn a_frozen_server_costs_two_seconds_and_no_more() {
    let sandbox = Sandbox::new();
    let (frozen, good) = (Frozen::start(), Server::start([Reply::inserted(13)]));
    let start = Instant::now();
    let outcome = insert(&sandbox, &[&frozen.url, &good.url], &[]);
    let took = start.elapsed();
    assert_eq!(outcome.status, 0, "{outcome:#?}");
    assert!(
        took >= Duration::from_secs(2) && took < Duration::from_secs(6),
        "{took:?}"
    );
}

#[test]
fn one_request_id_goes_to_all_servers() {
    let sandbox = Sandbox::new();
    let first = Server::start([Reply::error(503, "no coordinator")]);
    let second = Server::start([Reply::error(504, "the outcome is not known yet")]);
    let third = Server::start([Reply::HangUp]);
    let fourth = Server::start([Reply::inserted(13).with("idempotency-replayed", "true")]);
    let servers = [&first, &second, &third, &fourth];
    let outcome = insert(&sandbox, &servers.map(|server| server.url.as_str()), &[]);
    assert_eq!(outcome.status, 0, "{outcome:#?}");
    assert!(outcome.stdout.contains("\"replayed\":true"), "{outcome:#?}");
    let asked: Vec<_> = servers.iter().flat_map(|server| server.asked()).collect();
    assert_eq!(asked.len(), 4);
    assert!(
        asked.iter().all(|one| one.id() == asked[0].id()),
        "{asked:#?}"
    );
    assert!(asked.iter().all(|asked| asked.path == "/action/insertOne"));
}

#[test]
fn the_only_server_is_asked_again_with_the_same_id() {
    let sandbox = Sandbox::new();
    for setback in [
        Reply::error(503, "no primary"),
        Reply::error(504, "unknown"),
        Reply::HangUp,
    ] {
        let server = Server::start([setback.clone(), setback, Reply::inserted(13)]);
        let outcome = insert(&sandbox, &[&server.url], &[]);
        assert_eq!(outcome.status, 0, "{outcome:#?}");
        let asked = server.asked();
        assert_eq!(asked.len(), 3);
        assert!(
            asked.iter().all(|one| one.id() == asked[0].id()),
            "{asked:#?}"
        );
    }
}

#[test]
fn retry_after_is_waited_for() {
    let sandbox = Sandbox::new();
    let busy = Reply::error(429, "too many requests").with("retry-after", "1");
    let server = Server::start([busy, Reply::inserted(13)]);
    let start = Instant::now();
    let outcome = insert(&sandbox, &[&server.url], &[]);
    assert_eq!(outcome.status, 0, "{outcome:#?}");
    assert!(start.elapsed() >= Duration::from_secs(1));
    let asked = server.asked();
    assert_eq!(asked[0].id(), asked[1].id());
}

#[test]
fn a_definite_answer_is_the_last() {
    let sandbox = Sandbox::new();
    let refusing = Server::start([Reply::error(400, "E11000 duplicate key error").at(21)]);
    let other = Server::start([Reply::inserted(13)]);
    let outcome = insert(&sandbox, &[&refusing.url, &other.url], &[]);
    assert_eq!(outcome.status, 1);
    assert_eq!(one_line(&outcome), "drumline: E11000 duplicate key error");
    assert_eq!((refusing.asked().len(), other.asked().len()), (1, 0));
    assert_eq!(saved_clocks(&sandbox), [21]);
}

#[test]
fn a_program_that_is_no_drumline_is_named() {
    let sandbox = Sandbox::new();
    for reply in [
        Reply::new(404, "<html>"),
        Reply::new(200, "{}"),
        Reply::new(302, ""),
    ] {
        let server = Server::start([reply]);
        let outcome = insert(&sandbox, &[&server.url], &[]);
        assert_eq!(outcome.status, 1);
        assert!(
            one_line(&outcome).contains("not as a Drumline server does"),
            "{outcome:#?}"
        );
    }
}

#[test]
fn without_any_server_the_status_is_4() {
    let sandbox = Sandbox::new();
    let (one, two) = (nobody(), nobody());
    let expected = format!(
        "drumline: no server can be reached: {one}: connection refused; {two}: connection refused"
    );
    let outcome = in_time(
        |time| insert(&sandbox, &[&one, &two], &["--timeout", time]),
        |outcome| outcome.stderr.contains(&expected),
    );
    assert_eq!(outcome.status, 4, "{outcome:#?}");
    assert_eq!(one_line(&outcome), expected);

    let outcome = sandbox.run(&["get", "shop.orders", "7"]);
    assert_eq!(outcome.status, 4, "{outcome:#?}");
    assert!(one_line(&outcome).contains("drumline up"), "{outcome:#?}");
}

#[test]
fn a_write_of_unknown_outcome_says_how_to_ask_again() {
    let sandbox = Sandbox::new();
    let (server, outcome) = in_time(
        |time| {
            let server = Server::start([Reply::HangUp]);
            let outcome = insert(&sandbox, &[&server.url, &nobody()], &["--timeout", time]);
            (server, outcome)
        },
        |(server, _)| !server.asked().is_empty(),
    );
    assert_eq!(outcome.status, 1, "{outcome:#?}");
    let id = server.asked()[0].id().to_owned();
    let message = one_line(&outcome);
    assert!(message.contains("may have been done"), "{message}");
    assert!(
        message.ends_with(&format!("(--request-id {id})")),
        "{message}"
    );

    let frozen = Frozen::start();
    let outcome = in_time(
        |time| insert(&sandbox, &[&frozen.url], &["--timeout", time]),
        |outcome| outcome.stderr.contains("no answer within"),
    );
    assert_eq!(outcome.status, 1, "{outcome:#?}");
    assert!(
        one_line(&outcome).contains("no answer within"),
        "{outcome:#?}"
    );
}

#[test]
fn a_read_that_nobody_does_is_not_of_unknown_outcome() {
    let sandbox = Sandbox::new();
    let frozen = Frozen::start();
    let get = |url: &str, time: &str| {
        sandbox.run(&[
            "get",
            "shop.orders",
            "7",
            "--servers",
            url,
            "--timeout",
            time,
        ])
    };
    assert_eq!(get(&frozen.url, "300ms").status, 4);
    let leaderless = Server::start([Reply::error(503, "no coordinator")]);
    let outcome = in_time(
        |time| get(&leaderless.url, time),
        |outcome| outcome.status == 1,
    );
    assert_eq!(outcome.status, 1);
    assert!(
        one_line(&outcome).ends_with("503: no coordinator"),
        "{outcome:#?}"
    );
}

#[test]
fn a_request_id_can_be_given() {
    let sandbox = Sandbox::new();
    let server = Server::start([Reply::inserted(13)]);
    for _ in 0..2 {
        let outcome = insert(&sandbox, &[&server.url], &["--request-id", "order-17"]);
        assert_eq!(outcome.status, 0, "{outcome:#?}");
    }
    assert!(server.asked().iter().all(|asked| asked.id() == "order-17"));
}
