//! What nodes say to each other: strangers are not let in, and a request that is passed on is answered
//! once whoever dies meanwhile.

use std::time::Duration;

use bson::doc;
use drumline::model::limits::COORDINATOR_WAIT_MAX;
use hyper::body::Bytes;
use mongodb::Client;
use mongodb::bson::Document;
use serde_json::json;
use tokio::runtime::Runtime;

use super::{replica_set, turn};
use crate::support::eventually;
use crate::support::extra_node::{ExtraNode, free_address};
use crate::support::proxy::Proxy;
use crate::support::trio::{CLUSTER_NAME, SECRET, Setup, Trio, others, primary};

const WRONG_SECRET: &str = "the secret of others";

#[test]
fn nodes_with_another_secret_cluster_or_name_are_refused_and_logged_once() {
    let _turn = turn();
    let cluster = replica_set();
    Runtime::new().unwrap().block_on(async {
        let trio = Trio::start(cluster, Setup::default()).await;
        let tenure = trio.agreed().await;
        let target = format!("http://{}", trio.address(0));
        let strangers = [
            (
                "n2",
                CLUSTER_NAME,
                WRONG_SECRET,
                "n1",
                "the cluster secret is another one, or this node is of another version",
            ),
            (
                "n2",
                "another",
                SECRET,
                "n1",
                "this node belongs to another cluster than 'another'",
            ),
            (
                "n2",
                CLUSTER_NAME,
                SECRET,
                "n7",
                "this node is n1, not 'n7'",
            ),
            (
                "n9",
                CLUSTER_NAME,
                SECRET,
                "n1",
                "'n9' is not among the peers of this node",
            ),
        ];
        let mut started = Vec::new();
        for (name, cluster_name, secret, peer, refusal) in strangers {
            // It reaches no MongoDB, so that it changes nothing where nothing refuses it.
            let nowhere = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100";
            let address = free_address("127.0.0.1");
            let stranger = ExtraNode::start_with(cluster, name, nowhere, &address, |command| {
                let peer = format!("{peer}={target}");
                command.args(["--cluster", cluster_name, "--peer", &peer]);
                command.env("DRUMLINE_CLUSTER_SECRET", secret);
            });
            started.push((stranger, refusal));
        }
        eventually("both sides have logged it", async || {
            let told = |(stranger, refusal): &(ExtraNode, &str)| {
                trio.said(0).contains(refusal) && stranger.said().contains(refusal)
            };
            started.iter().all(told).then_some(())
        })
        .await;
        // Each tries again every second.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        for (stranger, refusal) in &started {
            assert_eq!(trio.said(0).matches(refusal).count(), 1, "{refusal}");
            assert_eq!(stranger.said().matches(refusal).count(), 1, "{refusal}");
            for secret in [WRONG_SECRET, SECRET] {
                assert!(!trio.said(0).contains(secret) && !stranger.said().contains(secret));
            }
        }
        assert_eq!(trio.agreed().await, tenure);
    });
}

#[test]
fn a_request_on_its_way_at_a_coordinator_that_dies_is_answered_once_by_the_next() {
    let _turn = turn();
    let cluster = replica_set();
    Runtime::new().unwrap().block_on(async {
        let uri = &cluster.info.mongodb_uri;
        let proxy = Proxy::start(&primary(uri).await).await;
        let mut trio = Trio::prepare(cluster, Setup::default()).await;
        trio.set_uri(0, proxy.uri(uri));
        trio.start_node(0);
        let before = trio.agreed().await;
        assert_eq!(before.node, 0);
        trio.start_node(1);
        trio.start_node(2);
        assert_eq!(trio.agreed().await, before);
        let follower = trio.http(others(0)[0]);
        let place = json!({"database": "faults", "collection": "once"});
        let mut first = place.clone();
        first["document"] = json!({"_id": before.epoch, "n": 0});
        follower.act("insertOne", &first).await.expect(201);
        proxy.hold_commits();
        let mut add = place.clone();
        add["filter"] = json!({"_id": before.epoch});
        add["update"] = json!({"$inc": {"n": 1}});
        let sent = tokio::spawn({
            let follower = follower.clone();
            async move {
                let body = Bytes::from(add.to_string());
                follower.try_act("updateOne", &[], body).await
            }
        });
        eventually("the request is in an open transaction", async || {
            proxy.holds_a_commit().then_some(())
        })
        .await;
        // It has waited there longer than a request may wait for a coordinator to be found.
        tokio::time::sleep(COORDINATOR_WAIT_MAX).await;
        trio.kill(0);
        let reply = sent.await.unwrap().unwrap().expect(200);
        assert!(reply.header("drumline-position").is_some(), "{reply:?}");
        assert!(trio.agreed().await.epoch > before.epoch);
        let driver = Client::with_uri_str(uri).await.unwrap();
        let stored = driver.database("faults").collection::<Document>("once");
        let stored = stored.find_one(doc! {"_id": before.epoch}).await;
        assert_eq!(stored.unwrap().unwrap().get_i32("n").unwrap(), 1);
        driver.shutdown().await;
    });
}
