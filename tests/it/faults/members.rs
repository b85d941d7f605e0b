//! The primary is stepped down or killed, alone and together with the coordinator.

use std::time::Instant;

use mongodb::Client;
use mongodb::bson::doc;
use rustix::process::Signal;
use serde_json::json;
use tokio::runtime::Runtime;

use super::turn;
use crate::support::http::Http;
use crate::support::trio::{Setup, Trio, others, primary};
use crate::support::under_load::{UnderLoad, first_write};
use crate::support::{Cluster, eventually, kill};

/// Asks the primary to step down, again while it is too busy to, and waits for another.
pub async fn step_down(cluster: &Cluster) {
    let uri = &cluster.info.mongodb_uri;
    let before = primary(uri).await;
    let driver = Client::with_uri_str(uri).await.unwrap();
    let admin = driver.database("admin");
    eventually("another member is primary", async || {
        // It breaks its connections as it steps down; whether it did is asked below.
        let _ = admin
            .run_command(doc! {"replSetStepDown": 10, "secondaryCatchUpPeriodSecs": 5})
            .await;
        (primary(uri).await != before).then_some(())
    })
    .await;
    driver.shutdown().await;
}

#[test]
fn a_change_of_the_primary_does_not_change_the_coordinator() {
    let _turn = turn();
    let cluster = Cluster::start(&["--nodes", "0"]);
    Runtime::new().unwrap().block_on(async {
        let mut trio = Trio::start(&cluster, Setup::default()).await;
        let mut under_load = UnderLoad::on(&trio, "primary").await;
        let tenure = trio.agreed().await;
        for round in ["a planned step-down", "kill -9"] {
            let begun = Instant::now();
            match round {
                "kill -9" => kill(cluster.primary_pid().await, Signal::KILL),
                _ => step_down(&cluster).await,
            }
            under_load.until_served().await;
            println!(
                "{round} of the primary to the next write: {:?}",
                begun.elapsed()
            );
            assert_eq!(trio.agreed().await, tenure);
        }
        kill(cluster.primary_pid().await, Signal::KILL);
        trio.kill(tenure.node);
        let begun = Instant::now();
        let time = first_write(&trio.http(others(tenure.node)[0]), begun).await;
        println!("kill -9 of coordinator and primary together to the next write: {time:?}");
        assert!(trio.agreed().await.epoch > tenure.epoch);
        under_load.until_served().await;
        trio.heal();
        trio.agreed().await;
        under_load.end(&cluster).await;
    });
}

/// The look at the log waits for a majority until MongoDB gives it up: that is no fault of the read.
#[test]
fn without_a_majority_a_read_is_to_be_tried_again() {
    let _turn = turn();
    let cluster = Cluster::start(&["--nodes", "1"]);
    Runtime::new().unwrap().block_on(async {
        let http = Http::to(&cluster);
        let insert = json!({"database": "lost", "collection": "reads", "document": {"_id": 1}});
        http.act("insertOne", &insert).await.expect(201);
        let primary = cluster.primary_pid().await;
        let members = (0..3).map(|member| cluster.member_pid(member));
        let others: Vec<_> = members.filter(|pid| *pid != primary).collect();
        others.iter().for_each(|pid| kill(*pid, Signal::STOP));
        let find = json!({"database": "lost", "collection": "reads", "filter": {}});
        let reply = http.act("findOne", &find).await;
        others.iter().for_each(|pid| kill(*pid, Signal::CONT));
        assert_eq!(reply.status, 503, "{:?}", reply.json());
        assert_eq!(reply.header("retry-after"), Some("1"), "{:?}", reply.json());
    });
}
