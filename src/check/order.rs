//! All operations that have a stamp, in the order of their stamps: is that one order, and does real
//! time agree with it?

use std::io;

use super::findings::{Findings, Rule};
use super::sort::{Row, Sorted, Sorter};

/// An operation with its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub stamp: u64,
    /// A read stands after the write of the same stamp.
    pub read: bool,
    pub line: u64,
    pub position: u64,
    pub invoke_ns: u64,
    /// The end of time if nobody was answered.
    pub return_ns: u64,
}

impl Placed {
    pub(super) const WORDS: usize = 5;

    pub(super) fn row(&self) -> Row<{ Self::WORDS }> {
        [
            self.stamp,
            u64::from(self.read) << 63 | self.line,
            self.position,
            self.invoke_ns,
            self.return_ns,
        ]
    }

    const fn of(row: Row<{ Self::WORDS }>) -> Self {
        let [stamp, kind, position, invoke_ns, return_ns] = row;
        Self {
            stamp,
            read: kind >> 63 == 1,
            line: kind & !(1 << 63),
            position,
            invoke_ns,
            return_ns,
        }
    }
}

/// The ends of the log's documents: last stamp and position.
pub(super) type BatchEnds = Sorter<2>;

/// An invocation, and whose.
#[derive(Debug, Clone, Copy, Default)]
struct Invoked {
    at: u64,
    line: u64,
    stamp: u64,
}

impl Invoked {
    fn or_later(self, other: &Placed) -> Self {
        if other.invoke_ns <= self.at {
            return self;
        }
        Self {
            at: other.invoke_ns,
            line: other.line,
            stamp: other.stamp,
        }
    }
}

/// Goes through the order once. Needs no memory but for the last operation and the latest invocation.
pub(super) fn check(
    placed: Sorter<{ Placed::WORDS }>,
    ends: Option<BatchEnds>,
    findings: &mut Findings,
) -> io::Result<()> {
    let mut ends = ends.map(Sorter::sorted).transpose()?;
    let mut order = Order::default();
    let mut rows = placed.sorted()?;
    while let Some(row) = rows.next()? {
        let next = Placed::of(row);
        order.neighbours(&next, findings);
        order.real_time(&next, findings);
        if let Some(ends) = &mut ends
            && next.read
        {
            order.shows_whole_batches(&next, ends, findings)?;
        }
        order.last = Some(next);
    }
    Ok(())
}

#[derive(Default)]
struct Order {
    last: Option<Placed>,
    /// The latest invocation of all that must stand before the next operation.
    latest: Invoked,
    /// The same among the reads of the last stamp, which have no order among themselves.
    latest_read: Invoked,
    /// The last document of the log that was looked at.
    end: Row<2>,
}

impl Order {
    fn neighbours(&self, next: &Placed, findings: &mut Findings) {
        let Some(last) = &self.last else {
            return;
        };
        let lines = [last.line, next.line];
        let same = last.stamp == next.stamp;
        if same && !next.read {
            findings.violate(Rule::Stamps, &lines, || {
                format!(
                    "lines {} and {} are two writes with one stamp, {}",
                    last.line, next.line, next.stamp
                )
            });
            return;
        }
        // A read's stamp is the last of its position.
        let fits = match (same, last.read) {
            (true, _) => next.position == last.position,
            (false, true) => next.position > last.position,
            (false, false) => next.position >= last.position,
        };
        if !fits {
            findings.violate(Rule::Stamps, &lines, || {
                format!(
                    "line {} has stamp {} at position {}, and line {} has stamp {} at position {}",
                    last.line, last.stamp, last.position, next.line, next.stamp, next.position
                )
            });
        }
    }

    fn real_time(&mut self, next: &Placed, findings: &mut Findings) {
        if self.last.is_some_and(|last| last.stamp != next.stamp) {
            let read = std::mem::take(&mut self.latest_read);
            if read.at > self.latest.at {
                self.latest = read;
            }
        }
        let latest = self.latest;
        if latest.at > next.return_ns {
            findings.violate(Rule::RealTime, &[next.line, latest.line], || {
                format!(
                    "line {} was answered before line {} was invoked, but its stamp {} is not before {}",
                    next.line, latest.line, next.stamp, latest.stamp
                )
            });
        }
        let group = if next.read {
            &mut self.latest_read
        } else {
            &mut self.latest
        };
        *group = group.or_later(next);
    }

    /// A read shows positions as a whole: its stamp and position are those of the end of one.
    fn shows_whole_batches(
        &mut self,
        read: &Placed,
        ends: &mut Sorted<2>,
        findings: &mut Findings,
    ) -> io::Result<()> {
        while self.end[0] < read.stamp
            && let Some(end) = ends.next()?
        {
            self.end = end;
        }
        if self.end != [read.stamp, read.position] {
            findings.violate(Rule::Reads, &[read.line], || {
                format!(
                    "line {} reads at stamp {} and position {}, which is the end of no position of the log",
                    read.line, read.stamp, read.position
                )
            });
        }
        Ok(())
    }
}
