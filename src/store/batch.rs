//! One batch as one transaction: the requests' changes and the log document, or nothing.

use bson::{Bson, Document, doc};
use mongodb::ClientSession;
use mongodb::error::UNKNOWN_TRANSACTION_COMMIT_RESULT;
use mongodb::options::{ReadConcern, WriteConcern};
use tokio::time::timeout;
use tracing::debug;

use super::error::{DUPLICATE_KEY, StoreError};
use super::merged;
use super::schema::{DATABASE, Entry, LOG, LogDocument};
use super::work::{Fault, Merging, Work};
use super::{CALL_MAX, Store};
use crate::model::limits::REQUEST_RUN_MAX;
use crate::model::{BatchId, Epoch, Namespace, Position, Refusal, WriteRequest};
use crate::mutants::{self, Mutant};

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
    /// Nothing was done: MongoDB does not take the log document of so many requests.
    Oversized,
}

/// The session in which a coordinator writes: its id stands in the claim, so that a successor can
/// end whatever it left open.
#[derive(Debug)]
pub struct Session {
    inner: ClientSession,
    store: Store,
    open: bool,
    /// Set while inserts meet ids that are taken: then it is worth looking for them first.
    pub(super) careful: bool,
    /// Whether the look found one in this batch.
    pub(super) duplicates: bool,
}

impl Store {
    /// A session for batches.
    pub async fn batch_session(&self) -> Result<Session, StoreError> {
        Ok(Session {
            inner: self.session(false).await?,
            store: self.clone(),
            open: false,
            careful: false,
            duplicates: false,
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
        let ran = match self.try_run(place, items, Merging::Neighbours).await {
            // Nothing was done. One command a request tells what a command for many did not.
            Err(Fault::Ambiguous) => self.try_run(place, items, Merging::Nothing).await,
            ran => ran,
        };
        ran.map_err(|fault| match fault {
            Fault::Store(error) => error,
            Fault::Ambiguous => StoreError::Damaged("a reply does not fit its command".into()),
        })
    }

    async fn try_run(
        &mut self,
        place: Place,
        items: &[Item<'_>],
        merging: Merging,
    ) -> Result<Run, Fault> {
        let ran = self.transact(place, items, merging).await;
        if self.open {
            self.abort().await;
        }
        ran
    }

    async fn transact(
        &mut self,
        place: Place,
        items: &[Item<'_>],
        merging: Merging,
    ) -> Result<Run, Fault> {
        self.begin().await?;
        self.duplicates = false;
        let node = self.store.node.clone();
        let collated = |namespace: &Namespace| self.store.is_collated(namespace);
        let mut work = Work::new(items, merging, collated);
        while let Some(step) = work.next_step() {
            match merged::run(self, &step, items, &node).await {
                Ok(applied) => work.done(&step, applied),
                Err(error) => {
                    let verdict = error.verdict(&step);
                    self.careful |= matches!(&verdict, Ok(Run::Refused { refusal, .. }) if refusal.code == DUPLICATE_KEY);
                    return verdict;
                }
            }
        }
        self.careful = self.duplicates;
        let entries = work.into_entries();
        match self.insert_log(place, &entries).await {
            Err(StoreError::Refused(refusal)) => return oversized(items, refusal),
            inserted => inserted?,
        }
        if mutants::active(Mutant::ReplyBeforeCommit) {
            self.open = false;
            return Ok(Run::Committed(entries));
        }
        match self.commit().await {
            Err(StoreError::Refused(refusal)) if mutants::active(Mutant::InterruptedIsFailure) => {
                Ok(Run::Refused { index: 0, refusal })
            }
            committed => committed
                .map(|()| Run::Committed(entries))
                .map_err(Fault::from),
        }
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

    pub(super) async fn command(
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
        let call = async { call.await.map_err(StoreError::from) };
        self.store.primary.bounded(time, call).await
    }

    async fn begin(&mut self) -> Result<(), StoreError> {
        if mutants::active(Mutant::ReplyBeforeCommit) {
            self.commit().await.ok(); // the batch before, if there was one
        }
        let start = self
            .inner
            .start_transaction()
            .read_concern(ReadConcern::snapshot())
            .write_concern(match mutants::active(Mutant::OneMemberAcknowledges) {
                true => WriteConcern::nodes(1),
                false => WriteConcern::majority(),
            });
        super::within(CALL_MAX, async { start.await.map_err(StoreError::from) }).await?;
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
            match self.store.primary.lasting(commit).await? {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if mutants::active(Mutant::InterruptedIsFailure) => {
                    return Err(StoreError::taking_interruption_for_refusal(error));
                }
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
        let abort = timeout(CALL_MAX, async { self.inner.abort_transaction().await });
        if !matches!(self.store.primary.lasting(abort).await, Ok(Ok(_))) {
            debug!("an abort was not answered");
        }
    }
}

/// What the refusal of a log document means. A lone request gets it for its own; where even the note
/// of a refusal is refused (a right is missing, say), the batch stays in doubt and is tried again.
fn oversized(items: &[Item<'_>], refusal: Refusal) -> Result<Run, Fault> {
    match items {
        [lone] if lone.refused.is_some() => Err(Fault::Store(StoreError::Refused(refusal))),
        [_] => Ok(Run::Refused { index: 0, refusal }),
        _ => Ok(Run::Oversized),
    }
}

/// The first of a reply's write errors.
pub(super) fn first_write_error(reply: &Document) -> Option<&Document> {
    reply.get_array("writeErrors").ok()?.first()?.as_document()
}
