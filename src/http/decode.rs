//! A body and its action become a [`Call`].

use bson::{Bson, Document};

use super::action::Action;
use super::fields::{Fields, OneOrMany};
use crate::ejson;
use crate::model::limits::{DOCUMENT_BYTES_MAX, INSERT_DOCUMENTS_MAX, find_limit};
use crate::model::{Call, Failure, Namespace, Read, Update, Write};

/// Decodes the body of a request. What the call may do is [`crate::model::policy`]'s to say.
pub fn call(action: Action, body: &[u8]) -> Result<Call, Failure> {
    let object = ejson::object(body).map_err(Failure::Invalid)?;
    if body.len() * BSON_GROWTH_MAX > DOCUMENT_BYTES_MAX {
        check_sizes(&object)?;
    }
    let mut fields = Fields::new(object, action.name(), action.fields())?;
    // Drumline serves one replica set: any name for it will do.
    fields.optional_string("dataSource")?;
    let database = fields.string("database")?;
    let collection = fields.string("collection")?;
    let namespace = Namespace::new(&database, &collection)
        .map_err(|invalid| Failure::Invalid(invalid.to_string()))?;
    let read = |read| Call::Read(namespace.clone(), read);
    let write = |write| Call::Write(namespace.clone(), write);
    match action {
        Action::FindOne => find_one(&mut fields).map(read),
        Action::Find => find(&mut fields).map(read),
        Action::Aggregate => aggregate(&mut fields).map(read),
        Action::InsertOne => insert_one(&mut fields).map(write),
        Action::InsertMany => insert_many(&mut fields).map(write),
        Action::UpdateOne => update(&mut fields, false).map(write),
        Action::UpdateMany => update(&mut fields, true).map(write),
        Action::ReplaceOne => replace(&mut fields).map(write),
        Action::DeleteOne => delete(&mut fields, false).map(write),
        Action::DeleteMany => delete(&mut fields, true).map(write),
    }
}

/// How much larger than its JSON a value is in BSON: `1,` becomes 13 bytes. Only a body that could
/// hold a document past the bound is looked at.
const BSON_GROWTH_MAX: usize = 7;

/// Refuses a document that MongoDB could not hold, before it is in a batch with others.
fn check_sizes(body: &Document) -> Result<(), Failure> {
    let is_large = |document: &Document| {
        let bytes = document.to_vec();
        bytes.is_ok_and(|bytes| bytes.len() > DOCUMENT_BYTES_MAX)
    };
    let large = body.iter().find(|(_, value)| match value {
        Bson::Document(document) => is_large(document),
        Bson::Array(items) => items.iter().filter_map(Bson::as_document).any(is_large),
        _ => false,
    });
    match large {
        Some((field, _)) => Err(Failure::TooLarge(format!(
            "'{}' is larger than the {} KiB of BSON that a document can have",
            field.escape_debug(),
            DOCUMENT_BYTES_MAX >> 10
        ))),
        None => Ok(()),
    }
}

fn find_one(fields: &mut Fields) -> Result<Read, Failure> {
    Ok(Read::FindOne {
        filter: fields.optional_document("filter")?.unwrap_or_default(),
        projection: fields.optional_document("projection")?,
        sort: fields.optional_document("sort")?,
    })
}

fn find(fields: &mut Fields) -> Result<Read, Failure> {
    Ok(Read::Find {
        filter: fields.optional_document("filter")?.unwrap_or_default(),
        projection: fields.optional_document("projection")?,
        sort: fields.optional_document("sort")?,
        limit: limit(fields)?,
        skip: fields.count("skip")?.unwrap_or(0),
    })
}

fn aggregate(fields: &mut Fields) -> Result<Read, Failure> {
    Ok(Read::Aggregate {
        pipeline: fields.documents("pipeline")?,
    })
}

fn limit(fields: &mut Fields) -> Result<i64, Failure> {
    find_limit(fields.count("limit")?).map_err(|why| {
        Failure::Invalid(format!(
            "'limit' is {why}; read on with 'skip' or with a filter on the sort key"
        ))
    })
}

fn insert_one(fields: &mut Fields) -> Result<Write, Failure> {
    Ok(Write::Insert {
        documents: vec![fields.document("document")?],
    })
}

fn insert_many(fields: &mut Fields) -> Result<Write, Failure> {
    let documents = fields.documents("documents")?;
    match documents.len() {
        0 => Err(Failure::Invalid(
            "'documents' is empty; insertMany needs at least one".into(),
        )),
        count if count > INSERT_DOCUMENTS_MAX => Err(Failure::TooLarge(format!(
            "'documents' holds {count}; one insertMany takes up to {INSERT_DOCUMENTS_MAX}, so send several"
        ))),
        _ => Ok(Write::Insert { documents }),
    }
}

fn update(fields: &mut Fields, many: bool) -> Result<Write, Failure> {
    Ok(Write::Update {
        filter: fields.filter()?,
        update: operators_or_stages(fields)?,
        many,
        upsert: fields.flag("upsert")?,
    })
}

fn replace(fields: &mut Fields) -> Result<Write, Failure> {
    Ok(Write::Replace {
        filter: fields.filter()?,
        replacement: replacement(fields)?,
        upsert: fields.flag("upsert")?,
    })
}

fn delete(fields: &mut Fields, many: bool) -> Result<Write, Failure> {
    Ok(Write::Delete {
        filter: fields.filter()?,
        many,
    })
}

fn operators_or_stages(fields: &mut Fields) -> Result<Update, Failure> {
    let operators = match fields.document_or_documents("update")? {
        OneOrMany::Many(stages) if stages.is_empty() => {
            return Err(Failure::Invalid("'update' holds no stage".into()));
        }
        OneOrMany::Many(stages) => return Ok(Update::Pipeline(stages)),
        OneOrMany::One(operators) => operators,
    };
    if operators.is_empty() {
        return Err(Failure::Invalid(
            "'update' holds no operator, like {\"$set\": {...}}".into(),
        ));
    }
    match operators.iter().find(|(key, _)| !key.starts_with('$')) {
        Some((key, _)) => Err(Failure::Invalid(format!(
            "'update' holds the plain field '{}'; use operators, like {{\"$set\": {{...}}}}, or replaceOne for a whole document",
            key.escape_debug()
        ))),
        None => check_operands(operators),
    }
}

/// Every update operator takes an object. MongoDB says so too, but only once it runs.
fn check_operands(operators: Document) -> Result<Update, Failure> {
    let plain = |value: &Bson| !matches!(value, Bson::Document(_));
    match operators.iter().find(|(_, value)| plain(value)) {
        Some((key, _)) => Err(Failure::Invalid(format!(
            "'update.{}' must be an object of fields",
            key.escape_debug()
        ))),
        None => Ok(Update::Operators(operators)),
    }
}

fn replacement(fields: &mut Fields) -> Result<Document, Failure> {
    let replacement = fields.document("replacement")?;
    match replacement.keys().find(|key| key.starts_with('$')) {
        Some(key) => Err(Failure::Invalid(format!(
            "'replacement' holds the operator '{}'; a replacement is a whole document, use updateOne for operators",
            key.escape_debug()
        ))),
        None => Ok(replacement),
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    fn decode(action: Action, fields: &str) -> Result<Call, Failure> {
        let comma = if fields.is_empty() { "" } else { "," };
        let body = format!(
            r#"{{"dataSource":"Cluster0","database":"shop","collection":"orders"{comma}{fields}}}"#
        );
        call(action, body.as_bytes())
    }

    fn read(read: Read) -> Result<Call, Failure> {
        Ok(Call::Read(Namespace::parse("shop.orders").unwrap(), read))
    }

    fn write(write: Write) -> Result<Call, Failure> {
        Ok(Call::Write(Namespace::parse("shop.orders").unwrap(), write))
    }

    #[track_caller]
    fn assert_invalid(action: Action, fields: &str, fragment: &str) {
        match decode(action, fields) {
            Err(Failure::Invalid(text)) if text.contains(fragment) => {}
            other => panic!("{} {fields} gave {other:?}", action.name()),
        }
    }

    #[test]
    fn reads_have_their_defaults() {
        let filter = Document::new;
        let one = Read::FindOne {
            filter: filter(),
            projection: None,
            sort: None,
        };
        assert_eq!(decode(Action::FindOne, ""), read(one));
        let find = |limit, skip| Read::Find {
            filter: filter(),
            projection: None,
            sort: None,
            limit,
            skip,
        };
        for fields in [
            "",
            r#""limit":0"#,
            r#""limit":null,"sort":null,"skip":null"#,
        ] {
            assert_eq!(
                decode(Action::Find, fields),
                read(find(1_000, 0)),
                "{fields}"
            );
        }
        for fields in [
            r#""limit":2,"skip":3"#,
            r#""limit":2.0,"skip":3e0"#,
            r#""limit":{"$numberLong":"2"},"skip":{"$numberDouble":"3.0"}"#,
        ] {
            assert_eq!(decode(Action::Find, fields), read(find(2, 3)), "{fields}");
        }
    }

    #[test]
    fn projections_and_sorts_pass_through() {
        let found = decode(
            Action::FindOne,
            r#""filter":{"a":1},"projection":{"a":2,"b":-1},"sort":{"b":-1}"#,
        );
        let expected = Read::FindOne {
            filter: doc! {"a": 1},
            projection: Some(doc! {"a": 2, "b": -1}),
            sort: Some(doc! {"b": -1}),
        };
        assert_eq!(found, read(expected));
    }

    #[test]
    fn an_update_is_operators_or_stages() {
        let update = |update, many, upsert| Write::Update {
            filter: doc! {},
            update,
            many,
            upsert,
        };
        assert_eq!(
            decode(Action::UpdateOne, r#""update":{"$set":{"a":1}}"#),
            write(update(
                Update::Operators(doc! {"$set": {"a": 1}}),
                false,
                false
            ))
        );
        assert_eq!(
            decode(
                Action::UpdateMany,
                r#""update":[{"$set":{"a":1}}],"upsert":true"#
            ),
            write(update(
                Update::Pipeline(vec![doc! {"$set": {"a": 1}}]),
                true,
                true
            ))
        );
        assert_invalid(Action::UpdateOne, r#""update":{"a":1}"#, "replaceOne");
        assert_invalid(
            Action::UpdateOne,
            r#""update":{"$set":{"a":1},"b":1}"#,
            "'b'",
        );
        assert_invalid(Action::UpdateOne, r#""update":{"$set":1}"#, "'update.$set'");
        assert_invalid(Action::UpdateOne, r#""update":{}"#, "no operator");
        assert_invalid(Action::UpdateOne, r#""update":[]"#, "no stage");
        assert_invalid(Action::UpdateOne, r#""update":[1]"#, "'update.0'");
        assert_invalid(
            Action::ReplaceOne,
            r#""replacement":{"$set":{}}"#,
            "updateOne",
        );
    }

    #[test]
    fn a_null_filter_is_every_document_to_those_who_only_read() {
        for (action, fields) in [
            (Action::DeleteOne, ""),
            (Action::DeleteMany, ""),
            (Action::UpdateOne, r#","update":{"$set":{"a":1}}"#),
            (Action::UpdateMany, r#","update":{"$set":{"a":1}}"#),
            (Action::ReplaceOne, r#","replacement":{}"#),
        ] {
            let fields = format!(r#""filter":null{fields}"#);
            assert_invalid(action, &fields, "'filter' must be an object, not null");
        }
        for action in [Action::FindOne, Action::Find] {
            let bare = decode(action, "");
            assert!(bare.is_ok());
            assert_eq!(decode(action, r#""filter":null"#), bare);
        }
        let all = Write::Delete {
            filter: doc! {},
            many: true,
        };
        assert_eq!(decode(Action::DeleteMany, ""), write(all));
    }

    #[test]
    fn a_field_of_another_action_may_be_there_as_null() {
        let all: Vec<_> = Action::ALL
            .iter()
            .flat_map(|action| action.fields())
            .collect();
        for action in Action::ALL {
            let own = match action {
                Action::FindOne | Action::Find | Action::DeleteOne | Action::DeleteMany => "",
                Action::InsertOne => r#""document":{}"#,
                Action::InsertMany => r#""documents":[{}]"#,
                Action::UpdateOne | Action::UpdateMany => r#""update":{"$set":{"a":1}}"#,
                Action::ReplaceOne => r#""replacement":{}"#,
                Action::Aggregate => r#""pipeline":[]"#,
            };
            let bare = decode(action, own);
            assert!(bare.is_ok(), "{}: {bare:?}", action.name());
            for name in &all {
                let writes = !action.is_read() && **name == "filter";
                if own.contains(&format!("\"{name}\""))
                    || (writes && action.fields().contains(name))
                {
                    continue;
                }
                let comma = if own.is_empty() { "" } else { "," };
                let fields = format!(r#""{name}":null{comma}{own}"#);
                assert_eq!(decode(action, &fields), bare, "{} {fields}", action.name());
            }
        }
        assert_invalid(Action::FindOne, r#""hint":null"#, "no field 'hint'");
    }

    #[test]
    fn bounds_are_named() {
        assert_invalid(Action::Find, r#""limit":50001"#, "at most 50000");
        assert_invalid(Action::Find, r#""limit":-1"#, "-1 is not");
        assert_invalid(Action::Find, r#""skip":0.5"#, "0.5 is not");
        assert_invalid(Action::Find, r#""skip":1e300"#, "whole number");
        assert_invalid(Action::InsertMany, r#""documents":[]"#, "empty");
        let many = format!(
            r#""documents":[{}]"#,
            vec!["{}"; INSERT_DOCUMENTS_MAX + 1].join(",")
        );
        let refused = decode(Action::InsertMany, &many);
        assert!(matches!(refused, Err(Failure::TooLarge(_))));
    }

    #[test]
    fn unknown_missing_and_mistyped_fields_are_named() {
        assert_invalid(Action::FindOne, r#""limit":1"#, "no field 'limit'");
        assert_invalid(Action::InsertOne, "", "'document' is missing");
        assert_invalid(
            Action::InsertOne,
            r#""document":{"$oid":"0102030405060708090a0b0c"}"#,
            "an ObjectId",
        );
        let unnamed = call(Action::FindOne, br#"{"database":"shop"}"#);
        assert_eq!(
            unnamed,
            Err(Failure::Invalid(
                "'collection' is missing; it must be a string".into()
            ))
        );
    }
}
