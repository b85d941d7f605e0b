//! `drumline drill`.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Exit;
use super::args::{Format, Remote, whole};
use super::drill_files::{self, Folder};
use super::drill_target::{self, Target};
use super::exit::{ExitError, say};
use super::output::Output;
use super::status::has_colour;
use super::table::terminal_width;
use super::{drill_diff, drill_list, drill_target::Wanted};
use crate::cluster::StopRequests;
use crate::drill::outcome::{broken, is_confirmed};
use crate::drill::report::{Report, Verdict};
use crate::drill::slo::{self, Slo};
use crate::drill::{self, Aim, Fault, Plan, Told, summary};

/// A report keeps 100 points a second, in all runs.
const LOAD_SECONDS_MAX: u64 = 36_000;
const RUN_OPERATIONS_MAX: u64 = 10_000_000;

/// Break a cluster on purpose, under load, and measure what its clients see of it.
///
/// With no cluster running it starts one of its own, drills it, and leaves nothing behind.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    /// What to do to the cluster
    #[arg(required = true)]
    fault: Option<Fault>,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u32>(1..=1_000))]
    runs: u32,
    /// How long the load of each run lasts at least
    #[arg(long, value_name = "S", default_value_t = 8, value_parser = whole::<u32>(1..=1_800))]
    seconds: u32,
    /// How many clients
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = whole::<u32>(1..=1_000))]
    clients: u32,
    /// Operations a second, all clients together
    #[arg(long, value_name = "R", default_value_t = 200, value_parser = whole::<u32>(1..=20_000))]
    rate: u32,
    /// Draw the same drill again [default: a new one]
    #[arg(long, value_name = "X", value_parser = whole::<u64>(0..=u64::MAX))]
    seed: Option<u64>,
    /// Keep report.json, report.html, history.jsonl and log.jsonl in this folder
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Fail if a limit is passed, as outage=300ms,stall=1s,loss=0: outage is the longest time without
    /// an acknowledged write from the fault until it was taken back and writes had gone on, stall the
    /// longest after that; with --report writes junit.xml too
    #[arg(long, value_name = "KEY=LIMIT,...", value_parser = slo::parse)]
    slo: Option<Slo>,
    /// The plain driver without Drumline, on a cluster without nodes, for comparison
    #[arg(long)]
    direct: bool,
    /// Which member kill, freeze and isolate hit
    #[arg(long, value_name = "WHICH", default_value = "primary")]
    member: Aim,
    /// Harm this cluster, which the drill did not start, without asking
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
    /// Drill the containers of this docker-compose project
    #[arg(long, value_name = "PROJECT", conflicts_with_all = ["fresh", "name", "servers", "mongodb", "mongodb_file"])]
    compose: Option<String>,
    /// Start a cluster for this drill even if one runs
    #[arg(long, conflicts_with_all = ["name", "servers", "mongodb", "mongodb_file"])]
    fresh: bool,
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    other: Option<Other>,
}

#[derive(Debug, clap::Subcommand)]
enum Other {
    /// Compare two reports
    Diff {
        /// A report.json, or the folder that holds it
        a: PathBuf,
        b: PathBuf,
        /// How to print
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: Format,
    },
    /// List what can be done to a cluster
    List {
        /// How to print
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: Format,
    },
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    match &args.other {
        Some(Other::Diff { a, b, output }) => return drill_diff::run(a, b, *output),
        Some(Other::List { output }) => return drill_list::run(*output),
        None => {}
    }
    let Some(fault) = args.fault else {
        let what = "name a fault, like `drumline drill kill`; `drumline drill list` has them all";
        return Err(ExitError::usage(what).into());
    };
    let settings = args.remote.settings().map_err(ExitError::from)?;
    let format = Format::choose(&settings)?;
    check(&args, fault)?;
    let target =
        drill_target::choose(&args.remote, &settings, args.fresh, args.compose.as_deref())?;
    let wanted = Wanted {
        fault,
        // A cluster that is asked for anew needs no leave.
        confirmed: args.confirm.as_deref().filter(|_| !args.fresh),
    };
    drill_target::permit(&target, &wanted, &command(&args, fault, args.seed, &target))?;
    let folder = Folder::new(args.report.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(conduct(&args, fault, &target, folder.path()));
    runtime.shutdown_background();
    let Some(report) = report? else {
        return Ok(Exit::Failed);
    };
    if args.report.is_some() {
        drill_files::write(folder.path(), &report, args.slo.is_some())?;
        say(&format!("the report is in {}", folder.path().display()));
    }
    print(format, &report)?;
    Ok(judge(&report))
}

/// What clap cannot tell.
fn check(args: &Args, fault: Fault) -> Result<(), ExitError> {
    let name = fault.name();
    if args.direct && fault.hits_a_node() {
        return Err(ExitError::usage(format!(
            "{name} hits a node, and --direct does without nodes: leave --direct out"
        )));
    }
    if u64::from(args.runs) * u64::from(args.seconds) > LOAD_SECONDS_MAX {
        return Err(ExitError::usage(format!(
            "--runs times --seconds is {LOAD_SECONDS_MAX} at most: what they show is kept in memory"
        )));
    }
    if u64::from(args.rate) * u64::from(args.seconds) > RUN_OPERATIONS_MAX {
        return Err(ExitError::usage(format!(
            "--rate times --seconds is {RUN_OPERATIONS_MAX} at most: each operation of a run is kept in memory"
        )));
    }
    if args.member != Aim::Primary && !fault.takes_aim() {
        return Err(ExitError::usage(format!(
            "--member is for kill, freeze and isolate: {name} chooses its victims itself"
        )));
    }
    Ok(())
}

/// Drills, and leaves the cluster as it was, whatever happens; `None` if it was interrupted.
async fn conduct(
    args: &Args,
    fault: Fault,
    target: &Target,
    folder: &Path,
) -> anyhow::Result<Option<Report>> {
    let stop = StopRequests::listen()?;
    // A fetch may take minutes: that is said also where nobody looks at a terminal.
    let starts = |line: &str| match line.contains("fetching") {
        true => tell(Told::Step(line)),
        false => tell(Told::Progress(line)),
    };
    let opened = drill_target::open(target, fault, args.direct, &starts);
    let site = tokio::select! {
        site = opened => site.map_err(anyhow::Error::msg)?,
        () = stop.asked() => {
            say("interrupted before the drill began");
            return Ok(None);
        }
    };
    let plan = plan(args, fault, target)?;
    let drilled = tokio::select! {
        report = drill::drill(&site, &plan, folder, &tell) => Some(report),
        () = stop.asked() => None,
    };
    let left = site.leave().await;
    match (drilled, left) {
        (Some(Ok(mut report)), left) => {
            if let Err(detail) = left {
                report.verdict.push(Verdict {
                    name: "the cluster is left as it was".into(),
                    holds: false,
                    detail,
                });
            }
            Ok(Some(report))
        }
        (Some(Err(why)), left) => {
            if let Err(also) = left {
                say(&also);
            }
            Err(anyhow::Error::msg(why))
        }
        (None, Ok(())) => {
            say("interrupted; what was done to the cluster is taken back");
            Ok(None)
        }
        (None, Err(why)) => Err(anyhow::Error::msg(why)),
    }
}

/// Steps are lines. The progress is one line that is written over, for who looks at a terminal.
fn tell(what: Told<'_>) {
    const CLEAR_LINE: &str = "\r\x1b[K";
    let mut errors = io::stderr();
    let live = errors.is_terminal();
    // A closed stderr is nobody's loss.
    match what {
        Told::Progress(text) if live => {
            let _ = write!(errors, "{CLEAR_LINE}{text}");
            let _ = errors.flush();
        }
        Told::Progress(_) => {}
        Told::Step(text) => {
            if live {
                let _ = write!(errors, "{CLEAR_LINE}");
            }
            say(text);
        }
    }
}

fn plan(args: &Args, fault: Fault, target: &Target) -> anyhow::Result<Plan> {
    let seed = args.seed.unwrap_or_else(fresh_seed);
    Ok(Plan {
        fault,
        aim: args.member,
        runs: args.runs as usize,
        length: Duration::from_secs(u64::from(args.seconds)),
        clients: args.clients,
        rate: args.rate,
        seed,
        direct: args.direct || matches!(target, Target::ReplicaSet(_)),
        slo: args.slo.clone(),
        command: again(args, fault, seed, target),
        started_at: bson::DateTime::now().try_to_rfc3339_string()?,
    })
}

/// Small enough to be typed.
fn fresh_seed() -> u64 {
    let random = bson::Uuid::new().bytes();
    u64::from(u32::from_le_bytes([
        random[0], random[1], random[2], random[3],
    ]))
}

/// The command that runs the same drill again.
fn again(args: &Args, fault: Fault, seed: u64, target: &Target) -> String {
    let command = command(args, fault, Some(seed), target);
    match &args.confirm {
        Some(name) => format!("{command} --confirm {}", quoted(name)),
        None => command,
    }
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The drill as it was asked for, without any secret and without `--confirm`.
fn command(args: &Args, fault: Fault, seed: Option<u64>, target: &Target) -> String {
    let mut words = vec!["drumline drill".to_owned(), fault.name()];
    let mut flag = |name: &str, value: &str| words.push(format!("--{name} {value}"));
    flag("runs", &args.runs.to_string());
    flag("seconds", &args.seconds.to_string());
    flag("clients", &args.clients.to_string());
    flag("rate", &args.rate.to_string());
    if let Some(seed) = seed {
        flag("seed", &seed.to_string());
    }
    match args.member {
        Aim::Primary => {}
        Aim::Successor => flag("member", "successor"),
        Aim::Other => flag("member", "other"),
    }
    if let Some(slo) = &args.slo {
        flag("slo", &slo.to_string());
    }
    match target {
        Target::ThrowAway => {}
        Target::Running(name) => flag("name", name),
        Target::Compose(project) => flag("compose", &quoted(project)),
        Target::ReplicaSet(_) => flag("mongodb-file", "FILE"),
    }
    if let Some(report) = &args.report {
        flag("report", &quoted(&report.display().to_string()));
    }
    if args.direct {
        words.push("--direct".into());
    }
    if args.fresh {
        words.push("--fresh".into());
    }
    words.join(" ")
}

fn print(format: Format, report: &Report) -> anyhow::Result<()> {
    let mut output = Output::new(format);
    match format {
        Format::Json => output.line(&serde_json::to_string_pretty(report)?)?,
        Format::Jsonl => output.line(&serde_json::to_string(report)?)?,
        Format::Table => {
            output.write(&summary::text(report, terminal_width(), has_colour()))?;
        }
    }
    output.flush()
}

/// 5 if the checker found a violation; 1 if a fault was not real or a limit was passed.
fn judge(report: &Report) -> Exit {
    let mut checks = report.runs.iter().flat_map(|run| &run.checks);
    if checks.any(|check| broken(check) && drill::tells_a_violation(check)) {
        return Exit::Violation;
    }
    let all_real = report.runs.iter().all(is_confirmed);
    if all_real && !report.verdict.iter().any(broken) {
        Exit::Ok
    } else {
        Exit::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        assert_eq!(quoted("/tmp/a-b.c"), "/tmp/a-b.c");
        assert_eq!(quoted("my reports"), "'my reports'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
