//! The check of a history whose stamps say in which order all was done.

use std::io::BufRead;

use super::CheckError;
use super::clients::Clients;
use super::findings::{Findings, Rule};
use super::history::{Op, Outcome};
use super::line::{Deed, Line, Lines, Told};
use super::log::{self, Log};
use super::order::{self, Placed};
use super::replay::{self, Kind, Step};
use super::requests::{self, Asked, End};
use super::sort::{Row, Sorter};

/// What is read of a history, by what it is needed for.
struct Intake {
    has_log: bool,
    /// By stamp.
    placed: Sorter<{ Placed::WORDS }>,
    /// By key, then stamp.
    steps: Sorter<{ Step::WORDS }>,
    /// By request id.
    asked: Sorter<{ Asked::WORDS }>,
    /// Writes whose place is not known, by request id if there is a log, else by invocation.
    open: Sorter<{ Open::WORDS }>,
    /// Times of answers, with stamps; needed without a log alone.
    returned: Sorter<2>,
    clients: Clients,
    /// The first and the last.
    stamps: Option<(u64, u64)>,
}

/// A write whose place is not known.
struct Open {
    by: (u64, u64),
    invoke_ns: u64,
    /// Its stamp is still to be filled in.
    step: Step,
}

impl Open {
    const WORDS: usize = 3 + Step::WORDS;

    fn row(&self) -> Row<{ Self::WORDS }> {
        let mut row = [0; Self::WORDS];
        row[..3].copy_from_slice(&[self.by.0, self.by.1, self.invoke_ns]);
        row[3..].copy_from_slice(&self.step.row());
        row
    }

    fn of(row: Row<{ Self::WORDS }>) -> Self {
        let mut step = [0; Step::WORDS];
        step.copy_from_slice(&row[3..]);
        Self {
            by: (row[0], row[1]),
            invoke_ns: row[2],
            step: Step::of(step),
        }
    }
}

/// Checks everything, with or without a log.
pub(super) fn check(
    mut lines: Lines<impl BufRead>,
    log: Option<impl BufRead>,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    findings.checking(&[
        Rule::Stamps,
        Rule::Once,
        Rule::RealTime,
        Rule::Replies,
        Rule::Reads,
        Rule::Clients,
    ]);
    let mut intake = Intake::new(log.is_some());
    while let Some(line) = lines.next::<Line>()? {
        super::count(&line, findings);
        intake.take(&line, &lines, findings)?;
    }
    super::ended(&lines, findings)?;
    let log = log.map(|log| log::read(log, findings)).transpose()?;
    intake.check(log, findings)
}

impl Intake {
    fn new(has_log: bool) -> Self {
        Self {
            has_log,
            placed: Sorter::new(),
            steps: Sorter::new(),
            asked: Sorter::new(),
            open: Sorter::new(),
            returned: Sorter::new(),
            clients: Clients::default(),
            stamps: None,
        }
    }

    /// Takes in a line, the last one of `lines`.
    fn take(
        &mut self,
        line: &Line,
        lines: &Lines<impl BufRead>,
        findings: &mut Findings,
    ) -> Result<(), CheckError> {
        let number = lines.number();
        let malformed = |why: String| lines.malformed(&why);
        let deed = line.deed().map_err(malformed)?;
        if line.is_read() && line.outcome != Outcome::Ok {
            let taken = self.clients.take(line, number, None, findings);
            return taken.map_err(malformed);
        }
        let place = place(line);
        let refused = line.outcome == Outcome::Fail && line.stamp.is_some();
        let acknowledged = line.outcome == Outcome::Ok || refused;
        if acknowledged && place.is_none() {
            findings.violate(Rule::Stamps, &[number], || {
                format!(
                    "line {number} was acknowledged without a stamp and a position that are numbers"
                )
            });
        }
        let told = place.filter(|_| acknowledged);
        let stamp = told.map(|(stamp, _)| stamp);
        let taken = self.clients.take(line, number, stamp, findings);
        taken.map_err(malformed)?;
        let end = match told {
            Some(_) if refused => End::Refused,
            Some(_) => End::Acknowledged,
            None if line.outcome == Outcome::Fail && !refused => End::Failed,
            None => End::Unknown,
        };
        if !line.is_read() {
            if self.has_log && line.request.is_null() {
                let why = "a write without a request id cannot be found in the log";
                return Err(lines.malformed(why));
            }
            self.ask(line, number, end, told, deed.told)?;
        }
        match (end, told) {
            (End::Failed, _) => Ok(()),
            (_, Some((stamp, position))) => self.place(line, number, deed, stamp, position),
            // A read that has no place says nothing.
            (_, None) if line.is_read() => Ok(()),
            (_, None) => self.leave_open(line, number, deed),
        }
    }

    fn ask(
        &mut self,
        line: &Line,
        number: u64,
        end: End,
        told: Option<(u64, u64)>,
        reply: Told,
    ) -> Result<(), CheckError> {
        if line.request.is_null() {
            return Ok(());
        }
        let (stamp, position) = told.unwrap_or_default();
        let asked = Asked {
            request: (line.request.high, line.request.low),
            line: number,
            end,
            told: reply,
            stamp,
            position,
            key: line.key.low,
        };
        Ok(self.asked.push(asked.row())?)
    }

    fn place(
        &mut self,
        line: &Line,
        number: u64,
        deed: Deed,
        stamp: u64,
        position: u64,
    ) -> Result<(), CheckError> {
        let (first, last) = self.stamps.unwrap_or((stamp, stamp));
        self.stamps = Some((first.min(stamp), last.max(stamp)));
        let placed = Placed {
            stamp,
            read: line.is_read(),
            line: number,
            position,
            invoke_ns: line.invoke_ns,
            return_ns: line.return_ns,
        };
        self.placed.push(placed.row())?;
        if !self.has_log {
            self.returned.push([line.return_ns, stamp])?;
        }
        let kind = if line.is_read() {
            Kind::Read
        } else {
            Kind::Write
        };
        let step = step(line, number, deed, stamp, kind);
        Ok(self.steps.push(step.row())?)
    }

    fn leave_open(&mut self, line: &Line, number: u64, deed: Deed) -> Result<(), CheckError> {
        let deed = Deed {
            told: Told::Nothing,
            ..deed
        };
        let open = Open {
            by: if self.has_log {
                (line.request.high, line.request.low)
            } else {
                (line.invoke_ns, 0)
            },
            invoke_ns: line.invoke_ns,
            step: step(line, number, deed, 0, Kind::Open),
        };
        Ok(self.open.push(open.row())?)
    }

    fn check(self, log: Option<Log>, findings: &mut Findings) -> Result<(), CheckError> {
        let Self {
            mut placed,
            mut steps,
            asked,
            open,
            returned,
            clients,
            stamps,
            ..
        } = self;
        drop(clients);
        let mut ends = None;
        match log {
            None => {
                let told = "without a log: that positions are contiguous, that epochs do not decrease, and that every acknowledged write is in the log once and nothing else is";
                findings.not_checked.push(told.into());
                requests::check_alone(asked, findings)?;
                open_from_invocation(open, returned, &mut steps)?;
            }
            Some(mut log) => {
                ends = Some(std::mem::replace(&mut log.ends, Sorter::new()));
                let mut open = open.sorted()?;
                let stamps = stamps.unwrap_or_default();
                requests::check_log(asked, log, stamps, findings, |line, entry| {
                    while let Some(row) = open.next()? {
                        let mut found = Open::of(row);
                        if found.step.line != line.line {
                            continue;
                        }
                        if entry.refused {
                            found.step.deed.told = Told::Refused;
                        } else if found.step.deed.op == Op::Insert {
                            // One that stands in the log was done.
                            found.step.deed.told = Told::One;
                        }
                        found.step.kind = Kind::Write;
                        found.step.stamp = entry.stamp;
                        steps.push(found.step.row())?;
                        let known = Placed {
                            stamp: entry.stamp,
                            read: false,
                            line: line.line,
                            position: entry.position,
                            invoke_ns: found.invoke_ns,
                            return_ns: u64::MAX,
                        };
                        placed.push(known.row())?;
                        break;
                    }
                    Ok(())
                })?;
            }
        }
        order::check(placed, ends, findings)?;
        replay::check(steps, findings)?;
        Ok(())
    }
}

fn step(line: &Line, number: u64, deed: Deed, stamp: u64, kind: Kind) -> Step {
    Step {
        key: (line.key.high, line.key.low),
        stamp,
        kind,
        line: number,
        deed,
    }
}

/// Stamp and position, if both are there and can be.
fn place(line: &Line) -> Option<(u64, u64)> {
    let positive = |number: Option<i64>| u64::try_from(number?).ok().filter(|number| *number > 0);
    positive(line.stamp).zip(positive(line.position))
}

/// An unknown write may happen from the largest stamp on that was answered before it was invoked (I6).
fn open_from_invocation(
    open: Sorter<{ Open::WORDS }>,
    returned: Sorter<2>,
    steps: &mut Sorter<{ Step::WORDS }>,
) -> Result<(), CheckError> {
    let mut open = open.sorted()?;
    let mut next_open = open.next()?.map(Open::of);
    if next_open.is_none() {
        return Ok(());
    }
    let mut returned = returned.sorted()?;
    let mut next_returned = returned.next()?;
    let mut stamp = 0;
    while let Some(write) = next_open {
        while let Some([_, answered]) = next_returned.filter(|[at, _]| *at < write.invoke_ns) {
            stamp = stamp.max(answered);
            next_returned = returned.next()?;
        }
        steps.push(
            Step {
                stamp,
                ..write.step
            }
            .row(),
        )?;
        next_open = open.next()?.map(Open::of);
    }
    Ok(())
}
