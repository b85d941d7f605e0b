//! One command for neighbouring requests, and what its reply says of each of them.
//!
//! MongoDB 6 and 7 answer a command of many statements with sums. Where a sum does not tell the
//! single results, the step is ambiguous, and the batch runs again with a command a request.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Bson, Document, RawDocumentBuf, doc};

use super::apply::{self, Applied, Updates, stamped, update_bson};
use super::batch::{Item, Session};
use super::codes::DUPLICATE_KEY;
use super::error::StoreError;
use super::reply::{count, first_write_error};
use super::schema::STAMP_FIELD;
use super::work::{Step, StepError, stamp_of};
use crate::model::limits::TOUCHED_DOCUMENTS_MAX;
use crate::model::request::encoded;
use crate::model::{Answer, Namespace, NodeName, Refusal, Stamp, Update, Write};
use crate::mutants::{self, Mutant};

/// Runs a step and gives the result of each of its requests.
pub async fn run(
    session: &mut Session,
    step: &Step,
    items: &[Item<'_>],
    node: &NodeName,
) -> Result<Vec<Result<Applied, Refusal>>, StepError> {
    let items = &items[step.indexes()];
    let first = step.indexes().start;
    let Some(namespace) = items.first().map(|item| &item.request.namespace) else {
        return Ok(Vec::new());
    };
    let mut many = Many {
        session,
        namespace,
        items,
        node,
        first,
    };
    match step {
        Step::Skip(_) => Ok(Vec::new()),
        Step::Inserts(_) => many.inserts().await,
        Step::Points(_) => {
            let applied = match &items[0].request.write {
                Write::Update { .. } => many.updates().await?,
                Write::Replace { .. } => many.replacements().await?,
                Write::Delete { .. } | Write::Insert { .. } => many.deletions().await?,
            };
            Ok(applied.into_iter().map(Ok).collect())
        }
        Step::One(_) => {
            let item = &items[0];
            let stamp = stamp_of(item, node);
            let write = &item.request.write;
            let applied = apply::apply(many.session, namespace, write, &stamp).await?;
            Ok(vec![Ok(applied)])
        }
    }
}

struct Many<'a> {
    session: &'a mut Session,
    namespace: &'a Namespace,
    items: &'a [Item<'a>],
    node: &'a NodeName,
    /// The place of the first item in the batch.
    first: usize,
}

impl Many<'_> {
    async fn inserts(&mut self) -> Result<Vec<Result<Applied, Refusal>>, StepError> {
        let mut taken = self.taken_ids().await?;
        let mut documents = Vec::new();
        let mut owners = Vec::new();
        let mut results = Vec::new();
        for (at, item) in self.items.iter().enumerate() {
            let Write::Insert { documents: own } = &item.request.write else {
                continue;
            };
            if let Some(refusal) = duplicate(self.namespace, own, taken.as_mut()) {
                results.push(Err(refusal));
                continue;
            }
            let stamp = stamp_of(item, self.node);
            documents.extend(own.iter().map(|document| stamped(document, &stamp)));
            owners.extend(own.iter().map(|_| at));
            results.push(Ok(apply::inserted(apply::keys_of(own))));
        }
        let collection = self.namespace.collection();
        self.session.duplicates |= results.iter().any(Result::is_err);
        if !documents.is_empty() {
            let command = doc! { "insert": collection, "documents": documents };
            self.send(command, |document| owners.get(document).copied())
                .await?;
        }
        Ok(results)
    }

    /// The ids of these inserts that are taken already, if it is worth a look: a duplicate that is
    /// known beforehand costs nothing, one that MongoDB finds costs the whole transaction.
    async fn taken_ids(&mut self) -> Result<Option<BTreeSet<Vec<u8>>>, StepError> {
        // With a collation MongoDB says more of an id that is taken than is known here, and a
        // validator may refuse the document before.
        if !self.session.careful || !self.session.is_free(self.namespace) {
            return Ok(None);
        }
        let documents = self
            .items
            .iter()
            .filter_map(|item| match &item.request.write {
                Write::Insert { documents } => Some(documents),
                _ => None,
            });
        let ids = documents.flat_map(|own| apply::keys_of(own));
        let ids: Vec<_> = ids.filter(|id| shown(id).is_some()).collect();
        let found = self.find_ids(&ids, doc! {"_id": 1}).await?;
        Ok(Some(found.into_keys().collect()))
    }

    /// All the clients' updates, then all the stamps: so the sums tell the clients' part.
    async fn updates(&mut self) -> Result<Vec<Applied>, StepError> {
        let mut statements = Vec::new();
        let mut marks = Vec::new();
        let mut upserts = Vec::new();
        for item in self.items {
            let Write::Update {
                filter,
                update,
                upsert,
                ..
            } = &item.request.write
            else {
                continue;
            };
            statements.push(update_statement(filter, update, *upsert));
            marks.push(mark_statement(filter, &stamp_of(item, self.node)));
            upserts.push(*upsert);
        }
        statements.extend(marks);
        let count = self.items.len();
        let command = doc! { "update": self.namespace.collection(), "updates": statements };
        let reply = self
            .send(command, |statement| Some(statement % count))
            .await?;
        let answers = single_answers(&Updates::read(&reply), &upserts).ok_or_else(ambiguous)?;
        Ok(self.applied(answers))
    }

    async fn replacements(&mut self) -> Result<Vec<Applied>, StepError> {
        let before = self.existing(doc! {}).await?;
        let mut statements = Vec::new();
        let mut owners = Vec::new();
        let mut answers = Vec::new();
        for (at, item) in self.items.iter().enumerate() {
            let Write::Replace {
                filter,
                replacement,
                upsert,
            } = &item.request.write
            else {
                continue;
            };
            let id = item.request.write.point().unwrap_or(&Bson::Null);
            let replacement = stamped(replacement, &stamp_of(item, self.node));
            let old = before.get(&identity(id));
            answers.push(Answer::Updated {
                matched: old.is_some().into(),
                modified: old
                    .is_some_and(|old| !apply::same_content(old, &replacement))
                    .into(),
                upserted: (old.is_none() && *upsert).then(|| id.clone()),
            });
            if old.is_some() || *upsert {
                statements.push(doc! { "q": filter, "u": replacement, "upsert": *upsert });
                owners.push(at);
            }
        }
        if !statements.is_empty() {
            let command = doc! { "update": self.namespace.collection(), "updates": statements };
            self.send(command, |statement| owners.get(statement).copied())
                .await?;
        }
        Ok(self.applied(answers))
    }

    async fn deletions(&mut self) -> Result<Vec<Applied>, StepError> {
        if let [item] = self.items {
            return self.deletion(item).await;
        }
        let before = self.existing(doc! {"_id": 1}).await?;
        let mut statements = Vec::new();
        let mut owners = Vec::new();
        let mut answers = Vec::new();
        for (at, item) in self.items.iter().enumerate() {
            let id = item.request.write.point().unwrap_or(&Bson::Null);
            let exists = before.contains_key(&identity(id));
            answers.push(Answer::Deleted {
                deleted: exists.into(),
            });
            if exists {
                statements.push(doc! { "q": {"_id": {"$eq": id}}, "limit": 1 });
                owners.push(at);
            }
        }
        if !statements.is_empty() {
            let command = doc! { "delete": self.namespace.collection(), "deletes": statements };
            self.send(command, |statement| owners.get(statement).copied())
                .await?;
        }
        Ok(self.applied(answers))
    }

    /// Alone, a deletion needs no look: the count tells.
    async fn deletion(&mut self, item: &Item<'_>) -> Result<Vec<Applied>, StepError> {
        let id = item.request.write.point().unwrap_or(&Bson::Null);
        let statement = doc! { "q": {"_id": {"$eq": id}}, "limit": 1 };
        let command = doc! { "delete": self.namespace.collection(), "deletes": [statement] };
        let reply = self.send(command, |_| Some(0)).await?;
        let deleted = count(&reply, "n");
        Ok(self.applied(vec![Answer::Deleted { deleted }]))
    }

    /// The documents that the requests name and that exist, by their encoded `_id`.
    async fn existing(
        &mut self,
        projection: Document,
    ) -> Result<BTreeMap<Vec<u8>, RawDocumentBuf>, StepError> {
        let ids = self
            .items
            .iter()
            .filter_map(|item| item.request.write.point());
        let ids: Vec<_> = ids.cloned().collect();
        self.find_ids(&ids, projection).await
    }

    /// The documents with these ids, by their encoded `_id`.
    async fn find_ids(
        &mut self,
        ids: &[Bson],
        projection: Document,
    ) -> Result<BTreeMap<Vec<u8>, RawDocumentBuf>, StepError> {
        let limit = i64::try_from(TOUCHED_DOCUMENTS_MAX).unwrap_or(i64::MAX);
        let query = self
            .session
            .query(self.namespace, apply::by_keys(ids), projection, limit);
        let mut by_id = BTreeMap::new();
        for document in query.await? {
            by_id.insert(identity(&apply::key_of(&document)?), document);
        }
        Ok(by_id)
    }

    /// A request touched its document if its answer says that there is one.
    fn applied(&self, answers: Vec<Answer>) -> Vec<Applied> {
        let pairs = self.items.iter().zip(answers);
        let applied = pairs.map(|(item, answer)| {
            let touched = match &answer {
                Answer::Updated {
                    matched, upserted, ..
                } => *matched > 0 || upserted.is_some(),
                Answer::Deleted { deleted } => *deleted > 0,
                Answer::Inserted { .. } => true,
            };
            let key = item.request.write.point().filter(|_| touched);
            Applied {
                keys: key.into_iter().cloned().collect(),
                answer,
            }
        });
        applied.collect()
    }

    /// Sends a command; `owner` tells which item a statement of it belongs to.
    async fn send(
        &mut self,
        mut command: Document,
        owner: impl Fn(usize) -> Option<usize>,
    ) -> Result<Document, StepError> {
        // An insert means the collection of this name, whichever it is.
        if let Some(uuid) = self.session.relied_on(self.namespace)
            && !command.contains_key("insert")
        {
            command.insert("collectionUUID", uuid);
        }
        let reply = self
            .session
            .command(self.namespace.database(), command)
            .await?;
        let Some(error) = first_write_error(&reply) else {
            return Ok(reply);
        };
        let statement = error.get_i32("index").ok();
        let statement = statement.and_then(|statement| usize::try_from(statement).ok());
        Err(StepError {
            error: StoreError::from_write_error(error),
            index: statement.and_then(owner).map(|at| self.first + at),
            ambiguous: false,
        })
    }
}

/// A value as bytes that are the same for all that MongoDB holds equal to it, if it is exact.
fn identity(id: &Bson) -> Vec<u8> {
    match id {
        Bson::Symbol(_) if mutants::active(Mutant::SymbolsApart) => {
            doc! { "": id }.to_vec().unwrap_or_default()
        }
        id => encoded(id),
    }
}

/// The refusal of an insert whose first `_id` is taken, in MongoDB's words. The ids of one that is
/// not refused are taken from then on. What is wrong with a later document MongoDB finds itself:
/// something else may be wrong with one before it.
fn duplicate(
    namespace: &Namespace,
    documents: &[Document],
    taken: Option<&mut BTreeSet<Vec<u8>>>,
) -> Option<Refusal> {
    let taken = taken?;
    let ids = || documents.iter().filter_map(|document| document.get("_id"));
    let first = ids().next().filter(|id| taken.contains(&identity(id)));
    if let Some(shown) = first.and_then(shown) {
        return Some(Refusal {
            code: DUPLICATE_KEY,
            name: "DuplicateKey".into(),
            message: format!(
                "E11000 duplicate key error collection: {namespace} index: _id_ dup key: {{ _id: {shown} }}"
            ),
        });
    }
    taken.extend(ids().map(identity));
    None
}

/// An `_id` as MongoDB's error texts show it, if that is sure, and sure to equal none of another
/// type.
fn shown(id: &Bson) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    match id {
        Bson::ObjectId(id) => Some(format!("ObjectId('{id}')")),
        Bson::String(text) if text.len() <= 100 && text.chars().all(is_plain) => {
            Some(format!("\"{text}\""))
        }
        _ => None,
    }
}

fn update_statement(filter: &Document, update: &Update, upsert: bool) -> Document {
    doc! { "q": filter, "u": update_bson(update), "upsert": upsert }
}

fn mark_statement(filter: &Document, stamp: &Stamp) -> Document {
    doc! { "q": filter, "u": {"$set": {STAMP_FIELD: stamp.to_bson()}} }
}

fn ambiguous() -> StepError {
    StepError {
        error: StoreError::Damaged("a sum tells no single results".into()),
        index: None,
        ambiguous: true,
    }
}

/// What each of the updates did, if the sums tell. The sums count each touched document twice:
/// for its update and for its stamp, which always modifies.
fn single_answers(sums: &Updates, upserts: &[bool]) -> Option<Vec<Answer>> {
    let count = i64::try_from(upserts.len()).ok()?;
    let touched = sums.matched / 2;
    let all = touched == count;
    let none = touched == 0 && !upserts.contains(&true);
    if !all && !none {
        return None;
    }
    let upserted = i64::try_from(sums.upserted.len()).ok()?;
    let matched = touched - upserted;
    let modified = sums.modified - touched;
    if modified != 0 && modified != matched {
        return None;
    }
    let answer = |index: usize| {
        let upserted = (sums.upserted.iter())
            .find(|(statement, _)| *statement == index)
            .map(|(_, id)| id.clone());
        let matched = all && upserted.is_none();
        Answer::Updated {
            matched: matched.into(),
            modified: (matched && modified > 0).into(),
            upserted,
        }
    };
    Some((0..upserts.len()).map(answer).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(matched: i64, modified: i64, upserted: &[usize]) -> Updates {
        Updates {
            matched,
            modified,
            upserted: upserted.iter().map(|at| (*at, Bson::Int32(7))).collect(),
        }
    }

    fn told(answers: Option<Vec<Answer>>) -> Option<Vec<(i64, i64, bool)>> {
        let of = |answer| match answer {
            Answer::Updated {
                matched,
                modified,
                upserted,
            } => (matched, modified, upserted.is_some()),
            _ => panic!("an update answers as one"),
        };
        Some(answers?.into_iter().map(of).collect())
    }

    #[test]
    fn sums_tell_single_results_where_they_can() {
        let plain = [false, false];
        let changed = (1, 1, false);
        assert_eq!(
            told(single_answers(&sums(4, 4, &[]), &plain)),
            Some(vec![changed; 2])
        );
        assert_eq!(
            told(single_answers(&sums(4, 2, &[]), &plain)),
            Some(vec![(1, 0, false); 2])
        );
        assert_eq!(
            told(single_answers(&sums(0, 0, &[]), &plain)),
            Some(vec![(0, 0, false); 2])
        );
        let upserts = [true, true];
        assert_eq!(
            told(single_answers(&sums(4, 3, &[1]), &upserts)),
            Some(vec![changed, (0, 0, true)])
        );
    }

    #[test]
    fn sums_that_fit_more_than_one_story_are_ambiguous() {
        // One of two matched; or both matched and one was changed.
        assert_eq!(single_answers(&sums(2, 2, &[]), &[false, false]), None);
        assert_eq!(single_answers(&sums(4, 3, &[]), &[false, false]), None);
        // Alone there is nothing to confuse.
        assert!(single_answers(&sums(2, 1, &[]), &[false]).is_some());
    }
}
