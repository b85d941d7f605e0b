//! A restore that is killed goes on where it was, and nobody serves what is half restored. Nobody
//! loses the ground that it serves.

use std::fs::File;
use std::process::Stdio;

use bson::{Document, doc};
use mongodb::Client;
use rustix::process::Signal;
use tokio::runtime::Runtime;

use super::dump::dump;
use super::faults::{insert, refused};
use super::other_program::{Dice, OtherProgram};
use super::{Backup, Target, files_in};
use crate::support::extra_node::ExtraNode;
use crate::support::{Cluster, SMALL, kill, setting, wait_until};

#[test]
fn nodes_that_serve_keep_a_restore_from_their_replica_set() {
    let runtime = Runtime::new().unwrap();
    let cluster = Cluster::start(&SMALL);
    runtime.block_on(insert(&cluster, 0, 5));
    let backup = Backup::of(&cluster);
    backup.ok(&[]);
    let target = Target::start();
    runtime.block_on(insert(&target.cluster, 0, 7));
    let uri = &target.cluster.info.mongodb_uri;
    let node = ExtraNode::start(&cluster, "n9", uri);
    node.until_listening();
    let client = runtime.block_on(target.client());
    let database = client.database("drumline");
    let nodes = database.collection::<Document>("nodes");
    let of = doc! {"_id": "n9", "holder": {"$exists": true}};
    let named = || {
        runtime
            .block_on(async { nodes.find_one(of.clone()).await })
            .unwrap()
    };
    wait_until("the node has its name", || named().is_some());
    // As if it ran on another machine: it is asked, and answers.
    let elsewhere = || {
        let far = doc! {"$set": {"process": "far away 1 1"}};
        runtime.block_on(async { nodes.update_one(of.clone(), far).await.unwrap() });
    };
    for far in [false, true] {
        if far {
            elsewhere();
        }
        for more in [&["--drop", "--yes"][..], &["--drop", "--dry-run"], &[]] {
            let outcome = target.run(backup.folder(), more);
            refused(
                &outcome,
                1,
                "nodes serve the replica set: n9 at http://127.0.0.1",
            );
        }
    }
    let orders = client.database("shop").collection::<Document>("orders");
    let count = || {
        runtime
            .block_on(async { orders.count_documents(doc! {}).await })
            .unwrap()
    };
    assert_eq!(count(), 7);
    drop(node);
    // Its document still names it, but nobody answers.
    assert!(named().is_some());
    target.ok(backup.folder(), &[]);
    assert_eq!(count(), 5);
}

async fn note(client: &Client) -> Option<Document> {
    let notes = client
        .database("drumline")
        .collection::<Document>("restore");
    notes.find_one(doc! {}).await.unwrap()
}

#[test]
fn a_restore_that_is_killed_goes_on_and_nobody_serves_until_its_end() {
    let seed = setting("DRUMLINE_SEED", 0x0BAC_2027);
    println!("DRUMLINE_SEED={seed}");
    let runtime = Runtime::new().unwrap();
    let cluster = Cluster::start(&SMALL);
    let mut other = runtime.block_on(OtherProgram::new(&cluster.info.mongodb_uri, seed));
    let backup = Backup::of(&cluster);
    runtime.block_on(insert(&cluster, 0, 3));
    runtime.block_on(other.prepare());
    backup.ok(&["--file-bytes", "200000"]);
    for _ in 0..6 {
        runtime.block_on(other.run(80));
        backup.ok(&[]);
    }
    let source = runtime.block_on(async {
        let client = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        dump(&client, None).await
    });
    let target = Target::start();
    runtime.block_on(insert(&target.cluster, 0, 5));
    let client = runtime.block_on(target.client());
    let arguments = [
        "restore",
        backup.folder(),
        "--mongodb-file",
        &target.uri_file,
        "--drop",
        "--yes",
    ];
    let mut dice = Dice::new(seed);
    let mut kills = 0;
    let (mut seen, mut last) = (None, None);
    loop {
        let log = target
            .cluster
            .sandbox()
            .path(&format!("restore-{kills}.log"));
        let mut command = target.cluster.sandbox().drumline(&arguments);
        command
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap());
        let mut running = command.spawn().unwrap();
        let mut steps = 1 + dice.below(4);
        let mut ended = None;
        wait_until("the restore goes on, or ends", || {
            ended = running.try_wait().unwrap();
            let now = runtime.block_on(note(&client));
            if now != seen {
                last = now.clone().or(last.take());
                seen = now;
                steps -= 1;
            }
            ended.is_some() || (steps == 0 && seen.is_some())
        });
        if let Some(ended) = ended {
            let said = std::fs::read_to_string(&log).unwrap();
            assert!(ended.success(), "after {kills} kills:\n{said}");
            break;
        }
        kill(running.id(), Signal::KILL);
        running.wait().unwrap();
        kills += 1;
        if kills == 1 {
            let other = target.run(backup.folder(), &["--to-time", "2099-01-01T00:00:00Z"]);
            refused(&other, 1, "cannot be restored");
            let position = target.run(backup.folder(), &["--to-position", "0"]);
            refused(
                &position,
                1,
                "another restore into the replica set was interrupted (to the end)",
            );
            let few = target.run(backup.folder(), &["--ns", "shop.orders", "--drop", "--yes"]);
            refused(&few, 1, "a restore of everything with --drop begins anew");
            let why = "a restore into the replica set is not at its end (to the end)";
            let insert = [
                "insert",
                "shop.new",
                "{}",
                "--mongodb-file",
                &target.uri_file,
            ];
            refused(&target.cluster.sandbox().run(&insert), 1, why);
            let mut node = ExtraNode::start(&cluster, "n9", &target.cluster.info.mongodb_uri);
            node.until_ended();
            let said = node.said();
            assert!(said.contains(why), "{said}");
        }
    }
    println!("{kills} kills, {}", other.did());
    assert!(kills > 1, "{kills}");
    assert_eq!(runtime.block_on(note(&client)), None);
    runtime
        .block_on(dump(&client, None))
        .expect(&source, "after the kills");
    // All that is done at its end may have been done already.
    let mut last = last.expect("a note was seen");
    last.extend(doc! {"stage": "indexes", "done": 0_i64});
    let put = |note: &Document| {
        let notes = client
            .database("drumline")
            .collection::<Document>("restore");
        runtime.block_on(async { notes.insert_one(note).await.unwrap() });
    };
    put(&last);
    let outcome = target.run(backup.folder(), &["--drop", "--yes"]);
    refused(&outcome, 0, "goes on to restore");
    runtime
        .block_on(dump(&client, None))
        .expect(&source, "with its end done twice");
    // Somebody else writes to what is put back: that is found, and does not go on for ever.
    let segments = files_in(&backup.folder, "-s").len();
    last.extend(doc! {"stage": "events", "done": i64::try_from(segments).unwrap()});
    runtime.block_on(insert(&target.cluster, 1_000_000, 1));
    put(&last);
    let other = target.run(backup.folder(), &["--drop", "--yes"]);
    refused(&other, 1, "is not what it must be");
    refused(
        &target.run(backup.folder(), &[]),
        1,
        "somebody else has written to what a restore was putting back (to the end)",
    );
    target.ok(backup.folder(), &[]);
    runtime
        .block_on(dump(&client, None))
        .expect(&source, "begun anew");
    // Another copy of the backup may have grown otherwise.
    last.insert("after", "of another copy");
    put(&last);
    let other = target.run(backup.folder(), &["--drop", "--yes"]);
    refused(&other, 1, "was from another copy of this backup");
    runtime.block_on(async {
        let notes = client
            .database("drumline")
            .collection::<Document>("restore");
        notes.drop().await.unwrap();
    });
    // Without an interruption it is refused: the replica set is not empty.
    refused(&target.run(backup.folder(), &[]), 1, "is not empty");
}
