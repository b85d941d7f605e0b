//! The limits of `--slo outage=300ms,loss=0`, and whether a report keeps them.

use super::report::{Percentiles, Report, Run, Verdict};
use super::stats::{self, Figure, ms, of_runs};
use crate::config::parse_bound;
use crate::ejson;

/// The names of the checks that `loss`, `doubled` and `reordered` stand for, in each run's checks.
pub const NOT_LOST: &str = "no acknowledged write lost";
pub const NOT_DOUBLED: &str = "no acknowledged write doubled";
pub const NOT_REORDERED: &str = "no acknowledged write reordered";

/// What must hold of each run: no time is longer, and no count, over all runs, is larger.
#[derive(Debug, Clone, Default)]
pub struct Slo {
    limits: Vec<Limit>,
}

#[derive(Debug, Clone)]
struct Limit {
    /// As it was given.
    text: String,
    measure: Measure,
    /// Milliseconds, or a number.
    most: f64,
}

#[derive(Debug, Clone, Copy)]
enum Measure {
    Time(Figure),
    Count(fn(&Run) -> u64),
    /// A check tells whether, not how many: its only limit is 0.
    Never(&'static str),
}

/// All that can be limited. A percentile is missing where nothing was measured.
const KEYS: [(&str, Measure); 18] = [
    ("outage", Measure::Time(stats::OUTAGE)),
    ("stall", Measure::Time(stats::STALL)),
    ("first-ack", Measure::Time(stats::FIRST_ACK)),
    ("detect", Measure::Time(stats::DETECT)),
    ("elect", Measure::Time(stats::ELECT)),
    ("recover", Measure::Time(stats::RECOVER)),
    ("answer", Measure::Time(stats::ANSWER)),
    (
        "p99-before",
        Measure::Time(phase("p99-before", |run| p99(&run.latency.before))),
    ),
    ("p99-during", Measure::Time(stats::DURING_P99)),
    (
        "p99-after",
        Measure::Time(phase("p99-after", |run| p99(&run.latency.after))),
    ),
    (
        "max-during",
        Measure::Time(phase("max-during", |run| max(&run.latency.during))),
    ),
    ("errors", Measure::Count(|run| run.counts.failed)),
    ("unknown", Measure::Count(|run| run.counts.unknown)),
    ("unsent", Measure::Count(|run| run.counts.unsent)),
    ("retried", Measure::Count(|run| run.counts.retried)),
    ("loss", Measure::Never(NOT_LOST)),
    ("doubled", Measure::Never(NOT_DOUBLED)),
    ("reordered", Measure::Never(NOT_REORDERED)),
];

const fn phase(key: &'static str, of: fn(&Run) -> Option<f64>) -> Figure {
    Figure::new(key, key, of)
}

fn p99(latency: &Percentiles) -> Option<f64> {
    (latency.count > 0).then_some(latency.p99_ms)
}

fn max(latency: &Percentiles) -> Option<f64> {
    (latency.count > 0).then_some(latency.max_ms)
}

/// As it was typed.
impl std::fmt::Display for Slo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let texts: Vec<&str> = self
            .limits
            .iter()
            .map(|limit| limit.text.as_str())
            .collect();
        f.write_str(&texts.join(","))
    }
}

/// Reads `outage=300ms,loss=0`.
pub fn parse(text: &str) -> Result<Slo, String> {
    let mut limits: Vec<Limit> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let limit = parse_limit(part)?;
        let key = |limit: &Limit| limit.text.split('=').next().map(str::to_owned);
        if limits.iter().any(|known| key(known) == key(&limit)) {
            return Err(format!(
                "'{part}' limits what is limited before: once is enough"
            ));
        }
        limits.push(limit);
    }
    Ok(Slo { limits })
}

fn parse_limit(part: &str) -> Result<Limit, String> {
    let Some((key, value)) = part.split_once('=') else {
        return Err(format!("'{part}' is no limit: write outage=300ms,loss=0"));
    };
    let (key, value) = (key.trim(), value.trim());
    let Some((_, measure)) = KEYS.iter().find(|(known, _)| *known == key) else {
        let known: Vec<&str> = KEYS.iter().map(|(known, _)| *known).collect();
        let known = known.join(", ");
        return Err(format!("'{key}' cannot be limited: one of {known}"));
    };
    let most = match measure {
        Measure::Time(_) => parse_bound(value)
            .map(|bound| bound.as_secs_f64() * 1_000.0)
            .ok_or_else(|| format!("{key}: '{value}' is not a time: write 300ms or 1.5s"))?,
        Measure::Count(_) => ejson::count_text(value)
            .map(|count| count as f64)
            .map_err(|_| format!("{key}: '{value}' is not a number: write 0, 1, 2"))?,
        Measure::Never(_) if value == "0" => 0.0,
        Measure::Never(_) => return Err(format!("{key}: the only limit is 0")),
    };
    Ok(Limit {
        text: format!("{key}={value}"),
        measure: *measure,
        most,
    })
}

/// A line for each limit. What was not measured is not kept.
pub fn judge(report: &Report, slo: &Slo) -> Vec<Verdict> {
    let line = |limit: &Limit| {
        let (holds, detail) = match limit.measure {
            Measure::Time(figure) => longest(&report.runs, figure, limit.most),
            Measure::Count(of) => total(&report.runs, of, limit.most),
            Measure::Never(check) => never(&report.runs, check),
        };
        Verdict {
            name: format!("slo {}", limit.text),
            holds,
            detail,
        }
    };
    slo.limits.iter().map(line).collect()
}

fn longest(runs: &[Run], figure: Figure, most: f64) -> (bool, String) {
    let with = runs.iter().filter_map(|run| Some((run, figure.of(run)?)));
    let Some((run, longest)) = with.max_by(|a, b| a.1.total_cmp(&b.1)) else {
        return (false, format!("not measured in {}", of_runs(runs.len())));
    };
    let at_most = match runs.len() {
        1 => ms(longest),
        many => format!("{} at most, in run {} of {many}", ms(longest), run.number),
    };
    if longest > most {
        return (false, at_most);
    }
    match runs.iter().find(|run| figure.of(run).is_none()) {
        Some(without) => (false, format!("not measured in run {}", without.number)),
        None => (true, at_most),
    }
}

fn total(runs: &[Run], of: fn(&Run) -> u64, most: f64) -> (bool, String) {
    let total: u64 = runs.iter().map(of).sum();
    let detail = format!("{} in {}", stats::count(total), of_runs(runs.len()));
    (!runs.is_empty() && total as f64 <= most, detail)
}

fn never(runs: &[Run], name: &str) -> (bool, String) {
    let check = |run: &Run| {
        let found = run.checks.iter().find(|check| check.name == name);
        (
            run.number,
            found.map(|check| (check.holds, check.detail.clone())),
        )
    };
    let found: Vec<_> = runs.iter().map(check).collect();
    let broken = found.iter().find_map(|(number, check)| {
        let (_, detail) = check.as_ref().filter(|(holds, _)| !holds)?;
        Some(format!("run {number}: {detail}"))
    });
    if let Some(detail) = broken {
        return (false, detail);
    }
    match found.iter().find(|(_, check)| check.is_none()) {
        Some((number, _)) => (false, format!("run {number} was not checked for it")),
        None if runs.is_empty() => (false, "no run".into()),
        None => (true, format!("none in {}", of_runs(runs.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::example;

    fn verdicts(report: &Report, slo: &str) -> Vec<(bool, String)> {
        let judged = judge(report, &parse(slo).unwrap());
        judged.into_iter().map(|v| (v.holds, v.detail)).collect()
    }

    fn holds(report: &Report, slo: &str) -> bool {
        verdicts(report, slo)[0].0
    }

    #[test]
    fn limits_are_kept_or_not() {
        let mut report = example::runs(3);
        for (run, outage) in report.runs.iter_mut().zip([80.0, 300.0, 90.0]) {
            run.outage.outage_ms = outage;
            run.counts.failed = 1;
        }
        assert_eq!(
            verdicts(&report, "outage=300ms,errors=3,loss=0"),
            [
                (true, "300.0 ms at most, in run 2 of 3".into()),
                (true, "3 in 3 runs".into()),
                (true, "none in 3 runs".into()),
            ]
        );
        assert!(!holds(&report, "outage=0.299s"));
        assert!(!holds(&report, "errors=2"));
        assert_eq!(
            judge(&report, &parse("outage=0.3s").unwrap())[0].name,
            "slo outage=0.3s"
        );

        report.runs[1].checks[0].holds = false;
        report.runs[1].checks[0].detail = "key 7: 41 was acknowledged".into();
        let (kept, detail) = verdicts(&report, "loss=0").remove(0);
        assert!(
            !kept && detail == "run 2: key 7: 41 was acknowledged",
            "{detail}"
        );
    }

    #[test]
    fn what_was_not_measured_is_not_kept() {
        let mut report = example::runs(3);
        report.runs[1].outage.first_ack_ms = None;
        report.runs[1].outage.detect_ms = Some(f64::NAN);
        report.runs[1].latency.during.count = 0;
        report.runs[1].checks.retain(|check| check.name != NOT_LOST);
        let all = "first-ack=9s,detect=9s,p99-during=9s,max-during=9s,loss=0";
        for (kept, detail) in verdicts(&report, all) {
            assert!(!kept && detail.contains("run 2"), "{detail}");
        }
        assert!(holds(&report, "outage=99s"));

        report.runs.clear();
        for (key, measure) in KEYS {
            let unit = if matches!(measure, Measure::Time(_)) {
                "s"
            } else {
                ""
            };
            assert!(
                !holds(&report, &format!("{key}=0{unit}")),
                "{key} holds of no run"
            );
        }
    }

    #[test]
    fn one_run_needs_no_number() {
        let mut report = example::runs(1);
        report.runs[0].outage.outage_ms = 88.0;
        assert_eq!(verdicts(&report, "outage=1s"), [(true, "88.0 ms".into())]);
    }

    #[test]
    fn mistakes_are_told_in_full() {
        let cases = [
            ("", "'' is no limit: write outage=300ms,loss=0"),
            ("outage", "'outage' is no limit"),
            ("outage=1s,", "'' is no limit"),
            (
                "speed=1",
                "'speed' cannot be limited: one of outage, stall, first-ack,",
            ),
            (
                "outage=300",
                "outage: '300' is not a time: write 300ms or 1.5s",
            ),
            ("outage=infs", "is not a time"),
            ("outage=-1s", "is not a time"),
            ("outage=ms", "is not a time"),
            ("outage=1e3ms", "is not a time"),
            ("errors=1ms", "errors: '1ms' is not a number"),
            ("errors=-1", "is not a number"),
            ("loss=1", "loss: the only limit is 0"),
            (
                "outage=1s, outage=2s",
                "'outage=2s' limits what is limited before",
            ),
        ];
        for (text, complaint) in cases {
            let error = parse(text).expect_err(text);
            assert!(error.contains(complaint), "{text}: {error}");
        }
        assert_eq!(
            parse(" outage = 1.5s , loss=0 ").unwrap().limits[0].most,
            1_500.0
        );
    }
}
