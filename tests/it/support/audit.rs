//! The full comparison: log, replies and collection must tell one story.
//!
//! Reads the log and the collection with the plain driver, so that no code of Drumline's own
//! stands between the test and MongoDB.

use std::collections::BTreeMap;
use std::time::Instant;

use bson::{Bson, Document, doc};
use drumline::model::{Answer, Namespace};
use mongodb::Client;
use mongodb::options::ReadConcern;

use super::load::{End, Op, Record, model};

/// What the comparison looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Audited {
    pub log_documents: usize,
    pub entries: usize,
    pub acknowledged: usize,
    pub refused: usize,
    pub unknown: usize,
    pub documents: usize,
}

/// Compares everything; panics with the first violations it finds.
pub async fn audit(uri: &str, namespace: &Namespace, records: &[Record]) -> Audited {
    let (audited, violations) = inspect(uri, namespace, records).await;
    let shown: Vec<_> = violations.iter().take(10).collect();
    assert!(
        violations.is_empty(),
        "{} violations, the first: {shown:#?}",
        violations.len()
    );
    audited
}

/// Compares everything and gives all violations.
pub async fn inspect(
    uri: &str,
    namespace: &Namespace,
    records: &[Record],
) -> (Audited, Vec<String>) {
    let client = Client::with_uri_str(uri).await.unwrap();
    let log = read(&client, "drumline", "log").await;
    let stored = read(&client, namespace.database(), namespace.collection()).await;
    client.shutdown().await;
    compare(&log, &stored, namespace, records)
}

async fn read(client: &Client, database: &str, collection: &str) -> Vec<Document> {
    let collection = client.database(database).collection::<Document>(collection);
    let mut found = collection
        .find(doc! {})
        .sort(doc! {"_id": 1})
        .read_concern(ReadConcern::majority())
        .await
        .unwrap();
    let mut documents = Vec::new();
    while found.advance().await.unwrap() {
        documents.push(found.deserialize_current().unwrap());
    }
    documents
}

/// The comparison itself, without any IO.
pub fn compare(
    log: &[Document],
    stored: &[Document],
    namespace: &Namespace,
    records: &[Record],
) -> (Audited, Vec<String>) {
    let mut audit = Audit {
        records: records
            .iter()
            .map(|record| (record.id.as_str(), record))
            .collect(),
        ..Audit::default()
    };
    for (index, document) in log.iter().enumerate() {
        audit.log_document(index, document, &namespace.to_string());
    }
    audit.replies(records);
    audit.collection(stored);
    audit.real_time(records);
    audit.audited.log_documents = log.len();
    audit.audited.documents = stored.len();
    (audit.audited, audit.violations)
}

#[derive(Default)]
struct Audit<'a> {
    records: BTreeMap<&'a str, &'a Record>,
    /// Where each request id stands: position, stamp, error.
    places: BTreeMap<String, (i64, i64, bool)>,
    /// The collection as the log says it must be, with the counters of the stamps.
    state: BTreeMap<String, (Document, i64)>,
    epoch: i64,
    stamp: i64,
    audited: Audited,
    violations: Vec<String>,
}

impl Audit<'_> {
    fn log_document(&mut self, index: usize, document: &Document, namespace: &str) {
        let position = document.get_i64("_id").unwrap();
        self.check(position == index as i64 + 1, || {
            format!("I1: {position} at place {index}")
        });
        let epoch = document.get_i64("epoch").unwrap();
        let claim = document.get_str("kind").unwrap() == "claim";
        let fits = if claim {
            epoch > self.epoch
        } else {
            epoch == self.epoch
        };
        self.check(fits, || {
            format!("I2: epoch {epoch} at {position}, claim: {claim}")
        });
        self.epoch = epoch;
        let entries = document.get_array("entries").unwrap();
        let first = document.get_i64("first").unwrap();
        self.check(first > self.stamp, || {
            format!("I3: {position} begins with stamp {first}")
        });
        for entry in entries {
            self.entry(position, entry.as_document().unwrap(), namespace);
        }
        let last = document.get_i64("last").unwrap();
        self.check(entries.is_empty() || last == self.stamp, || {
            format!("I3: the end of {position}")
        });
        self.stamp = last;
    }

    fn entry(&mut self, position: i64, entry: &Document, namespace: &str) {
        let stamp = entry.get_i64("t").unwrap();
        let before = self.stamp;
        self.check(stamp > before, || {
            format!("I3: stamp {stamp} after {before}")
        });
        self.stamp = stamp;
        if entry.get_str("ns").unwrap() != namespace {
            return;
        }
        self.audited.entries += 1;
        let id = entry.get_str("id").unwrap();
        let error = entry.contains_key("error");
        if let Some(other) = self.places.insert(id.to_owned(), (position, stamp, error)) {
            self.violations
                .push(format!("I5: {id} stands at {other:?} and at {position}"));
        }
        let Some(record) = self.records.get(id).copied() else {
            self.violations
                .push(format!("{id} is in the log, and nobody asked for it"));
            return;
        };
        self.replay(record, entry, stamp, error);
    }

    /// Applies the request to the model and compares the logged result with the model's.
    fn replay(&mut self, record: &Record, entry: &Document, stamp: i64, error: bool) {
        let key = record.op.key().to_owned();
        let before = self.state.get(&key).map(|(document, _)| document);
        let existed = before.is_some();
        let keys = entry.get_array("keys").unwrap();
        match model(&record.op, record.id.as_str(), before) {
            Err(()) => {
                self.check(error, || {
                    format!("{record:?} succeeded, but the document existed")
                });
            }
            Ok(after) => {
                self.check(!error, || {
                    format!("{record:?} was refused without a reason")
                });
                let touches = existed || after.is_some();
                let expected: Vec<_> = touches
                    .then(|| Bson::String(key.clone()))
                    .into_iter()
                    .collect();
                self.check(*keys == expected, || {
                    format!("{record:?} has the keys {keys:?}")
                });
                match after {
                    Some(document) => self.state.insert(key, (document, stamp)),
                    None => self.state.remove(&key),
                };
            }
        }
        if let (End::Acknowledged(written), false) = (&record.end, error) {
            let expected = expected_answer(&record.op, existed);
            self.check(written.answer == expected, || {
                format!("{record:?} must have answered {expected:?}")
            });
        }
    }

    fn replies(&mut self, records: &[Record]) {
        for record in records {
            let place = self.places.get(record.id.as_str()).copied();
            match &record.end {
                End::Acknowledged(written) => {
                    self.audited.acknowledged += 1;
                    let told = written
                        .position
                        .zip(written.stamp)
                        .map(|(p, s)| (p, s, false));
                    self.check(place == told, || {
                        format!("I4: {record:?} stands at {place:?}")
                    });
                }
                End::Refused(_) => {
                    self.audited.refused += 1;
                    let logged = place.is_some_and(|(_, _, error)| error);
                    self.check(logged, || format!("{record:?} stands at {place:?}"));
                }
                End::NotDone(_) => {
                    self.check(place.is_none(), || {
                        format!("{record:?} stands at {place:?}")
                    });
                }
                End::Unknown => self.audited.unknown += 1,
            }
        }
    }

    fn collection(&mut self, stored: &[Document]) {
        let mut state = std::mem::take(&mut self.state);
        for document in stored {
            let key = document.get_str("_id").unwrap();
            let mut document = document.clone();
            let stamp = document.remove("_stamp");
            let Some((expected, last)) = state.remove(key) else {
                self.violations
                    .push(format!("{key} is stored, but not by the log"));
                continue;
            };
            let stamp = stamp.as_ref().and_then(Bson::as_document);
            let carried = stamp.and_then(|stamp| stamp.get_i64("t").ok());
            self.check(carried == Some(last), || {
                format!("I3: {key} carries {carried:?}, its last entry has {last}")
            });
            let same = sorted(&document) == sorted(&expected);
            self.check(same, || format!("{key} is {document}, must be {expected}"));
        }
        for key in state.keys() {
            self.violations
                .push(format!("lost: {key} is in the log, and not stored"));
        }
    }

    /// I6: what was answered before another request was invoked has the smaller stamp.
    fn real_time(&mut self, records: &[Record]) {
        let mut ends: Vec<(Instant, i64)> = Vec::new();
        let mut begins: Vec<(Instant, i64, &str)> = Vec::new();
        for record in records {
            let End::Acknowledged(written) = &record.end else {
                continue;
            };
            let stamp = written.stamp.unwrap();
            ends.push((record.returned, stamp));
            begins.push((record.invoked, stamp, record.id.as_str()));
        }
        ends.sort_unstable();
        begins.sort_unstable();
        let mut ends = ends.into_iter().peekable();
        let mut highest = 0;
        for (invoked, stamp, id) in begins {
            while let Some((_, ended)) = ends.next_if(|(returned, _)| *returned < invoked) {
                highest = highest.max(ended);
            }
            self.check(stamp > highest, || {
                format!("I6: {id} has stamp {stamp}, and {highest} was answered before it began")
            });
        }
    }

    fn check(&mut self, holds: bool, why: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(why());
        }
    }
}

fn expected_answer(op: &Op, existed: bool) -> Answer {
    let upserted = |key: &str| Answer::Updated {
        matched: 0,
        modified: 0,
        upserted: Some(Bson::String(key.to_owned())),
    };
    match op {
        Op::Insert { key } => Answer::Inserted {
            ids: vec![Bson::String(key.clone())],
        },
        Op::Add { .. } | Op::Put { .. } if existed => Answer::Updated {
            matched: 1,
            modified: 1,
            upserted: None,
        },
        Op::Add { key } | Op::Put { key } => upserted(key),
        Op::Delete { .. } => Answer::Deleted {
            deleted: existed.into(),
        },
    }
}

fn sorted(document: &Document) -> BTreeMap<&String, &Bson> {
    document.iter().collect()
}
