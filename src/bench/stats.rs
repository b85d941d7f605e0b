//! What the clients of a run saw, in bounded memory.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Plan;

/// The longest latency that is told apart from longer ones, in microseconds.
const LATENCY_MICROS_MAX: u64 = 120_000_000;
/// Two digits: an error of at most 1%, and 20 KiB for each of the clients.
const DIGITS: u8 = 2;
/// Errors of more kinds than this are counted together.
const ERROR_KINDS_MAX: usize = 16;

/// Counts of one client, or of all.
#[derive(Debug)]
pub(super) struct Stats {
    /// `None` only if the histogram's fixed bounds were wrong, which a test excludes.
    latencies: Option<Histogram<u64>>,
    errors: BTreeMap<String, u64>,
    pub(super) missed: u64,
}

impl Stats {
    pub(super) fn new() -> Self {
        Self {
            latencies: Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, DIGITS).ok(),
            errors: BTreeMap::new(),
            missed: 0,
        }
    }

    pub(super) fn ok(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(latencies) = &mut self.latencies {
            latencies.saturating_record(micros);
        }
    }

    pub(super) fn error(&mut self, kind: String) {
        self.errors(kind, 1);
    }

    fn errors(&mut self, kind: String, count: u64) {
        let known = self.errors.contains_key(&kind) || self.errors.len() < ERROR_KINDS_MAX;
        let kind = if known { kind } else { "other".into() };
        *self.errors.entry(kind).or_default() += count;
    }

    pub(super) fn add(&mut self, other: Self) {
        if let (Some(mine), Some(theirs)) = (&mut self.latencies, other.latencies) {
            // Both have the same bounds, so each value of the one fits into the other.
            let _ = mine.add(theirs);
        }
        for (kind, count) in other.errors {
            self.errors(kind, count);
        }
        self.missed += other.missed;
    }

    pub(super) fn report(self, target: &'static str, plan: &Plan, elapsed: Duration) -> Report {
        let inserts = self.latencies.as_ref().map_or(0, Histogram::len);
        let quantile = |q| {
            self.latencies
                .as_ref()
                .map_or(0, |h| h.value_at_quantile(q))
        };
        Report {
            target,
            clients: plan.clients,
            rate: plan.rate,
            seconds: elapsed.as_secs_f64(),
            inserts,
            per_second: inserts as f64 / elapsed.as_secs_f64().max(f64::EPSILON),
            p50_ms: millis(quantile(0.50)),
            p95_ms: millis(quantile(0.95)),
            p99_ms: millis(quantile(0.99)),
            max_ms: millis(self.latencies.as_ref().map_or(0, Histogram::max)),
            not_sent_in_time: self.missed,
            errors: self.errors,
        }
    }
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

/// The figures of one run. Latencies are of the inserts that were acknowledged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub target: &'static str,
    pub clients: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    pub seconds: f64,
    pub inserts: u64,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub not_sent_in_time: u64,
    pub errors: BTreeMap<String, u64>,
}

impl Report {
    /// All errors together.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// The errors by kind, like `3 HTTP 503, 1 connection lost`; empty without any.
    pub fn errors_text(&self) -> String {
        let parts = self
            .errors
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"));
        parts.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Namespace;

    #[test]
    fn counts_of_clients_add_up() {
        let mut all = Stats::new();
        for client in 0..2 {
            let mut stats = Stats::new();
            for ms in 1..=100 {
                stats.ok(Duration::from_millis(ms));
            }
            stats.ok(Duration::from_secs(100_000));
            for kind in 0..100 {
                stats.error(format!("kind {kind}"));
            }
            stats.missed = client;
            all.add(stats);
        }
        let plan = Plan {
            clients: 2,
            time: Duration::from_secs(2),
            rate: None,
            namespace: Namespace::parse("bench.x").unwrap(),
        };
        let report = all.report("drumline", &plan, Duration::from_secs(2));
        assert_eq!((report.inserts, report.not_sent_in_time), (202, 1));
        assert!((report.per_second - 101.0).abs() < 0.01);
        assert!((report.p50_ms - 51.0).abs() < 1.0, "{}", report.p50_ms);
        assert!(report.max_ms >= 100_000.0);
        assert_eq!(report.error_count(), 200);
        assert_eq!(report.errors.len(), ERROR_KINDS_MAX + 1);
    }
}
