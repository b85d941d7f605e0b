//! Two reports side by side. Says what differs; which of them is better is for the reader.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::outcome::{self, Outcome};
use super::report::{Distribution, Report, Verdict};
use super::stats::{self, FIGURES, number};
use crate::text::{columns, cut, one_line, width as width_of, wrapped};

/// All that differs between two reports, and their figures.
#[derive(Debug, Serialize)]
pub struct Diff {
    /// What was set up in another way: the figures of unlike drills tell little of each other.
    pub settings: Vec<Change>,
    pub outcome: Change,
    pub runs: [usize; 2],
    pub figures: Vec<Compared>,
    pub counts: Vec<CountChange>,
    /// Verdicts that hold in one only, or are in one only.
    pub verdicts: Vec<Change>,
}

/// A value on both sides; null where a side has none.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub name: String,
    pub a: Option<String>,
    pub b: Option<String>,
}

/// A figure's distributions; null where no run has it.
#[derive(Debug, Serialize)]
pub struct Compared {
    pub name: &'static str,
    pub a: Option<Distribution>,
    pub b: Option<Distribution>,
    /// B to A.
    pub p50_ratio: Option<f64>,
    pub p95_ratio: Option<f64>,
    pub max_ratio: Option<f64>,
}

/// Over all runs.
#[derive(Debug, Serialize)]
pub struct CountChange {
    pub name: &'static str,
    pub a: u64,
    pub b: u64,
}

pub fn compare(a: &Report, b: &Report) -> Diff {
    Diff {
        settings: changes(&setup(a), &setup(b)),
        outcome: Change {
            name: "outcome".into(),
            a: Some(Outcome::of(a).word().into()),
            b: Some(Outcome::of(b).word().into()),
        },
        runs: [a.runs.len(), b.runs.len()],
        figures: figures(a, b),
        counts: counts(a, b),
        verdicts: changes(&verdicts(&a.verdict), &verdicts(&b.verdict)),
    }
}

/// What makes two drills alike. The seed is none of it: another seed is another sample.
fn setup(report: &Report) -> BTreeMap<String, String> {
    let driver = if report.direct {
        "plain driver"
    } else {
        "drumline"
    };
    let fixed = [
        ("fault", report.fault.as_str()),
        ("through", driver),
        ("target", &report.target),
    ];
    let fixed = fixed.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let versions = report.versions.iter();
    let versions = versions.map(|(name, value)| (format!("version of {name}"), value.clone()));
    let settings = report.settings.clone().into_iter();
    settings.chain(versions).chain(fixed).collect()
}

fn verdicts(verdicts: &[Verdict]) -> BTreeMap<String, String> {
    let word = |verdict: &Verdict| if outcome::broken(verdict) { "NO" } else { "ok" };
    let pair = |verdict: &Verdict| (verdict.name.clone(), word(verdict).to_owned());
    verdicts.iter().map(pair).collect()
}

fn changes(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<Change> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let change = |name: &String| Change {
        name: name.clone(),
        a: a.get(name).cloned(),
        b: b.get(name).cloned(),
    };
    let all = names.into_iter().map(change);
    all.filter(|change| change.a != change.b).collect()
}

fn figures(a: &Report, b: &Report) -> Vec<Compared> {
    // From the runs, not from what the reports say: both by the rules of this version.
    let (a, b) = (stats::distributions(&a.runs), stats::distributions(&b.runs));
    let compared = |figure: &stats::Figure| {
        let (a, b) = (a.get(figure.key), b.get(figure.key));
        let ratio = |of: fn(&Distribution) -> f64| {
            let ratio = of(b?) / of(a?);
            ratio.is_finite().then_some(ratio)
        };
        Compared {
            name: figure.name,
            p50_ratio: ratio(|found| found.p50),
            p95_ratio: ratio(|found| found.p95),
            max_ratio: ratio(|found| found.max),
            a: a.cloned(),
            b: b.cloned(),
        }
    };
    FIGURES.iter().map(compared).collect()
}

fn counts(a: &Report, b: &Report) -> Vec<CountChange> {
    let change = |kind: stats::Kind| CountChange {
        name: kind.name,
        a: kind.total(&a.runs),
        b: kind.total(&b.runs),
    };
    stats::KINDS.map(change).into()
}

/// For people, in lines of at most `width` characters.
pub fn text(a: &Report, b: &Report, width: usize) -> String {
    let diff = compare(a, b);
    let mut lines = Vec::new();
    if diff.settings.is_empty() {
        lines.push("The same drill on both sides.".to_owned());
    } else {
        lines.extend(wrapped(
            "These drills are unlike: what differs below may come from what differs here.",
            width,
        ));
        lines.extend(change_lines(&diff.settings, width));
    }
    lines.push(String::new());
    lines.extend(columns(&outcome_rows(&diff)));
    lines.push(String::new());
    lines.extend(columns(&figure_rows(&diff.figures)));
    lines.push(String::new());
    lines.extend(columns(&count_rows(&diff.counts)));
    lines.push(String::new());
    if diff.verdicts.is_empty() {
        lines.push("No verdict changed.".into());
    } else {
        lines.push("verdicts that changed".into());
        lines.extend(change_lines(&diff.verdicts, width));
    }
    let cut = lines.iter().map(|line| cut(line, width) + "\n");
    cut.collect()
}

/// Both values in full, below each other if they are long.
fn change_lines(changes: &[Change], width: usize) -> Vec<String> {
    const INDENT: &str = "  ";
    let mut lines = Vec::new();
    for change in changes {
        let side = |value: &Option<String>| value.as_deref().map_or("-".into(), one_line);
        let (name, a, b) = (one_line(&change.name), side(&change.a), side(&change.b));
        let short = format!("{INDENT}{name}: {a} -> {b}");
        if width_of(&short) <= width {
            lines.push(short);
            continue;
        }
        lines.push(format!("{INDENT}{name}"));
        for (which, value) in [("A", a), ("B", b)] {
            let room = width.saturating_sub(2 * INDENT.len() + 3);
            for (index, part) in wrapped(&value, room).iter().enumerate() {
                let which = if index == 0 { which } else { " " };
                lines.push(format!("{INDENT}{INDENT}{which}  {part}"));
            }
        }
    }
    lines
}

fn outcome_rows(diff: &Diff) -> Vec<Vec<String>> {
    let side = |value: &Option<String>| value.clone().unwrap_or_default();
    let [a, b] = diff.runs;
    vec![
        row(&["", "A", "B"]),
        row(&["outcome", &side(&diff.outcome.a), &side(&diff.outcome.b)]),
        row(&["runs", &a.to_string(), &b.to_string()]),
    ]
}

fn figure_rows(figures: &[Compared]) -> Vec<Vec<String>> {
    let mut rows = vec![row(&[
        "ms", "A p50", "B p50", "ratio", "A p95", "B p95", "ratio", "A max", "B max", "ratio",
    ])];
    for figure in figures {
        let mut cells = vec![figure.name.to_owned()];
        let mut compare = |of: fn(&Distribution) -> f64, ratio: Option<f64>| {
            for side in [&figure.a, &figure.b] {
                let value = side.as_ref().map(of);
                cells.push(value.map_or_else(|| "-".into(), number));
            }
            cells.push(ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}")));
        };
        compare(|found| found.p50, figure.p50_ratio);
        compare(|found| found.p95, figure.p95_ratio);
        compare(|found| found.max, figure.max_ratio);
        rows.push(cells);
    }
    rows
}

fn count_rows(counts: &[CountChange]) -> Vec<Vec<String>> {
    let mut rows = vec![row(&["operations", "A", "B"])];
    let of =
        |count: &CountChange| row(&[count.name, &stats::count(count.a), &stats::count(count.b)]);
    rows.extend(counts.iter().map(of));
    rows
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

/// Reads a report; the error says what the text is instead.
pub fn parse(text: &str) -> Result<Report, String> {
    const OWN: &str = env!("CARGO_PKG_VERSION");
    let error = match serde_json::from_str::<Report>(text) {
        Ok(report) => return Ok(report),
        Err(error) => error,
    };
    let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else {
        return Err(format!("it is not JSON: {error}"));
    };
    match value["versions"]["drumline"].as_str() {
        Some(other) if other != OWN => Err(format!(
            "drumline {other} wrote it, in a form that this one, {OWN}, does not read: use {other}"
        )),
        _ => Err(format!("it is not the report of a drill: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::example;

    #[test]
    fn like_drills_are_compared_by_their_figures() {
        let a = example::runs(3);
        let mut b = example::runs(3);
        b.seed = 43;
        for run in &mut b.runs {
            run.outage.outage_ms *= 2.0;
            run.counts.failed += 1;
            run.outage.recover_ms = None;
        }
        let diff = compare(&a, &b);
        assert!(diff.settings.is_empty() && diff.verdicts.is_empty());
        assert_eq!(diff.figures[0].p50_ratio, Some(2.0));
        let text = text(&a, &b, 80);
        assert!(
            text.starts_with("The same drill on both sides.\n"),
            "{text}"
        );
        assert!(text.contains("failed             0       3\n"), "{text}");
        let recover = text
            .lines()
            .find(|line| line.starts_with("recover"))
            .unwrap();
        assert_eq!(recover.matches('-').count(), 6, "{text}");
        assert!(text.lines().all(|line| width_of(line) <= 80), "{text}");
    }

    #[test]
    fn what_makes_them_unlike_stands_first() {
        let a = example::runs(2);
        let mut b = example::runs(3);
        b.direct = true;
        b.settings.insert("rate".into(), "800/s".into());
        b.settings.remove("clients");
        b.target =
            "the replica set of a mongodb URI, whose members are many and whose names are long"
                .into();
        b.verdict[0].holds = false;
        b.verdict.pop();
        let text = text(&a, &b, 80);
        let first = "These drills are unlike";
        assert!(text.starts_with(first), "{text}");
        for line in [
            "  clients: 32 -> -\n",
            "  rate: 400/s -> 800/s\n",
            "  through: drumline -> plain driver\n",
            "    A  a throw-away cluster",
            "  no acknowledged write lost: ok -> NO\n",
            "  slo loss=0: ok -> -\n",
            "outcome  HOLDS  FAILS\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(text.lines().all(|line| width_of(line) <= 80), "{text}");
    }

    #[test]
    fn hostile_reports_steer_nothing() {
        let text = text(&example::runs(1), &example::hostile(), 60);
        assert!(!text.replace('\n', "").contains(char::is_control), "{text}");
        let json = serde_json::to_string(&compare(&example::hostile(), &example::runs(1)));
        assert!(json.is_ok());
    }

    #[test]
    fn a_report_is_told_from_what_is_none() {
        let report = example::runs(2);
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(parse(&text).unwrap(), report);
        let error = |text: &str| parse(text).unwrap_err();
        assert!(error("nonsense").starts_with("it is not JSON: "));
        assert!(error(&text[..text.len() / 2]).starts_with("it is not JSON: "));
        assert!(error("{\"a\": 1}").starts_with("it is not the report of a drill: missing field"));
        let newer = r#"{"versions": {"drumline": "9.0.0"}}"#;
        assert!(error(newer).starts_with("drumline 9.0.0 wrote it, in a form that this one,"));
    }
}
