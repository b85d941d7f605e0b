//! What a drill is asked for, and what it tells while it runs.

use std::time::Duration;

use super::scenario::{Aim, Fault};
use super::slo::Slo;

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Plan {
    pub fault: Fault,
    pub aim: Aim,
    pub runs: usize,
    /// How long the load of a run lasts at least.
    pub length: Duration,
    pub clients: u32,
    pub rate: u32,
    pub seed: u64,
    pub direct: bool,
    pub slo: Option<Slo>,
    /// The command line that runs it again.
    pub command: String,
    pub started_at: String,
}

/// What is told while a drill runs.
#[derive(Debug, Clone, Copy)]
pub enum Told<'a> {
    Step(&'a str),
    /// Takes the place of the one before.
    Progress(&'a str),
}
