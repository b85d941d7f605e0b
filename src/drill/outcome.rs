//! A whole report in one word.

use super::report::{Confirmed, Report, Run, Verdict};
use super::stats::{FIRST_ACK, OUTAGE, ms, nearest_rank, of_runs};

/// What a drill proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All that was checked holds, and every fault had its effect.
    Holds,
    /// Nothing was found wrong, but a fault was not seen to happen, or nothing was checked.
    Unproven,
    Fails,
}

impl Outcome {
    pub fn of(report: &Report) -> Self {
        let mut checks = report.runs.iter().flat_map(|run| &run.checks);
        if report.verdict.iter().chain(&mut checks).any(broken) {
            return Self::Fails;
        }
        let checked = !report.verdict.is_empty() && !report.runs.is_empty();
        if checked && report.runs.iter().all(is_confirmed) {
            Self::Holds
        } else {
            Self::Unproven
        }
    }

    /// The first word that a person reads.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Holds => "HOLDS",
            Self::Unproven => "UNPROVEN",
            Self::Fails => "FAILS",
        }
    }
}

/// The outcome's reason, in one line that a person can act on.
pub fn headline(report: &Report) -> String {
    let told = match Outcome::of(report) {
        Outcome::Fails => first_broken(report),
        Outcome::Unproven => unproven(report),
        Outcome::Holds => {
            let checks = report.verdict.len();
            format!("{}; all {checks} checks hold", cost(&report.runs))
        }
    };
    match not_calm(&report.runs) {
        Some(note) => format!("{told}; but {note}"),
        None => told,
    }
}

/// That the machine did not carry the load of the latest run of all, before any fault.
pub fn not_calm(runs: &[Run]) -> Option<String> {
    let late = |run: &Run| {
        let calm = run.calm.as_ref().filter(|calm| !calm.carried)?;
        Some((calm.late_p99_ms, run.number))
    };
    let (p99, number) = runs
        .iter()
        .filter_map(late)
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    let which = match runs.len() {
        1 => String::new(),
        _ => format!(" of run {number}"),
    };
    Some(format!(
        "before the fault{which} the load was already late (p99 {}), so its times say little: \
         lower --rate, or free the machine",
        ms(p99)
    ))
}

/// The first broken line, and how many there are besides.
fn first_broken(report: &Report) -> String {
    let whole = report.verdict.iter().filter(|verdict| broken(verdict));
    let whole = whole.map(|verdict| format!("{}: {}", verdict.name, verdict.detail));
    let of_run = |run: &Run| {
        let number = run.number;
        let told = move |check: &Verdict| format!("run {number}: {}: {}", check.name, check.detail);
        let checks = run.checks.iter().filter(|check| broken(check)).map(told);
        checks.collect::<Vec<_>>()
    };
    // The verdict over all runs repeats what the runs' checks found.
    let mut lines: Vec<String> = whole.collect();
    if lines.is_empty() {
        lines = report.runs.iter().flat_map(of_run).collect();
    }
    let first = lines.first().cloned().unwrap_or_default();
    match lines.len() {
        0 | 1 => first,
        many => format!("{first} (and {} more)", many - 1),
    }
}

fn unproven(report: &Report) -> String {
    let Some(run) = report.runs.iter().find(|run| !is_confirmed(run)) else {
        return "nothing was checked".into();
    };
    let how = match run.confirmation.verdict {
        Confirmed::Mismatch => "what was seen is not what the fault does",
        Confirmed::Confirmed | Confirmed::Inconclusive => "it could not be seen",
    };
    format!("the fault of run {} is not confirmed: {how}", run.number)
}

fn cost(runs: &[Run]) -> String {
    if let [run] = runs {
        return match FIRST_ACK.of(run) {
            Some(time) if run.outage.from_its_end => {
                format!("writes go on {} after the fault's end", ms(time))
            }
            Some(time) => format!("writes go on {} after the fault", ms(time)),
            None => "no write that came after the fault was acknowledged".into(),
        };
    }
    let mut outages: Vec<f64> = runs.iter().filter_map(|run| OUTAGE.of(run)).collect();
    outages.sort_by(f64::total_cmp);
    let rank = |per_cent| nearest_rank(&outages, per_cent).map_or_else(|| "-".into(), ms);
    let (half, most) = (rank(50), rank(100));
    format!(
        "{}: an outage of {half} in the median, {most} at most",
        of_runs(runs.len())
    )
}

/// The run to look at first: one with a broken check, else one whose fault was not confirmed, else
/// the one with the longest outage.
pub fn worst(runs: &[Run]) -> Option<&Run> {
    runs.iter().max_by(|a, b| worse(a, b))
}

/// Greater is worse; of equal ones the first.
pub fn worse(a: &Run, b: &Run) -> std::cmp::Ordering {
    let rank = |run: &Run| (run.checks.iter().any(broken), !is_confirmed(run));
    let outage = a.outage.outage_ms.total_cmp(&b.outage.outage_ms);
    let order = rank(a).cmp(&rank(b)).then(outage);
    order.then(b.number.cmp(&a.number))
}

pub fn is_confirmed(run: &Run) -> bool {
    run.confirmation.verdict == Confirmed::Confirmed
}

pub const fn word(verdict: Confirmed) -> &'static str {
    match verdict {
        Confirmed::Confirmed => "confirmed",
        Confirmed::Mismatch => "mismatch",
        Confirmed::Inconclusive => "inconclusive",
    }
}

pub fn broken(verdict: &Verdict) -> bool {
    !verdict.holds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::example;

    #[test]
    fn a_drill_holds_only_if_all_was_seen_and_checked() {
        let good = example::runs(3);
        assert_eq!(Outcome::of(&good), Outcome::Holds);

        let mut report = good.clone();
        report.runs[1].confirmation.verdict = Confirmed::Inconclusive;
        assert_eq!(Outcome::of(&report), Outcome::Unproven);
        assert_eq!(worst(&report.runs).unwrap().number, 2);

        assert_eq!(
            headline(&report),
            "the fault of run 2 is not confirmed: it could not be seen"
        );

        report.runs[2].checks[0].holds = false;
        assert_eq!(Outcome::of(&report), Outcome::Fails);
        let told = headline(&report);
        assert!(
            told.starts_with("run 3: no acknowledged write lost: "),
            "{told}"
        );
        assert_eq!(worst(&report.runs).unwrap().number, 3);

        let mut report = good.clone();
        report.verdict[0].holds = false;
        report.verdict[3].holds = false;
        assert_eq!(Outcome::of(&report), Outcome::Fails);
        assert!(headline(&report).ends_with("(and 1 more)"));

        let mut report = good.clone();
        report.verdict.clear();
        assert_eq!(Outcome::of(&report), Outcome::Unproven);
        assert_eq!(headline(&report), "nothing was checked");

        let mut report = good;
        report.runs.clear();
        assert_eq!(Outcome::of(&report), Outcome::Unproven);
        assert!(worst(&report.runs).is_none());
    }

    #[test]
    fn a_load_that_was_late_before_the_fault_is_told() {
        let mut report = example::runs(2);
        assert!(!headline(&report).contains("late"));
        report.runs[1].calm = Some(crate::drill::report::Calm {
            carried: false,
            late_p99_ms: 812.0,
        });
        let told = headline(&report);
        let note = "; but before the fault of run 2 the load was already late (p99 812.0 ms)";
        assert!(told.contains(note), "{told}");
        assert_eq!(Outcome::of(&report), Outcome::Holds);
    }

    #[test]
    fn of_sound_runs_the_longest_outage_is_the_worst() {
        let mut report = example::runs(3);
        for run in &mut report.runs {
            run.outage.outage_ms = 50.0;
        }
        assert_eq!(worst(&report.runs).unwrap().number, 1);
        report.runs[1].outage.outage_ms = 51.0;
        assert_eq!(worst(&report.runs).unwrap().number, 2);
    }
}
