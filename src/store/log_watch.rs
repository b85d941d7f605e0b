//! Looks whether the log is what it was: its end, its indexes, and that it has no hole. A node that
//! finds it changed appends nothing more until it is mended.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::Client;
use mongodb::options::ReadConcern;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::codes::{DUPLICATE_KEY, NAMESPACE_NOT_FOUND};
use super::error::StoreError;
use super::fault::LogFault;
use super::log::{Tail, plain};
use super::reply::first_write_error;
use super::schema::{
    DATABASE, LOG, MARKS, RESTORE, batch_of, batch_to_bson, half_restored, indexes,
};
use super::{Store, log_of};
use crate::model::{BatchId, Epoch, Position};

/// How often a node looks at the whole log.
const SURVEY_INTERVAL: Duration = Duration::from_secs(60);
/// How often it notes how far the log has come, if it has come further.
const MARK_INTERVAL: Duration = Duration::from_secs(1);
/// How often it looks while something is wrong with it, or MongoDB does not answer.
const FAULT_INTERVAL: Duration = Duration::from_secs(2);
/// How long MongoDB may count the log's documents: a million take about half a second.
const COUNT_MAX: Duration = Duration::from_secs(30);

/// A point that the log had come to, with everything that must not go back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub position: Position,
    pub epoch: Epoch,
    pub clock: i64,
    pub batch: BatchId,
    /// The last repair's number, 0 if there was none: after a repair earlier marks do not count.
    pub repaired: i64,
    /// Positions before this one may be missing: a repair has left them behind.
    pub whole_from: Position,
}

impl Mark {
    fn read(document: &Document) -> Option<Self> {
        let number = |key: &str| document.get_i64(key).ok();
        Some(Self {
            position: Position(number("position")?),
            epoch: Epoch(number("epoch")?),
            clock: number("clock")?,
            batch: batch_of(document)?,
            repaired: number("repaired").unwrap_or_default(),
            whole_from: Position(number("whole_from").unwrap_or(1)),
        })
    }
}

/// What a process knows of the log.
#[derive(Debug)]
pub(super) struct Memory {
    known: Mutex<Known>,
    fault: watch::Sender<Option<LogFault>>,
    counted: tokio::sync::Mutex<Counted>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            fault: watch::Sender::new(None),
            counted: tokio::sync::Mutex::default(),
        }
    }
}

/// The furthest point that was seen to be durable on a majority.
#[derive(Debug, Clone, Default)]
struct Known {
    last: Option<(Position, BatchId)>,
    /// How far the log had come when this process last noted it.
    noted: Option<Position>,
    /// A position that was missing when the log was counted. It is looked for until it is back.
    hole: Option<Position>,
    /// In the time after this repair.
    repaired: i64,
    /// The largest that were ever seen: a log that was repaired goes on above them.
    epoch: Epoch,
    clock: i64,
}

/// How far the log was counted and had no hole.
#[derive(Debug, Default)]
struct Counted {
    through: Option<Position>,
    /// How many documents more than positions MongoDB's own counter says that there are. After an
    /// unclean end of a member the counter may be off by some for good.
    excess: i64,
}

impl Memory {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The furthest position that is known, for a look that begins now.
    pub(super) fn position(&self) -> Option<Position> {
        self.known().last.map(|(position, _)| position)
    }

    /// The largest epoch and clock that were ever seen.
    pub(super) fn floors(&self) -> (Epoch, i64) {
        let known = self.known();
        (known.epoch, known.clock)
    }

    /// A majority holds the log up to here.
    pub(super) fn remember(&self, position: Position, batch: BatchId, epoch: Epoch, clock: i64) {
        let mut known = self.known();
        known.epoch = known.epoch.max(epoch);
        known.clock = known.clock.max(clock);
        if known.last.is_none_or(|(last, _)| last < position) {
            known.last = Some((position, batch));
        }
    }

    /// Forgets what was known before a repair.
    fn heed(&self, mark: Option<&Mark>) {
        let Some(mark) = mark else {
            return;
        };
        let mut known = self.known();
        if known.repaired != mark.repaired {
            known.repaired = mark.repaired;
            known.hole = None;
            known.noted = Some(mark.position);
            known.last = Some((mark.position, mark.batch));
        }
        known.epoch = known.epoch.max(mark.epoch);
        known.clock = known.clock.max(mark.clock);
    }
}

impl Store {
    /// What is wrong with the log, as this process knows.
    pub fn log_fault(&self) -> watch::Receiver<Option<LogFault>> {
        self.memory.fault.subscribe()
    }

    /// What is wrong with the log at this moment, as this process knows.
    pub fn known_log_fault(&self) -> Option<LogFault> {
        self.memory.fault.borrow().clone()
    }

    /// A majority holds the log up to this tail.
    pub(super) fn remember(&self, tail: &Tail) {
        if let Some(batch) = tail.batch {
            let log = &self.memory;
            log.remember(tail.position, batch, tail.epoch, tail.clock);
        }
    }

    /// Looks at the log again and again: each minute, and more often while it is not whole. Notes
    /// each second how far it has come. Never ends.
    pub async fn watch_log(&self) -> ! {
        let mut next = Instant::now();
        loop {
            if next <= Instant::now() || self.known_log_fault().is_some() {
                let looked = async {
                    self.survey().await?;
                    self.count_log().await
                };
                let pause = match looked.await {
                    Ok(()) => SURVEY_INTERVAL,
                    Err(error) => {
                        debug!(%error, "a survey of the log has not come to its end");
                        FAULT_INTERVAL
                    }
                };
                next = Instant::now() + pause;
            }
            match self.known_log_fault() {
                Some(_) => sleep(FAULT_INTERVAL).await,
                None => {
                    sleep(MARK_INTERVAL).await;
                    self.note_progress().await;
                }
            }
        }
    }

    /// Notes how far the log has come, if this process knows more than it last noted: whoever is
    /// coordinator next sees by that whether the log went back meanwhile.
    pub async fn note_progress(&self) {
        let known = self.memory.known().clone();
        let Some((position, batch)) = known.last.filter(|last| known.noted < Some(last.0)) else {
            return;
        };
        let mark = Mark {
            position,
            epoch: known.epoch,
            clock: known.clock,
            batch,
            repaired: known.repaired,
            whole_from: Position(1),
        };
        if let Err(error) = self.set_mark(&mark).await {
            debug!(%error, "it is not noted how far the log has come");
        }
    }

    /// Looks whether the log still holds what it held, and has its indexes; makes those that are
    /// missing. [`StoreError::Log`] says what is wrong.
    pub async fn survey(&self) -> Result<(), StoreError> {
        let surveyed = self.look_over().await;
        match &surveyed {
            Ok(()) => self.tell_fault(None),
            Err(StoreError::Log(fault)) => self.tell_fault(Some(fault.clone())),
            Err(_) => {}
        }
        surveyed
    }

    fn tell_fault(&self, fault: Option<LogFault>) {
        self.memory.fault.send_if_modified(|known| {
            if *known == fault {
                return false;
            }
            *known = fault;
            true
        });
    }

    async fn look_over(&self) -> Result<(), StoreError> {
        // All that the look must show is learnt before it begins; and all that this process knows
        // is noted for the others, before one of them takes the log for what it was.
        if let Some(asked) = self.half_restored().await? {
            return Err(StoreError::Log(LogFault::HalfRestored(asked)));
        }
        self.note_progress().await;
        let known = self.memory.known().clone();
        let mark = self.mark().await?;
        self.memory.heed(mark.as_ref());
        let hole = self.memory.known().hole;
        let repaired = mark.as_ref().map_or(known.repaired, |mark| mark.repaired);
        let known = known.last.filter(|_| known.repaired == repaired);
        let marked = mark.map(|mark| (mark.position, mark.batch));
        let expected: Vec<_> = known.into_iter().chain(marked).collect();
        let positions = expected.iter().map(|(position, _)| *position).chain(hole);
        let (tail, found, indexes) = tokio::try_join!(
            self.newest_tail(),
            self.batches_at(positions.collect()),
            self.list_indexes(),
        )?;
        for (at, known) in expected {
            let fault = match found.iter().find(|(position, _)| *position == at) {
                _ if tail.position < at => LogFault::WentBack {
                    known: at,
                    found: tail.position,
                },
                Some((_, found)) if *found == known => continue,
                Some((_, found)) => LogFault::Replaced {
                    at,
                    known,
                    found: *found,
                },
                None => LogFault::Hole { at },
            };
            return Err(StoreError::Log(fault));
        }
        if let Some(at) = hole {
            if !found.iter().any(|(position, _)| *position == at) {
                return Err(StoreError::Log(LogFault::Hole { at }));
            }
            self.memory.known().hole = None;
        }
        if tail.position > Position::ZERO {
            self.have_indexes(&indexes).await?;
        }
        self.remember(&tail);
        self.note_progress().await;
        Ok(())
    }

    async fn half_restored(&self) -> Result<Option<String>, StoreError> {
        let find = |client: Client| async move {
            let notes = client.database(DATABASE).collection::<Document>(RESTORE);
            notes
                .find_one(doc! {})
                .read_concern(ReadConcern::local())
                .await
        };
        let note = self.bounded(&self.looks, find).await?;
        Ok(note.as_ref().and_then(half_restored))
    }

    /// The batch ids at some positions, of those that are there.
    async fn batches_at(
        &self,
        positions: Vec<Position>,
    ) -> Result<Vec<(Position, BatchId)>, StoreError> {
        let positions: Vec<_> = positions.iter().map(|position| position.0).collect();
        let find = |client: Client| async move {
            let log = log_of(&client);
            let find = log.find(doc! {"_id": {"$in": positions}});
            let find = find.projection(doc! {"batch": 1});
            let mut found = find.read_concern(ReadConcern::majority()).await?;
            let mut batches = Vec::new();
            while found.advance().await? {
                batches.push(plain(found.current())?);
            }
            Ok::<_, StoreError>(batches)
        };
        let found = self.bounded(&self.looks, find).await?;
        let batch = |document: &Document| {
            let read = || Some((Position(document.get_i64("_id").ok()?), batch_of(document)?));
            read().ok_or_else(|| StoreError::Log(LogFault::foreign(document)))
        };
        found.iter().map(batch).collect()
    }

    async fn list_indexes(&self) -> Result<Vec<Document>, StoreError> {
        let list = doc! { "listIndexes": LOG, "cursor": {"batchSize": 100} };
        let reply = match self.run(&self.looks, DATABASE, list).await {
            Err(error) if error.code() == Some(NAMESPACE_NOT_FOUND) => return Ok(Vec::new()),
            reply => reply?,
        };
        let cursor = reply.get_document("cursor").ok();
        let found = cursor.and_then(|cursor| cursor.get_array("firstBatch").ok());
        let found = found.into_iter().flatten();
        Ok(found
            .filter_map(|index| index.as_document().cloned())
            .collect())
    }

    /// Makes the indexes that are missing. A log of which MongoDB does not make the index of request
    /// ids is not used.
    async fn have_indexes(&self, found: &[Document]) -> Result<(), StoreError> {
        let is_there = |wanted: &Document| {
            let same = |found: &&Document| wanted.iter().all(|(key, value)| has(found, key, value));
            found.iter().any(|index| same(&index))
        };
        if indexes().iter().all(is_there) {
            return Ok(());
        }
        warn!("an index of the log is missing; it is made anew");
        self.prepare().await.map_err(|error| match error {
            StoreError::Refused(refusal) | StoreError::Ground(refusal) => {
                StoreError::Log(LogFault::NoIndex {
                    why: match refusal.code {
                        DUPLICATE_KEY => "an id stands in it twice".into(),
                        _ => refusal.message,
                    },
                })
            }
            other => other,
        })
    }

    pub(super) async fn mark(&self) -> Result<Option<Mark>, StoreError> {
        let find = |client: Client| async move {
            let marks = client.database(DATABASE).collection::<Document>(MARKS);
            // What one member holds of it is true as well: the log had come there.
            let find = marks.find_one(doc! {"_id": LOG});
            find.read_concern(ReadConcern::local()).await
        };
        let found = self.bounded(&self.looks, find).await?;
        Ok(found.as_ref().and_then(Mark::read))
    }

    /// Sets the mark if it is further than the one that is set, in the time after the same repair.
    async fn set_mark(&self, mark: &Mark) -> Result<(), StoreError> {
        let set = doc! {
            "position": mark.position.0,
            "epoch": mark.epoch.0,
            "clock": mark.clock,
            "batch": batch_to_bson(&mark.batch),
        };
        let repaired = match mark.repaired {
            0 => doc! { "$exists": false },
            number => doc! { "$eq": number },
        };
        let position = doc! { "$lt": mark.position.0 };
        let less = doc! { "_id": LOG, "position": position, "repaired": repaired };
        let update = doc! { "q": less, "u": {"$set": set}, "upsert": mark.repaired == 0 };
        // One that a member loses again was of use until then.
        let concern = doc! { "w": 1 };
        let update = doc! { "update": MARKS, "updates": [update], "writeConcern": concern };
        let reply = self.run(&self.looks, DATABASE, update).await?;
        match first_write_error(&reply).map(StoreError::from_write_error) {
            // Another node has noted more.
            Some(error) if error.code() != Some(DUPLICATE_KEY) => Err(error),
            _ => {
                let mut known = self.memory.known();
                known.noted = known.noted.max(Some(mark.position));
                Ok(())
            }
        }
    }

    /// Looks for a hole. Counts what is new, and everything if MongoDB's own counter has moved in
    /// another way than the end of the log has. A survey judges what was found: all of the log may
    /// have gone while it was counted.
    pub(super) async fn count_log(&self) -> Result<(), StoreError> {
        let Some(at) = self.find_hole().await? else {
            return Ok(());
        };
        self.memory.known().hole = Some(at);
        self.survey().await
    }

    async fn find_hole(&self) -> Result<Option<Position>, StoreError> {
        let mut counted = self.memory.counted.lock().await;
        let mark = self.mark().await?;
        let from = mark.map_or(Position(1), |mark| mark.whole_from);
        let before = self.newest_tail().await?.position;
        let total = self.counter().await?;
        let after = self.newest_tail().await?.position;
        if before < from {
            return Ok(None);
        }
        let excess = |end: Position| total - (end.0 - from.0 + 1);
        let as_before = (excess(after)..=excess(before)).contains(&counted.excess);
        let start = match counted.through {
            Some(through) if as_before && through >= from => through.next(),
            _ => from,
        };
        if start <= before && self.count_between(start, before).await? < before.0 - start.0 + 1 {
            return self.first_hole(start, before).await.map(Some);
        }
        counted.through = Some(before);
        if !as_before {
            counted.excess = excess(before);
        }
        Ok(None)
    }

    /// The first position that is missing, between two of which at least one is.
    async fn first_hole(&self, from: Position, to: Position) -> Result<Position, StoreError> {
        let (mut low, mut high) = (from.0, to.0);
        while low < high {
            let middle = low + (high - low) / 2;
            let there = self.count_between(Position(low), Position(middle)).await?;
            match there < middle - low + 1 {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        Ok(Position(low))
    }

    async fn count_between(&self, from: Position, to: Position) -> Result<i64, StoreError> {
        let between = doc! { "_id": {"$gte": from.0, "$lte": to.0} };
        let count = move |client: Client| async move {
            let log = log_of(&client);
            let count = log.count_documents(between).max_time(COUNT_MAX);
            count.read_concern(ReadConcern::majority()).await
        };
        let counted = self.log_reads.call(COUNT_MAX, count).await?;
        Ok(i64::try_from(counted).unwrap_or(i64::MAX))
    }

    /// How many documents the log has by MongoDB's own counter, which costs nothing.
    async fn counter(&self) -> Result<i64, StoreError> {
        let count = |client: Client| async move {
            let log = log_of(&client);
            log.estimated_document_count().await
        };
        let counted = self.bounded(&self.looks, count).await?;
        Ok(i64::try_from(counted).unwrap_or(i64::MAX))
    }
}

/// Whether an index has this property. MongoDB gives a number back in the type in which somebody
/// else may have written it.
fn has(index: &Document, key: &str, wanted: &Bson) -> bool {
    match (index.get(key), wanted) {
        (Some(Bson::Document(found)), Bson::Document(wanted)) => {
            let mut pairs = found.iter().zip(wanted);
            found.len() == wanted.len()
                && pairs.all(|((name, found), (wanted_name, wanted))| {
                    name == wanted_name && (found == wanted || is_number(found, wanted))
                })
        }
        (Some(found), wanted) => found == wanted,
        (None, _) => false,
    }
}

fn is_number(found: &Bson, wanted: &Bson) -> bool {
    let number = |value: &Bson| match value {
        Bson::Int32(number) => Some(f64::from(*number)),
        Bson::Double(number) => Some(*number),
        _ => None,
    };
    number(found).is_some() && number(found) == number(wanted)
}
