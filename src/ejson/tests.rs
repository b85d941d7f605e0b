use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, Timestamp, doc};
use serde_json::json;

use super::{Fields, Format, object, reply, values};
use crate::model::limits::NESTING_DEPTH_MAX;

fn text(document: &Document, format: Format) -> String {
    serde_json::to_string(&Fields(document, format)).unwrap()
}

/// What the value of the one field `a` is in a JSON text.
#[track_caller]
fn read(value: &str) -> Bson {
    let json = format!("{{\"a\":{value}}}");
    let mut document = object(json.as_bytes()).unwrap_or_else(|why| panic!("{value}: {why}"));
    document.remove("a").unwrap()
}

#[track_caller]
fn assert_refused(json: &str, fragment: &str) {
    let why = object(json.as_bytes()).expect_err(json);
    assert!(why.contains(fragment), "{json}: {why:?} lacks {fragment:?}");
}

fn plain(value: impl Into<Bson>) -> String {
    let text = text(&doc! {"a": value.into()}, Format::Plain);
    text.strip_prefix("{\"a\":")
        .and_then(|text| text.strip_suffix('}'))
        .unwrap()
        .to_owned()
}

fn canonical(value: impl Into<Bson>) -> String {
    let text = text(&doc! {"a": value.into()}, Format::Canonical);
    text.strip_prefix("{\"a\":")
        .and_then(|text| text.strip_suffix('}'))
        .unwrap()
        .to_owned()
}

fn db_pointer() -> Bson {
    let id = json!({"$oid": "0102030405060708090a0b0c"});
    Bson::try_from(json!({"$dbPointer": {"$ref": "shop.orders", "$id": id}})).unwrap()
}

/// Every type, and of each the values at its edges.
fn all_of_bson() -> Document {
    let mut values = vec![
        Bson::Null,
        Bson::Boolean(true),
        Bson::String(String::new()),
        Bson::String("ü \u{1F980} \" \\ \u{0} \u{7f} \u{2028}".into()),
        Bson::ObjectId(ObjectId::from_bytes([0xff; 12])),
        Bson::Symbol("s\0".into()),
        Bson::JavaScriptCode("return 1".into()),
        Bson::Undefined,
        Bson::MinKey,
        Bson::MaxKey,
        db_pointer(),
        Bson::Document(doc! {}),
        Bson::Array(vec![]),
        Bson::Array(vec![
            Bson::Array(vec![Bson::Null]),
            Bson::Document(doc! {"": 1}),
        ]),
        Bson::Document(
            doc! {"$gt": 5, "$ref": "x", "$id": 1, "a.b": 1, "$regex": "x", "$options": ""},
        ),
    ];
    values.extend([0, 1, -1, i32::MIN, i32::MAX].map(Bson::Int32));
    values.extend([0, 1, i64::MIN, i64::MAX, 1 << 53, i64::from(i32::MAX) + 1].map(Bson::Int64));
    values.extend(
        [
            0.0,
            -0.0,
            1.0,
            -1.5,
            0.1,
            1e16,
            1e300,
            -1e-300,
            5e-324,
            2.2250738585072014e-308,
            f64::MAX,
            f64::MIN,
            f64::EPSILON,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            9_007_199_254_740_993.0,
            0.300_000_000_000_000_04,
        ]
        .map(Bson::Double),
    );
    values.extend(
        [
            0,
            1,
            -1,
            999,
            i64::MIN,
            i64::MAX,
            -62_167_219_200_001,
            253_402_300_800_000,
        ]
        .map(|millis| Bson::DateTime(DateTime::from_millis(millis))),
    );
    values.extend(
        [
            "0",
            "-0",
            "0E+3",
            "0.00",
            "1",
            "-1.50",
            "1E+6144",
            "9.999999999999999999999999999999999E+6144",
            "1E-6176",
            "0E-6176",
            "0E+6111",
            "1.000000000000000000000000000000000E+6144",
            "NaN",
            "Infinity",
            "-Infinity",
            "1234567890123456789012345678901234",
            "0.000001",
            "1E-7",
        ]
        .map(|text| Bson::Decimal128(text.parse().unwrap())),
    );
    values.extend((0..=255_u8).map(|subtype| {
        let bytes = vec![subtype; usize::from(subtype % 18)];
        let subtype = BinarySubtype::from(subtype);
        Bson::Binary(Binary { subtype, bytes })
    }));
    values.extend(
        [(0, 0), (u32::MAX, u32::MAX), (1, 2)]
            .map(|(time, increment)| Bson::Timestamp(Timestamp { time, increment })),
    );
    values.extend(
        [("", ""), ("^a/\"b\\d$", "imsx"), ("ü", "i")].map(|(pattern, options)| {
            Bson::RegularExpression(bson::Regex {
                pattern: pattern.try_into().unwrap(),
                options: options.try_into().unwrap(),
            })
        }),
    );
    values.push(Bson::JavaScriptCodeWithScope(
        bson::JavaScriptCodeWithScope {
            code: "x".into(),
            scope: doc! {"x": 1_i64, "y": {"$z": db_pointer()}},
        },
    ));
    let named = |(index, value)| (format!("v{index}"), value);
    values.into_iter().enumerate().map(named).collect()
}

#[test]
fn all_of_bson_survives_the_canonical_form_byte_for_byte() {
    let before = all_of_bson();
    let json = text(&before, Format::Canonical);
    let after = object(json.as_bytes()).unwrap();
    for (key, value) in &before {
        let (value, found) = (doc! {"": value}, doc! {"": after.get(key).unwrap()});
        assert_eq!(
            value.to_vec().unwrap(),
            found.to_vec().unwrap(),
            "{key}: {value}"
        );
    }
    assert_eq!(before.to_vec().unwrap(), after.to_vec().unwrap());
    let shown = reply(json.as_bytes()).unwrap();
    assert_eq!(before.to_vec().unwrap(), shown.to_vec().unwrap());
}

#[test]
fn the_short_form_keeps_every_type_too() {
    let before = all_of_bson();
    let short = text(&before, Format::Short);
    let after = object(short.as_bytes()).unwrap();
    assert_eq!(before.to_vec().unwrap(), after.to_vec().unwrap());
    assert!(short.len() < text(&before, Format::Canonical).len());
    let numbers = doc! {"a": 1, "b": -2.0, "c": 5_000_000_000_i64, "d": 1_i64};
    assert_eq!(
        text(&numbers, Format::Short),
        r#"{"a":1,"b":-2.0,"c":5000000000,"d":{"$numberLong":"1"}}"#
    );
}

#[test]
fn old_forms_are_read() {
    let bytes = |subtype: u8| {
        let subtype = BinarySubtype::from(subtype);
        Bson::Binary(Binary {
            subtype,
            bytes: vec![1, 2],
        })
    };
    for (subtype, expected) in [
        (r#""00""#, 0),
        (r#""0""#, 0),
        (r#""04""#, 4),
        (r#""80""#, 0x80),
        (r#""fF""#, 0xff),
        ("0", 0),
        ("128", 0x80),
    ] {
        let value = format!(r#"{{"$binary":"AQI=","$type":{subtype}}}"#);
        assert_eq!(read(&value), bytes(expected), "{value}");
        let turned = format!(r#"{{"$type":{subtype},"$binary":"AQI="}}"#);
        assert_eq!(read(&turned), bytes(expected), "{turned}");
    }
    let at = |millis| Bson::from(DateTime::from_millis(millis));
    assert_eq!(
        read(r#"{"$date":"2021-12-03T18:15:10.5+0200"}"#),
        at(1_638_548_110_500)
    );
    assert_eq!(read(r#"{"$date":1638548110500.0}"#), at(1_638_548_110_500));
    assert_eq!(
        read(r#"{"$date":{"$numberDouble":"1638548110500"}}"#),
        at(1_638_548_110_500)
    );
    // An operator of queries stays one.
    assert_eq!(
        read(r#"{"$type":"string"}"#),
        Bson::Document(doc! {"$type": "string"})
    );
}

#[test]
fn what_a_server_shows_is_read_whatever_it_looks_like() {
    let document = reply(br#"{"a":{"$oid":"x"},"b":{"$scope":{}},"c":{"$date":1.5,"d":1}}"#);
    let expected = doc! {"a": {"$oid": "x"}, "b": {"$scope": {}}, "c": {"$date": 1.5, "d": 1}};
    assert_eq!(document, Ok(expected));
}

#[test]
fn values_stand_one_after_the_other() {
    let items = values(b"\xef\xbb\xbf{\"a\":1}\n\n {\"a\":2} [3]\n4").unwrap();
    let lines: Vec<_> = items.iter().map(|item| item.line).collect();
    assert_eq!(lines, [1, 3, 3, 4]);
    assert_eq!(items[1].value, Bson::Document(doc! {"a": 2}));
    assert_eq!(values(b" ").unwrap(), []);
    for (text, what, at) in [
        ("{\"a\":1,\"a\":2}", "a is there twice", (1, 1)),
        ("\n[{\"a\":{\"$oid\":5}}]", "0.a: $oid takes", (2, 2)),
        ("{\"$oid\":5}", "$oid takes", (1, 1)),
        ("{\"a\":1}\n{\"a\":\n{\"a\":3}\n", "EOF", (4, 2)),
        ("1\n12345678901234567891", "would be rounded", (2, 2)),
    ] {
        let fault = values(text.as_bytes()).unwrap_err();
        assert!(
            fault.what.starts_with(what) || fault.what.contains(what),
            "{fault:?}"
        );
        assert_eq!((fault.line, fault.begins), at, "{text}: {fault:?}");
    }
}

#[test]
fn an_integer_that_would_be_rounded_is_refused() {
    assert_refused(
        r#"{"a":{"_id":12345678901234567891}}"#,
        "12345678901234567891 is beyond 64 bits and would be rounded",
    );
    assert_eq!(
        read("18446744073709552000"),
        Bson::Double(18_446_744_073_709_551_616.0)
    );
}

#[test]
fn plain_output_is_json_for_all_of_bson() {
    let json = text(&all_of_bson(), Format::Plain);
    serde_json::from_str::<serde_json::Value>(&json).unwrap();
}

#[test]
fn numbers_keep_their_type_on_the_way_in() {
    assert_eq!(read("1"), Bson::Int32(1));
    assert_eq!(read("2147483647"), Bson::Int32(i32::MAX));
    assert_eq!(read("2147483648"), Bson::Int64(2_147_483_648));
    assert_eq!(read("-2147483649"), Bson::Int64(-2_147_483_649));
    assert_eq!(read("9223372036854775807"), Bson::Int64(i64::MAX));
    assert_eq!(
        read("9223372036854775808"),
        Bson::Double(9_223_372_036_854_775_808.0)
    );
    assert_eq!(
        read("18446744073709551616"),
        Bson::Double(18_446_744_073_709_551_616.0)
    );
    assert_eq!(read("1.0"), Bson::Double(1.0));
    assert_eq!(read("1e2"), Bson::Double(100.0));
    // The nearest double, not one beside it.
    assert_eq!(
        read("0.30000000000000004"),
        Bson::Double(0.300_000_000_000_000_04)
    );
    assert_eq!(
        read("2.638344616030823e-256"),
        Bson::Double(2.638_344_616_030_823e-256)
    );
}

#[test]
fn relaxed_forms_are_read() {
    assert_eq!(
        read(r#"{"$date": "1970-01-01T00:00:00.001Z"}"#),
        DateTime::from_millis(1).into()
    );
    assert_eq!(
        read(r#"{"$date": "2024-02-29T12:00:00+02:00"}"#),
        DateTime::from_millis(1_709_200_800_000).into()
    );
    assert_eq!(read(r#"{"$date": 5}"#), DateTime::from_millis(5).into());
    assert_eq!(
        read(r#"{"$timestamp": {"t": 4294967295, "i": 1}}"#),
        Bson::Timestamp(Timestamp {
            time: u32::MAX,
            increment: 1
        })
    );
    let Bson::Binary(uuid) = read(r#"{"$uuid": "c8edabc3-f738-4ca3-b68d-ab92a91478a3"}"#) else {
        panic!("a UUID is binary")
    };
    assert_eq!(uuid.subtype, BinarySubtype::Uuid);
    let Bson::Binary(short) = read(r#"{"$binary": {"base64": "AQ==", "subType": "4"}}"#) else {
        panic!("one digit is a subtype")
    };
    assert_eq!((short.subtype, short.bytes), (BinarySubtype::Uuid, vec![1]));
    assert_eq!(
        canonical(read(
            r#"{"$regularExpression": {"pattern": "a", "options": "xi"}}"#
        )),
        r#"{"$regularExpression":{"pattern":"a","options":"ix"}}"#
    );
}

#[test]
fn plain_output_has_the_forms_of_the_data_api() {
    let oid = ObjectId::from_bytes([1; 12]);
    assert_eq!(plain(oid), format!("\"{}\"", "01".repeat(12)));
    assert_eq!(
        plain(DateTime::from_millis(1_500)),
        r#""1970-01-01T00:00:01.5Z""#
    );
    assert_eq!(
        plain(DateTime::from_millis(-62_167_219_200_000)),
        r#""0000-01-01T00:00:00Z""#
    );
    assert_eq!(
        plain(DateTime::from_millis(253_402_300_800_000)),
        r#"{"$date":{"$numberLong":"253402300800000"}}"#
    );
    assert_eq!(
        plain(Bson::Decimal128("1.50".parse().unwrap())),
        r#""1.50""#
    );
    assert_eq!(plain(i64::MAX), "9223372036854775807");
    assert_eq!(plain(1.5), "1.5");
    assert_eq!(plain(f64::NAN), r#""NaN""#);
    assert_eq!(plain(f64::NEG_INFINITY), r#""-Infinity""#);
    let binary = Binary {
        subtype: BinarySubtype::Uuid,
        bytes: vec![1, 2],
    };
    assert_eq!(plain(binary), r#"{"Subtype":4,"Data":"AQI="}"#);
    assert_eq!(
        plain(Timestamp {
            time: 1,
            increment: 2
        }),
        r#"{"T":1,"I":2}"#
    );
    assert_eq!(
        plain(read(
            r#"{"$regularExpression": {"pattern": "a", "options": "i"}}"#
        )),
        r#"{"Pattern":"a","Options":"i"}"#
    );
    assert_eq!(plain(Bson::MinKey), "{}");
    assert_eq!(plain(Bson::MaxKey), "{}");
    assert_eq!(plain(Bson::Symbol("s".into())), r#""s""#);
    assert_eq!(
        plain(db_pointer()),
        r#"{"DB":"shop.orders","Pointer":"0102030405060708090a0b0c"}"#
    );
}

#[test]
fn canonical_output_is_that_of_the_specification() {
    assert_eq!(canonical(1), r#"{"$numberInt":"1"}"#);
    assert_eq!(canonical(1_i64), r#"{"$numberLong":"1"}"#);
    assert_eq!(canonical(1.0), r#"{"$numberDouble":"1.0"}"#);
    assert_eq!(canonical(-0.0), r#"{"$numberDouble":"-0.0"}"#);
    assert_eq!(
        canonical(DateTime::from_millis(-1)),
        r#"{"$date":{"$numberLong":"-1"}}"#
    );
    let binary = Binary {
        subtype: BinarySubtype::Generic,
        bytes: vec![1, 2],
    };
    assert_eq!(
        canonical(binary),
        r#"{"$binary":{"base64":"AQI=","subType":"00"}}"#
    );
    assert_eq!(
        canonical(Timestamp {
            time: 1,
            increment: 2
        }),
        r#"{"$timestamp":{"t":1,"i":2}}"#
    );
    assert_eq!(canonical(Bson::MinKey), r#"{"$minKey":1}"#);
}

#[test]
fn bad_extended_json_is_refused_with_its_place() {
    for (value, fragment) in [
        (r#"{"$oid": "123"}"#, "a: $oid takes 24"),
        (r#"{"$oid": 5}"#, "$oid takes"),
        (
            r#"{"$oid": "0102030405060708090a0b0c", "x": 1}"#,
            "$oid stands alone",
        ),
        (r#"{"x": 1, "$numberInt": "1"}"#, "$numberInt stands alone"),
        (r#"{"$numberInt": "2147483648"}"#, "32-bit"),
        (r#"{"$numberInt": 5}"#, "32-bit"),
        (r#"{"$numberInt": "+5"}"#, "32-bit"),
        (r#"{"$numberInt": ""}"#, "32-bit"),
        (r#"{"$numberLong": "9223372036854775808"}"#, "64-bit"),
        (r#"{"$numberLong": "1.5"}"#, "64-bit"),
        (r#"{"$numberDouble": "1e999"}"#, "$numberDouble"),
        (r#"{"$numberDouble": "inf"}"#, "$numberDouble"),
        (r#"{"$numberDouble": ""}"#, "$numberDouble"),
        (r#"{"$numberDecimal": ""}"#, "$numberDecimal"),
        (r#"{"$numberDecimal": "."}"#, "$numberDecimal"),
        (r#"{"$numberDecimal": "++5"}"#, "$numberDecimal"),
        (r#"{"$numberDecimal": "1E6145"}"#, "$numberDecimal"),
        (
            r#"{"$numberDecimal": "1E-170141183460469231731687303715884105728"}"#,
            "$numberDecimal",
        ),
        (
            r#"{"$numberDecimal": "12345678901234567890123456789012345"}"#,
            "34 digits",
        ),
        (r#"{"$date": "yesterday"}"#, "ISO 8601"),
        (r#"{"$date": 1.5}"#, "ISO 8601"),
        (r#"{"$date": {"$numberLong": "x"}}"#, "64-bit"),
        (r#"{"$date": {}}"#, "ISO 8601"),
        (r#"{"$binary": "AQI="}"#, "base64"),
        (r#"{"$binary": "AQI=", "$type": "zz"}"#, "base64"),
        (r#"{"$binary": "AQI=", "$type": 256}"#, "base64"),
        (r#"{"$binary": "*", "$type": "00"}"#, "base64"),
        (r#"{"$binary": "AQI=", "$type": "00", "x": 1}"#, "alone"),
        (r#"{"$binary": {"base64": "*", "subType": "00"}}"#, "base64"),
        (
            r#"{"$binary": {"base64": "AQI=", "subType": "zz"}}"#,
            "subType",
        ),
        (
            r#"{"$binary": {"base64": "AQI=", "subType": "000"}}"#,
            "subType",
        ),
        (r#"{"$binary": {"base64": "AQI="}}"#, "subType"),
        (
            r#"{"$binary": {"base64": "AQI=", "subType": "00", "x": 1}}"#,
            "subType",
        ),
        (
            r#"{"$uuid": "c8edabc3f7384ca3b68dab92a91478a3"}"#,
            "36 characters",
        ),
        (r#"{"$timestamp": {"t": -1, "i": 1}}"#, "32 bits"),
        (r#"{"$timestamp": {"t": 4294967296, "i": 1}}"#, "32 bits"),
        (r#"{"$timestamp": 5}"#, "32 bits"),
        (
            r#"{"$regularExpression": {"pattern": "a\u0000", "options": ""}}"#,
            "null characters",
        ),
        (r#"{"$regularExpression": "a"}"#, "pattern"),
        (r#"{"$minKey": 2}"#, "$minKey takes 1"),
        (r#"{"$maxKey": "1"}"#, "$maxKey takes 1"),
        (r#"{"$undefined": false}"#, "true"),
        (r#"{"$symbol": 1}"#, "a string"),
        (r#"{"$code": 1}"#, "$code takes"),
        (r#"{"$code": "x", "$scope": 1}"#, "$scope"),
        (r#"{"$code": "x", "y": 1}"#, "stands alone"),
        (r#"{"$dbPointer": {"$ref": "a", "$id": "b"}}"#, "$dbPointer"),
    ] {
        assert_refused(&format!("{{\"a\":{value}}}"), fragment);
    }
    assert_refused(r#"{"a": {"b": [1, {"c": {"$oid": ""}}]}}"#, "a.b.1.c: $oid");
}

#[test]
fn keys_are_single_and_without_null() {
    assert_refused(r#"{"a": 1, "a": 2}"#, "a is there twice");
    assert_refused(
        r#"{"a": [{"b": {"c": 1, "c": 1}}]}"#,
        "a.0.b.c is there twice",
    );
    assert_refused(r#"{"a": {"b\u0000": 1}}"#, "null character");
}

#[test]
fn text_that_is_no_json_object_is_refused() {
    assert_eq!(object("\u{feff}{}".as_bytes()), Ok(doc! {}));
    for json in ["", "  \n", "\u{feff}"] {
        assert_refused(json, "the body is empty");
    }
    for json in [
        "{",
        "{\"a\":1",
        "{\"a\":1}}",
        "{a:1}",
        "{\"a\":1e999}",
        "{\"a\":\"\\ud800\"}",
        "\u{feff}\u{feff}{}",
    ] {
        assert_refused(json, "not valid JSON");
    }
    for json in ["[]", "1", "null", "\"x\""] {
        assert_refused(json, "a JSON object as the body");
    }
    assert!(object(b"{\"a\":\"\xff\"}").is_err());
}

#[test]
fn depth_is_bounded() {
    let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    assert!(object(nested(NESTING_DEPTH_MAX).as_bytes()).is_ok());
    assert_refused(&nested(NESTING_DEPTH_MAX + 2), "nests deeper");
    // A document is as deep as it is, alone, in a list of documents and as an argument.
    let document = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    for (levels, fits) in [(NESTING_DEPTH_MAX, true), (NESTING_DEPTH_MAX + 1, false)] {
        let document = document(levels);
        let one = format!("{{\"document\":{document}}}");
        let many = format!("{{\"documents\":[{document}]}}");
        assert_eq!(object(one.as_bytes()).is_ok(), fits, "one of {levels}");
        assert_eq!(object(many.as_bytes()).is_ok(), fits, "many of {levels}");
        assert_eq!(values(document.as_bytes()).is_ok(), fits, "{levels} alone");
        let list = format!("[{document}]");
        assert_eq!(values(list.as_bytes()).is_ok(), fits, "{levels} listed");
    }
    assert_refused(
        &format!("{{\"a\":{}", "{\"a\":".repeat(1_000_000)),
        "nests deeper",
    );
}
