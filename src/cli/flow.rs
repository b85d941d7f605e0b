//! Documents that are printed one by one as they come: there may be more of them than memory, or
//! no end of them.

use bson::Document;

use super::Exit;
use super::args::Format;
use super::output::{Output, relaxed};

/// Prints in one format. What a table looks like is its user's to say.
pub struct Flow {
    output: Output,
    pub format: Format,
    pub printed: u64,
}

impl Flow {
    pub fn new(format: Format) -> Self {
        Self {
            output: Output::new(format),
            format,
            printed: 0,
        }
    }

    /// One document. `row` makes its line of a table, and gets whether it is the first.
    pub fn document(
        &mut self,
        document: Document,
        row: impl FnOnce(&Document, bool) -> Vec<String>,
    ) -> anyhow::Result<()> {
        let first = self.printed == 0;
        self.printed += 1;
        match self.format {
            Format::Table => {
                for line in row(&document, first) {
                    self.output.line(&line)?;
                }
                Ok(())
            }
            Format::Json => {
                let lead = if first { "[\n" } else { ",\n" };
                self.output.write(&format!("{lead}{:#}", relaxed(document)))
            }
            Format::Jsonl => self.output.line(&relaxed(document).to_string()),
        }
    }

    pub fn nothing(&self, what: &str) {
        self.output.nothing(what);
    }

    pub fn flush(&mut self) -> anyhow::Result<()> {
        self.output.flush()
    }

    pub fn end(mut self) -> anyhow::Result<Exit> {
        if self.format == Format::Json {
            self.output
                .line(if self.printed == 0 { "[]" } else { "\n]" })?;
        }
        self.output.flush()?;
        Ok(Exit::Ok)
    }
}
