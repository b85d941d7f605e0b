//! Checks a recorded history against the promises of docs/protocol.md, in bounded memory.
//!
//! Touches only files: those it reads, those it sorts in, and the histories that `record` writes.
//! Never asks a server. docs/checker.md says what is checked and what is not.

mod clients;
mod digest;
mod export;
mod findings;
pub mod history;
mod line;
mod log;
mod order;
mod plain;
mod possible;
pub mod record;
mod replay;
mod requests;
mod sort;
mod stamped;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

pub use export::{Export, export, refuse_itself};
pub use findings::{Counts, Finding, Findings, Others, Rule, WITNESSES_MAX, Witness};

use history::Outcome;
use line::{Line, Lines};

/// What is read of a file at a time, in bytes.
const READ_BYTES: usize = 256 << 10;

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("cannot read {path}: {error}")]
    Open { path: String, error: io::Error },
    #[error("cannot write {path}: {error}")]
    Write { path: String, error: io::Error },
    #[error("{0}")]
    NoForm(&'static str),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("line {line} of the {file}: {why}")]
    Malformed {
        file: &'static str,
        line: u64,
        why: String,
    },
    #[error("the {0} is empty: that proves nothing")]
    Empty(&'static str),
    #[error(
        "the log begins at position {first}, after position {position} of line {line}: give all of it (drumline log -o jsonl)"
    )]
    LogTooShort {
        line: u64,
        position: u64,
        first: u64,
    },
}

/// Opens a file for [`check`].
pub fn open(path: &Path) -> Result<BufReader<File>, CheckError> {
    let file = open_file(path).map_err(|error| CheckError::Open {
        path: path.display().to_string(),
        error,
    })?;
    Ok(BufReader::with_capacity(READ_BYTES, file))
}

/// A folder can be opened, but not read.
fn open_file(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(file)
}

/// Checks a history whose stamps are the order in which all was done.
pub fn check(history: impl BufRead, log: Option<impl BufRead>) -> Result<Findings, CheckError> {
    let mut findings = Findings::default();
    let lines = Lines::new("history", history);
    stamped::check(lines, log, &mut findings)?;
    Ok(findings)
}

/// Checks a history without stamps, as the plain driver's are, as far as that goes.
pub fn check_unstamped(history: impl BufRead) -> Result<Findings, CheckError> {
    let mut findings = Findings::default();
    plain::check(Lines::new("history", history), &mut findings)?;
    Ok(findings)
}

fn count(line: &Line, findings: &mut Findings) {
    let counts = &mut findings.counts;
    counts.operations += 1;
    counts.reads += u64::from(line.is_read());
    match line.outcome {
        Outcome::Ok => counts.acknowledged += 1,
        Outcome::Fail if line.stamp.is_some() => counts.acknowledged += 1,
        Outcome::Fail => counts.failed += 1,
        Outcome::Unknown => counts.unknown += 1,
    }
}

/// After the last line.
fn ended(lines: &Lines<impl BufRead>, findings: &mut Findings) -> Result<(), CheckError> {
    if findings.counts.operations == 0 {
        return Err(CheckError::Empty("history"));
    }
    if lines.was_cut() {
        findings.not_checked.push(format!(
            "the last line ({}) is cut off, so the recorder was stopped: it and what was in flight then are missing, and what they wrote may look as if nobody had written it",
            lines.number()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod brute_tests;
#[cfg(test)]
mod tests;
