//! A batch on its way into its transaction: which requests go together in one command, what each
//! of them did, and whose fault an error is.
//!
//! Never speaks to MongoDB.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::apply::Applied;
use super::batch::{Item, Run};
use super::codes::{MAX_TIME_EXPIRED, NOT_IN_TRANSACTION};
use super::error::{StoreError, ran_too_long};
use super::schema::Entry;
use crate::model::limits::BATCH_RUN_MAX;
use crate::model::request::encoded;
use crate::model::{Namespace, NodeName, Refusal, Stamp, Write, WriteRequest};

/// The most documents in one command; MongoDB takes 100,000.
const COMMAND_DOCUMENTS_MAX: usize = 50_000;
/// The most requests in one command while the batch holds a refused one: what follows the next
/// refusal is sent in vain.
const COMMAND_REQUESTS_AFTER_REFUSAL_MAX: usize = 32;
/// The most bytes of one refusal's text.
const MESSAGE_BYTES_MAX: usize = 2_000;
/// The most bytes of keys in one log document, which must stay below 16 MiB.
const LOG_KEY_BYTES_MAX: usize = 4 << 20;

/// Whether neighbouring requests may share a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merging {
    Neighbours,
    Nothing,
}

/// What to send next: requests of a batch, by their places in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A refused request, which is only logged.
    Skip(usize),
    /// Inserts into one collection.
    Inserts(Range<usize>),
    /// Updates, replacements or deletions in one collection, each by the `_id` of a document that
    /// no other of them touches.
    Points(Range<usize>),
    /// Any other request, alone.
    One(usize),
}

impl Step {
    pub fn indexes(&self) -> Range<usize> {
        match self {
            Self::Skip(index) | Self::One(index) => *index..*index + 1,
            Self::Inserts(range) | Self::Points(range) => range.clone(),
        }
    }
}

/// Why a transaction did not come to its end.
#[derive(Debug)]
pub enum Fault {
    Store(StoreError),
    /// The reply to a command for many requests does not tell which of them it is about. Nothing
    /// was done.
    Ambiguous,
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// An error of a step, with the request that it is about, if known.
#[derive(Debug)]
pub struct StepError {
    pub error: StoreError,
    pub index: Option<usize>,
    /// The reply was no error, but does not tell what each request did.
    pub ambiguous: bool,
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self {
            error,
            index: None,
            ambiguous: false,
        }
    }
}

impl StepError {
    /// What the error means for the batch.
    pub fn verdict(self, step: &Step) -> Result<Run, Fault> {
        let range = step.indexes();
        let index = self.index.or((range.len() == 1).then_some(range.start));
        if self.ambiguous {
            return Err(Fault::Ambiguous);
        }
        match (self.error, index) {
            (StoreError::Refused(refusal), Some(index)) => Ok(Run::Refused {
                index,
                refusal: in_plain_words(refusal),
            }),
            (StoreError::Refused(_), None) => Err(Fault::Ambiguous),
            (StoreError::Ground(refusal), Some(index)) => Ok(Run::Barred {
                index,
                why: StoreError::Ground(refusal).into_failure(),
            }),
            // Which of them it was is found out with each of them alone.
            (error, index) if error.passes() => Ok(Run::Contended {
                first: index.unwrap_or(range.start),
                count: index.map_or(range.len(), |_| 1),
                why: error.into_failure(),
            }),
            (other, _) => Err(Fault::Store(other)),
        }
    }
}

/// The requests of a batch, and what the first of them did.
pub struct Work<'a> {
    items: &'a [Item<'a>],
    entries: Vec<Entry>,
    key_bytes: usize,
    begun: Instant,
    requests_max: usize,
    /// Collections that are known to have no collation. In others a filter by `_id` may find a
    /// document of another `_id`, so it tells nothing beforehand.
    plain: BTreeSet<&'a Namespace>,
}

impl<'a> Work<'a> {
    pub fn new(
        items: &'a [Item<'a>],
        merging: Merging,
        is_plain: impl Fn(&Namespace) -> bool,
    ) -> Self {
        let namespaces: BTreeSet<_> = items.iter().map(|item| &item.request.namespace).collect();
        let refusals = items.iter().any(|item| item.refused.is_some());
        Self {
            items,
            plain: namespaces.into_iter().filter(|ns| is_plain(ns)).collect(),
            entries: Vec::with_capacity(items.len()),
            key_bytes: 0,
            begun: Instant::now(),
            requests_max: match merging {
                Merging::Nothing => 1,
                Merging::Neighbours if refusals => COMMAND_REQUESTS_AFTER_REFUSAL_MAX,
                Merging::Neighbours => usize::MAX,
            },
        }
    }

    /// `None` at the end of the batch, or where it is cut because its bounds are reached.
    pub fn next_step(&self) -> Option<Step> {
        let index = self.entries.len();
        let full = self.begun.elapsed() > BATCH_RUN_MAX || self.key_bytes > LOG_KEY_BYTES_MAX;
        if index > 0 && full {
            return None;
        }
        let item = self.items.get(index)?;
        if item.refused.is_some() {
            return Some(Step::Skip(index));
        }
        Some(match &item.request.write {
            Write::Insert { .. } => Step::Inserts(index..self.end_of_inserts(index)),
            write if write.point().is_some() && write.is_short() && self.is_plain(item.request) => {
                Step::Points(index..self.end_of_points(index))
            }
            _ => Step::One(index),
        })
    }

    /// Whether a step is of one request whose cost its size does not tell.
    pub fn is_bounded(&self, step: &Step) -> bool {
        match step {
            Step::One(index) => !self.items[*index].request.write.is_short(),
            Step::Skip(_) | Step::Inserts(_) | Step::Points(_) => false,
        }
    }

    fn is_plain(&self, request: &WriteRequest) -> bool {
        self.plain.contains(&request.namespace)
    }

    fn end_of_inserts(&self, first: usize) -> usize {
        let mut documents = 0;
        self.end_of_run(first, |request| {
            documents += inserts_of(request);
            matches!(request.write, Write::Insert { .. }) && documents <= COMMAND_DOCUMENTS_MAX
        })
    }

    fn end_of_points(&self, first: usize) -> usize {
        let kind = std::mem::discriminant(&self.items[first].request.write);
        let mut ids = BTreeSet::new();
        self.end_of_run(first, |request| {
            let alike = std::mem::discriminant(&request.write) == kind;
            alike
                && request.write.is_short()
                && request
                    .write
                    .point()
                    .is_some_and(|id| ids.insert(encoded(id)))
        })
    }

    /// The end of the run of requests in one collection that share a command with the first.
    fn end_of_run(&self, first: usize, mut joins: impl FnMut(&WriteRequest) -> bool) -> usize {
        let namespace = &self.items[first].request.namespace;
        let run = self.items[first..].iter().take(self.requests_max);
        let mut key_bytes = self.key_bytes;
        let length = run.take_while(|item| {
            key_bytes += item.request.write.key_bytes();
            let open = item.refused.is_none() && item.request.namespace == *namespace;
            open && key_bytes <= LOG_KEY_BYTES_MAX && joins(item.request)
        });
        first + length.count().max(1)
    }

    /// Notes what the requests of a step did.
    pub fn done(&mut self, step: &Step, applied: Vec<Result<Applied, Refusal>>) {
        let mut applied = applied.into_iter();
        for index in step.indexes() {
            let item = &self.items[index];
            let (keys, result) = match (item.refused, applied.next()) {
                (None, Some(Ok(applied))) => (applied.keys, Ok(applied.answer)),
                (None, Some(Err(refusal))) => (Vec::new(), Err(refusal)),
                (refused, _) => (Vec::new(), Err(refused.cloned().unwrap_or_else(lost))),
            };
            self.key_bytes += keys.iter().map(|key| encoded(key).len()).sum::<usize>();
            self.entries.push(Entry {
                t: item.stamp,
                id: item.request.id.clone(),
                digest: item.request.digest,
                namespace: item.request.namespace.to_string(),
                op: item.request.write.op().to_owned(),
                keys,
                result,
            });
        }
    }

    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }
}

/// The stamp that a request's documents get.
pub fn stamp_of(item: &Item<'_>, node: &NodeName) -> Stamp {
    Stamp {
        t: item.stamp,
        n: node.clone(),
    }
}

/// How many documents a request inserts.
pub fn inserts_of(request: &WriteRequest) -> usize {
    match &request.write {
        Write::Insert { documents } => documents.len(),
        _ => 0,
    }
}

/// Cannot happen: each step gives as many results as it has requests.
fn lost() -> Refusal {
    debug_assert!(false, "a request has neither a result nor a refusal");
    Refusal {
        code: 0,
        name: "Internal".into(),
        message: "the request was not run".into(),
    }
}

/// The refusal of a request that held up the order for longer than its bound.
pub fn ran_too_long_in_order(bound: Duration) -> Refusal {
    Refusal {
        code: MAX_TIME_EXPIRED,
        name: "MaxTimeMSExpired".into(),
        message: format!(
            "the request ran longer than {} ms, the most that one request may hold up the order; \
             nothing was changed: give its filter an index, or split it, for instance by ranges of \
             _id",
            bound.as_millis()
        ),
    }
}

/// Adds what to do where MongoDB's text does not say it.
fn in_plain_words(refusal: Refusal) -> Refusal {
    let message = match refusal.code {
        // The log holds it, and MongoDB quotes documents in it.
        _ if refusal.message.len() > MESSAGE_BYTES_MAX => {
            let end = (0..=MESSAGE_BYTES_MAX)
                .rev()
                .find(|end| refusal.message.is_char_boundary(*end));
            format!("{}…", &refusal.message[..end.unwrap_or(0)])
        }
        MAX_TIME_EXPIRED => {
            ran_too_long("; nothing was changed: give its filter an index, or split it")
        }
        NOT_IN_TRANSACTION => format!(
            "MongoDB cannot write this in a transaction, so Drumline cannot put it in order \
             (capped and time-series collections): {}",
            refusal.message
        ),
        _ => return refusal,
    };
    Refusal { message, ..refusal }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RequestId, Update};
    use bson::{Document, doc};

    fn request(ns: &str, write: Write) -> WriteRequest {
        WriteRequest {
            id: RequestId::fresh(),
            digest: None,
            clock: 0,
            namespace: Namespace::parse(ns).unwrap(),
            write,
            bytes: 0,
        }
    }

    fn insert(ns: &str) -> WriteRequest {
        let documents = vec![doc! {"_id": 1}];
        request(ns, Write::Insert { documents })
    }

    fn update(filter: Document) -> WriteRequest {
        let update = Update::Operators(doc! {"$inc": {"n": 1}});
        request(
            "a.b",
            Write::Update {
                filter,
                update,
                many: false,
                upsert: false,
            },
        )
    }

    fn steps(requests: &[WriteRequest], merging: Merging) -> Vec<Step> {
        let items: Vec<_> = (requests.iter())
            .map(|request| Item {
                request,
                stamp: 1,
                refused: None,
            })
            .collect();
        let mut work = Work::new(&items, merging, |_| true);
        let mut steps = Vec::new();
        while let Some(step) = work.next_step() {
            let none = |_| Ok(super::super::apply::inserted(Vec::new()));
            work.done(&step, step.indexes().map(none).collect());
            steps.push(step);
        }
        steps
    }

    #[test]
    fn neighbours_share_a_command_if_no_document_is_touched_twice() {
        let by = |id: &str| update(doc! {"_id": id});
        let requests = [
            insert("a.b"),
            insert("a.b"),
            insert("a.c"),
            by("x"),
            by("y"),
            by("x"),
            update(doc! {"_id": 1}),
            request(
                "a.b",
                Write::Delete {
                    filter: doc! {"_id": "x"},
                    many: false,
                },
            ),
        ];
        let expected = [
            Step::Inserts(0..2),
            Step::Inserts(2..3),
            Step::Points(3..5),
            Step::Points(5..6),
            Step::One(6),
            Step::Points(7..8),
        ];
        assert_eq!(steps(&requests, Merging::Neighbours), expected);
        assert_eq!(steps(&requests, Merging::Nothing).len(), requests.len());
    }
}
