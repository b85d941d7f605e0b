//! A request id stands for one execution and one answer, whatever way its tries take.

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::http::{Http, Reply};
use crate::support::{Cluster, Sandbox, kill, wait_until};

const KEY: &str = "idempotency-key";

/// Sends requests about one collection with chosen ids.
struct Sender {
    http: Http,
    collection: &'static str,
}

impl Sender {
    fn new(cluster: &Cluster, collection: &'static str) -> Self {
        let http = Http::to(cluster);
        Self { http, collection }
    }

    fn body(&self, mut fields: Value) -> Value {
        fields["database"] = json!("once");
        fields["collection"] = json!(self.collection);
        fields
    }

    async fn send(&self, id: &str, action: &str, fields: Value) -> Reply {
        let body = self.body(fields);
        self.http.act_with(action, &[(KEY, id)], &body).await
    }

    async fn count(&self) -> usize {
        let found = self.http.act("find", &self.body(json!({}))).await;
        found.json()["documents"].as_array().unwrap().len()
    }
}

/// The two replies must differ only in that the second says that it was replayed.
#[track_caller]
fn assert_replayed(first: &Reply, again: &Reply) {
    assert_eq!(first.header("idempotency-replayed"), None);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    for place in ["drumline-stamp", "drumline-position"] {
        assert!(first.header(place).is_some());
        assert_eq!(again.header(place), first.header(place));
    }
}

#[test]
fn the_same_request_gets_the_stored_answer_success_or_error() {
    Runtime::new().unwrap().block_on(async {
        let sender = Sender::new(Cluster::shared(), "stored");
        let writes = [
            ("insertOne", json!({"document": {"_id": 1, "n": 0}}), 201),
            ("insertOne", json!({"document": {"_id": 1}}), 400),
            (
                "insertMany",
                json!({"documents": [{"n": 0}, {"n": 0}]}),
                201,
            ),
            (
                "updateOne",
                json!({"filter": {"_id": 1}, "update": {"$inc": {"n": 1}}}),
                200,
            ),
            (
                "updateMany",
                json!({"filter": {}, "update": {"$inc": {"n": 1}}}),
                200,
            ),
            (
                "updateOne",
                json!({"filter": {"_id": 1}, "update": {"$inc": {"_id": 1}}}),
                400,
            ),
            (
                "replaceOne",
                json!({"filter": {"k": 5}, "replacement": {"k": 5}, "upsert": true}),
                200,
            ),
            ("deleteOne", json!({"filter": {"_id": 1}}), 200),
        ];
        let mut firsts = Vec::new();
        for (number, (action, fields, status)) in writes.iter().enumerate() {
            let id = format!("stored{number}");
            let reply = sender.send(&id, action, fields.clone()).await;
            firsts.push(reply.expect(*status));
        }
        let before = sender.count().await;
        for (number, (action, fields, _)) in writes.iter().enumerate() {
            let id = format!("stored{number}");
            let again = sender.send(&id, action, fields.clone()).await;
            assert_replayed(&firsts[number], &again);
        }
        assert_eq!(sender.count().await, before);
    });
}

#[test]
fn another_payload_under_the_same_id_is_refused_and_not_done() {
    Runtime::new().unwrap().block_on(async {
        let sender = Sender::new(Cluster::shared(), "reused");
        let fields = json!({"document": {"_id": 1}});
        sender.send("reused", "insertOne", fields).await.expect(201);
        for (action, fields) in [
            ("insertOne", json!({"document": {"_id": 2}})),
            ("insertMany", json!({"documents": [{"_id": 1}, {"_id": 2}]})),
            ("deleteOne", json!({"filter": {"_id": 1}})),
        ] {
            let reply = sender.send("reused", action, fields).await.expect(422);
            assert_eq!(reply.json()["error_code"], "IdempotencyKeyReused");
        }
        assert_eq!(sender.count().await, 1);
    });
}

#[test]
fn an_id_is_the_same_at_every_node_whatever_quotes_it_has() {
    let cluster = Cluster::shared();
    Runtime::new().unwrap().block_on(async {
        for id in ["plain", "\"quoted\"", "\"\"twice\"\"", "a\"b"] {
            let mut stamps = Vec::new();
            for node in &cluster.info.nodes {
                let mut sender = Sender::new(cluster, "everywhere");
                sender.http = Http::new(&node.url, &cluster.info.api_key);
                let fields = json!({"document": {"by": id}});
                let reply = sender.send(id, "insertOne", fields).await.expect(201);
                stamps.push(reply.header("drumline-stamp").map(str::to_owned));
            }
            stamps.dedup();
            assert_eq!(stamps.len(), 1, "{id}: {stamps:?}");
        }
        assert_eq!(Sender::new(cluster, "everywhere").count().await, 4);
    });
}

#[test]
fn tries_at_the_same_time_share_one_execution() {
    Runtime::new().unwrap().block_on(async {
        let sender = Sender::new(Cluster::shared(), "joined");
        let fields = json!({"document": {"a": 1}});
        let tries = (0..20).map(|_| sender.send("joined", "insertOne", fields.clone()));
        let replies = join_all(tries).await;
        for reply in &replies {
            let first = &replies[0];
            assert_eq!((reply.status, &reply.text), (201, &first.text));
            let stamp = reply.header("drumline-stamp");
            assert_eq!(stamp, first.header("drumline-stamp"));
        }
        assert_eq!(sender.count().await, 1);
    });
}

#[test]
fn an_answer_outlives_its_node_and_is_the_same_on_another_path() {
    let cluster = Cluster::start(&[]);
    Runtime::new().unwrap().block_on(async {
        let sender = Sender::new(&cluster, "restarted");
        let fields = json!({"document": {"a": 1}});
        let first = sender.send("once", "insertOne", fields.clone()).await;
        let refused = json!({"document": {"_id": first.json()["insertedId"]}});
        let error = sender.send("error", "insertOne", refused.clone()).await;
        let (first, error) = (first.expect(201), error.expect(400));

        let node = cluster.node_pid(0);
        kill(node, Signal::KILL);
        wait_until("the node is back", || cluster.node_pid(0) != node);
        sender.http.until_ready().await;
        let again = sender.send("once", "insertOne", fields.clone()).await;
        assert_replayed(&first, &again);
        let again = sender.send("error", "insertOne", refused).await;
        assert_replayed(&error, &again);

        let inserted = first.json()["insertedId"]["$oid"].clone();
        let guest = guest_insert(&cluster, "once", r#"{"a": 1}"#);
        assert_eq!(guest.0, 0);
        assert!(guest.1.contains(inserted.as_str().unwrap()), "{guest:?}");
        let other = guest_insert(&cluster, "once", r#"{"a": 2}"#);
        assert_eq!(other.0, 1, "{other:?}");
        let new = guest_insert(&cluster, "by-guest", r#"{"_id": 7}"#);
        assert_eq!(new.0, 0, "{new:?}");
        let document = json!({"document": {"_id": 7}});
        let again = sender.send("by-guest", "insertOne", document).await;
        let again = again.expect(201);
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!(sender.count().await, 2);
    });
}

/// Inserts through no server; gives the exit status and all that was printed.
fn guest_insert(cluster: &Cluster, id: &str, document: &str) -> (i32, String) {
    let sandbox: &Sandbox = cluster.sandbox();
    let file = sandbox.path("uri");
    std::fs::write(&file, &cluster.info.mongodb_uri).unwrap();
    let file = file.to_str().unwrap();
    let arguments = [
        "insert",
        "once.restarted",
        document,
        "--request-id",
        id,
        "--mongodb-file",
        file,
    ];
    let outcome = sandbox.run(&arguments);
    (outcome.status, outcome.stdout + &outcome.stderr)
}
