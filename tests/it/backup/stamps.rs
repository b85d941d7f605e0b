//! A restore to a stamp is exact within a batch: what is there is what the requests up to the stamp
//! have made, and the log ends with the last of them.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::dump::unstamped;
use super::other_program::Dice;
use super::{Backup, Source, Target};
use crate::support::extra_node::ExtraNode;
use crate::support::load::{End, Load, Op, Record, model};
use crate::support::setting;

/// So many clients share batches.
const CLIENTS: u64 = 24;

/// What the order makes of the requests up to a stamp.
fn replayed(records: &[Record], stamp: i64) -> BTreeMap<String, Document> {
    let done = records.iter().filter_map(|record| match &record.end {
        End::Acknowledged(written) => Some((written.stamp.unwrap(), record)),
        _ => None,
    });
    let mut done: Vec<_> = done.filter(|(t, _)| *t <= stamp).collect();
    done.sort_by_key(|(t, _)| *t);
    let mut documents = BTreeMap::new();
    for (_, record) in done {
        let key = record.op.key().to_owned();
        match model(&record.op, record.id.as_str(), documents.get(&key)).unwrap() {
            Some(document) => drop(documents.insert(key, document)),
            None => drop(documents.remove(&key)),
        }
    }
    documents
}

async fn log(client: &Client) -> Vec<Document> {
    let log = client.database("drumline").collection::<Document>("log");
    let mut cursor = log.find(doc! {}).sort(doc! {"_id": 1}).await.unwrap();
    let mut all = Vec::new();
    while cursor.advance().await.unwrap() {
        all.push(cursor.deserialize_current().unwrap());
    }
    all
}

/// The stamps that lie within a batch.
fn within(log: &[Document]) -> Vec<i64> {
    let entries = log.iter().map(|one| one.get_array("entries").unwrap());
    let mut within = Vec::new();
    for entries in entries {
        let stamps = entries.iter().map(|entry| {
            let entry = entry.as_document().unwrap();
            entry.get_i64("t").unwrap()
        });
        let stamps: Vec<_> = stamps.collect();
        within.extend(stamps.iter().rev().skip(1));
    }
    within
}

#[test]
fn a_restore_to_a_stamp_is_exact_within_a_batch() {
    let seed = setting("DRUMLINE_SEED", 0x0BAC_2028);
    let points = setting("DRUMLINE_BACKUP_POINTS", 8);
    println!("DRUMLINE_SEED={seed}");
    let runtime = Runtime::new().unwrap();
    let source = runtime.block_on(Source::new());
    // The collection and its first documents are there before the base.
    let load = Load::new(&source.cluster, "shop.load");
    let client = load.client(Duration::from_secs(20));
    let clock = drumline::client::Clock::default();
    let first = Op::Put {
        key: "first".into(),
    };
    let first = runtime.block_on(load.one_request(&client, &clock, first));
    let backup = Backup::of(&source.cluster);
    backup.ok(&[]);
    let mut records = runtime.block_on(async {
        let running = tokio::spawn({
            let load = load.clone();
            async move {
                let mut records = load.run(CLIENTS).await;
                load.settle(&mut records).await;
                records
            }
        });
        tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                if within(&log(&source.client).await).len() > 400 {
                    break;
                }
            }
        })
        .await
        .unwrap();
        load.stop();
        running.await.unwrap()
    });
    records.push(first);
    let ran = backup.ok(&[]);
    let before = runtime.block_on(log(&source.client));
    let stamps = within(&before);
    println!(
        "{} requests, {} within batches",
        records.len(),
        stamps.len()
    );
    let begins = ran["first"]["stamp"].as_i64().unwrap();
    let ends = ran["last"]["stamp"].as_i64().unwrap();
    let target = Target::start();
    let client = runtime.block_on(target.client());
    let mut dice = Dice::new(seed);
    let mut stamp = 0;
    for _ in 0..points {
        let at = usize::try_from(dice.below(stamps.len() as u64)).unwrap();
        stamp = stamps[at];
        assert!(begins < stamp && stamp < ends, "{begins} {stamp} {ends}");
        let restored = target.ok(backup.folder(), &["--to-stamp", &stamp.to_string()]);
        assert_eq!(restored["stamp"], stamp, "{restored}");
        let stored = runtime.block_on(unstamped(&client, "shop", "load"));
        assert!(stored == replayed(&records, stamp), "at stamp {stamp}");
        let after = runtime.block_on(log(&client));
        let last = after.last().unwrap();
        assert_eq!(last.get_i64("last").unwrap(), stamp);
        let (_, earlier) = after.split_last().unwrap();
        assert_eq!(earlier, &before[..earlier.len()]);
    }
    // A node goes on from there: it knows a request up to the stamp, and none after it.
    let node = ExtraNode::start(&source.cluster, "n9", &target.cluster.info.mongodb_uri);
    node.until_listening();
    let key = source.cluster.sandbox().path("key");
    fs::write(&key, &source.cluster.info.api_key).unwrap();
    let ask = |id: &str| -> Value {
        let insert = [
            "insert",
            "shop.load",
            r#"{"_id": "another"}"#,
            "--request-id",
            id,
            "--servers",
            &node.url,
            "--api-key-file",
            key.to_str().unwrap(),
        ];
        let outcome = source.cluster.sandbox().run(&insert);
        match outcome.status {
            0 => serde_json::from_str(outcome.stdout.trim_end()).unwrap(),
            _ => Value::from(outcome.stderr),
        }
    };
    let id_of = |t: i64| {
        let mut entries = before
            .iter()
            .flat_map(|one| one.get_array("entries").unwrap());
        let entry = entries.find(|entry| {
            let entry = entry.as_document().unwrap();
            entry.get_i64("t").unwrap() == t
        });
        let entry = entry.unwrap().as_document().unwrap();
        entry.get_str("id").unwrap().to_owned()
    };
    let known = ask(&id_of(stamp)).to_string();
    assert!(
        known.contains("was used before, for another request"),
        "{known}"
    );
    let next = stamps.iter().find(|t| **t > stamp).copied().unwrap_or(ends);
    let new = ask(&id_of(next));
    assert!(new["stamp"].as_i64() > Some(stamp), "{new}");
}
