//! What a drill found: the form of `report.json`.
//!
//! All times are milliseconds after the start of the run's load, unless a name says otherwise.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A whole drill: one fault, one run or more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Versions of `drumline` and `mongodb`.
    pub versions: BTreeMap<String, String>,
    pub fault: String,
    /// The plain driver without Drumline.
    pub direct: bool,
    /// What it was run against, in words.
    pub target: String,
    /// As `2026-01-31T12:00:00Z`.
    pub started_at: String,
    pub seed: u64,
    /// The command line that runs the same drill again.
    pub command: String,
    /// Clients, rate, seconds, election time-out and the like, as shown.
    pub settings: BTreeMap<String, String>,
    pub runs: Vec<Run>,
    /// Over all runs, by the names of [`Outage`]'s fields and of `latency_during_p99_ms`.
    pub distributions: BTreeMap<String, Distribution>,
    /// What must hold, over all runs: the checker's findings, and the limits of `--slo`.
    pub verdict: Vec<Verdict>,
}

/// One line of the verdict table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// As `no acknowledged write lost` or `slo outage=300ms`.
    pub name: String,
    pub holds: bool,
    /// The measured figure, or the smallest witness.
    pub detail: String,
}

/// p50, p95 and max of a figure over the runs that have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    pub runs: usize,
    pub p50: f64,
    pub p95: f64,
    pub max: f64,
}

/// Load, fault, healing, calm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// From 1.
    pub number: usize,
    pub seed: u64,
    pub length_ms: f64,
    pub fault_from_ms: f64,
    /// When the drill began to take the fault back.
    pub fault_to_ms: f64,
    /// What was harmed: a member's host or a node's name.
    pub victims: Vec<String>,
    pub confirmation: Confirmation,
    /// Whether the machine carried the load before the fault. Reports of older versions lack it.
    #[serde(default)]
    pub calm: Option<Calm>,
    pub outage: Outage,
    pub counts: Counts,
    /// Of 10 ms each, the first begins at 0. By the time of the return.
    pub buckets: Vec<Bucket>,
    /// Of acknowledged operations, from the time they were due.
    pub latency: Phases,
    /// A bounded sample for the chart: the slowest operation of each bucket that has one.
    pub slowest: Vec<SlowOperation>,
    /// A lane a member, the state is MongoDB's, in lower case, or `down`.
    pub members: Vec<Lane>,
    /// A lane a node, the state is its role, or `down`.
    pub nodes: Vec<Lane>,
    /// The checker's findings on this run's history.
    pub checks: Vec<Verdict>,
}

/// Whether the fault had its effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    pub verdict: Confirmed,
    /// What was seen before, during and after, a fact a line: pid states, terms, primaries.
    pub evidence: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confirmed {
    Confirmed,
    /// What was seen is not what the fault does.
    Mismatch,
    /// It could not be seen.
    Inconclusive,
}

/// Spans of an outage. The first four add up to `first_ack_ms`; one that could not be seen is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outage {
    /// The spans are counted from the fault's end: without a majority nothing can be acknowledged before.
    #[serde(default)]
    pub from_its_end: bool,
    /// From the fault to the first act against it: a new term, or another claim.
    pub detect_ms: Option<f64>,
    /// Until there is a new writable primary, or coordinator.
    pub elect_ms: Option<f64>,
    /// Until a member knows that a majority holds a write of the new term.
    pub recover_ms: Option<f64>,
    /// Until its client knows.
    pub answer_ms: Option<f64>,
    /// From the fault to the first acknowledgement of a write that was sent after it.
    pub first_ack_ms: Option<f64>,
    /// The longest time without an acknowledged write, from the fault until it was taken back and
    /// writes had gone on.
    pub outage_ms: f64,
    /// When that began.
    #[serde(default)]
    pub outage_at_ms: Option<f64>,
    /// The longest time without an acknowledged write after that, as when a member rejoins. Null if
    /// writes did not go on.
    #[serde(default)]
    pub stall_ms: Option<f64>,
    /// When that began.
    #[serde(default)]
    pub stall_at_ms: Option<f64>,
}

/// How the load went before the fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calm {
    /// If not, the machine is too slow or too busy for the load, and the figures say little.
    pub carried: bool,
    /// How late 99 in 100 of the operations that were due before the fault were at most, when they
    /// were answered or when it came.
    pub late_p99_ms: f64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub acknowledged: u64,
    /// Failed for good, as a client saw it: not refused by a document's state, which is an answer.
    pub failed: u64,
    pub unknown: u64,
    /// Of the acknowledged ones, those that needed more than one try of the client.
    pub retried: u64,
    /// Due in the run's time and never sent.
    pub unsent: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    pub acknowledged: u32,
    pub failed: u32,
    pub unknown: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    pub before: Percentiles,
    /// From the fault until the last operation that was due in the outage is answered.
    pub during: Percentiles,
    pub after: Percentiles,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub count: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// The slowest operation of those that were acknowledged in the same 10 ms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlowOperation {
    pub at_ms: f64,
    pub latency_ms: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    pub name: String,
    pub spans: Vec<Span>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub from_ms: u64,
    pub to_ms: u64,
    pub state: String,
    /// Of members: the term.
    pub term: Option<i64>,
}
