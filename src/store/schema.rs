//! The log's documents and their names in MongoDB (docs/protocol.md).

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, doc};

use super::error::StoreError;
use super::fault::LogFault;
use crate::model::{
    Answer, BatchId, Digest, Epoch, NodeName, Position, Refusal, RequestId, Stamp, policy,
};
use crate::mutants::{self, Mutant};

/// Drumline's own database.
pub const DATABASE: &str = policy::LOG_DATABASE;
/// The log's collection.
pub const LOG: &str = "log";
/// Sessions of commands that append without a server, while they do.
pub const GUESTS: &str = "guests";
/// Signs of life of coordinators that some peer may be cut off from.
pub const NODES: &str = "nodes";
/// How far the log had come, beside the log: who looks later sees whether it went back.
pub const MARKS: &str = "marks";
/// How far a restore has come that is not at its end: nobody serves until then.
pub const RESTORE: &str = "restore";
/// What a restore that is not at its end asks for, by its note; `None` if it is of single collections,
/// which may come beside a log that is served.
pub fn half_restored(note: &Document) -> Option<String> {
    let forbids = note.get_bool("everything").unwrap_or(true);
    let told = note.get_str("arguments").unwrap_or("of another version");
    forbids.then(|| told.to_owned())
}

/// The name of the log's index over request ids.
pub const REQUEST_IDS: &str = "ids";
/// The field that carries a document's stamp.
pub const STAMP_FIELD: &str = policy::STAMP_FIELD;

/// The unique index over the request ids that may come again (I5). It holds only those: the field is
/// absent where there are none, and the index is sparse.
pub fn indexes() -> Vec<Document> {
    vec![
        doc! { "key": {"ids": 1}, "name": REQUEST_IDS, "unique": true, "sparse": true },
        doc! {
            "key": {"epoch": 1},
            "name": "claims",
            "partialFilterExpression": {"kind": "claim"},
        },
    ]
}

/// One request in a log document.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The counter of the request's stamp.
    pub t: i64,
    pub id: RequestId,
    /// Present if the client gave the id.
    pub digest: Option<Digest>,
    pub namespace: String,
    pub op: String,
    /// The `_id` of each document that the request touched, in order.
    pub keys: Vec<Bson>,
    pub result: Result<Answer, Refusal>,
}

/// One document of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogDocument {
    pub position: Position,
    pub epoch: Epoch,
    pub node: NodeName,
    pub batch: BatchId,
    /// The stamps' counters of the first and the last entry; a claim has one of its own.
    pub first: i64,
    pub last: i64,
    /// Empty in a claim.
    pub entries: Vec<Entry>,
    pub claim: bool,
}

impl LogDocument {
    /// The form in MongoDB. `lsid` is the session that writes it, or the sessions of a claim.
    pub fn to_bson(&self, lsid: Bson) -> Document {
        let mut document = doc! {
            "_id": self.position.0,
            "epoch": self.epoch.0,
            "kind": if self.claim { "claim" } else { "batch" },
            "node": self.node.as_str(),
            "batch": batch_to_bson(&self.batch),
            "lsid": lsid,
            "first": self.first,
            "last": self.last,
            "at": DateTime::now(),
            "entries": self.entries.iter().map(|e| e.to_bson(&self.node)).collect::<Vec<_>>(),
        };
        let keyed = self.entries.iter().filter(|entry| entry.digest.is_some());
        let ids: Vec<_> = keyed.map(|entry| entry.id.as_str()).collect();
        if !ids.is_empty() && !mutants::active(Mutant::NoRequestIds) {
            document.insert("ids", ids);
        }
        document
    }

    pub fn from_bson(document: &Document) -> Result<Self, StoreError> {
        Self::read(document).ok_or_else(|| StoreError::Log(LogFault::foreign(document)))
    }

    fn read(document: &Document) -> Option<Self> {
        let entries = document.get_array("entries").ok()?;
        Some(Self {
            position: Position(document.get_i64("_id").ok()?),
            epoch: Epoch(document.get_i64("epoch").ok()?),
            node: NodeName::parse(document.get_str("node").ok()?).ok()?,
            batch: batch_of(document)?,
            first: document.get_i64("first").ok()?,
            last: document.get_i64("last").ok()?,
            entries: (entries.iter())
                .map(|entry| Entry::read(entry.as_document()?))
                .collect::<Option<_>>()?,
            claim: document.get_str("kind").ok()? == "claim",
        })
    }
}

impl Entry {
    fn to_bson(&self, node: &NodeName) -> Document {
        let mut document = doc! {
            "t": self.t,
            "n": node.as_str(),
            "id": self.id.as_str(),
            "ns": &self.namespace,
            "op": &self.op,
            "keys": &self.keys,
        };
        match &self.result {
            Ok(answer) => document.insert("result", answer_to_bson(answer)),
            Err(refusal) => document.insert("error", refusal_to_bson(refusal)),
        };
        if let Some(digest) = &self.digest {
            document.insert("digest", binary(BinarySubtype::Generic, &digest.0));
        }
        document
    }

    fn read(document: &Document) -> Option<Self> {
        let keys = document.get_array("keys").ok()?.clone();
        let result = match document.get_document("error") {
            Ok(error) => Err(refusal_from_bson(error)?),
            Err(_) => Ok(answer_from_bson(
                document.get_document("result").ok()?,
                &keys,
            )?),
        };
        let digest = match bytes_of(document, "digest") {
            Some(bytes) => Some(Digest(bytes.try_into().ok()?)),
            None => None,
        };
        Some(Self {
            t: document.get_i64("t").ok()?,
            id: RequestId::parse(document.get_str("id").ok()?).ok()?,
            digest,
            namespace: document.get_str("ns").ok()?.to_owned(),
            op: document.get_str("op").ok()?.to_owned(),
            keys,
            result,
        })
    }
}

/// The ids of an insert are its keys already and are not stored twice.
fn answer_to_bson(answer: &Answer) -> Document {
    match answer {
        Answer::Inserted { ids } => {
            doc! { "inserted": i64::try_from(ids.len()).unwrap_or(i64::MAX) }
        }
        Answer::Updated {
            matched,
            modified,
            upserted: None,
        } => doc! { "matched": matched, "modified": modified },
        Answer::Updated {
            matched,
            modified,
            upserted: Some(id),
        } => doc! { "matched": matched, "modified": modified, "upserted": id.clone() },
        Answer::Deleted { deleted } => doc! { "deleted": deleted },
    }
}

fn answer_from_bson(result: &Document, keys: &[Bson]) -> Option<Answer> {
    if result.contains_key("inserted") {
        return Some(Answer::Inserted { ids: keys.to_vec() });
    }
    if let Ok(deleted) = result.get_i64("deleted") {
        return Some(Answer::Deleted { deleted });
    }
    Some(Answer::Updated {
        matched: result.get_i64("matched").ok()?,
        modified: result.get_i64("modified").ok()?,
        upserted: result.get("upserted").cloned(),
    })
}

fn refusal_to_bson(refusal: &Refusal) -> Document {
    doc! { "code": refusal.code, "name": &refusal.name, "message": &refusal.message }
}

fn refusal_from_bson(error: &Document) -> Option<Refusal> {
    Some(Refusal {
        code: error.get_i32("code").ok()?,
        name: error.get_str("name").ok()?.to_owned(),
        message: error.get_str("message").ok()?.to_owned(),
    })
}

/// A batch id as documents hold it.
pub fn batch_to_bson(batch: &BatchId) -> Bson {
    binary(BinarySubtype::Uuid, &batch.bytes())
}

/// The batch id of a log document or of a mark.
pub fn batch_of(document: &Document) -> Option<BatchId> {
    let bytes = bytes_of(document, "batch")?.try_into().ok()?;
    Some(BatchId::from_bytes(bytes))
}

/// The stamp of an entry.
pub fn stamp(t: i64, node: &NodeName) -> Stamp {
    Stamp { t, n: node.clone() }
}

fn binary(subtype: BinarySubtype, bytes: &[u8]) -> Bson {
    Bson::Binary(Binary {
        subtype,
        bytes: bytes.to_vec(),
    })
}

fn bytes_of<'a>(document: &'a Document, key: &str) -> Option<&'a [u8]> {
    match document.get(key) {
        Some(Bson::Binary(binary)) => Some(&binary.bytes),
        _ => None,
    }
}
