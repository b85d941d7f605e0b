//! The log changed behind running nodes: it is told, nothing is executed twice, and each documented
//! way out works.

use bson::{Bson, Document, doc};
use drumline::model::{Namespace, Position, Write};
use drumline::store::{LogFault, StoreError};
use mongodb::options::IndexOptions;
use mongodb::{Client, Collection, IndexModel};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::http::{Http, Reply};
use crate::support::inside::Inside;
use crate::support::{Cluster, eventually, processes};

/// A cluster whose log is harmed, and a document that counts what was executed.
struct Ground {
    cluster: Cluster,
    nodes: Vec<Http>,
    client: Client,
    /// How often each key was executed must be once: so many keys were answered.
    executed: i64,
}

impl Ground {
    async fn new() -> Self {
        let cluster = Cluster::start(&["--members", "1"]);
        let urls = cluster.info.nodes.iter().map(|node| &node.url);
        let nodes = urls.map(|url| Http::new(url, &cluster.info.api_key));
        let client = Client::with_uri_str(&cluster.info.mongodb_uri).await;
        let mut ground = Self {
            nodes: nodes.collect(),
            client: client.unwrap(),
            cluster,
            executed: 0,
        };
        let document = json!({"document": {"_id": "n", "n": 0}});
        ground
            .act(0, "insertOne", "begin", document)
            .await
            .expect(201);
        for key in 0..4 {
            ground.once(&format!("early-{key}")).await;
        }
        ground
    }

    fn log(&self) -> Collection<Document> {
        self.client.database("drumline").collection("log")
    }

    async fn act(&self, node: usize, action: &str, key: &str, mut fields: Value) -> Reply {
        fields["database"] = json!("ground");
        fields["collection"] = json!("counted");
        let headers = [("Idempotency-Key", key)];
        self.nodes[node].act_with(action, &headers, &fields).await
    }

    /// Counts up under this key.
    async fn count(&self, node: usize, key: &str) -> Reply {
        let fields = json!({"filter": {"_id": "n"}, "update": {"$inc": {"n": 1}}});
        self.act(node, "updateOne", key, fields).await
    }

    /// A new key, which must be executed once.
    async fn once(&mut self, when: &str) {
        let key = when.replace(' ', "-");
        let key = key.as_str();
        eventually("a write is taken", async || {
            let reply = self.count(0, key).await;
            assert!(matches!(reply.status, 200 | 500 | 503 | 504), "{reply:?}");
            (reply.status == 200).then_some(())
        })
        .await;
        self.executed += 1;
        eventually("another node gives the same answer", async || {
            let again = self.count(1, key).await;
            let replayed = again.header("idempotency-replayed") == Some("true");
            (again.status == 200 && replayed).then_some(())
        })
        .await;
        self.assert_executed_once().await;
        // Each has seen for itself that the log is whole.
        for node in &self.nodes {
            node.until_ready().await;
        }
    }

    async fn assert_executed_once(&self) {
        let counted = self.client.database("ground");
        let counted = counted.collection::<Document>("counted");
        let found = counted.find_one(doc! {"_id": "n"}).await.unwrap().unwrap();
        let count = found.get("n").and_then(|n| match n {
            Bson::Int32(n) => Some(i64::from(*n)),
            other => other.as_i64(),
        });
        assert_eq!(count, Some(self.executed), "each key was executed once");
    }

    /// A key that was executed before is answered from the log, or not at all; a new one not at all.
    /// Every node says why.
    async fn assert_told(&self, text: &str) {
        for node in 0..self.nodes.len() {
            for key in ["new", "early-1"] {
                let reply = self.count(node, key).await;
                if key != "new" && reply.header("idempotency-replayed") == Some("true") {
                    continue;
                }
                let code = reply.json()["error_code"].clone();
                assert_eq!((reply.status, code), (500, json!("LogFault")), "{reply:?}");
                assert!(reply.text.contains(text), "{}", reply.text);
            }
        }
        for node in &self.nodes {
            let ready = node.get("/readyz").await.expect(503);
            assert!(ready.text.contains(text), "{}", ready.text);
        }
        self.assert_executed_once().await;
    }

    async fn told(&mut self, text: &str, name: &str) {
        self.assert_told(text).await;
        eprintln!("{name}: told");
    }

    fn repair(&self, flags: &[&str]) -> (i32, String) {
        let mut arguments = vec!["repair", "--name", Cluster::NAME];
        arguments.extend(flags);
        let outcome = self.cluster.sandbox().run(&arguments);
        (outcome.status, outcome.stderr)
    }

    async fn all(&self, filter: Document) -> Vec<Document> {
        let mut found = self.log().find(filter).await.unwrap();
        let mut all = Vec::new();
        while found.advance().await.unwrap() {
            all.push(found.deserialize_current().unwrap());
        }
        all
    }

    async fn last(&self) -> i64 {
        let last = self
            .log()
            .find_one(doc! {"_id": {"$gt": 0}})
            .sort(doc! {"_id": -1})
            .await;
        last.unwrap().unwrap().get_i64("_id").unwrap()
    }
}

async fn rename(client: &Client, from: &str, to: &str) {
    let rename = doc! { "renameCollection": from, "to": to };
    client.database("admin").run_command(rename).await.unwrap();
}

#[test]
fn a_log_that_is_put_back_is_told_while_it_is_away_and_goes_on() {
    Runtime::new().unwrap().block_on(async {
        let mut ground = Ground::new().await;
        let log = ground.log();

        // Its last documents deleted.
        let end = ground.last().await;
        let gone = ground.all(doc! {"_id": {"$gt": end - 2}}).await;
        log.delete_many(doc! {"_id": {"$gt": end - 2}})
            .await
            .unwrap();
        ground.told("went back", "its end deleted").await;
        log.insert_many(&gone).await.unwrap();
        ground.once("after its end was deleted").await;

        // Emptied.
        let gone = ground.all(doc! {}).await;
        log.delete_many(doc! {}).await.unwrap();
        ground.told("went back", "emptied").await;
        log.insert_many(&gone).await.unwrap();
        ground.once("after it was emptied").await;

        // Renamed.
        rename(&ground.client, "drumline.log", "drumline.away").await;
        ground.told("went back", "renamed").await;
        rename(&ground.client, "drumline.away", "drumline.log").await;
        ground.once("after it was renamed").await;

        // Another document in the place of its last one.
        let end = ground.last().await;
        let gone = ground.all(doc! {"_id": end}).await.remove(0);
        let mut other = ground.all(doc! {"_id": end - 1}).await.remove(0);
        log.delete_one(doc! {"_id": end}).await.unwrap();
        other.insert("_id", end);
        other.remove("ids");
        log.insert_one(&other).await.unwrap();
        ground.told("is another", "replaced").await;
        log.replace_one(doc! {"_id": end}, &gone).await.unwrap();
        ground.once("after its end was replaced").await;

        // A document of somebody else, at its next position.
        let next = ground.last().await + 1;
        let foreign = doc! {"_id": next, "some": "thing"};
        log.insert_one(foreign).await.unwrap();
        ground.told("did not write", "a foreign document").await;
        log.delete_one(doc! {"_id": next}).await.unwrap();
        ground.once("after a foreign document").await;

        // One that is at no position is in nobody's way.
        log.insert_one(doc! {"_id": "text"}).await.unwrap();
        ground.once("beside a foreign document").await;
    });
}

#[test]
fn indexes_that_are_lost_are_made_anew_and_a_log_without_them_executes_nothing_twice() {
    Runtime::new().unwrap().block_on(async {
        let mut ground = Ground::new().await;
        let log = ground.log();
        for index in ["ids", "claims"] {
            log.drop_index(index).await.unwrap();
            let again = ground.count(0, "early-1").await.expect(200);
            assert_eq!(again.header("idempotency-replayed"), Some("true"));
            ground.once(&format!("without the index {index}")).await;
        }
        eventually("the index of request ids is made anew", async || {
            let names = log.list_index_names().await.unwrap();
            names.contains(&"ids".to_owned()).then_some(())
        })
        .await;

        // One of the same name that keeps nothing apart: a batch proves that its ids are new.
        log.drop_index("ids").await.unwrap();
        let options = IndexOptions::builder().name("ids".to_owned()).sparse(true);
        let index = IndexModel::builder().keys(doc! {"ids": 1});
        log.create_index(index.options(options.build()).build())
            .await
            .unwrap();
        for node in 0..3 {
            let again = ground.count(node, "early-2").await.expect(200);
            assert_eq!(again.header("idempotency-replayed"), Some("true"));
        }
        ground.assert_executed_once().await;
        let (code, said) = ground.repair(&[]);
        assert!(code == 1 && said.contains("no index"), "{said}");
        let (code, said) = ground.repair(&["--confirm"]);
        assert!(code == 0 && said.contains("goes on from"), "{said}");
        ground.once("after the index was mended").await;
        let (code, said) = ground.repair(&[]);
        assert!(code == 0 && said.contains("is whole"), "{said}");
    });
}

#[test]
fn a_log_that_is_lost_is_repaired_and_the_order_goes_on_above_it() {
    Runtime::new().unwrap().block_on(async {
        let mut ground = Ground::new().await;
        let stamp = |reply: &Reply| {
            let stamp = reply.header("drumline-stamp").unwrap();
            stamp.split('.').next().unwrap().parse::<i64>().unwrap()
        };
        let before = stamp(&ground.count(0, "early-1").await);

        // A hole is found by whoever looks at all of it.
        let hole = ground.last().await - 2;
        ground.log().delete_one(doc! {"_id": hole}).await.unwrap();
        let (code, said) = ground.repair(&[]);
        assert!(
            code == 1 && said.contains(&format!("position {hole} is gone")),
            "{said}"
        );
        ground.repair(&["--confirm"]);
        ground.once("after a hole was accepted").await;
        assert_eq!(
            ground.repair(&[]).0,
            0,
            "what was accepted is not told again"
        );

        // Dropped: not even a node that is started again takes the empty one for its own.
        ground.log().drop().await.unwrap();
        ground.told("went back", "dropped").await;
        let (name, pid) = (
            &ground.cluster.info.nodes[0].name.clone(),
            ground.cluster.node_pid(0),
        );
        processes::kill(pid, Signal::KILL);
        eventually(
            "the node is started again and says what is wrong",
            async || {
                let said = ground.nodes[0].try_get("/readyz").await.ok()?;
                said.text.contains("went back").then_some(())
            },
        )
        .await;
        assert_ne!(ground.cluster.node_pid(0), pid, "{name}");
        let (code, said) = ground.repair(&[]);
        assert!(code == 1 && said.contains("--confirm"), "{said}");
        let (code, said) = ground.repair(&["--confirm"]);
        assert!(code == 0, "{said}");
        ground.once("after the log was dropped").await;
        assert!(stamp(&ground.count(0, "after-the-log-was-dropped").await) > before);

        // With its whole database, while the nodes run: they know.
        ground.client.database("drumline").drop().await.unwrap();
        ground.told("went back", "its database dropped").await;
        let (code, said) = ground.repair(&["--confirm"]);
        assert!(code == 0, "{said}");
        ground.once("after the database was dropped").await;
    });
}

#[test]
fn a_hole_is_told_until_it_is_filled_by_looks_that_count_nothing_too() {
    let cluster = Cluster::start(&["--nodes", "0", "--members", "1"]);
    Runtime::new().unwrap().block_on(async {
        let inside = Inside::patient(&cluster.info.mongodb_uri).await;
        let namespace = Namespace::parse("ground.hole").unwrap();
        for id in 0..4 {
            let documents = vec![doc! {"_id": id}];
            let written = inside.write(&namespace, Write::Insert { documents }).await;
            written.unwrap().result.unwrap();
        }
        let log = inside
            .driver
            .database("drumline")
            .collection::<Document>("log");
        let gone = log
            .find_one_and_delete(doc! {"_id": 3})
            .await
            .unwrap()
            .unwrap();
        let store = inside.store();
        let hole = LogFault::Hole { at: Position(3) };
        assert_eq!(store.examine().await.unwrap(), Some(hole.clone()));
        // A claim looks so; it must not take the log for whole.
        assert!(matches!(store.survey().await, Err(StoreError::Log(fault)) if fault == hole));
        assert_eq!(store.known_log_fault(), Some(hole));
        log.insert_one(&gone).await.unwrap();
        store.survey().await.unwrap();
        assert_eq!(store.known_log_fault(), None);
        assert_eq!(store.examine().await.unwrap(), None);
    });
}
