//! Which replies show the stamps of documents.
//!
//! Each stored document carries its stamp. A client of the Data API never asked for it, and a strict
//! one refuses a field that it does not know, so on the Data API's own paths it is left out.

use bson::{Bson, Document};

use crate::model::{Read, policy};

/// What of the found documents is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    Nothing,
    /// The stamp of each document.
    Own,
    /// Those of whole documents inside them as well, as `$lookup` puts them there.
    Inner,
}

/// Whether a path is one that the Data API had, rather than one of ours.
pub fn is_data_api(path: &str) -> bool {
    path.starts_with("/app/")
}

/// What the reply to a read leaves out. `shown` is what the path and the headers say.
pub fn hidden(read: &Read, shown: bool, stamp: &str) -> Hidden {
    if shown {
        return Hidden::Nothing;
    }
    let mut words = Words {
        stamp,
        asks: false,
        nests: false,
    };
    match read {
        Read::FindOne { projection, .. } | Read::Find { projection, .. } => {
            words.of_document(projection.as_ref().unwrap_or(&Document::new()));
        }
        Read::Aggregate { pipeline } => {
            for stage in pipeline {
                words.of_document(stage);
            }
        }
    }
    match (words.asks, words.nests) {
        (true, _) => Hidden::Nothing,
        (false, true) => Hidden::Inner,
        (false, false) => Hidden::Own,
    }
}

/// What the words of a projection or a pipeline show.
struct Words<'a> {
    stamp: &'a str,
    /// It names the stamp.
    asks: bool,
    /// It may put whole documents into others.
    nests: bool,
}

impl Words<'_> {
    fn of_document(&mut self, document: &Document) {
        for (key, value) in document {
            self.of_text(key);
            self.of_value(value);
        }
    }

    fn of_value(&mut self, value: &Bson) {
        match value {
            Bson::Document(document) => self.of_document(document),
            Bson::Array(values) => values.iter().for_each(|value| self.of_value(value)),
            Bson::String(text) => self.of_text(text),
            _ => {}
        }
    }

    fn of_text(&mut self, text: &str) {
        const NESTING: [&str; 4] = ["lookup", "graphLookup", "ROOT", "CURRENT"];
        let mut parts = text.split(['.', '$']);
        self.asks |= parts.any(|part| part == self.stamp);
        self.nests |= text.starts_with('$') && NESTING.iter().any(|word| text.contains(word));
    }
}

/// Takes the stamps out of what was found.
pub fn hide(documents: &mut [Document], hidden: Hidden, stamp: &str) {
    match hidden {
        Hidden::Nothing => {}
        Hidden::Own => documents
            .iter_mut()
            .for_each(|document| own(document, stamp)),
        Hidden::Inner => documents
            .iter_mut()
            .for_each(|document| inner(document, stamp)),
    }
}

/// Only what has the form of a stamp: a field of that name may be older than Drumline.
fn own(document: &mut Document, stamp: &str) {
    if document.get(stamp).is_some_and(policy::is_stamp_value) {
        document.remove(stamp);
    }
}

fn inner(document: &mut Document, stamp: &str) {
    own(document, stamp);
    for (_, value) in document.iter_mut() {
        inner_value(value, stamp);
    }
}

fn inner_value(value: &mut Bson, stamp: &str) {
    match value {
        Bson::Document(document) => inner(document, stamp),
        Bson::Array(values) => {
            values.retain(|value| !is_pair(value, stamp));
            values
                .iter_mut()
                .for_each(|value| inner_value(value, stamp));
        }
        _ => {}
    }
}

/// What `$objectToArray` makes of the field.
fn is_pair(value: &Bson, stamp: &str) -> bool {
    value.as_document().is_some_and(|pair| {
        pair.len() == 2
            && pair.get_str("k").is_ok_and(|name| name == stamp)
            && pair.get("v").is_some_and(policy::is_stamp_value)
    })
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;
    use crate::model::policy::STAMP_FIELD;

    fn find(projection: Option<Document>) -> Read {
        Read::FindOne {
            filter: doc! {"_stamp.t": 5},
            projection,
            sort: Some(doc! {"_stamp.t": 1}),
        }
    }

    fn aggregate(pipeline: &[Document]) -> Read {
        Read::Aggregate {
            pipeline: pipeline.to_vec(),
        }
    }

    fn of(read: &Read) -> Hidden {
        hidden(read, false, STAMP_FIELD)
    }

    #[test]
    fn a_stamp_is_shown_to_those_who_ask_for_it() {
        assert_eq!(of(&find(None)), Hidden::Own);
        assert_eq!(
            of(&find(Some(doc! {"a": 1, "stamp": "$_stamped"}))),
            Hidden::Own
        );
        assert_eq!(hidden(&find(None), true, STAMP_FIELD), Hidden::Nothing);
        for projection in [
            doc! {"_stamp": 1},
            doc! {"_stamp.t": 1},
            doc! {"at": "$_stamp.t"},
        ] {
            assert_eq!(of(&find(Some(projection))), Hidden::Nothing);
        }
        for (stage, expected) in [
            (doc! {"$match": {"a": 1}}, Hidden::Own),
            (doc! {"$project": {"_stamp": 1}}, Hidden::Nothing),
            (
                doc! {"$group": {"_id": "$a", "at": {"$max": "$_stamp.t"}}},
                Hidden::Nothing,
            ),
            (
                doc! {"$group": {"_id": 1, "all": {"$push": "$$ROOT"}}},
                Hidden::Inner,
            ),
            (
                doc! {"$group": {"_id": 1, "all": {"$push": "$$ROOT._stamp"}}},
                Hidden::Nothing,
            ),
            (doc! {"$lookup": {"from": "b", "as": "b"}}, Hidden::Inner),
            (
                doc! {"$facet": {"a": [{"$graphLookup": {"from": "b"}}]}},
                Hidden::Inner,
            ),
        ] {
            assert_eq!(
                of(&aggregate(std::slice::from_ref(&stage))),
                expected,
                "{stage}"
            );
        }
    }

    #[test]
    fn only_stamps_are_left_out() {
        let stamp = || doc! {"t": 5_i64, "n": "n1"};
        let document = doc! {
            "_id": 1,
            "a": [{"_stamp": stamp(), "b": 1}],
            "pairs": [{"k": "b", "v": 1}, {"k": "_stamp", "v": stamp()}],
            "_stamp": stamp(),
        };
        let after = |hidden| {
            let mut documents = [document.clone()];
            hide(&mut documents, hidden, STAMP_FIELD);
            let [document] = documents;
            document
        };
        assert_eq!(after(Hidden::Nothing), document);
        let mut own = document.clone();
        own.remove("_stamp");
        assert_eq!(after(Hidden::Own), own);
        let inner = doc! {"_id": 1, "a": [{"b": 1}], "pairs": [{"k": "b", "v": 1}]};
        assert_eq!(after(Hidden::Inner), inner);
        let older = doc! {"_stamp": "2020"};
        let mut documents = [older.clone()];
        hide(&mut documents, Hidden::Inner, STAMP_FIELD);
        assert_eq!(documents, [older]);
    }
}
