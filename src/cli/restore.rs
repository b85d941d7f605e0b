//! `drumline restore`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;

use super::Exit;
use super::args::{Format, Remote};
use super::backup::failed;
use super::exit::{ExitError, say};
use super::output::Output;
use super::route;
use super::up::block_on;
use crate::backup::{self, Chosen, Error, Plan, Point, Selection};
use crate::store::Source;

/// Put a backup into an empty replica set.
///
/// All of the backup is read and proven before anything is touched. The log comes back with the
/// documents, so the restored cluster can be served at once: its nodes go on with a new epoch. Stop
/// nodes that run on the replica set first.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder of the backup
    dir: PathBuf,
    /// Stop after the batch at this position of the log
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(i64).range(0..))]
    to_position: Option<i64>,
    /// Stop after the last change that was made by this time, like 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "to_position", value_parser = parse_time)]
    to_time: Option<i64>,
    /// Stop after the request with this stamp, also within a batch
    #[arg(
        long,
        value_name = "STAMP",
        conflicts_with_all = ["to_position", "to_time"],
        value_parser = clap::value_parser!(i64).range(0..)
    )]
    to_stamp: Option<i64>,
    /// Restore this collection or view alone, under another name with `a.b=c.d`. May be repeated.
    /// The log is left out
    #[arg(long, value_name = "NS[=NS]")]
    ns: Vec<Chosen>,
    /// Drop every database of the replica set first; with --ns, what is to be restored
    #[arg(long)]
    drop: bool,
    /// Do not ask before --drop drops
    #[arg(long)]
    yes: bool,
    /// Prove the backup, say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    remote: Remote,
}

fn parse_time(text: &str) -> Result<i64, String> {
    let time = bson::DateTime::parse_rfc3339_str(text);
    let time = time.map_err(|_| "give a time with its offset, like 2026-01-31T12:00:00Z")?;
    Ok(time.timestamp_millis())
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let settings = args.remote.settings()?;
    let uri = route::mongodb(&args.remote, &settings)?;
    let format = Format::choose(&settings)?;
    let point = match (args.to_position, args.to_time, args.to_stamp) {
        (Some(position), ..) => Point::Position(position),
        (_, Some(time), _) => Point::Wall(time),
        (.., Some(stamp)) => Point::Stamp(stamp),
        _ => Point::End,
    };
    let selection = Selection::new(args.ns).map_err(failed)?;
    block_on(async move {
        let target = Source::connect(uri.expose()).await.map_err(Error::from);
        let target = target.map_err(failed)?;
        let plan = Plan::make(&args.dir, point, &selection, &target, &say);
        let plan = plan.await.map_err(failed)?;
        tell(&plan, &selection);
        let what = format!("{} collections as of {}", plan.collections(), plan.mark());
        if args.dry_run {
            let obstacle = plan.obstacle(args.drop);
            if let Some(obstacle) = &obstacle {
                say(obstacle);
            }
            say(&format!("would restore {what}; nothing was changed"));
            return Ok(match obstacle.is_some() {
                true => Exit::Failed,
                false => Exit::Ok,
            });
        }
        if let Some(obstacle) = plan.obstacle(args.drop) {
            return Err(failed(Error::Target(obstacle)));
        }
        let how = if plan.goes_on {
            "goes on to restore"
        } else {
            "restores"
        };
        say(&format!("{how} {what}"));
        if args.drop && !plan.goes_on && !plan.occupied.is_empty() && !args.yes {
            confirm(&plan.occupied)?;
        }
        let restored = backup::restore(&plan, args.drop, &target, &say);
        let restored = restored.await.map_err(failed)?;
        say(&format!(
            "restored {} as of {}: counts and sums of all collections were read back and agree",
            doc_count(restored.documents()),
            restored.mark
        ));
        let mut result = restored.document();
        result.extend(
            plan.torn
                .clone()
                .map(|torn| ("torn".to_owned(), torn.into())),
        );
        Output::new(format).document(result)?;
        Ok(Exit::Ok)
    })?
}

/// What can be restored, and what will not be.
fn tell(plan: &Plan, selection: &Selection) {
    for window in &plan.windows {
        say(&format!("can be restored: {window}"));
    }
    for left_out in plan.left_out() {
        say(&format!("not in the backup: {left_out}"));
    }
    if !selection.is_everything() {
        say("the log is not restored: the replica set keeps its own order and request ids");
    }
    if let Some(torn) = &plan.torn {
        say(torn);
    }
}

fn doc_count(count: i64) -> String {
    match count {
        1 => "1 document".to_owned(),
        count => format!("{count} documents"),
    }
}

/// Asks on a terminal whether everything may be dropped.
fn confirm(occupied: &[String]) -> Result<(), ExitError> {
    let what = format!("--drop drops {} collections and views", occupied.len());
    if !std::io::stdin().is_terminal() {
        return Err(ExitError::usage(format!(
            "{what}: give --yes if that is meant"
        )));
    }
    let mut err = std::io::stderr();
    let _ = write!(err, "{what} of the replica set. Go on? [y/N] ");
    let _ = err.flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match read.is_ok() && answer.trim().eq_ignore_ascii_case("y") {
        true => Ok(()),
        false => Err(ExitError {
            exit: Exit::Failed,
            message: "nothing was changed".to_owned(),
        }),
    }
}
