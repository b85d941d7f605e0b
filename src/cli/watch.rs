//! `drumline watch`.

use std::pin::pin;

use bson::{Bson, Document};

use super::args::Remote;
use super::flow::Flow;
use super::json::Argument;
use super::table::{cell, terminal_width};
use super::{Exit, session};
use crate::model::Namespace;
use crate::text::{cut, left, right};

/// Print the changes of a collection as they happen, until Ctrl-C.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// database.collection
    #[arg(value_name = "NS", value_parser = Namespace::parse)]
    namespace: Namespace,
    /// An array of stages over MongoDB's change events, or `-` for stdin
    #[arg(
        value_name = "PIPELINE",
        default_value = "[]",
        hide_default_value = true
    )]
    pipeline: String,
    /// Begin with the first change after the write with this stamp [default: with the next change]
    #[arg(long, value_name = "STAMP", value_parser = clap::value_parser!(i64).range(0..))]
    from_stamp: Option<i64>,
    #[command(flatten)]
    remote: Remote,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let pipeline = Argument::pipeline(&args.pipeline).to_pipeline()?;
    session::run(&args.remote, async |session| {
        let watched = session.watch(&args.namespace, pipeline, args.from_stamp);
        let mut interrupted = pin!(tokio::signal::ctrl_c());
        let mut feed = tokio::select! {
            feed = watched => feed?,
            done = &mut interrupted => return Ok(done.map(|()| Exit::Ok)?),
        };
        let mut flow = Flow::new(session.format);
        loop {
            let events = tokio::select! {
                events = feed.next() => events?,
                done = &mut interrupted => {
                    done?;
                    return flow.end();
                }
            };
            for event in events {
                flow.document(event, lines)?;
            }
            flow.flush()?;
        }
    })
}

const STAMP_COLUMNS: usize = 8;
const KIND_COLUMNS: usize = 10;
const KEY_COLUMNS: usize = 24;

fn row(stamp: &str, kind: &str, key: &str, what: &str) -> String {
    let line = format!(
        "{}  {}  {}  {what}",
        right(stamp, STAMP_COLUMNS),
        left(&cut(kind, KIND_COLUMNS), KIND_COLUMNS),
        left(&cut(key, KEY_COLUMNS), KEY_COLUMNS),
    );
    cut(line.trim_end(), terminal_width())
}

/// The line of one event, and before the first one the header. What does not fit is cut: `-o json`
/// has all of it.
fn lines(event: &Document, first: bool) -> Vec<String> {
    let text = |value: Option<&Bson>| value.map(cell).unwrap_or_default();
    let key = event.get_document("documentKey").ok();
    let line = row(
        &text(event.get("stamp")),
        &text(event.get("operationType")),
        &text(key.and_then(|key| key.get("_id"))),
        &what(event)
            .map(|what| cell(&Bson::Document(what)))
            .unwrap_or_default(),
    );
    match first {
        true => vec![row("STAMP", "CHANGE", "ID", "WHAT"), line],
        false => vec![line],
    }
}

/// What a change has made: the document, or what became of its fields.
fn what(event: &Document) -> Option<Document> {
    let without = |document: &Document, names: &[&str]| {
        let kept = document
            .iter()
            .filter(|(name, _)| !names.contains(&name.as_str()));
        kept.map(|(name, value)| (name.clone(), value.clone()))
            .collect::<Document>()
    };
    if let Ok(document) = event.get_document("fullDocument") {
        return Some(without(document, &["_id", "_stamp"]));
    }
    let update = event.get_document("updateDescription").ok()?;
    let mut changed = update
        .get_document("updatedFields")
        .map(|fields| without(fields, &["_stamp", "_stamp.t", "_stamp.n"]))
        .unwrap_or_default();
    for (name, value) in update {
        let is_empty = value.as_array().is_some_and(Vec::is_empty);
        if name != "updatedFields" && !is_empty {
            changed.insert(name.clone(), value.clone());
        }
    }
    Some(changed)
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_it_holds() {
        let event = doc! {
            "operationType": "update", "stamp": 7_i64, "documentKey": {"_id": "a\nb\u{1b}[2J"},
            "updateDescription": {
                "updatedFields": {"qty": 5, "_stamp": {"t": 7_i64, "n": "n1"}},
                "removedFields": ["x"], "truncatedArrays": [],
            },
        };
        let lines = lines(&event, true);
        assert_eq!(
            lines[0],
            "   STAMP  CHANGE      ID                        WHAT"
        );
        assert!(
            lines[1].starts_with("       7  update      a"),
            "{}",
            lines[1]
        );
        assert!(!lines[1].contains(['\n', '\u{1b}']), "{}", lines[1]);
        assert!(lines[1].contains("{\"qty\":5,"), "{}", lines[1]);
    }
}
