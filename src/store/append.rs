//! The command that appends a document to the log, and proves in the same transaction that the log
//! is what it was: the position before stands, and no request id of the document is in it yet.
//!
//! Never speaks to MongoDB.

use bson::{Document, doc};

use super::codes::DUPLICATE_KEY;
use super::error::StoreError;
use super::reply::{count, first_write_error};
use super::schema::{LOG, LogDocument, REQUEST_IDS, batch_to_bson};
use crate::model::{BatchId, Position};
use crate::mutants::{self, Mutant};

/// The last document that the writer knows to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    pub position: Position,
    pub batch: BatchId,
}

/// No request has this id.
const NO_ID: &str = "";
/// The statements of the command, by their places in it.
const REPEATS: usize = 0;
const LAST: usize = 1;
const APPEND: usize = 2;

/// The command for a document, whose form in MongoDB is `stored`, after `last`.
///
/// Its first statement changes nothing: it finds a document that holds one of the ids, by the
/// unique index, whose name it gives; MongoDB refuses it if there is no such index. The second one
/// sets the batch id of the position before to what it is. The third one appends: no document has
/// this position and this batch id, so that it either inserts or meets the other that stands there.
pub fn command(document: &LogDocument, stored: &Document, last: Last) -> Document {
    let ids = match stored.get_array("ids") {
        Ok(ids) => ids.clone(),
        Err(_) => vec![NO_ID.into()],
    };
    let same = doc! { "$set": {"batch": batch_to_bson(&last.batch)} };
    let repeats = doc! { "q": {"ids": {"$in": ids}}, "u": &same, "hint": REQUEST_IDS };
    let last = doc! {
        "q": {"_id": last.position.0, "batch": batch_to_bson(&last.batch)},
        "u": same,
    };
    let append = doc! {
        "q": {"_id": document.position.0, "batch": batch_to_bson(&document.batch)},
        "u": stored,
        "upsert": true,
    };
    doc! { "update": LOG, "updates": [repeats, last, append] }
}

/// Whether the command's reply says that the document was appended to the log as it was known.
pub fn appended(reply: &Document) -> Result<(), StoreError> {
    if let Some(error) = first_write_error(reply) {
        return Err(meaning_of(error));
    }
    let inserted = reply.get_array("upserted").is_ok_and(|new| new.len() == 1);
    match count(reply, "n") {
        2 if inserted => Ok(()),
        1 if inserted && mutants::active(Mutant::NoProof) => Ok(()),
        1 if inserted => Err(StoreError::Unproven),
        _ => Err(StoreError::Repeated),
    }
}

fn meaning_of(error: &Document) -> StoreError {
    let code = error.get_i32("code").unwrap_or_default();
    let statement = error.get_i32("index").ok();
    let statement = statement.and_then(|index| usize::try_from(index).ok());
    let by_id = error
        .get_document("keyPattern")
        .is_ok_and(|key| key.contains_key("ids"));
    match statement {
        Some(APPEND) if code == DUPLICATE_KEY && by_id => StoreError::Repeated,
        Some(REPEATS | LAST) if StoreError::from_write_error(error).code().is_some() => {
            StoreError::Unproven
        }
        _ => StoreError::from_write_error(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reply: Document) -> String {
        appended(&reply).map_or_else(|error| format!("{error:?}"), |()| "appended".into())
    }

    #[test]
    fn only_an_append_after_the_known_position_counts() {
        let new = doc! { "index": 2, "_id": 8_i64 };
        assert_eq!(read(doc! { "n": 2, "upserted": [&new] }), "appended");
        assert_eq!(read(doc! { "n": 1, "upserted": [&new] }), "Unproven");
        assert_eq!(read(doc! { "n": 3, "upserted": [&new] }), "Repeated");
        assert_eq!(read(doc! { "n": 2 }), "Repeated", "it stood there already");
    }

    #[test]
    fn an_error_is_about_its_statement() {
        let error = |index: i32, code: i32, key: &str| {
            let pattern = doc! { key: 1 };
            let error = doc! { "index": index, "code": code, "keyPattern": pattern };
            read(doc! { "n": 1, "writeErrors": [error] })
        };
        assert_eq!(error(2, DUPLICATE_KEY, "ids"), "Repeated");
        assert!(error(2, DUPLICATE_KEY, "_id").starts_with("Refused"));
        assert_eq!(error(0, 2, "none"), "Unproven", "no such index");
        assert_eq!(error(0, 112, "none"), "Contended");
        assert_eq!(error(2, 112, "none"), "Contended");
    }
}
