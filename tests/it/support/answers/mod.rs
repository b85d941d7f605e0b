//! The same requests through a sequencer and by the plain driver, in the order of their stamps:
//! what each is told, and what they leave behind, must be the same.

mod barred;
mod draw;
mod reference;

use bson::{Bson, Document, RawDocumentBuf, doc};
use drumline::model::{Answer, Namespace, Outcome, Refusal, Update, Write};

pub use barred::barred_for_a_while;
pub use draw::{Dice, Kind, ids};
use reference::Reference;

use super::inside::Inside;

/// How many requests share a batch.
const BATCH: usize = 64;
/// How many of a kind run alone, each in a batch of its own.
const ALONE: usize = 12;
/// Our requests go to the collection in the one database, the driver's to that in the other.
const OURS: &str = "answers";
const THEIRS: &str = "plainly";
const COLLECTION: &str = "all";
const CANNOT_BUILD_INDEX_KEYS: i32 = 201;

/// What a collection is like.
#[derive(Debug, Clone, Copy)]
enum Nature {
    Plain,
    /// It holds `a` and `A` equal.
    Collated,
    /// No two documents have the same `u`.
    Unique,
    /// No `v` is above 90.
    Validated,
}

const NATURES: [Nature; 4] = [
    Nature::Plain,
    Nature::Collated,
    Nature::Unique,
    Nature::Validated,
];

/// What was compared, and where the two differ.
#[derive(Debug, Default)]
pub struct Found {
    pub requests: usize,
    pub refused: usize,
    pub differences: Vec<String>,
}

/// Compares batches of two kinds each, in a collection that is dropped and made anew before each,
/// by another program and often of another nature; then each kind alone. A round has a batch of
/// each `every`-th pair of kinds.
pub async fn compare(inside: &Inside, dice: &mut Dice, rounds: usize, every: usize) -> Found {
    let mut both = Both::new(inside).await;
    let kinds = Kind::ALL.into_iter().enumerate();
    let pairs = kinds.flat_map(|(at, one)| Kind::ALL[at..].iter().map(move |other| [one, *other]));
    let pairs: Vec<_> = pairs.step_by(every).collect();
    for _ in 0..rounds {
        for kinds in &pairs {
            let nature = dice.of(&NATURES);
            let writes = (0..BATCH).map(|_| dice.of(kinds).draw(dice)).collect();
            both.batch(nature, writes, dice).await;
        }
        for kind in Kind::ALL {
            let nature = dice.of(&NATURES);
            both.begin(nature, dice).await;
            for _ in 0..ALONE {
                let write = kind.draw(dice);
                both.run(nature, vec![write]).await;
            }
            both.compare_documents(nature).await;
        }
        both.draw_lots().await;
    }
    both.found
}

struct Both<'a> {
    inside: &'a Inside,
    ours: Namespace,
    reference: Reference,
    found: Found,
}

impl<'a> Both<'a> {
    async fn new(inside: &'a Inside) -> Self {
        let theirs = inside.driver.database(THEIRS);
        theirs.drop().await.unwrap();
        inside.driver.database(OURS).drop().await.unwrap();
        Self {
            inside,
            ours: Namespace::parse(&format!("{OURS}.{COLLECTION}")).unwrap(),
            reference: Reference::new(&inside.driver, THEIRS, COLLECTION),
            found: Found::default(),
        }
    }

    async fn batch(&mut self, nature: Nature, writes: Vec<Write>, dice: &mut Dice) {
        self.begin(nature, dice).await;
        self.run(nature, writes).await;
        self.compare_documents(nature).await;
    }

    /// Both collections anew, with the same documents, by another program.
    async fn begin(&self, nature: Nature, dice: &mut Dice) {
        let mut documents = Vec::new();
        for (number, id) in ids().into_iter().enumerate() {
            let number = i32::try_from(number).unwrap();
            if dice.below(2) == 0 {
                documents.push(doc! {
                    "_id": id, "v": number % 5, "u": 100 + number, "text": "a", "list": [1, 2],
                });
            }
        }
        for name in [OURS, THEIRS] {
            let database = self.inside.driver.database(name);
            database
                .collection::<Document>(COLLECTION)
                .drop()
                .await
                .unwrap();
            let mut create = doc! {"create": COLLECTION};
            match nature {
                Nature::Collated => {
                    create.insert("collation", doc! {"locale": "en", "strength": 2});
                }
                Nature::Validated => {
                    create.insert("validator", doc! {"v": {"$not": {"$gt": 90}}});
                }
                Nature::Plain | Nature::Unique => {}
            }
            database.run_command(create).await.unwrap();
            if let Nature::Unique = nature {
                let some = doc! {"u": {"$exists": true}};
                let index = doc! {
                    "key": {"u": 1}, "name": "u", "unique": true, "partialFilterExpression": some,
                };
                let create = doc! {"createIndexes": COLLECTION, "indexes": [index]};
                database.run_command(create).await.unwrap();
            }
            // Those that are equal to one before are left out by MongoDB.
            let insert = doc! {"insert": COLLECTION, "documents": &documents, "ordered": false};
            database.run_command(insert).await.unwrap();
        }
    }

    async fn run(&mut self, nature: Nature, writes: Vec<Write>) {
        let ends = self.inside.together(&self.ours, writes.clone()).await;
        let mut told: Vec<(Write, Outcome)> = Vec::new();
        for (write, end) in writes.into_iter().zip(ends) {
            match end {
                Ok(outcome) => told.push((write, outcome)),
                Err(failure) => self.differ(nature, &write, &failure, &"an answer"),
            }
        }
        told.sort_by_key(|(_, outcome)| outcome.stamp.t);
        for (write, outcome) in told {
            let theirs = self.reference.run(&write).await;
            let ours = in_their_words(outcome.result);
            self.found.requests += 1;
            self.found.refused += usize::from(theirs.is_err());
            let both = ours.is_err() && theirs.is_err();
            if both && self.reference.refuses_filter(&write).await {
                continue; // which of two faults is told is all the same
            }
            if bytes_of(&ours) != bytes_of(&theirs) {
                self.differ(nature, &write, &ours, &theirs);
            }
        }
    }

    async fn compare_documents(&mut self, nature: Nature) {
        let ours = documents(self.inside, OURS).await;
        let theirs = documents(self.inside, THEIRS).await;
        if ours != theirs {
            let only = |some: &[RawDocumentBuf], others: &[RawDocumentBuf]| {
                let some = some.iter().filter(|one| !others.contains(one));
                some.map(|one| format!("{one:?}")).collect::<Vec<_>>()
            };
            let (ours, theirs) = (only(&ours, &theirs), only(&theirs, &ours));
            let difference = format!("{nature:?}: stored {ours:?}, and by the driver {theirs:?}");
            self.found.differences.push(difference);
        }
    }

    /// Filters that draw lots: no two runs are the same, but the counts tell what was done.
    async fn draw_lots(&mut self) {
        let expression = doc! {"$expr": {"$lt": [{"$rand": {}}, 0.5]}};
        let filters = [
            doc! {"$sampleRate": 0.5},
            doc! {"$and": [{"list": 2}, &expression]},
            doc! {"list": 2, "$or": [&expression]},
            doc! {"list": 2, "$sampleRate": 0.5},
        ];
        self.begin(Nature::Plain, &mut Dice(1)).await;
        let collection = self.inside.collection(&self.ours);
        for (number, filter) in filters.into_iter().enumerate() {
            for many in [true, false, false, false] {
                let mark = format!("m{number}");
                collection
                    .update_many(doc! {}, doc! {"$unset": {&mark: "", "_stamp": ""}})
                    .await
                    .unwrap();
                let mut set = doc! {&mark: 1};
                if filter.contains_key("list") {
                    set.insert("list.$", 2);
                }
                let write = Write::Update {
                    filter: filter.clone(),
                    update: Update::Operators(doc! {"$set": set}),
                    many,
                    upsert: !many,
                };
                let outcome = self.inside.write(&self.ours, write.clone()).await;
                let marked = doc! {&mark: 1};
                let done = collection.count_documents(marked).await.unwrap();
                let stamped = doc! {"_stamp": {"$exists": true}};
                let stamped = collection.count_documents(stamped).await.unwrap();
                let done = i64::try_from(done).unwrap();
                self.found.requests += 1;
                let right = matches!(
                    outcome.as_ref().map(|outcome| &outcome.result),
                    Ok(Ok(Answer::Updated { matched, modified, upserted }))
                        if matched == modified
                            && matched + i64::from(upserted.is_some()) == done
                            && u64::try_from(done) == Ok(stamped)
                );
                if !right {
                    let truth = format!("{done} changed, {stamped} stamped");
                    self.differ(Nature::Plain, &write, &outcome, &truth);
                }
            }
        }
    }

    fn differ(
        &mut self,
        nature: Nature,
        write: &Write,
        ours: &dyn std::fmt::Debug,
        theirs: &dyn std::fmt::Debug,
    ) {
        let difference =
            format!("{nature:?}: {write:?} got {ours:?}, and by the driver {theirs:?}");
        self.found.differences.push(difference);
    }
}

/// All documents of a database's collection, without their stamps, byte for byte.
async fn documents(inside: &Inside, database: &str) -> Vec<RawDocumentBuf> {
    let database = inside.driver.database(database);
    let collection = database.collection::<RawDocumentBuf>(COLLECTION);
    let mut found = collection
        .find(doc! {})
        .sort(doc! {"_id": 1})
        .await
        .unwrap();
    let mut documents = Vec::new();
    while found.advance().await.unwrap() {
        let mut document = RawDocumentBuf::new();
        for field in found.current().iter() {
            let (key, value) = field.unwrap();
            if key != "_stamp" {
                document.append(key, value);
            }
        }
        documents.push(document);
    }
    documents
}

/// A refusal names the collection.
fn in_their_words(result: Result<Answer, Refusal>) -> Result<Answer, Refusal> {
    result.map_err(|refusal| Refusal {
        message: refusal.message.replace(OURS, THEIRS),
        ..refusal
    })
}

/// What is told, byte for byte: equal values are not enough.
fn bytes_of(told: &Result<Answer, Refusal>) -> Vec<u8> {
    let document = match told {
        Ok(Answer::Inserted { ids }) => doc! {"ids": ids},
        Ok(Answer::Updated {
            matched,
            modified,
            upserted,
        }) => doc! {"matched": matched, "modified": modified, "upserted": upserted.clone()},
        Ok(Answer::Deleted { deleted }) => doc! {"deleted": deleted},
        // MongoDB has two texts for this one: for a command of one document, and of several.
        Err(refusal) if refusal.code == CANNOT_BUILD_INDEX_KEYS => doc! {"code": refusal.code},
        Err(refusal) => doc! {"code": refusal.code, "message": &refusal.message},
    };
    Bson::Document(document)
        .as_document()
        .unwrap()
        .to_vec()
        .unwrap()
}

/// Fails the test if anything differs.
#[track_caller]
pub fn must_agree(found: &Found) {
    let Found {
        requests,
        refused,
        differences,
    } = found;
    println!("{requests} requests, {refused} of them refused");
    let first: Vec<_> = differences.iter().take(8).collect();
    assert!(
        differences.is_empty(),
        "{} differences: {first:#?}",
        differences.len()
    );
    assert!(requests > &0 && refused > &0);
}
