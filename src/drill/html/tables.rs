//! What the drawings show, in figures.

use std::collections::BTreeMap;

use crate::drill::escape::escape;
use crate::drill::outcome::{self, broken};
use crate::drill::report::{Report, Run, Verdict};
use crate::drill::stats::{self, FIGURES, KINDS, PHASES, count, number};
use crate::text::cut;

/// Further runs are in report.json.
const RUN_ROWS_MAX: usize = 1_000;
/// Further checks and settings are in report.json.
const ROWS_MAX: usize = 200;
/// A longer text is cut: report.json has it in full.
const TEXT_MAX: usize = 2_000;

/// Text from the report: bounded, and text.
pub fn text(text: &str) -> String {
    escape(&cut(text, TEXT_MAX))
}

/// A table whose first column names the rows. Cells are HTML.
fn table(caption: &str, class: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    let head: String = head
        .iter()
        .map(|cell| format!("<th scope=\"col\">{cell}</th>"))
        .collect();
    let row = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(index, cell)| match index {
            0 => format!("<th scope=\"row\">{cell}</th>"),
            _ => format!("<td>{cell}</td>"),
        });
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let rows: String = rows.iter().map(row).collect();
    format!(
        "<div class=\"scroll\"><table class=\"{class}\"><caption>{caption}</caption>\n\
         <thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
    )
}

/// The sign says it without the colour.
pub fn verdicts(caption: &str, verdicts: &[Verdict]) -> String {
    let row = |verdict: &Verdict| {
        let sign = if broken(verdict) {
            "<span class=\"bad\">✗ does not hold</span>"
        } else {
            "<span class=\"good\">✓ holds</span>"
        };
        vec![text(&verdict.name), sign.into(), text(&verdict.detail)]
    };
    let rows: Vec<_> = verdicts.iter().take(ROWS_MAX).map(row).collect();
    table(
        caption,
        "verdicts",
        &["what must hold", "verdict", "figure or witness"],
        &rows,
    )
}

pub fn distributions(report: &Report) -> String {
    let row = |figure: &stats::Figure| {
        let found = report.distributions.get(figure.key);
        let value = |of: fn(&crate::drill::report::Distribution) -> f64| {
            found.map_or_else(|| "-".into(), |found| number(of(found)))
        };
        vec![
            figure.name.to_owned(),
            found.map_or(0, |found| found.runs).to_string(),
            value(|found| found.p50),
            value(|found| found.p95),
            value(|found| found.max),
        ]
    };
    let rows: Vec<_> = FIGURES.iter().map(row).collect();
    let head = ["ms", "runs that have it", "p50", "p95", "max"];
    table("Over all runs (nearest rank)", "figures", &head, &rows)
}

pub fn latency(run: &Run) -> String {
    let row = |phase: &stats::Phase| {
        let found = (phase.of)(run);
        let values = [found.p50_ms, found.p90_ms, found.p99_ms, found.max_ms];
        let mut row = vec![phase.name.to_owned(), count(found.count)];
        let shown = |value: f64| {
            if found.count > 0 {
                number(value)
            } else {
                "-".into()
            }
        };
        row.extend(values.map(shown));
        row
    };
    let rows: Vec<_> = PHASES.iter().map(row).collect();
    let head = [
        "ms, from the time due",
        "acknowledged",
        "p50",
        "p90",
        "p99",
        "max",
    ];
    table("Latency", "figures", &head, &rows)
}

pub fn counts(runs: &[Run]) -> String {
    let head: Vec<&str> = std::iter::once("")
        .chain(KINDS.map(|kind| kind.name))
        .collect();
    let mut row = vec!["operations".to_owned()];
    row.extend(KINDS.map(|kind| count(kind.total(runs))));
    table("Operations", "figures", &head, &[row])
}

pub fn runs(runs: &[Run]) -> String {
    let mut head = vec!["run", "fault", "checks"];
    head.extend(FIGURES.map(|figure| figure.name));
    head.extend(KINDS.map(|kind| kind.name));
    let row = |run: &Run| {
        let broken = run.checks.iter().filter(|check| broken(check)).count();
        let checks = match broken {
            0 => "✓ hold".into(),
            broken => format!("<span class=\"bad\">✗ {broken}</span>"),
        };
        let fault = outcome::word(run.confirmation.verdict).to_owned();
        let mut row = vec![run.number.to_string(), fault, checks];
        row.extend(FIGURES.map(|figure| figure.of(run).map_or_else(|| "-".into(), number)));
        row.extend(KINDS.map(|kind| count((kind.of)(&run.counts))));
        row
    };
    let rows: Vec<_> = runs.iter().take(RUN_ROWS_MAX).map(row).collect();
    let caption = match runs.len() {
        ..=RUN_ROWS_MAX => "All runs; times in ms".to_owned(),
        many => format!(
            "The first {RUN_ROWS_MAX} of {} runs; times in ms",
            count(many as u64)
        ),
    };
    table(&caption, "figures", &head, &rows)
}

pub fn pairs(caption: &str, pairs: &BTreeMap<String, String>) -> String {
    let row = |(name, value): (&String, &String)| vec![text(name), text(value)];
    let rows: Vec<_> = pairs.iter().take(ROWS_MAX).map(row).collect();
    table(caption, "pairs", &["name", "value"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::escape::assert_well_formed;
    use crate::drill::example;

    #[test]
    fn a_verdict_is_told_by_more_than_its_colour() {
        let mut report = example::runs(1);
        report.verdict[1].holds = false;
        let table = verdicts("Verdict", &report.verdict);
        assert_well_formed(&table);
        assert_eq!(table.matches("✓ holds").count(), report.verdict.len() - 1);
        assert_eq!(table.matches("✗ does not hold").count(), 1);
    }

    #[test]
    fn what_no_run_has_is_a_dash() {
        let mut report = example::runs(2);
        report.distributions.remove("recover_ms");
        report.runs[0].latency.during.count = 0;
        report.runs[0].outage.detect_ms = None;
        for table in [
            distributions(&report),
            latency(&report.runs[0]),
            runs(&report.runs),
        ] {
            assert_well_formed(&table);
            assert!(table.contains("<td>-</td>"), "{table}");
        }
        assert!(counts(&report.runs).contains("<td>62</td>"));
    }
}
