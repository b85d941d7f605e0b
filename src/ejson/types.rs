//! The objects that stand for one BSON value, like `{"$oid": "..."}`.

use bson::oid::ObjectId;
use bson::raw::CString;
use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, Regex, Timestamp, Uuid,
};
use serde_json::json;

use super::date;

/// The keys that make an object an Extended JSON value, and what each takes.
const FORMS: [(&str, &str); 16] = [
    ("$oid", "24 hexadecimal digits in a string"),
    (
        "$date",
        r#"an ISO 8601 time with its offset, or {"$numberLong": milliseconds}"#,
    ),
    ("$numberInt", "a 32-bit integer in a string"),
    ("$numberLong", "a 64-bit integer in a string"),
    (
        "$numberDouble",
        "a number, Infinity, -Infinity or NaN in a string",
    ),
    (
        "$numberDecimal",
        "a decimal number of up to 34 digits, Infinity, -Infinity or NaN in a string",
    ),
    (
        "$binary",
        r#"{"base64": string, "subType": two hexadecimal digits in a string}, or base64 beside a $type"#,
    ),
    ("$uuid", "36 characters, 8-4-4-4-12 hexadecimal digits"),
    (
        "$timestamp",
        r#"{"t": seconds, "i": increment}, 32 bits each"#,
    ),
    (
        "$regularExpression",
        r#"{"pattern": string, "options": string} without null characters"#,
    ),
    ("$minKey", "1"),
    ("$maxKey", "1"),
    ("$undefined", "true"),
    ("$symbol", "a string"),
    (
        "$code",
        "a string, alone or beside a $scope that is an object",
    ),
    ("$dbPointer", r#"{"$ref": string, "$id": {"$oid": ...}}"#),
];

/// The value that an object whose values are read already stands for. `None` for one with none of
/// the keys of Extended JSON, which is a document: `{"$gt": 5}` is an operator, not a value.
pub(super) fn interpret(document: &Document) -> Result<Option<Bson>, String> {
    let form = |key: &str| FORMS.iter().find(|(name, _)| *name == key);
    let Some((key, form)) = document.keys().find_map(|key| form(key)) else {
        return Ok(None);
    };
    let beside = match *key {
        "$code" => document.get("$scope"),
        // The form of Extended JSON before its version 2.
        "$binary" => document.get("$type"),
        _ => None,
    };
    if document.len() != if beside.is_some() { 2 } else { 1 } {
        return Err(format!("{key} stands alone in its object"));
    }
    let value = document.get(key).unwrap_or(&Bson::Null);
    let value = match (*key, beside) {
        ("$code", Some(scope)) => code_with_scope(value, scope),
        (_, Some(subtype)) => old_binary(value, subtype),
        (_, None) => value_of(key, value.clone()),
    };
    value.map(Some).ok_or_else(|| format!("{key} takes {form}"))
}

fn value_of(key: &str, value: Bson) -> Option<Bson> {
    match value {
        Bson::String(text) => value_of_text(key, text),
        Bson::Document(parts) => value_of_parts(key, parts),
        Bson::Int32(1) if key == "$minKey" => Some(Bson::MinKey),
        Bson::Int32(1) if key == "$maxKey" => Some(Bson::MaxKey),
        Bson::Boolean(true) if key == "$undefined" => Some(Bson::Undefined),
        Bson::Int32(ms) if key == "$date" => Some(DateTime::from_millis(ms.into()).into()),
        Bson::Int64(ms) if key == "$date" => Some(DateTime::from_millis(ms).into()),
        // Programs whose only numbers are doubles may write the milliseconds as one.
        Bson::Double(ms) if key == "$date" => {
            let ms = integer_of(ms)?;
            Some(DateTime::from_millis(ms).into())
        }
        _ => None,
    }
}

fn value_of_text(key: &str, text: String) -> Option<Bson> {
    match key {
        "$oid" => ObjectId::parse_str(&text).ok().map(Bson::ObjectId),
        "$date" => date::parse(&text).map(Bson::DateTime),
        "$numberInt" => integer(&text).map(Bson::Int32),
        "$numberLong" => integer(&text).map(Bson::Int64),
        "$numberDouble" => double(&text).map(Bson::Double),
        "$numberDecimal" => decimal(&text).map(Bson::Decimal128),
        "$uuid" if text.len() == 36 => Uuid::parse_str(&text).ok().map(Bson::from),
        "$symbol" => Some(Bson::Symbol(text)),
        "$code" => Some(Bson::JavaScriptCode(text)),
        _ => None,
    }
}

fn value_of_parts(key: &str, mut parts: Document) -> Option<Bson> {
    let (first, second) = match key {
        "$binary" => ("base64", "subType"),
        "$timestamp" => ("t", "i"),
        "$regularExpression" => ("pattern", "options"),
        "$dbPointer" => ("$ref", "$id"),
        _ => return None,
    };
    let (first, second) = (parts.remove(first)?, parts.remove(second)?);
    if !parts.is_empty() {
        return None;
    }
    match (key, first, second) {
        ("$binary", Bson::String(base64), Bson::String(subtype)) => binary(&base64, &subtype),
        ("$timestamp", time, increment) => Some(Bson::Timestamp(Timestamp {
            time: unsigned(&time)?,
            increment: unsigned(&increment)?,
        })),
        ("$regularExpression", Bson::String(pattern), Bson::String(options)) => {
            regex(pattern, &options)
        }
        ("$dbPointer", Bson::String(namespace), Bson::ObjectId(id)) => db_pointer(&namespace, id),
        _ => None,
    }
}

fn code_with_scope(code: &Bson, scope: &Bson) -> Option<Bson> {
    let code = JavaScriptCodeWithScope {
        code: code.as_str()?.to_owned(),
        scope: scope.as_document()?.clone(),
    };
    Some(Bson::JavaScriptCodeWithScope(code))
}

/// `{"$binary": "AQI=", "$type": "00"}`; some writers have the subtype as a number.
fn old_binary(base64: &Bson, subtype: &Bson) -> Option<Bson> {
    let base64 = base64.as_str()?;
    match subtype {
        Bson::String(digits) => binary(base64, digits),
        Bson::Int32(number) => binary(base64, &format!("{:02x}", u8::try_from(*number).ok()?)),
        _ => None,
    }
}

/// The integer that a double holds exactly, as far as dates go.
fn integer_of(number: f64) -> Option<i64> {
    const DATE_MAX: f64 = 8.64e15;
    #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
    (number.fract() == 0.0 && number.abs() <= DATE_MAX).then_some(number as i64)
}

fn integer<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.starts_with('+') {
        return None;
    }
    text.parse().ok()
}

fn double(text: &str) -> Option<f64> {
    match text {
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        _ if !is_number(text) => None,
        _ => text.parse().ok().filter(|number: &f64| number.is_finite()),
    }
}

fn decimal(text: &str) -> Option<Decimal128> {
    let special = matches!(text, "Infinity" | "-Infinity" | "NaN");
    if !special && !is_number(text) {
        return None;
    }
    text.parse().ok()
}

/// Whether a text is a sign, digits with a point among them, and an exponent, each as far as
/// numbers need them. The parsers that come after it take more: `inf`, or nothing at all for 0.
fn is_number(text: &str) -> bool {
    const EXPONENT_DIGITS_MAX: usize = 8;
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (number, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    digits(whole)
        && digits(fraction)
        && digits(exponent)
        && !(whole.is_empty() && fraction.is_empty())
        && (1..=EXPONENT_DIGITS_MAX).contains(&exponent.len())
}

fn binary(base64: &str, subtype: &str) -> Option<Bson> {
    if !matches!(subtype.len(), 1 | 2) || !subtype.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let subtype = BinarySubtype::from(u8::from_str_radix(subtype, 16).ok()?);
    let binary = Binary::from_base64(base64, subtype).ok()?;
    Some(Bson::Binary(binary))
}

fn unsigned(value: &Bson) -> Option<u32> {
    match value {
        Bson::Int32(number) => u32::try_from(*number).ok(),
        Bson::Int64(number) => u32::try_from(*number).ok(),
        _ => None,
    }
}

/// MongoDB keeps the options in alphabetical order.
fn regex(pattern: String, options: &str) -> Option<Bson> {
    let mut options: Vec<char> = options.chars().collect();
    options.sort_unstable();
    let options: String = options.into_iter().collect();
    Some(Bson::RegularExpression(Regex {
        pattern: CString::try_from(pattern).ok()?,
        options: CString::try_from(options).ok()?,
    }))
}

/// The crate lets nobody make its `DbPointer`, except from Extended JSON.
fn db_pointer(namespace: &str, id: ObjectId) -> Option<Bson> {
    let id = json!({ "$oid": id.to_hex() });
    Bson::try_from(json!({ "$dbPointer": { "$ref": namespace, "$id": id } })).ok()
}
