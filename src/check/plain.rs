//! The check of a history without stamps, as the plain driver's are.
//!
//! Nothing says in which order all was done, so this finds what no order can explain, a key at a time, by
//! a few rules. It never accuses wrongly. Unlike the check with stamps it does not find everything.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::BufRead;

use super::CheckError;
use super::clients::Clients;
use super::digest::NONE;
use super::findings::{Findings, Rule};
use super::history::{Op, Outcome};
use super::line::{Deed, Line, Lines, Told};
use super::replay::{Kind, Step, said};
use super::requests::{self, Asked, End};
use super::sort::{Row, Sorter};

/// Operations of one key. Past it nothing is decided about the key.
const KEY_OPERATIONS_MAX: usize = 1 << 20;
/// Two writes left the same value: who reads it tells nothing.
const SEVERAL: usize = usize::MAX;

const WORDS: usize = 2 + Step::WORDS;

/// One operation of a key.
#[derive(Debug, Clone, Copy)]
struct Event {
    line: u64,
    deed: Deed,
    invoke_ns: u64,
    /// When it was done at the latest. The end of time if that is not known.
    done_ns: u64,
}

impl Event {
    /// Has happened, or may have.
    fn writes(&self) -> bool {
        match self.deed.op {
            Op::Read => false,
            Op::Put => true,
            _ => self.deed.told != Told::Zero,
        }
    }

    const fn leaves(&self) -> u64 {
        match self.deed.op {
            Op::Cas => self.deed.to,
            _ => self.deed.value,
        }
    }

    /// The value that it found: that of a document, [`NONE`], or any document's.
    fn found(&self) -> Option<Found> {
        match (self.deed.op, self.deed.told) {
            (_, Told::Nothing | Told::Refused) => None,
            (Op::Read, _) if self.deed.value == NONE => Some(Found::Nothing),
            (Op::Read, _) | (Op::Cas, Told::One) => Some(Found::Value(self.deed.value)),
            (Op::Cas, _) => None,
            (Op::Insert, _) | (_, Told::Zero) => Some(Found::Nothing),
            (_, Told::One) => Some(Found::Document),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Document,
    Value(u64),
}

/// Checks what can be checked without stamps.
pub(super) fn check(
    mut lines: Lines<impl BufRead>,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    findings.checking(&[Rule::Once, Rule::Replies, Rule::Reads]);
    findings.not_checked.push(
        "without stamps: the order of all operations. Found is only what no order of one key's \
         operations explains"
            .into(),
    );
    let mut clients = Clients::default();
    let mut asked = Sorter::new();
    let mut events = Sorter::new();
    while let Some(line) = lines.next::<Line>()? {
        super::count(&line, findings);
        let number = lines.number();
        let deed = line.deed().map_err(|why| lines.malformed(&why))?;
        let taken = clients.take(&line, number, None, findings);
        taken.map_err(|why| lines.malformed(&why))?;
        if !line.request.is_null() {
            asked.push(request(&line, number).row())?;
        }
        let says_nothing = line.is_read() && line.outcome == Outcome::Unknown;
        if line.outcome != Outcome::Fail && !says_nothing {
            events.push(row(&line, number, deed))?;
        }
    }
    super::ended(&lines, findings)?;
    drop(clients);
    requests::check_alone(asked, findings)?;
    by_key(events, findings)
}

fn request(line: &Line, number: u64) -> Asked {
    Asked {
        request: (line.request.high, line.request.low),
        line: number,
        told: Told::Nothing,
        end: End::Unknown,
        stamp: 0,
        position: 0,
        key: line.key.low,
    }
}

/// A step, its stamp being the time of the invocation, and when it was done.
fn row(line: &Line, number: u64, deed: Deed) -> Row<WORDS> {
    let done_ns = match line.outcome {
        Outcome::Unknown => u64::MAX,
        Outcome::Ok | Outcome::Fail => line.return_ns,
    };
    let step = Step {
        key: (line.key.high, line.key.low),
        stamp: line.invoke_ns,
        kind: Kind::Write,
        line: number,
        deed,
    };
    let mut row = [0; WORDS];
    row[..Step::WORDS].copy_from_slice(&step.row());
    row[Step::WORDS] = done_ns;
    row
}

fn by_key(events: Sorter<WORDS>, findings: &mut Findings) -> Result<(), CheckError> {
    let mut rows = events.sorted()?;
    let mut key = None;
    let mut of_key: Vec<Event> = Vec::new();
    while let Some(row) = rows.next()? {
        let mut step = [0; Step::WORDS];
        step.copy_from_slice(&row[..Step::WORDS]);
        let step = Step::of(step);
        if key != Some(step.key) {
            key = Some(step.key);
            one_key(&mut of_key, findings);
            of_key.clear();
        }
        // One past the bound tells that it was passed.
        if of_key.len() <= KEY_OPERATIONS_MAX {
            of_key.push(Event {
                line: step.line,
                deed: step.deed,
                invoke_ns: step.stamp,
                done_ns: row[Step::WORDS],
            });
        }
    }
    one_key(&mut of_key, findings);
    Ok(())
}

fn one_key(events: &mut [Event], findings: &mut Findings) {
    if events.len() > KEY_OPERATIONS_MAX {
        findings.undecided += 1;
        return;
    }
    let writers = writers(events);
    seen_is_done(events, &writers);
    let key = Key::new(events, writers);
    for (index, event) in events.iter().enumerate() {
        if let Some(wrong) = key.judge(events, index) {
            tell(event, &wrong, findings);
        }
    }
}

/// Who left each value.
fn writers(events: &[Event]) -> HashMap<u64, usize> {
    let mut writers = HashMap::new();
    for (index, event) in events.iter().enumerate() {
        if !event.writes() || event.deed.op == Op::Delete {
            continue;
        }
        match writers.entry(event.leaves()) {
            Entry::Vacant(free) => _ = free.insert(index),
            Entry::Occupied(mut taken) => _ = taken.insert(SEVERAL),
        }
    }
    writers
}

/// A write whose value was read had happened by the end of the read, whatever its client knows.
fn seen_is_done(events: &mut [Event], writers: &HashMap<u64, usize>) {
    for index in 0..events.len() {
        let Some(Found::Value(value)) = events[index].found() else {
            continue;
        };
        let seen_ns = events[index].done_ns;
        if let Some(writer) = writers.get(&value)
            && let Some(writer) = events.get_mut(*writer)
            && writer.invoke_ns <= seen_ns
        {
            writer.done_ns = writer.done_ns.min(seen_ns);
        }
    }
}

/// Times with the largest other time up to each, to ask for the largest one before a moment.
struct Latest(Vec<(u64, u64, usize)>);

impl Latest {
    fn new(mut times: Vec<(u64, u64, usize)>) -> Self {
        times.sort_unstable();
        for index in 1..times.len() {
            let (_, most, who) = times[index - 1];
            if most > times[index].1 {
                (times[index].1, times[index].2) = (most, who);
            }
        }
        Self(times)
    }

    fn before(&self, moment: u64) -> Option<(u64, usize)> {
        let end = self.0.partition_point(|(time, ..)| *time < moment);
        let (_, most, who) = *self.0.get(end.checked_sub(1)?)?;
        Some((most, who))
    }
}

/// What one key's writes were, by their times.
struct Key {
    writers: HashMap<u64, usize>,
    /// All that have happened: when they were done, and the latest invocation of those done by then.
    done: Latest,
    /// The same of those that left a document, and of those that left none.
    stored: Latest,
    deleted: Latest,
    /// All that may have deleted the document, or made it: invoked when, and until when they may happen.
    may_delete: Latest,
    may_make: Latest,
    /// Who replaced a value by compare-and-set: after it the value is gone.
    replaced: HashMap<u64, usize>,
}

/// Why no order explains a reply.
enum Wrong {
    NobodyWrote,
    /// The line that wrote it, after the reply.
    WrittenLater(u64),
    /// The lines that wrote it, and that had replaced it.
    Replaced(u64, u64),
    /// The line that had stored a document.
    Stored(u64),
    /// The line that had deleted it.
    Deleted(u64),
    NobodyStored,
    /// The line that had found the same value with a compare-and-set.
    Twice(u64),
}

impl Key {
    fn new(events: &[Event], writers: HashMap<u64, usize>) -> Self {
        let times = |keep: &dyn Fn(&Event) -> bool| {
            let kept = events
                .iter()
                .enumerate()
                .filter(|(_, event)| event.writes() && keep(event));
            kept.map(|(index, event)| (event, index))
                .collect::<Vec<_>>()
        };
        let happened = |keep: &dyn Fn(&Event) -> bool| {
            let kept = times(&|event| event.done_ns < u64::MAX && keep(event));
            Latest::new(
                kept.into_iter()
                    .map(|(event, index)| (event.done_ns, event.invoke_ns, index))
                    .collect(),
            )
        };
        let possible = |keep: &dyn Fn(&Event) -> bool| {
            Latest::new(
                times(keep)
                    .into_iter()
                    .map(|(event, index)| (event.invoke_ns, event.done_ns, index))
                    .collect(),
            )
        };
        let deletes = |event: &Event| event.deed.op == Op::Delete;
        let makes = |event: &Event| matches!(event.deed.op, Op::Insert | Op::Put);
        let mut replaced = HashMap::new();
        for (index, event) in events.iter().enumerate() {
            if event.deed.op == Op::Cas && event.deed.told == Told::One {
                replaced.entry(event.deed.value).or_insert(index);
            }
        }
        Self {
            writers,
            done: happened(&|_| true),
            stored: happened(&|event| !deletes(event)),
            deleted: happened(&deletes),
            may_delete: possible(&deletes),
            may_make: possible(&makes),
            replaced,
        }
    }

    fn judge(&self, events: &[Event], index: usize) -> Option<Wrong> {
        let event = &events[index];
        match event.found()? {
            Found::Value(value) => self.value(events, index, value),
            Found::Nothing => {
                let (since, stored) = self.stored.before(event.invoke_ns)?;
                let gone = self.may_delete.before(event.done_ns.saturating_add(1));
                (gone.is_none_or(|(until, _)| until < since))
                    .then(|| Wrong::Stored(events[stored].line))
            }
            Found::Document => {
                let made = self.may_make.before(event.done_ns.saturating_add(1));
                let Some((until, maker)) = made else {
                    return Some(Wrong::NobodyStored);
                };
                if maker == index {
                    return None;
                }
                let (since, deleted) = self.deleted.before(event.invoke_ns)?;
                (until < since).then(|| Wrong::Deleted(events[deleted].line))
            }
        }
    }

    fn value(&self, events: &[Event], index: usize, value: u64) -> Option<Wrong> {
        let event = &events[index];
        let Some(writer) = self.writers.get(&value) else {
            return Some(Wrong::NobodyWrote);
        };
        let writer = events.get(*writer)?;
        if writer.invoke_ns > event.done_ns {
            return Some(Wrong::WrittenLater(writer.line));
        }
        if let Some(first) = self.replaced.get(&value)
            && *first != index
        {
            let replacing = &events[*first];
            if event.deed.op == Op::Cas {
                return Some(Wrong::Twice(replacing.line));
            }
            if replacing.done_ns < event.invoke_ns {
                return Some(Wrong::Replaced(writer.line, replacing.line));
            }
        }
        let (since, later) = self.done.before(event.invoke_ns)?;
        (since > writer.done_ns).then(|| Wrong::Replaced(writer.line, events[later].line))
    }
}

fn tell(event: &Event, wrong: &Wrong, findings: &mut Findings) {
    let rule = if event.deed.op == Op::Read {
        Rule::Reads
    } else {
        Rule::Replies
    };
    let (line, said) = (event.line, said(&event.deed));
    let (lines, why) = match wrong {
        Wrong::NobodyWrote => (vec![line], "nobody ever stored that value".into()),
        Wrong::WrittenLater(writer) => (
            vec![line, *writer],
            format!("line {writer} alone stores that value, and was invoked later"),
        ),
        Wrong::Replaced(writer, later) => (
            vec![*writer, *later, line],
            format!("line {writer} stored that value, and line {later} had replaced it before"),
        ),
        Wrong::Stored(stored) => (
            vec![*stored, line],
            format!("line {stored} had stored one before, and nobody deleted it"),
        ),
        Wrong::Deleted(deleted) => (
            vec![*deleted, line],
            format!("line {deleted} had deleted it before, and nobody stored it again"),
        ),
        Wrong::NobodyStored => (vec![line], "nobody had stored one".into()),
        Wrong::Twice(first) => (
            vec![*first, line],
            format!("line {first} had replaced the same value"),
        ),
    };
    findings.violate(rule, &lines, || format!("line {line} {said}, but {why}"));
}
