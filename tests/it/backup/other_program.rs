//! Another program that writes behind Drumline, with everything that MongoDB has, by a seed.

use std::collections::BTreeMap;

use bson::{Bson, Document, doc};
use mongodb::{Client, Collection, Database};

/// Numbers from a seed.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number from 0 to `end` - 1.
    pub fn below(&mut self, end: u64) -> u64 {
        // xorshift64*: https://doi.org/10.18637/jss.v008.i14
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end.max(1)
    }

    fn number(&mut self, end: u64) -> i32 {
        i32::try_from(self.below(end)).unwrap()
    }
}

const COLLECTIONS: u64 = 6;
const KEYS: u64 = 25;
/// Documents that are there before the base is begun.
const PREPARED: i32 = 3_000;

/// The program.
#[derive(Debug)]
pub struct OtherProgram {
    client: Client,
    database: Database,
    dice: Dice,
    serial: i32,
    did: BTreeMap<&'static str, u32>,
}

impl OtherProgram {
    pub async fn new(uri: &str, seed: u64) -> Self {
        let client = Client::with_uri_str(uri).await.unwrap();
        Self {
            database: client.database("field"),
            client,
            dice: Dice::new(seed ^ 0xF1E1D),
            serial: 0,
            did: BTreeMap::new(),
        }
    }

    /// What there is at first: enough that a base takes several files.
    pub async fn prepare(&mut self) {
        let many = self.database.collection("many");
        for part in 0..6 {
            let documents = (0..PREPARED / 6).map(|number| {
                let id = part * PREPARED / 6 + number;
                doc! {"_id": id, "n": 0, "text": format!("{id}-{}", "x".repeat(400))}
            });
            many.insert_many(documents).await.unwrap();
        }
        let every: Vec<Document> = odd_documents();
        self.database
            .collection("odd")
            .insert_many(every)
            .await
            .unwrap();
        let capped = doc! {"create": "capped", "capped": true, "size": 16_384, "max": 20};
        self.database.run_command(capped).await.unwrap();
        let series = doc! {"create": "series", "timeseries": {"timeField": "t", "metaField": "m"}};
        self.database.run_command(series).await.unwrap();
        let by_value = doc! {"key": {"m": 1, "t": -1}, "name": "by_m"};
        let index = doc! {"createIndexes": "series", "indexes": [by_value]};
        self.database.run_command(index).await.unwrap();
        let collated = doc! {"create": "collated", "collation": {"locale": "en", "strength": 2}};
        self.database.run_command(collated).await.unwrap();
        for id in ["b", "A", "c"] {
            let document = doc! {"_id": id};
            self.database
                .collection("collated")
                .insert_one(document)
                .await
                .unwrap();
        }
        let view = doc! {"create": "seen", "viewOn": "many", "pipeline": [{"$match": {"n": 1}}]};
        self.database.run_command(view).await.unwrap();
    }

    /// What was done, and how often.
    pub fn did(&self) -> String {
        format!("{:?}", self.did)
    }

    fn collection(&mut self) -> Collection<Document> {
        let number = self.dice.below(COLLECTIONS);
        self.database.collection(&format!("c{number}"))
    }

    fn key(&mut self) -> Bson {
        match self.dice.below(KEYS) {
            0 => Bson::Double(f64::from(self.dice.number(3))),
            1 => Bson::Int64(self.dice.number(3).into()),
            2 => Bson::Document(doc! {"a": self.dice.number(3)}),
            3 => Bson::String("text".into()),
            4 => Bson::Null,
            key => Bson::Int32(key.try_into().unwrap()),
        }
    }

    fn document(&mut self) -> Document {
        self.serial += 1;
        doc! {
            "_id": self.key(), "serial": self.serial, "o": {"0": 1, "n": {"deep": [1, 2]}},
            "arr": [1, {"k": 1}, 3], "a.b": 1,
        }
    }

    /// So many steps. What MongoDB refuses is no step of this program's to mend.
    pub async fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            let what = self.step().await;
            *self.did.entry(what).or_default() += 1;
        }
    }

    async fn step(&mut self) -> &'static str {
        let collection = self.collection();
        let filter = doc! {"_id": self.key()};
        match self.dice.below(40) {
            0..8 => {
                let _ = collection.insert_one(self.document()).await;
                "insert"
            }
            8..18 => {
                let update = self.update();
                let _ = collection.update_one(filter, update).await;
                "update"
            }
            18..20 => {
                // Names with dots and dollars, which only a pipeline can set.
                let value = self.dice.number(100);
                let set = |field: &str| {
                    let set =
                        doc! {"field": {"$literal": field}, "input": "$$ROOT", "value": value};
                    doc! {"$replaceWith": {"$setField": set}}
                };
                let field = ["x.y", "$z", "0", "o.n"][usize::try_from(self.dice.below(4)).unwrap()];
                let _ = collection.update_one(filter, vec![set(field)]).await;
                "odd name"
            }
            20 => {
                // The oplog tells this one as a new length.
                let shorter = doc! {"$slice": ["$arr", 1 + self.dice.number(2)]};
                let shorter = doc! {"$set": {"arr": {"$cond": [{"$isArray": "$arr"}, shorter, 0]}}};
                let _ = collection.update_one(filter, vec![shorter]).await;
                "shorter array"
            }
            21..23 => {
                let mut replacement = self.document();
                replacement.remove("_id");
                let replace = collection.replace_one(filter, replacement);
                let _ = replace.upsert(self.dice.below(2) == 0).await;
                "replace"
            }
            23..26 => {
                let _ = collection.delete_one(filter).await;
                "delete"
            }
            26 => {
                let documents = [self.document(), self.document(), self.document()];
                let _ = collection.insert_many(documents).ordered(false).await;
                "insertMany"
            }
            27 => {
                let below = self.dice.number(u64::try_from(PREPARED).unwrap());
                let range = doc! {"_id": {"$lt": below, "$mod": [7, 0]}};
                let many = self.database.collection::<Document>("many");
                many.update_many(range, doc! {"$inc": {"n": 1}})
                    .await
                    .unwrap();
                "updateMany"
            }
            28 => {
                let id = self.dice.number(u64::try_from(PREPARED).unwrap());
                let many = self.database.collection::<Document>("many");
                many.delete_one(doc! {"_id": id}).await.unwrap();
                "delete of many"
            }
            29..32 => self.capped_or_series().await,
            32 => self.transaction(collection).await,
            33 => {
                let name = format!("c{}", self.dice.below(COLLECTIONS));
                let from = format!("field.{}", collection.name());
                let to = format!("field.{name}");
                let to = doc! {"renameCollection": from, "to": to, "dropTarget": true};
                let _ = self.client.database("admin").run_command(to).await;
                "rename"
            }
            34 => {
                collection.drop().await.unwrap();
                "drop"
            }
            35..38 => self.index_or_option(collection.name()).await,
            _ => self.database_or_view().await,
        }
    }

    fn update(&mut self) -> Document {
        let n = self.dice.number(100);
        match self.dice.below(9) {
            0 => doc! {"$set": {"o.n.deep.1": n, "new": n}},
            1 => doc! {"$push": {"arr": {"k": n}}},
            2 => doc! {"$pop": {"arr": 1}},
            3 => doc! {"$unset": {"o.0": ""}},
            4 => doc! {"$rename": {"new": "renamed"}},
            5 => doc! {"$set": {"arr.1.k": n, "o.0": n}},
            6 => doc! {"$inc": {"serial": 1000}, "$currentDate": {"at": true}},
            7 => doc! {"$push": {"arr": {"$each": [n, n], "$position": 0, "$slice": 6}}},
            _ => doc! {"$set": {"o": {"n": {"deep": [n]}}}},
        }
    }

    async fn capped_or_series(&mut self) -> &'static str {
        self.serial += 1;
        if self.dice.below(2) == 0 {
            let document = doc! {"_id": self.serial, "text": "y".repeat(50)};
            self.database
                .collection("capped")
                .insert_one(document)
                .await
                .unwrap();
            return "capped";
        }
        let now = bson::DateTime::now();
        let measured = doc! {"t": now, "m": self.dice.number(3), "v": self.serial};
        self.database
            .collection("series")
            .insert_one(measured)
            .await
            .unwrap();
        "series"
    }

    async fn transaction(&mut self, collection: Collection<Document>) -> &'static str {
        let mut session = self.client.start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        for _ in 0..3 {
            let document = self.document();
            let inserted = collection.insert_one(document).session(&mut session).await;
            if inserted.is_err() {
                let _ = session.abort_transaction().await;
                return "aborted transaction";
            }
        }
        let _ = session.commit_transaction().await;
        "transaction"
    }

    async fn index_or_option(&mut self, name: &str) -> &'static str {
        let command = match self.dice.below(7) {
            0 => {
                doc! {"createIndexes": name, "indexes": [{"key": {"serial": 1}, "name": "serial"}]}
            }
            1 => doc! {"createIndexes": name, "indexes": [
                {"key": {"arr.k": 1, "o.n": -1}, "name": "deep", "sparse": true},
                {"key": {"$**": 1}, "name": "all"},
            ]},
            2 => doc! {"dropIndexes": name, "index": "serial"},
            3 => doc! {"dropIndexes": name, "index": "*"},
            4 => doc! {"collMod": name, "index": {"name": "serial", "hidden": true}},
            5 => doc! {"collMod": name, "validator": {"serial": {"$type": "int"}},
            "validationAction": "warn"},
            _ => doc! {"collMod": name, "validator": {}},
        };
        let _ = self.database.run_command(command).await;
        "index or option"
    }

    async fn database_or_view(&mut self) -> &'static str {
        let brief = self.client.database("brief");
        match self.dice.below(7) {
            0 => {
                brief.drop().await.unwrap();
                "drop of a database"
            }
            1 => {
                let document = self.document();
                let _ = brief.collection("here").insert_one(document).await;
                "insert"
            }
            2 => {
                let (from, to) = ("brief.here", "field.moved");
                let rename = doc! {"renameCollection": from, "to": to, "dropTarget": true};
                let _ = self.client.database("admin").run_command(rename).await;
                "rename to another database"
            }
            3 => {
                let out = vec![doc! {"$match": {"n": {"$gt": 0}}}, doc! {"$out": "out"}];
                let many = self.database.collection::<Document>("many");
                many.aggregate(out).await.unwrap();
                "out"
            }
            5 => {
                let series = match self.dice.below(3) {
                    0 => doc! {"collMod": "series", "timeseries": {"granularity": "minutes"}},
                    1 => doc! {"collMod": "series", "expireAfterSeconds": 86_400},
                    _ => doc! {"createIndexes": "series", "indexes": [
                        {"key": {"v": 1}, "name": "by_v"},
                    ]},
                };
                let _ = self.database.run_command(series).await;
                "series"
            }
            4 => {
                let n = self.dice.number(5);
                let change =
                    doc! {"collMod": "seen", "viewOn": "many", "pipeline": [{"$match": {"n": n}}]};
                self.database.run_command(change).await.unwrap();
                "view"
            }
            _ => {
                let view = doc! {"create": "brief_view", "viewOn": "c1", "pipeline": []};
                if self.database.run_command(view).await.is_err() {
                    self.database
                        .collection::<Document>("brief_view")
                        .drop()
                        .await
                        .unwrap();
                }
                "view"
            }
        }
    }
}

/// Documents with every type, and with keys that mean something elsewhere.
fn odd_documents() -> Vec<Document> {
    let ids = [
        Bson::Int32(1),
        Bson::Double(2.5),
        Bson::String("text".into()),
        Bson::Null,
        Bson::Boolean(true),
        Bson::ObjectId(bson::oid::ObjectId::from_bytes([7; 12])),
        Bson::DateTime(bson::DateTime::from_millis(5)),
        Bson::Document(doc! {"x": 1}),
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Decimal128("1.50".parse().unwrap()),
    ];
    let documents = ids.into_iter().map(|id| {
        doc! {
            "_id": id, "oid": {"$oid": "no oid"}, "nan": f64::NAN, "minus": -0.0,
            "empty": "", "": "empty",
            "at": Bson::Timestamp(bson::Timestamp { time: 1, increment: 0 }),
            "symbol": Bson::Symbol("s".into()), "undefined": Bson::Undefined,
        }
    });
    documents.collect()
}
