//! What can be wrong with the log itself: somebody has changed it behind the nodes.
//!
//! Never speaks to MongoDB.

use bson::{Bson, Document};
use thiserror::Error;

use crate::model::{BatchId, Position};

/// How to let the nodes go on with the log as it is.
const REPAIR: &str = "`drumline repair` shows what is lost, and with --confirm lets the nodes go \
                      on with the log as it is";

/// Why nothing can be appended to the log. It stays so until somebody mends it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LogFault {
    /// It ends before a position that was durable on a majority.
    #[error(
        "the log drumline.log went back: it had come to position {known} and ends at {found} \
         now, so it was emptied, dropped, renamed or restored from an older day. Put it back as it \
         was, and the nodes go on by themselves; or {REPAIR}"
    )]
    WentBack { known: Position, found: Position },
    /// A position holds another batch than it held.
    #[error(
        "the log drumline.log is another: position {at} held batch {known} and holds {found} \
         now, so it was replaced or restored. Put it back as it was, and the nodes go on by \
         themselves; or {REPAIR}"
    )]
    Replaced {
        at: Position,
        known: BatchId,
        found: BatchId,
    },
    /// A position before the end is gone.
    #[error(
        "the log drumline.log has a hole: the document at position {at} is gone. Put it back, \
         and the nodes go on by themselves; or {REPAIR}"
    )]
    Hole { at: Position },
    /// It holds a document that Drumline did not write.
    #[error(
        "the log drumline.log holds a document that Drumline did not write, with the _id \
         {id}. Take it out of the collection, and the nodes go on by themselves"
    )]
    Foreign { id: String },
    /// It is part of what a restore is putting back.
    #[error(
        "a restore into the replica set is not at its end ({0}): start it again, and it goes on; the \
         nodes serve when it has ended"
    )]
    HalfRestored(String),
    /// An index is missing and cannot be made.
    #[error(
        "the log drumline.log has no index that keeps request ids apart, and MongoDB does not \
         make it: {why}. Drop the index `ids` if there is one of another kind, and the nodes make \
         theirs; or {REPAIR}"
    )]
    NoIndex { why: String },
}

impl LogFault {
    /// For a document in the log that has another form than the log's.
    pub fn foreign(document: &Document) -> Self {
        let id = document.get("_id").map_or("?".into(), Bson::to_string);
        let id = id.chars().take(100).collect();
        Self::Foreign { id }
    }
}
