//! `drumline drill`: real drills of real clusters, short ones.

mod bad_arguments;
mod endings;
mod own_cluster;
mod running_cluster;

use std::path::Path;

use drumline::drill::report::Report;

use crate::support::{Outcome, Sandbox};

/// A load that a debug build carries on a busy machine, for as short as may be.
const SHORT: [&str; 6] = ["--rate", "60", "--clients", "8", "--seconds", "4"];

/// Runs `drumline drill` with these arguments, and the short load.
fn drill(sandbox: &Sandbox, arguments: &[&str]) -> Outcome {
    let mut all = vec!["drill"];
    all.extend(arguments);
    all.extend(SHORT);
    sandbox.run(&all)
}

fn read(folder: &Path) -> Report {
    let text = std::fs::read_to_string(folder.join("report.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}
