//! JSON text to BSON, in one pass.

use std::fmt;

use bson::{Bson, Document};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use super::types;
use crate::model::limits::NESTING_DEPTH_MAX;

/// Reads one JSON object. Its values may be Extended JSON, canonical or relaxed; the object itself
/// is always taken as it is. The error text says what is wrong and where.
pub fn object(json: &[u8]) -> Result<Document, String> {
    if json.trim_ascii().is_empty() {
        return Err("the body is empty; send a JSON object".into());
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = reader
        .deserialize_any(Object)
        .and_then(|document| reader.end().map(|()| document));
    read.map_err(|error| match error.classify() {
        Category::Data => error.to_string(),
        Category::Syntax | Category::Eof | Category::Io => {
            format!("the body is not valid JSON: {error}")
        }
    })
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

    const fn below(parent: &'p Place<'p>, step: Step<'p>) -> Self {
        Self {
            parent: Some(parent),
            step,
            depth: parent.depth + 1,
        }
    }

    fn check_depth<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.depth <= NESTING_DEPTH_MAX {
            return Ok(());
        }
        Err(E::custom(format!(
            "the body nests deeper than {NESTING_DEPTH_MAX} levels"
        )))
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}.")?;
        }
        match self.step {
            Step::Key(key) => f.write_str(key),
            Step::Index(index) => index.fmt(f),
        }
    }
}

/// The object that is the body.
struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object as the body")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Document, A::Error> {
        read_map(map, None)
    }
}

/// Any value at its place.
struct Value<'p>(Place<'p>);

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
        self.0.check_depth()?;
        let mut values = Vec::new();
        while let Some(value) =
            seq.next_element_seed(Value(Place::below(&self.0, Step::Index(values.len()))))?
        {
            values.push(value);
        }
        Ok(Bson::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Bson, A::Error> {
        self.0.check_depth()?;
        let document = read_map(map, Some(&self.0))?;
        if !document.keys().any(|key| key.starts_with('$')) {
            return Ok(Bson::Document(document));
        }
        types::interpret(document).map_err(|why| A::Error::custom(format!("{}: {why}", self.0)))
    }
}

fn read_map<'de, A: MapAccess<'de>>(
    mut map: A,
    at: Option<&Place<'_>>,
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
        if document.contains_key(&key) {
            return Err(A::Error::custom(format!("{place} is there twice")));
        }
        let value = map.next_value_seed(Value(place))?;
        document.insert(key, value);
    }
    Ok(document)
}
