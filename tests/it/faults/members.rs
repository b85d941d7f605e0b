//! The primary is stepped down or killed, alone and together with the coordinator.

use std::time::Instant;

use mongodb::Client;
use mongodb::bson::doc;
use rustix::process::Signal;
use tokio::runtime::Runtime;

use super::turn;
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
