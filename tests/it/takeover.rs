//! A node that dies inside a transaction leaves its locks behind: the log's next position and the
//! documents of its batch stay locked for a minute. Its successor ends them and goes on.

use std::time::{Duration, Instant};

use drumline::client::Clock;
use mongodb::Client;
use rustix::process::Signal;
use tokio::runtime::Runtime;

use crate::support::audit::audit;
use crate::support::load::{End, Load, Op};
use crate::support::transactions::{freeze_inside_transaction, open_transactions};
use crate::support::{Cluster, kill};

/// Without the claim's killSessions this takes as long as MongoDB lets a transaction live: 63.9 s.
const TAKEOVER_MAX: Duration = Duration::from_secs(2);
/// The commit may have been on its way when the node was stopped; then its transaction is gone.
const TRIES_MAX: usize = 20;

#[test]
fn a_node_killed_inside_a_transaction_is_followed_by_an_acknowledged_write_within_two_seconds() {
    let cluster = Cluster::start(&[]);
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
