//! Requests that may compute for long inside one expression, where MongoDB does not look at the
//! clock: neither a time limit nor the end of its session stops it.

use bson::{Bson, Document};

use super::request::{Update, Write};

/// The operators that do something for each element of a list, however long it is.
const LOOPS: [&str; 6] = ["$filter", "$map", "$range", "$reduce", "$sortArray", "$zip"];

impl Write {
    /// Whether an expression of this request loops. Any other takes as long as its text and the
    /// document are long.
    pub fn loops(&self) -> bool {
        match self {
            Self::Insert { .. } => false,
            Self::Update { filter, update, .. } => {
                document_loops(filter)
                    || match update {
                        // They compute nothing.
                        Update::Operators(_) => false,
                        Update::Pipeline(stages) => stages.iter().any(document_loops),
                    }
            }
            Self::Replace { filter, .. } | Self::Delete { filter, .. } => document_loops(filter),
        }
    }
}

fn document_loops(document: &Document) -> bool {
    document
        .iter()
        .any(|(key, value)| LOOPS.contains(&key.as_str()) || value_loops(value))
}

fn value_loops(value: &Bson) -> bool {
    match value {
        Bson::Document(document) => document_loops(document),
        Bson::Array(values) => values.iter().any(value_loops),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    fn deletion(filter: Document) -> Write {
        let many = false;
        Write::Delete { filter, many }
    }

    #[test]
    fn a_loop_is_found_wherever_an_expression_stands() {
        let map = doc! {"$map": {"input": {"$range": [0, 9]}, "in": 1}};
        let filter = doc! {"$and": [{"a": 1}, {"$expr": {"$eq": [{"$sum": &map}, 1]}}]};
        assert!(deletion(filter.clone()).loops());
        let replace = Write::Replace {
            filter: filter.clone(),
            replacement: doc! {},
            upsert: false,
        };
        assert!(replace.loops());
        let update = |filter: Document, update| Write::Update {
            filter,
            update,
            many: false,
            upsert: false,
        };
        let plain = doc! {"_id": 1};
        assert!(update(filter, Update::Operators(doc! {"$set": {"a": 1}})).loops());
        let stages = vec![doc! {"$set": {"a": {"b": [1, &map]}}}];
        assert!(update(plain.clone(), Update::Pipeline(stages)).loops());
        for other in LOOPS {
            assert!(deletion(doc! {"$expr": {other: []}}).loops(), "{other}");
        }

        assert!(!deletion(doc! {"$expr": {"$gt": ["$a", {"$add": ["$b", 1]}]}}).loops());
        let stages = vec![doc! {"$set": {"a": {"$add": ["$a", 1]}}}];
        assert!(!update(plain.clone(), Update::Pipeline(stages)).loops());
        // What is stored is no expression.
        let stored = Update::Operators(doc! {"$set": {"a": {"$map": 1}}});
        assert!(!update(plain, stored).loops());
        let documents = vec![doc! {"$map": 1}];
        assert!(!Write::Insert { documents }.loops());
    }
}
