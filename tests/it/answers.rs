//! Each request gets the answer that the plain driver gives, byte for byte, and leaves the same
//! documents behind, alone and beside others.

use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use mongodb::Client;
use serde_json::json;
use tokio::runtime::Runtime;

use crate::support::answers::{Dice, barred_for_a_while, compare, must_agree};
use crate::support::http::Http;
use crate::support::inside::Inside;
use crate::support::{Cluster, POLL, SMALL, setting};

/// `DRUMLINE_SEED` draws the same requests again, `DRUMLINE_ROUNDS` more of them.
#[test]
fn each_answer_is_the_drivers_whatever_the_ids_the_collection_and_the_neighbours() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = setting("DRUMLINE_SEED", u64::try_from(now.as_millis()).unwrap());
    let rounds = setting("DRUMLINE_ROUNDS", 1);
    println!("DRUMLINE_SEED={seed} DRUMLINE_ROUNDS={rounds}");
    let cluster = Cluster::start(&SMALL);
    Runtime::new().unwrap().block_on(async {
        let inside = Inside::patient(&cluster.info.mongodb_uri).await;
        let rounds = usize::try_from(rounds).unwrap();
        must_agree(&compare(&inside, &mut Dice(seed), rounds, 1).await);
    });
}

#[test]
fn what_a_request_is_told_that_the_node_may_not_do_is_no_answer_for_good() {
    let cluster = Cluster::start(&SMALL);
    let runtime = Runtime::new().unwrap();
    runtime.block_on(barred_for_a_while(&cluster)).unwrap();
}

/// MongoDB refuses what it is asked of a database while that is being dropped.
#[test]
fn writes_beside_a_database_that_is_dropped_again_and_again_are_never_refused() {
    let cluster = Cluster::start(&["--nodes", "1", "--members", "1"]);
    Runtime::new().unwrap().block_on(async {
        let driver = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        let database = driver.database("dropped");
        let http = Http::to(&cluster);
        let writing = async |client: u32| {
            let mut refused = Vec::new();
            for number in 0..40 {
                let document = json!({"_id": format!("{client}-{number}")});
                let collection = format!("c{}", number % 3);
                let body = json!({
                    "database": "dropped", "collection": collection, "document": document,
                });
                let reply = http.act("insertOne", &body).await;
                if !matches!(reply.status, 201 | 503) {
                    refused.push(reply.text);
                }
            }
            refused
        };
        let dropping = async {
            loop {
                database.drop().await.unwrap();
                // Some writes must come through between two of them.
                tokio::time::sleep(POLL).await;
            }
        };
        let writing = join_all((0..6).map(writing));
        let refused = tokio::select! {
            refused = writing => refused.concat(),
            () = dropping => unreachable!("it has no end"),
        };
        assert!(refused.is_empty(), "{refused:#?}");
    });
}
