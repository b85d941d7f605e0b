//! The log loses its end behind a running node.

use bson::{Document, doc};
use mongodb::Client;
use serde_json::json;
use tokio::runtime::Runtime;

use super::Violations;
use super::support::http::Http;
use super::support::{Cluster, Sandbox};

/// A request whose position is gone comes again: it is not executed a second time.
pub fn tried_again(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    let cluster = Cluster::start_in(sandbox, &["--nodes", "1", "--members", "1"]);
    runtime.block_on(async {
        let http = Http::to(&cluster);
        let place = json!({"database": "load", "collection": "cut"});
        let with = |mut fields: serde_json::Value| {
            fields["database"] = place["database"].clone();
            fields["collection"] = place["collection"].clone();
            fields
        };
        let first = with(json!({"document": {"_id": "n", "n": 0}}));
        http.act("insertOne", &first).await.expect(201);
        let count = with(json!({"filter": {"_id": "n"}, "update": {"$inc": {"n": 1}}}));
        let key = [("Idempotency-Key", "once")];
        http.act_with("updateOne", &key, &count).await.expect(200);

        let driver = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        let log = driver.database("drumline").collection::<Document>("log");
        let last = log.find_one(doc! {}).sort(doc! {"_id": -1}).await.unwrap();
        let last = last.unwrap().get_i64("_id").unwrap();
        log.delete_one(doc! {"_id": last}).await.unwrap();
        let again = http.act_with("updateOne", &key, &count).await;
        let counted = driver.database("load").collection::<Document>("cut");
        let counted = counted.find_one(doc! {"_id": "n"}).await.unwrap().unwrap();
        match counted.get("n").map(ToString::to_string).as_deref() {
            Some("1") => Violations::default(),
            n => Violations::other(vec![format!("the count is {n:?}: {}", again.text)]),
        }
    })
}
