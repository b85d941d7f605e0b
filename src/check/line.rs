//! Lines of a history, one by one, as the checker sees them.

use std::io::{BufRead, Read as _};

use serde::Deserialize;

use super::CheckError;
use super::digest::{Digest, NONE, Shape};
use super::history::{Op, Outcome};

/// The longest line, in bytes: a document of MongoDB has 16 MiB at most, and an operation has two.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// One operation, its values as digests.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    pub process: u32,
    pub request: Digest,
    pub op: Op,
    pub key: Digest,
    value: Digest,
    pub invoke_ns: u64,
    pub return_ns: u64,
    pub outcome: Outcome,
    result: Digest,
    pub stamp: Option<i64>,
    pub position: Option<i64>,
}

/// What an operation does to its key, and what its client was told of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deed {
    pub op: Op,
    pub told: Told,
    /// The value that is stored; of a read the value that it shows; of a compare-and-set the one it expects.
    pub value: u64,
    /// What a compare-and-set stores.
    pub to: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Refused at its place in the order.
    Refused,
    /// No document matched.
    Zero,
    /// Done: a document matched, or an insert or a read succeeded.
    One,
    /// Nothing.
    Nothing,
}

impl Line {
    /// What the operation is for its key; an error says which field is wrong.
    pub(super) fn deed(&self) -> Result<Deed, String> {
        let told = match self.outcome {
            Outcome::Unknown => Told::Nothing,
            Outcome::Fail => Told::Refused,
            Outcome::Ok => self.told()?,
        };
        let (value, to) = match (self.op, self.value.shape) {
            (Op::Read, _) => (self.result.low, NONE),
            (Op::Delete, _) => (NONE, NONE),
            (Op::Cas, Shape::Pair(from, to)) if from != NONE && to != NONE => (from, to),
            (Op::Cas, _) => return Err("the value of a cas must be [from, to]".into()),
            (_, Shape::Null) => return Err("what is stored must not be null".into()),
            _ => (self.value.low, NONE),
        };
        Ok(Deed {
            op: self.op,
            told,
            value,
            to,
        })
    }

    fn told(&self) -> Result<Told, String> {
        match (self.op, self.result.shape) {
            (Op::Read, _) | (Op::Insert, Shape::Null) => Ok(Told::One),
            (Op::Insert, _) => Err("the result of an insert must be null".into()),
            (_, Shape::Zero) => Ok(Told::Zero),
            (_, Shape::One) => Ok(Told::One),
            (op, _) => Err(format!("the result of this {op:?} must be 0 or 1").to_lowercase()),
        }
    }

    pub(super) fn is_read(&self) -> bool {
        self.op == Op::Read
    }
}

/// Where a line is in its file, with its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub offset: u64,
    pub bytes: u64,
}

/// Reads lines with a bound, and counts them.
#[derive(Debug)]
pub(super) struct Lines<R> {
    name: &'static str,
    input: R,
    line: Vec<u8>,
    number: u64,
    /// Where the next line begins.
    offset: u64,
    /// The last line has no end and is not JSON: whoever wrote it was stopped.
    cut: bool,
}

impl<R: BufRead> Lines<R> {
    /// `name` is for errors.
    pub(super) const fn new(name: &'static str, input: R) -> Self {
        Self {
            name,
            input,
            line: Vec::new(),
            number: 0,
            offset: 0,
            cut: false,
        }
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Where the last line is.
    pub(super) const fn place(&self) -> Place {
        let bytes = self.line.len() as u64;
        Place {
            offset: self.offset - bytes,
            bytes,
        }
    }

    pub(super) const fn was_cut(&self) -> bool {
        self.cut
    }

    /// The next line that is not empty.
    pub(super) fn next<T: for<'a> Deserialize<'a>>(&mut self) -> Result<Option<T>, CheckError> {
        loop {
            self.line.clear();
            let mut bounded = self.input.by_ref().take(LINE_BYTES_MAX);
            let read = bounded.read_until(b'\n', &mut self.line);
            let bytes = read.map_err(|error| CheckError::Open {
                path: format!("the {}", self.name),
                error,
            })?;
            if bytes == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.offset += bytes as u64;
            let whole = self.line.last() == Some(&b'\n');
            if !whole && self.line.len() as u64 == LINE_BYTES_MAX {
                return Err(self.malformed("is longer than 64 MiB"));
            }
            if self.line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return match serde_json::from_slice(&self.line) {
                Ok(parsed) => Ok(Some(parsed)),
                Err(error) if !whole && error.is_eof() => {
                    self.cut = true;
                    Ok(None)
                }
                Err(error) => Err(self.malformed(&without_place(&error))),
            };
        }
    }

    pub(super) fn malformed(&self, why: &str) -> CheckError {
        CheckError::Malformed {
            file: self.name,
            line: self.number,
            why: why.to_owned(),
        }
    }
}

/// serde_json counts lines within what it was given, which is one line here.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    match error.column() {
        0 => text.to_owned(),
        column => format!("{text} (column {column})"),
    }
}
