//! One request as MongoDB commands inside a batch's transaction, and what their replies say. (What
//! may share a command with its neighbours is in `merged`.)
//!
//! Each document that a request touches gets the request's stamp in the same transaction. The
//! counts in the answer are those of the client's own change: setting the stamp does not count.

use bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};

use super::batch::Session;
use super::error::StoreError;
use super::reply::count;
use super::schema::STAMP_FIELD;
use crate::model::limits::{KEY_BYTES_MAX, TOUCHED_DOCUMENTS_MAX};
use crate::model::request::encoded;
use crate::model::{Answer, Namespace, Refusal, Stamp, Update, Write};
use crate::mutants::{self, Mutant};

/// What one request did.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The `_id` of each document that it touched, in order.
    pub keys: Vec<Bson>,
    pub answer: Answer,
}

/// Runs any write but an insert.
pub async fn apply(
    session: &mut Session,
    namespace: &Namespace,
    write: &Write,
    stamp: &Stamp,
) -> Result<Applied, StoreError> {
    let mut target = Target { session, namespace };
    match write {
        // `work` never sends an insert this way.
        Write::Insert { .. } => Err(StoreError::Damaged("an insert travels in a run".into())),
        Write::Update {
            filter,
            update,
            many,
            upsert,
        } => target.update(filter, update, *many, *upsert, stamp).await,
        Write::Replace {
            filter,
            replacement,
            upsert,
        } => target.replace(filter, replacement, *upsert, stamp).await,
        Write::Delete { filter, many } => target.delete(filter, *many).await,
    }
}

/// A document as it is stored: with its request's stamp, last.
pub fn stamped(document: &Document, stamp: &Stamp) -> Document {
    let mut whole = document.clone();
    whole.remove(STAMP_FIELD);
    if mutants::active(Mutant::NoStamps) {
        return whole;
    }
    whole.insert(STAMP_FIELD, stamp.to_bson());
    whole
}

/// The `_id` of each document.
pub fn keys_of(documents: &[Document]) -> Vec<Bson> {
    let id = |document: &Document| document.get("_id").cloned().unwrap_or(Bson::Null);
    documents.iter().map(id).collect()
}

pub fn inserted(keys: Vec<Bson>) -> Applied {
    Applied {
        answer: Answer::Inserted { ids: keys.clone() },
        keys,
    }
}

struct Target<'a> {
    session: &'a mut Session,
    namespace: &'a Namespace,
}

impl Target<'_> {
    async fn update(
        &mut self,
        filter: &Document,
        update: &Update,
        many: bool,
        upsert: bool,
        stamp: &Stamp,
    ) -> Result<Applied, StoreError> {
        let keys = self.find_keys(filter, many).await?;
        if !keys.is_empty() {
            let found = match many {
                true if !varies_in(filter) => filter.clone(),
                _ => chosen(filter, &keys, is_positional(update)),
            };
            let mut user = doc! { "q": found, "u": update_bson(update) };
            let mut mark = doc! {
                "q": by_keys(&keys),
                "u": {"$set": {STAMP_FIELD: stamp.to_bson()}},
            };
            if many {
                user.insert("multi", true);
                mark.insert("multi", true);
            }
            let statements = match update {
                Update::Pipeline(stages) if rebuilds(stages) => {
                    // It drops the stamp, which is no change of the client's. So the stamp is set
                    // first, and set again in the client's own statement: what that modifies then
                    // is the client's change.
                    let stages = stages.iter().cloned().chain([stamp_last(stamp)]);
                    user.insert("u", stages.collect::<Vec<_>>());
                    mark.insert("u", vec![stamp_last(stamp)]);
                    // The stamp may be in what the filter looks at.
                    user.insert("q", by_keys(&keys));
                    vec![mark, user]
                }
                _ => vec![user, mark],
            };
            let reply = self.run_updates(statements).await?;
            // Both statements match the documents that were found, and the second one modifies each
            // of them.
            let marked = i64::try_from(keys.len()).unwrap_or(i64::MAX);
            return Ok(Applied {
                keys,
                answer: Answer::Updated {
                    matched: reply.matched - marked,
                    modified: reply.modified - marked,
                    upserted: None,
                },
            });
        }
        if !upsert {
            // MongoDB refuses an update that is wrong whether or not it finds a document.
            let nothing = doc! { "q": {"_id": {"$in": []}}, "u": update_bson(update) };
            self.run_updates(vec![nothing]).await?;
            return Ok(untouched());
        }
        let update = stamped_update(update, stamp);
        self.upsert(&missing(filter), update).await
    }

    async fn replace(
        &mut self,
        filter: &Document,
        replacement: &Document,
        upsert: bool,
        stamp: &Stamp,
    ) -> Result<Applied, StoreError> {
        let replacement = stamped(replacement, stamp);
        let found = self.find(filter, doc! {}, 1).await?;
        let Some(before) = found.first() else {
            return match upsert {
                true => self.upsert(&missing(filter), replacement.into()).await,
                false => Ok(untouched()),
            };
        };
        let keys = vec![key_of(before)?];
        let modified = !same_content(before, &replacement);
        let statement = doc! { "q": chosen(filter, &keys, false), "u": replacement };
        self.run_updates(vec![statement]).await?;
        Ok(Applied {
            keys,
            answer: Answer::Updated {
                matched: 1,
                modified: modified.into(),
                upserted: None,
            },
        })
    }

    async fn upsert(&mut self, filter: &Document, update: Bson) -> Result<Applied, StoreError> {
        let statement = doc! { "q": filter, "u": update, "upsert": true };
        let reply = self.run_updates(vec![statement]).await?;
        let upserted = reply.upserted.into_iter().next().map(|(_, id)| id);
        if upserted
            .as_ref()
            .is_some_and(|id| encoded(id).len() > KEY_BYTES_MAX)
        {
            return Err(StoreError::Refused(too_many_keys()));
        }
        Ok(Applied {
            keys: upserted.iter().cloned().collect(),
            answer: Answer::Updated {
                matched: reply.matched - i64::from(upserted.is_some()),
                modified: reply.modified,
                upserted,
            },
        })
    }

    async fn delete(&mut self, filter: &Document, many: bool) -> Result<Applied, StoreError> {
        let keys = self.find_keys(filter, many).await?;
        if keys.is_empty() {
            let answer = Answer::Deleted { deleted: 0 };
            return Ok(Applied { keys, answer });
        }
        let command = doc! {
            "delete": self.namespace.collection(),
            "deletes": [{"q": by_keys(&keys), "limit": 0}],
        };
        let deleted = count(&self.run(command).await?, "n");
        Ok(Applied {
            keys: if deleted > 0 { keys } else { Vec::new() },
            answer: Answer::Deleted { deleted },
        })
    }

    /// The keys that a filter matches: all of them, or the first.
    async fn find_keys(&mut self, filter: &Document, many: bool) -> Result<Vec<Bson>, StoreError> {
        let limit = if many { TOUCHED_DOCUMENTS_MAX + 1 } else { 1 };
        let found = self.find(filter, doc! {"_id": 1}, limit).await?;
        let bytes: usize = found.iter().map(|key| key.as_bytes().len()).sum();
        if found.len() > TOUCHED_DOCUMENTS_MAX || bytes > KEY_BYTES_MAX {
            return Err(StoreError::Refused(too_many_keys()));
        }
        found.iter().map(|key| key_of(key)).collect()
    }

    async fn find(
        &mut self,
        filter: &Document,
        projection: Document,
        limit: usize,
    ) -> Result<Vec<RawDocumentBuf>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let query = self
            .session
            .query(self.namespace, filter.clone(), projection, limit);
        query.await
    }

    async fn run_updates(&mut self, statements: Vec<Document>) -> Result<Updates, StoreError> {
        let command = doc! { "update": self.namespace.collection(), "updates": statements };
        Ok(Updates::read(&self.run(command).await?))
    }

    async fn run(&mut self, command: Document) -> Result<Document, StoreError> {
        self.session
            .statement(self.namespace.database(), command)
            .await
    }
}

/// The reply to an update command: sums over its statements, and who was upserted.
pub struct Updates {
    pub matched: i64,
    pub modified: i64,
    /// The statement and the new `_id`.
    pub upserted: Vec<(usize, Bson)>,
}

impl Updates {
    pub fn read(reply: &Document) -> Self {
        let one = |element: &Bson| {
            let element = element.as_document()?;
            let index = usize::try_from(element.get_i32("index").ok()?).ok()?;
            Some((index, element.get("_id")?.clone()))
        };
        let upserted = reply.get_array("upserted").ok();
        Self {
            matched: count(reply, "n"),
            modified: count(reply, "nModified"),
            upserted: upserted.into_iter().flatten().filter_map(one).collect(),
        }
    }
}

/// The `_id` of a stored document. What is not text cannot be named in an answer or in the log.
pub fn key_of(document: &RawDocument) -> Result<Bson, StoreError> {
    let id = match document.get("_id") {
        Ok(Some(id)) => Bson::try_from(id).ok(),
        Ok(None) => Some(Bson::Null),
        Err(_) => None,
    };
    id.ok_or_else(|| {
        StoreError::Refused(Refusal {
            code: 0,
            name: "UnreadableKey".into(),
            message:
                "the _id of a document that the request matches is not valid UTF-8, so Drumline \
                      cannot name it; nothing was changed: give that document another _id by \
                      another program"
                    .into(),
        })
    })
}

fn too_many_keys() -> Refusal {
    Refusal {
        code: 0,
        name: "RequestTooLarge".into(),
        message: format!(
            "the request touches more than {TOUCHED_DOCUMENTS_MAX} documents or {KEY_BYTES_MAX} bytes of _id \
             values, the most that one request may change; nothing was changed: split it, for \
             instance by ranges of _id"
        ),
    }
}

fn untouched() -> Applied {
    Applied {
        keys: Vec::new(),
        answer: Answer::Updated {
            matched: 0,
            modified: 0,
            upserted: None,
        },
    }
}

/// The filter that these keys satisfy.
pub fn by_keys(keys: &[Bson]) -> Document {
    match keys {
        [one] => doc! { "_id": {"$eq": one} },
        many => doc! { "_id": {"$in": many} },
    }
}

/// The filter of a statement for one document that was found, or for those that a filter found
/// which may find others now. A positional operator refers to the rest of the client's filter; else
/// the keys say all.
fn chosen(filter: &Document, keys: &[Bson], positional: bool) -> Document {
    match positional || mutants::active(Mutant::DrawnAgain) {
        true => narrowed(filter, keys),
        false => by_keys(keys),
    }
}

/// The filter, held to the documents that it is known to match. What another run of it may answer
/// otherwise is left out.
fn narrowed(filter: &Document, keys: &[Bson]) -> Document {
    let mut narrowed = by_keys(keys);
    let mut rest: Vec<(String, Bson)> = Vec::new();
    for (key, value) in filter {
        match value {
            _ if key == "_id" => {}
            Bson::Array(parts) if key == "$and" && varies(value) => {
                let lasting = parts.iter().filter(|part| !varies(part)).cloned();
                let lasting: Vec<Bson> = lasting.collect();
                if !lasting.is_empty() {
                    rest.push((key.clone(), lasting.into()));
                }
            }
            _ if key == SAMPLE_RATE || varies(value) => {
                if mutants::active(Mutant::DrawnAgain) {
                    rest.push((key.clone(), value.clone()));
                }
            }
            _ => rest.push((key.clone(), value.clone())),
        }
    }
    narrowed.extend(rest);
    narrowed
}

/// The filter of an upsert that found nothing: it must not find something now.
fn missing(filter: &Document) -> Document {
    if !varies_in(filter) {
        return filter.clone();
    }
    // A condition beside the others, so that MongoDB still takes fields of the new document from
    // it.
    doc! { "$and": [filter, {"$nor": [{}]}] }
}

const SAMPLE_RATE: &str = "$sampleRate";

/// Whether a part of a filter may answer otherwise when it runs once more: it draws lots, or looks
/// at the clock.
fn varies(value: &Bson) -> bool {
    match value {
        Bson::Document(part) => varies_in(part),
        Bson::Array(parts) => parts.iter().any(varies),
        Bson::String(text) => {
            let names = |variable: &str| {
                let rest = text.strip_prefix(variable);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            names("$$NOW") || names("$$CLUSTER_TIME")
        }
        _ => false,
    }
}

fn varies_in(filter: &Document) -> bool {
    let drawn = |key: &str| key == SAMPLE_RATE || key == "$rand";
    filter
        .iter()
        .any(|(key, value)| drawn(key) || varies(value))
}

/// Whether an update names array elements by what the filter found (`a.$`).
fn is_positional(update: &Update) -> bool {
    let Update::Operators(operators) = update else {
        return false;
    };
    let fields = operators.values().filter_map(Bson::as_document);
    let mut names = fields.flat_map(|fields| {
        let targets = fields.values().filter_map(Bson::as_str);
        fields.keys().map(String::as_str).chain(targets)
    });
    names.any(|name| name.split('.').any(|part| part == "$"))
}

/// Whether a pipeline makes a document anew, and so without the stamp.
fn rebuilds(stages: &[Document]) -> bool {
    let mut names = stages.iter().flat_map(Document::keys);
    names.any(|name| matches!(name.as_str(), "$replaceWith" | "$replaceRoot" | "$project"))
}

/// The stage that sets the stamp as the last field, wherever it was before.
fn stamp_last(stamp: &Stamp) -> Document {
    let rest = doc! { "$unsetField": {"field": STAMP_FIELD, "input": "$$ROOT"} };
    let mark = doc! { STAMP_FIELD: {"$literal": stamp.to_bson()} };
    doc! { "$replaceWith": {"$mergeObjects": [rest, mark]} }
}

/// The update as MongoDB takes it.
pub fn update_bson(update: &Update) -> Bson {
    match update {
        Update::Operators(operators) => Bson::Document(operators.clone()),
        Update::Pipeline(stages) => {
            Bson::Array(stages.iter().cloned().map(Bson::Document).collect())
        }
    }
}

/// The update with the stamp in it, for an upsert, whose new `_id` may be known only afterwards.
fn stamped_update(update: &Update, stamp: &Stamp) -> Bson {
    match update {
        Update::Operators(operators) => {
            let mut operators = operators.clone();
            match operators.get_mut("$set") {
                Some(Bson::Document(set)) => {
                    set.insert(STAMP_FIELD, stamp.to_bson());
                }
                // MongoDB refuses what is not a document; its words are better than ours.
                Some(_) => {}
                None => {
                    operators.insert("$set", doc! { STAMP_FIELD: stamp.to_bson() });
                }
            }
            Bson::Document(operators)
        }
        Update::Pipeline(stages) => {
            let mark = doc! { "$set": {STAMP_FIELD: {"$literal": stamp.to_bson()}} };
            let stages = stages.iter().cloned().chain([mark]);
            Bson::Array(stages.map(Bson::Document).collect())
        }
    }
}

/// Whether a replacement leaves the client's fields as they were, byte for byte. MongoDB compares the
/// replacement as it was sent: one without an `_id` modifies any document.
pub fn same_content(before: &RawDocument, after: &Document) -> bool {
    let Ok(after) = RawDocumentBuf::try_from(after) else {
        return false;
    };
    match (content(before), content(&after)) {
        (Some(before), Some(after)) => before.as_bytes() == after.as_bytes(),
        // Text that is not UTF-8 equals none that a client can send.
        _ => false,
    }
}

/// A document without its stamp; `None` if it holds text that is not UTF-8.
fn content(document: &RawDocument) -> Option<RawDocumentBuf> {
    let mut content = RawDocumentBuf::new();
    for field in document.iter() {
        let (key, value) = field.ok()?;
        if key != STAMP_FIELD {
            content.append(key, value);
        }
    }
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrowed_filter_keeps_what_positional_operators_need() {
        let filter = doc! {"_id": {"$gt": 1}, "marks": {"$lt": 5}};
        let narrow = narrowed(&filter, &[Bson::Int32(7)]);
        assert_eq!(narrow, doc! {"_id": {"$eq": 7}, "marks": {"$lt": 5}});
    }

    #[test]
    fn what_may_answer_otherwise_is_not_asked_twice() {
        let drawn = doc! {"$lt": [{"$rand": {}}, 0.5]};
        let late = doc! {"$gt": ["$at", "$$NOW"]};
        let keys = [Bson::Int32(7)];
        let kept = doc! {"_id": {"$eq": 7}, "marks": 5};
        for varying in [
            doc! {"marks": 5, "$sampleRate": 0.5},
            doc! {"marks": 5, "$expr": &drawn},
            doc! {"marks": 5, "$expr": &late},
            doc! {"marks": 5, "$or": [{"$expr": {"$and": [&late]}}, {"a": 1}]},
        ] {
            assert_eq!(narrowed(&varying, &keys), kept, "{varying}");
            assert_ne!(missing(&varying), varying);
        }
        let both = doc! {"$and": [{"marks": 5}, {"$expr": drawn}]};
        let one = doc! {"_id": {"$eq": 7}, "$and": [{"marks": 5}]};
        assert_eq!(narrowed(&both, &keys), one);
        let lasting = doc! {"a": "$$NOWHERE", "b": {"$lt": 1}};
        assert_eq!(missing(&lasting), lasting);
    }

    #[test]
    fn a_positional_operator_is_seen_wherever_it_stands() {
        let positional = |update| is_positional(&Update::Operators(update));
        assert!(positional(doc! {"$inc": {"marks.$": 1}}));
        assert!(positional(doc! {"$set": {"a.$.b": 1}}));
        assert!(!positional(doc! {"$set": {"a.$[].b": 1, "c$": 2}}));
    }

    #[test]
    fn a_replacement_is_the_same_if_its_bytes_are() {
        let stored = doc! {"_id": 1, "n": 1, "_stamp": {"t": 1_i64, "n": "n1"}};
        let stored = RawDocumentBuf::try_from(&stored).unwrap();
        for (replacement, same) in [
            (doc! {"_id": 1, "n": 1}, true),
            (doc! {"_id": 1, "_stamp": 7, "n": 1}, true),
            (doc! {"n": 1}, false),
            (doc! {"n": 1, "_id": 1}, false),
            (doc! {"_id": 1.0, "n": 1}, false),
            (doc! {"_id": 1, "n": 2}, false),
        ] {
            assert_eq!(same_content(&stored, &replacement), same, "{replacement}");
        }
    }

    #[test]
    fn the_stamp_joins_any_form_of_update() {
        let stamp = Stamp {
            t: 3,
            n: crate::model::NodeName::parse("n1").unwrap(),
        };
        let with = |update| stamped_update(&update, &stamp);
        let set = doc! {"$set": {"_stamp": {"t": 3_i64, "n": "n1"}}};
        assert_eq!(
            with(Update::Operators(doc! {})),
            Bson::Document(set.clone())
        );
        assert_eq!(
            with(Update::Operators(doc! {"$set": {"a": 1}})),
            Bson::Document(doc! {"$set": {"a": 1, "_stamp": {"t": 3_i64, "n": "n1"}}})
        );
        let Bson::Array(stages) = with(Update::Pipeline(vec![doc! {"$unset": "a"}])) else {
            panic!("a pipeline stays a pipeline")
        };
        assert_eq!(stages.len(), 2);
    }
}
