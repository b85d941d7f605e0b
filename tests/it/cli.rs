//! One-shot commands against servers that misbehave on purpose.

mod arguments;
mod clock;
mod output;
pub mod server;
mod status;
mod terminal;
mod tries;
mod words;

use std::fs;

use crate::support::{Outcome, Sandbox};

const DOC: &str = r#"{"_id": 7}"#;

/// Inserts one document through these servers.
fn insert(sandbox: &Sandbox, servers: &[&str], flags: &[&str]) -> Outcome {
    let list = servers.join(",");
    let mut arguments = vec!["insert", "shop.orders", DOC, "--servers", &list];
    arguments.extend(flags);
    sandbox.run(&arguments)
}

/// A message is one line, so that it can be read in a log.
#[track_caller]
fn one_line(outcome: &Outcome) -> &str {
    assert_eq!(outcome.stderr.trim_end().lines().count(), 1, "{outcome:#?}");
    outcome.stderr.trim_end()
}

/// The clock files' values.
fn saved_clocks(sandbox: &Sandbox) -> Vec<i64> {
    let files = fs::read_dir(sandbox.path("state/drumline")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let clocks = paths.filter(|path| path.extension().is_none());
    clocks
        .map(|path| {
            let text = fs::read_to_string(path).unwrap();
            text.lines().next().unwrap().parse().unwrap()
        })
        .collect()
}
