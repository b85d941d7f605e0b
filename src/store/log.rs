//! The log: its tail, and what stands at a position.

use std::time::Duration;

use bson::{Bson, Document, RawDocument, doc};
use mongodb::Client;
use mongodb::options::ReadConcern;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::batch::{Place, Session};
use super::codes::MAX_TIME_EXPIRED;
use super::error::StoreError;
use super::fault::LogFault;
use super::schema::{DATABASE, Entry, LogDocument, NODES, batch_of, stamp};
use super::{Store, log_of};
use crate::model::{BatchId, Epoch, NodeName, Outcome, Position, RequestId};
use crate::mutants::{self, Mutant};

/// The most log documents that one look returns.
pub const LOG_DOCUMENTS_MAX: i64 = 1_000;
/// One look ends with the document that passes this size.
pub const LOG_BYTES_MAX: usize = 4 << 20;

/// How long a look with linearizable read concern takes if nothing is wrong, with some to spare.
const LOOK_USUAL_MAX: Duration = Duration::from_millis(10);
/// Its note may be made only after the first time that the journal was asked for.
const HURRIES_MAX: usize = 2;
/// MongoDB gives up a look after this long: before the call's own end, which costs a connection.
const LOOK_MAX: Duration = Duration::from_millis(4_500);

/// The end of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    pub position: Position,
    pub epoch: Epoch,
    /// The counter of the last stamp.
    pub clock: i64,
    pub node: Option<NodeName>,
    /// `None` in an empty log.
    pub batch: Option<BatchId>,
}

impl Tail {
    pub(super) const EMPTY: Self = Self {
        position: Position::ZERO,
        epoch: Epoch::ZERO,
        clock: 0,
        node: None,
        batch: None,
    };

    pub(super) fn from_bson(document: &Document) -> Result<Self, StoreError> {
        let number = |key: &str| document.get_i64(key).ok();
        let read = || {
            Some(Self {
                position: Position(number("_id")?),
                epoch: Epoch(number("epoch")?),
                clock: number("last")?,
                node: NodeName::parse(document.get_str("node").ok()?).ok(),
                batch: Some(batch_of(document)?),
            })
        };
        read().ok_or_else(|| StoreError::Log(LogFault::foreign(document)))
    }

    /// The tail by the log's last document, if there is one.
    pub(super) fn of(last: Option<&Document>) -> Result<Self, StoreError> {
        last.map_or(Ok(Self::EMPTY), Self::from_bson)
    }

    /// Any position. What somebody else keeps under another kind of `_id` is not in the way.
    pub(super) fn anywhere() -> Document {
        doc! { "_id": {"$gt": 0_i64} }
    }

    pub(super) fn projection() -> Document {
        doc! { "epoch": 1, "last": 1, "node": 1, "batch": 1 }
    }
}

/// What stands at the position of a batch in doubt.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    Mine(Vec<Entry>),
    /// Nothing, as far as the primary knows.
    Vacant,
    /// Nothing, for good.
    Absent,
    /// Another batch of the same epoch, and where the log ends now.
    Guest(Tail),
    /// A later epoch.
    Fenced(Epoch),
}

/// An earlier try of a request, found in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub position: Position,
    pub node: NodeName,
    pub entry: Entry,
}

impl Seen {
    /// The stored answer.
    pub fn outcome(&self) -> Outcome {
        Outcome {
            result: self.entry.result.clone(),
            stamp: stamp(self.entry.t, &self.node),
            position: self.position,
            replayed: true,
        }
    }
}

impl Store {
    /// The end of the log, with linearizable read concern: it holds everything that any node has
    /// acknowledged before this call. (The last document is one document, found by one step in the
    /// index of `_id`; MongoDB's promise covers that.) One that ends before what was known when the
    /// call began is an error: the log went back.
    pub async fn tail(&self) -> Result<Tail, StoreError> {
        let known = self.memory.position();
        let mut tail = self.newest_tail().await?;
        if known.is_some_and(|known| tail.position < known) {
            // It may have been repaired meanwhile.
            self.survey().await?;
            tail = self.newest_tail().await?;
        }
        self.remember(&tail);
        Ok(tail)
    }

    /// The end of the log, with linearizable read concern, whatever was known of it.
    pub(super) async fn newest_tail(&self) -> Result<Tail, StoreError> {
        let concern = match mutants::active(Mutant::LocalReads) {
            true => ReadConcern::local(),
            false => ReadConcern::linearizable(),
        };
        self.hurried(self.tail_with(concern)).await
    }

    /// Runs a look with linearizable read concern. MongoDB makes a note for it and waits until a
    /// majority has that in its journals. While a member is lost the primary's own journal counts,
    /// which is written ten times a second unless somebody asks for it: a look that takes long
    /// asks, at most [`HURRIES_MAX`] times.
    async fn hurried<T>(
        &self,
        look: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let mut look = Box::pin(look);
        for _ in 0..HURRIES_MAX {
            if let Ok(looked) = timeout(LOOK_USUAL_MAX, &mut look).await {
                return looked;
            }
            tokio::select! {
                looked = &mut look => return looked,
                written = Box::pin(self.write_journal()) => if let Err(error) = written {
                    debug!(%error, "the primary's journal was not written");
                },
            }
        }
        look.await
    }

    /// A write that finds nothing to write waits for the journal all the same.
    async fn write_journal(&self) -> Result<(), StoreError> {
        let nothing = doc! { "q": {"_id": Bson::Null}, "u": {"$unset": {"none": ""}} };
        let update = doc! {
            "update": NODES,
            "updates": [nothing],
            "writeConcern": {"w": 1, "j": true},
        };
        self.run(&self.looks, DATABASE, update).await.map(drop)
    }

    pub(super) async fn tail_with(&self, concern: ReadConcern) -> Result<Tail, StoreError> {
        let find = |client: Client| async move {
            let log = log_of(&client);
            let find = log.find_one(Tail::anywhere()).sort(doc! {"_id": -1});
            let find = find.projection(Tail::projection()).max_time(LOOK_MAX);
            find.read_concern(concern).await.map_err(given_up)
        };
        let last = self.bounded(&self.looks, find).await?;
        Tail::of(last.as_ref())
    }

    /// What stands at the batch's position. First no earlier transaction of the session can take
    /// effect any more, then the primary is asked what it has there. What it has is waited for until
    /// a majority holds it. That it has nothing is proven by a look with linearizable read concern if
    /// `proven`: else it may be a primary of yesterday.
    pub async fn resolve(
        &self,
        session: &mut Session,
        place: Place,
        proven: bool,
    ) -> Result<Standing, StoreError> {
        session.bury().await?;
        debug!("nothing earlier can take effect any more");
        let document = match proven {
            true => self.at(place.position).await?,
            false => self.at_with(place.position, ReadConcern::local()).await?,
        };
        let Some(document) = document else {
            return Ok(match proven {
                true => Standing::Absent,
                false => Standing::Vacant,
            });
        };
        let mine = |found: &LogDocument| {
            found.batch == place.batch && !mutants::active(Mutant::PositionRecomputed)
        };
        // What a majority holds decides from here on, also how much of the batch there is: an attempt may
        // have been cut before its end, and its successor not, or elsewhere.
        let document = match proven {
            true => document,
            false if mine(&document) => self.durable(place).await?,
            // Something else may come before it on a majority.
            false => match self.at(place.position).await? {
                Some(document) => document,
                None => return Ok(Standing::Vacant),
            },
        };
        if mine(&document) {
            session.stands(place, document.last);
            return Ok(Standing::Mine(document.entries));
        }
        let fenced = |epoch| epoch > place.epoch && !mutants::active(Mutant::NoFence);
        if fenced(document.epoch) {
            return Ok(Standing::Fenced(document.epoch));
        }
        let tail = self.tail().await?;
        match fenced(tail.epoch) {
            true => Ok(Standing::Fenced(tail.epoch)),
            false => {
                session.is_after(&tail);
                Ok(Standing::Guest(tail))
            }
        }
    }

    /// Waits until a majority holds this batch, which the primary has, and gives what it holds.
    async fn durable(&self, place: Place) -> Result<LogDocument, StoreError> {
        let until = Instant::now() + LOOK_MAX;
        let is_it = |found: &LogDocument| found.batch == place.batch;
        for looks in 1.. {
            let found = self
                .at_with(place.position, ReadConcern::majority())
                .await?;
            if let Some(found) = found.filter(is_it) {
                return Ok(found);
            }
            let here = self.at_with(place.position, ReadConcern::local()).await?;
            if !here.as_ref().is_some_and(is_it) {
                break; // rolled back
            }
            if Instant::now() > until {
                return Err(StoreError::TimedOut(LOOK_MAX));
            }
            match looks <= HURRIES_MAX {
                true => self.write_journal().await?,
                false => self.pause(LOOK_USUAL_MAX).await,
            }
        }
        let text = "what stood at the position is there no more";
        Err(StoreError::Unavailable(text.into()))
    }

    /// The document at a position, with linearizable read concern.
    pub(super) async fn at(&self, position: Position) -> Result<Option<LogDocument>, StoreError> {
        let look = self.at_with(position, ReadConcern::linearizable());
        self.hurried(look).await
    }

    async fn at_with(
        &self,
        position: Position,
        concern: ReadConcern,
    ) -> Result<Option<LogDocument>, StoreError> {
        let find = move |client: Client| async move {
            let log = log_of(&client);
            let find = log.find_one(doc! {"_id": position.0});
            let find = find.max_time(LOOK_MAX);
            let found = find.read_concern(concern).await;
            found.map_err(given_up)
        };
        let found = self.bounded(&self.order, find).await?;
        found.as_ref().map(LogDocument::from_bson).transpose()
    }

    /// Which of these request ids are in the log, and with what answer. Only ids that clients gave
    /// are found.
    pub async fn seen(&self, ids: &[&RequestId]) -> Result<Vec<Seen>, StoreError> {
        let ids: Vec<String> = ids.iter().map(|id| id.as_str().to_owned()).collect();
        let look = |client: Client| async move {
            let log = log_of(&client);
            let find = log.find(doc! {"ids": {"$in": &ids}});
            let find = find.projection(only_entries_of(&ids));
            let mut found = find.read_concern(ReadConcern::majority()).await?;
            let mut seen = Vec::new();
            while found.advance().await? {
                let document = LogDocument::from_bson(&plain(found.current())?)?;
                let entries = document.entries.into_iter();
                let wanted = |entry: &Entry| {
                    entry.digest.is_some() && ids.iter().any(|id| id == entry.id.as_str())
                };
                seen.extend(entries.filter(wanted).map(|entry| Seen {
                    position: document.position,
                    node: document.node.clone(),
                    entry,
                }));
            }
            Ok::<_, StoreError>(seen)
        };
        self.bounded(&self.order, look).await
    }

    /// The log's documents as they are stored, from a position on: at most `limit` of them, at most
    /// [`LOG_DOCUMENTS_MAX`], and no more after [`LOG_BYTES_MAX`]; one at least, if there is one.
    /// Only what a majority holds.
    pub async fn log_from(&self, from: Position, limit: i64) -> Result<Vec<Document>, StoreError> {
        let page = self.log_page(from, limit, LOG_BYTES_MAX).await?;
        Ok(page.into_iter().map(|(document, _)| document).collect())
    }

    /// As [`Self::log_from`], each with its bytes of BSON, and no more after `bytes_max`.
    pub async fn log_page(
        &self,
        from: Position,
        limit: i64,
        bytes_max: usize,
    ) -> Result<Vec<(Document, usize)>, StoreError> {
        let look = move |client: Client| async move {
            let log = log_of(&client);
            let find = log.find(doc! {"_id": {"$gte": from.0}});
            let find = find
                .sort(doc! {"_id": 1})
                .limit(limit.clamp(1, LOG_DOCUMENTS_MAX));
            let mut found = find.read_concern(ReadConcern::majority()).await?;
            let mut documents = Vec::new();
            let mut bytes = 0;
            while bytes < bytes_max && found.advance().await? {
                let size = found.current().as_bytes().len();
                bytes += size;
                documents.push((plain(found.current())?, size));
            }
            Ok::<_, StoreError>(documents)
        };
        self.bounded(&self.log_reads, look).await
    }
}

/// A log document as it is stored: the driver's own decoder guesses.
pub(super) fn plain(stored: &RawDocument) -> Result<Document, StoreError> {
    Document::try_from(stored).map_err(|error| StoreError::Damaged(error.to_string()))
}

/// A look is one step in an index: if it takes long, MongoDB waits for a majority or is slow
/// itself.
fn given_up(error: mongodb::error::Error) -> StoreError {
    let error = StoreError::from(error);
    match error.code() {
        Some(MAX_TIME_EXPIRED) => StoreError::TimedOut(LOOK_MAX),
        _ => error,
    }
}

/// A log document with the entries of these ids alone: its others may be many.
fn only_entries_of(ids: &[String]) -> Document {
    let wanted = doc! { "$in": ["$$this.id", {"$literal": ids}] };
    let entries = doc! { "$filter": {"input": "$entries", "cond": wanted} };
    doc! {
        "epoch": 1, "kind": 1, "node": 1, "batch": 1, "first": 1, "last": 1, "entries": entries,
    }
}
