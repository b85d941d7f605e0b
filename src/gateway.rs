//! The one way in: a checked request goes to the sequencer, or in a snapshot to the replica set.
//!
//! Never decodes or encodes, never decides the order.

use std::time::Duration;

use bson::Document;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::error;

use crate::budget::Reservation;
use crate::model::limits::REQUEST_WAIT_MAX;
use crate::model::order::CLOCK_AHEAD_MAX;
use crate::model::{
    Consistency, Documents, Failure, Namespace, NodeName, Outcome, Position, Read, WriteRequest,
};
use crate::sequencer::{Handle, Validator};
use crate::store::{Found, Store, StoreError};

/// The pause before a snapshot that was too old is taken again.
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(2);
/// It doubles up to this: a client may ask for a stamp that never comes.
const SNAPSHOT_PAUSE_MAX: Duration = Duration::from_millis(64);

/// What is read, and where.
#[derive(Debug, Clone, Copy)]
struct Question<'a> {
    namespace: &'a Namespace,
    read: &'a Read,
}

/// Answers requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gateway {
    store: Store,
    sequencer: Handle,
    validator: Validator,
    node: String,
}

impl Gateway {
    pub fn new(store: Store, sequencer: Handle, node: String) -> Self {
        Self {
            validator: Validator::new(store.clone()),
            store,
            sequencer,
            node,
        }
    }

    /// Runs a write in the serial order. `Ok` holds MongoDB's answer or its refusal; both are in
    /// the log and durable on a majority of members (I4). The write goes on to its end even if the
    /// caller waits no longer.
    /// `memory` is what the request holds until then.
    pub async fn write(
        &self,
        request: WriteRequest,
        memory: Reservation,
    ) -> Result<Outcome, Failure> {
        let gateway = self.clone();
        let running = tokio::spawn(async move {
            let outcome = gateway.run_write(request).await;
            drop(memory);
            outcome
        });
        running.await.unwrap_or_else(|panic| {
            error!(%panic, "a write's task failed");
            Err(Failure::Unknown)
        })
    }

    async fn run_write(&self, request: WriteRequest) -> Result<Outcome, Failure> {
        let deadline = Instant::now() + REQUEST_WAIT_MAX;
        self.ready().map_err(|_| Failure::NoCoordinator)?;
        let makes = request.write.makes_documents();
        let ensured = timeout_at(deadline, self.store.ensure(&request.namespace, makes));
        let late = |_| Failure::Unavailable("it did not answer in time".into());
        ensured.await.map_err(late)??;
        self.sequencer.submit(request, deadline).await
    }

    /// Runs a read. `clock` is the client's Lamport clock, 0 if it gave none: a causal read is
    /// never older than it. `memory` grows with the result.
    pub async fn read(
        &self,
        namespace: Namespace,
        read: Read,
        consistency: Consistency,
        clock: i64,
        memory: &mut Reservation,
    ) -> Result<Documents, Failure> {
        let deadline = Instant::now() + REQUEST_WAIT_MAX;
        if clock.saturating_sub(self.sequencer.progress().clock) > CLOCK_AHEAD_MAX {
            return Err(Failure::Invalid(
                "Drumline-Stamp is too far ahead of the log: send the stamp of the last reply you got".into(),
            ));
        }
        let question = Question {
            namespace: &namespace,
            read: &read,
        };
        let reading = async {
            match consistency {
                Consistency::Causal => self.read_at(question, Position::ZERO, clock, memory).await,
                Consistency::Linearizable => self.linearizable(question, memory).await,
            }
        };
        let late = || Failure::Stale("the log does not reach the stamp yet".into());
        timeout_at(deadline, reading).await.map_err(|_| late())?
    }

    /// What this node knows to be acknowledged when the read begins is in the read's snapshot; that
    /// nobody else has acknowledged more is proved by a look that begins after the read did.
    async fn linearizable(
        &self,
        question: Question<'_>,
        memory: &mut Reservation,
    ) -> Result<Documents, Failure> {
        let progress = self.sequencer.progress();
        let (Some(epoch), Some(known)) = (progress.epoch, progress.tail) else {
            return Err(Failure::NoCoordinator);
        };
        let (found, tail) = tokio::join!(
            self.read_at(question, known, 0, memory),
            self.validator.tail(),
        );
        let (found, tail) = (found?, tail.map_err(StoreError::into_failure)?);
        if tail.epoch > epoch {
            self.sequencer.depose(tail.epoch).await;
            return Err(Failure::NoCoordinator);
        }
        let own = |node: &NodeName| node.as_str() == self.node;
        // A command without a server may have appended, and its write been acknowledged, before
        // this read: at the end of the log, or before this node's own last batch.
        let guest = match tail.node.as_ref().is_some_and(own) {
            true => self.sequencer.progress().guest,
            false => Some(tail.position),
        };
        match guest {
            Some(guest) if guest > found.position => self.read_at(question, guest, 0, memory).await,
            _ => Ok(found),
        }
    }

    async fn read_at(
        &self,
        Question { namespace, read }: Question<'_>,
        least: Position,
        clock: i64,
        memory: &mut Reservation,
    ) -> Result<Documents, Failure> {
        let mut pause = SNAPSHOT_PAUSE;
        loop {
            match self
                .store
                .read(namespace, read, least, clock, memory)
                .await?
            {
                Found::Documents(documents) => return Ok(documents),
                Found::TooOld(_) => sleep(pause).await,
            }
            pause = SNAPSHOT_PAUSE_MAX.min(pause * 2);
        }
    }

    /// The log's documents from a position on, as they are stored.
    pub async fn log(&self, from: Position, limit: i64) -> Result<Vec<Document>, Failure> {
        Ok(self.store.log_from(from, limit).await?)
    }

    /// Whether this node can answer requests now; the text says why not.
    pub fn ready(&self) -> Result<(), String> {
        match self.sequencer.progress().epoch {
            Some(_) => Ok(()),
            None => Err("no coordinator is known".into()),
        }
    }

    /// The name of the coordinator, if this node knows one.
    pub fn coordinator(&self) -> Option<String> {
        self.ready().is_ok().then(|| self.node.clone())
    }
}
