//! A restore to a stamp is exact within a batch: what is there is what the requests up to the stamp
//! have made, and the log ends with the last of them.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use bson::{Document, doc};
use futures_util::future::join_all;
use mongodb::Client;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::dump::unstamped;
use super::faults::refused;
use super::other_program::Dice;
use super::{Backup, Source, Target};
use crate::support::extra_node::ExtraNode;
use crate::support::http::Http;
use crate::support::load::{End, Load, Op, Record, model};
use crate::support::{eventually, setting};

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
        eventually("many requests share batches", async || {
            let log = log(&source.client).await;
            (within(&log).len() > 400).then_some(())
        })
        .await;
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

/// What a request does to one document.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Upsert,
    Set,
    MakeAnew,
    Replace,
    Delete,
}

fn id_of(key: u64) -> String {
    format!("k{key}")
}

impl Deed {
    const ALL: [Self; 5] = [
        Self::Upsert,
        Self::Set,
        Self::MakeAnew,
        Self::Replace,
        Self::Delete,
    ];

    fn request(self, key: u64, n: i32) -> (&'static str, Value) {
        let set = json!({"$set": {"n": n}});
        let (action, more) = match self {
            Self::Upsert => ("updateOne", json!({"update": set, "upsert": true})),
            Self::Set => ("updateOne", json!({"update": set})),
            Self::MakeAnew => {
                let anew = json!([{"$replaceWith": {"_id": "$_id", "n": n}}]);
                ("updateOne", json!({"update": anew}))
            }
            Self::Replace => (
                "replaceOne",
                json!({"replacement": {"n": n}, "upsert": true}),
            ),
            Self::Delete => ("deleteOne", json!({})),
        };
        let mut body =
            json!({"database": "shop", "collection": "hot", "filter": {"_id": id_of(key)}});
        for (field, value) in more.as_object().unwrap() {
            body[field] = value.clone();
        }
        (action, body)
    }

    fn model(self, before: Option<i32>, n: i32) -> Option<i32> {
        match self {
            Self::Upsert | Self::Replace => Some(n),
            Self::Set | Self::MakeAnew => before.map(|_| n),
            Self::Delete => None,
        }
    }
}

#[test]
fn whatever_requests_of_a_batch_do_to_one_document_a_stamp_between_them_is_exact_or_refused() {
    let seed = setting("DRUMLINE_SEED", 0x0BAC_2029);
    let points = setting("DRUMLINE_BACKUP_POINTS", 12);
    println!("DRUMLINE_SEED={seed}");
    let runtime = Runtime::new().unwrap();
    let source = runtime.block_on(Source::new());
    let http = Http::to(&source.cluster);
    let backup = Backup::of(&source.cluster);
    let done: Mutex<BTreeMap<i64, (Deed, u64, i32)>> = Mutex::default();
    let request = async |deed: Deed, key: u64, n: i32| {
        let (action, body) = deed.request(key, n);
        let reply = http.act(action, &body).await;
        assert!(matches!(reply.status, 200 | 201), "{reply:?}");
        let stamp = reply.header("drumline-stamp").unwrap().parse().unwrap();
        done.lock().unwrap().insert(stamp, (deed, key, n));
    };
    // The collection is there before the base.
    runtime.block_on(request(Deed::Upsert, 0, -1));
    backup.ok(&[]);
    runtime.block_on(async {
        let client = async |client: u64| {
            let mut dice = Dice::new(seed + client);
            for n in 0..40 {
                let deed = usize::try_from(dice.below(5)).unwrap();
                let key = dice.below(3);
                let number = i32::try_from(client).unwrap() * 1_000 + n;
                request(Deed::ALL[deed], key, number).await;
            }
        };
        join_all((0..CLIENTS).map(client)).await;
    });
    backup.ok(&[]);
    let stamps = within(&runtime.block_on(log(&source.client)));
    let done = done.into_inner().unwrap();
    let target = Target::start();
    let client = runtime.block_on(target.client());
    let mut dice = Dice::new(seed);
    let mut exact = 0;
    for _ in 0..points {
        let at = usize::try_from(dice.below(stamps.len() as u64)).unwrap();
        let stamp = stamps[at];
        let more = ["--to-stamp", &stamp.to_string(), "--drop", "--yes"];
        let outcome = target.run(backup.folder(), &more);
        if outcome.status != 0 {
            refused(&outcome, 1, "the nearest stamps that can be restored are");
            continue;
        }
        exact += 1;
        let mut expected = BTreeMap::new();
        for (deed, key, n) in done.range(..=stamp).map(|(_, done)| *done) {
            let before = expected.get(&key).copied().flatten();
            expected.insert(key, deed.model(before, n));
        }
        let expected = expected
            .into_iter()
            .filter_map(|(key, n)| Some((id_of(key), doc! {"_id": id_of(key), "n": n?})));
        let expected: BTreeMap<_, _> = expected.collect();
        let stored = runtime.block_on(unstamped(&client, "shop", "hot"));
        assert_eq!(stored, expected, "at stamp {stamp}");
    }
    println!(
        "{} stamps within batches, {exact} of {points} restored",
        stamps.len()
    );
    assert!(exact > 0);
}
