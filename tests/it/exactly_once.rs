//! A request that is sent again is answered again, not done again.

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::http::{Http, Reply};
use crate::support::{Cluster, kill, wait_for};

fn insert(collection: &str, document: Value) -> Value {
    json!({"database": "once", "collection": collection, "document": document})
}

fn of(collection: &str) -> Value {
    json!({"database": "once", "collection": collection})
}

async fn keyed(http: &Http, action: &str, key: &str, body: &Value) -> Reply {
    http.act_with(action, &[("Idempotency-Key", key)], body)
        .await
}

async fn stored(http: &Http, collection: &str) -> usize {
    let reply = http.act("find", &of(collection)).await;
    let body: Value = serde_json::from_str(&reply.text).unwrap();
    body["documents"].as_array().unwrap().len()
}

fn replayed(reply: &Reply) -> bool {
    reply
        .headers
        .get("idempotency-replayed")
        .is_some_and(|value| value == "true")
}

#[test]
fn a_retry_gets_the_stored_answer_be_it_success_or_refusal() {
    Runtime::new().unwrap().block_on(async {
        let http = Http::to(Cluster::shared());
        let body = insert("plain", json!({"a": 1}));
        let first = keyed(&http, "insertOne", "plain-1", &body).await;
        let again = keyed(&http, "insertOne", "plain-1", &body).await;
        assert_eq!((first.status, again.status), (201, 201));
        assert_eq!(
            first.text, again.text,
            "the generated _id is the stored one"
        );
        assert!(!replayed(&first) && replayed(&again));
        for header in ["drumline-stamp", "drumline-position"] {
            assert_eq!(first.headers.get(header), again.headers.get(header));
        }
        assert_eq!(stored(&http, "plain").await, 1);

        let twin = insert("plain", json!({"_id": "twin"}));
        keyed(&http, "insertOne", "plain-2", &twin).await;
        let refused = keyed(&http, "insertOne", "plain-3", &twin).await;
        http.act(
            "deleteOne",
            &json!({"database": "once", "collection": "plain", "filter": {"_id": "twin"}}),
        )
        .await;
        let again = keyed(&http, "insertOne", "plain-3", &twin).await;
        assert_eq!((refused.status, again.status), (400, 400));
        assert_eq!(
            refused.text, again.text,
            "a refusal stays one, though it would succeed now"
        );
        assert!(replayed(&again));
    });
}

#[test]
fn a_key_belongs_to_its_payload() {
    Runtime::new().unwrap().block_on(async {
        let http = Http::to(Cluster::shared());
        keyed(
            &http,
            "insertOne",
            "payload-1",
            &insert("payload", json!({"a": 1})),
        )
        .await;
        for other in [
            insert("payload", json!({"a": 2})),
            insert("elsewhere", json!({"a": 1})),
        ] {
            let reply = keyed(&http, "insertOne", "payload-1", &other).await;
            assert_eq!(reply.status, 422, "{reply:?}");
        }
        assert_eq!(stored(&http, "payload").await, 1);
        assert_eq!(stored(&http, "elsewhere").await, 0);
    });
}

#[test]
fn many_at_once_with_one_key_are_done_once() {
    Runtime::new().unwrap().block_on(async {
        let http = Http::to(Cluster::shared());
        let body = insert("join", json!({"a": 1}));
        let sent: Vec<_> = (0..50)
            .map(|_| {
                let (http, body) = (http.clone(), body.clone());
                tokio::spawn(async move { keyed(&http, "insertOne", "join-1", &body).await })
            })
            .collect();
        let mut texts = Vec::new();
        for reply in sent {
            let reply = reply.await.unwrap();
            assert_eq!(reply.status, 201, "{reply:?}");
            texts.push(reply.text);
        }
        texts.dedup();
        assert_eq!(texts.len(), 1);
        assert_eq!(stored(&http, "join").await, 1);
    });
}

#[test]
fn a_retry_after_a_restart_of_the_node_gets_the_stored_answer() {
    let cluster = Cluster::start(&[]);
    Runtime::new().unwrap().block_on(async {
        let http = Http::to(&cluster);
        let body = json!({"database": "once", "collection": "restart",
            "filter": {"_id": "n"}, "update": {"$inc": {"n": 1}}, "upsert": true});
        let first = keyed(&http, "updateOne", "restart-1", &body).await;
        let node = cluster.node_pid(0);
        kill(node, Signal::KILL);
        wait_for("another process is the node", || {
            (cluster.node_pid(0) != node).then_some(())
        });
        while http.status_of("/readyz").await != Some(200) {
            tokio::task::yield_now().await;
        }
        let again = keyed(&http, "updateOne", "restart-1", &body).await;
        assert_eq!(first.text, again.text);
        assert!(replayed(&again));

        let uri = cluster.sandbox().path("uri");
        std::fs::write(&uri, &cluster.info.mongodb_uri).unwrap();
        let without_a_server = cluster.sandbox().ok(&[
            "update",
            "once.restart",
            r#"{"_id": "n"}"#,
            r#"{"$inc": {"n": 1}}"#,
            "--upsert",
            "--request-id",
            "restart-1",
            "--mongodb-file",
            uri.to_str().unwrap(),
        ]);
        assert!(
            without_a_server.stdout.contains(r#""replayed":true"#),
            "{without_a_server:?}"
        );
        let found = http.act("findOne", &of("restart")).await;
        assert!(
            found.text.contains(r#""n":{"$numberInt":"1"}"#),
            "{}",
            found.text
        );
    });
}
