//! What the loss of a member costs, and that nothing is lost with it: every promised figure of a drill beside its bar
//! and beside the plain driver's. `cargo bench --bench drills`, or some rows: `cargo bench --bench drills -- kill`.
//! docs/figures.md quotes it. `DRUMLINE_RUNS` sets the runs a fault, `DRUMLINE_PLAIN_RUNS` those of the plain driver, and
//! `DRUMLINE_REPORTS` a folder that keeps the reports.
//!
//! Each row is `drumline drill FAULT` on a cluster of its own, so each can be had alone with all its details.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement fails by panicking"
)]

#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests")]
mod support;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use drumline::drill::report::Report;
use drumline::drill::stats::{FIRST_ACK, Figure, KINDS, OUTAGE};

use support::setting;

const RUNS_DEFAULT: u64 = 30;
const PLAIN_RUNS_DEFAULT: u64 = 3;
/// How long the load of a run lasts at least.
const SECONDS: &str = "4";
/// Operations that all rows have acknowledged together.
const OPERATIONS_BAR: u64 = 1_000_000;

/// A fault and its bars, in milliseconds to the first acknowledgement.
struct Row {
    fault: &'static [&'static str],
    p50_bar: Option<f64>,
    max_bar: f64,
    /// No request may fail or stay unknown.
    no_error: bool,
}

/// The time-out after which a silent primary counts as gone is part of the bars of a freeze and of a cut.
const ROWS: [Row; 7] = [
    row(&["stepdown"], Some(150.0), 1_200.0).without_error(),
    row(&["kill"], Some(250.0), 1_500.0),
    row(&["freeze"], Some(2_000.0 + 250.0), 3_000.0),
    row(&["isolate"], Some(2_000.0 + 250.0), 3_000.0),
    row(&["kill", "--member", "successor"], Some(300.0), 1_500.0),
    row(&["kill", "--member", "other"], Some(300.0), 1_500.0),
    row(&["majority-loss"], None, 3_000.0),
];

/// More than two cores carry, so that mistakes show: the most operations.
const CROWD: [&str; 9] = [
    "random",
    "--runs",
    "10",
    "--seconds",
    "50",
    "--rate",
    "1500",
    "--clients",
    "256",
];

const fn row(fault: &'static [&'static str], p50_bar: Option<f64>, max_bar: f64) -> Row {
    Row {
        fault,
        p50_bar,
        max_bar,
        no_error: false,
    }
}

impl Row {
    const fn without_error(self) -> Self {
        Self {
            no_error: true,
            ..self
        }
    }

    fn name(&self) -> String {
        self.fault.join(" ")
    }

    fn bar(&self) -> String {
        let p50 = self.p50_bar.map_or("-".into(), |bar| format!("{bar}"));
        let errors = if self.no_error { ", no error" } else { "" };
        format!("{p50} / {}{errors}", self.max_bar)
    }

    fn holds(&self, report: &Report) -> bool {
        let Some(time) = report.distributions.get(FIRST_ACK.key) else {
            return false;
        };
        let in_all = time.runs == report.runs.len();
        let errors = self.no_error && total(report, "failed") + total(report, "unknown") > 0;
        in_all
            && time.max <= self.max_bar
            && self.p50_bar.is_none_or(|bar| time.p50 <= bar)
            && !errors
    }
}

/// What all drills of Drumline have seen together.
#[derive(Default)]
struct Sum {
    acknowledged: u64,
    failed: u64,
    unknown: u64,
    all_hold: bool,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.acknowledged += total(report, "acknowledged");
        self.failed += total(report, "failed");
        self.unknown += total(report, "unknown");
        for check in report.verdict.iter().filter(|check| !check.holds) {
            self.all_hold = false;
            eprintln!("{}: {}: {}", report.command, check.name, check.detail);
        }
    }
}

fn main() -> ExitCode {
    let chosen = std::env::args().nth(1).unwrap_or_default();
    let all = chosen.is_empty() || chosen.starts_with('-');
    let runs = setting("DRUMLINE_RUNS", RUNS_DEFAULT).to_string();
    let plain_runs = setting("DRUMLINE_PLAIN_RUNS", PLAIN_RUNS_DEFAULT);
    let mut sum = Sum {
        all_hold: true,
        ..Sum::default()
    };
    let mut holds = true;
    println!("ms, p50 / max: to the first acknowledged write, and the longest time without one\n");
    println!("| fault | bar | first write | longest time | runs | the driver alone | runs |");
    println!("|---|---|---|---|---|---|---|");
    for row in ROWS.iter().filter(|row| all || row.name() == chosen) {
        let of_runs = |runs: &str, more: &[&str]| {
            let steady = ["--runs", runs, "--seconds", SECONDS];
            drill(&[row.fault, &steady, more].concat())
        };
        let report = of_runs(&runs, &[]);
        sum.add(&report);
        let row_holds = row.holds(&report);
        holds &= row_holds;
        let missed = if row_holds { "" } else { " (missed)" };
        let plain = match plain_runs {
            0 => "- | 0".into(),
            _ => {
                let plain = of_runs(&plain_runs.to_string(), &["--direct"]);
                format!("{} | {}", time(&plain, FIRST_ACK), plain.runs.len())
            }
        };
        println!(
            "| `{}` | {} | {}{missed} | {} | {} | {plain} |",
            row.name(),
            row.bar(),
            time(&report, FIRST_ACK),
            time(&report, OUTAGE),
            report.runs.len(),
        );
    }
    if all || CROWD[0] == chosen {
        sum.add(&drill(&CROWD));
    }
    let Sum {
        acknowledged,
        failed,
        unknown,
        all_hold,
    } = sum;
    let verdict = match all_hold {
        true => "0 lost, doubled or reordered",
        false => "NOT ALL CHECKS HOLD, see above",
    };
    println!(
        "\n{acknowledged} operations acknowledged, {failed} failed, {unknown} unknown; {verdict}"
    );
    match holds && all_hold && (!all || acknowledged >= OPERATIONS_BAR) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Runs one drill and reads its report, whatever its verdict.
fn drill(arguments: &[&str]) -> Report {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drumline"));
    command.arg("drill").args(arguments);
    if let Some(reports) = drumline::config::env_path("DRUMLINE_REPORTS") {
        let folder = Path::new(&reports).join(arguments.join("_"));
        command.arg("--report").arg(folder);
    }
    command.args(["--fresh", "-o", "json"]);
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?} gave no report: {error}"))
}

fn time(report: &Report, of: Figure) -> String {
    let time = report.distributions.get(of.key);
    time.map_or("-".into(), |time| {
        format!("{:.0} / {:.0}", time.p50, time.max)
    })
}

fn total(report: &Report, name: &str) -> u64 {
    let kind = KINDS.iter().find(|kind| kind.name == name).unwrap();
    kind.total(&report.runs)
}
