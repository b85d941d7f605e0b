//! What Drumline does not let a request do, decided from the request alone.
//!
//! Rules apply where MongoDB would act on a word, never to data: a document that is stored may
//! hold `$where` as a text or as a key. `language` has the words that a request may use. Documents are walked without recursion, so depth costs
//! nothing here.

use bson::{Bson, Document};

use super::limits::KEY_BYTES_MAX;
use super::{Call, Failure, Namespace, Read, Update, Write, language};

/// The field of documents that holds their stamp.
pub const STAMP_FIELD: &str = "_stamp";

/// The database that holds Drumline's log.
pub const LOG_DATABASE: &str = "drumline";

/// MongoDB's own databases, and Drumline's.
const RESERVED_DATABASES: [&str; 4] = ["admin", "local", "config", LOG_DATABASE];

/// Refuses what a call must not do; the text says what to do instead.
pub fn check(call: &Call, stamp_field: &str) -> Result<(), Failure> {
    match call {
        Call::Write(namespace, write) => {
            check_database(namespace)?;
            check_keys(write)?;
            check_write(namespace, write, stamp_field)
        }
        Call::Read(namespace, read) => {
            check_database(namespace)?;
            check_read(namespace, read)
        }
    }
}

/// The stages that MongoDB lets a stream of changes have.
const WATCH_STAGES: [&str; 8] = [
    "$addFields",
    "$match",
    "$project",
    "$redact",
    "$replaceRoot",
    "$replaceWith",
    "$set",
    "$unset",
];

/// Refuses what must not be watched, and a pipeline that a stream of changes cannot have.
pub fn check_watch(namespace: &Namespace, pipeline: &[Document]) -> Result<(), Failure> {
    check_database(namespace)?;
    let stages = pipeline.iter().flat_map(Document::keys);
    let is_known = |stage: &str| WATCH_STAGES.contains(&stage);
    if let Some(stage) = stages.into_iter().find(|stage| !is_known(stage)) {
        return refuse(format!(
            "a stream of changes takes no stage '{}': its stages are {}",
            stage.escape_debug(),
            WATCH_STAGES.join(", ")
        ));
    }
    language::check_pipeline(namespace, pipeline)
}

/// What a request names goes into the log, beside what its neighbours name.
fn check_keys(write: &Write) -> Result<(), Failure> {
    if write.key_bytes() <= KEY_BYTES_MAX {
        return Ok(());
    }
    refuse(format!(
        "the _id values take more than {KEY_BYTES_MAX} bytes, the most that one request may have: split it, \
         or use shorter ones"
    ))
}

fn check_database(namespace: &Namespace) -> Result<(), Failure> {
    let database = namespace.database();
    // MongoDB takes two names that differ only in case for the same database.
    if !RESERVED_DATABASES
        .iter()
        .any(|name| name.eq_ignore_ascii_case(database))
    {
        return Ok(());
    }
    refuse(format!(
        "the database '{database}' is reserved; use another one"
    ))
}

fn check_read(namespace: &Namespace, read: &Read) -> Result<(), Failure> {
    match read {
        Read::FindOne {
            filter,
            projection,
            sort,
        }
        | Read::Find {
            filter,
            projection,
            sort,
            ..
        } => {
            language::check_filter(filter)?;
            projection
                .as_ref()
                .map_or(Ok(()), language::check_projection)?;
            sort.as_ref().map_or(Ok(()), language::check_sort)
        }
        Read::Aggregate { pipeline } => {
            check_description(pipeline)?;
            language::check_pipeline(namespace, pipeline)
        }
    }
}

fn check_write(namespace: &Namespace, write: &Write, stamp: &str) -> Result<(), Failure> {
    match write {
        Write::Insert { documents } => documents
            .iter()
            .try_for_each(|document| check_stored(document, stamp)),
        Write::Replace {
            filter,
            replacement,
            upsert,
        } => {
            check_filter(filter, *upsert, stamp)?;
            check_stored(replacement, stamp)
        }
        Write::Update {
            filter,
            update,
            upsert,
            ..
        } => {
            check_filter(filter, *upsert, stamp)?;
            check_update(namespace, update, stamp)
        }
        Write::Delete { filter, .. } => language::check_filter(filter),
    }
}

fn check_update(namespace: &Namespace, update: &Update, stamp: &str) -> Result<(), Failure> {
    match update {
        Update::Operators(operators) => operators
            .iter()
            .try_for_each(|(operator, fields)| check_operator(operator, fields, stamp)),
        Update::Pipeline(stages) => {
            language::check_pipeline(namespace, stages)?;
            stages
                .iter()
                .flatten()
                .try_for_each(|(stage, value)| check_stage_target(stage, value, stamp))
        }
    }
}

/// A filter of an upsert also says what the new document holds.
fn check_filter(filter: &Document, upsert: bool, stamp: &str) -> Result<(), Failure> {
    language::check_filter(filter)?;
    if upsert && keys(filter).any(|(key, _)| is_stamp(key, stamp)) {
        return refuse(format!(
            "the filter of an upsert must not hold '{stamp}': the new document would take it over, and only Drumline writes it"
        ));
    }
    Ok(())
}

/// Stages that describe a collection rather than read it. MongoDB runs them outside a snapshot.
pub const DESCRIBING_STAGES: [&str; 4] = [
    "$collStats",
    "$indexStats",
    "$planCacheStats",
    "$listSampledQueries",
];
/// Stages that read further collections.
const READING_STAGES: [&str; 4] = ["$unionWith", "$lookup", "$graphLookup", "$facet"];

/// What runs outside a snapshot shows what a failover may take back: that is fine for statistics, not
/// for documents.
fn check_description(stages: &[Document]) -> Result<(), Failure> {
    let mut names = stages.iter().flat_map(Document::keys).map(String::as_str);
    let first = names.next().unwrap_or_default();
    if !DESCRIBING_STAGES.contains(&first) {
        return Ok(());
    }
    match names.find(|name| READING_STAGES.contains(name)) {
        Some(name) => refuse(format!(
            "'{name}' cannot stand behind '{first}': run two requests"
        )),
        None => Ok(()),
    }
}

/// Checks the operand of an update operator: the fields it names are the ones it changes.
fn check_operator(operator: &str, fields: &Bson, stamp: &str) -> Result<(), Failure> {
    language::check_update_operator(operator, fields)?;
    let Bson::Document(fields) = fields else {
        return Ok(());
    };
    if fields.keys().any(|field| is_stamp(field, stamp)) {
        return refuse_stamp(stamp);
    }
    match operator {
        "$rename" if fields.values().any(|to| names_stamp(to, stamp)) => refuse_stamp(stamp),
        _ => Ok(()),
    }
}

/// Checks what a stage of an updating pipeline writes.
fn check_stage_target(stage: &str, value: &Bson, stamp: &str) -> Result<(), Failure> {
    let writes = match (stage, value) {
        ("$replaceRoot", Bson::Document(root)) => root
            .get_document("newRoot")
            .is_ok_and(|root| holds_stamp(root, stamp)),
        ("$set" | "$addFields" | "$project" | "$replaceWith", Bson::Document(fields)) => {
            holds_stamp(fields, stamp)
        }
        ("$unset", Bson::Array(fields)) => fields.iter().any(|field| names_stamp(field, stamp)),
        ("$unset", field) => names_stamp(field, stamp),
        _ => false,
    };
    if writes { refuse_stamp(stamp) } else { Ok(()) }
}

/// A document may come back with the stamp that it was read with: it gets a new one. Anything else
/// under that name would be lost.
fn check_stored(document: &Document, stamp: &str) -> Result<(), Failure> {
    let is_read = |key: &str, value| key == stamp && is_stamp_value(value);
    match document
        .iter()
        .find(|(key, value)| is_stamp(key, stamp) && !is_read(key, value))
    {
        Some(_) => refuse_stamp(stamp),
        None => Ok(()),
    }
}

/// Whether a value has the form of a stamp, or of a part of one, whichever way its number came back.
pub fn is_stamp_value(value: &Bson) -> bool {
    let part = |key: &str, value: &Bson| match key {
        "t" => matches!(value, Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_)),
        "n" => matches!(value, Bson::String(_)),
        _ => false,
    };
    value.as_document().is_some_and(|document| {
        !document.is_empty() && document.iter().all(|(key, value)| part(key, value))
    })
}

fn holds_stamp(document: &Document, stamp: &str) -> bool {
    document.keys().any(|key| is_stamp(key, stamp))
}

fn names_stamp(value: &Bson, stamp: &str) -> bool {
    value.as_str().is_some_and(|path| is_stamp(path, stamp))
}

/// Whether a path is the stamp field or something in it.
fn is_stamp(path: &str, stamp: &str) -> bool {
    path.strip_prefix(stamp)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn refuse_stamp(stamp: &str) -> Result<(), Failure> {
    refuse(format!(
        "the field '{stamp}' is Drumline's own; leave it out, each write sets it anew"
    ))
}

fn refuse(why: String) -> Result<(), Failure> {
    Err(Failure::Invalid(why))
}

/// All keys in a document with their values, at every depth.
fn keys(document: &Document) -> impl Iterator<Item = (&str, &Bson)> {
    let mut left: Vec<Children<'_>> = vec![Children::Fields(document.iter())];
    std::iter::from_fn(move || {
        while let Some(children) = left.last_mut() {
            let Some((key, value)) = children.next() else {
                left.pop();
                continue;
            };
            left.extend(Children::of(value));
            if let Some(key) = key {
                return Some((key, value));
            }
        }
        None
    })
}

/// What is directly inside a value: fields with keys, or items without.
enum Children<'a> {
    Fields(bson::document::Iter<'a>),
    Items(std::slice::Iter<'a, Bson>),
}

impl<'a> Children<'a> {
    fn of(value: &'a Bson) -> Option<Self> {
        match value {
            Bson::Document(document) => Some(Self::Fields(document.iter())),
            Bson::Array(items) => Some(Self::Items(items.iter())),
            _ => None,
        }
    }

    fn next(&mut self) -> Option<(Option<&'a str>, &'a Bson)> {
        match self {
            Self::Fields(fields) => fields
                .next()
                .map(|(key, value)| (Some(key.as_str()), value)),
            Self::Items(items) => items.next().map(|value| (None, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    fn namespace() -> Namespace {
        Namespace::parse("shop.orders").unwrap()
    }

    fn refusal(call: &Call) -> Option<String> {
        check(call, STAMP_FIELD)
            .err()
            .map(|failure| failure.to_string())
    }

    #[test]
    fn only_what_filters_and_shapes_may_stand_in_a_watch() {
        let watch = |stage: Document| check_watch(&namespace(), &[stage]);
        assert!(watch(doc! {"$match": {"operationType": "insert"}}).is_ok());
        assert!(watch(doc! {"$project": {"fullDocument.a": 1}}).is_ok());
        for stage in [
            "$lookup",
            "$group",
            "$out",
            "$changeStream",
            "$limit",
            "match",
        ] {
            let why = watch(doc! {stage: {}}).unwrap_err().to_string();
            assert!(why.contains(stage), "{why}");
        }
        assert!(watch(doc! {"$match": {"$where": "1"}}).is_err());
        assert!(watch(doc! {"$set": {"a": {"$function": {}}}}).is_err());
        for database in ["drumline", "Drumline", "admin", "local", "config"] {
            let namespace = Namespace::new(database, "log").unwrap();
            assert!(check_watch(&namespace, &[]).is_err(), "{database}");
        }
    }

    fn find(filter: Document) -> Call {
        let read = Read::FindOne {
            filter,
            projection: None,
            sort: None,
        };
        Call::Read(namespace(), read)
    }

    fn aggregate(stage: Document) -> Call {
        let pipeline = vec![doc! {"$match": {}}, stage];
        Call::Read(namespace(), Read::Aggregate { pipeline })
    }

    fn update(filter: Document, update: Update, upsert: bool) -> Call {
        let write = Write::Update {
            filter,
            update,
            many: false,
            upsert,
        };
        Call::Write(namespace(), write)
    }

    fn operators(operators: Document) -> Call {
        update(doc! {}, Update::Operators(operators), false)
    }

    fn stage(stage: Document) -> Call {
        update(doc! {}, Update::Pipeline(vec![stage]), false)
    }

    fn insert(document: Document) -> Call {
        let documents = vec![document];
        Call::Write(namespace(), Write::Insert { documents })
    }

    #[track_caller]
    fn assert_refused(call: &Call, fragment: &str) {
        let text = refusal(call).unwrap_or_else(|| panic!("was taken: {call:?}"));
        assert!(text.contains(fragment), "{text:?} lacks {fragment:?}");
    }

    #[test]
    fn reserved_databases_are_refused_for_reads_and_writes() {
        for database in ["admin", "local", "config", "drumline", "Admin"] {
            let namespace = Namespace::new(database, "c").unwrap();
            let write = Write::Delete {
                filter: doc! {},
                many: true,
            };
            let pipeline = vec![];
            assert_refused(&Call::Write(namespace.clone(), write), "reserved");
            assert_refused(
                &Call::Read(namespace, Read::Aggregate { pipeline }),
                "reserved",
            );
        }
    }

    #[test]
    fn javascript_is_refused_wherever_it_would_run() {
        let function = doc! {"$function": {"body": "f", "args": [], "lang": "js"}};
        assert_refused(&find(doc! {"$where": "1"}), "$where");
        assert_refused(&find(doc! {"$or": [{"a": 1}, {"$where": "1"}]}), "$where");
        assert_refused(
            &find(doc! {"$expr": {"$eq": [1, function.clone()]}}),
            "JavaScript",
        );
        assert_refused(
            &aggregate(doc! {"$group": {"_id": 1, "x": {"$accumulator": {}}}}),
            "$accumulator",
        );
        assert_refused(&stage(doc! {"$set": {"a": function}}), "$function");
        assert_refused(&operators(doc! {"$pull": {"a": {"$where": "1"}}}), "$where");
        let delete = Write::Delete {
            filter: doc! {"$nor": [{"$where": "1"}]},
            many: true,
        };
        assert_refused(&Call::Write(namespace(), delete), "$where");
        let sort = Read::Find {
            filter: doc! {},
            projection: Some(doc! {"a": {"$function": {}}}),
            sort: None,
            limit: 1,
            skip: 0,
        };
        assert_refused(&Call::Read(namespace(), sort), "$function");
    }

    #[test]
    fn words_in_data_are_data() {
        let data = doc! {"a": "$where", "b": {"$where": "1"}, "$out": [{"$function": 1}]};
        assert_eq!(refusal(&insert(data.clone())), None);
        assert_eq!(refusal(&operators(doc! {"$set": {"a": data}})), None);
        assert_eq!(refusal(&find(doc! {"a": "$where", "b": "_stamp"})), None);
        assert_eq!(refusal(&find(doc! {"_stamp.t": {"$gt": 5}})), None);
        assert_eq!(
            refusal(&insert(doc! {"_stamped": 1, "a": {"_stamp": 1}})),
            None
        );
    }

    #[test]
    fn stages_that_write_are_refused_at_any_depth() {
        let out = doc! {"$out": "x"};
        let merge = doc! {"$merge": {"into": "x"}};
        assert_refused(&aggregate(out.clone()), "insert the documents");
        assert_refused(&aggregate(merge.clone()), "$merge");
        assert_refused(&aggregate(doc! {"$facet": {"a": [out.clone()]}}), "$out");
        assert_refused(
            &aggregate(doc! {"$unionWith": {"coll": "x", "pipeline": [merge]}}),
            "$merge",
        );
        let inner = doc! {"$lookup": {"from": "x", "as": "y", "pipeline": [out]}};
        assert_refused(&aggregate(doc! {"$facet": {"a": [inner]}}), "$out");
        assert_refused(&aggregate(doc! {"$changeStream": {}}), "drumline watch");
        assert_eq!(refusal(&aggregate(doc! {"$project": {"a": "$out"}})), None);
    }

    #[test]
    fn a_description_of_a_collection_reads_no_other() {
        let pipeline = |stages: Vec<Document>| {
            let read = Read::Aggregate { pipeline: stages };
            refusal(&Call::Read(namespace(), read))
        };
        let describe = doc! {"$collStats": {"count": {}}};
        assert_eq!(pipeline(vec![describe.clone(), doc! {"$match": {}}]), None);
        let joined = vec![describe, doc! {"$unionWith": "other"}];
        assert!(pipeline(joined).is_some());
    }

    #[test]
    fn giant_ids_are_refused_before_they_reach_the_log() {
        let giant = "x".repeat(KEY_BYTES_MAX);
        assert!(refusal(&insert(doc! {"_id": &giant})).is_some());
        assert!(refusal(&operators(doc! {"$set": {"a": &giant}})).is_none());
        let set = Update::Operators(doc! {"$set": {"a": 1}});
        assert!(refusal(&update(doc! {"_id": {"$eq": giant}}, set, true)).is_some());
    }

    #[test]
    fn joins_stay_in_the_database_and_off_system_collections() {
        let lookup = |from: Bson| aggregate(doc! {"$lookup": {"from": from, "as": "x"}});
        assert_eq!(refusal(&lookup("items".into())), None);
        assert_eq!(refusal(&aggregate(doc! {"$unionWith": "items"})), None);
        assert_refused(&lookup("system.users".into()), "system.");
        assert_refused(
            &lookup(doc! {"db": "local", "coll": "oplog.rs"}.into()),
            "same database",
        );
        assert_refused(
            &aggregate(doc! {"$unionWith": {"db": "admin", "coll": "x"}}),
            "same database",
        );
        assert_refused(
            &aggregate(doc! {"$facet": {"a": [{"$unionWith": "system.views"}]}}),
            "system.",
        );
        assert_refused(
            &aggregate(doc! {"$graphLookup": {"from": "a$b"}}),
            "holds '$'",
        );
    }

    #[test]
    fn only_drumline_writes_the_stamp() {
        let replace = Write::Replace {
            filter: doc! {},
            replacement: doc! {"_stamp": 1},
            upsert: false,
        };
        let refused = [
            insert(doc! {"_stamp": {}}),
            insert(doc! {"_stamp": 1}),
            insert(doc! {"_stamp": {"t": 1, "mine": 1}}),
            insert(doc! {"_stamp.t": 1}),
            Call::Write(namespace(), replace),
            operators(doc! {"$set": {"_stamp": 1}}),
            operators(doc! {"$inc": {"_stamp.t": 1}}),
            operators(doc! {"$unset": {"_stamp": ""}}),
            operators(doc! {"$setOnInsert": {"_stamp.n": "x"}}),
            operators(doc! {"$rename": {"a": "_stamp.t"}}),
            operators(doc! {"$rename": {"_stamp": "a"}}),
            stage(doc! {"$set": {"_stamp": 1}}),
            stage(doc! {"$addFields": {"_stamp.t": 1}}),
            stage(doc! {"$unset": "_stamp"}),
            stage(doc! {"$unset": ["a", "_stamp.t"]}),
            stage(doc! {"$project": {"_stamp": 0}}),
            stage(doc! {"$replaceWith": {"_stamp": 1}}),
            stage(doc! {"$replaceRoot": {"newRoot": {"_stamp": 1}}}),
        ];
        for call in &refused {
            assert_refused(call, "'_stamp'");
        }
        let own = check(&insert(doc! {"_seq": 1}), "_seq");
        assert!(
            own.is_err(),
            "another name for the field, which no user can give"
        );
    }

    #[test]
    fn a_document_may_come_back_with_its_stamp() {
        for stamp in [
            doc! {"t": 5_i64, "n": "n1"},
            doc! {"t": 5, "n": "n1"},
            doc! {"t": 5.0},
        ] {
            let document = doc! {"a": 1, "_stamp": stamp};
            assert_eq!(refusal(&insert(document.clone())), None);
            let replace = Write::Replace {
                filter: doc! {},
                replacement: document,
                upsert: true,
            };
            assert_eq!(refusal(&Call::Write(namespace(), replace)), None);
        }
    }

    #[test]
    fn an_upsert_takes_no_stamp_from_its_filter() {
        let set = || Update::Operators(doc! {"$set": {"a": 1}});
        let by_stamp = || doc! {"$and": [{"_stamp.t": 5}]};
        assert_refused(&update(by_stamp(), set(), true), "upsert");
        assert_eq!(refusal(&update(by_stamp(), set(), false)), None);
    }

    #[test]
    fn the_deepest_operator_is_found() {
        let mut filter = doc! {"$where": "1"};
        for _ in 0..1_000 {
            filter = doc! {"$and": [filter]};
        }
        assert_refused(&find(filter), "$where");
    }
}
