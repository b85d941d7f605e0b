//! One line of a recorded history (docs/commands.md, "History").

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What was asked. A key is a document's `_id`, its value the field `value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// insertOne. Result: null.
    Insert,
    /// replaceOne with upsert. Result: how many documents matched, 0 or 1.
    Put,
    /// updateOne that sets the value. Result: how many documents matched, 0 or 1.
    Update,
    /// deleteOne. Result: how many documents were deleted, 0 or 1.
    Delete,
    /// updateOne that sets the value if it is another: the value is `[from, to]`. Result: how many
    /// documents matched, 0 or 1.
    Cas,
    /// findOne, linearizable. Result: the value, null if there is no document.
    Read,
}

/// What the client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Ok,
    /// With a stamp: refused at that place of the serial order (an insert of a key that exists).
    /// Without: nothing was done, and nothing will be.
    Fail,
    /// It may have been done, or may be done later, at most once.
    Unknown,
}

/// One operation of one client. `result` holds the reason as a text if the outcome is not `ok`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// The client. One client has one operation at a time.
    pub process: u32,
    /// The request id; null for reads.
    pub request: Option<String>,
    pub op: Op,
    pub key: Value,
    pub value: Value,
    /// On one monotonic clock for all processes.
    pub invoke_ns: u64,
    pub return_ns: u64,
    pub outcome: Outcome,
    pub result: Value,
    /// For a read: the stamp of the state it shows.
    pub stamp: Option<i64>,
    /// Its position in the log; for a read, the last position that it shows.
    pub position: Option<i64>,
}
