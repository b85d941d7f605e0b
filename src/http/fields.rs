//! The fields of a body, taken out one by one with their types checked.

use bson::{Bson, Document};

use super::action::Action;
use crate::ejson;
use crate::model::Failure;

/// What is left of a body. Each error names the field and what it must be.
///
/// An optional field may be `null`, as clients with typed models send it, and then counts as
/// absent; so may a field that only other actions have. The one exception is the `filter` of a
/// write, where a slip of that kind would mean every document.
#[derive(Debug)]
pub struct Fields(Document);

impl Fields {
    /// Refuses a body with a field that is not in `known`.
    pub fn new(body: Document, action: &str, known: &[&str]) -> Result<Self, Failure> {
        const COMMON: [&str; 3] = ["dataSource", "database", "collection"];
        let is_known = |key: &str| COMMON.contains(&key) || known.contains(&key);
        let is_absent = |key: &str, value: &Bson| {
            let mut actions = Action::ALL.iter();
            *value == Bson::Null && actions.any(|action| action.fields().contains(&key))
        };
        let mut unknown = body.iter().filter(|(key, _)| !is_known(key));
        match unknown.find(|(key, value)| !is_absent(key, value)) {
            None => Ok(Self(body)),
            Some((key, _)) => Err(Failure::Invalid(format!(
                "{action} has no field '{}'; its fields are {}, {}",
                key.escape_debug(),
                COMMON.join(", "),
                known.join(", ")
            ))),
        }
    }

    pub fn string(&mut self, name: &str) -> Result<String, Failure> {
        match self.required(name, "a string")? {
            Bson::String(text) => Ok(text),
            other => Err(wrong(name, "a string", &other)),
        }
    }

    pub fn optional_string(&mut self, name: &str) -> Result<Option<String>, Failure> {
        self.optional(name).map_or(Ok(None), |value| match value {
            Bson::String(text) => Ok(Some(text)),
            other => Err(wrong(name, "a string", &other)),
        })
    }

    pub fn document(&mut self, name: &str) -> Result<Document, Failure> {
        match self.required(name, "an object")? {
            Bson::Document(document) => Ok(document),
            other => Err(wrong(name, "an object", &other)),
        }
    }

    pub fn optional_document(&mut self, name: &str) -> Result<Option<Document>, Failure> {
        self.optional(name).map_or(Ok(None), |value| match value {
            Bson::Document(document) => Ok(Some(document)),
            other => Err(wrong(name, "an object", &other)),
        })
    }

    /// The filter of a write: absent means every document; `null` does not.
    pub fn filter(&mut self) -> Result<Document, Failure> {
        match self.0.remove("filter") {
            None => Ok(Document::new()),
            Some(Bson::Document(filter)) => Ok(filter),
            Some(other) => Err(wrong("filter", "an object", &other)),
        }
    }

    pub fn documents(&mut self, name: &str) -> Result<Vec<Document>, Failure> {
        match self.required(name, "an array of objects")? {
            Bson::Array(values) => documents(name, values),
            other => Err(wrong(name, "an array of objects", &other)),
        }
    }

    /// A field that takes an object or an array of objects.
    pub fn document_or_documents(&mut self, name: &str) -> Result<OneOrMany, Failure> {
        const EXPECTED: &str = "an object or an array of objects";
        match self.required(name, EXPECTED)? {
            Bson::Document(document) => Ok(OneOrMany::One(document)),
            Bson::Array(values) => documents(name, values).map(OneOrMany::Many),
            other => Err(wrong(name, EXPECTED, &other)),
        }
    }

    pub fn flag(&mut self, name: &str) -> Result<bool, Failure> {
        match self.optional(name) {
            None => Ok(false),
            Some(Bson::Boolean(flag)) => Ok(flag),
            Some(other) => Err(wrong(name, "true or false", &other)),
        }
    }

    /// A whole number of 0 or more, in any of the types that can hold one.
    pub fn count(&mut self, name: &str) -> Result<Option<i64>, Failure> {
        let Some(value) = self.optional(name) else {
            return Ok(None);
        };
        if !is_number(&value) {
            return Err(wrong(name, ejson::COUNT, &value));
        }
        let count = ejson::count(&value);
        count.map(Some).map_err(|ejson::NotACount| {
            Failure::Invalid(format!("'{name}' must be {}, {value} is not", ejson::COUNT))
        })
    }

    fn optional(&mut self, name: &str) -> Option<Bson> {
        self.0.remove(name).filter(|value| *value != Bson::Null)
    }

    fn required(&mut self, name: &str, expected: &str) -> Result<Bson, Failure> {
        self.0
            .remove(name)
            .ok_or_else(|| Failure::Invalid(format!("'{name}' is missing; it must be {expected}")))
    }
}

/// What [`Fields::document_or_documents`] found.
#[derive(Debug)]
pub enum OneOrMany {
    One(Document),
    Many(Vec<Document>),
}

fn documents(name: &str, values: Vec<Bson>) -> Result<Vec<Document>, Failure> {
    let mut documents = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        match value {
            Bson::Document(document) => documents.push(document),
            other => return Err(wrong(&format!("{name}.{index}"), "an object", &other)),
        }
    }
    Ok(documents)
}

const fn is_number(value: &Bson) -> bool {
    matches!(value, Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_))
}

fn wrong(name: &str, expected: &str, found: &Bson) -> Failure {
    let found = type_name(found);
    Failure::Invalid(format!("'{name}' must be {expected}, not {found}"))
}

/// What a value is, in the words of someone who writes JSON.
fn type_name(value: &Bson) -> &'static str {
    match value {
        Bson::Double(_) | Bson::Int32(_) | Bson::Int64(_) => "a number",
        Bson::String(_) => "a string",
        Bson::Array(_) => "an array",
        Bson::Document(_) => "an object",
        Bson::Boolean(_) => "true or false",
        Bson::Null => "null",
        Bson::RegularExpression(_) => "a regular expression",
        Bson::JavaScriptCode(_) | Bson::JavaScriptCodeWithScope(_) => "code",
        Bson::Timestamp(_) => "a timestamp",
        Bson::Binary(_) => "binary data",
        Bson::ObjectId(_) => "an ObjectId",
        Bson::DateTime(_) => "a date",
        Bson::Symbol(_) => "a symbol",
        Bson::Decimal128(_) => "a decimal",
        Bson::Undefined => "undefined",
        Bson::MinKey | Bson::MaxKey => "MinKey or MaxKey",
        Bson::DbPointer(_) => "a pointer",
    }
}
