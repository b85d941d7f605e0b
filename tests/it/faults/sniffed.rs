//! A message that somebody hears between two nodes is of no use to him.

use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, doc};
use tokio::runtime::Runtime;

use super::{replica_set, turn};
use crate::support::eventually;
use crate::support::line::Mode;
use crate::support::sniffed::{DATABASE, MESSAGE, Sniffed, insert};
use crate::support::trio::{Setup, Trio, others};

/// So old may a message be, and a little more.
const TOO_OLD: Duration = Duration::from_millis(5_100);

const TAKEN: u16 = 201;
const REFUSED: u16 = 401;
/// The first one may have been taken.
const REPEATED: u16 = 409;

#[test]
fn a_sniffed_message_is_of_no_use() {
    let _turn = turn();
    let cluster = replica_set();
    Runtime::new().unwrap().block_on(async {
        let setup = Setup {
            peer_lines: true,
            ..Setup::default()
        };
        let mut trio = Trio::start(cluster, setup).await;
        let tenure = trio.agreed().await;
        let (to, from) = (tenure.node, others(tenure.node)[0]);
        let address = trio.address(to).to_owned();
        let send = async |message: Sniffed| message.send_to(&address).await;

        let answered = Sniffed::answered(&trio, from, to, "answered").await;
        assert_eq!(send(answered).await, REPEATED, "again");

        // Those that did not arrive are good for one use, which is the one they were meant for.
        let old = Sniffed::withheld(&trio, from, to, "old").await;
        let old_since = Instant::now();
        let good = Sniffed::withheld(&trio, from, to, "good").await;
        for (what, changed) in [
            ("path", good.clone().with_path("/peer/action/deleteMany")),
            (
                "query",
                good.clone().with_path("/peer/action/insertOne?a=b"),
            ),
            (
                "id",
                good.clone().with_header("idempotency-key", "\"another\""),
            ),
            (
                "clock",
                good.clone().with_header("drumline-stamp", "1000000"),
            ),
            ("read", good.clone().with_header("drumline-read", "causal")),
            (
                "format",
                good.clone().with_header("accept", "application/json"),
            ),
            ("addressee", good.clone().with_header("drumline-to", "n7")),
            ("sender", good.clone().with_header("drumline-from", "n7")),
            ("number", good.clone().with_header("drumline-nonce", "1")),
            ("time", good.clone().with_header("drumline-time", "1")),
        ] {
            assert_eq!(send(changed).await, REFUSED, "another {what}");
        }
        assert_eq!(send(good.clone()).await, TAKEN, "as it was");
        assert_eq!(send(good).await, REPEATED, "again");

        let changed = Sniffed::withheld(&trio, from, to, "changed").await;
        let forged = changed.with_body(insert("forged").to_string());
        assert_eq!(send(forged).await, REFUSED, "another body");

        trio.between(from, to, Mode::Silent);
        trio.line(from, to).listen();
        let beat = Sniffed::on(&trio, (from, to), MESSAGE).await;
        trio.line(from, to).lose_all().await;
        trio.between(from, to, Mode::Whole);
        let forged = beat.clone().with_body("{}");
        assert_eq!(send(forged).await, REFUSED, "another beat");
        let elsewhere = beat.clone().with_path("/peer/action/insertOne");
        let forged = elsewhere.with_body(insert("forged").to_string());
        assert_eq!(
            send(forged).await,
            REFUSED,
            "a beat's proof at another path"
        );

        // Nothing but the time is against it.
        eventually("the message is old", async || {
            (old_since.elapsed() > TOO_OLD).then_some(())
        })
        .await;
        assert_eq!(send(old).await, REFUSED, "late");

        let earlier = Sniffed::withheld(&trio, from, to, "earlier").await;
        trio.kill(to);
        trio.start_node(to);
        assert_eq!(send(earlier).await, REFUSED, "after a restart");

        let driver = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        let stored = driver.database(DATABASE).collection::<Document>("c");
        let all = stored.count_documents(doc! {}).await.unwrap();
        assert_eq!(all, 5, "what the followers sent");
        driver.shutdown().await;
    });
}
