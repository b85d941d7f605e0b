//! A whole drill: its runs one after the other, each checked, and the verdict over all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::checks::{ALL_RUNS, DECIDED};
use super::outcome::{is_confirmed, word};
use super::plan::{Plan, Told};
use super::report::{Report, Run, Verdict};
use super::run::{self, Files};
use super::site::Site;
use super::slo;
use super::stats;
use crate::check::{self, CheckError, Findings};

/// Does all runs of a drill, and keeps their files below `folder`.
pub async fn drill(
    site: &Site,
    plan: &Plan,
    folder: &Path,
    told: &(dyn Fn(Told<'_>) + Sync),
) -> Result<Report, String> {
    let mut report = Report {
        versions: versions(site).await,
        fault: plan.fault.name(),
        direct: plan.direct,
        target: site.target.clone(),
        started_at: plan.started_at.clone(),
        seed: plan.seed,
        command: plan.command.clone(),
        settings: settings(site, plan).await,
        runs: Vec::new(),
        distributions: BTreeMap::new(),
        verdict: Vec::new(),
    };
    for number in 1..=plan.runs {
        let told = |what: Told<'_>| {
            let (Told::Step(text) | Told::Progress(text)) = what;
            let text = format!("run {number} of {}: {text}", plan.runs);
            told(match what {
                Told::Step(_) => Told::Step(&text),
                Told::Progress(_) => Told::Progress(&text),
            });
        };
        match checked_run(site, plan, number, folder, &told).await {
            Ok(run) => {
                told(Told::Step(&outcome(&run)));
                report.runs.push(run);
            }
            Err(why) if report.runs.is_empty() => return Err(why),
            // What the runs before have shown must not be lost with this one.
            Err(why) => {
                report.verdict.push(Verdict {
                    name: ALL_RUNS.into(),
                    holds: false,
                    detail: format!("run {number} of {}: {why}", plan.runs),
                });
                break;
            }
        }
    }
    report.distributions = stats::distributions(&report.runs);
    report.verdict.extend(verdict(&report.runs));
    if let Some(slo) = &plan.slo {
        report.verdict.extend(slo::judge(&report, slo));
    }
    Ok(report)
}

/// Does one run, and has the checker look at its history.
async fn checked_run(
    site: &Site,
    plan: &Plan,
    number: usize,
    folder: &Path,
    told: &(dyn Fn(Told<'_>) + Sync),
) -> Result<Run, String> {
    let folder = run_folder(folder, plan, number)?;
    let files = Files {
        history: folder.join("history.jsonl"),
        log: folder.join("log.jsonl"),
    };
    let mut run = run::run(site, plan, number, &files, told).await?;
    let direct = plan.direct;
    // It reads all of the history again: not on a thread that others wait for.
    let checked = tokio::task::spawn_blocking(move || check(&files, direct)).await;
    let checked = checked.map_err(|error| format!("the checker failed: {error}"))?;
    let checked = checked.map_err(|error| format!("the history cannot be checked: {error}"))?;
    run.checks.extend(checked);
    Ok(run)
}

/// The folder of one run: the drill's own if it has only one.
fn run_folder(folder: &Path, plan: &Plan, number: usize) -> Result<PathBuf, String> {
    let folder = match plan.runs {
        1 => folder.to_owned(),
        _ => folder.join(format!("run-{number:03}")),
    };
    std::fs::create_dir_all(&folder)
        .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    Ok(folder)
}

/// What the checker finds in the history of a run: the sums first, then each rule.
fn check(files: &Files, direct: bool) -> Result<Vec<Verdict>, CheckError> {
    let history = check::open(&files.history)?;
    let findings = if direct {
        check::check_unstamped(history)?
    } else {
        let log = files.log.exists().then(|| check::open(&files.log));
        check::check(history, log.transpose()?)?
    };
    let sums = sums(&findings).into_iter();
    let rules = findings.verdicts().map(|(name, holds, detail)| Verdict {
        name: name.to_owned(),
        holds,
        detail,
    });
    let decided = (findings.undecided > 0).then(|| Verdict {
        name: DECIDED.into(),
        holds: false,
        detail: format!("{} keys have too many unknown writes", findings.undecided),
    });
    Ok(sums.chain(rules).chain(decided).collect())
}

fn sums(findings: &Findings) -> [Verdict; 3] {
    let counts = &findings.counts;
    let line = |name: &str, count: u64| Verdict {
        name: name.to_owned(),
        holds: count == 0,
        detail: format!("{count} of {} acknowledged operations", counts.acknowledged),
    };
    [
        line(slo::NOT_LOST, counts.lost),
        line(slo::NOT_DOUBLED, counts.doubled),
        line(slo::NOT_REORDERED, counts.reordered),
    ]
}

/// One line on a run that has ended.
pub fn outcome(run: &Run) -> String {
    let first = match run.outage.first_ack_ms {
        Some(ms) => format!("first acknowledgement after {ms:.0} ms"),
        None => "no acknowledgement any more".into(),
    };
    let stall = match run.outage.stall_ms {
        Some(ms) => format!("stall {ms:.0} ms"),
        None => "no return".into(),
    };
    format!(
        "fault {}, {first}, outage {:.0} ms, {stall}, {} acknowledged, {} failed, {} unknown",
        word(run.confirmation.verdict),
        run.outage.outage_ms,
        run.counts.acknowledged,
        run.counts.failed,
        run.counts.unknown
    )
}

/// The verdict over all runs: every check by its name, and whether each fault was real.
fn verdict(runs: &[Run]) -> Vec<Verdict> {
    let mut verdicts = vec![over_runs(
        "the fault had its effect",
        runs.iter().map(|run| {
            let told = run.confirmation.evidence.join("; ");
            (run.number, is_confirmed(run), told)
        }),
    )];
    verdicts.push(over_runs(
        "the service came back",
        runs.iter().map(|run| {
            let back = run.outage.first_ack_ms.is_some();
            (run.number, back, outcome(run))
        }),
    ));
    let mut names: Vec<&str> = Vec::new();
    for check in runs.iter().flat_map(|run| &run.checks) {
        if !names.contains(&check.name.as_str()) {
            names.push(&check.name);
        }
    }
    for name in names {
        let of = runs.iter().flat_map(|run| {
            let own = run.checks.iter().filter(|check| check.name == name);
            own.map(|check| (run.number, check.holds, check.detail.clone()))
        });
        verdicts.push(over_runs(name, of));
    }
    verdicts
}

/// Holds if it holds in each run; the detail is that of the first run in which it does not.
fn over_runs(name: &str, of: impl Iterator<Item = (usize, bool, String)>) -> Verdict {
    let all: Vec<_> = of.collect();
    let failed: Vec<_> = all.iter().filter(|(_, holds, _)| !holds).collect();
    let detail = match (failed.first(), all.as_slice()) {
        (Some((number, _, detail)), _) if all.len() > 1 => {
            format!(
                "{} of {} runs; run {number}: {detail}",
                failed.len(),
                all.len()
            )
        }
        (Some((_, _, detail)), _) => detail.clone(),
        (None, [(_, _, detail)]) => detail.clone(),
        (None, _) => format!("in {} runs", all.len()),
    };
    Verdict {
        name: name.to_owned(),
        holds: failed.is_empty(),
        detail,
    }
}

async fn versions(site: &Site) -> BTreeMap<String, String> {
    let mongodb = site.mongodb_version().await;
    BTreeMap::from([
        ("drumline".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        (
            "mongodb".to_owned(),
            mongodb.unwrap_or_else(|| "unknown".into()),
        ),
    ])
}

async fn settings(site: &Site, plan: &Plan) -> BTreeMap<String, String> {
    let election = site.election_timeout().await;
    let election = election.map_or("unknown".into(), |time| format!("{time:?}"));
    let pairs = [
        ("clients", plan.clients.to_string()),
        ("rate", format!("{} operations a second", plan.rate)),
        ("seconds", plan.length.as_secs().to_string()),
        ("runs", plan.runs.to_string()),
        ("election time-out", election),
        ("members", site.members.len().to_string()),
        ("nodes", site.nodes.len().to_string()),
    ];
    let pairs = pairs.into_iter();
    pairs
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_in_one_run_fails_in_all() {
        let of = |holds: &[bool]| {
            let runs = (1..).zip(holds.to_vec());
            over_runs(
                "x",
                runs.map(|(number, holds)| (number, holds, format!("d{number}"))),
            )
        };
        assert!(of(&[true, true]).holds);
        let failed = of(&[true, false, false]);
        assert!(!failed.holds);
        assert_eq!(failed.detail, "2 of 3 runs; run 2: d2");
        assert_eq!(of(&[false]).detail, "d1");
    }
}
