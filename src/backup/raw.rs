//! BSON as bytes: the elements of a document, and new documents made of them.
//!
//! What a backup holds must come back byte for byte, also what no decoder takes (text that is not
//! UTF-8, types of old). So nothing is decoded that need not be. Reads nothing but the bytes.

use std::borrow::Cow;

/// The bytes are no document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no BSON document")]
pub struct Malformed;

const LENGTH: usize = 4;
pub(super) const DOUBLE: u8 = 0x01;
const STRING: u8 = 0x02;
/// A document within another.
pub const DOCUMENT: u8 = 0x03;
pub const ARRAY: u8 = 0x04;
const BINARY: u8 = 0x05;
const BOOLEAN: u8 = 0x08;
const DATE: u8 = 0x09;
/// The value null.
pub const NULL: u8 = 0x0A;
const INT32: u8 = 0x10;
const TIMESTAMP: u8 = 0x11;
const INT64: u8 = 0x12;

/// One field of a document, or one item of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    /// The type's number.
    pub tag: u8,
    pub name: &'a [u8],
    pub value: &'a [u8],
}

impl<'a> Element<'a> {
    pub fn is(&self, name: &str) -> bool {
        self.name == name.as_bytes()
    }

    /// The bytes of a subdocument or of an array.
    pub fn document(&self) -> Option<&'a [u8]> {
        matches!(self.tag, DOCUMENT | ARRAY).then_some(self.value)
    }

    /// A whole number, of whichever type.
    pub fn integer(&self) -> Option<i64> {
        match self.tag {
            INT32 => Some(i32::from_le_bytes(self.value.try_into().ok()?).into()),
            INT64 => Some(i64::from_le_bytes(self.value.try_into().ok()?)),
            _ => None,
        }
    }

    /// A date, in milliseconds since 1970.
    pub fn date(&self) -> Option<i64> {
        let bytes = (self.tag == DATE).then_some(self.value)?;
        Some(i64::from_le_bytes(bytes.try_into().ok()?))
    }

    pub fn boolean(&self) -> Option<bool> {
        (self.tag == BOOLEAN).then(|| self.value == [1])
    }

    pub fn text(&self) -> Option<&'a str> {
        let bytes = (self.tag == STRING).then_some(self.value)?;
        std::str::from_utf8(bytes.get(LENGTH..bytes.len().checked_sub(1)?)?).ok()
    }

    pub fn timestamp(&self) -> Option<bson::Timestamp> {
        let bytes = (self.tag == TIMESTAMP).then_some(self.value)?;
        let both = u64::from_le_bytes(bytes.try_into().ok()?);
        Some(bson::Timestamp {
            time: u32::try_from(both >> 32).ok()?,
            increment: u32::try_from(both & 0xFFFF_FFFF).ok()?,
        })
    }

    /// The bytes of a UUID.
    pub fn uuid(&self) -> Option<[u8; 16]> {
        let bytes = (self.tag == BINARY).then_some(self.value)?;
        bytes.get(LENGTH + 1..)?.try_into().ok()
    }
}

/// The elements of a document, in order. Ends at the first one that is malformed, with an error.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    rest: &'a [u8],
}

/// The elements of a document.
pub fn elements(document: &[u8]) -> Result<Elements<'_>, Malformed> {
    let length = length_at(document)?;
    let last = length.checked_sub(1).ok_or(Malformed)?;
    if length != document.len() || document.get(last) != Some(&0) {
        return Err(Malformed);
    }
    Ok(Elements {
        rest: document.get(LENGTH..last).ok_or(Malformed)?,
    })
}

/// The first element of that name.
pub fn find<'a>(document: &'a [u8], name: &str) -> Option<Element<'a>> {
    let mut elements = elements(document).ok()?;
    elements.find_map(|element| element.ok().filter(|element| element.is(name)))
}

/// An element of a document within the document.
pub fn find_in<'a>(document: &'a [u8], outer: &str, inner: &str) -> Option<Element<'a>> {
    find(find(document, outer)?.document()?, inner)
}

impl<'a> Elements<'a> {
    fn take(&mut self) -> Result<Element<'a>, Malformed> {
        let (tag, rest) = self.rest.split_first().ok_or(Malformed)?;
        let name_end = rest.iter().position(|byte| *byte == 0).ok_or(Malformed)?;
        let (name, rest) = rest.split_at(name_end);
        let rest = rest.get(1..).ok_or(Malformed)?;
        let length = value_length(*tag, rest)?;
        let (value, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(Element {
            tag: *tag,
            name,
            value,
        })
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Element<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let taken = self.take();
        if taken.is_err() {
            self.rest = &[];
        }
        Some(taken)
    }
}

fn length_at(bytes: &[u8]) -> Result<usize, Malformed> {
    let length = bytes.first_chunk().ok_or(Malformed)?;
    usize::try_from(i32::from_le_bytes(*length)).map_err(|_| Malformed)
}

fn value_length(tag: u8, rest: &[u8]) -> Result<usize, Malformed> {
    let counted = |more: usize| length_at(rest)?.checked_add(more).ok_or(Malformed);
    let text = |from: usize| {
        let text = rest.get(from..).ok_or(Malformed)?;
        let end = text.iter().position(|byte| *byte == 0).ok_or(Malformed)?;
        Ok(from + end + 1)
    };
    match tag {
        DOUBLE | DATE | TIMESTAMP | INT64 => Ok(8),
        STRING | 0x0D | 0x0E => counted(LENGTH),
        DOCUMENT | ARRAY | 0x0F => counted(0),
        BINARY => counted(LENGTH + 1),
        0x06 | NULL | 0x7F | 0xFF => Ok(0),
        0x07 => Ok(12),
        BOOLEAN => Ok(1),
        0x0B => text(text(0)?),
        0x0C => counted(LENGTH + 12),
        INT32 => Ok(4),
        0x13 => Ok(16),
        _ => Err(Malformed),
    }
}

/// A document in the making.
#[derive(Debug, Clone)]
pub struct Builder {
    bytes: Vec<u8>,
}

impl Builder {
    pub fn with_room(bytes: usize) -> Self {
        let mut made = Vec::with_capacity(bytes + LENGTH + 1);
        made.extend([0; LENGTH]);
        Self { bytes: made }
    }

    pub fn push(&mut self, tag: u8, name: &[u8], value: &[u8]) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.bytes.extend_from_slice(value);
    }

    pub fn element(&mut self, element: Element<'_>) {
        self.push(element.tag, element.name, element.value);
    }

    /// The document. None that MongoDB stores is longer than its length can say.
    pub fn end(mut self) -> Vec<u8> {
        self.bytes.push(0);
        let length = i32::try_from(self.bytes.len()).unwrap_or(i32::MAX);
        if let Some(room) = self.bytes.first_chunk_mut() {
            *room = length.to_le_bytes();
        }
        self.bytes
    }
}

/// The same document without these fields.
pub fn without<'a>(document: &'a [u8], names: &[&str]) -> Result<Cow<'a, [u8]>, Malformed> {
    let mut builder = Builder::with_room(document.len());
    let mut left_out = false;
    for element in elements(document)? {
        let element = element?;
        match names.iter().any(|name| element.is(name)) {
            true => left_out = true,
            false => builder.element(element),
        }
    }
    Ok(match left_out {
        true => builder.end().into(),
        false => document.into(),
    })
}

/// A document with this one element, renamed.
pub fn single(name: &str, element: Element<'_>) -> Vec<u8> {
    let mut builder = Builder::with_room(element.value.len() + name.len() + 2);
    builder.push(element.tag, name.as_bytes(), element.value);
    builder.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, doc};

    fn every_type() -> bson::Document {
        doc! {
            "double": 1.5, "text": "ü", "document": {"a": 1}, "array": [1, "x"],
            "binary": Bson::Binary(bson::Binary {
                subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![7; 16],
            }),
            "undefined": Bson::Undefined, "id": bson::oid::ObjectId::from_bytes([1; 12]),
            "yes": true, "date": bson::DateTime::from_millis(-5), "null": Bson::Null,
            "regex": Bson::RegularExpression(bson::Regex {
                pattern: bson::raw::cstr!("a.b").into(), options: bson::raw::cstr!("i").into(),
            }),
            "code": Bson::JavaScriptCode("f()".into()), "symbol": Bson::Symbol("s".into()),
            "scoped": Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope {
                code: "f()".into(), scope: doc! {"x": 1},
            }),
            "int": 5, "at": Bson::Timestamp(bson::Timestamp { time: 9, increment: 2 }),
            "long": 7_i64,
            "decimal": Bson::Decimal128(bson::Decimal128::from_bytes([3; 16])),
            "least": Bson::MinKey, "most": Bson::MaxKey,
        }
    }

    #[test]
    fn a_document_of_every_type_is_taken_apart_and_put_together() {
        let bytes = every_type().to_vec().unwrap();
        let mut builder = Builder::with_room(0);
        let mut names = Vec::new();
        for element in elements(&bytes).unwrap() {
            let element = element.unwrap();
            names.push(String::from_utf8(element.name.to_vec()).unwrap());
            builder.element(element);
        }
        assert_eq!(builder.end(), bytes);
        assert_eq!(names, every_type().keys().cloned().collect::<Vec<_>>());
        let get = |name: &str| find(&bytes, name).unwrap();
        assert_eq!(get("text").text(), Some("ü"));
        assert_eq!(
            (get("int").integer(), get("long").integer()),
            (Some(5), Some(7))
        );
        assert_eq!(get("date").date(), Some(-5));
        assert_eq!(get("yes").boolean(), Some(true));
        assert_eq!(
            get("at").timestamp().map(|at| (at.time, at.increment)),
            Some((9, 2))
        );
        assert_eq!(get("binary").uuid(), Some([7; 16]));
        assert_eq!(find_in(&bytes, "document", "a").unwrap().integer(), Some(1));
        assert_eq!(find(&bytes, "none"), None);
    }

    #[test]
    fn bytes_that_are_cut_or_changed_are_malformed_and_no_panic() {
        let bytes = every_type().to_vec().unwrap();
        for end in 0..bytes.len() {
            assert!(elements(&bytes[..end]).is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            for flip in [1_u8, 0x80, 0xFF] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                // Whatever it says, it comes to an end.
                let _ = elements(&changed).map(Iterator::count);
            }
        }
    }

    #[test]
    fn fields_are_left_out() {
        let bytes = doc! {"a": 1, "b": 2, "c": 3}.to_vec().unwrap();
        let less = without(&bytes, &["b", "x"]).unwrap();
        assert_eq!(less.as_ref(), doc! {"a": 1, "c": 3}.to_vec().unwrap());
        assert!(matches!(without(&bytes, &["x"]), Ok(Cow::Borrowed(_))));
    }
}
