//! `drumline drill`: real drills of real clusters, short ones.

mod bad_arguments;
mod endings;
mod own_cluster;
mod running_cluster;

use std::process::Child;

use crate::support::drills::{SHORT, until_it_says};
use crate::support::{Outcome, Sandbox};

/// Runs `drumline drill` with these arguments, and the short load.
fn drill(sandbox: &Sandbox, arguments: &[&str]) -> Outcome {
    let mut all = vec!["drill"];
    all.extend(arguments);
    all.extend(SHORT);
    sandbox.run(&all)
}

/// Starts a short drill with these arguments, and returns when its fault is about to be done.
fn until_the_fault(sandbox: &Sandbox, arguments: &[&str]) -> Child {
    let fault = format!("{}: 127.0.0.1", arguments[0]);
    until_it_says(&fault, sandbox, &[arguments, &SHORT].concat())
}
