//! The log: its tail, claims, and what stands at a position.

use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::options::ReadConcern;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::batch::{Place, Session, first_write_error};
use super::error::{DUPLICATE_KEY, StoreError};
use super::schema::{DATABASE, Entry, GUESTS, LOG, LogDocument, stamp};
use super::{Store, bounded};
use crate::model::{BatchId, Epoch, NodeName, Outcome, Position, RequestId};
use crate::mutants::{self, Mutant};

/// How long a claim's insert may wait for locks that a predecessor left.
const CLAIM_WAIT_MAX: Duration = Duration::from_secs(1);
/// The pause before the next attempt to claim.
const CLAIM_PAUSE: Duration = Duration::from_millis(2);
/// The most log documents that one look returns.
pub const LOG_DOCUMENTS_MAX: i64 = 1_000;
/// One look ends with the document that passes this size.
pub const LOG_BYTES_MAX: usize = 4 << 20;

/// The end of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    pub position: Position,
    pub epoch: Epoch,
    /// The counter of the last stamp.
    pub clock: i64,
    pub node: Option<NodeName>,
}

impl Tail {
    const EMPTY: Self = Self {
        position: Position::ZERO,
        epoch: Epoch::ZERO,
        clock: 0,
        node: None,
    };

    pub(super) fn from_bson(document: &Document) -> Result<Self, StoreError> {
        let number = |key: &str| {
            let damaged = || StoreError::Damaged(format!("the last document has no {key}"));
            document.get_i64(key).map_err(|_| damaged())
        };
        Ok(Self {
            position: Position(number("_id")?),
            epoch: Epoch(number("epoch")?),
            clock: number("last")?,
            node: document
                .get_str("node")
                .ok()
                .and_then(|name| NodeName::parse(name).ok()),
        })
    }

    pub(super) fn projection() -> Document {
        doc! { "epoch": 1, "last": 1, "node": 1 }
    }
}

/// A claim that stands in the log: this node is coordinator until another claims after it.
#[derive(Debug)]
pub struct Claimed {
    pub epoch: Epoch,
    pub position: Position,
    pub clock: i64,
    pub session: Session,
}

/// What stands at the position of a batch in doubt.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    Mine(Vec<Entry>),
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
    /// index of `_id`; MongoDB's promise covers that.)
    pub async fn tail(&self) -> Result<Tail, StoreError> {
        self.tail_with(ReadConcern::linearizable()).await
    }

    async fn tail_with(&self, concern: ReadConcern) -> Result<Tail, StoreError> {
        let find = self
            .log
            .find_one(doc! {})
            .sort(doc! {"_id": -1})
            .projection(Tail::projection())
            .max_time(super::CALL_MAX)
            .read_concern(concern);
        let last = bounded(async { find.await.map_err(StoreError::from) }).await?;
        last.map_or(Ok(Tail::EMPTY), |document| Tail::from_bson(&document))
    }

    /// Becomes coordinator: ends what the last one left open, then appends a claim with the next
    /// epoch. Tries until it succeeds or MongoDB is out of reach.
    ///
    /// The tail is read with local read concern, so that little time passes until the append: what
    /// stands before a claim that a majority holds is on that majority too.
    pub async fn claim(&self) -> Result<Claimed, StoreError> {
        let session = self.batch_session().await?;
        let batch = BatchId::fresh();
        loop {
            self.end_sessions_of_last_claim().await?;
            self.end_guests().await?;
            let tail = self.tail_with(ReadConcern::local()).await?;
            let claim = self.claim_after(&tail, batch);
            match self.append_claim(&claim, &session).await {
                Ok(()) => return Ok(self.claimed(&claim, session)),
                Err(error) if error.code() == Some(DUPLICATE_KEY) => {
                    debug!(position = %claim.position, "another append came first");
                }
                Err(StoreError::Contended) => {}
                Err(error) => {
                    warn!(%error, "a claim is in doubt");
                    let standing = self.at(claim.position).await?;
                    if standing.is_some_and(|document| document.batch == batch) {
                        return Ok(self.claimed(&claim, session));
                    }
                }
            }
            sleep(CLAIM_PAUSE).await;
        }
    }

    /// Begins the first epoch of an empty log. If somebody else has done so meanwhile, that is as
    /// good: nobody is deposed.
    pub async fn claim_first(&self) -> Result<(), StoreError> {
        let session = self.batch_session().await?;
        let claim = self.claim_after(&Tail::EMPTY, BatchId::fresh());
        match self.append_claim(&claim, &session).await {
            Err(error) if error.code() == Some(DUPLICATE_KEY) => Ok(()),
            other => other,
        }
    }

    fn claim_after(&self, tail: &Tail, batch: BatchId) -> LogDocument {
        LogDocument {
            position: tail.position.next(),
            epoch: tail.epoch.next(),
            node: self.node.clone(),
            batch,
            first: tail.clock + 1,
            last: tail.clock + 1,
            entries: Vec::new(),
            claim: true,
        }
    }

    fn claimed(&self, claim: &LogDocument, session: Session) -> Claimed {
        info!(epoch = %claim.epoch, position = %claim.position, "claimed");
        Claimed {
            epoch: claim.epoch,
            position: claim.position,
            clock: claim.last,
            session,
        }
    }

    async fn append_claim(&self, claim: &LogDocument, session: &Session) -> Result<(), StoreError> {
        let time_ms = i64::try_from(CLAIM_WAIT_MAX.as_millis()).unwrap_or(i64::MAX);
        let command = doc! {
            "insert": LOG,
            "documents": [claim.to_bson(Bson::Array(vec![session.id()]))],
            "maxTimeMS": time_ms,
            "writeConcern": {"w": "majority"},
        };
        let database = self.client.database(DATABASE);
        let call = async {
            database
                .run_command(command)
                .await
                .map_err(StoreError::from)
        };
        let reply = bounded(call).await?;
        if let Some(error) = first_write_error(&reply) {
            return Err(StoreError::from_write_error(error));
        }
        match reply.contains_key("writeConcernError") {
            true => Err(StoreError::Unavailable(
                "the claim is not on a majority yet".into(),
            )),
            false => Ok(()),
        }
    }

    /// A coordinator that was killed or frozen inside a transaction leaves its locks on the primary
    /// until the transaction's life ends (60 s). Its claim names its session: end that.
    async fn end_sessions_of_last_claim(&self) -> Result<(), StoreError> {
        let find = self
            .log
            .find_one(doc! {"kind": "claim"})
            .sort(doc! {"epoch": -1})
            .projection(doc! {"lsid": 1})
            .read_concern(ReadConcern::local());
        let claim = bounded(async { find.await.map_err(StoreError::from) }).await?;
        match claim.as_ref().map(|claim| claim.get_array("lsid")) {
            Some(Ok(ids)) => self.end_sessions(ids.clone()).await,
            _ => Ok(()),
        }
    }

    /// Ends the transactions of commands without a server that may have died inside them. One that
    /// lives tries again.
    pub async fn end_guests(&self) -> Result<(), StoreError> {
        let guests = self
            .client
            .database(DATABASE)
            .collection::<Document>(GUESTS);
        let ids = bounded(async {
            let mut found = guests.find(doc! {}).await?;
            let mut ids = Vec::new();
            while found.advance().await? {
                ids.extend(found.deserialize_current()?.remove("_id"));
            }
            Ok(ids)
        })
        .await?;
        if ids.is_empty() {
            return Ok(());
        }
        self.end_sessions(ids.clone()).await?;
        let delete = guests.delete_many(doc! {"_id": {"$in": ids}});
        bounded(async { delete.await.map_err(StoreError::from) })
            .await
            .map(drop)
    }

    async fn end_sessions(&self, ids: Vec<Bson>) -> Result<(), StoreError> {
        if mutants::active(Mutant::SessionsLeftOpen) {
            return Ok(());
        }
        let ids: Vec<_> = ids.into_iter().map(|id| doc! { "id": id }).collect();
        let database = self.client.database("admin");
        let kill = database.run_command(doc! { "killSessions": ids });
        bounded(async { kill.await.map_err(StoreError::from) })
            .await
            .map(drop)
    }

    /// What stands at the batch's position, for good: first no earlier transaction of the session
    /// can take effect any more, then a look with linearizable read concern.
    pub async fn resolve(
        &self,
        session: &mut Session,
        place: Place,
    ) -> Result<Standing, StoreError> {
        session.bury().await?;
        let Some(document) = self.at(place.position).await? else {
            return Ok(Standing::Absent);
        };
        if document.batch == place.batch && !mutants::active(Mutant::NoBatchId) {
            return Ok(Standing::Mine(document.entries));
        }
        let fenced = |epoch| epoch > place.epoch && !mutants::active(Mutant::NoFence);
        if fenced(document.epoch) {
            return Ok(Standing::Fenced(document.epoch));
        }
        let tail = self.tail().await?;
        match fenced(tail.epoch) {
            true => Ok(Standing::Fenced(tail.epoch)),
            false => Ok(Standing::Guest(tail)),
        }
    }

    /// The document at a position, with linearizable read concern.
    async fn at(&self, position: Position) -> Result<Option<LogDocument>, StoreError> {
        let find = self
            .log
            .find_one(doc! {"_id": position.0})
            .max_time(super::CALL_MAX)
            .read_concern(ReadConcern::linearizable());
        let found = bounded(async { find.await.map_err(StoreError::from) }).await?;
        found.as_ref().map(LogDocument::from_bson).transpose()
    }

    /// Which of these request ids are in the log, and with what answer. Only ids that clients gave
    /// are found.
    pub async fn seen(&self, ids: &[&RequestId]) -> Result<Vec<Seen>, StoreError> {
        let ids: Vec<_> = ids.iter().map(|id| id.as_str()).collect();
        let mut seen = Vec::new();
        let find = self
            .log
            .find(doc! {"ids": {"$in": &ids}})
            .projection(only_entries_of(&ids))
            .read_concern(ReadConcern::majority());
        bounded(async {
            let mut found = find.await?;
            while found.advance().await? {
                let document = LogDocument::from_bson(&found.deserialize_current()?)?;
                let entries = document.entries.into_iter();
                let wanted =
                    |entry: &Entry| entry.digest.is_some() && ids.contains(&entry.id.as_str());
                seen.extend(entries.filter(wanted).map(|entry| Seen {
                    position: document.position,
                    node: document.node.clone(),
                    entry,
                }));
            }
            Ok(())
        })
        .await?;
        Ok(seen)
    }

    /// The log's documents as they are stored, from a position on: at most `limit` of them, at most
    /// [`LOG_DOCUMENTS_MAX`], and no more after [`LOG_BYTES_MAX`]; one at least, if there is one.
    /// Only what a majority holds.
    pub async fn log_from(&self, from: Position, limit: i64) -> Result<Vec<Document>, StoreError> {
        let find = self
            .log
            .find(doc! {"_id": {"$gte": from.0}})
            .sort(doc! {"_id": 1})
            .limit(limit.clamp(1, LOG_DOCUMENTS_MAX))
            .read_concern(ReadConcern::majority());
        bounded(async {
            let mut found = find.await?;
            let mut documents = Vec::new();
            let mut bytes = 0;
            while bytes < LOG_BYTES_MAX && found.advance().await? {
                bytes += found.current().as_bytes().len();
                documents.push(found.deserialize_current()?);
            }
            Ok(documents)
        })
        .await
    }
}

/// A log document with the entries of these ids alone: its others may be many.
fn only_entries_of(ids: &[&str]) -> Document {
    let wanted = doc! { "$in": ["$$this.id", {"$literal": ids}] };
    let entries = doc! { "$filter": {"input": "$entries", "cond": wanted} };
    doc! {
        "epoch": 1, "kind": 1, "node": 1, "batch": 1, "first": 1, "last": 1, "entries": entries,
    }
}
