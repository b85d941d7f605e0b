//! A node's user loses a right for a while.

use bson::{Document, doc};
use mongodb::Client;
use serde_json::json;

use super::super::extra_node::ExtraNode;
use super::super::http::Http;
use super::super::{Cluster, eventually};

/// What a client is told of a write that the node may not do, and of the same request when the node
/// may. The text says what is wrong with that, if anything is.
pub async fn barred_for_a_while(cluster: &Cluster) -> Result<(), String> {
    let uri = &cluster.info.mongodb_uri;
    let driver = Client::with_uri_str(uri).await.unwrap();
    let admin = driver.database("admin");
    let all = || doc! {"role": "readWriteAnyDatabase", "db": "admin"};
    let change = async |command: Document| {
        admin.run_command(command).await.unwrap();
    };
    change(doc! {"createUser": "barred", "pwd": "barred", "roles": [all()]}).await;
    let host = uri.split_once('@').unwrap().1;
    let uri = format!("mongodb://barred:barred@{host}");
    let node = ExtraNode::start(cluster, "n1", &uri);
    node.until_listening();
    let http = Http::new(&node.url, &cluster.info.api_key);
    http.until_ready().await;
    let insert =
        |id: i32| json!({"database": "load", "collection": "barred", "document": {"_id": id}});
    http.act("insertOne", &insert(0)).await.expect(201);

    let log = doc! {"role": "readWrite", "db": "drumline"};
    let reads = doc! {"role": "readAnyDatabase", "db": "admin"};
    change(doc! {"updateUser": "barred", "roles": [log, reads]}).await;
    let key = [("Idempotency-Key", "barred")];
    let first = http.act_with("insertOne", &key, &insert(1)).await;
    if first.status != 400 || first.json()["mongodb_code"] != 13 {
        return Err(format!("a write without a right got {first:?}"));
    }
    if first.header("drumline-stamp").is_some() {
        return Err(format!(
            "a write without a right was put in order: {first:?}"
        ));
    }

    change(doc! {"updateUser": "barred", "roles": [all()]}).await;
    // Another request shows that the right is back.
    let mut id = 1;
    eventually("the node may write again", async || {
        id += 1;
        let reply = http.act("insertOne", &insert(id)).await;
        (reply.status == 201).then_some(())
    })
    .await;
    let again = http.act_with("insertOne", &key, &insert(1)).await;
    match again.status {
        201 => Ok(()),
        _ => Err(format!(
            "the same request, when the node may, got {again:?}"
        )),
    }
}
