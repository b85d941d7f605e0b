//! Arguments that are JSON: Extended JSON v2, canonical or relaxed; `-` is stdin.

use std::io::Read as _;

use bson::{Bson, Document};

use crate::ejson::{self, Fault, Item};
use crate::model::Update;
use crate::model::limits::{BODY_BYTES_MAX, DOCUMENT_BYTES_MAX, INSERT_DOCUMENTS_MAX};

use super::exit::ExitError;

type Result<T> = std::result::Result<T, ExitError>;

/// One argument that is JSON, with its name and an example for the message when it is not.
#[derive(Debug, Clone, Copy)]
pub struct Argument<'a> {
    pub name: &'static str,
    pub text: &'a str,
    pub example: &'static str,
}

/// The documents of an insert, and whether they came as many.
#[derive(Debug, Clone, PartialEq)]
pub struct Documents {
    pub documents: Vec<Document>,
    pub many: bool,
}

impl<'a> Argument<'a> {
    pub const fn document(name: &'static str, text: &'a str) -> Self {
        let example = r#"'{"name": "Ada"}'"#;
        Self {
            name,
            text,
            example,
        }
    }

    pub const fn filter(text: &'a str) -> Self {
        let example = r#"'{"qty": {"$gt": 5}}'"#;
        Self {
            name: "FILTER",
            text,
            example,
        }
    }

    pub const fn pipeline(text: &'a str) -> Self {
        let example = r#"'[{"$match": {"qty": 5}}]'"#;
        Self {
            name: "PIPELINE",
            text,
            example,
        }
    }

    pub const fn update(text: &'a str) -> Self {
        let example = r#"'{"$set": {"qty": 5}}'"#;
        Self {
            name: "UPDATE",
            text,
            example,
        }
    }

    /// An argument that is one document.
    pub fn to_document(self) -> Result<Document> {
        match self.one()? {
            Bson::Document(document) => {
                self.check_size(&document, "it")?;
                Ok(document)
            }
            _ => Err(self.wrong("it is JSON, but no object")),
        }
    }

    /// A whole document, to be put in the place of another one.
    pub fn to_replacement(self) -> Result<Document> {
        let document = self.to_document()?;
        match document.keys().find(|key| key.starts_with('$')) {
            Some(key) => Err(self.refused(&format!(
                "it holds the operator '{}', and takes the place of a whole document: for \
                 operators there is `drumline update`",
                key.escape_debug()
            ))),
            None => Ok(document),
        }
    }

    /// An argument that is an array of documents.
    pub fn to_pipeline(self) -> Result<Vec<Document>> {
        match self.one()? {
            Bson::Array(stages) => self.all_documents(stages),
            _ => Err(self.wrong("it is JSON, but no array of stages")),
        }
    }

    /// Operators, or a pipeline.
    pub fn to_update(self) -> Result<Update> {
        match self.one()? {
            Bson::Document(operators) => {
                self.check_operators(&operators)?;
                Ok(Update::Operators(operators))
            }
            Bson::Array(stages) if stages.is_empty() => Err(self.wrong("it holds no stage")),
            Bson::Array(stages) => Ok(Update::Pipeline(self.all_documents(stages)?)),
            _ => Err(self.wrong("it is JSON, but neither an object nor an array")),
        }
    }

    /// MongoDB would take an object without operators for a whole document.
    fn check_operators(self, operators: &Document) -> Result<()> {
        if operators.is_empty() {
            return Err(self.wrong("it holds no operator"));
        }
        self.check_size(operators, "it")?;
        for (key, value) in operators {
            let key = key.escape_debug();
            if !key.to_string().starts_with('$') {
                return Err(self.wrong(&format!(
                    "it holds the plain field '{key}', and for a whole document there is \
                     `drumline replace`"
                )));
            }
            if value.as_document().is_none() {
                return Err(self.wrong(&format!("{key} in it takes an object of fields")));
            }
        }
        Ok(())
    }

    fn check_size(self, document: &Document, which: &str) -> Result<()> {
        let bytes = document.to_vec().map_or(0, |bytes| bytes.len());
        if bytes <= DOCUMENT_BYTES_MAX {
            return Ok(());
        }
        Err(self.refused(&format!(
            "{which} takes {} KiB as MongoDB stores it, and {} KiB is the most of a document",
            bytes.div_ceil(1 << 10),
            DOCUMENT_BYTES_MAX >> 10
        )))
    }

    /// One document, an array of documents, or several documents one after the other.
    pub fn to_documents(self) -> Result<Documents> {
        let mut items = self.items()?;
        let is_list = matches!(items.as_slice(), [only] if only.value.as_array().is_some());
        let many = items.len() > 1 || is_list;
        let documents = match items.pop() {
            Some(Item {
                value: Bson::Array(values),
                ..
            }) if is_list => self.all_documents(values)?,
            last => {
                items.extend(last);
                self.one_each(items)?
            }
        };
        if documents.is_empty() {
            return Err(self.wrong("it holds no document"));
        }
        if documents.len() > INSERT_DOCUMENTS_MAX {
            return Err(self.refused(&format!(
                "it holds {} documents, and one insert takes up to {INSERT_DOCUMENTS_MAX}: send it \
                 in parts, like with `split -l {INSERT_DOCUMENTS_MAX}`",
                documents.len()
            )));
        }
        for (index, document) in documents.iter().enumerate() {
            let which = match many {
                true => format!("document {} in it", index + 1),
                false => "it".into(),
            };
            self.check_size(document, &which)?;
        }
        Ok(Documents { documents, many })
    }

    fn one(self) -> Result<Bson> {
        let mut items = self.items()?;
        match items.len() {
            1 => Ok(items.remove(0).value),
            0 => Err(self.wrong("it is empty")),
            _ => Err(self.wrong("it holds more than one JSON value")),
        }
    }

    fn items(self) -> Result<Vec<Item>> {
        let text = if self.text == "-" {
            self.read_stdin()?
        } else {
            self.text.as_bytes().to_vec()
        };
        // What a value of Extended JSON takes instead is said by the fault itself.
        ejson::values(&text).map_err(|fault| match fault.is_syntax {
            true => self.wrong(&located(&fault)),
            false => self.refused(&located(&fault)),
        })
    }

    /// Documents that stand one after the other; a line is what the user looks for.
    fn one_each(self, items: Vec<Item>) -> Result<Vec<Document>> {
        let is_one_line = items.iter().all(|item| item.line == 1);
        let documents = items
            .into_iter()
            .enumerate()
            .map(|(index, item)| match item.value {
                Bson::Document(document) => Ok(document),
                _ if is_one_line => {
                    Err(self.wrong(&format!("value {} in it is no object", index + 1)))
                }
                _ => Err(self.wrong(&format!("the value on line {} is no object", item.line))),
            });
        documents.collect()
    }

    fn all_documents(self, values: Vec<Bson>) -> Result<Vec<Document>> {
        let documents = values
            .into_iter()
            .enumerate()
            .map(|(index, value)| match value {
                Bson::Document(document) => Ok(document),
                _ => Err(self.wrong(&format!("value {} in it is no object", index + 1))),
            });
        documents.collect()
    }

    fn read_stdin(self) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        std::io::stdin()
            .take(BODY_BYTES_MAX as u64 + 1)
            .read_to_end(&mut text)
            .map_err(|error| self.wrong(&format!("stdin cannot be read ({error})")))?;
        if text.len() > BODY_BYTES_MAX {
            let bound = BODY_BYTES_MAX >> 20;
            return Err(self.wrong(&format!(
                "stdin holds more than {bound} MiB: send it in parts, like with `split -l 1000`"
            )));
        }
        Ok(text)
    }

    fn wrong(self, what: &str) -> ExitError {
        // Who sends a file knows its form, and one place in it is wrong.
        if self.text == "-" {
            return self.refused(what);
        }
        let Self { name, example, .. } = self;
        ExitError::usage(format!("{name}: {what}; write it like {example}"))
    }

    /// Without an example: the text says what to do.
    fn refused(self, what: &str) -> ExitError {
        ExitError::usage(format!("{}: {what}", self.name))
    }
}

/// At most one argument can be read from stdin.
pub fn check_stdin(arguments: &[&str]) -> Result<()> {
    let from_stdin = arguments.iter().filter(|text| **text == "-").count();
    if from_stdin > 1 {
        return Err(ExitError::usage(
            "only one argument can be `-`: stdin is read once",
        ));
    }
    Ok(())
}

/// An `_id`: JSON if it is JSON, a string otherwise.
pub fn id(text: &str) -> Result<Bson> {
    let wrong = |what: &str| {
        ExitError::usage(format!(
            "ID: {what}; write it like 17, ada or '{{\"$oid\": \"...\"}}'"
        ))
    };
    let id = match ejson::values(text.as_bytes()) {
        Ok(mut items) if items.len() == 1 => items.remove(0).value,
        Ok(_) => Bson::String(text.to_owned()),
        Err(fault) if fault.is_syntax => Bson::String(text.to_owned()),
        Err(fault) => return Err(wrong(&located(&fault))),
    };
    match &id {
        // As a filter each of these would mean something else than equality.
        Bson::Array(_) | Bson::RegularExpression(_) | Bson::Undefined => Err(wrong(
            "MongoDB takes no array, regular expression or undefined as _id",
        )),
        Bson::Document(fields) if fields.keys().any(|key| key.starts_with('$')) => {
            Err(wrong("it holds an operator, which no _id can hold"))
        }
        _ => Ok(id),
    }
}

/// What is wrong, and where. A value of several lines is told by its first line too: the fault may be
/// seen only where the next value begins.
fn located(fault: &Fault) -> String {
    let Fault {
        what,
        line,
        column,
        begins,
        ..
    } = fault;
    let kind = match fault.is_syntax {
        true => "it is no JSON",
        false => "it is no Extended JSON",
    };
    let place = match (*line, *begins) {
        (1, _) => format!("column {column}"),
        (line, begins) if begins == line => format!("line {line}, column {column}"),
        (line, begins) => {
            format!("line {line}, column {column}, in the value that begins on line {begins}")
        }
    };
    format!("{kind} ({what} at {place})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    #[test]
    fn documents_come_alone_or_as_many() {
        let read = |text| Argument::document("DOC", text).to_documents();
        let one = read(r#"{"b": 1, "a": 2}"#).unwrap();
        assert_eq!(
            (one.documents, one.many),
            (vec![doc! {"b": 1, "a": 2}], false)
        );
        let array = read(r#"[{"a": 1}]"#).unwrap();
        assert_eq!((array.documents.len(), array.many), (1, true));
        let lines = read("{\"a\": 1}\n{\"a\": 2}\n").unwrap();
        assert_eq!((lines.documents.len(), lines.many), (2, true));
        for wrong in ["", "[]", "5", "[5]", "{} []", "{} 5", "{a: 1}"] {
            assert!(read(wrong).is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn what_no_server_would_take_is_told_in_words_of_the_command_line() {
        let update = |text| Argument::update(text).to_update().unwrap_err().message;
        let replace = |text| {
            let read = Argument::document("DOC", text).to_replacement();
            read.unwrap_err().message
        };
        assert!(update("{}").starts_with("UPDATE: it holds no operator; write it like"));
        assert!(update("[]").starts_with("UPDATE: it holds no stage; write it like"));
        assert!(update(r#"{"a": 1}"#).contains("plain field 'a'"));
        assert!(update(r#"{"$set": 1}"#).contains("$set in it takes an object"));
        assert!(replace(r#"{"$set": {"a": 1}}"#).contains("the operator '$set'"));
        let many = "{}".repeat(INSERT_DOCUMENTS_MAX + 1);
        let error = Argument::document("DOC", &many).to_documents().unwrap_err();
        assert!(
            error.message.contains("it holds 10001 documents"),
            "{}",
            error.message
        );
        let large = format!(
            "{{\"a\": 1}}\n{{\"a\": \"{}\"}}",
            "x".repeat(DOCUMENT_BYTES_MAX)
        );
        let error = Argument::document("DOC", &large)
            .to_documents()
            .unwrap_err();
        assert!(
            error.message.contains("document 2 in it takes 16381 KiB"),
            "{}",
            error.message
        );
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let error = Argument::filter("{\"a\": 1,}").to_document().unwrap_err();
        assert_eq!(
            error.message,
            "FILTER: it is no JSON (trailing comma at column 9); write it like '{\"qty\": {\"$gt\": 5}}'"
        );
        let error = Argument::filter("{\n \"a\" 1}").to_document().unwrap_err();
        assert!(
            error.message.contains("line 2, column 6"),
            "{}",
            error.message
        );
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        for (text, expected) in [
            (
                "{\"a\": 1}\n5\n{\"a\": 2}",
                "the value on line 2 is no object",
            ),
            ("{\"a\": 1}\n{\"a\": x}\n", "at line 2, column 7)"),
            (
                "{\"a\": 1}\n{\"a\": 2\n{\"a\": 3}\n",
                "at line 3, column 1, in the value that begins on line 2)",
            ),
            (
                "{\"a\": 1}\n{\"b\": 1, \"b\": 2}",
                "b is there twice at line 2",
            ),
        ] {
            let error = Argument::document("DOC", text).to_documents().unwrap_err();
            assert!(error.message.contains(expected), "{}", error.message);
        }
    }

    #[test]
    fn ids_are_json_or_strings() {
        assert_eq!(id("17").unwrap(), Bson::Int32(17));
        assert_eq!(id("ada").unwrap(), Bson::String("ada".into()));
        assert_eq!(id("1 2").unwrap(), Bson::String("1 2".into()));
        assert_eq!(id("").unwrap(), Bson::String(String::new()));
        assert_eq!(id("\"17\"").unwrap(), Bson::String("17".into()));
        assert_eq!(id(r#"{"a": 1}"#).unwrap(), Bson::Document(doc! {"a": 1}));
        assert!(matches!(
            id(r#"{"$oid": "65a0000000000000000000aa"}"#),
            Ok(Bson::ObjectId(_))
        ));
        for wrong in [
            "[1]",
            r#"{"$gt": 1}"#,
            r#"{"$oid": "x"}"#,
            r#"{"$regularExpression": {"pattern": "a", "options": ""}}"#,
            "12345678901234567891",
            r#"{"a": 1, "a": 2}"#,
        ] {
            assert!(id(wrong).is_err(), "{wrong:?} was taken");
        }
    }
}
