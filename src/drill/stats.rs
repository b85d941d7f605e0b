//! Figures of a run, and what they are over many runs.

use std::collections::BTreeMap;

use super::report::{Counts, Distribution, Percentiles, Run};

/// A figure in milliseconds that a run may have.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// The key in [`super::report::Report::distributions`].
    pub key: &'static str,
    /// For people.
    pub name: &'static str,
    of: fn(&Run) -> Option<f64>,
}

impl Figure {
    pub const fn new(key: &'static str, name: &'static str, of: fn(&Run) -> Option<f64>) -> Self {
        Self { key, name, of }
    }

    /// None if the run could not tell. A number that is none is not a figure either.
    pub fn of(&self, run: &Run) -> Option<f64> {
        (self.of)(run).filter(|value| value.is_finite())
    }
}

pub const OUTAGE: Figure = Figure {
    key: "outage_ms",
    name: "outage",
    of: |run| Some(run.outage.outage_ms),
};
pub const STALL: Figure = Figure {
    key: "stall_ms",
    name: "stall",
    of: |run| run.outage.stall_ms,
};
pub const FIRST_ACK: Figure = Figure {
    key: "first_ack_ms",
    name: "first ack",
    of: |run| run.outage.first_ack_ms,
};
pub const DETECT: Figure = Figure {
    key: "detect_ms",
    name: "detect",
    of: |run| run.outage.detect_ms,
};
pub const ELECT: Figure = Figure {
    key: "elect_ms",
    name: "elect",
    of: |run| run.outage.elect_ms,
};
pub const RECOVER: Figure = Figure {
    key: "recover_ms",
    name: "recover",
    of: |run| run.outage.recover_ms,
};
pub const ANSWER: Figure = Figure {
    key: "answer_ms",
    name: "answer",
    of: |run| run.outage.answer_ms,
};
/// Without an operation in the outage there is no latency of one.
pub const DURING_P99: Figure = Figure {
    key: "latency_during_p99_ms",
    name: "p99 during",
    of: |run| (run.latency.during.count > 0).then_some(run.latency.during.p99_ms),
};

/// The whole first, then its parts, then what the clients felt.
pub const FIGURES: [Figure; 8] = [
    OUTAGE, FIRST_ACK, DETECT, ELECT, RECOVER, ANSWER, STALL, DURING_P99,
];
/// What an outage consists of, in the order of time.
pub const PARTS: [Figure; 4] = [DETECT, ELECT, RECOVER, ANSWER];

/// What became of operations.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    pub of: fn(&Counts) -> u64,
}

impl Kind {
    const fn new(name: &'static str, of: fn(&Counts) -> u64) -> Self {
        Self { name, of }
    }

    pub fn total(&self, runs: &[Run]) -> u64 {
        runs.iter().map(|run| (self.of)(&run.counts)).sum()
    }
}

pub const KINDS: [Kind; 5] = [
    Kind::new("acknowledged", |counts| counts.acknowledged),
    Kind::new("failed", |counts| counts.failed),
    Kind::new("unknown", |counts| counts.unknown),
    Kind::new("retried", |counts| counts.retried),
    Kind::new("unsent", |counts| counts.unsent),
];

/// A part of a run whose latency is told on its own.
#[derive(Debug, Clone, Copy)]
pub struct Phase {
    pub name: &'static str,
    pub of: fn(&Run) -> &Percentiles,
}

impl Phase {
    const fn new(name: &'static str, of: fn(&Run) -> &Percentiles) -> Self {
        Self { name, of }
    }
}

pub const PHASES: [Phase; 3] = [
    Phase::new("before the fault", |run| &run.latency.before),
    Phase::new("during the outage", |run| &run.latency.during),
    Phase::new("after it", |run| &run.latency.after),
];

/// Every figure that at least one run has.
pub fn distributions(runs: &[Run]) -> BTreeMap<String, Distribution> {
    let of = |figure: &Figure| {
        let values: Vec<f64> = runs.iter().filter_map(|run| figure.of(run)).collect();
        Some((figure.key.to_owned(), distribution(values)?))
    };
    FIGURES.iter().filter_map(of).collect()
}

fn distribution(mut values: Vec<f64>) -> Option<Distribution> {
    values.sort_by(f64::total_cmp);
    Some(Distribution {
        runs: values.len(),
        p50: nearest_rank(&values, 50)?,
        p95: nearest_rank(&values, 95)?,
        max: nearest_rank(&values, 100)?,
    })
}

/// The smallest of the sorted values that at least so many per cent of them do not exceed: always
/// a value that was measured, never one between two.
pub fn nearest_rank(sorted: &[f64], per_cent: usize) -> Option<f64> {
    let rank = (sorted.len() * per_cent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// `88.0 ms`, `12,091 ms`.
pub fn ms(value: f64) -> String {
    format!("{} ms", number(value))
}

/// `88.0`, `12,091`: one decimal where it means something.
pub fn number(value: f64) -> String {
    const DECIMAL_BELOW: f64 = 1_000.0;
    if !value.is_finite() {
        return "-".into();
    }
    if value.abs() < DECIMAL_BELOW {
        return format!("{value:.1}");
    }
    let whole = format!("{:.0}", value.abs());
    format!("{}{}", if value < 0.0 { "-" } else { "" }, grouped(&whole))
}

/// `12091` as `12,091`.
pub fn count(value: u64) -> String {
    grouped(&value.to_string())
}

/// `1 run`, `30 runs`.
pub fn of_runs(runs: usize) -> String {
    match runs {
        1 => "1 run".into(),
        many => format!("{} runs", count(many as u64)),
    }
}

/// A length or a time as a whole number; what is none, or below zero, is zero.
#[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
pub(super) fn whole(value: f64) -> usize {
    value.round() as usize
}

fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::example;

    #[test]
    fn percentiles_are_measured_values() {
        let values: Vec<f64> = (1..=30).map(f64::from).collect();
        assert_eq!(nearest_rank(&values, 50), Some(15.0));
        assert_eq!(nearest_rank(&values, 95), Some(29.0));
        assert_eq!(nearest_rank(&values, 100), Some(30.0));
        assert_eq!(nearest_rank(&values[..1], 50), Some(1.0));
        assert_eq!(nearest_rank(&values[..2], 50), Some(1.0));
        assert_eq!(nearest_rank(&[], 50), None);
    }

    #[test]
    fn runs_without_a_figure_are_not_counted_as_having_it() {
        let mut report = example::runs(4);
        report.runs[1].outage.first_ack_ms = None;
        report.runs[2].outage.first_ack_ms = Some(f64::NAN);
        report.runs[0].latency.during.count = 0;
        for run in &mut report.runs {
            run.outage.recover_ms = None;
        }
        let found = distributions(&report.runs);
        assert_eq!(found["outage_ms"].runs, 4);
        assert_eq!(found["first_ack_ms"].runs, 2);
        assert_eq!(found["latency_during_p99_ms"].runs, 3);
        assert!(!found.contains_key("recover_ms"));
        assert!(distributions(&[]).is_empty());
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(ms(88.04), "88.0 ms");
        assert_eq!(ms(12_091.4), "12,091 ms");
        assert_eq!(number(-1_234.0), "-1,234");
        assert_eq!(number(f64::INFINITY), "-");
        assert_eq!(count(1_000_000), "1,000,000");
        assert_eq!(count(999), "999");
    }
}
