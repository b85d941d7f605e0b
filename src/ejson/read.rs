//! JSON text to BSON, in one pass.

use std::fmt;

use bson::{Bson, Document};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};
use serde_json::error::Category;

use super::{integers, types};
use crate::model::limits::NESTING_DEPTH_MAX;

/// How deep a reply nests at most: MongoDB holds 200 levels, and a reply and the objects that stand
/// for values add a few.
const STORED_DEPTH_MAX: usize = 220;

/// Programs on some systems begin a text file with it; to JSON it says nothing.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads one JSON object. Its values may be Extended JSON, canonical or relaxed; the object itself
/// is always taken as it is. The error text says what is wrong and where.
pub fn object(json: &[u8]) -> Result<Document, String> {
    let json = without_mark(json);
    if json.trim_ascii().is_empty() {
        return Err("the body is empty; send a JSON object".into());
    }
    if let Some(fault) = Fault::of_integer(json) {
        let Fault {
            what, line, column, ..
        } = fault;
        return Err(format!("{what} at line {line} column {column}"));
    }
    read_object(json, Strictness::Refuse)
}

/// Reads the object that a server answered with. What is stored need not be what Drumline would
/// take: a subdocument that only looks like Extended JSON is shown as it is.
pub fn reply(json: &[u8]) -> Result<Document, String> {
    read_object(json, Strictness::Keep)
}

fn read_object(json: &[u8], strictness: Strictness) -> Result<Document, String> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    if strictness == Strictness::Keep {
        // MongoDB holds documents that nest deeper than a parser's own bound, and than ours.
        reader.disable_recursion_limit();
    }
    let read = reader
        .deserialize_any(Object(strictness))
        .and_then(|document| reader.end().map(|()| document));
    read.map_err(|error| match error.classify() {
        Category::Data => error.to_string(),
        Category::Syntax | Category::Eof | Category::Io => {
            format!("the body is not valid JSON: {error}")
        }
    })
}

fn without_mark(json: &[u8]) -> &[u8] {
    json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json)
}

/// One of several values in a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub value: Bson,
    /// The line on which it begins, from 1.
    pub line: usize,
}

/// Why a text was not taken, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// It is not even JSON.
    pub is_syntax: bool,
    pub what: String,
    /// Both from 1.
    pub line: usize,
    pub column: usize,
    /// The line on which the value begins that holds the fault.
    pub begins: usize,
}

impl Fault {
    fn new(error: &serde_json::Error, begins: usize) -> Self {
        let text = error.to_string();
        Self {
            is_syntax: error.classify() != Category::Data,
            // The parser puts the place at the end of its text.
            what: match text.rsplit_once(" at line ") {
                Some((what, _)) => what.to_owned(),
                None => text,
            },
            line: error.line().max(1),
            column: error.column(),
            begins,
        }
    }

    fn of_integer(json: &[u8]) -> Option<Self> {
        let found = integers::rounded(json)?;
        let before = json.get(..found.at).unwrap_or_default();
        let line = lines(before) + 1;
        let start = before.iter().rposition(|byte| *byte == b'\n');
        Some(Self {
            is_syntax: false,
            what: format!(
                "the integer {} is beyond 64 bits and would be rounded; write it as \
                 {{\"$numberDecimal\": \"...\"}} or as a string",
                shown(found.text)
            ),
            line,
            column: found.at - start.map_or(0, |start| start + 1) + 1,
            begins: line,
        })
    }
}

/// A long number is told by its beginning.
fn shown(digits: &str) -> String {
    const SHOWN_MAX: usize = 40;
    match digits.get(..SHOWN_MAX) {
        Some(first) if digits.len() > SHOWN_MAX => format!("{first}..."),
        _ => digits.to_owned(),
    }
}

fn lines(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

/// Reads the JSON values of a text, one after the other, each by the rules of a field of a body.
pub fn values(json: &[u8]) -> Result<Vec<Item>, Fault> {
    let json = without_mark(json);
    if let Some(fault) = Fault::of_integer(json) {
        return Err(fault);
    }
    let mut reader = serde_json::Deserializer::from_slice(json).into_iter::<Whole>();
    let mut items = Vec::new();
    let (mut line, mut counted) = (1, 0);
    loop {
        let rest = json.get(reader.byte_offset()..).unwrap_or_default();
        let start = json.len() - rest.trim_ascii_start().len();
        line += lines(json.get(counted..start).unwrap_or_default());
        counted = start;
        match reader.next() {
            None => return Ok(items),
            Some(Ok(Whole(value))) => items.push(Item { value, line }),
            Some(Err(error)) => return Err(Fault::new(&error, line)),
        }
    }
}

/// A value that is a text of its own.
struct Whole(Bson);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value(Place::ROOT, Strictness::Refuse);
        deserializer.deserialize_any(value).map(Self)
    }
}

/// What becomes of an object with a key of Extended JSON that stands for no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strictness {
    /// The text is refused: what it means is not what it would do.
    Refuse,
    /// It is a document.
    Keep,
}

/// Where in the body a value stands. It lives on the stack, one link a level, and becomes text
/// only in an error.
#[derive(Clone, Copy)]
struct Place<'p> {
    parent: Option<&'p Place<'p>>,
    step: Step<'p>,
    depth: usize,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    /// A value that is in nothing else.
    Root,
    Key(&'p str),
    Index(usize),
}

impl<'p> Place<'p> {
    const fn top(key: &'p str) -> Self {
        Self {
            parent: None,
            step: Step::Key(key),
            depth: 1,
        }
    }

    const ROOT: Place<'static> = Place {
        parent: None,
        step: Step::Root,
        depth: 1,
    };

    /// A document has its own depth, wherever it is sent: an array of documents adds none.
    const fn below(parent: &'p Place<'p>, step: Step<'p>) -> Self {
        let is_listed = matches!(step, Step::Index(_)) && parent.parent.is_none();
        Self {
            parent: Some(parent),
            step,
            depth: if is_listed {
                parent.depth
            } else {
                parent.depth + 1
            },
        }
    }

    fn check_depth<E: serde::de::Error>(&self, strictness: Strictness) -> Result<(), E> {
        let most = match strictness {
            Strictness::Refuse => NESTING_DEPTH_MAX,
            Strictness::Keep => STORED_DEPTH_MAX,
        };
        if self.depth <= most {
            return Ok(());
        }
        Err(E::custom(format!(
            "a value nests deeper than {most} levels"
        )))
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
            if !matches!(parent.step, Step::Root) {
                f.write_str(".")?;
            }
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Key(key) => f.write_str(key),
            Step::Index(index) => index.fmt(f),
        }
    }
}

/// The object that is the body.
struct Object(Strictness);

impl<'de> Visitor<'de> for Object {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object as the body")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Document, A::Error> {
        read_map(map, None, self.0)
    }
}

/// Any value at its place.
struct Value<'p>(Place<'p>, Strictness);

impl<'p> Value<'p> {
    const fn below<'v>(&'v self, step: Step<'v>) -> Value<'v>
    where
        'p: 'v,
    {
        Value(Place::below(&self.0, step), self.1)
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Bson;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Bson, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Bson;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Bson, E> {
        Ok(Bson::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Bson, E> {
        Ok(Bson::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Bson, E> {
        Ok(i32::try_from(value).map_or(Bson::Int64(value), Bson::Int32))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Bson, E> {
        Ok(match i64::try_from(value) {
            Ok(value) => i32::try_from(value).map_or(Bson::Int64(value), Bson::Int32),
            // The rule of the API: an integer that fits neither is a double.
            Err(_) => Bson::Double(value as f64),
        })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Bson, E> {
        Ok(Bson::Double(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Bson, E> {
        Ok(Bson::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Bson, E> {
        Ok(Bson::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bson, A::Error> {
        self.0.check_depth(self.1)?;
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(self.below(Step::Index(values.len())))? {
            values.push(value);
        }
        Ok(Bson::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Bson, A::Error> {
        self.0.check_depth(self.1)?;
        let document = read_map(map, Some(&self.0), self.1)?;
        if !document.keys().any(|key| key.starts_with('$')) {
            return Ok(Bson::Document(document));
        }
        match types::interpret(&document) {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Ok(Bson::Document(document)),
            Err(_) if self.1 == Strictness::Keep => Ok(Bson::Document(document)),
            Err(why) if matches!(self.0.step, Step::Root) => Err(A::Error::custom(why)),
            Err(why) => Err(A::Error::custom(format!("{}: {why}", self.0))),
        }
    }
}

fn read_map<'de, A: MapAccess<'de>>(
    mut map: A,
    at: Option<&Place<'_>>,
    strictness: Strictness,
) -> Result<Document, A::Error> {
    let mut document = Document::new();
    while let Some(key) = map.next_key::<String>()? {
        let place = at.map_or(Place::top(&key), |at| Place::below(at, Step::Key(&key)));
        if key.contains('\0') {
            let key = key.escape_debug();
            return Err(A::Error::custom(format!(
                "the key '{key}' holds a null character, which BSON cannot store"
            )));
        }
        if document.contains_key(&key) && strictness == Strictness::Refuse {
            return Err(A::Error::custom(format!("{place} is there twice")));
        }
        let value = map.next_value_seed(Value(place, strictness))?;
        document.insert(key, value);
    }
    Ok(document)
}
