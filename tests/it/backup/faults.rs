//! What is damaged, foreign or not fit is refused in one line, and nothing is changed.

use std::fs;

use bson::{Document, doc};
use mongodb::Client;
use tokio::runtime::Runtime;

use super::{Backup, Target, files_in, uri_file};
use crate::support::{Cluster, Outcome, SMALL};

pub(super) async fn insert(cluster: &Cluster, from: i32, count: i32) {
    let client = Client::with_uri_str(&cluster.info.mongodb_uri)
        .await
        .unwrap();
    let documents = (from..from + count).map(|id| doc! {"_id": id, "n": 0});
    let collection = client.database("shop").collection::<Document>("orders");
    collection.insert_many(documents).await.unwrap();
}

#[track_caller]
pub(super) fn refused(outcome: &Outcome, status: i32, why: &str) {
    assert_eq!(outcome.status, status, "{outcome:#?}");
    assert!(outcome.stderr.contains(why), "'{why}' in {outcome:#?}");
}

#[test]
fn bad_backups_targets_and_points_are_refused_and_nothing_is_changed() {
    let runtime = Runtime::new().unwrap();
    let cluster = Cluster::start(&SMALL);
    runtime.block_on(insert(&cluster, 0, 50));
    let backup = Backup::of(&cluster);
    backup.ok(&[]);
    runtime.block_on(insert(&cluster, 50, 50));
    let ran = backup.ok(&[]);
    assert_eq!(ran["events"], 50, "{ran}");
    // A run with nothing new adds nothing.
    let before = files_in(&backup.folder, "");
    let nothing = backup.ok(&[]);
    assert_eq!(nothing["events"], 0, "{nothing}");
    assert_eq!(files_in(&backup.folder, ""), before);
    // But that nothing has happened is known, up to a later time.
    let until = |ran: &serde_json::Value| ran["last"]["time"].as_str().unwrap().to_owned();
    let millis = |ran: &serde_json::Value| {
        let time = bson::DateTime::parse_rfc3339_str(until(ran)).unwrap();
        time.timestamp_millis()
    };
    assert!(millis(&nothing) > millis(&ran), "{nothing}");
    let time = until(&nothing);

    let target = Target::start();
    let client = runtime.block_on(target.client());
    let databases = || {
        let names = runtime.block_on(async { client.list_database_names().await.unwrap() });
        names.into_iter().filter(|name| name == "shop").count()
    };
    let folder = backup.folder();
    // A log that is gone has left its mark: it is not one of the log that is put back.
    runtime.block_on(async {
        let marks = client.database("drumline").collection::<Document>("marks");
        let mark = doc! {"_id": "log", "position": 999_i64};
        marks.insert_one(mark).await.unwrap();
    });
    refused(
        &target.run(folder, &["--to-position", "900"]),
        1,
        "position 900 cannot be restored",
    );
    let past = ["--to-time", "2001-01-01T00:00:00Z"];
    refused(
        &target.run(folder, &past),
        1,
        "2001-01-01T00:00:00Z cannot be restored",
    );
    refused(
        &target.run(folder, &["--to-time", "yesterday"]),
        2,
        "give a time with its offset",
    );
    let none = cluster.sandbox().path("none");
    refused(
        &target.run(none.to_str().unwrap(), &[]),
        1,
        "holds no backup",
    );
    let dry = target.run(folder, &["--dry-run", "--to-time", &time]);
    refused(&dry, 0, "nothing was changed");
    assert_eq!(databases(), 0);

    // Each file cut, missing, changed, or in the place of another.
    let files = files_in(&backup.folder, ".dlb");
    assert!(files.len() >= 3, "{files:?}");
    for (at, file) in files.iter().enumerate() {
        let whole = fs::read(file).unwrap();
        let other = fs::read(&files[(at + 1) % files.len()]).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        for harmed in [&whole[..whole.len() - 1], &flipped, &other, b""] {
            fs::write(file, harmed).unwrap();
            refused(
                &cluster.sandbox().run(&["backup", "verify", folder]),
                5,
                "is damaged",
            );
            refused(&target.run(folder, &[]), 1, "is damaged");
        }
        fs::remove_file(file).unwrap();
        refused(&target.run(folder, &[]), 1, "it is missing");
        fs::write(file, whole).unwrap();
    }
    let manifest = backup.folder.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"format\":2", "\"format\":9")).unwrap();
    refused(&target.run(folder, &[]), 1, "is damaged");
    refused(&backup.run(&[]), 1, "is damaged");
    fs::write(&manifest, "{\"format\": 9}").unwrap();
    refused(&backup.run(&[]), 1, "has the format 9");
    fs::write(&manifest, text).unwrap();
    assert_eq!(databases(), 0);

    // Another replica set's backup, and a target that is not empty.
    let foreign = cluster
        .sandbox()
        .run(&["backup", folder, "--mongodb-file", &target.uri_file]);
    refused(&foreign, 1, "a backup of another replica set");
    refused(&target.run(folder, &[]), 0, "1 collection");
    runtime.block_on(async {
        let marks = client.database("drumline").collection::<Document>("marks");
        assert_eq!(marks.find_one(doc! {}).await.unwrap(), None);
    });
    refused(
        &target.run(folder, &[]),
        1,
        "is not empty: it has shop.orders",
    );
    refused(&target.run(folder, &["--drop"]), 2, "--yes");
    let listed = cluster
        .sandbox()
        .ok(&["backup", "list", folder, "-o", "jsonl"]);
    let listed: serde_json::Value = serde_json::from_str(listed.stdout.trim_end()).unwrap();
    assert_eq!(
        (&listed["documents"], &listed["events"]),
        (&50.into(), &50.into()),
        "{listed}"
    );
}

#[test]
fn a_log_that_goes_back_is_told_and_a_new_base_stands_beside() {
    let runtime = Runtime::new().unwrap();
    let cluster = Cluster::start(&["--members", "1", "--nodes", "0"]);
    let file = uri_file(&cluster);
    let insert = |id: &str| {
        let document = format!(r#"{{"_id": {id}}}"#);
        let arguments = ["insert", "shop.orders", &document, "--mongodb-file", &file];
        cluster.sandbox().ok(&arguments);
    };
    insert("1");
    let backup = Backup::of(&cluster);
    // Nothing has happened since the base was read: its one point is the end of the log.
    let alone = backup.ok(&[]);
    let position = alone["first"]["position"].as_i64().unwrap();
    assert!(position > 0, "{alone}");
    assert_eq!(alone["last"]["position"], position, "{alone}");
    assert_eq!(alone["last"]["stamp"], alone["first"]["stamp"], "{alone}");
    let target = Target::start();
    let point = position.to_string();
    for to in [&[][..], &["--to-position", &point]] {
        let restored = target.ok(backup.folder(), to);
        assert_eq!(restored["position"], position, "{restored}");
    }
    insert("2");
    backup.ok(&[]);
    runtime.block_on(async {
        let client = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        let drumline = client.database("drumline");
        let log = drumline.collection::<Document>("log");
        let last = log
            .find_one(doc! {})
            .sort(doc! {"_id": -1})
            .await
            .unwrap()
            .unwrap();
        log.delete_one(doc! {"_id": last.get_i64("_id").unwrap()})
            .await
            .unwrap();
        // The commands' own memory of how far the log had come goes with it.
        drumline
            .collection::<Document>("marks")
            .drop()
            .await
            .unwrap();
    });
    insert("3");
    refused(&backup.run(&[]), 1, "the log goes back: position");
    refused(&backup.run(&[]), 1, "--new-base");
    backup.ok(&["--new-base"]);
    backup.verify();
    let listed = cluster
        .sandbox()
        .ok(&["backup", "list", backup.folder(), "-o", "jsonl"]);
    assert_eq!(listed.stdout.lines().count(), 2, "{listed:#?}");
    let restored = target.ok(backup.folder(), &[]);
    assert_eq!(restored["collections"][1]["documents"], 3, "{restored}");
    // The old base may go; the new one is all that is needed.
    let prune = |more: &[&str]| {
        let arguments = ["backup", "prune", backup.folder()];
        cluster.sandbox().run(&[&arguments[..], more].concat())
    };
    refused(&prune(&[]), 2, "--keep-hours");
    refused(&prune(&["--keep-bases", "0"]), 2, "1 or more");
    refused(
        &prune(&["--keep-bases", "1", "--dry-run"]),
        0,
        "nothing was taken out",
    );
    assert!(backup.files("b0001-") > 0);
    let hours = prune(&["--keep-bases", "1", "--keep-hours", "1"]);
    assert!(hours.stdout.contains(r#""bases":[]"#), "{hours:#?}");
    let pruned = prune(&["--keep-bases", "1"]);
    assert!(pruned.stdout.contains(r#""bases":[1]"#), "{pruned:#?}");
    assert_eq!(backup.files("b0001-"), 0);
    backup.ok(&[]);
    backup.verify();
    let restored = target.ok(backup.folder(), &[]);
    assert_eq!(restored["collections"][1]["documents"], 3, "{restored}");
}
