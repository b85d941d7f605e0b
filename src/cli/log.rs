//! `drumline log`.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Bson, Document};
use tokio::time::sleep;

use super::args::{Format, Remote};
use super::output::{Output, relaxed};
use super::session::Session;
use super::table::cell;
use super::{Exit, session};

/// How many entries one request asks for.
const PAGE: u32 = 100;
/// How often `--follow` looks for new ones.
const FOLLOW_PAUSE: Duration = Duration::from_millis(200);

/// Print the log: one document a batch of requests, in the serial order.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Begin here
    #[arg(long, value_name = "POSITION", default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..))]
    from: i64,
    /// Wait for new entries until Ctrl-C
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    remote: Remote,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    session::run(&args.remote, async |session| {
        tokio::select! {
            result = print(session, args.from, args.follow) => result,
            interrupted = tokio::signal::ctrl_c() => Ok(interrupted.map(|()| Exit::Ok)?),
        }
    })
}

async fn print(session: &Session, mut from: i64, follow: bool) -> anyhow::Result<Exit> {
    let mut lines = Lines::new(session.format);
    loop {
        let page = session.log(from, PAGE).await?;
        let Some(last) = page.last() else {
            if !follow {
                return lines.end();
            }
            sleep(FOLLOW_PAUSE).await;
            continue;
        };
        from = position_after(last)?;
        for entry in page {
            lines.entry(entry)?;
        }
        lines.output.flush()?;
    }
}

fn position_after(entry: &Document) -> anyhow::Result<i64> {
    match entry.get("_id") {
        Some(Bson::Int64(position)) => Ok(position + 1),
        Some(Bson::Int32(position)) => Ok(i64::from(*position) + 1),
        _ => anyhow::bail!("the server sent a log entry without a position"),
    }
}

/// Prints entries as they come: the log may be long, so no table is built from all of it.
struct Lines {
    output: Output,
    format: Format,
    printed: u64,
}

impl Lines {
    fn new(format: Format) -> Self {
        Self {
            output: Output::new(format),
            format,
            printed: 0,
        }
    }

    fn entry(&mut self, entry: Document) -> anyhow::Result<()> {
        let first = self.printed == 0;
        self.printed += 1;
        match self.format {
            Format::Table => {
                if first {
                    let header = [
                        "POSITION", "EPOCH", "KIND", "NODE", "STAMPS", "AT", "REQUESTS",
                    ];
                    self.output.line(&columns(header.map(str::to_owned)))?;
                }
                self.output.line(&columns(summary(&entry)))
            }
            Format::Json => {
                let lead = if first { "[\n" } else { ",\n" };
                self.output.write(&format!("{lead}{:#}", relaxed(entry)))
            }
            Format::Jsonl => self.output.line(&relaxed(entry).to_string()),
        }
    }

    fn end(mut self) -> anyhow::Result<Exit> {
        if self.format == Format::Json {
            self.output
                .line(if self.printed == 0 { "[]" } else { "\n]" })?;
        }
        self.output.flush()?;
        Ok(Exit::Ok)
    }
}

fn columns([position, epoch, kind, node, stamps, at, requests]: [String; 7]) -> String {
    let line = format!(
        "{position:>8}  {epoch:>5}  {kind:<5}  {node:<6}  {stamps:<11}  {at:<24}  {requests}"
    );
    line.trim_end().to_owned()
}

fn summary(entry: &Document) -> [String; 7] {
    let field = |name: &str| entry.get(name).map(cell).unwrap_or_default();
    let counter = |name: &str| match entry.get(name) {
        Some(Bson::Document(stamp)) => stamp.get("t").map(cell).unwrap_or_default(),
        Some(other) => cell(other),
        None => String::new(),
    };
    let stamps = match (counter("first"), counter("last")) {
        (first, last) if first == last => first,
        (first, last) => format!("{first}-{last}"),
    };
    [
        field("_id"),
        field("epoch"),
        field("kind"),
        field("node"),
        stamps,
        field("at"),
        requests(entry),
    ]
}

/// How many requests of each kind, like `2 insert, 1 updateOne`.
fn requests(entry: &Document) -> String {
    let mut counts = BTreeMap::<String, u32>::new();
    for request in entry.get_array("entries").into_iter().flatten() {
        let op = request.as_document().and_then(|request| request.get("op"));
        *counts.entry(op.map(cell).unwrap_or_default()).or_default() += 1;
    }
    let parts: Vec<_> = counts
        .into_iter()
        .map(|(op, count)| format!("{count} {op}"))
        .collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    #[test]
    fn an_entry_is_one_line() {
        let entry = doc! {
            "_id": 12_i64, "epoch": 1_i64, "kind": "batch", "node": "n1", "first": 13_i64, "last": 15_i64,
            "at": bson::DateTime::from_millis(0),
            "entries": [{"op": "insert"}, {"op": "updateOne"}, {"op": "insert"}],
        };
        assert_eq!(
            columns(summary(&entry)),
            "      12      1  batch  n1      13-15        1970-01-01T00:00:00Z      2 insert, 1 updateOne"
        );
        assert_eq!(position_after(&entry).unwrap(), 13);
        assert!(position_after(&doc! {}).is_err());
    }
}
