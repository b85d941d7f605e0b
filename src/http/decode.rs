//! A body and its action become a [`Call`].

use bson::{Bson, Document};

use super::action::Action;
use super::ejson;
use super::fields::{Fields, OneOrMany};
use crate::model::limits::{FIND_DOCUMENTS_DEFAULT, FIND_DOCUMENTS_MAX, INSERT_DOCUMENTS_MAX};
use crate::model::{Call, Failure, Namespace, Read, Update, Write};

/// Decodes the body of a request. What the call may do is [`crate::model::policy`]'s to say.
pub fn call(action: Action, body: &[u8]) -> Result<Call, Failure> {
    let body = ejson::object(body).map_err(Failure::Invalid)?;
    let mut fields = Fields::new(body, action.name(), action.fields())?;
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

fn find_one(fields: &mut Fields) -> Result<Read, Failure> {
    Ok(Read::FindOne {
        filter: fields.filter()?,
        projection: fields.optional_document("projection")?,
        sort: fields.optional_document("sort")?,
    })
}

fn find(fields: &mut Fields) -> Result<Read, Failure> {
    Ok(Read::Find {
        filter: fields.filter()?,
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
    match fields.count("limit")? {
        None | Some(0) => Ok(FIND_DOCUMENTS_DEFAULT),
        Some(limit) if limit <= FIND_DOCUMENTS_MAX => Ok(limit),
        Some(limit) => Err(Failure::Invalid(format!(
            "'limit' is at most {FIND_DOCUMENTS_MAX}, {limit} is more; read on with 'skip' or with a filter on the sort key"
        ))),
    }
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
