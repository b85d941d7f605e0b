//! A command that works without a server: it appends to the log itself, optimistically, in the
//! epoch that it finds, and deposes nobody.

use std::time::Duration;

use bson::{Bson, doc};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use super::Store;
use super::batch::{Item, Place, Run, Session};
use super::error::StoreError;
use super::log::{Standing, Tail};
use super::read::Question;
use super::schema::{DATABASE, Entry, GUESTS};
use super::watch::{Changes, LogWake, Since, Watched};
use crate::budget::Budget;
use crate::model::limits::{IN_FLIGHT_BYTES_MAX, REQUEST_RUN_MAX, REQUEST_WAIT_MAX};
use crate::model::order::{CLOCK_AHEAD_MAX, clock_is_at_its_end};
use crate::model::{
    BatchId, Consistency, Documents, Epoch, Failure, Namespace, NodeName, Outcome, Position, Read,
    Refusal, Stamp, WriteRequest,
};

/// The pause before the next attempt, when another append came first.
const PAUSE: Duration = Duration::from_millis(5);

/// How long something that passes is waited for, before the caller is told that nothing was done.
const PASSING_WAIT_MAX: Duration = Duration::from_secs(5);

/// Runs requests on the replica set without a node.
#[derive(Debug)]
pub struct Guest {
    pub(super) store: Store,
    name: NodeName,
}

impl Guest {
    /// Draws a name of its own: stamps say who gave them.
    pub async fn connect(uri: &str) -> Result<Self, StoreError> {
        let drawn = BatchId::fresh().nonce();
        let name = NodeName::parse(&format!("guest-{drawn:016x}"))
            .map_err(|error| StoreError::Damaged(error.to_string()))?;
        let store = Store::connect(uri, name.clone()).await?;
        Ok(Self { store, name })
    }

    /// Puts a write into the log, like a coordinator would, within [`REQUEST_WAIT_MAX`].
    pub async fn write(&self, request: WriteRequest) -> Result<Outcome, Failure> {
        let deadline = Instant::now() + REQUEST_WAIT_MAX;
        let makes = request.write.makes_documents();
        self.store.survey().await?;
        self.store.ensure(&request.namespace, makes).await?;
        let mut session = self.store.batch_session().await?;
        let written = timeout_at(deadline, self.append(&mut session, &request)).await;
        if let Ok(written) = written {
            // Whoever finds the entry of a guest that is gone only ends a session that is idle.
            let _ = self.unregister(&session).await;
            return written;
        }
        // Its transaction may be open still: its entry stays, for a coordinator to end it.
        Err(Failure::Unknown)
    }

    /// Runs a read; a linearizable one shows everything that was acknowledged before it began.
    pub async fn read(
        &self,
        namespace: &Namespace,
        read: &Read,
        consistency: Consistency,
        clock: i64,
    ) -> Result<Documents, Failure> {
        let mut memory = Budget::new(IN_FLIGHT_BYTES_MAX).open();
        let question = Question { namespace, read };
        let reading = async {
            let tail = self.store.tail().await?;
            if tail.epoch == Epoch::ZERO {
                // Who reads writes nothing: no log is begun.
                return self.store.read_without_log(question, &mut memory).await;
            }
            match consistency {
                Consistency::Linearizable => {
                    let least = tail.position;
                    self.store.read_primary(question, least, &mut memory).await
                }
                Consistency::Causal => self.store.read_nearest(question, clock, &mut memory).await,
            }
        };
        let late = || Failure::Unavailable("it did not answer in time".into());
        let limit = Instant::now() + REQUEST_WAIT_MAX;
        timeout_at(limit, reading)
            .await
            .unwrap_or_else(|_| Err(late()))
    }

    /// The log's documents from a position on.
    pub async fn log(&self, from: Position, limit: i64) -> Result<Vec<bson::Document>, Failure> {
        let documents = self.store.log_from(from, limit).await;
        documents.map_err(StoreError::into_failure)
    }

    /// A stream that says when the log has grown.
    pub async fn log_wake(&self) -> Result<LogWake, Failure> {
        Ok(self.store.log_wake().await?)
    }

    /// The changes of a collection.
    pub async fn watch(&self, watched: Watched, since: Since) -> Result<Changes, Failure> {
        self.store.watch(watched, since).await
    }

    async fn append(
        &self,
        session: &mut Session,
        request: &WriteRequest,
    ) -> Result<Outcome, Failure> {
        let mut refused: Option<(Position, Refusal)> = None;
        let begun = Instant::now();
        loop {
            self.register(session).await?;
            let tail = self.tail().await?;
            // A refusal counts at the position at which it was given. Elsewhere, ask again.
            let here = refused.filter(|(position, _)| *position == tail.position.next());
            refused = None;
            if request.clock.saturating_sub(tail.clock) > CLOCK_AHEAD_MAX {
                return Err(Failure::clock_too_far_ahead());
            }
            if clock_is_at_its_end(tail.clock) {
                return Err(Failure::clock_at_its_end());
            }
            let place = Place {
                position: tail.position.next(),
                epoch: tail.epoch,
                batch: BatchId::fresh(),
            };
            let item = Item {
                request,
                stamp: tail.clock.max(request.clock) + 1,
                refused: here.as_ref().map(|(_, refusal)| refusal),
            };
            session.is_after(&tail);
            match session.run(place, &[item], REQUEST_RUN_MAX).await {
                Ok(Run::Committed(entries)) => return self.outcome(place.position, entries),
                Ok(Run::Refused { refusal, .. } | Run::Held { refusal, .. }) => {
                    refused = Some((place.position, refusal));
                    continue;
                }
                // Nothing was done, and it may pass yet.
                Ok(Run::Contended { .. }) if begun.elapsed() < PASSING_WAIT_MAX => {}
                Ok(Run::Contended { why, .. } | Run::Barred { why, .. }) => return Err(why),
                Ok(Run::Oversized) => {}
                Err(StoreError::Unproven) => self.store.survey().await?,
                Err(StoreError::Repeated) => {
                    if let Some(outcome) = self.replay(request).await? {
                        return Ok(outcome);
                    }
                }
                Err(error) => {
                    debug!(%error, "an append is in doubt");
                    let standing = self.resolve(session, place).await;
                    if let Standing::Mine(entries) = standing.map_err(|_| Failure::Unknown)? {
                        return self.outcome(place.position, entries);
                    }
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn resolve(&self, session: &mut Session, place: Place) -> Result<Standing, StoreError> {
        loop {
            match self.store.resolve(session, place, true).await {
                Ok(standing) => return Ok(standing),
                Err(StoreError::Log(fault)) => return Err(StoreError::Log(fault)),
                Err(error) => debug!(%error, "cannot resolve the position yet"),
            }
            sleep(PAUSE).await;
        }
    }

    fn outcome(&self, position: Position, entries: Vec<Entry>) -> Result<Outcome, Failure> {
        let entry = entries.into_iter().next().ok_or(Failure::Unknown)?;
        Ok(Outcome {
            result: entry.result,
            stamp: Stamp {
                t: entry.t,
                n: self.name.clone(),
            },
            position,
            replayed: false,
        })
    }

    /// The stored answer, once a majority holds it.
    async fn replay(&self, request: &WriteRequest) -> Result<Option<Outcome>, Failure> {
        let seen = self.store.seen(&[&request.id]).await?;
        match seen.first() {
            None => Ok(None),
            Some(earlier) if earlier.entry.digest == request.digest => Ok(Some(earlier.outcome())),
            Some(_) => Err(Failure::IdReused),
        }
    }

    /// The end of the log. An empty log gets its first claim, so that an epoch begins (I2).
    async fn tail(&self) -> Result<Tail, StoreError> {
        let tail = self.store.tail().await?;
        if tail.epoch > Epoch::ZERO {
            return Ok(tail);
        }
        self.store.prepare().await?;
        self.store.claim_first().await?;
        self.store.tail().await
    }

    /// Notes the session among the guests before it may hold locks, so that a coordinator can end
    /// it if this process dies. Before each attempt: a coordinator that ended it took the note away.
    async fn register(&self, session: &Session) -> Result<(), StoreError> {
        self.store.note_sessions(session.ids()).await
    }

    async fn unregister(&self, session: &Session) -> Result<(), StoreError> {
        let delete = doc! { "delete": GUESTS, "deletes": [{"q": {"_id": {"$in": session.ids()}}, "limit": 0}] };
        let store = &self.store;
        store.run(&store.order, DATABASE, delete).await.map(drop)
    }
}

impl Store {
    /// Notes sessions that no claim names and that may hold locks.
    pub(super) async fn note_sessions(&self, ids: &[Bson]) -> Result<(), StoreError> {
        let at = doc! { "$set": {"at": bson::DateTime::now()} };
        let notes = ids.iter();
        let notes = notes.map(|id| doc! { "q": {"_id": id}, "u": &at, "upsert": true });
        let update = doc! { "update": GUESTS, "updates": notes.collect::<Vec<_>>() };
        self.run(&self.order, DATABASE, update).await.map(drop)
    }
}
