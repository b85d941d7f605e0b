//! Whatever MongoDB holds is shown: documents that no client of ours would send, stored as they are
//! by the driver, through each way to read.

use std::time::{SystemTime, UNIX_EPOCH};

use bson::spec::ElementType;
use bson::{Bson, RawBsonRef, RawDocument, RawDocumentBuf, doc};
use mongodb::Client;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use crate::support::answers::Dice;
use crate::support::http::Http;
use crate::support::{Cluster, setting};

/// How many documents are drawn.
const DOCUMENTS: i32 = 10_000;
/// How many are read at once.
const PAGE: usize = 1_000;
/// Keys that mean something to a reader of Extended JSON, to MongoDB or to nobody.
const KEYS: [&str; 34] = [
    "",
    "a",
    "b",
    "a.b",
    ".",
    "$",
    "$$ROOT",
    "$oid",
    "$date",
    "$scope",
    "$code",
    "$numberInt",
    "$numberLong",
    "$numberDouble",
    "$numberDecimal",
    "$binary",
    "$type",
    "$uuid",
    "$timestamp",
    "$regularExpression",
    "$regex",
    "$options",
    "$minKey",
    "$maxKey",
    "$undefined",
    "$symbol",
    "$dbPointer",
    "$ref",
    "$id",
    "$db",
    "a (2)",
    "__proto__",
    "ü\u{202e}",
    "\n\"\\",
];
const TEXTS: [&str; 8] = [
    "",
    "1",
    "x",
    "5f9f1b9b9b9b9b9b9b9b9b9b",
    "2024-01-01T00:00:00Z",
    "\0",
    "\u{7f}\u{1b}[2J",
    "NaN",
];

/// Writes BSON without any of the checks of a library.
struct Writer<'d>(&'d mut Dice);

impl Writer<'_> {
    fn document(&mut self, first: &[u8], depth: usize) -> Vec<u8> {
        let mut elements = first.to_vec();
        for _ in 0..self.0.below(5) {
            let key = self.0.of(&KEYS);
            let (kind, value) = self.value(depth);
            elements.push(kind);
            elements.extend(key.as_bytes());
            elements.push(0);
            elements.extend(value);
        }
        framed(&elements)
    }

    fn text(&mut self) -> Vec<u8> {
        let text = self.0.of(&TEXTS).as_bytes();
        let length = i32::try_from(text.len() + 1).unwrap();
        [&length.to_le_bytes(), text, &[0]].concat()
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let odd = [0, 1, 0x7f, 0x80, 0xff];
        std::array::from_fn(|_| self.0.of(&odd))
    }

    fn value(&mut self, depth: usize) -> (u8, Vec<u8>) {
        let inner = if depth == 0 { 0 } else { 4 };
        match self.0.below(18 + inner) {
            0 => (0x01, self.bytes::<8>().to_vec()),
            1 => (
                0x01,
                self.0
                    .of(&[f64::NAN, -0.0, 1e300, f64::INFINITY])
                    .to_le_bytes()
                    .to_vec(),
            ),
            2 => (0x02, self.text()),
            3 => (0x05, self.binary()),
            4 => (0x06, Vec::new()),
            5 => (0x07, self.bytes::<12>().to_vec()),
            6 => (0x08, vec![u8::from(self.0.below(2) == 0)]),
            7 => (0x09, self.bytes::<8>().to_vec()),
            8 => (0x0a, Vec::new()),
            9 => (
                0x0b,
                self.0
                    .of(&[b"a\0i\0".as_slice(), b"\0\0", b"(\0xyz\0", b"/\0\xc3\xbc\0"])
                    .to_vec(),
            ),
            10 => (0x0c, [self.text(), self.bytes::<12>().to_vec()].concat()),
            11 => (0x0d, self.text()),
            12 => (0x0e, self.text()),
            13 => (0x10, self.bytes::<4>().to_vec()),
            14 => (0x11, self.bytes::<8>().to_vec()),
            15 => (0x12, self.bytes::<8>().to_vec()),
            16 => (0x13, self.bytes::<16>().to_vec()),
            17 => (self.0.of(&[0xff, 0x7f]), Vec::new()),
            18 | 19 => (0x03, self.document(&[], depth - 1)),
            20 => (0x04, self.array(depth - 1)),
            _ => (0x0f, self.code_with_scope(depth - 1)),
        }
    }

    fn binary(&mut self) -> Vec<u8> {
        let subtype = self.0.of(&[0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9, 0x80, 0xff]);
        let data = match self.0.below(5) {
            0 => Vec::new(),
            1 => vec![7; 16],
            2 => vec![3, 0, 0, 0, 1, 2, 3],
            3 => vec![9, 0, 0, 0, 1],
            _ => self.bytes::<5>().to_vec(),
        };
        let length = i32::try_from(data.len()).unwrap();
        [&length.to_le_bytes(), [subtype].as_slice(), &data].concat()
    }

    fn array(&mut self, depth: usize) -> Vec<u8> {
        let mut elements = Vec::new();
        for number in 0..self.0.below(4) {
            let (kind, value) = self.value(depth);
            elements.push(kind);
            elements.extend(number.to_string().as_bytes());
            elements.push(0);
            elements.extend(value);
        }
        framed(&elements)
    }

    fn code_with_scope(&mut self, depth: usize) -> Vec<u8> {
        let rest = [self.text(), self.document(&[], depth)].concat();
        let length = i32::try_from(rest.len() + 4).unwrap();
        [&length.to_le_bytes(), rest.as_slice()].concat()
    }
}

fn framed(elements: &[u8]) -> Vec<u8> {
    let length = i32::try_from(elements.len() + 5).unwrap();
    [&length.to_le_bytes(), elements, &[0]].concat()
}

/// The document with this `_id`; the last one nests as deep as MongoDB takes it.
fn drawn(number: i32, dice: &mut Dice) -> RawDocumentBuf {
    let id = [b"\x10_id\0".as_slice(), &number.to_le_bytes()].concat();
    let depth = dice.below(4);
    let bytes = Writer(dice).document(&id, depth);
    RawDocumentBuf::from_bytes(bytes).unwrap()
}

/// The canonical form of a document, by docs/data-api.md.
fn canonical(stored: &RawDocument) -> Value {
    let mut shown = Map::new();
    for (key, value) in values(stored) {
        let taken = |name: &str| shown.contains_key(name);
        let mut names = (2..).map(|number| format!("{key} ({number})"));
        let name = match taken(&key) {
            true => names.find(|name| !taken(name)).unwrap(),
            false => key,
        };
        shown.insert(name, value);
    }
    Value::Object(shown)
}

fn values(stored: &RawDocument) -> Vec<(String, Value)> {
    let mut at = 4;
    let elements = stored.iter_elements().map(|element| {
        let element = element.unwrap();
        let key = element.key().as_str().to_owned();
        let begin = at + 1 + key.len() + 1;
        at = begin + element.size();
        let value = match element.value() {
            Ok(RawBsonRef::Document(inner)) => canonical(inner),
            Ok(RawBsonRef::Array(inner)) => {
                values(RawDocument::from_bytes(inner.as_bytes()).unwrap())
                    .into_iter()
                    .map(|(_, value)| value)
                    .collect()
            }
            Ok(RawBsonRef::JavaScriptCodeWithScope(code)) => {
                json!({"$code": code.code, "$scope": canonical(code.scope)})
            }
            Ok(RawBsonRef::Double(number)) if number.is_nan() => json!({"$numberDouble": "NaN"}),
            // The shortest text that reads back as the same.
            Ok(RawBsonRef::Double(number)) if number.is_finite() => {
                json!({"$numberDouble": format!("{number:?}")})
            }
            Ok(value) => Bson::try_from(value).unwrap().into_canonical_extjson(),
            Err(_) => {
                assert_eq!(element.element_type(), ElementType::Binary);
                let bytes = stored.as_bytes()[begin + 5..at].to_vec();
                let subtype = bson::spec::BinarySubtype::BinaryOld;
                Bson::Binary(bson::Binary { subtype, bytes }).into_canonical_extjson()
            }
        };
        (key, value)
    });
    elements.collect()
}

/// All that MongoDB has taken, in the order of their ids.
async fn all_stored(collection: &mongodb::Collection<RawDocumentBuf>) -> Vec<RawDocumentBuf> {
    let mut found = collection
        .find(doc! {})
        .sort(doc! {"_id": 1})
        .await
        .unwrap();
    let mut all = Vec::new();
    while found.advance().await.unwrap() {
        all.push(found.current().to_owned());
    }
    all
}

#[test]
fn whatever_is_stored_is_shown_by_each_way_to_read_it() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = setting("DRUMLINE_SEED", u64::try_from(now.as_millis()).unwrap());
    println!("DRUMLINE_SEED={seed}");
    let cluster = Cluster::shared();
    let sandbox = cluster.sandbox();
    Runtime::new().unwrap().block_on(async {
        let driver = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        let database = driver.database("odd");
        let collection = database.collection::<RawDocumentBuf>("all");
        let mut dice = Dice(seed);
        let mut drawn: Vec<_> = (0..DOCUMENTS)
            .map(|number| drawn(number, &mut dice))
            .collect();
        for depth in [90, 120, 150, 170, 178] {
            let inner = (0..depth).fold(doc! {"end": 1_i64}, |inner, _| doc! {"d": inner});
            let deep = doc! {"_id": DOCUMENTS + depth, "d": inner};
            drawn.push(RawDocumentBuf::try_from(&deep).unwrap());
        }
        for page in drawn.chunks(PAGE) {
            // MongoDB takes most of them, and says of the others that they are no BSON.
            let _ = collection.insert_many(page).ordered(false).await;
        }
        let stored = all_stored(&collection).await;
        println!("{} of {} documents are stored", stored.len(), drawn.len());
        assert!(stored.len() > drawn.len() * 9 / 10);

        let http = Http::to(cluster);
        let place = |fields: Value| {
            let mut body = json!({"database": "odd", "collection": "all"});
            body.as_object_mut()
                .unwrap()
                .extend(fields.as_object().unwrap().clone());
            body
        };
        for (number, page) in stored.chunks(PAGE).enumerate() {
            let skip = number * PAGE;
            let expected: Vec<_> = page.iter().map(|one| canonical(one)).collect();
            let by_id = json!({"_id": 1});
            let find = place(json!({"sort": by_id, "skip": skip, "limit": PAGE}));
            let found = http.act("find", &find).await.expect(200);
            same(&read(&found.text)["documents"], &expected);
            let pipeline = json!([{"$sort": by_id}, {"$skip": skip}, {"$limit": PAGE}]);
            let found = http
                .act("aggregate", &place(json!({"pipeline": pipeline})))
                .await;
            same(&read(&found.expect(200).text)["documents"], &expected);
            let plain = [("accept", "application/json")];
            let found = http.act_with("find", &plain, &find).await.expect(200);
            assert_eq!(
                read(&found.text)["documents"].as_array().unwrap().len(),
                page.len()
            );
            for one in [page.first().unwrap(), page.last().unwrap()] {
                let id = one.get_i32("_id").unwrap();
                let filter = place(json!({"filter": {"_id": id}}));
                let found = http.act("findOne", &filter).await.expect(200);
                same(&read(&found.text)["document"], &[canonical(one)]);
            }
            let (skip, limit) = (skip.to_string(), PAGE.to_string());
            for format in ["table", "json", "jsonl"] {
                let arguments = [
                    "find",
                    "odd.all",
                    "--sort",
                    r#"{"_id": 1}"#,
                    "--skip",
                    &skip,
                ];
                let arguments = [&arguments[..], &["--limit", &limit, "-o", format]].concat();
                let shown = sandbox.ok(&arguments).stdout;
                assert!(!shown.is_empty());
                if format == "jsonl" {
                    assert_eq!(shown.lines().count(), page.len());
                }
            }
        }
        let deepest = stored.last().unwrap().get_i32("_id").unwrap().to_string();
        println!("the deepest is {deepest}");
        sandbox.ok(&["get", "odd.all", &deepest]);
        // Without a server too.
        let file = sandbox.path("odd-uri");
        std::fs::write(&file, &cluster.info.mongodb_uri).unwrap();
        let file = file.to_str().unwrap();
        let limit = PAGE.to_string();
        let arguments = ["find", "odd.all", "--limit", &limit, "-o", "jsonl"];
        let arguments = [&arguments[..], &["--mongodb-file", file]].concat();
        let shown = sandbox.ok(&arguments).stdout;
        assert_eq!(shown.lines().count(), PAGE);
    });
}

/// JSON of any depth.
fn read(text: &str) -> Value {
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.disable_recursion_limit();
    serde::Deserialize::deserialize(&mut reader).unwrap()
}

#[track_caller]
fn same(found: &Value, expected: &[Value]) {
    let found = match found {
        Value::Array(found) => found.as_slice(),
        one => std::slice::from_ref(one),
    };
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
}

#[test]
fn a_document_that_cannot_be_shown_is_named_and_nobody_is_told_to_try_again() {
    let cluster = Cluster::shared();
    Runtime::new().unwrap().block_on(async {
        let driver = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        let collection = driver.database("odd").collection::<RawDocumentBuf>("text");
        let element = b"\x10_id\0\x07\0\0\0\x02s\0\x03\0\0\0\xff\xfe\0\x10n\0\x01\0\0\0";
        let broken = RawDocumentBuf::from_bytes(framed(element)).unwrap();
        collection.insert_one(broken).await.unwrap();
        let http = Http::to(cluster);
        let place = json!({"database": "odd", "collection": "text"});
        let mut pipeline = place.clone();
        pipeline["pipeline"] = json!([]);
        for (action, body) in [
            ("findOne", &place),
            ("find", &place),
            ("aggregate", &pipeline),
        ] {
            let reply = http.act(action, body).await.expect(400);
            let told = reply.json();
            assert_eq!(told["error_code"], "UnreadableDocument", "{told}");
            assert!(
                told["error"].as_str().unwrap().contains("the _id 7"),
                "{told}"
            );
            assert!(!reply.text.contains("try again"), "{told}");
        }
        let outcome = cluster.sandbox().run(&["find", "odd.text"]);
        assert_eq!(outcome.status, 1, "{outcome:?}");
        assert!(outcome.stderr.contains("the _id 7"), "{outcome:?}");
        assert!(!outcome.stderr.contains("try again"), "{outcome:?}");
        // What can be shown of it is.
        let mut rest = place.clone();
        rest["projection"] = json!({"s": 0});
        let shown = http.act("findOne", &rest).await.expect(200).json();
        assert_eq!(shown["document"]["n"]["$numberInt"], "1");
    });
}
