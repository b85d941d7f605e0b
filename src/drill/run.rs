//! One run: load, calm, the fault, its end, calm again, and a look at everything that was written.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bson::Bson;
use tokio::time::{Instant, sleep, timeout};

use super::checks::{ASKED, FALSE_ACKNOWLEDGEMENT, LOG_RECORDED, READ_BACK, REMOVED, WELL_AGAIN};
use super::confirm::confirm;
use super::dice::Dice;
use super::fault::{Act, Effect};
use super::load::{self, Ended, Load, Sample};
use super::measure::{self, Course};
use super::plan::{Plan, Told};
use super::report::{Confirmation, Confirmed, Outage, Run, Verdict};
use super::scenario::{Fault, HOLD_AFTER_SERVICE, HOLD_MAX};
use super::site::Site;
use super::timeline::{Moments, Timeline};
use super::watch::Watch;
use crate::check::history::Outcome;
use crate::check::record::{Recorder, monotonic_ns};
use crate::client::{Client, Clock};
use crate::model::Namespace;

/// The load warms up for this long before the fault may come.
const CALM_MIN: Duration = Duration::from_millis(1_500);
/// The fault comes at a random moment of this time after the calm, to meet whatever is periodic.
const PHASE_MS: u64 = 1_000;
/// How often the progress is told.
const PROGRESS: Duration = Duration::from_millis(200);
/// One request to read the log.
const CALL_MAX: Duration = Duration::from_secs(60);
/// How long a node may take to know the last entries of the log.
const LAST_ENTRIES_MAX: Duration = Duration::from_secs(10);
const LAST_ENTRIES_POLL: Duration = Duration::from_millis(20);
/// One look at a node.
const STATUS_MAX: Duration = Duration::from_secs(10);
/// Documents of the log that one request asks for.
const LOG_PAGE: u32 = 100;

/// What a run leaves on disk.
#[derive(Debug, Clone)]
pub struct Files {
    pub history: PathBuf,
    /// Not written without nodes.
    pub log: PathBuf,
}

/// A killed process may take this long to be gone, and the answer to what it has sent to arrive.
const ENDING_US: u32 = 1_000_000;

/// When the fault was done and taken back, and what was seen meanwhile.
struct Happened {
    fault_ns: u64,
    /// What is sent from here on meets the fault.
    done_ns: u64,
    heal_ns: u64,
    confirmation: Confirmation,
}

/// Does run `number`. `told` hears of each step.
pub async fn run(
    site: &Site,
    plan: &Plan,
    number: usize,
    files: &Files,
    told: &(dyn Fn(Told<'_>) + Sync),
) -> Result<Run, String> {
    let seed = Dice::part(plan.seed, number as u64).next();
    let mut dice = Dice::new(seed);
    let fault = plan.fault.draw(plan.direct, &mut dice);
    site.prepare().await?;
    let log_from = log_end(site).await?.max(1);
    let namespace = fresh_namespace()?;
    let (history, writer) = Recorder::create(&files.history).map_err(|error| error.to_string())?;
    let watch = Watch::begin(&site.reach, &site.members, &site.nodes)?;
    let load_plan = load::Plan {
        clients: plan.clients,
        rate: plan.rate,
        seed,
        namespace: namespace.clone(),
        route: site.route(plan.direct).await?,
    };
    told(Told::Step("load"));
    site.will_write(&namespace);
    let load = Load::begin(&load_plan, &history)?;
    let start_ns = load.start_ns();
    let phase = Duration::from_millis(dice.below(PHASE_MS));
    let (act, happened) = tokio::select! {
        done = under_load(site, plan, fault, phase, &load, &watch, told) => done?,
        () = tell_progress(&load, told) => return Err("the progress ended before the run".into()),
    };

    let ended = load.end().await?;
    let end_ns = monotonic_ns();
    // From here on nothing may keep the history from the checker.
    let mut ends = vec![end(WELL_AGAIN, site.wait_until_well().await)];
    let timeline = watch.timeline();
    drop(watch);
    told(Told::Step("reading back all that was written"));
    let mut run = Run {
        number,
        seed,
        ..describe(
            &act,
            fault,
            &happened,
            &ended,
            &timeline,
            (start_ns, end_ns),
        )
    };
    if plan.fault == Fault::Random {
        let drawn = format!("drawn: {}", fault.name());
        run.confirmation.evidence.insert(0, drawn);
    }
    let heard = Arc::clone(&ended.heard);
    ends.push(end(READ_BACK, all_read(ended, &history).await));
    drop(history);
    let written = writer.finish();
    written.map_err(|error| format!("{}: {error:#}", files.history.display()))?;
    if !plan.direct && !site.nodes.is_empty() {
        let recorded = record_log(site, log_from, heard.position(), &files.log).await;
        if recorded.is_err() {
            // Half a log would show violations that there are not.
            let _ = std::fs::remove_file(&files.log);
        }
        ends.push(end(LOG_RECORDED, recorded));
    }
    if !site.is_throwaway() {
        told(Told::Step("removing what was written"));
        ends.push(end(REMOVED, site.remove_what_was_written().await));
    }
    run.checks.extend(ends.into_iter().flatten());
    Ok(run)
}

/// What has gone wrong after the load, as a check that does not hold.
fn end(name: &str, ended: Result<(), String>) -> Option<Verdict> {
    Some(Verdict {
        name: name.into(),
        holds: false,
        detail: ended.err()?,
    })
}

async fn all_read(ended: Ended, history: &Recorder) -> Result<(), String> {
    match ended.read_all(history).await? {
        0 => Ok(()),
        unread => Err(format!(
            "{unread} of the keys that were written could not be read"
        )),
    }
}

/// Calm, the fault, and calm again.
async fn under_load<'a>(
    site: &'a Site,
    plan: &Plan,
    fault: Fault,
    phase: Duration,
    load: &Load,
    watch: &Watch,
    told: &(dyn Fn(Told<'_>) + Sync),
) -> Result<(Act<'a>, Happened), String> {
    let began = Instant::now();
    sleep(calm(plan) + phase).await;
    let act = Act::prepare(site, fault, plan.aim, watch).await?;
    told(Told::Step(&format!("{}: {}", fault.name(), names(&act))));
    let happened = harm(&act, fault, load, watch).await?;
    told(Told::Step("taken back"));
    load.catch_up().await;
    sleep(calm(plan)).await;
    sleep(plan.length.saturating_sub(began.elapsed())).await;
    Ok((act, happened))
}

async fn tell_progress(load: &Load, told: &(dyn Fn(Told<'_>) + Sync)) {
    loop {
        sleep(PROGRESS).await;
        told(Told::Progress(&load.progress()));
    }
}

/// Does the fault, and takes it back when the service has done without the victim for a while.
async fn harm(act: &Act<'_>, fault: Fault, load: &Load, watch: &Watch) -> Result<Happened, String> {
    watch.sharpen(true);
    act.hold()?;
    let fault_ns = monotonic_ns();
    let done = Instant::now();
    act.inject().await?;
    // A write that was sent before may have come before the fault.
    let done_ns = monotonic_ns();
    load.pulse().arm(done_ns);
    let mut effects = act.effects("right after it", watch).await;
    let hold_max = HOLD_MAX.saturating_sub(done.elapsed());
    if !fault.counts_from_healing() && timeout(hold_max, load.pulse().beat()).await.is_ok() {
        sleep(HOLD_AFTER_SERVICE).await;
    }
    sleep(fault.hold_min().saturating_sub(done.elapsed())).await;
    effects.extend(second_look(act, fault, watch).await);
    let after = watch.situation();
    let heal_ns = monotonic_ns();
    if fault.counts_from_healing() {
        load.pulse().arm(heal_ns);
    }
    act.heal().await?;
    // One that does not come back is told by the figures.
    let _ = timeout(HOLD_MAX, load.pulse().beat()).await;
    watch.sharpen(false);
    Ok(Happened {
        fault_ns,
        done_ns,
        heal_ns,
        confirmation: confirm(&effects, &act.before, &after),
    })
}

/// A fault must have lasted until it was taken back. A step-down and a restart have ended by themselves.
async fn second_look(act: &Act<'_>, fault: Fault, watch: &Watch) -> Vec<Effect> {
    if fault.is_a_command() || fault == Fault::RestartRolling {
        return Vec::new();
    }
    act.effects("at its end", watch).await
}

fn names(act: &Act<'_>) -> String {
    let names = act.victims.iter().map(|victim| victim.name.as_str());
    names.collect::<Vec<_>>().join(", ")
}

/// The time of load before the fault, and after it.
fn calm(plan: &Plan) -> Duration {
    CALM_MIN.max(plan.length / 4)
}

fn describe(
    act: &Act<'_>,
    fault: Fault,
    happened: &Happened,
    ended: &Ended,
    timeline: &Timeline,
    (start_ns, end_ns): (u64, u64),
) -> Run {
    let micros = |ns: u64| {
        let us = ns.saturating_sub(start_ns) / 1_000;
        u32::try_from(us).unwrap_or(u32::MAX)
    };
    let (fault_us, heal_us, end_us) = (
        micros(happened.fault_ns),
        micros(happened.heal_ns),
        micros(end_ns),
    );
    let (origin_us, sent_from_us) = if fault.counts_from_healing() {
        (heal_us, heal_us)
    } else {
        (fault_us, micros(happened.done_ns))
    };
    let samples = &ended.samples;
    let course = Course {
        fault_us,
        sent_from_us,
        heal_us,
        end_us,
    };
    let gap = measure::gap(samples, &course);
    let moments = moments(act, fault, happened, timeline);
    let mut checks = Vec::new();
    // Members that came back too early may acknowledge; that run proves nothing, and says so.
    if fault == Fault::MajorityLoss && happened.confirmation.verdict == Confirmed::Confirmed {
        checks.extend(no_false_acknowledgement(&ended.samples, fault_us, heal_us));
    }
    Run {
        number: 0,
        seed: 0,
        length_ms: measure::millis(end_us),
        fault_from_ms: measure::millis(fault_us),
        fault_to_ms: measure::millis(heal_us),
        victims: act.victims.iter().map(|v| v.name.clone()).collect(),
        confirmation: happened.confirmation.clone(),
        calm: Some(measure::calm(samples, fault_us)),
        outage: Outage {
            from_its_end: fault.counts_from_healing(),
            ..measure::outage(&gap, origin_us, start_ns, moments)
        },
        counts: measure::counts(samples, ended.unsent),
        buckets: measure::buckets(samples, end_us),
        latency: measure::phases(samples, fault_us, &gap),
        slowest: measure::slowest(samples),
        members: timeline.member_lanes(start_ns, end_ns),
        nodes: timeline.node_lanes(start_ns, end_ns),
        checks,
    }
}

/// The moments of the elections that the fault made necessary.
fn moments(act: &Act<'_>, fault: Fault, happened: &Happened, timeline: &Timeline) -> Moments {
    if fault.counts_from_healing() {
        return timeline.election(&act.before, happened.heal_ns);
    }
    let election = || timeline.election(&act.before, happened.fault_ns);
    let claim = || timeline.claim(&act.before, happened.fault_ns);
    match (act.hits_the_primary(), act.hits_the_coordinator()) {
        (true, false) => election(),
        (false, true) => claim(),
        (true, true) => {
            let (election, claim) = (election(), claim());
            Moments {
                detected_ns: first(election.detected_ns, claim.detected_ns),
                elected_ns: election
                    .elected_ns
                    .zip(claim.elected_ns)
                    .map(|(a, b)| a.max(b)),
                recovered_ns: election.recovered_ns,
            }
        }
        (false, false) => Moments::default(),
    }
}

fn first(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Without a majority no write can be acknowledged.
fn no_false_acknowledgement(samples: &[Sample], fault_us: u32, heal_us: u32) -> [Verdict; 2] {
    let within = |sample: &&Sample| {
        sample.is_write
            && sample.outcome == Outcome::Ok
            && sample.returned_us >= fault_us + ENDING_US
            && sample.returned_us < heal_us
    };
    let waiting = |sample: &&Sample| {
        sample.is_write && sample.sent_us < heal_us && sample.returned_us >= fault_us + ENDING_US
    };
    let count = samples.iter().filter(within).count();
    let asked = samples.iter().filter(waiting).count();
    let line = |name: &str, holds, detail| Verdict {
        name: name.to_owned(),
        holds,
        detail,
    };
    [
        line(
            FALSE_ACKNOWLEDGEMENT,
            count == 0,
            format!("{count} of {asked} while no majority of the members was there"),
        ),
        line(ASKED, asked > 0, format!("{asked} were")),
    ]
}

/// The end of the log as the nodes know it, which may be some entries behind: each is asked. One that does not
/// answer must not keep the log from the checker.
async fn log_end(site: &Site) -> Result<i64, String> {
    let mut end = None;
    let mut silent = Vec::new();
    for node in &site.nodes {
        let client = Client::new(vec![node.url.clone()], site.key.as_ref(), STATUS_MAX);
        match client.map_err(|error| error.to_string())?.status().await {
            Ok(view) => end = end.max(view.position),
            Err(error) => silent.push(format!("{}: {error}", node.name)),
        }
    }
    match end {
        None if !silent.is_empty() => Err(silent.join("; ")),
        end => Ok(end.unwrap_or(0)),
    }
}

/// Writes the log's documents from a position to its end, one a line, as `drumline log -o jsonl` prints them. What
/// clients have heard of is waited for: a node may not know of it yet. If it does not come, it is lost, and the
/// checker is to find that.
async fn record_log(site: &Site, mut from: i64, heard: i64, path: &Path) -> Result<(), String> {
    let fail = |error: &dyn std::fmt::Display| format!("cannot record the log: {error}");
    let client = site.client(CALL_MAX)?;
    let file = File::create(path).map_err(|error| fail(&error))?;
    let mut out = BufWriter::new(file);
    let clock = Clock::default();
    // Others may write on and on.
    let end = log_end(site).await?.max(heard);
    let mut patience = Instant::now() + LAST_ENTRIES_MAX;
    while from <= end {
        let page = client.log(from, LOG_PAGE, &clock).await;
        let page = page.map_err(|error| fail(&error))?;
        let Some(last) = page.last() else {
            if Instant::now() > patience {
                break;
            }
            sleep(LAST_ENTRIES_POLL).await;
            continue;
        };
        let last = last.get_i64("_id").map_err(|error| fail(&error))?;
        from = last + 1;
        patience = Instant::now() + LAST_ENTRIES_MAX;
        for document in page {
            let line = Bson::Document(document).into_relaxed_extjson();
            writeln!(out, "{line}").map_err(|error| fail(&error))?;
        }
    }
    out.flush().map_err(|error| fail(&error))
}

fn fresh_namespace() -> Result<Namespace, String> {
    let random = bson::Uuid::new().to_string();
    Namespace::new("drill", &format!("run_{}", &random[..8])).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(sent_us: u32, returned_us: u32, outcome: Outcome) -> Sample {
        Sample {
            due_us: sent_us,
            sent_us,
            returned_us,
            outcome,
            is_write: true,
            retried: false,
        }
    }

    /// Members are away from 2 s to 14 s.
    fn judged(samples: &[Sample]) -> [bool; 2] {
        no_false_acknowledgement(samples, 2_000_000, 14_000_000).map(|check| check.holds)
    }

    #[test]
    fn an_acknowledgement_without_a_majority_is_told() {
        let waited = write(2_100_000, 15_000_000, Outcome::Ok);
        let before = write(1_000_000, 2_500_000, Outcome::Ok);
        assert_eq!(judged(&[before, waited]), [true, true]);
        let early = write(3_000_000, 4_000_000, Outcome::Ok);
        assert_eq!(judged(&[waited, early]), [false, true]);
        let refused = write(3_000_000, 4_000_000, Outcome::Unknown);
        assert_eq!(judged(&[refused]), [true, true]);
    }

    #[test]
    fn without_a_question_there_is_no_proof() {
        let before = write(1_000_000, 1_500_000, Outcome::Ok);
        let after = write(14_100_000, 14_200_000, Outcome::Ok);
        assert_eq!(judged(&[before, after]), [true, false]);
    }
}
