//! The model: each key's operations in the order of their stamps, and what each of them must answer.

use std::io;

use super::findings::{Findings, Rule};
use super::history::Op;
use super::line::{Deed, Told};
use super::possible::{Possible, Wrong};
use super::sort::{Row, Sorter};

/// An operation at its place in the order of its key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub key: (u64, u64),
    pub stamp: u64,
    pub kind: Kind,
    pub line: u64,
    pub deed: Deed,
}

/// In the order in which they stand at one stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Write,
    Read,
    /// A write that may happen anywhere after this, or never.
    Open,
}

const OPS: [Op; 6] = [
    Op::Insert,
    Op::Put,
    Op::Update,
    Op::Delete,
    Op::Cas,
    Op::Read,
];
const TOLD: [Told; 4] = [Told::Refused, Told::Zero, Told::One, Told::Nothing];
const KINDS: [Kind; 3] = [Kind::Write, Kind::Read, Kind::Open];
const KIND_SHIFT: u32 = 62;
const LINE_SHIFT: u32 = 8;
const OP_SHIFT: u32 = 2;

impl Step {
    pub(super) const WORDS: usize = 6;

    /// Sorts by key, then stamp, then kind.
    pub(super) fn row(&self) -> Row<{ Self::WORDS }> {
        let Deed {
            op,
            told,
            value,
            to,
        } = self.deed;
        let (op, told) = (op as u64, told as u64);
        let what =
            (self.kind as u64) << KIND_SHIFT | self.line << LINE_SHIFT | op << OP_SHIFT | told;
        [self.key.0, self.key.1, self.stamp, what, value, to]
    }

    /// A read at the stamp of what stands before it.
    fn is_beside(&self, before: &Self) -> bool {
        self.kind == Kind::Read && before.kind != Kind::Open && before.stamp == self.stamp
    }

    pub(super) const fn of(row: Row<{ Self::WORDS }>) -> Self {
        let [high, low, stamp, what, value, to] = row;
        let kind = (what >> KIND_SHIFT) as usize;
        Self {
            key: (high, low),
            stamp,
            kind: KINDS[kind % KINDS.len()],
            line: what << 2 >> (2 + LINE_SHIFT),
            deed: Deed {
                op: OPS[(what >> OP_SHIFT & 0b111) as usize % OPS.len()],
                told: TOLD[(what & 0b11) as usize],
                value,
                to,
            },
        }
    }
}

/// Replays each key by itself.
pub(super) fn check(steps: Sorter<{ Step::WORDS }>, findings: &mut Findings) -> io::Result<()> {
    let mut rows = steps.sorted()?;
    let mut last: Option<Step> = None;
    let mut possible = Possible::new();
    let mut given_up = false;
    while let Some(row) = rows.next()? {
        let step = Step::of(row);
        let same_key = last.filter(|last| last.key == step.key);
        last = Some(step);
        if same_key.is_none() {
            possible.clear();
            given_up = false;
        }
        if given_up {
            continue;
        }
        let gone = match step.kind {
            Kind::Open => possible.may_happen(step.deed, step.line),
            Kind::Write | Kind::Read => {
                let same = same_key.filter(|last| step.is_beside(last));
                let same = same.as_ref().map(|last| &last.deed);
                possible.happened(&step.deed, step.line, same)
            }
        };
        match gone {
            Ok(()) => (),
            Err(Wrong::Undecided) => {
                findings.undecided += 1;
                given_up = true;
            }
            Err(Wrong::Contradiction { line, exists }) => {
                contradiction(&step, line, exists, findings);
            }
        }
    }
    Ok(())
}

fn contradiction(step: &Step, before: u64, exists: bool, findings: &mut Findings) {
    let rule = match step.kind {
        Kind::Read => Rule::Reads,
        Kind::Write | Kind::Open => Rule::Replies,
    };
    let lines: Vec<_> = [before, step.line]
        .into_iter()
        .filter(|line| *line > 0)
        .collect();
    findings.violate(rule, &lines, || {
        format!(
            "line {} {} at stamp {}, but {}, and no unknown write explains it",
            step.line,
            said(&step.deed),
            step.stamp,
            state(before, exists)
        )
    });
}

/// What the client was told.
pub(super) const fn said(deed: &Deed) -> &'static str {
    match (deed.op, deed.told) {
        (Op::Read, _) if deed.value == super::digest::NONE => "found no document",
        (Op::Read, _) => "read another value",
        (Op::Insert, Told::Refused) => "was refused as a duplicate",
        (_, Told::Refused) => "was refused, which only an insert can be",
        (Op::Insert, _) => "inserted the document",
        (Op::Cas, Told::Zero) => "did not find the value that it expects",
        (Op::Cas, _) => "found the value that it expects",
        (_, Told::Zero) => "found no document",
        (_, _) => "found a document",
    }
}

fn state(before: u64, exists: bool) -> String {
    match (before, exists) {
        (0, _) => "nothing was ever stored before".into(),
        (line, true) => format!("line {line} had stored its value last"),
        (line, false) => format!("line {line} had deleted it"),
    }
}
