//! What a client asks for, and what it is told.

use bson::{Bson, Document, doc};

use super::id::{Digest, Namespace, RequestId};
use super::order::{Position, Stamp};

/// A decoded request, before any check of policy.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    Write(Namespace, Write),
    Read(Namespace, Read),
}

/// A change to one collection. It takes one place in the serial order.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// `insertOne` and `insertMany`; each document has its `_id`, put first (see
    /// [`Write::with_ids`]).
    Insert { documents: Vec<Document> },
    /// `updateOne` and `updateMany`.
    Update {
        filter: Document,
        update: Update,
        many: bool,
        upsert: bool,
    },
    /// `replaceOne`.
    Replace {
        filter: Document,
        replacement: Document,
        upsert: bool,
    },
    /// `deleteOne` and `deleteMany`.
    Delete { filter: Document, many: bool },
}

/// The two forms of an update in MongoDB.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// `{$set: ..., $inc: ...}`
    Operators(Document),
    /// `[{$set: ...}, {$unset: ...}]`
    Pipeline(Vec<Document>),
}

impl Write {
    /// The name that the log uses in `op`.
    pub const fn op(&self) -> &'static str {
        match self {
            Self::Insert { .. } => "insert",
            Self::Update { many: false, .. } => "updateOne",
            Self::Update { many: true, .. } => "updateMany",
            Self::Replace { .. } => "replaceOne",
            Self::Delete { many: false, .. } => "deleteOne",
            Self::Delete { many: true, .. } => "deleteMany",
        }
    }

    /// The digest of what the client asked for. Take it before [`Write::with_ids`]: a retry of an
    /// insert that leaves the `_id` to the node must have the digest of the first try.
    pub fn digest(&self, namespace: &Namespace) -> Digest {
        let kind = |upsert: bool| {
            if upsert {
                format!("{}+upsert", self.op())
            } else {
                self.op().to_owned()
            }
        };
        match self {
            Self::Insert { documents } => Digest::of(
                &kind(false),
                namespace,
                &documents.iter().collect::<Vec<_>>(),
            ),
            Self::Update {
                filter,
                update: Update::Operators(update),
                upsert,
                ..
            } => Digest::of(&kind(*upsert), namespace, &[filter, update]),
            Self::Update {
                filter,
                update: Update::Pipeline(stages),
                upsert,
                ..
            } => {
                let stages = doc! { "pipeline": stages.clone() };
                Digest::of(&kind(*upsert), namespace, &[filter, &stages])
            }
            Self::Replace {
                filter,
                replacement,
                upsert,
            } => Digest::of(&kind(*upsert), namespace, &[filter, replacement]),
            Self::Delete { filter, .. } => Digest::of(&kind(false), namespace, &[filter]),
        }
    }

    /// Whether it may make documents, and so needs its collection to exist.
    pub const fn makes_documents(&self) -> bool {
        match self {
            Self::Insert { .. } => true,
            Self::Update { upsert, .. } | Self::Replace { upsert, .. } => *upsert,
            Self::Delete { .. } => false,
        }
    }

    /// The `_id` of the one document that this touches, if its filter names it and nothing else
    /// and no look-up is needed to know the document's own `_id`.
    pub fn point(&self) -> Option<&Bson> {
        let filter = match self {
            Self::Insert { .. } => return None,
            Self::Update { filter, .. }
            | Self::Replace { filter, .. }
            | Self::Delete { filter, .. } => filter,
        };
        let (key, value) = filter.iter().next()?;
        (filter.len() == 1 && key == "_id" && is_exact(value)).then_some(value)
    }

    /// Whether its size tells what it costs: an insert, or one document by its `_id` that is changed by
    /// operators, which compute nothing. A pipeline may compute for long.
    pub fn is_short(&self) -> bool {
        let filter = match self {
            Self::Insert { .. } => return true,
            Self::Update {
                update: Update::Pipeline(_),
                ..
            } => return false,
            Self::Update { filter, .. }
            | Self::Replace { filter, .. }
            | Self::Delete { filter, .. } => filter,
        };
        let scalar =
            |value: &Bson| !matches!(value, Bson::Document(_) | Bson::RegularExpression(_));
        filter.len() == 1 && filter.get("_id").is_some_and(scalar)
    }

    /// The bytes of the `_id` values that it names. The log entry will hold them.
    pub fn key_bytes(&self) -> usize {
        let named = match self {
            Self::Insert { documents } => {
                let ids = documents.iter().filter_map(|document| document.get("_id"));
                return ids.map(|id| encoded(id).len()).sum();
            }
            Self::Update { filter, .. }
            | Self::Replace { filter, .. }
            | Self::Delete { filter, .. } => filter.get("_id"),
        };
        named.map_or(0, |id| encoded(id).len())
    }

    /// Gives each inserted document that lacks an `_id` a new ObjectId, and puts `_id` first.
    pub fn with_ids(self) -> Self {
        let Self::Insert { documents } = self else {
            return self;
        };
        Self::Insert {
            documents: documents.into_iter().map(id_first).collect(),
        }
    }
}

/// Whether a value equals no value of another type. (The number 1 equals 1.0.)
pub fn is_exact(id: &Bson) -> bool {
    matches!(
        id,
        Bson::ObjectId(_)
            | Bson::String(_)
            | Bson::Binary(_)
            | Bson::DateTime(_)
            | Bson::Boolean(_)
    )
}

/// A value as bytes, to compare and to measure. MongoDB holds a symbol and a string equal.
pub fn encoded(value: &Bson) -> Vec<u8> {
    if let Bson::Symbol(symbol) = value {
        return encoded(&Bson::String(symbol.clone()));
    }
    // A value that came from a decoded request or reply can be encoded again.
    doc! { "": value }.to_vec().unwrap_or_default()
}

fn id_first(mut document: Document) -> Document {
    if document.keys().next().is_some_and(|key| key == "_id") {
        return document;
    }
    let id = document
        .remove("_id")
        .unwrap_or_else(|| Bson::ObjectId(bson::oid::ObjectId::new()));
    let mut whole = doc! { "_id": id };
    whole.extend(document);
    whole
}

/// A question to one collection.
#[derive(Debug, Clone, PartialEq)]
pub enum Read {
    FindOne {
        filter: Document,
        projection: Option<Document>,
        sort: Option<Document>,
    },
    Find {
        filter: Document,
        projection: Option<Document>,
        sort: Option<Document>,
        /// 1 to [`super::limits::FIND_DOCUMENTS_MAX`].
        limit: i64,
        /// 0 or more.
        skip: i64,
    },
    Aggregate {
        pipeline: Vec<Document>,
    },
}

impl Read {
    /// The `_id` of the one document that this can find, if its filter names nothing else and its
    /// projection computes nothing: it takes one step in an index.
    pub fn point(&self) -> Option<&Bson> {
        let (filter, projection) = match self {
            Self::FindOne {
                filter, projection, ..
            }
            | Self::Find {
                filter, projection, ..
            } => (filter, projection),
            Self::Aggregate { .. } => return None,
        };
        let is_flag = |value: &Bson| {
            matches!(
                value,
                Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Boolean(_)
            )
        };
        let mut shown = projection.iter().flat_map(Document::values);
        let (key, value) = filter.iter().next()?;
        let computes = matches!(value, Bson::Document(_) | Bson::RegularExpression(_));
        let point = filter.len() == 1 && key == "_id" && !computes && shown.all(is_flag);
        point.then_some(value)
    }
}

/// How fresh a read must be (docs/protocol.md, I7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Consistency {
    /// Shows every write that was answered before the read was invoked.
    #[default]
    Linearizable,
    /// Never older than the stamp that the client gives; any node, any member.
    Causal,
}

/// A write on its way to the sequencer.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteRequest {
    pub id: RequestId,
    /// The digest of the payload, if the client gave the id: it may come again. A node's own id is
    /// unknown outside and cannot.
    pub digest: Option<Digest>,
    /// The client's Lamport clock, 0 if it gave none.
    pub clock: i64,
    pub namespace: Namespace,
    pub write: Write,
    /// The size of the payload, for the bounds of queue and batch.
    pub bytes: usize,
}

/// What a write did. The log stores it; a retry gets it again.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The `_id` of each inserted document, in order.
    Inserted {
        ids: Vec<Bson>,
    },
    Updated {
        matched: i64,
        modified: i64,
        upserted: Option<Bson>,
    },
    Deleted {
        deleted: i64,
    },
}

/// MongoDB's definite no to one request: nothing was changed, and a retry gets the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// MongoDB's error code; 0 if Drumline itself refuses.
    pub code: i32,
    /// MongoDB's name of the code, like `DuplicateKey`.
    pub name: String,
    pub message: String,
}

/// How a logged request ended, and where in the serial order.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub result: Result<Answer, Refusal>,
    pub stamp: Stamp,
    pub position: Position,
    /// The answer was stored by an earlier try of the same request.
    pub replayed: bool,
}

/// What a read found, and the point in the serial order at which it found it.
#[derive(Debug, Clone, PartialEq)]
pub struct Documents {
    pub documents: Vec<Document>,
    /// The stamp of the last log entry that the read's snapshot holds.
    pub stamp: Stamp,
    pub position: Position,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inserts_get_an_id_first_and_keep_their_own() {
        let write = Write::Insert {
            documents: vec![doc! {"a": 1, "_id": 7, "b": 2}, doc! {"a": 1}],
        };
        let Write::Insert { documents } = write.with_ids() else {
            panic!("an insert stays an insert")
        };
        assert_eq!(documents[0], doc! {"_id": 7, "a": 1, "b": 2});
        assert_eq!(documents[0].keys().next().unwrap(), "_id");
        assert_eq!(documents[1].keys().next().unwrap(), "_id");
        assert!(documents[1].get_object_id("_id").is_ok());
    }

    #[test]
    fn only_an_exact_id_alone_is_a_point() {
        let point = |filter: Document| {
            let delete = Write::Delete {
                filter,
                many: false,
            };
            delete.point().is_some()
        };
        assert!(point(doc! {"_id": "a"}));
        assert!(point(doc! {"_id": bson::oid::ObjectId::new()}));
        for not in [
            doc! {},
            doc! {"_id": 1},
            doc! {"_id": 1.0},
            doc! {"_id": {"$gt": 1}},
            doc! {"_id": Bson::Null},
            doc! {"_id": "a", "b": 1},
            doc! {"b": "a"},
        ] {
            assert!(!point(not.clone()), "{not}");
        }
    }

    #[test]
    fn digests_see_upsert_many_and_form() {
        let ns = Namespace::parse("a.b").unwrap();
        let update = |many, upsert| Write::Update {
            filter: doc! {},
            update: Update::Operators(doc! {"$set": {"a": 1}}),
            many,
            upsert,
        };
        let mut digests = vec![
            update(false, false).digest(&ns),
            update(true, false).digest(&ns),
            update(false, true).digest(&ns),
            Write::Update {
                filter: doc! {},
                update: Update::Pipeline(vec![doc! {"$set": {"a": 1}}]),
                many: false,
                upsert: false,
            }
            .digest(&ns),
        ];
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), 4);
    }
}
