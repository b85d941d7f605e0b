//! The words of MongoDB's query language that a request may use, and where each may stand.
//!
//! The language grows, and some of its words run code, write past the order or have the server
//! reach for an address that the request names. So this lists what is allowed: the stages and
//! operators of MongoDB's public documentation, less those that are refused. A word that is not
//! here is refused with its name. Values are walked without recursion, so depth costs nothing.

use bson::{Bson, Document};

use super::{Failure, Namespace};

mod words;

/// Stages that write past the serial order, and the one that never ends.
const STAGES: [(&str, &str); 3] = [
    (
        "$out",
        "it writes outside the serial order; insert the documents instead",
    ),
    (
        "$merge",
        "it writes outside the serial order; update or insert the documents instead",
    ),
    (
        "$changeStream",
        "it has no end; `drumline watch` and GET /watch are there for that",
    ),
];

/// Operators that run JavaScript on the server.
const JAVASCRIPT: [&str; 3] = ["$where", "$function", "$accumulator"];

/// How MongoDB reads a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A filter, or what stands for a field in one.
    Filter,
    /// An expression or an accumulator; also the operand of a stage.
    Expression,
    /// A projection of a find: expressions, and filters of arrays.
    Projection,
    /// Stages.
    Pipeline,
    /// Names of the client's, and a pipeline for each.
    Pipelines,
}

/// Checks a filter.
pub(super) fn check_filter(filter: &Document) -> Result<(), Failure> {
    let mut walk = Walk::new(None);
    walk.document(Place::Filter, filter)?;
    walk.finish()
}

/// Checks a projection of a find.
pub(super) fn check_projection(projection: &Document) -> Result<(), Failure> {
    let mut walk = Walk::new(None);
    walk.document(Place::Projection, projection)?;
    walk.finish()
}

/// Checks a sort: fields with directions, or with `$meta`.
pub(super) fn check_sort(sort: &Document) -> Result<(), Failure> {
    let mut walk = Walk::new(None);
    for (key, value) in sort {
        // The order in which documents are found on the disk.
        if key != "$natural" {
            walk.field(Place::Expression, key, value)?;
        }
    }
    walk.finish()
}

/// Checks all stages, also those inside others.
pub(super) fn check_pipeline(namespace: &Namespace, stages: &[Document]) -> Result<(), Failure> {
    let mut walk = Walk::new(Some(namespace));
    for stage in stages {
        walk.document(Place::Pipeline, stage)?;
    }
    walk.finish()
}

/// Checks an update operator, and the filter that it has for an operand.
pub(super) fn check_update_operator(operator: &str, operand: &Bson) -> Result<(), Failure> {
    if operator.starts_with('$') && !words::UPDATE.contains(&operator) {
        return unknown("update operator", operator);
    }
    let mut walk = Walk::new(None);
    if operator == "$pull" {
        walk.push(Place::Filter, operand);
    }
    walk.finish()
}

/// What is still to be looked at.
struct Walk<'a> {
    namespace: Option<&'a Namespace>,
    left: Vec<(Place, &'a Bson)>,
}

impl<'a> Walk<'a> {
    const fn new(namespace: Option<&'a Namespace>) -> Self {
        let left = Vec::new();
        Self { namespace, left }
    }

    fn push(&mut self, place: Place, value: &'a Bson) {
        if matches!(value, Bson::Document(_) | Bson::Array(_)) {
            self.left.push((place, value));
        }
    }

    fn finish(mut self) -> Result<(), Failure> {
        while let Some((place, value)) = self.left.pop() {
            match value {
                Bson::Document(document) => self.document(place, document)?,
                Bson::Array(items) => items.iter().for_each(|item| self.push(place, item)),
                _ => (),
            }
        }
        Ok(())
    }

    fn document(&mut self, place: Place, document: &'a Document) -> Result<(), Failure> {
        document
            .iter()
            .try_for_each(|(key, value)| self.field(place, key, value))
    }

    fn field(&mut self, place: Place, key: &'a str, value: &'a Bson) -> Result<(), Failure> {
        if JAVASCRIPT.contains(&key) && place != Place::Pipelines {
            return Err(Failure::Invalid(format!(
                "'{key}' runs JavaScript on the server, which is not allowed; write it with query \
                 or aggregation operators ($expr)"
            )));
        }
        match place {
            Place::Pipeline => return self.stage(key, value),
            Place::Pipelines => self.push(Place::Pipeline, value),
            _ if !key.starts_with('$') => self.push(place, value),
            Place::Filter => match key {
                "$expr" => self.push(Place::Expression, value),
                "$and" | "$or" | "$nor" | "$not" | "$elemMatch" | "$all" => {
                    self.push(Place::Filter, value);
                }
                // The others compare with data.
                _ if words::FILTER.contains(&key) => (),
                _ => return unknown("query operator", key),
            },
            Place::Projection if key == "$elemMatch" => self.push(Place::Filter, value),
            Place::Expression | Place::Projection => match key {
                "$literal" => (),
                _ if words::EXPRESSION.contains(&key) => self.push(Place::Expression, value),
                _ => return unknown("expression or accumulator", key),
            },
        }
        Ok(())
    }

    fn stage(&mut self, stage: &'a str, operand: &'a Bson) -> Result<(), Failure> {
        if let Some((_, why)) = STAGES.iter().find(|(name, _)| *name == stage) {
            return Err(Failure::Invalid(format!(
                "the stage '{stage}' is not allowed: {why}"
            )));
        }
        if !words::STAGE.contains(&stage) {
            return unknown("stage", stage);
        }
        if let Some(namespace) = self.namespace {
            check_joined(namespace, stage, operand)?;
        }
        match (stage, operand) {
            ("$match", filter) => self.push(Place::Filter, filter),
            ("$facet", pipelines) => self.push(Place::Pipelines, pipelines),
            (_, Bson::Document(fields)) => {
                for (field, value) in fields {
                    self.operand(stage, field, value)?;
                }
            }
            (_, other) => self.push(Place::Expression, other),
        }
        Ok(())
    }

    /// A field of a stage's operand: some are filters or pipelines, and the others are expressions.
    fn operand(&mut self, stage: &str, field: &'a str, value: &'a Bson) -> Result<(), Failure> {
        match (stage, field) {
            ("$lookup" | "$unionWith", "pipeline") => self.push(Place::Pipeline, value),
            ("$graphLookup", "restrictSearchWithMatch")
            | ("$geoNear", "query")
            | ("$vectorSearch", "filter") => self.push(Place::Filter, value),
            ("$rankFusion" | "$scoreFusion", "input") => match value {
                Bson::Document(input) => {
                    for (name, value) in input {
                        match name.as_str() {
                            "pipelines" => self.push(Place::Pipelines, value),
                            _ => self.field(Place::Expression, name, value)?,
                        }
                    }
                }
                other => self.push(Place::Expression, other),
            },
            _ => self.field(Place::Expression, field, value)?,
        }
        Ok(())
    }
}

/// Checks the collection that a stage joins. It is a name in the same database; the form with a
/// database of its own would reach the reserved ones.
fn check_joined(namespace: &Namespace, stage: &str, value: &Bson) -> Result<(), Failure> {
    let joined = match (stage, value) {
        ("$lookup" | "$graphLookup", Bson::Document(lookup)) => lookup.get("from"),
        ("$unionWith", Bson::Document(union)) if union.contains_key("db") => Some(value),
        ("$unionWith", Bson::Document(union)) => union.get("coll"),
        ("$unionWith", name) => Some(name),
        _ => None,
    };
    match joined {
        None => Ok(()),
        Some(Bson::String(name)) => Namespace::new(namespace.database(), name)
            .map(|_| ())
            .map_err(|why| Failure::Invalid(format!("'{stage}' cannot join: {why}"))),
        Some(_) => Err(Failure::Invalid(format!(
            "'{stage}' joins collections of the same database only; give the collection's name \
             as a string"
        ))),
    }
}

fn unknown(what: &str, name: &str) -> Result<(), Failure> {
    Err(Failure::Invalid(format!(
        "'{name}' is no {what} that Drumline allows: only those of MongoDB's public documentation \
         are, and of these none that runs code, writes or looks past the collections"
    )))
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    /// The language's words that no request may use, and some that it may get one day.
    const REFUSED: [&str; 20] = [
        "$where",
        "$function",
        "$accumulator",
        "$_internalJsEmit",
        "$_internalJsReduce",
        "$_internalSchemaEq",
        "$_internalExprEq",
        "$_internalFindAllValuesAtPath",
        "$_internalInhibitOptimization",
        "$mergeCursors",
        "$currentOp",
        "$listSessions",
        "$listLocalSessions",
        "$queryStats",
        "$out",
        "$merge",
        "$changeStream",
        "$const",
        "$Where",
        "$ofTomorrow",
    ];

    fn stages(stages: &[Document]) -> Result<(), Failure> {
        check_pipeline(&Namespace::parse("shop.orders").unwrap(), stages)
    }

    /// Each place for an expression with the word in it.
    fn expressions(word: &str) -> Vec<Result<(), Failure>> {
        let it = || doc! {word: ["$a", 1]};
        vec![
            check_filter(&doc! {"$expr": it()}),
            check_filter(&doc! {"$or": [{"a": 1}, {"$expr": {"$not": [it()]}}]}),
            check_projection(&doc! {"a": it()}),
            check_projection(&doc! {"a": {"b": it()}}),
            check_sort(&doc! {"a": it()}),
            stages(&[doc! {"$project": {"a": it()}}]),
            stages(&[doc! {"$group": {"_id": it()}}]),
            stages(&[doc! {"$group": {"_id": 1, "a": it()}}]),
            stages(&[doc! {"$replaceWith": it()}]),
            stages(&[doc! {"$set": {"a": [{"b": it()}]}}]),
            stages(&[doc! {"$setWindowFields": {"output": {"a": it()}}}]),
            stages(&[doc! {"$lookup": {"from": "x", "let": {"a": it()}, "pipeline": []}}]),
            stages(&[doc! {"$graphLookup": {"from": "x", "startWith": it()}}]),
            stages(&[doc! {"$match": {"$expr": it()}}]),
        ]
    }

    /// Each place for a word in a filter.
    fn filters(word: &str) -> Vec<Result<(), Failure>> {
        let it = || doc! {word: 1};
        vec![
            check_filter(&it()),
            check_filter(&doc! {"a": it()}),
            check_filter(&doc! {"a": {"$not": it()}}),
            check_filter(&doc! {"a": {"$elemMatch": it()}}),
            check_filter(&doc! {"$nor": [{"$and": [it()]}]}),
            check_projection(&doc! {"a": {"$elemMatch": it()}}),
            check_update_operator("$pull", &doc! {"a": it()}.into()),
            stages(&[doc! {"$match": it()}]),
            stages(&[doc! {"$geoNear": {"query": it()}}]),
            stages(&[doc! {"$graphLookup": {"from": "x", "restrictSearchWithMatch": it()}}]),
        ]
    }

    /// Each place for a stage.
    fn pipelines(word: &str) -> Vec<Result<(), Failure>> {
        let it = || doc! {word: {}};
        vec![
            stages(&[it()]),
            stages(&[doc! {"$match": {}}, it()]),
            stages(&[doc! {"$facet": {"a": [it()]}}]),
            stages(&[doc! {"$facet": {"$where": [it()]}}]),
            stages(&[doc! {"$lookup": {"from": "x", "pipeline": [it()]}}]),
            stages(&[doc! {"$unionWith": {"coll": "x", "pipeline": [it()]}}]),
            stages(&[doc! {"$facet": {"a": [{"$lookup": {"from": "x", "pipeline": [it()]}}]}}]),
            stages(&[doc! {"$rankFusion": {"input": {"pipelines": {"a": [it()]}}}}]),
        ]
    }

    #[track_caller]
    fn all_taken(word: &str, results: Vec<Result<(), Failure>>) {
        for (number, result) in results.into_iter().enumerate() {
            assert!(result.is_ok(), "{word} at place {number}: {result:?}");
        }
    }

    #[test]
    fn each_allowed_word_is_taken_at_each_place_of_its_kind() {
        assert!(words::EXPRESSION.len() + words::FILTER.len() + words::STAGE.len() > 250);
        for word in words::EXPRESSION {
            all_taken(word, expressions(word));
        }
        for word in words::FILTER {
            all_taken(word, filters(word));
        }
        for word in words::STAGE {
            // What joins needs a name, which these places do not give.
            if *word != "$unionWith" {
                all_taken(word, pipelines(word));
            }
        }
        for word in words::UPDATE {
            assert!(check_update_operator(word, &doc! {"a": 1}.into()).is_ok());
        }
    }

    #[test]
    fn each_other_word_is_refused_at_each_place_with_its_name() {
        for word in REFUSED {
            let update = check_update_operator(word, &doc! {"a": 1}.into());
            let results = expressions(word)
                .into_iter()
                .chain(filters(word))
                .chain(pipelines(word))
                .chain([update]);
            for (number, result) in results.enumerate() {
                let why = match result {
                    Err(why) => why.to_string(),
                    Ok(()) => panic!("{word} was taken at place {number}"),
                };
                assert!(why.contains(word), "{word} at place {number}: {why}");
            }
        }
    }

    #[test]
    fn data_is_not_read_as_the_language() {
        let data = || doc! {"$where": 1, "a": [{"$_internalJsEmit": 1}]};
        assert!(check_filter(&doc! {"a": {"$eq": data()}}).is_ok());
        assert!(check_filter(&doc! {"a": {"$in": [data()]}}).is_ok());
        assert!(check_filter(&doc! {"$jsonSchema": {"properties": {"$x": {}}}}).is_ok());
        assert!(stages(&[doc! {"$set": {"a": {"$literal": data()}}}]).is_ok());
        assert!(check_update_operator("$set", &doc! {"a": data()}.into()).is_ok());
        assert!(check_sort(&doc! {"$natural": -1}).is_ok());
    }
}
