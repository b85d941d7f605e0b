//! All of BSON, through canonical Extended JSON and back.

use bson::oid::ObjectId;
use bson::raw::cstr;
use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, RawDocumentBuf, Regex,
    Timestamp, doc,
};
use mongodb::Client;
use serde_json::json;
use tokio::runtime::Runtime;

use crate::support::Cluster;
use crate::support::http::Http;

fn binary(subtype: BinarySubtype) -> Bson {
    Bson::Binary(Binary {
        subtype,
        bytes: (0..16).collect(),
    })
}

/// Each BSON type, with its extremes.
fn everything() -> Document {
    let deep = (0..60).fold(doc! {"end": 1}, |inner, _| doc! {"d": inner});
    let code = "function() { return 1; }";
    let mut whole = doc! {
        "_id": ObjectId::new(),
        "double": [0.0, -0.0, 1.0, 0.1, 1e300, f64::MIN_POSITIVE, 5e-324, f64::INFINITY, f64::NEG_INFINITY, f64::NAN],
        "string": ["", "plain", "ü 漢 🥁", "a\0b", "\"\\/\u{8}\u{c}\n\r\t\u{7f}\u{2028}"],
        "document": {"": "an empty key", "a.b": 1, "nested": {"b": {}}},
        "array": [[], [[1], [2, "x"]], {"a": []}],
        "bool": [true, false],
        "null": Bson::Null,
        "int32": [i32::MIN, -1, 0, i32::MAX],
        "int64": [i64::MIN, -1_i64, 0_i64, i64::MAX, 1_i64 << 53],
        "date": [DateTime::MIN, DateTime::MAX, DateTime::from_millis(-1), DateTime::from_millis(0)],
        "objectId": ObjectId::from_bytes([0xff; 12]),
        "binary": [
            binary(BinarySubtype::Generic), binary(BinarySubtype::Function), binary(BinarySubtype::Uuid),
            binary(BinarySubtype::UuidOld), binary(BinarySubtype::Md5), binary(BinarySubtype::Encrypted),
            binary(BinarySubtype::UserDefined(0x80)), binary(BinarySubtype::UserDefined(0xff)),
        ],
        "regex": Regex { pattern: cstr!("^a/\\\"b$").into(), options: cstr!("imsx").into() },
        "code": Bson::JavaScriptCode(code.into()),
        "codeWithScope": JavaScriptCodeWithScope { code: code.into(), scope: doc! {"x": 1_i64} },
        "symbol": Bson::Symbol("old".into()),
        "timestamp": Timestamp { time: u32::MAX, increment: u32::MAX },
        "minKey": Bson::MinKey,
        "maxKey": Bson::MaxKey,
        "undefined": Bson::Undefined,
        "deep": deep,
    };
    let decimals = [
        "0",
        "-0",
        "1E-6176",
        "9.999999999999999999999999999999999E+6144",
        "NaN",
        "-Infinity",
        "1.000",
    ];
    let decimals = decimals.map(|text| Bson::Decimal128(text.parse::<Decimal128>().unwrap()));
    whole.insert("decimal", decimals.to_vec());
    whole
}

fn bytes(document: &Document) -> Vec<u8> {
    document.to_vec().unwrap()
}

#[test]
fn every_bson_type_survives_the_way_in_and_the_way_out_byte_for_byte() {
    let cluster = Cluster::shared();
    Runtime::new().unwrap().block_on(async {
        let http = Http::to(cluster);
        let client = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        let expected = everything();
        let sent = Bson::Document(expected.clone()).into_canonical_extjson();
        let place = json!({"database": "types", "collection": "all"});
        let mut body = place.clone();
        body["document"] = sent;
        http.act("insertOne", &body).await.expect(201);

        let collection = client.database("types").collection::<RawDocumentBuf>("all");
        let raw = collection.find_one(doc! {}).await.unwrap().unwrap();
        let mut stored = Document::try_from(raw).unwrap();
        assert!(stored.remove("_stamp").is_some());
        for (field, value) in &expected {
            let one = |value: Option<&Bson>| bytes(&doc! {"v": value.cloned()});
            assert_eq!(one(stored.get(field)), one(Some(value)), "{field}");
        }
        assert_eq!(bytes(&stored), bytes(&expected));

        let reply = http.act("findOne", &place).await.expect(200);
        let mut found = reply.json()["document"].clone();
        assert!(found.as_object_mut().unwrap().remove("_stamp").is_some());
        let decoded: Document = Bson::try_from(found)
            .unwrap()
            .as_document()
            .unwrap()
            .clone();
        assert_eq!(bytes(&decoded), bytes(&expected));
        println!(
            "{} fields, {} bytes of BSON",
            expected.len(),
            bytes(&expected).len()
        );
    });
}
