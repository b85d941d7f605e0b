//! The log, as `drumline log -o jsonl` prints it: is it in order by itself?

use std::io::BufRead;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::CheckError;
use super::digest::Digest;
use super::findings::{Findings, Rule};
use super::line::Lines;
use super::order::BatchEnds;
use super::sort::{Row, Sorter};

/// One document of the log; what else it holds is of no interest here.
#[derive(Debug, Deserialize)]
struct Document {
    #[serde(rename = "_id")]
    position: i64,
    epoch: i64,
    kind: Kind,
    first: i64,
    last: i64,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Claim,
    Batch,
}

#[derive(Debug, Deserialize)]
struct Entry {
    t: i64,
    id: Digest,
    ns: Digest,
    keys: Vec<Digest>,
    error: Option<IgnoredAny>,
    result: Option<Done>,
}

/// What an entry says that it did, in numbers of documents. One of the three is there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Done {
    inserted: Option<i64>,
    matched: Option<i64>,
    deleted: Option<i64>,
}

impl Done {
    /// What the client of one operation on one key must have been told.
    fn count(&self) -> Count {
        match self.inserted.or(self.matched).or(self.deleted) {
            None => Count::Unsaid,
            Some(0) => Count::Zero,
            Some(1) => Count::One,
            Some(_) => Count::More,
        }
    }
}

/// An entry of the log, by its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Logged {
    pub request: (u64, u64),
    pub stamp: u64,
    pub position: u64,
    /// The collection.
    pub namespace: u64,
    pub touched: Touched,
    pub refused: bool,
    pub count: Count,
}

/// How many documents were inserted, matched or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    Unsaid,
    Zero,
    One,
    More,
}

const COUNTS: [Count; 4] = [Count::Unsaid, Count::Zero, Count::One, Count::More];

/// What an entry says that it touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touched {
    Nothing,
    /// One document, with this key.
    One(u64),
    Many,
}

const TOUCHED_NOTHING: u64 = 0;
const TOUCHED_ONE: u64 = 1;
const TOUCHED_MANY: u64 = 2;
const REFUSED_SHIFT: u32 = 2;
const COUNT_SHIFT: u32 = 3;

impl Logged {
    pub(super) const WORDS: usize = 7;

    fn row(&self) -> Row<{ Self::WORDS }> {
        let (touched, key) = match self.touched {
            Touched::Nothing => (TOUCHED_NOTHING, 0),
            Touched::One(key) => (TOUCHED_ONE, key),
            Touched::Many => (TOUCHED_MANY, 0),
        };
        [
            self.request.0,
            self.request.1,
            self.stamp,
            self.position,
            self.namespace,
            key,
            (self.count as u64) << COUNT_SHIFT | u64::from(self.refused) << REFUSED_SHIFT | touched,
        ]
    }

    pub(super) const fn of(row: Row<{ Self::WORDS }>) -> Self {
        let [high, low, stamp, position, namespace, key, what] = row;
        Self {
            request: (high, low),
            stamp,
            position,
            namespace,
            touched: match what & 0b11 {
                TOUCHED_NOTHING => Touched::Nothing,
                TOUCHED_ONE => Touched::One(key),
                _ => Touched::Many,
            },
            refused: (what >> REFUSED_SHIFT) & 1 == 1,
            count: COUNTS[((what >> COUNT_SHIFT) & 0b11) as usize],
        }
    }
}

/// The log after it was read.
#[derive(Debug)]
pub(super) struct Log {
    pub entries: Sorter<{ Logged::WORDS }>,
    pub ends: BatchEnds,
    /// The position of its first document, and the largest one.
    pub first: u64,
    pub last: u64,
}

/// Reads the log and checks what it must hold by itself.
pub(super) fn read(input: impl BufRead, findings: &mut Findings) -> Result<Log, CheckError> {
    findings.checking(&[Rule::Contiguous, Rule::Epochs]);
    let mut lines = Lines::new("log", input);
    let mut log = Log {
        entries: Sorter::new(),
        ends: Sorter::new(),
        first: 0,
        last: 0,
    };
    let mut tail = None;
    while let Some(document) = lines.next::<Document>()? {
        let negative = || lines.malformed("has a negative position or stamp");
        let position = u64::try_from(document.position).map_err(|_| negative())?;
        let last = u64::try_from(document.last).map_err(|_| negative())?;
        if tail.is_none() {
            log.first = position;
        }
        log.last = log.last.max(position);
        follows(tail.as_ref(), &document, findings);
        log.ends.push([last, position])?;
        for entry in &document.entries {
            findings.counts.entries += 1;
            let logged = Logged {
                request: (entry.id.high, entry.id.low),
                stamp: u64::try_from(entry.t).map_err(|_| negative())?,
                position,
                namespace: entry.ns.low,
                touched: match entry.keys.as_slice() {
                    [] => Touched::Nothing,
                    [key] => Touched::One(key.low),
                    _ => Touched::Many,
                },
                refused: entry.error.is_some(),
                count: entry.result.as_ref().map_or(Count::Unsaid, Done::count),
            };
            log.entries.push(logged.row())?;
        }
        tail = Some(Tail {
            position: document.position,
            epoch: document.epoch,
            last: document.last,
        });
    }
    if tail.is_none() {
        return Err(CheckError::Empty("log"));
    }
    if lines.was_cut() {
        let told = format!("the log's last line ({}) is cut off", lines.number());
        findings.not_checked.push(told);
    }
    if log.first > 1 {
        findings.not_checked.push(format!(
            "the log begins at position {}: what came before is taken to be older than the history",
            log.first
        ));
    }
    Ok(log)
}

/// The document before.
#[derive(Debug)]
struct Tail {
    position: i64,
    epoch: i64,
    last: i64,
}

fn follows(tail: Option<&Tail>, next: &Document, findings: &mut Findings) {
    let position = next.position;
    if let Some(tail) = tail {
        if tail.position.checked_add(1) != Some(position) {
            findings.violate(Rule::Contiguous, &[], || {
                format!("position {position} follows {} in the log", tail.position)
            });
        }
        let fits = match next.kind {
            Kind::Claim => next.epoch > tail.epoch,
            Kind::Batch => next.epoch == tail.epoch,
        };
        if !fits {
            findings.violate(Rule::Epochs, &[], || {
                format!(
                    "position {position} is a {} of epoch {}, and stands after epoch {}",
                    format!("{:?}", next.kind).to_lowercase(),
                    next.epoch,
                    tail.epoch
                )
            });
        }
    }
    if tail.is_none() && position == 1 && matches!(next.kind, Kind::Batch) {
        findings.violate(Rule::Epochs, &[], || {
            "position 1 is a batch, and a log begins with a claim".into()
        });
    }
    let stamps = next.entries.iter().map(|entry| entry.t);
    let mut before = tail.map_or(0, |tail| tail.last);
    for stamp in stamps {
        if stamp <= before {
            findings.violate(Rule::Stamps, &[], || {
                format!("position {position} of the log has stamp {stamp} after {before}")
            });
        }
        before = stamp;
    }
    let ends = if next.entries.is_empty() {
        next.first == next.last && next.last > before
    } else {
        next.last == before
    };
    if !ends {
        findings.violate(Rule::Stamps, &[], || {
            format!(
                "position {position} of the log ends with stamp {}, not with its last request's",
                next.last
            )
        });
    }
}
