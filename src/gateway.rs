//! The one way in: a checked request goes to the sequencer or to the replica set, here or (once)
//! at the coordinator.

use crate::model::{Consistency, Documents, Failure, Namespace, Outcome, Read, WriteRequest};

/// Answers requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gateway {}

impl Gateway {
    /// Runs a write in the serial order. `Ok` holds MongoDB's answer or its refusal; both are in
    /// the log and durable on a majority of members (I4).
    pub async fn write(&self, _request: WriteRequest) -> Result<Outcome, Failure> {
        Err(Failure::NoCoordinator)
    }

    /// Runs a read. `clock` is the client's Lamport clock, 0 if it gave none.
    pub async fn read(
        &self,
        _namespace: Namespace,
        _read: Read,
        _consistency: Consistency,
        _clock: i64,
    ) -> Result<Documents, Failure> {
        Err(Failure::NoCoordinator)
    }

    /// Whether this node can answer requests now; the text says why not.
    pub fn ready(&self) -> Result<(), String> {
        Err("no coordinator".into())
    }

    /// The name of the coordinator, if this node knows one.
    pub fn coordinator(&self) -> Option<String> {
        None
    }
}
