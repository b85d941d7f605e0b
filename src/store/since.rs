//! Where a stream begins that is to show what came after a stamp.
//!
//! The log says which batch holds the stamp; the batch is one transaction, so all its changes have
//! the cluster time of its log document. When that was is found in MongoDB's own log (the oplog),
//! where the document's wall clock says about where to look.

use std::time::Duration;

use bson::{Bson, Document, RawDocument, Timestamp, doc};
use mongodb::Client;
use mongodb::options::ReadConcern;
use tokio::time::timeout;

use super::capture::time_of;
use super::codes::CHANGE_STREAM_HISTORY_LOST;
use super::error::StoreError;
use super::schema::{DATABASE, Entry, LOG};
use super::watch::Since;
use super::{Store, log_of};
use crate::model::{Failure, Namespace, Position};

/// How long the search may take. It reads the oplog from about where the batch was.
const SEARCH_MAX: Duration = Duration::from_secs(20);
/// How much earlier than the document's wall clock the search begins at first, in seconds; four
/// times that where it was too late.
const MARGIN_SECONDS: u32 = 10;

/// A log document that a stream may begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    position: Position,
    first: i64,
    last: i64,
    /// The writer's wall clock, in seconds since 1970.
    at: u32,
}

impl Found {
    fn read(document: &Document) -> Option<Self> {
        let at = document.get_datetime("at").ok()?.timestamp_millis() / 1_000;
        Some(Self {
            position: Position(document.get_i64("_id").ok()?),
            first: document.get_i64("first").ok()?,
            last: document.get_i64("last").ok()?,
            at: u32::try_from(at).unwrap_or_default(),
        })
    }
}

impl Store {
    /// Where the changes after the write with this stamp begin.
    pub(super) async fn after_stamp(
        &self,
        namespace: &Namespace,
        stamp: i64,
    ) -> Result<Since, Failure> {
        let search = async {
            let tail = self.tail().await?;
            if stamp > tail.clock {
                return Err(Failure::Invalid(format!(
                    "the log ends at stamp {}: there is no write with stamp {stamp} yet",
                    tail.clock
                )));
            }
            let Some(found) = self.holder_of(stamp, tail.position).await? else {
                // No log, and so nothing that has a stamp.
                return Ok(Since::Now);
            };
            let time = self.time_of_batch(found).await?;
            match stamp < found.last {
                true => self.inside(namespace, found, time, stamp).await,
                false => Ok(Since::Time(next(time))),
            }
        };
        let late = |_| Failure::Unavailable("the search for the stamp took too long".into());
        timeout(SEARCH_MAX, Box::pin(search)).await.map_err(late)?
    }

    /// What a client is told whose events the oplog has no more.
    pub(super) async fn gone(&self) -> Failure {
        let had = async {
            let begins = self.oplog_begins().await?;
            let first = self.first_batch(next(begins), Position(1)).await.ok()?;
            Some(format!("; what came after stamp {} can be had", first?.1))
        };
        let had = timeout(super::CALL_MAX, Box::pin(had)).await;
        Failure::Gone(format!(
            "the events from there on are not kept any more: MongoDB's oplog begins later{}",
            had.ok().flatten().unwrap_or_default()
        ))
    }

    /// The last log document whose first stamp is not after this one; the log's first if all are.
    async fn holder_of(&self, stamp: i64, tail: Position) -> Result<Option<Found>, StoreError> {
        let look = move |client: Client| async move {
            let log = log_of(&client);
            let at = |least: i64| {
                let find = log.find_one(doc! {"_id": {"$gte": least}});
                let find = find.sort(doc! {"_id": 1});
                let find = find.projection(doc! {"first": 1, "last": 1, "at": 1});
                find.read_concern(ReadConcern::majority())
            };
            let read = |found: Option<Document>| found.as_ref().and_then(Found::read);
            let (mut low, mut high) = (0, tail.0);
            let mut best = None;
            while low < high {
                let middle = low + (high - low + 1) / 2;
                match read(at(middle).await?) {
                    Some(found) if found.first <= stamp => {
                        low = found.position.0;
                        best = Some(found);
                    }
                    _ => high = middle - 1,
                }
            }
            match best {
                None => Ok::<_, StoreError>(read(at(1).await?)),
                best => Ok(best),
            }
        };
        self.bounded(&self.streams, look).await
    }

    /// The cluster time of the batch that this log document is of.
    async fn time_of_batch(&self, wanted: Found) -> Result<Timestamp, Failure> {
        let mut margin = MARGIN_SECONDS;
        let now = self.cluster_time().await?;
        let mut oldest = None;
        loop {
            let time = wanted.at.saturating_sub(margin).min(now.time);
            let from = Timestamp { time, increment: 1 }.max(oldest.unwrap_or(Timestamp {
                time: 0,
                increment: 0,
            }));
            match self.first_batch(from, wanted.position).await {
                Ok(Some((position, _, time))) if position == wanted.position => return Ok(time),
                Ok(_) if oldest.is_some() || time == 0 => return Err(self.gone().await),
                Ok(_) => margin = margin.saturating_mul(4),
                Err(error) if error.code() == Some(CHANGE_STREAM_HISTORY_LOST) => {
                    // Once from the oplog's own beginning.
                    let begins = self.oplog_begins().await.filter(|_| oldest.is_none());
                    match begins {
                        Some(begins) => oldest = Some(next(begins)),
                        None => return Err(self.gone().await),
                    }
                }
                Err(error) => return Err(error.into_failure()),
            }
        }
    }

    /// The first log document that was inserted from this cluster time on, at this position or a
    /// later one: its position, its last stamp and its cluster time.
    async fn first_batch(
        &self,
        from: Timestamp,
        least: Position,
    ) -> Result<Option<(Position, i64, Timestamp)>, StoreError> {
        let now = self.cluster_time().await?;
        let stages = [
            doc! { "$match": {"operationType": "insert", "documentKey._id": {"$gte": least.0}} },
            doc! { "$project": {
                "documentKey": 1, "clusterTime": 1, "last": "$fullDocument.last",
            } },
        ];
        let since = Since::Time(from);
        let mut rows = self.stream(DATABASE, LOG, &since, &stages).await?;
        while let Some(batch) = self.heard(&mut rows).await? {
            if let Some(event) = batch.documents()?.first() {
                let event = RawDocument::from_bytes(event).ok();
                let read = |event: &RawDocument| {
                    let position = event
                        .get_document("documentKey")
                        .ok()?
                        .get_i64("_id")
                        .ok()?;
                    let time = event.get_timestamp("clusterTime").ok()?;
                    Some((Position(position), event.get_i64("last").ok()?, time))
                };
                return Ok(event.and_then(read));
            }
            if batch
                .token()
                .and_then(time_of)
                .is_none_or(|time| time >= now)
            {
                break;
            }
        }
        Ok(None)
    }

    /// Where the changes after a stamp begin that is not the last of its batch.
    async fn inside(
        &self,
        namespace: &Namespace,
        found: Found,
        time: Timestamp,
        stamp: i64,
    ) -> Result<Since, Failure> {
        if stamp < found.first {
            return Ok(Since::Time(time));
        }
        let document = self.at(found.position).await?;
        let entries = document
            .map(|document| document.entries)
            .unwrap_or_default();
        let changes = self.changes_at(namespace, time).await?;
        Ok(
            match first_after(&changes, deletions(entries, namespace), stamp) {
                None => Since::Time(next(time)),
                Some(0) => Since::Time(time),
                Some(at) => Since::Inside(time, changes[at - 1].id.clone()),
            },
        )
    }

    /// All changes of a collection at this cluster time.
    async fn changes_at(
        &self,
        namespace: &Namespace,
        time: Timestamp,
    ) -> Result<Vec<Change>, StoreError> {
        let stages = [
            super::watch::stamp_stage(),
            doc! { "$project": {"stamp": 1, "documentKey": 1, "operationType": 1} },
        ];
        let (database, collection) = (namespace.database(), namespace.collection());
        let begin = Since::Time(time);
        let mut rows = self.stream(database, collection, &begin, &stages).await?;
        let mut changes = Vec::new();
        while let Some(batch) = self.heard(&mut rows).await? {
            let events = batch.documents()?;
            for event in &events {
                let event = RawDocument::from_bytes(event).and_then(Document::try_from);
                let event = event.map_err(|error| StoreError::Damaged(error.to_string()))?;
                match Change::read(&event) {
                    Some((change, at)) if at == time => changes.push(change),
                    _ => return Ok(changes),
                }
            }
            let through = batch.token().and_then(time_of);
            if events.is_empty() && through.is_none_or(|through| through >= time) {
                break;
            }
        }
        Ok(changes)
    }

    async fn cluster_time(&self) -> Result<Timestamp, StoreError> {
        let hello = self.run(&self.looks, "admin", doc! {"hello": 1}).await?;
        let time = hello.get_timestamp("operationTime");
        time.map_err(|_| StoreError::Damaged("no operationTime".into()))
    }

    /// The cluster time of the oplog's first entry, if the user may know it.
    async fn oplog_begins(&self) -> Option<Timestamp> {
        let status = doc! { "serverStatus": 1, "oplog": 1 };
        let status = self.run(&self.looks, "admin", status).await.ok()?;
        let oplog = status.get_document("oplog").ok()?;
        oplog.get_timestamp("earliestOptime").ok()
    }
}

const fn next(time: Timestamp) -> Timestamp {
    Timestamp {
        time: time.time,
        increment: time.increment + 1,
    }
}

/// A change of one batch.
#[derive(Debug, Clone, PartialEq)]
struct Change {
    id: String,
    /// As its event tells it.
    stamp: Option<i64>,
    is_deletion: bool,
    key: Option<Bson>,
}

impl Change {
    fn read(event: &Document) -> Option<(Self, Timestamp)> {
        let token = event.get_document("_id").ok()?;
        let time = time_of(&token.to_vec().ok()?)?;
        let key = event.get_document("documentKey").ok();
        let change = Self {
            id: token.get_str("_data").ok()?.to_owned(),
            stamp: event.get_i64("stamp").ok(),
            is_deletion: event.get_str("operationType").ok()? == "delete",
            key: key.and_then(|key| key.get("_id").cloned()),
        };
        Some((change, time))
    }
}

/// What a batch has deleted, and with which stamps, in order.
fn deletions(entries: Vec<Entry>, namespace: &Namespace) -> Vec<(Bson, i64)> {
    let here = entries
        .into_iter()
        .filter(|entry| entry.namespace == namespace.to_string() && entry.op.starts_with("delete"));
    let keys = here.flat_map(|entry| entry.keys.into_iter().map(move |key| (key, entry.t)));
    keys.collect()
}

/// The first of a batch's changes that is of a write after this stamp. A deletion leaves no
/// document to carry a stamp: the first of a key is that of the first entry that deleted it. An
/// update is a change without a stamp, and another one of the same document that sets it, which
/// stands before it where a pipeline makes the document anew.
fn first_after(changes: &[Change], mut deleted: Vec<(Bson, i64)>, stamp: i64) -> Option<usize> {
    let of = |at: usize, deleted: &mut Vec<(Bson, i64)>| {
        let change = &changes[at];
        if change.is_deletion {
            let entry = deleted
                .iter()
                .position(|(key, _)| Some(key) == change.key.as_ref())?;
            return Some(deleted.remove(entry).1);
        }
        let same = |other: &&Change| other.key == change.key;
        let next = changes[at..]
            .iter()
            .filter(same)
            .find_map(|other| other.stamp);
        let mut before = changes[..at].iter().rev().filter(same);
        next.or_else(|| before.find_map(|other| other.stamp))
    };
    (0..changes.len()).find(|at| of(*at, &mut deleted).is_none_or(|own| own > stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, stamp: Option<i64>, is_deletion: bool) -> Change {
        Change {
            id: String::new(),
            stamp,
            is_deletion,
            key: Some(key.into()),
        }
    }

    #[test]
    fn a_batch_is_cut_between_two_writes() {
        // Inserted at 4, deleted at 5, two updated at 6 and 7, deleted at 8, inserted at 9.
        let changes = [
            change("a", Some(4), false),
            change("a", None, true),
            change("b", None, false),
            change("c", None, false),
            change("b", Some(6), false),
            change("c", Some(7), false),
            change("a", None, true),
            change("d", Some(9), false),
        ];
        let deleted = vec![(Bson::from("a"), 5), (Bson::from("a"), 8)];
        let after = |stamp| first_after(&changes, deleted.clone(), stamp);
        for (stamp, first) in [
            (3, Some(0)),
            (4, Some(1)),
            (5, Some(2)),
            // The stamp of 6 comes behind the change of 7: it is left out by its number.
            (6, Some(3)),
            (7, Some(6)),
            (8, Some(7)),
            (9, None),
        ] {
            assert_eq!(after(stamp), first, "after {stamp}");
        }
    }
}
