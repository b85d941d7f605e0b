//! One batch as one transaction: the requests' changes and the log document, or nothing.

use std::time::Instant;

use bson::{Bson, Document, doc};
use mongodb::ClientSession;
use mongodb::error::UNKNOWN_TRANSACTION_COMMIT_RESULT;
use mongodb::options::{ReadConcern, WriteConcern};
use tokio::time::timeout;
use tracing::debug;

use super::apply::{self, Applied};
use super::error::{DUPLICATE_KEY, MAX_TIME_EXPIRED, StoreError};
use super::schema::{DATABASE, Entry, LOG, LogDocument};
use super::{CALL_MAX, Store};
use crate::model::limits::{BATCH_RUN_MAX, REQUEST_RUN_MAX};
use crate::model::{BatchId, Epoch, NodeName, Position, Refusal, Stamp, Write, WriteRequest};

/// The most documents in one insert command; MongoDB takes 100,000.
const INSERT_COMMAND_DOCUMENTS_MAX: usize = 50_000;
/// The most bytes of keys in one log document, which must stay below 16 MiB.
const LOG_KEY_BYTES_MAX: usize = 4 << 20;
/// How often a commit of unknown result is sent again before the position is looked at instead.
const COMMIT_TRIES_MAX: u32 = 3;

/// A request with its place in the batch.
#[derive(Debug, Clone)]
pub struct Item<'a> {
    pub request: &'a WriteRequest,
    pub stamp: i64,
    /// Set if an earlier run of the batch was refused because of it: it is logged, not run.
    pub refused: Option<&'a Refusal>,
}

/// What fixes a batch in the log.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub position: Position,
    pub epoch: Epoch,
    pub batch: BatchId,
}

/// How a run ended. `Err` of the run itself means doubt: whether it took effect is unknown.
#[derive(Debug, Clone, PartialEq)]
pub enum Run {
    /// These entries, the first of the batch, are durable on a majority together with their
    /// effects. There are fewer than the batch has if its time was up.
    Committed(Vec<Entry>),
    /// Nothing was done, because of this request.
    Refused { index: usize, refusal: Refusal },
    /// Nothing was done: another program's transaction holds a document of this request.
    Contended { index: usize },
}

/// The session in which a coordinator writes: its id stands in the claim, so that a successor can
/// end whatever it left open.
#[derive(Debug)]
pub struct Session {
    inner: ClientSession,
    store: Store,
    open: bool,
}

impl Store {
    /// A session for batches.
    pub async fn batch_session(&self) -> Result<Session, StoreError> {
        Ok(Session {
            inner: self.session(false).await?,
            store: self.clone(),
            open: false,
        })
    }
}

impl Session {
    /// The session's id (`lsid`) as MongoDB knows it.
    pub fn id(&self) -> Bson {
        self.inner.id().get("id").cloned().unwrap_or(Bson::Null)
    }

    /// Runs the batch and commits it with majority. An error means that nothing is known about it;
    /// [`Store::resolve`] finds out.
    pub async fn run(&mut self, place: Place, items: &[Item<'_>]) -> Result<Run, StoreError> {
        let ran = self.try_run(place, items).await;
        if self.open {
            self.abort().await;
        }
        ran
    }

    async fn try_run(&mut self, place: Place, items: &[Item<'_>]) -> Result<Run, StoreError> {
        self.begin().await?;
        let node = self.store.node.clone();
        let mut work = Work::new(items, &node);
        while let Some(step) = work.next_step() {
            let applied = match &step {
                Step::Skip { .. } => Ok(Vec::new()),
                Step::Inserts { documents, .. } => self.inserts(items, &step, documents).await,
                Step::One { index } => self.one(&items[*index], &node).await,
            };
            match applied {
                Ok(applied) => work.done(&step, applied),
                Err(error) => return fault_of(error, &step, items),
            }
        }
        self.insert_log(place, &work.entries).await?;
        self.commit().await?;
        Ok(Run::Committed(work.entries))
    }

    /// Ends every earlier transaction of this session for good. A commit that was sent and never
    /// answered may still lie in a socket of a primary that was frozen; a newer transaction on the
    /// same session makes the server refuse it. Only after this does an empty position stay empty.
    pub async fn bury(&mut self) -> Result<(), StoreError> {
        self.begin().await?;
        let nothing = doc! { "find": LOG, "filter": {"_id": 0}, "limit": 1 };
        let buried = self.command(DATABASE, nothing).await;
        self.abort().await;
        buried.map(drop)
    }

    async fn one(&mut self, item: &Item<'_>, node: &NodeName) -> Result<Vec<Applied>, Fault> {
        let stamp = stamp_of(item, node);
        let request = item.request;
        let applied = apply::apply(self, &request.namespace, &request.write, &stamp).await?;
        Ok(vec![applied])
    }

    /// One insert command for the inserts of neighbouring requests.
    async fn inserts(
        &mut self,
        items: &[Item<'_>],
        step: &Step,
        documents: &[Document],
    ) -> Result<Vec<Applied>, Fault> {
        let namespace = &items[step.first()].request.namespace;
        let command = doc! { "insert": namespace.collection(), "documents": documents };
        let reply = self.command(namespace.database(), command).await?;
        if let Some(error) = first_write_error(&reply) {
            let at = error
                .get_i32("index")
                .ok()
                .and_then(|at| usize::try_from(at).ok());
            return Err(Fault {
                error: StoreError::from_write_error(error),
                document: at,
            });
        }
        let mut rest = documents;
        let applied = step.indexes().map(|index| {
            let (own, others) = rest.split_at(inserts_of(items[index].request));
            rest = others;
            apply::inserted(apply::keys_of(own))
        });
        Ok(applied.collect())
    }

    /// Runs a statement of one request; a write error in the reply is an error here.
    pub(super) async fn statement(
        &mut self,
        database: &str,
        command: Document,
    ) -> Result<Document, StoreError> {
        let reply = self.command(database, command).await?;
        match first_write_error(&reply) {
            Some(error) => Err(StoreError::from_write_error(error)),
            None => Ok(reply),
        }
    }

    async fn command(
        &mut self,
        database: &str,
        mut command: Document,
    ) -> Result<Document, StoreError> {
        let time_ms = i64::try_from(REQUEST_RUN_MAX.as_millis()).unwrap_or(i64::MAX);
        command.insert("maxTimeMS", time_ms);
        let database = self.store.client.database(database);
        // The server ends a statement that is merely slow; this bound is for one that is gone.
        let time = REQUEST_RUN_MAX + CALL_MAX;
        let call = database.run_command(command).session(&mut self.inner);
        super::within(time, async { call.await.map_err(StoreError::from) }).await
    }

    async fn begin(&mut self) -> Result<(), StoreError> {
        let start = self
            .inner
            .start_transaction()
            .read_concern(ReadConcern::snapshot())
            .write_concern(WriteConcern::majority());
        super::bounded(async { start.await.map_err(StoreError::from) }).await?;
        self.open = true;
        Ok(())
    }

    async fn insert_log(&mut self, place: Place, entries: &[Entry]) -> Result<(), StoreError> {
        let stamps = entries.first().zip(entries.last());
        let (first, last) = stamps.map_or((0, 0), |(first, last)| (first.t, last.t));
        let document = LogDocument {
            position: place.position,
            epoch: place.epoch,
            node: self.store.node.clone(),
            batch: place.batch,
            first,
            last,
            entries: entries.to_vec(),
            claim: false,
        };
        let command = doc! { "insert": LOG, "documents": [document.to_bson(self.id())] };
        let reply = self.command(DATABASE, command).await?;
        let Some(error) = first_write_error(&reply) else {
            return Ok(());
        };
        let by_id = error
            .get_document("keyPattern")
            .is_ok_and(|key| key.contains_key("ids"));
        if error
            .get_i32("code")
            .is_ok_and(|code| code == DUPLICATE_KEY)
            && by_id
        {
            return Err(StoreError::Repeated);
        }
        Err(StoreError::from_write_error(error))
    }

    async fn commit(&mut self) -> Result<(), StoreError> {
        self.open = false;
        let mut tries = 0;
        loop {
            tries += 1;
            let commit = timeout(CALL_MAX, async { self.inner.commit_transaction().await });
            match commit.await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => {
                    let unknown = error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT);
                    if !unknown || tries >= COMMIT_TRIES_MAX {
                        return Err(error.into());
                    }
                }
                Err(_) if tries >= COMMIT_TRIES_MAX => return Err(StoreError::TimedOut(CALL_MAX)),
                Err(_) => {}
            }
        }
    }

    /// Gives the locks back now instead of when the transaction's life ends. If this does not get
    /// through, the next transaction of this session ends the open one on the server.
    async fn abort(&mut self) {
        self.open = false;
        if timeout(CALL_MAX, async { self.inner.abort_transaction().await })
            .await
            .is_err()
        {
            debug!("an abort was not answered");
        }
    }
}

/// An error of a step, with the document of the command that it is about, if known.
struct Fault {
    error: StoreError,
    document: Option<usize>,
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self {
            error,
            document: None,
        }
    }
}

/// What to send next.
enum Step {
    /// Requests that are only logged.
    Skip {
        index: usize,
    },
    /// The inserts of the requests `first..end`, all into one collection.
    Inserts {
        first: usize,
        end: usize,
        documents: Vec<Document>,
    },
    One {
        index: usize,
    },
}

impl Step {
    const fn first(&self) -> usize {
        match self {
            Self::Skip { index } | Self::One { index } => *index,
            Self::Inserts { first, .. } => *first,
        }
    }

    fn indexes(&self) -> std::ops::Range<usize> {
        match self {
            Self::Skip { index } | Self::One { index } => *index..*index + 1,
            Self::Inserts { first, end, .. } => *first..*end,
        }
    }
}

/// The requests of a batch on their way into its transaction.
struct Work<'a> {
    items: &'a [Item<'a>],
    node: &'a NodeName,
    entries: Vec<Entry>,
    key_bytes: usize,
    begun: Instant,
}

impl<'a> Work<'a> {
    fn new(items: &'a [Item<'a>], node: &'a NodeName) -> Self {
        Self {
            items,
            node,
            entries: Vec::with_capacity(items.len()),
            key_bytes: 0,
            begun: Instant::now(),
        }
    }

    /// `None` at the end of the batch, or where it is cut because its bounds are reached.
    fn next_step(&self) -> Option<Step> {
        let index = self.entries.len();
        let full = self.begun.elapsed() > BATCH_RUN_MAX || self.key_bytes > LOG_KEY_BYTES_MAX;
        if index > 0 && full {
            return None;
        }
        let item = self.items.get(index)?;
        if item.refused.is_some() {
            return Some(Step::Skip { index });
        }
        match &item.request.write {
            Write::Insert { .. } => Some(self.inserts_from(index)),
            _ => Some(Step::One { index }),
        }
    }

    fn inserts_from(&self, first: usize) -> Step {
        let namespace = &self.items[first].request.namespace;
        let mut documents = Vec::new();
        let mut end = first;
        for item in &self.items[first..] {
            let Write::Insert { documents: own } = &item.request.write else {
                break;
            };
            let fits = documents.len() + own.len() <= INSERT_COMMAND_DOCUMENTS_MAX;
            let joins = item.refused.is_none() && item.request.namespace == *namespace && fits;
            if end > first && !joins {
                break;
            }
            let stamp = stamp_of(item, self.node);
            documents.extend(own.iter().map(|document| apply::stamped(document, &stamp)));
            end += 1;
        }
        Step::Inserts {
            first,
            end,
            documents,
        }
    }

    fn done(&mut self, step: &Step, applied: Vec<Applied>) {
        let mut applied = applied.into_iter();
        for index in step.indexes() {
            let item = &self.items[index];
            let (keys, result) = match (item.refused, applied.next()) {
                (None, Some(applied)) => (applied.keys, Ok(applied.answer)),
                (refused, _) => (Vec::new(), Err(refused.cloned().unwrap_or_else(lost))),
            };
            self.key_bytes += keys.iter().map(key_bytes).sum::<usize>();
            self.entries.push(Entry {
                t: item.stamp,
                id: item.request.id.clone(),
                digest: item.request.digest,
                namespace: item.request.namespace.to_string(),
                op: item.request.write.op().to_owned(),
                keys,
                result,
            });
        }
    }
}

/// Cannot happen: each step gives as many results as it has requests.
fn lost() -> Refusal {
    debug_assert!(false, "a request has neither a result nor a refusal");
    Refusal {
        code: 0,
        name: "Internal".into(),
        message: "the request was not run".into(),
    }
}

fn key_bytes(key: &Bson) -> usize {
    match key {
        Bson::ObjectId(_) => 20,
        Bson::String(text) => text.len() + 16,
        Bson::Document(document) => document.to_vec().map_or(64, |bytes| bytes.len()),
        Bson::Binary(binary) => binary.bytes.len() + 16,
        _ => 32,
    }
}

fn stamp_of(item: &Item<'_>, node: &NodeName) -> Stamp {
    Stamp {
        t: item.stamp,
        n: node.clone(),
    }
}

fn inserts_of(request: &WriteRequest) -> usize {
    match &request.write {
        Write::Insert { documents } => documents.len(),
        _ => 0,
    }
}

fn first_write_error(reply: &Document) -> Option<&Document> {
    reply.get_array("writeErrors").ok()?.first()?.as_document()
}

/// What an error of a step means for the batch.
fn fault_of(fault: impl Into<Fault>, step: &Step, items: &[Item<'_>]) -> Result<Run, StoreError> {
    let Fault { error, document } = fault.into();
    let index = document.map_or(step.first(), |at| owner_of(at, step, items));
    match error {
        StoreError::Refused(refusal) => Ok(Run::Refused {
            index,
            refusal: in_plain_words(refusal),
        }),
        StoreError::Contended => Ok(Run::Contended { index }),
        other => Err(other),
    }
}

/// The request that the insert command's document number `at` belongs to.
fn owner_of(at: usize, step: &Step, items: &[Item<'_>]) -> usize {
    let mut end = 0;
    let owner = step.indexes().find(|index| {
        end += inserts_of(items[*index].request);
        at < end
    });
    owner.unwrap_or(step.first())
}

/// Adds what to do where MongoDB's text does not say it.
fn in_plain_words(refusal: Refusal) -> Refusal {
    const NOT_IN_TRANSACTION: i32 = 263;
    let message = match refusal.code {
        MAX_TIME_EXPIRED => format!(
            "the request ran longer than {} s, the most that one request may take; nothing was changed: \
             give its filter an index, or split it",
            REQUEST_RUN_MAX.as_secs()
        ),
        NOT_IN_TRANSACTION => format!(
            "MongoDB cannot write this in a transaction, so Drumline cannot put it in order \
             (capped and time-series collections): {}",
            refusal.message
        ),
        _ => return refusal,
    };
    Refusal { message, ..refusal }
}
