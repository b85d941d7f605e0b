//! Data on stdout.

use std::io::{self, BufWriter, ErrorKind, IsTerminal as _, StdoutLock, Write as _};

use bson::{Bson, Document, doc};
use serde_json::Value;

use crate::client::Written;
use crate::model::Answer;

use super::args::Format;
use super::exit::say;
use super::table::{self, for_people};
use crate::text::shown_json;

/// Whoever read stdout has read enough, like `head`. The command ends quietly.
#[derive(Debug, thiserror::Error)]
#[error("stdout is closed")]
pub struct StdoutClosed;

/// Prints in one format.
#[derive(Debug)]
pub struct Output {
    format: Format,
    /// Whether a person sees it at once, and not a program that wants each byte as it is.
    terminal: bool,
    out: BufWriter<StdoutLock<'static>>,
}

impl Output {
    pub fn new(format: Format) -> Self {
        Self {
            format,
            terminal: io::stdout().is_terminal(),
            out: BufWriter::new(io::stdout().lock()),
        }
    }

    /// One document on its own.
    pub fn document(mut self, document: Document) -> anyhow::Result<()> {
        match self.format {
            Format::Table => {
                let value = for_people(Bson::Document(document));
                self.line(&shown_json(&format!("{value:#}")))?;
            }
            Format::Json => self.line(&format!("{:#}", relaxed(document)))?,
            Format::Jsonl => self.line(&relaxed(document).to_string())?,
        }
        self.flush()
    }

    /// All documents of a result.
    pub fn documents(mut self, documents: Vec<Document>) -> anyhow::Result<()> {
        if documents.is_empty() {
            self.nothing("no document was found");
        }
        match self.format {
            Format::Table => {
                self.write(&table::render(&documents, table::terminal_width()))?;
            }
            Format::Json => {
                let array: Value = documents.into_iter().map(relaxed).collect();
                self.line(&format!("{array:#}"))?;
            }
            Format::Jsonl => {
                for document in documents {
                    self.line(&relaxed(document).to_string())?;
                }
            }
        }
        self.flush()
    }

    /// What a write did. `many` is whether an insert was given its documents as many.
    pub fn written(mut self, written: Written, many: bool) -> anyhow::Result<()> {
        let result = result(written, many);
        if self.format == Format::Table {
            let value = for_people(Bson::Document(result));
            self.line(&shown_json(&spaced(&value)))?;
            return self.flush();
        }
        let value = relaxed(result);
        match self.format {
            Format::Json => self.line(&format!("{value:#}"))?,
            Format::Table | Format::Jsonl => self.line(&value.to_string())?,
        }
        self.flush()
    }

    /// Tells a person that there is nothing to see; a program sees that by itself.
    pub fn nothing(&self, what: &str) {
        if self.terminal || self.format == Format::Table {
            say(what);
        }
    }

    pub fn line(&mut self, text: &str) -> anyhow::Result<()> {
        self.write(text)?;
        self.write("\n")
    }

    pub fn write(&mut self, text: &str) -> anyhow::Result<()> {
        // A table's maker has escaped what is not its own; in colours there is more than text.
        match self.format {
            Format::Json | Format::Jsonl if self.terminal => {
                checked(self.out.write_all(shown_json(text).as_bytes()))
            }
            _ => checked(self.out.write_all(text.as_bytes())),
        }
    }

    pub fn flush(&mut self) -> anyhow::Result<()> {
        checked(self.out.flush())
    }
}

fn checked(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
        other => Ok(other?),
    }
}

/// Relaxed Extended JSON: what a person would write, and every type can be read back.
pub fn relaxed(document: Document) -> Value {
    Bson::Document(document).into_relaxed_extjson()
}

/// The Data API's fields, then the place in the serial order.
fn result(written: Written, many: bool) -> Document {
    let mut result = match written.answer {
        Answer::Inserted { mut ids } if ids.len() == 1 && !many => {
            doc! { "insertedId": ids.remove(0) }
        }
        Answer::Inserted { ids } => doc! { "insertedIds": ids },
        Answer::Updated {
            matched,
            modified,
            upserted,
        } => {
            let mut counts = doc! { "matchedCount": matched, "modifiedCount": modified };
            counts.extend(upserted.map(|id| ("upsertedId".to_owned(), id)));
            counts
        }
        Answer::Deleted { deleted } => doc! { "deletedCount": deleted },
    };
    let mut put = |name: &str, value: Option<Bson>| {
        result.extend(value.map(|value| (name.to_owned(), value)));
    };
    put("position", written.position.map(Bson::Int64));
    put("stamp", written.stamp.map(Bson::Int64));
    put("replayed", written.replayed.then_some(Bson::Boolean(true)));
    result
}

/// One line with room to breathe: `{"a": 1, "b": [2, 3]}`.
fn spaced(value: &Value) -> String {
    match value {
        Value::Array(values) => {
            let parts: Vec<_> = values.iter().map(spaced).collect();
            format!("[{}]", parts.join(", "))
        }
        Value::Object(fields) => {
            let field =
                |(key, value)| format!("{}: {}", Value::String(String::clone(key)), spaced(value));
            let parts: Vec<_> = fields.iter().map(field).collect();
            format!("{{{}}}", parts.join(", "))
        }
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_tells_its_place_in_the_order() {
        let written = Written {
            answer: Answer::Inserted {
                ids: vec![Bson::Int32(7)],
            },
            position: Some(12),
            stamp: Some(13),
            replayed: true,
        };
        assert_eq!(
            spaced(&relaxed(result(written.clone(), false))),
            r#"{"insertedId": 7, "position": 12, "stamp": 13, "replayed": true}"#
        );
        assert_eq!(
            spaced(&relaxed(result(written, true))),
            r#"{"insertedIds": [7], "position": 12, "stamp": 13, "replayed": true}"#
        );
    }
}
