//! `drumline drill --compose`: the stand-in cluster is harmed through the engine, and given back as it was.

use std::process::Child;

use drumline::drill::report::Confirmed;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::docker::{Compose, MEMBERS, NODES};
use crate::support::drills::{SHORT, read, until_it_says};
use crate::support::{Outcome, kill, wait_for, wait_until};

/// The arguments of a drill of this project with the short load.
fn drill<'a>(compose: &'a Compose, arguments: &[&'a str]) -> Vec<&'a str> {
    let target = ["--compose", compose.project()];
    [&["drill"], arguments, &target, &SHORT].concat()
}

fn run(compose: &Compose, arguments: &[&str]) -> Outcome {
    compose.sandbox().run(&drill(compose, arguments))
}

/// What a drill must leave as it was: each container runs, in its networks, under its names there.
fn places(compose: &Compose) -> Vec<(String, String)> {
    let place = |service: &str| {
        let networks = compose.inspect(service, "{{json .NetworkSettings.Networks}}");
        let networks: Value = serde_json::from_str(&networks).unwrap();
        let container = compose.container(service);
        let aliases = |network: &Value| {
            let all = network["Aliases"].as_array().cloned().unwrap_or_default();
            let mut names: Vec<_> = all
                .iter()
                .filter_map(Value::as_str)
                .filter(|alias| !container.starts_with(alias))
                .map(str::to_owned)
                .collect();
            names.sort();
            names.join(",")
        };
        let networks = networks.as_object().unwrap().iter();
        let networks: Vec<_> = networks
            .map(|(name, network)| format!("{name}: {}", aliases(network)))
            .collect();
        let state = compose.inspect(service, "{{.State.Status}}");
        (
            service.to_owned(),
            format!("{state} {}", networks.join("; ")),
        )
    };
    let services = [MEMBERS, NODES].concat();
    services.into_iter().map(place).collect()
}

fn pids(compose: &Compose) -> Vec<u32> {
    let services = [MEMBERS, NODES].concat();
    services
        .into_iter()
        .map(|service| compose.pid(service))
        .collect()
}

#[test]
fn a_project_is_harmed_only_with_its_name_and_given_back_as_it_was() {
    let Some(compose) = Compose::start() else {
        return;
    };
    let before = (places(&compose), pids(&compose));
    what_is_refused_changes_nothing(&compose);
    assert_eq!((places(&compose), pids(&compose)), before);

    let secrets = [
        compose.api_key(),
        compose
            .exec("n1", &["cat", "/run/nodes/mongodb-uri"])
            .unwrap(),
    ];
    for fault in ["kill", "freeze", "isolate"] {
        let folder = compose.sandbox().path(fault);
        let path = folder.to_str().unwrap();
        let confirmed = ["--confirm", compose.project(), "--report", path];
        let outcome = run(&compose, &[&[fault][..], &confirmed].concat());
        assert_eq!(outcome.status, 0, "{fault}: {outcome:#?}");
        assert_eq!(places(&compose), before.0, "after {fault}");
        let report = read(&folder);
        let run = &report.runs[0];
        assert_eq!(run.confirmation.verdict, Confirmed::Confirmed, "{run:#?}");
        let victim = &run.victims[0];
        assert!(
            MEMBERS.iter().any(|m| format!("{m}:27017") == *victim),
            "{victim}"
        );
        let shown = std::fs::read_to_string(folder.join("report.json")).unwrap() + &outcome.stderr;
        assert!(!secrets.iter().any(|secret| shown.contains(secret.trim())));
    }
    what_is_under_way_keeps_others_away_and_is_taken_back(&compose);
    assert_eq!(places(&compose), before.0, "after Ctrl-C in a cut");
    // Its node may be told to end before the drill hears of Ctrl-C, and end after.
    let mut handoff = begin(&compose, &["handoff", "--rate", "100"], "handoff: n");
    interrupt(&mut handoff);
    assert_eq!(places(&compose), before.0, "after Ctrl-C in a handoff");
}

fn what_is_refused_changes_nothing(compose: &Compose) {
    let project = compose.project();
    let name = format!("--confirm {project}");
    for (arguments, why) in [
        (["kill"].as_slice(), name.as_str()),
        (&["kill", "--confirm", "other"], "names 'other'"),
        (
            &["kill", "--direct", "--confirm", project],
            "--direct measures MongoDB without Drumline",
        ),
    ] {
        let refused = run(compose, arguments);
        assert_eq!(refused.status, 1, "{refused:#?}");
        assert!(refused.stderr.contains(why), "{refused:#?}");
    }
    let absent = [
        "drill",
        "kill",
        "--compose",
        "absent",
        "--confirm",
        "absent",
    ];
    let absent = compose.sandbox().run(&absent);
    assert_eq!(absent.status, 1, "{absent:#?}");
    assert!(
        absent.stderr.contains("no compose project 'absent'"),
        "{absent:#?}"
    );
    let no_docker = compose
        .sandbox()
        .drumline(&drill(compose, &["kill", "--confirm", project]))
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    let said = String::from_utf8(no_docker.stderr).unwrap();
    assert_eq!(no_docker.status.code(), Some(1), "{said}");
    assert!(said.contains("no program `docker`"), "{said}");
}

/// In the middle of the fault that leaves the most to take back.
fn what_is_under_way_keeps_others_away_and_is_taken_back(compose: &Compose) {
    // The fault comes after 5 s: long after the other drill was refused.
    let isolate = ["isolate", "--seconds", "20", "--rate", "100"];
    let mut first = begin(compose, &isolate, "load");
    let second = run(compose, &["kill", "--confirm", compose.project()]);
    assert_eq!(second.status, 1, "{second:#?}");
    assert!(second.stderr.contains("another drill harms"), "{second:#?}");
    wait_until("a member is cut off", || {
        let networks = |member| compose.inspect(member, "{{len .NetworkSettings.Networks}}");
        MEMBERS.into_iter().any(|member| networks(member) == "0")
    });
    interrupt(&mut first);
}

/// Starts a drill, and returns when it has said this.
fn begin(compose: &Compose, arguments: &[&str], what: &str) -> Child {
    let project = compose.project();
    let target = ["--compose", project, "--confirm", project];
    until_it_says(what, compose.sandbox(), &[arguments, &target].concat())
}

fn interrupt(drill: &mut Child) {
    kill(drill.id(), Signal::INT);
    let status = wait_for("the drill ends", || drill.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
}
