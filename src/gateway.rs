//! The one way in: a checked request goes to the sequencer, or in a snapshot to the replica set.
//!
//! Never decodes or encodes, never decides the order.

use std::time::Duration;

use bson::Document;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::error;

use crate::model::limits::REQUEST_WAIT_MAX;
use crate::model::{
    Consistency, Documents, Failure, Namespace, Outcome, Position, Read, WriteRequest,
};
use crate::sequencer::{Handle, Validator};
use crate::store::{Found, Store, StoreError};

/// The pause before a snapshot that was too old is taken again.
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(2);

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
    pub async fn write(&self, request: WriteRequest) -> Result<Outcome, Failure> {
        let gateway = self.clone();
        let running = tokio::spawn(async move { gateway.run_write(request).await });
        running.await.unwrap_or_else(|panic| {
            error!(%panic, "a write's task failed");
            Err(Failure::Unknown)
        })
    }

    async fn run_write(&self, request: WriteRequest) -> Result<Outcome, Failure> {
        self.ready().map_err(|_| Failure::NoCoordinator)?;
        if request.write.makes_documents() {
            self.store.ensure(&request.namespace).await?;
        }
        self.sequencer.submit(request).await
    }

    /// Runs a read. `clock` is the client's Lamport clock, 0 if it gave none: a causal read is
    /// never older than it.
    pub async fn read(
        &self,
        namespace: Namespace,
        read: Read,
        consistency: Consistency,
        clock: i64,
    ) -> Result<Documents, Failure> {
        let deadline = Instant::now() + REQUEST_WAIT_MAX;
        let reading = async {
            match consistency {
                Consistency::Causal => self.read_at(&namespace, &read, Position::ZERO, clock).await,
                Consistency::Linearizable => self.linearizable(&namespace, &read).await,
            }
        };
        let late = || Failure::Stale("the log does not reach the stamp yet".into());
        timeout_at(deadline, reading).await.map_err(|_| late())?
    }

    /// What this node knows to be acknowledged when the read begins is in the read's snapshot; that
    /// nobody else has acknowledged more is proved by a look that begins after the read did.
    async fn linearizable(&self, namespace: &Namespace, read: &Read) -> Result<Documents, Failure> {
        let progress = self.sequencer.progress();
        let (Some(epoch), Some(known)) = (progress.epoch, progress.tail) else {
            return Err(Failure::NoCoordinator);
        };
        let (found, tail) = tokio::join!(
            self.read_at(namespace, read, known, 0),
            self.validator.tail(),
        );
        let (found, tail) = (found?, tail.map_err(StoreError::into_failure)?);
        if tail.epoch > epoch {
            self.sequencer.depose(tail.epoch).await;
            return Err(Failure::NoCoordinator);
        }
        let own = tail
            .node
            .as_ref()
            .is_some_and(|node| node.as_str() == self.node);
        if own || tail.position <= found.position {
            return Ok(found);
        }
        // A command without a server appended: its write may have been acknowledged before.
        self.read_at(namespace, read, tail.position, 0).await
    }

    async fn read_at(
        &self,
        namespace: &Namespace,
        read: &Read,
        least: Position,
        clock: i64,
    ) -> Result<Documents, Failure> {
        loop {
            let found = self.store.read(namespace, read, least, clock).await;
            match found.map_err(StoreError::into_failure)? {
                Found::Documents(documents) => return Ok(documents),
                Found::TooOld(_) => sleep(SNAPSHOT_PAUSE).await,
            }
        }
    }

    /// The log's documents from a position on, as they are stored.
    pub async fn log(&self, from: Position, limit: i64) -> Result<Vec<Document>, Failure> {
        let documents = self.store.log_from(from, limit).await;
        documents.map_err(StoreError::into_failure)
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
