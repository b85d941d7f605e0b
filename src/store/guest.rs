//! A command that works without a server: it appends to the log itself, optimistically, in the
//! epoch that it finds, and deposes nobody.

use std::time::Duration;

use bson::doc;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use super::batch::{Item, Place, Run, Session};
use super::error::StoreError;
use super::log::{Seen, Standing, Tail};
use super::read::Found;
use super::schema::{DATABASE, Entry, GUESTS};
use super::{Store, bounded};
use crate::budget::Budget;
use crate::model::limits::{IN_FLIGHT_BYTES_MAX, REQUEST_WAIT_MAX};
use crate::model::order::CLOCK_AHEAD_MAX;
use crate::model::{
    BatchId, Consistency, Documents, Epoch, Failure, Namespace, NodeName, Outcome, Position, Read,
    Refusal, Stamp, WriteRequest,
};

/// The pause before the next attempt, when another append came first.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs requests on the replica set without a node.
#[derive(Debug)]
pub struct Guest {
    store: Store,
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
        if request.write.makes_documents() {
            self.store.ensure(&request.namespace).await?;
        }
        let mut session = self
            .registered_session()
            .await
            .map_err(StoreError::into_failure)?;
        let written = timeout_at(deadline, self.append(&mut session, &request)).await;
        // Whoever finds the entry of a guest that is gone only ends a session that is idle.
        let _ = self.unregister(&session).await;
        written.unwrap_or(Err(Failure::Unknown))
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
        let reading = async {
            let (least, clock) = match consistency {
                Consistency::Linearizable => (self.tail().await?.position, 0),
                Consistency::Causal => (Position::ZERO, clock),
            };
            loop {
                let found = self.store.read(namespace, read, least, clock, &mut memory);
                match found.await? {
                    Found::Documents(documents) => return Ok(documents),
                    Found::TooOld(_) => sleep(PAUSE).await,
                }
            }
        };
        let late = || Failure::Stale("the log does not reach the stamp yet".into());
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

    async fn append(
        &self,
        session: &mut Session,
        request: &WriteRequest,
    ) -> Result<Outcome, Failure> {
        let mut refused: Option<Refusal> = None;
        loop {
            let tail = self.tail().await.map_err(StoreError::into_failure)?;
            if request.clock.saturating_sub(tail.clock) > CLOCK_AHEAD_MAX {
                return Err(Failure::Invalid(
                    "the client's clock is too far ahead of the log".into(),
                ));
            }
            let place = Place {
                position: tail.position.next(),
                epoch: tail.epoch,
                batch: BatchId::fresh(),
            };
            let item = Item {
                request,
                stamp: tail.clock.max(request.clock) + 1,
                refused: refused.as_ref(),
            };
            match session.run(place, &[item]).await {
                Ok(Run::Committed(entries)) => return self.outcome(place.position, entries),
                Ok(Run::Refused { refusal, .. }) => {
                    refused = Some(refusal);
                    continue;
                }
                Ok(Run::Contended { .. }) => {}
                Err(StoreError::Repeated) => return self.replay(request).await,
                Err(error) => {
                    debug!(%error, "an append is in doubt");
                    if let Standing::Mine(entries) = self.resolve(session, place).await {
                        return self.outcome(place.position, entries);
                    }
                }
            }
            refused = None;
            sleep(PAUSE).await;
        }
    }

    async fn resolve(&self, session: &mut Session, place: Place) -> Standing {
        loop {
            match self.store.resolve(session, place).await {
                Ok(standing) => return standing,
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

    async fn replay(&self, request: &WriteRequest) -> Result<Outcome, Failure> {
        let seen = self.store.seen(&[&request.id]).await;
        let seen = seen.map_err(StoreError::into_failure)?;
        let earlier = seen.first().ok_or(Failure::Unknown)?;
        match earlier.entry.digest == request.digest {
            true => Ok(Seen::outcome(earlier)),
            false => Err(Failure::IdReused),
        }
    }

    /// The end of the log. An empty log gets its first claim, so that an epoch begins (I2).
    async fn tail(&self) -> Result<Tail, StoreError> {
        let tail = self.store.tail().await?;
        if tail.epoch > Epoch::ZERO {
            return Ok(tail);
        }
        self.store.prepare().await?;
        self.store.claim().await?;
        self.store.tail().await
    }

    /// A session whose id stands in the guests' collection while it may hold locks, so that a
    /// coordinator can end it if this process dies.
    async fn registered_session(&self) -> Result<Session, StoreError> {
        let session = self.store.batch_session().await?;
        let database = self.store.client.database(DATABASE);
        let guest = doc! { "_id": session.id(), "at": bson::DateTime::now() };
        let insert = doc! { "insert": GUESTS, "documents": [guest] };
        bounded(async { database.run_command(insert).await.map_err(StoreError::from) }).await?;
        Ok(session)
    }

    async fn unregister(&self, session: &Session) -> Result<(), StoreError> {
        let database = self.store.client.database(DATABASE);
        let delete =
            doc! { "delete": GUESTS, "deletes": [{"q": {"_id": session.id()}, "limit": 1}] };
        bounded(async { database.run_command(delete).await.map_err(StoreError::from) }).await?;
        Ok(())
    }
}
