//! Watches of collections: what they show, what they refuse, and the command.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use bson::{Bson, Document, doc};
use mongodb::Client;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::http::{Http, Reply};
use crate::support::stream::Stream;
use crate::support::{Cluster, eventually, kill};

/// The most watches of a node.
const WATCHES_MAX: usize = 32;

async fn act(http: &Http, action: &str, collection: &str, fields: Value) -> Reply {
    let mut body = json!({"database": "watched", "collection": collection});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    let reply = http.act(action, &body).await;
    assert!(reply.status < 300, "{reply:?}");
    reply
}

fn stamp(reply: &Reply) -> i64 {
    reply.header("drumline-stamp").unwrap().parse().unwrap()
}

fn short(event: &Document) -> (String, Option<i64>) {
    let kind = event.get_str("operationType").unwrap().to_owned();
    (kind, event.get("stamp").and_then(Bson::as_i64))
}

#[test]
fn each_change_tells_its_stamp_where_a_document_carries_it() {
    Runtime::new().unwrap().block_on(async {
        let cluster = Cluster::shared();
        let http = Http::to(cluster);
        let stream = Stream::open(cluster, "/watch?ns=watched.kinds");
        // The stream is open when it shows another program's change.
        let driver = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        let other = driver.database("watched").collection::<Document>("kinds");
        eventually("the stream is open", async || {
            other.insert_one(doc! {"other": 1}).await.unwrap();
            (stream.count() > 0).then_some(())
        })
        .await;
        let in_id = json!({"filter": {"_id": 1}});
        let with = |fields: Value| {
            let mut all = in_id.clone();
            all.as_object_mut()
                .unwrap()
                .extend(fields.as_object().unwrap().clone());
            all
        };
        let inserted = act(&http, "insertOne", "kinds", json!({"document": {"_id": 1}})).await;
        let set = with(json!({"update": {"$set": {"a": 1}}}));
        let updated = act(&http, "updateOne", "kinds", set).await;
        let pipeline = with(json!({"update": [{"$set": {"b": 2}}]}));
        let piped = act(&http, "updateOne", "kinds", pipeline).await;
        let replaced = with(json!({"replacement": {"c": 3}}));
        let replaced = act(&http, "replaceOne", "kinds", replaced).await;
        act(&http, "deleteOne", "kinds", in_id).await;
        eventually("all is shown", async || {
            stream.assert_lives();
            stream.has(|event| short(event).0 == "delete").then_some(())
        })
        .await;
        let told = stream.told();
        let (others, own): (Vec<_>, Vec<_>) = told.iter().partition(|event| {
            event
                .get_document("fullDocument")
                .is_ok_and(|d| d.contains_key("other"))
        });
        assert!(
            others.iter().all(|event| !event.contains_key("stamp")),
            "{others:?}"
        );
        let own: Vec<_> = own.into_iter().map(short).collect();
        let expected = [
            ("insert", Some(stamp(&inserted))),
            // The change, and the stamp.
            ("update", None),
            ("update", Some(stamp(&updated))),
            ("update", None),
            ("update", Some(stamp(&piped))),
            ("replace", Some(stamp(&replaced))),
            ("delete", None),
        ];
        let expected = expected.map(|(kind, stamp)| (kind.to_owned(), stamp));
        assert_eq!(own, expected);
    });
}

#[test]
fn after_a_stamp_all_is_shown_that_comes_later_whatever_stamp_it_carries() {
    Runtime::new().unwrap().block_on(async {
        let cluster = Cluster::shared();
        let http = Http::to(cluster);
        let first = act(&http, "insertOne", "old", json!({"document": {"_id": 1}})).await;
        let second = act(&http, "insertOne", "old", json!({"document": {"_id": 2}})).await;
        // Another program puts a document back as it was read.
        let driver = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        let other = driver.database("watched").collection::<Document>("old");
        let mut read = other.find_one(doc! {"_id": 1}).await.unwrap().unwrap();
        read.insert("q", 1);
        other.replace_one(doc! {"_id": 1}, read).await.unwrap();
        let third = act(&http, "insertOne", "old", json!({"document": {"_id": 3}})).await;
        let path = format!("/watch?ns=watched.old&fromStamp={}", stamp(&second));
        let stream = Stream::open(cluster, &path);
        eventually("the last write is shown", async || {
            stream.assert_lives();
            let last = ("insert".to_owned(), Some(stamp(&third)));
            stream.has(|event| short(event) == last).then_some(())
        })
        .await;
        let told: Vec<_> = stream.told().iter().map(short).collect();
        let expected = [("replace", stamp(&first)), ("insert", stamp(&third))];
        let expected = expected.map(|(kind, stamp)| (kind.to_owned(), Some(stamp)));
        assert_eq!(told, expected);
    });
}

#[test]
fn a_watch_goes_on_when_its_collection_is_made_anew_and_filters_by_its_pipeline() {
    Runtime::new().unwrap().block_on(async {
        let cluster = Cluster::shared();
        let http = Http::to(cluster);
        let first = act(&http, "insertOne", "anew", json!({"document": {"_id": 0}})).await;
        let pipeline = r#"[{"$match":{"fullDocument.wanted":true}},{"$unset":"wallTime"}]"#;
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("ns", "watched.anew")
            .append_pair("pipeline", pipeline)
            .append_pair("fromStamp", &stamp(&first).to_string())
            .finish();
        let stream = Stream::open(cluster, &format!("/watch?{query}"));
        let wanted = |id: i32| json!({"document": {"_id": id, "wanted": true}});
        act(&http, "insertOne", "anew", wanted(1)).await;
        act(&http, "insertOne", "anew", json!({"document": {"_id": 2}})).await;
        let driver = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        let database = driver.database("watched");
        database
            .collection::<Document>("anew")
            .drop()
            .await
            .unwrap();
        act(&http, "insertOne", "anew", wanted(3)).await;
        stream.close();
        act(&http, "insertOne", "anew", wanted(4)).await;
        eventually("the last is shown", async || {
            stream.assert_lives();
            (stream.count() == 3).then_some(())
        })
        .await;
        let told = stream.told();
        let ids = told.iter().map(|event| {
            event
                .get_document("documentKey")
                .unwrap()
                .get_i32("_id")
                .unwrap()
        });
        assert_eq!(ids.collect::<Vec<_>>(), [1, 3, 4]);
        assert!(told.iter().all(|event| !event.contains_key("wallTime")));
    });
}

#[test]
fn what_may_not_be_watched_is_refused_with_the_reason() {
    Runtime::new().unwrap().block_on(async {
        let cluster = Cluster::shared();
        let http = Http::to(cluster);
        let end = stamp(&act(&http, "insertOne", "refused", json!({"document": {}})).await);
        let ahead = end + 1_000_000;
        for (query, why) in [
            (String::new(), "'ns' is missing"),
            ("ns=drumline.log".into(), "reserved"),
            ("ns=a.b&pipeline=[{\"$out\":\"x\"}]".into(), "$out"),
            (
                "ns=a.b&pipeline=[{\"$match\":{\"$where\":\"1\"}}]".into(),
                "$where",
            ),
            ("ns=a.b&pipeline=[{\"$match\":1}]".into(), "match"),
            (format!("ns=a.b&fromStamp={ahead}"), "the log ends at stamp"),
        ] {
            let query = query
                .replace('{', "%7B")
                .replace('}', "%7D")
                .replace('"', "%22");
            let reply = http.get_with_key(&format!("/watch?{query}")).await;
            assert_eq!(reply.status, 400, "{query}: {reply:?}");
            assert!(reply.text.contains(why), "{query}: {reply:?}");
        }
        assert_eq!(
            http.get_with_key("/watch?ns=a.b&fromStamp=-1").await.status,
            400
        );
        let keyless = Http::new(&cluster.info.nodes[0].url, "");
        assert_eq!(keyless.get("/watch?ns=a.b").await.status, 400);
    });
}

#[test]
fn a_node_has_so_many_watches_and_closes_what_is_left() {
    Runtime::new().unwrap().block_on(async {
        let cluster = Cluster::start(&["--members", "1"]);
        let url = cluster.info.nodes[0].url.clone();
        let key = cluster.info.api_key.clone();
        let open = async || super::log_follow::Raw::open(&url, &key, "/watch?ns=a.b").await;
        let mut watches = Vec::new();
        for _ in 0..WATCHES_MAX {
            watches.push(open().await.unwrap());
        }
        let refused = open().await.err().unwrap();
        assert_eq!(refused.0, 429, "{}", refused.1);
        // A write and a read do not notice.
        let http = Http::to(&cluster);
        act(&http, "insertOne", "beside", json!({"document": {}})).await;
        act(&http, "find", "beside", json!({})).await;
        drop(watches);
        eventually("there is room again", async || open().await.ok().map(drop)).await;
        let driver = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        let name = &cluster.info.nodes[0].name;
        eventually("the cursors are closed", async || {
            (super::log_follow::cursors(&driver, name).await == 0).then_some(())
        })
        .await;
    });
}

#[test]
fn the_command_prints_a_line_an_event_with_and_without_a_server() {
    let cluster = Cluster::shared();
    let http = Http::to(cluster);
    let runtime = Runtime::new().unwrap();
    let first = runtime.block_on(act(
        &http,
        "insertOne",
        "typed",
        json!({"document": {"_id": 0}}),
    ));
    let uri = cluster.sandbox().path("watch-uri");
    std::fs::write(&uri, &cluster.info.mongodb_uri).unwrap();
    let from = stamp(&first).to_string();
    let ways = [vec![], vec!["--mongodb-file", uri.to_str().unwrap()]];
    for (number, way) in (1..).zip(ways) {
        let arguments = [
            "watch",
            "watched.typed",
            "--from-stamp",
            &from,
            "-o",
            "jsonl",
        ];
        let mut command = cluster
            .sandbox()
            .drumline(&[&arguments[..], &way[..]].concat());
        let mut command = command.stdout(Stdio::piped()).spawn().unwrap();
        let fields = json!({"document": {"_id": number, "text": "a\u{1b}[2Jb"}});
        runtime.block_on(act(&http, "insertOne", "typed", fields));
        let mut lines = BufReader::new(command.stdout.take().unwrap()).lines();
        for id in 1..=number {
            let line = lines.next().unwrap().unwrap();
            let event: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(event["documentKey"]["_id"], id, "{line}");
            assert!(event["stamp"].is_i64(), "{line}");
        }
        kill(command.id(), Signal::INT);
        assert!(command.wait().unwrap().success());
    }
    let wrong = ["watch", "drumline.log"];
    assert_eq!(cluster.sandbox().run(&wrong).status, 1);
    let ahead = ["watch", "watched.typed", "--from-stamp", "99999999"];
    let outcome = cluster.sandbox().run(&ahead);
    assert_eq!(outcome.status, 1);
    assert!(
        outcome.stderr.contains("the log ends at stamp"),
        "{outcome:?}"
    );
}
