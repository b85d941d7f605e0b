//! `drumline log`.

use std::collections::BTreeMap;
use std::pin::pin;

use bson::{Bson, Document};

use super::args::{Format, Remote, whole};
use super::feed::position_of;
use super::flow::Flow;
use super::session::Session;
use super::table::{cell, terminal_width};
use super::{Exit, session};
use crate::text::{cut, left, right, width as columns_of};

/// How many entries one request asks for.
const PAGE: u32 = 100;
/// The last position that there can be.
const POSITION_MAX: u64 = i64::MAX as u64;

/// Print the log: one document a batch of requests, in the serial order.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Begin here [default: where the log begins]
    #[arg(long, value_name = "POSITION", value_parser = whole::<i64>(1..=POSITION_MAX))]
    from: Option<i64>,
    /// Wait for new entries until Ctrl-C
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    remote: Remote,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    session::run(&args.remote, async |session| {
        let mut lines = Lines::new(session.format);
        let mut interrupted = pin!(tokio::signal::ctrl_c());
        let printed = async {
            match args.follow {
                true => follow(session, args.from, &mut lines).await,
                false => print(session, args.from.unwrap_or(1), &mut lines).await,
            }
        };
        tokio::select! {
            result = printed => result?,
            done = &mut interrupted => done?,
        }
        lines.flow.end()
    })
}

async fn print(session: &Session, mut from: i64, lines: &mut Lines) -> anyhow::Result<()> {
    loop {
        let page = session.log(from, PAGE).await?;
        let Some(last) = page.last() else {
            if lines.flow.printed == 0 {
                lines.flow.nothing(&match from {
                    1 => "the log is empty".to_owned(),
                    from => format!("the log has nothing from position {from} on"),
                });
            }
            return Ok(());
        };
        from = position_of(last)? + 1;
        lines.page(page)?;
    }
}

async fn follow(session: &Session, from: Option<i64>, lines: &mut Lines) -> anyhow::Result<()> {
    let mut feed = session.follow_log(from).await?;
    loop {
        let page = feed.next().await?;
        lines.page(page)?;
    }
}

/// Prints entries as they come: the log may be long, so no table is built from all of it.
struct Lines {
    flow: Flow,
    columns: Columns,
}

impl Lines {
    fn new(format: Format) -> Self {
        Self {
            flow: Flow::new(format),
            columns: Columns::new(terminal_width()),
        }
    }

    fn page(&mut self, page: Vec<Document>) -> anyhow::Result<()> {
        // A column is as wide as the entries that are known by now need it.
        if self.flow.format == Format::Table {
            for entry in &page {
                self.columns.make_room(&summary(entry));
            }
        }
        let columns = &self.columns;
        for entry in page {
            self.flow.document(entry, |entry, first| {
                let header = first.then(|| columns.line(&HEADER.map(str::to_owned)));
                header
                    .into_iter()
                    .chain([columns.line(&summary(entry))])
                    .collect()
            })?;
        }
        self.flow.flush()
    }
}

const HEADER: [&str; 6] = ["POSITION", "EPOCH", "NODE", "STAMPS", "AT", "REQUESTS"];

const GAP: &str = "  ";
/// What was done is cut to less only on a narrower terminal than most.
const REQUESTS_LEAST: usize = 21;

/// How wide each column is; the last one takes what is left of a line.
#[derive(Debug)]
struct Columns {
    line: usize,
    widths: [usize; 6],
}

impl Columns {
    /// A longer name, or a longer span of stamps, is cut: nobody types them by hand.
    const MOST: [usize; 6] = [20, 20, 24, 40, 20, usize::MAX];

    fn new(line: usize) -> Self {
        let widths = HEADER.map(columns_of);
        Self { line, widths }
    }

    fn make_room(&mut self, row: &[String; 6]) {
        let needed = row.iter().zip(Self::MOST);
        for (width, (value, most)) in self.widths.iter_mut().zip(needed) {
            *width = (*width).max(columns_of(value).min(most));
        }
    }

    /// The names and the stamps give way to what was done.
    fn fitted(&self) -> [usize; 6] {
        const NODE: usize = 2;
        const STAMPS: usize = 3;
        const LEAST: usize = 7;
        let mut widths = self.widths;
        widths[5] = widths[5].clamp(0, REQUESTS_LEAST);
        let total = widths.iter().sum::<usize>() + GAP.len() * (widths.len() - 1);
        let mut excess = total.saturating_sub(self.line);
        for column in [NODE, STAMPS] {
            let less = excess.min(widths[column].saturating_sub(LEAST));
            widths[column] -= less;
            excess -= less;
        }
        widths[5] = usize::MAX;
        widths
    }

    /// One line of the terminal. What does not fit is cut at the end: `-o json` has all of it.
    fn line(&self, row: &[String; 6]) -> String {
        let widths = self.fitted();
        let cells = row.iter().zip(widths).enumerate();
        let cells = cells.map(|(at, (value, width))| {
            let value = cut(value, width);
            match at {
                0 | 1 => right(&value, width),
                5 => value,
                _ => left(&value, width),
            }
        });
        let line = cells.collect::<Vec<_>>().join(GAP);
        cut(line.trim_end(), self.line)
    }
}

fn summary(entry: &Document) -> [String; 6] {
    let field = |name: &str| entry.get(name).map(cell).unwrap_or_default();
    let counter = |name: &str| match entry.get(name) {
        Some(Bson::Document(stamp)) => stamp.get("t").map(cell).unwrap_or_default(),
        Some(other) => cell(other),
        None => String::new(),
    };
    let stamps = match (counter("first"), counter("last")) {
        (first, last) if first == last => first,
        (first, last) => format!("{first}-{}", differing(&first, &last)),
    };
    [
        field("_id"),
        field("epoch"),
        field("node"),
        stamps,
        entry.get("at").map(second).unwrap_or_default(),
        did(entry),
    ]
}

/// The end of a span without the digits that it begins with too, as with pages: 12355-64.
fn differing<'a>(first: &str, last: &'a str) -> &'a str {
    if first.len() != last.len() {
        return last;
    }
    let same = first.bytes().zip(last.bytes()).take_while(|(a, b)| a == b);
    last.get(same.count()..).unwrap_or(last)
}

/// A time to the second: more would take the room of what was done.
fn second(at: &Bson) -> String {
    let Bson::DateTime(at) = at else {
        return cell(at);
    };
    let whole = bson::DateTime::from_millis(at.timestamp_millis().div_euclid(1_000) * 1_000);
    cell(&Bson::DateTime(whole))
}

/// How many requests of each kind, like `2 insert, 1 updateOne`; of what is no batch its kind.
fn did(entry: &Document) -> String {
    let kind = entry.get("kind").map(cell).unwrap_or_default();
    if kind != "batch" {
        return kind;
    }
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

    fn entry(position: i64) -> Document {
        doc! {
            "_id": position, "epoch": 1_i64, "kind": "batch", "node": "n1",
            "first": position, "last": position + 2,
            "at": bson::DateTime::from_millis(999),
            "entries": [{"op": "insert"}, {"op": "updateOne"}, {"op": "insert"}],
        }
    }

    #[test]
    fn an_entry_is_one_line() {
        let mut columns = Columns::new(80);
        columns.make_room(&summary(&entry(12)));
        assert_eq!(
            columns.line(&HEADER.map(str::to_owned)),
            "POSITION  EPOCH  NODE  STAMPS  AT                    REQUESTS"
        );
        assert_eq!(
            columns.line(&summary(&entry(12))),
            "      12      1  n1    12-4    1970-01-01T00:00:00Z  2 insert, 1 updateOne"
        );
        let claim = doc! {"_id": 1_i64, "kind": "claim"};
        assert!(columns.line(&summary(&claim)).ends_with("  claim"));
        assert_eq!(summary(&entry(9))[3], "9-11");
        assert_eq!(position_of(&entry(12)).unwrap(), 12);
        assert!(position_of(&doc! {}).is_err());
    }

    #[test]
    fn no_entry_breaks_a_line() {
        let mut guest = entry(7);
        guest.extend(doc! {"node": "guest-0123456789abcdef"});
        let mut columns = Columns::new(80);
        columns.make_room(&summary(&guest));
        let line = columns.line(&summary(&guest));
        assert!(
            line.contains("guest-") && line.ends_with("  2 insert, 1 updateOne"),
            "{line}"
        );

        let ops = [
            "insert",
            "updateOne",
            "updateMany",
            "replaceOne",
            "deleteMany",
        ];
        let entries: Vec<_> = ops.iter().map(|op| doc! {"op": op}).collect();
        let mut long = entry(i64::MAX - 9);
        long.extend(doc! {"node": "太鼓".repeat(20), "entries": entries, "epoch": i64::MAX});
        for width in [20, 40, 80, 132] {
            let mut columns = Columns::new(width);
            for entry in [&entry(1), &entry(123_456_789), &long] {
                columns.make_room(&summary(entry));
                let line = columns.line(&summary(entry));
                assert!(columns_of(&line) <= width, "{width}: {line}");
            }
        }
    }
}
