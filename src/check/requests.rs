//! Request ids: each in one line of the history, and in the log where its client was told.

use std::collections::BTreeMap;

use super::CheckError;
use super::findings::{Findings, Rule};
use super::line::Told;
use super::log::{Count, Log, Logged, Touched};
use super::sort::{Row, Sorter};

/// Collections in a log that are looked at one by one. Requests in further ones are not, and that is told.
const NAMESPACES_MAX: usize = 1_024;

/// A write of the history, by its request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub request: (u64, u64),
    pub line: u64,
    pub end: End,
    /// What the reply said that was done.
    pub told: Told,
    pub stamp: u64,
    pub position: u64,
    pub key: u64,
}

/// What its client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Acknowledged,
    Refused,
    Failed,
    Unknown,
}

const ENDS: [End; 4] = [End::Acknowledged, End::Refused, End::Failed, End::Unknown];
const TOLD: [Told; 4] = [Told::Refused, Told::Zero, Told::One, Told::Nothing];
const TOLD_SHIFT: u32 = 2;
const LINE_SHIFT: u32 = 4;

impl Asked {
    pub(super) const WORDS: usize = 6;

    pub(super) const fn row(&self) -> Row<{ Self::WORDS }> {
        [
            self.request.0,
            self.request.1,
            self.line << LINE_SHIFT | (self.told as u64) << TOLD_SHIFT | self.end as u64,
            self.stamp,
            self.position,
            self.key,
        ]
    }

    const fn of(row: Row<{ Self::WORDS }>) -> Self {
        let [high, low, what, stamp, position, key] = row;
        Self {
            request: (high, low),
            line: what >> LINE_SHIFT,
            end: ENDS[(what & 0b11) as usize],
            told: TOLD[((what >> TOLD_SHIFT) & 0b11) as usize],
            stamp,
            position,
            key,
        }
    }
}

pub(super) type Requests = Sorter<{ Asked::WORDS }>;

/// Each request id is in one line.
pub(super) fn check_alone(asked: Requests, findings: &mut Findings) -> Result<(), CheckError> {
    let mut rows = asked.sorted()?;
    let mut last: Option<Asked> = None;
    while let Some(row) = rows.next()? {
        let next = Asked::of(row);
        if let Some(last) = last {
            told_once(&last, &next, findings);
        }
        last = Some(next);
    }
    Ok(())
}

fn told_once(last: &Asked, next: &Asked, findings: &mut Findings) {
    if last.request != next.request {
        return;
    }
    let places = match (last.stamp, next.stamp) {
        (one, other) if one != 0 && other != 0 && one != other => {
            format!(", done at stamps {one} and {other}")
        }
        _ => String::new(),
    };
    findings.violate(Rule::Once, &[last.line, next.line], || {
        format!(
            "lines {} and {} are one request{places}",
            last.line, next.line
        )
    });
}

/// The same, and each request beside the log. `found` gets the place of each unknown write that the log
/// has. `stamps` are the first and the last of the history.
pub(super) fn check_log(
    asked: Requests,
    log: Log,
    stamps: (u64, u64),
    findings: &mut Findings,
    mut found: impl FnMut(&Asked, Logged) -> Result<(), CheckError>,
) -> Result<(), CheckError> {
    findings.checking(&[Rule::Durable, Rule::NothingElse]);
    let mut asked = asked.sorted()?;
    let mut logged = log.entries.sorted()?;
    let mut next_asked = asked.next()?.map(Asked::of);
    let mut next_logged = logged.next()?.map(Logged::of);
    let mut namespaces = Namespaces::new(stamps);
    while let Some(request) = first(next_asked, next_logged) {
        let mut line: Option<Asked> = None;
        while let Some(asked_now) = next_asked.filter(|asked| asked.request == request) {
            match &line {
                Some(line) => told_once(line, &asked_now, findings),
                None => line = Some(asked_now),
            }
            next_asked = asked.next()?.map(Asked::of);
        }
        let mut entry: Option<Logged> = None;
        while let Some(logged_now) = next_logged.filter(|logged| logged.request == request) {
            match &entry {
                Some(entry) => done_once(line, entry, &logged_now, findings),
                None => entry = Some(logged_now),
            }
            next_logged = logged.next()?.map(Logged::of);
        }
        match (line, entry) {
            (Some(line), Some(entry)) => {
                namespaces.asked(&entry);
                compare(&line, &entry, findings);
                if line.end == End::Unknown {
                    found(&line, entry)?;
                }
            }
            (Some(line), None) => missing(&line, log.first, log.last, findings)?,
            (None, Some(entry)) => namespaces.nobody(&entry),
            (None, None) => (),
        }
    }
    namespaces.tell(findings);
    Ok(())
}

fn first(asked: Option<Asked>, logged: Option<Logged>) -> Option<(u64, u64)> {
    match (asked, logged) {
        (Some(asked), Some(logged)) => Some(asked.request.min(logged.request)),
        (Some(asked), None) => Some(asked.request),
        (None, logged) => logged.map(|logged| logged.request),
    }
}

fn done_once(line: Option<Asked>, one: &Logged, other: &Logged, findings: &mut Findings) {
    let lines: Vec<_> = line.iter().map(|line| line.line).collect();
    let what = match line {
        Some(line) => format!("the request of line {}", line.line),
        None => "a request that is not in the history".into(),
    };
    findings.violate(Rule::Once, &lines, || {
        format!(
            "{what} is in the log twice, at positions {} and {}",
            one.position, other.position
        )
    });
}

fn compare(line: &Asked, entry: &Logged, findings: &mut Findings) {
    let number = line.line;
    let at = entry.position;
    match line.end {
        End::Unknown => (),
        // A refusal that is logged has done nothing, as its client was told.
        End::Failed if entry.refused => (),
        End::Failed => findings.violate(Rule::NothingElse, &[number], || {
            format!(
                "line {number} says that nothing was done, but it is in the log at position {at}"
            )
        }),
        End::Acknowledged | End::Refused => {
            let told = (line.position, line.stamp);
            if told != (at, entry.stamp) {
                findings.violate(Rule::Durable, &[number], || {
                    format!(
                        "line {number} was told position {} and stamp {}, but it is in the log at position {at} with stamp {}",
                        told.0, told.1, entry.stamp
                    )
                });
            } else if entry.refused != (line.end == End::Refused) {
                let logged = if entry.refused { "refused" } else { "done" };
                findings.violate(Rule::Durable, &[number], || {
                    format!("line {number} is logged as {logged} at position {at}, and its client was told otherwise")
                });
            } else if differs(line.told, entry.count) {
                findings.violate(Rule::Durable, &[number], || {
                    format!(
                        "line {number} was told that {} matched, and position {at} of the log says {}",
                        documents(line.told == Told::One),
                        match entry.count {
                            Count::More => "several",
                            count => documents(count == Count::One),
                        }
                    )
                });
            }
        }
    }
    let other_key = match entry.touched {
        Touched::Nothing => false,
        Touched::One(key) => key != line.key,
        Touched::Many => true,
    };
    if other_key {
        findings.violate(Rule::NothingElse, &[number], || {
            format!("the request of line {number} touched another document, says position {at} of the log")
        });
    }
}

/// Whether a reply and the log contradict each other about how many documents there were.
fn differs(told: Told, logged: Count) -> bool {
    match told {
        Told::Refused | Told::Nothing => false,
        Told::Zero => !matches!(logged, Count::Unsaid | Count::Zero),
        Told::One => !matches!(logged, Count::Unsaid | Count::One),
    }
}

const fn documents(one: bool) -> &'static str {
    if one { "one document" } else { "none" }
}

fn missing(
    line: &Asked,
    log_first: u64,
    log_last: u64,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    if !matches!(line.end, End::Acknowledged | End::Refused) {
        return Ok(());
    }
    if line.position < log_first {
        return Err(CheckError::LogTooShort {
            line: line.line,
            position: line.position,
            first: log_first,
        });
    }
    findings.violate(Rule::Durable, &[line.line], || {
        let behind = match line.position > log_last {
            true => format!(
                ", which ends at position {log_last}: if it was printed too early, print it again"
            ),
            false => String::new(),
        };
        format!(
            "line {} was acknowledged at position {} with stamp {}, and is not in the log{behind}",
            line.line, line.position, line.stamp
        )
    });
    Ok(())
}

/// Entries of requests that are not in the history. They are wrong in a collection that the history
/// is about, and only while it lasts: somebody may have prepared it, or cleaned it up.
struct Namespaces {
    stamps: (u64, u64),
    by_digest: BTreeMap<u64, Namespace>,
    /// Some were too many.
    left_out: bool,
}

#[derive(Default)]
struct Namespace {
    asked: bool,
    nobody: u64,
    position: u64,
}

impl Namespaces {
    const fn new(stamps: (u64, u64)) -> Self {
        Self {
            stamps,
            by_digest: BTreeMap::new(),
            left_out: false,
        }
    }

    fn of(&mut self, entry: &Logged) -> Option<&mut Namespace> {
        let full = self.by_digest.len() >= NAMESPACES_MAX;
        if full && !self.by_digest.contains_key(&entry.namespace) {
            self.left_out = true;
            return None;
        }
        Some(self.by_digest.entry(entry.namespace).or_default())
    }

    fn asked(&mut self, entry: &Logged) {
        if let Some(namespace) = self.of(entry) {
            namespace.asked = true;
        }
    }

    fn nobody(&mut self, entry: &Logged) {
        let (first, last) = self.stamps;
        if entry.refused || !(first..=last).contains(&entry.stamp) {
            return;
        }
        if let Some(namespace) = self.of(entry) {
            namespace.nobody += 1;
            namespace.position = entry.position;
        }
    }

    fn tell(self, findings: &mut Findings) {
        if self.left_out {
            findings.not_checked.push(format!(
                "with more than {NAMESPACES_MAX} collections in the log: that nobody else wrote to the further ones"
            ));
        }
        for namespace in self.by_digest.into_values() {
            if namespace.asked && namespace.nobody > 0 {
                findings.violate(Rule::NothingElse, &[], || {
                    format!(
                        "{} requests that no line of the history asked for are in the log, as at position {}",
                        namespace.nobody, namespace.position
                    )
                });
            }
        }
    }
}
