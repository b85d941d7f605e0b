//! Batches in which MongoDB refuses some requests, with a model that says which and what the others
//! leave behind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use drumline::model::{Answer, Failure, Namespace, Outcome, Update, Write};

use super::inside::Inside;

/// How many documents the requests of a mix contend for.
const KEYS: usize = 12;
/// A value of the unique index that a document holds which no request changes.
const TAKEN: &str = "taken@example.org";
const DUPLICATE_KEY: i32 = 11000;

/// Requests in order, what each must get, and the documents afterwards.
#[derive(Debug, Default)]
pub struct Mix {
    steps: Vec<Step>,
    documents: BTreeMap<String, Document>,
    /// Counts up, for values that tell the requests apart.
    serial: i32,
}

#[derive(Debug)]
struct Step {
    write: Write,
    expected: Result<Answer, i32>,
}

/// What a mix cost.
#[derive(Debug)]
#[allow(dead_code, reason = "the figures are printed")]
pub struct Cost {
    pub done: usize,
    pub refused: usize,
    /// Transactions begun, over all batches.
    pub attempts: i64,
    pub log_documents: u64,
    pub time: Duration,
}

impl Mix {
    /// Every second request is refused, on the documents that the others insert, change and delete.
    pub fn alternating(requests: usize) -> Self {
        let mut mix = Self::default();
        for number in 0..requests {
            match number % 2 {
                0 => mix.accepted(number / 2),
                _ => mix.refused(number / 2),
            }
        }
        mix
    }

    /// One good request, and then only refused ones.
    pub fn all_refused(requests: usize) -> Self {
        let mut mix = Self::default();
        mix.accepted(0);
        (0..requests).for_each(|number| mix.refused(number));
        mix
    }

    /// The refused ones come last, so that much has to run again because of each.
    pub fn refused_at_end(requests: usize) -> Self {
        let mut mix = Self::default();
        (0..requests / 2).for_each(|number| mix.accepted(number));
        (0..requests / 2).for_each(|number| mix.refused(number));
        mix
    }

    fn expect(&mut self, write: Write, expected: Result<Answer, i32>) {
        self.steps.push(Step { write, expected });
    }

    /// Takes a document through insert, updates of all forms, replace and delete, again and again.
    fn accepted(&mut self, number: usize) {
        self.serial += 1;
        let serial = self.serial;
        let key = format!("k{}", number % KEYS);
        let Some(mut document) = self.documents.remove(&key) else {
            let document = fresh(&key, serial);
            self.documents.insert(key.clone(), document.clone());
            let ids = vec![Bson::String(key)];
            return self.expect(insert(document), Ok(Answer::Inserted { ids }));
        };
        let (write, answer) = match (number / KEYS + number % KEYS) % 5 {
            1 => {
                document.insert("n", serial);
                let set = doc! {"$set": {"n": serial}};
                (update(&key, Update::Operators(set)), updated())
            }
            2 => {
                document.insert("marks", vec![serial]);
                let push = doc! {"$push": {"marks": serial}};
                (update(&key, Update::Operators(push)), updated())
            }
            3 => {
                let n = document.get_i32("n").unwrap();
                document.insert("n", n + serial);
                let add = doc! {"$set": {"n": {"$add": ["$n", serial]}}};
                (update(&key, Update::Pipeline(vec![add])), updated())
            }
            4 => {
                let answer = Answer::Deleted { deleted: 1 };
                let delete = Write::Delete {
                    filter: doc! {"_id": &key},
                    many: false,
                };
                return self.expect(delete, Ok(answer));
            }
            _ => {
                document = fresh(&key, serial);
                let replace = Write::Replace {
                    filter: doc! {"_id": &key},
                    replacement: document.clone(),
                    upsert: false,
                };
                (replace, updated())
            }
        };
        self.documents.insert(key, document);
        self.expect(write, Ok(answer));
    }

    /// A request that MongoDB refuses as the documents are now.
    fn refused(&mut self, number: usize) {
        self.serial += 1;
        let keys: Vec<_> = self.documents.keys().collect();
        let key = keys[number % keys.len()].clone();
        let operators = |operators| update(&key, Update::Operators(operators));
        let (write, code) = match number % 7 {
            0 => (insert(fresh(&key, self.serial)), DUPLICATE_KEY),
            1 => {
                let other = doc! {"_id": format!("new{number}"), "mail": TAKEN};
                (insert(other), DUPLICATE_KEY)
            }
            2 => (operators(doc! {"$set": {"n": -1}}), 121),
            3 => (operators(doc! {"$inc": {"mail": 1}}), 14),
            4 => (operators(doc! {"$push": {"n": 1}}), 2),
            5 => (operators(doc! {"$set": {"_id": "other"}}), 66),
            _ => (operators(doc! {"$nope": {"n": 1}}), 9),
        };
        self.expect(write, Err(code));
    }

    /// Runs the mix as one batch and compares every answer and every document with the model.
    pub async fn run(self, inside: &Inside, namespace: &Namespace) -> Cost {
        prepare(inside, namespace).await;
        let log = inside.collection(&Namespace::parse("drumline.log").unwrap());
        let before = log.count_documents(doc! {}).await.unwrap();
        let attempts = inside.transactions().await;
        let keys: Vec<_> = self.steps.iter().map(|step| key_of(&step.write)).collect();
        let (writes, expected): (Vec<_>, Vec<_>) =
            (self.steps.into_iter().map(|s| (s.write, s.expected))).unzip();
        let begun = Instant::now();
        let ends = inside.together(namespace, writes).await;
        let time = begun.elapsed();
        let attempts = inside.transactions().await - attempts;
        let log_documents = log.count_documents(doc! {}).await.unwrap() - before;
        compare_answers(&ends, &expected);
        compare_order(&ends, &keys);
        compare_documents(inside, namespace, self.documents).await;
        let refused = expected.iter().filter(|end| end.is_err()).count();
        Cost {
            done: expected.len() - refused,
            refused,
            attempts,
            log_documents,
            time,
        }
    }
}

/// A collection with a validator and a unique index.
async fn prepare(inside: &Inside, namespace: &Namespace) {
    let database = inside.driver.database(namespace.database());
    let create = doc! {
        "create": namespace.collection(),
        "validator": {"$jsonSchema": {"properties": {"n": {"minimum": 0}}}},
    };
    database.run_command(create).await.unwrap();
    let index = doc! {
        "createIndexes": namespace.collection(),
        "indexes": [{"key": {"mail": 1}, "name": "mail", "unique": true}],
    };
    database.run_command(index).await.unwrap();
    let holder = doc! {"_id": "holder", "mail": TAKEN, "n": 0};
    inside
        .collection(namespace)
        .insert_one(holder)
        .await
        .unwrap();
}

fn compare_answers(ends: &[Result<Outcome, Failure>], expected: &[Result<Answer, i32>]) {
    for (number, (end, expected)) in ends.iter().zip(expected).enumerate() {
        let outcome = (end.as_ref()).unwrap_or_else(|failure| panic!("{number}: {failure}"));
        let result = outcome.result.as_ref().map_err(|refusal| refusal.code);
        assert_eq!(result, expected.as_ref().map_err(|code| *code), "{number}");
    }
    assert_eq!(ends.len(), expected.len());
}

/// Requests for the same document have their stamps in the order in which they arrived.
fn compare_order(ends: &[Result<Outcome, Failure>], keys: &[String]) {
    let mut last = BTreeMap::new();
    for (end, key) in ends.iter().zip(keys) {
        let stamp = end.as_ref().unwrap().stamp.t;
        let before = last.insert(key, stamp);
        assert!(
            before < Some(stamp),
            "{key}: stamp {stamp} after {before:?}"
        );
    }
}

fn key_of(write: &Write) -> String {
    let document = match write {
        Write::Insert { documents } => &documents[0],
        Write::Update { filter, .. }
        | Write::Replace { filter, .. }
        | Write::Delete { filter, .. } => filter,
    };
    document.get_str("_id").unwrap().to_owned()
}

async fn compare_documents(
    inside: &Inside,
    namespace: &Namespace,
    expected: BTreeMap<String, Document>,
) {
    let mut found = inside.collection(namespace).find(doc! {}).await.unwrap();
    let mut stored = BTreeMap::new();
    while found.advance().await.unwrap() {
        let mut document: Document = found.deserialize_current().unwrap();
        let stamped = document.remove("_stamp").is_some();
        let key = document.get_str("_id").unwrap();
        assert_eq!(stamped, key != "holder", "{document}");
        stored.insert(document.get_str("_id").unwrap().to_owned(), document);
    }
    assert!(stored.remove("holder").is_some());
    assert_eq!(stored, expected);
}

fn fresh(key: &str, serial: i32) -> Document {
    doc! {"_id": key, "mail": format!("{key}@example.org"), "n": serial}
}

fn insert(document: Document) -> Write {
    Write::Insert {
        documents: vec![document],
    }
}

fn update(key: &str, update: Update) -> Write {
    Write::Update {
        filter: doc! {"_id": key},
        update,
        many: false,
        upsert: false,
    }
}

const fn updated() -> Answer {
    Answer::Updated {
        matched: 1,
        modified: 1,
        upserted: None,
    }
}
