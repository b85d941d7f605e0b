//! Two processes under one node name: one serves, the other says why it does not, and takes over
//! when the first is gone, however that ends.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Client;
use rustix::process::Signal;
use tokio::runtime::Runtime;

use crate::support::extra_node::ExtraNode;
use crate::support::http::Http;
use crate::support::{Cluster, eventually, kill, wait_for, wait_until};

/// The holder of a name is given three seconds to answer, on a machine that is busy with other tests.
const TAKEN_MAX: Duration = Duration::from_secs(20);

/// How often a node has claimed the log.
async fn claims(cluster: &Cluster) -> u64 {
    let driver = Client::with_uri_str(&cluster.info.mongodb_uri)
        .await
        .unwrap();
    let log = driver.database("drumline").collection::<Document>("log");
    log.count_documents(doc! {"kind": "claim"}).await.unwrap()
}

fn ready(runtime: &Runtime, node: &ExtraNode) -> Option<u16> {
    let http = Http::new(&node.url, "no key");
    let asked = runtime.block_on(http.try_get("/readyz"));
    asked.ok().map(|reply| reply.status)
}

fn until_ready(runtime: &Runtime, node: &ExtraNode) -> Duration {
    let begun = Instant::now();
    wait_until("the node serves", || ready(runtime, node) == Some(200));
    begun.elapsed()
}

/// Waits until the node says that its name is another's.
fn until_told(runtime: &Runtime, node: &ExtraNode, other: &ExtraNode) {
    let http = Http::new(&node.url, "no key");
    node.until_listening();
    let told = wait_for("the second tells that it waits", || {
        let reply = runtime.block_on(http.try_get("/readyz")).ok()?;
        reply.text.contains("another process").then_some(reply)
    });
    assert_eq!(told.status, 503);
    assert!(told.text.contains(&other.url), "{}", told.text);
    let view = runtime.block_on(http.get("/status")).json();
    assert!(
        view["faults"].to_string().contains("another process"),
        "{view:#}"
    );
}

#[test]
fn the_second_of_one_name_waits_and_takes_over_however_the_first_ends() {
    let cluster = Cluster::start(&["--nodes", "0", "--members", "1"]);
    let uri = &cluster.info.mongodb_uri;
    let runtime = Runtime::new().unwrap();
    let start = || ExtraNode::start(&cluster, "same", uri);

    let mut first = start();
    until_ready(&runtime, &first);
    let before = runtime.block_on(claims(&cluster));
    let mut second = start();
    until_told(&runtime, &second, &first);
    let key = &cluster.info.api_key;
    let body = serde_json::json!({"database": "d", "collection": "c", "document": {"a": 1}});
    runtime.block_on(async {
        let http = Http::new(&first.url, key);
        for _ in 0..20 {
            http.act("insertOne", &body).await.expect(201);
        }
    });
    assert_eq!(
        runtime.block_on(claims(&cluster)),
        before,
        "nobody was deposed"
    );
    let told = second.said();
    assert_eq!(told.matches("another process").count(), 1, "{told}");

    // Stopped as in a deployment that starts the new one first.
    kill(first.pid(), Signal::TERM);
    first.until_ended();
    let time = until_ready(&runtime, &second);
    println!("after a stop the second served within {time:?}");
    assert!(time < TAKEN_MAX);

    // Killed: one on the same machine sees that it is gone.
    kill(second.pid(), Signal::KILL);
    second.until_ended();
    let third = start();
    let time = until_ready(&runtime, &third);
    println!("after a kill the next served within {time:?}");
    assert!(time < TAKEN_MAX);

    // Frozen: it does not answer for its name. When it is back, that is another's.
    let mut frozen = third;
    kill(frozen.pid(), Signal::STOP);
    let fourth = start();
    let time = until_ready(&runtime, &fourth);
    println!("beside a frozen one the next served within {time:?}");
    assert!(time < TAKEN_MAX);
    let before = runtime.block_on(claims(&cluster));
    kill(frozen.pid(), Signal::CONT);
    frozen.until_ended();
    assert!(
        frozen.said().contains("another process has taken the name"),
        "{}",
        frozen.said()
    );
    until_ready(&runtime, &fourth);
    assert_eq!(
        runtime.block_on(claims(&cluster)),
        before,
        "the one that thawed deposed nobody"
    );
}

#[test]
fn a_process_elsewhere_that_died_blocks_its_name_for_seconds_only() {
    let cluster = Cluster::start(&["--nodes", "0", "--members", "1"]);
    let uri = &cluster.info.mongodb_uri;
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let driver = Client::with_uri_str(uri).await.unwrap();
        let nodes = driver.database("drumline").collection::<Document>("nodes");
        // In a container that is gone: nobody here can tell that it is.
        let held = doc! {
            "_id": "same", "holder": 7_i64, "url": "http://10.0.0.9:7401",
            "process": "another-boot pid:[1] 1 100",
        };
        nodes.insert_one(held).await.unwrap();
    });
    let node = ExtraNode::start(&cluster, "same", uri);
    let time = until_ready(&runtime, &node);
    println!("the name was taken back within {time:?}");
    assert!(time < TAKEN_MAX);
    runtime.block_on(async {
        let driver = Client::with_uri_str(uri).await.unwrap();
        let nodes = driver.database("drumline").collection::<Document>("nodes");
        // Whoever drops it, the name stays with the one that runs.
        nodes.drop().await.unwrap();
        eventually("the name is held again", async || {
            let found = nodes.find_one(doc! {"_id": "same"}).await.unwrap()?;
            found.get_i64("holder").ok()
        })
        .await;
    });
    assert_eq!(ready(&runtime, &node), Some(200));
}
