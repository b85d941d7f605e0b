//! BSON to JSON text, through serde and without a tree in between.

use std::fmt::Display;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use bson::{Bson, Document};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

/// How JSON is written. Replies are plain or canonical.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// JSON as the Data API wrote it: easy to use, and some types are lost.
    #[default]
    Plain,
    /// Canonical Extended JSON: every type is kept.
    Canonical,
    /// Every type is kept too, in few characters: a number stands bare where [`super::object`] gives
    /// it its type. So a request is about as long as what the user wrote, and so are its bounds.
    Short,
}

/// A BSON value that serializes as JSON in a format.
#[derive(Debug, Clone, Copy)]
pub struct Json<'a>(pub &'a Bson, pub Format);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(value, format) = *self;
        match value {
            Bson::Document(document) => Fields(document, format).serialize(to),
            Bson::Array(values) => to.collect_seq(values.iter().map(|value| Self(value, format))),
            Bson::String(text) => to.serialize_str(text),
            Bson::Boolean(value) => to.serialize_bool(*value),
            Bson::Null => to.serialize_unit(),
            _ => match format {
                Format::Plain => plain(value, to),
                Format::Canonical => canonical(value, to),
                Format::Short => short(value, to),
            },
        }
    }
}

/// A document that serializes as a JSON object in a format.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(pub &'a Document, pub Format);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(document, format) = *self;
        to.collect_map(
            document
                .iter()
                .map(|(key, value)| (key, Json(value, format))),
        )
    }
}

fn canonical<S: Serializer>(value: &Bson, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Bson::Int32(number) => one(to, "$numberInt", Text(number)),
        Bson::Int64(number) => one(to, "$numberLong", Text(number)),
        Bson::Double(number) => one(to, "$numberDouble", Text(Double(*number))),
        Bson::Decimal128(number) => one(to, "$numberDecimal", Text(number)),
        Bson::ObjectId(id) => one(to, "$oid", Text(id)),
        Bson::DateTime(date) => one(to, "$date", NumberLong(date.timestamp_millis())),
        Bson::Binary(binary) => {
            let base64 = Text(Base64Display::new(&binary.bytes, &STANDARD));
            let subtype = format!("{:02x}", u8::from(binary.subtype));
            one(
                to,
                "$binary",
                Pair(("base64", base64), ("subType", subtype)),
            )
        }
        Bson::Timestamp(at) => {
            let parts = Pair(("t", at.time), ("i", at.increment));
            one(to, "$timestamp", parts)
        }
        Bson::RegularExpression(regex) => {
            let (pattern, options) = (regex.pattern.as_str(), regex.options.as_str());
            let parts = Pair(("pattern", pattern), ("options", options));
            one(to, "$regularExpression", parts)
        }
        Bson::JavaScriptCode(code) => one(to, "$code", code),
        Bson::JavaScriptCodeWithScope(code) => {
            let scope = Fields(&code.scope, Format::Canonical);
            Pair(("$code", &code.code), ("$scope", scope)).serialize(to)
        }
        Bson::Symbol(text) => one(to, "$symbol", text),
        Bson::Undefined => one(to, "$undefined", true),
        Bson::MinKey => one(to, "$minKey", 1),
        Bson::MaxKey => one(to, "$maxKey", 1),
        // The crate shows what is in its `DbPointer` in no other way.
        Bson::DbPointer(_) => value.clone().into_canonical_extjson().serialize(to),
        Bson::String(_) | Bson::Array(_) | Bson::Document(_) | Bson::Boolean(_) | Bson::Null => {
            Json(value, Format::Canonical).serialize(to)
        }
    }
}

fn short<S: Serializer>(value: &Bson, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Bson::Int32(number) => to.serialize_i32(*number),
        Bson::Int64(number) if i32::try_from(*number).is_err() => to.serialize_i64(*number),
        // The text of a double has a point or an exponent.
        Bson::Double(number) if number.is_finite() => to.serialize_f64(*number),
        Bson::DateTime(date) => one(to, "$date", date.timestamp_millis()),
        _ => canonical(value, to),
    }
}

/// The names are those that the Data API's own implementation gave the parts.
fn plain<S: Serializer>(value: &Bson, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Bson::Int32(number) => to.serialize_i32(*number),
        Bson::Int64(number) => to.serialize_i64(*number),
        Bson::Double(number) if number.is_finite() => to.serialize_f64(*number),
        // JSON has no such numbers, and null would say that there is nothing.
        Bson::Double(number) => to.collect_str(&Double(*number)),
        Bson::Decimal128(number) => to.collect_str(number),
        Bson::ObjectId(id) => to.collect_str(id),
        Bson::DateTime(date) => match date.try_to_rfc3339_string() {
            Ok(text) if has_iso_form(date.timestamp_millis()) => to.serialize_str(&text),
            _ => canonical(value, to),
        },
        Bson::Binary(binary) => {
            let data = Text(Base64Display::new(&binary.bytes, &STANDARD));
            Pair(("Subtype", u8::from(binary.subtype)), ("Data", data)).serialize(to)
        }
        Bson::Timestamp(at) => Pair(("T", at.time), ("I", at.increment)).serialize(to),
        Bson::RegularExpression(regex) => {
            let (pattern, options) = (regex.pattern.as_str(), regex.options.as_str());
            Pair(("Pattern", pattern), ("Options", options)).serialize(to)
        }
        Bson::JavaScriptCode(text) | Bson::Symbol(text) => to.serialize_str(text),
        Bson::JavaScriptCodeWithScope(code) => {
            let scope = Fields(&code.scope, Format::Plain);
            Pair(("Code", &code.code), ("Scope", scope)).serialize(to)
        }
        Bson::MinKey | Bson::MaxKey | Bson::Undefined => to.serialize_map(Some(0))?.end(),
        Bson::DbPointer(_) => {
            let pointer = value.clone().into_canonical_extjson();
            let part = |path| pointer.pointer(path).and_then(serde_json::Value::as_str);
            let (namespace, id) = (part("/$dbPointer/$ref"), part("/$dbPointer/$id/$oid"));
            Pair(("DB", namespace), ("Pointer", id)).serialize(to)
        }
        Bson::String(_) | Bson::Array(_) | Bson::Document(_) | Bson::Boolean(_) | Bson::Null => {
            Json(value, Format::Plain).serialize(to)
        }
    }
}

/// ISO 8601 without agreement between the parties ends with the years 0000 and 9999.
fn has_iso_form(millis: i64) -> bool {
    const YEAR_0: i64 = -62_167_219_200_000;
    const YEAR_10000: i64 = 253_402_300_800_000;
    (YEAR_0..YEAR_10000).contains(&millis)
}

fn one<S: Serializer>(to: S, key: &str, value: impl Serialize) -> Result<S::Ok, S::Error> {
    to.collect_map([(key, value)])
}

/// An object of two keys.
struct Pair<A, B>((&'static str, A), (&'static str, B));

impl<A: Serialize, B: Serialize> Serialize for Pair<A, B> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(2))?;
        map.serialize_entry(self.0.0, &self.0.1)?;
        map.serialize_entry(self.1.0, &self.1.1)?;
        map.end()
    }
}

/// Anything that can be shown, as a JSON string.
struct Text<T>(T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

struct NumberLong(i64);

impl Serialize for NumberLong {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        one(to, "$numberLong", Text(self.0))
    }
}

/// The text of a double: the shortest that reads back as the same, with a point or an exponent.
struct Double(f64);

impl Display for Double {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            number if number.is_nan() => f.write_str("NaN"),
            f64::INFINITY => f.write_str("Infinity"),
            f64::NEG_INFINITY => f.write_str("-Infinity"),
            number => write!(f, "{number:?}"),
        }
    }
}
