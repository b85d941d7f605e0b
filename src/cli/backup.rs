//! `drumline backup`.

use std::path::PathBuf;
use std::time::Duration;

use bson::{Bson, Document, doc};
use clap::Subcommand;
use tokio::sync::watch;

use super::Exit;
use super::args::{Format, Remote};
use super::exit::{ExitError, say};
use super::output::Output;
use super::route;
use super::up::block_on;
use crate::backup::{self, Error, Keep, Settings};
use crate::config::parse_duration;
use crate::store::Source;

/// The shortest and the longest time between two saves of `--follow`.
const EVERY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(300)];

/// Add what is new to a master backup, or begin one.
///
/// The first run reads every document; each later one adds what has changed since, and rewrites
/// nothing. It needs no server: it reads MongoDB's change stream, so that it holds what other
/// programs write too. A run that is killed leaves the backup as it was.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The folder of the backup, an empty one, or a new one
    #[arg(required = true)]
    dir: Option<PathBuf>,
    /// Go on until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// How often --follow saves what is new
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_every)]
    every: Duration,
    /// Begin a new base beside the old one, for example where the oplog has moved on
    #[arg(long)]
    new_base: bool,
    /// How large a file of the base becomes
    #[arg(long, hide = true, value_name = "BYTES")]
    file_bytes: Option<u64>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what can be restored
    List(Existing),
    /// Read all of a backup and prove that it is what was written
    Verify(Existing),
    /// Take out old bases and what follows on them
    ///
    /// A base stays if either flag asks for it. The base that grows and the last one that can be
    /// restored stay in any case.
    Prune(Prune),
}

/// What to take out.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("keep").required(true).multiple(true))]
struct Prune {
    #[command(flatten)]
    existing: Existing,
    /// Keep the bases that reach a point of the last so many hours
    #[arg(long, value_name = "HOURS", group = "keep")]
    keep_hours: Option<u32>,
    /// Keep so many of the last bases
    #[arg(long, value_name = "COUNT", group = "keep", value_parser = parse_bases)]
    keep_bases: Option<usize>,
    /// Say what would go, and take nothing out
    #[arg(long)]
    dry_run: bool,
}

fn parse_bases(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("give a number of bases, 1 or more".to_owned()),
    }
}

/// A backup that is there.
#[derive(Debug, clap::Args)]
struct Existing {
    /// The folder of the backup
    dir: PathBuf,
    /// How to print [default: table on a terminal, jsonl otherwise]
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

fn parse_every(text: &str) -> Result<Duration, String> {
    let [least, most] = EVERY;
    let every = parse_duration(text)?;
    match (least..=most).contains(&every) {
        true => Ok(every),
        false => Err(format!("give {least:?} to {most:?}")),
    }
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    match args.command {
        Some(Command::List(existing)) => list(&existing),
        Some(Command::Verify(existing)) => verify(&existing),
        Some(Command::Prune(prune)) => take_out(&prune),
        None => take(args),
    }
}

fn take(args: Args) -> anyhow::Result<Exit> {
    let settings = args.remote.settings()?;
    let uri = route::mongodb(&args.remote, &settings)?;
    let format = Format::choose(&settings)?;
    let settings = Settings {
        folder: args.dir.unwrap_or_default(),
        follow: args.follow.then_some(args.every),
        new_base: args.new_base,
        file_bytes: args.file_bytes,
    };
    block_on(async move {
        let source = Source::connect(uri.expose()).await.map_err(Error::from);
        let source = source.map_err(failed)?;
        let (stop, stopping) = watch::channel(false);
        let follow = settings.follow.is_some();
        let running = backup::run(&settings, &source, stopping, &say);
        tokio::pin!(running);
        let ran = tokio::select! {
            ran = &mut running => ran,
            interrupted = tokio::signal::ctrl_c(), if follow => {
                interrupted?;
                let _ = stop.send(true); // it may have ended by itself
                running.await
            }
        };
        let ran = ran.map_err(failed)?;
        for left_out in &ran.left_out {
            say(&format!("not in the backup: {left_out}"));
        }
        let mut result = doc! { "events": i64::try_from(ran.events).unwrap_or(i64::MAX) };
        if let Some(window) = ran.window {
            say(&format!("can be restored: {window}"));
            result.extend(window.document());
        }
        result.insert("leftOut", ran.left_out.clone());
        Output::new(format).document(result)?;
        Ok(match ran.left_out.is_empty() {
            true => Exit::Ok,
            false => Exit::Degraded,
        })
    })?
}

fn format_of(existing: &Existing) -> anyhow::Result<Format> {
    let settings = crate::config::Settings::load(crate::config::Layer {
        output: existing.output.map(|format| format.name().to_owned()),
        ..crate::config::Layer::default()
    });
    Ok(Format::choose(&settings.map_err(ExitError::from)?)?)
}

fn list(existing: &Existing) -> anyhow::Result<Exit> {
    let format = format_of(existing)?;
    let rows = backup::list(&existing.dir).map_err(failed)?;
    let rows = match format {
        Format::Table => rows.iter().map(flat).collect(),
        Format::Json | Format::Jsonl => rows,
    };
    Output::new(format).documents(rows)?;
    Ok(Exit::Ok)
}

/// A row of the table: what a person looks for.
fn flat(row: &Document) -> Document {
    let mut flat = Document::new();
    for name in ["base", "documents", "events", "bytes"] {
        flat.extend(row.get(name).map(|value| (name.to_owned(), value.clone())));
    }
    for (end, position, time) in [("first", "from", "since"), ("last", "to", "until")] {
        let mark = row.get_document(end).ok();
        let part = |name| mark.and_then(|mark| mark.get(name)).cloned();
        flat.insert(position, part("position").unwrap_or(Bson::Null));
        flat.insert(time, part("time").unwrap_or(Bson::Null));
    }
    flat
}

fn verify(existing: &Existing) -> anyhow::Result<Exit> {
    let format = format_of(existing)?;
    let verified = match backup::verify(&existing.dir, &say) {
        Err(error @ Error::Damaged { .. }) => {
            say(&error.to_string());
            return Ok(Exit::Violation);
        }
        verified => verified.map_err(failed)?,
    };
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let result = doc! {
        "whole": true, "bases": count(verified.bases), "files": count(verified.files),
        "bytes": count(verified.bytes), "documents": count(verified.documents),
        "events": count(verified.events),
    };
    Output::new(format).document(result)?;
    Ok(Exit::Ok)
}

fn take_out(args: &Prune) -> anyhow::Result<Exit> {
    let format = format_of(&args.existing)?;
    let hours = args.keep_hours.map(|hours| i64::from(hours) * 3_600_000);
    let now = bson::DateTime::now().timestamp_millis();
    let keep = Keep {
        since: hours.map(|hours| now - hours),
        bases: args.keep_bases,
    };
    let pruned = backup::prune(&args.existing.dir, keep, args.dry_run, &say).map_err(failed)?;
    if args.dry_run {
        say("nothing was taken out");
    }
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let bases: Vec<_> = pruned.bases.iter().map(|base| i64::from(*base)).collect();
    let result = doc! {
        "bases": bases, "files": count(pruned.files), "bytes": count(pruned.bytes),
        "dryRun": args.dry_run,
    };
    Output::new(format).document(result)?;
    Ok(Exit::Ok)
}

/// Gives an error its exit status.
pub(super) fn failed(error: Error) -> anyhow::Error {
    let message = error.to_string();
    match error {
        Error::Store(error) if error.may_pass() => ExitError::unreachable(message).into(),
        _ => anyhow::Error::msg(message),
    }
}
