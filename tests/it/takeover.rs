//! A node that dies inside a transaction leaves its locks behind: the log's next position and the
//! documents of its batch stay locked for a minute. Its successor ends them and goes on. And a node
//! that never hears of its commit finds out what became of it.

use std::time::{Duration, Instant};

use drumline::client::Clock;
use mongodb::Client;
use rustix::process::Signal;
use serde_json::json;
use tokio::runtime::Runtime;

use crate::support::audit::audit;
use crate::support::extra_node::ExtraNode;
use crate::support::http::Http;
use crate::support::load::{End, Load, Op};
use crate::support::proxy::Proxy;
use crate::support::transactions::{
    TAKEOVER_MAX, freeze_inside_transaction, open_transactions, takeover,
};
use crate::support::{Cluster, kill};

/// The commit may have been on its way when the node was stopped; then its transaction is gone.
const TRIES_MAX: usize = 20;

#[test]
fn a_node_killed_inside_a_transaction_is_followed_by_an_acknowledged_write() {
    let cluster = Cluster::start(&Cluster::ONE_NODE);
    Runtime::new().unwrap().block_on(async {
        let driver = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        let load = Load::new(&cluster, "load.takeover");
        let running = tokio::spawn({
            let load = load.clone();
            async move { load.run(16).await }
        });
        let probe = load.client(Duration::from_secs(90));
        let insert = async |key: &str| {
            let op = Op::Insert { key: key.into() };
            load.one_request(&probe, &Clock::default(), op).await
        };
        let mut probes = vec![insert("before").await];
        kill_inside_transaction(&cluster, &driver).await;
        let killed = Instant::now();
        probes.push(insert("after").await);
        let time = killed.elapsed();
        println!("kill -9 inside a transaction to the next acknowledged write: {time:?}");
        assert!(matches!(probes[1].end, End::Acknowledged(_)), "{probes:?}");
        assert!(time < TAKEOVER_MAX);
        load.stop();
        let mut records = running.await.unwrap();
        records.extend(probes);
        load.settle(&mut records).await;
        let audited = audit(&cluster.info.mongodb_uri, &load.namespace, &records).await;
        println!("{audited:?}");
        assert_eq!(audited.unknown, 0);
    });
}

/// Returns when the node is dead and MongoDB still holds its transaction open.
async fn kill_inside_transaction(cluster: &Cluster, driver: &Client) {
    for _ in 0..TRIES_MAX {
        let node = cluster.node_pid(0);
        let session = freeze_inside_transaction(driver, "^drumline n1$", node).await;
        kill(node, Signal::KILL);
        let left = open_transactions(driver, "^drumline n1$").await;
        if left.contains(&session) {
            return;
        }
    }
    panic!("never killed inside a transaction");
}

#[test]
fn a_node_killed_between_its_log_document_and_its_commit_is_succeeded_soon() {
    let cluster = Cluster::start(&["--nodes", "0"]);
    Runtime::new().unwrap().block_on(async {
        let (time, record) = takeover(&cluster, Duration::from_secs(90)).await;
        println!("kill -9 before the commit to a write acknowledged by another node: {time:?}");
        assert!(matches!(record.end, End::Acknowledged(_)), "{record:?}");
        assert!(time < TAKEOVER_MAX);
    });
}

#[test]
fn a_commit_whose_replies_are_lost_is_found_in_the_log_and_not_done_twice() {
    let cluster = Cluster::start(&["--nodes", "0", "--members", "1"]);
    Runtime::new().unwrap().block_on(async {
        let proxy = Proxy::start(&cluster.info.members[0].host).await;
        let uri = proxy.uri(&cluster.info.mongodb_uri);
        let node = ExtraNode::start(&cluster, "n1", &uri);
        node.until_listening();
        let http = Http::new(&node.url, &cluster.info.api_key);
        http.until_ready().await;
        let place = json!({"database": "lost", "collection": "replies"});
        let mut first = place.clone();
        first["document"] = json!({"_id": 1, "n": 0});
        http.act("insertOne", &first).await.expect(201);
        let mut add = place.clone();
        add["filter"] = json!({"_id": 1});
        add["update"] = json!({"$inc": {"n": 1}});
        // The driver sends a commit twice, and Drumline sends it three times.
        for lost in 1..=6 {
            proxy.lose_replies(lost);
            let begun = Instant::now();
            http.act("updateOne", &add).await.expect(200);
            println!(
                "{lost} replies to commits lost: answered in {:?}",
                begun.elapsed()
            );
            assert!(proxy.all_lost());
            let found = http.act("findOne", &place).await.expect(200);
            let n = found.json()["document"]["n"]["$numberInt"].clone();
            assert_eq!(n, lost.to_string());
        }
    });
}
