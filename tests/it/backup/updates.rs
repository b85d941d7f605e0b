//! Every form that MongoDB's oplog has for an update is done again exactly.

use std::future::IntoFuture as _;

use bson::{Bson, Document, doc};
use mongodb::Client;
use mongodb::options::UpdateModifications;
use tokio::runtime::Runtime;

use super::dump::dump;
use super::{Backup, Target};
use crate::support::{Cluster, SMALL};

fn document(id: i32) -> Document {
    // Long enough that MongoDB tells what changed and not the whole document.
    doc! {
        "_id": id, "text": "x".repeat(300), "n": 1, "gone": 1,
        "o": {"0": 1, "n": {"deep": [1, 2, 3], "text": "y".repeat(100)}, "a.b": {"c": 1}},
        "arr": [1, {"k": 1, "text": "z".repeat(100)}, 3, 4, 5, [1, 2, 3]], "a.b": 1, "a": {"b": 2},
        "7": {"7": 7}, "$d": 1,
    }
}

/// Sets a field by its name, whatever that is.
fn named(field: &str, value: impl Into<Bson>) -> Vec<Document> {
    let set = doc! {"field": {"$literal": field}, "input": "$$ROOT", "value": value.into()};
    vec![doc! {"$replaceWith": {"$setField": set}}]
}

fn cut(path: &str, from: &str, length: i32) -> Vec<Document> {
    vec![doc! {"$set": {path: {"$slice": [from, length]}}}]
}

fn updates() -> Vec<UpdateModifications> {
    let operators = [
        doc! {"$set": {"n": 2}},
        doc! {"$set": {"new": 1, "o.new": 2, "o.n.new": 3}},
        doc! {"$unset": {"gone": "", "o.n.text": ""}},
        doc! {"$set": {"7.7": 8, "o.0": 9}},
        doc! {"$set": {"arr.0": 9, "arr.1.k": 9, "arr.5.2": 9}},
        doc! {"$set": {"arr.9": 9}},
        doc! {"$unset": {"arr.1.k": ""}},
        doc! {"$unset": {"arr.3": ""}},
        doc! {"$push": {"arr": 6}},
        doc! {"$push": {"arr": {"$each": [6, 7], "$position": 1, "$slice": -4}}},
        doc! {"$pop": {"arr": 1}},
        doc! {"$pull": {"arr": {"$gte": 4}}},
        doc! {"$addToSet": {"o.n.deep": 9}},
        doc! {"$rename": {"n": "o.renamed", "o.n.deep": "deep"}},
        doc! {"$mul": {"n": 2.5}, "$min": {"gone": 0}, "$bit": {"o.0": {"or": 6}}},
        doc! {"$set": {"o": 1}},
        doc! {"$set": {"arr": {"0": 1}}},
        doc! {"$set": {"a.b": 3, "a.c.d.e": 1}},
        doc! {"$currentDate": {"at": {"$type": "timestamp"}}},
    ];
    let pipelines = [
        named("a.b", 2),
        named("a.c", 2),
        named("$d", 2),
        named("$e", doc! {"$literal": {"$f": 1}}),
        named("", 1),
        named("7", doc! {"7": 8}),
        named("gone", "$$REMOVE"),
        named("a.b", "$$REMOVE"),
        cut("arr", "$arr", 2),
        cut("arr", "$arr", 6),
        cut("o.n.deep", "$o.n.deep", 1),
        vec![doc! {"$set": {"arr": {"$concatArrays": [{"$slice": ["$arr", 2]}, [9]]}}}],
        vec![doc! {"$set": {"arr": {"$concatArrays": ["$arr", [6, 7, 8]]}}}],
        vec![
            doc! {"$set": {"n": 5, "o.n.deep": [1, 2, 4]}},
            doc! {"$unset": "gone"},
        ],
        vec![doc! {"$replaceWith": {"_id": "$_id", "text": "$text", "n": 1, "z": 1, "a": "$a"}}],
    ];
    let operators = operators.into_iter().map(UpdateModifications::Document);
    operators
        .chain(pipelines.into_iter().map(UpdateModifications::Pipeline))
        .collect()
}

#[test]
fn every_form_of_update_is_done_again_exactly() {
    let runtime = Runtime::new().unwrap();
    let cluster = Cluster::start(&SMALL);
    let client = runtime.block_on(async {
        let client = Client::with_uri_str(&cluster.info.mongodb_uri).await;
        client.unwrap()
    });
    let collection = client.database("field").collection::<Document>("forms");
    let count = i32::try_from(updates().len()).unwrap();
    // Each alone, and each followed by each other one that comes after it by seven.
    runtime
        .block_on(
            collection
                .insert_many((0..2 * count).map(document))
                .into_future(),
        )
        .unwrap();
    let backup = Backup::of(&cluster);
    backup.ok(&[]);
    let mut changed = 0;
    for id in 0..2 * count {
        let first = usize::try_from(id % count).unwrap();
        let second = (first + 7) % updates().len();
        let all = [first, second];
        for form in &all[..if id < count { 1 } else { 2 }] {
            let update = updates().remove(*form);
            let done = collection.update_one(doc! {"_id": id}, update.clone());
            match runtime.block_on(done.into_future()) {
                Ok(done) => changed += done.modified_count,
                // What the first has made may not be fit for the second.
                Err(error) => assert!(id >= count, "{update:?}: {error}"),
            }
        }
    }
    let ran = backup.ok(&[]);
    assert_eq!(ran["events"].as_u64(), Some(changed), "{ran}");
    let target = Target::start();
    target.ok(backup.folder(), &[]);
    runtime.block_on(async {
        let restored = dump(&target.client().await, None).await;
        restored.expect(&dump(&client, None).await, "the end");
    });
}
