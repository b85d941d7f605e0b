//! Nodes are killed, frozen, stopped and started again.

use std::time::{Duration, Instant};

use mongodb::Client;
use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::{replica_set, turn};
use crate::support::transactions::{freeze_inside_transaction, open_transactions};
use crate::support::trio::{NAMES, Setup, Trio, others};
use crate::support::under_load::{UnderLoad, first_write, insert_once};
use crate::support::{Cluster, eventually, kill, setting};

/// The bars of a failover are measured in a release build on a quiet machine: see docs/figures.md. Here
/// is some room: less than the 10 s after which clients give up, and MongoDB elects.
const KILLED_MAX: Duration = Duration::from_secs(9);
const FROZEN_MAX: Duration = Duration::from_secs(9);
const REJOINED_MAX: Duration = Duration::from_secs(9);
/// A commit may have been on its way when the node was stopped; then its transaction is gone.
const TRIES_MAX: usize = 20;

#[test]
fn a_coordinator_killed_inside_a_transaction_is_followed_by_another() {
    let _turn = turn();
    let cluster = replica_set();
    Runtime::new().unwrap().block_on(async {
        let mut trio = Trio::start(cluster, Setup::default()).await;
        let mut under_load = UnderLoad::on(&trio, "killed").await;
        let before = trio.agreed().await;
        kill_inside_transaction(cluster, &mut trio, before.node).await;
        let killed = Instant::now();
        let through = others(before.node).map(|node| trio.http(node));
        let times = tokio::join!(
            first_write(&through[0], killed),
            first_write(&through[1], killed),
        );
        println!(
            "kill -9 inside a transaction to the first write through each other node: {times:?}"
        );
        let after = trio.agreed().await;
        assert_eq!(after.epoch, before.epoch + 1, "one claim is enough");
        trio.start_node(before.node);
        assert_eq!(trio.agreed().await, after, "who comes back follows");
        under_load.until_served().await;
        under_load.end(cluster).await;
        assert!(times.0.max(times.1) < KILLED_MAX);
    });
}

/// Returns when the node is dead and MongoDB still holds its transaction open.
async fn kill_inside_transaction(cluster: &Cluster, trio: &mut Trio<'_>, node: usize) {
    let driver = Client::with_uri_str(&cluster.info.mongodb_uri).await;
    let driver = driver.unwrap();
    let app = format!("^drumline {}$", NAMES[node]);
    for _ in 0..TRIES_MAX {
        let pid = trio.pid(node);
        let session = freeze_inside_transaction(&driver, &app, pid).await;
        if open_transactions(&driver, &app).await.contains(&session) {
            trio.kill(node);
            return;
        }
        kill(pid, Signal::CONT);
    }
    panic!("never killed inside a transaction");
}

/// How long the zombie is frozen: `DRUMLINE_FREEZE_SECONDS`, or a time that fits a short run.
fn freeze_time() -> Duration {
    Duration::from_secs(setting("DRUMLINE_FREEZE_SECONDS", 5))
}

#[test]
fn a_frozen_coordinator_is_succeeded_and_acknowledges_nothing_when_it_is_thawed() {
    let _turn = turn();
    let cluster = replica_set();
    Runtime::new().unwrap().block_on(async {
        let mut trio = Trio::start(cluster, Setup::default()).await;
        let mut under_load = UnderLoad::on(&trio, "frozen").await;
        let before = trio.agreed().await;
        let zombie = before.node;
        trio.freeze(zombie);
        let frozen = Instant::now();
        let time = first_write(&trio.http(others(zombie)[0]), frozen).await;
        println!("freeze to the first write through another node: {time:?}");
        let after = trio.agreed().await;
        assert_eq!(after.epoch, before.epoch + 1);
        sleep(freeze_time().saturating_sub(frozen.elapsed())).await;
        trio.thaw(zombie);
        let thawed = Instant::now();
        // Whatever it answers from now on is the new coordinator's, or no acknowledgement. The load makes its
        // answers slow, so its role is looked at meanwhile.
        let http = trio.http(zombie);
        let asked = futures_util::future::join_all((0..16).map(|_| insert_once(&http)));
        let follows = async {
            eventually("the zombie follows", async || {
                (trio.role(zombie).await? == "follower").then_some(())
            })
            .await;
            thawed.elapsed()
        };
        let (replies, rejoined) = tokio::join!(asked, follows);
        println!("thaw to follower: {rejoined:?}");
        for reply in replies.into_iter().flatten() {
            if reply.status == 201 {
                let position = reply.header("drumline-position").unwrap();
                let author = trio.author(position.parse().unwrap()).await;
                assert_eq!(author.as_deref(), Some(NAMES[after.node]), "{reply:?}");
            }
        }
        assert_eq!(trio.agreed().await, after);
        under_load.until_served().await;
        under_load.end(cluster).await;
        assert!(time < FROZEN_MAX);
        assert!(rejoined < REJOINED_MAX);
    });
}

/// The dwell time, as the setup has it.
const DWELL: Duration = Duration::from_secs(2);

#[test]
fn the_largest_rank_takes_over_once_a_dwell_time_however_often_it_restarts() {
    let _turn = turn();
    let cluster = replica_set();
    Runtime::new().unwrap().block_on(async {
        let setup = Setup {
            dwell: "2s",
            ..Setup::default()
        };
        let mut trio = Trio::start(cluster, setup).await;
        // Not a coordinator now, and of the largest rank from its next start on.
        let restless = others(trio.agreed().await.node)[0];
        let mut under_load = UnderLoad::on(&trio, "restless").await;
        let begun = Instant::now();
        let claims = trio.claims().await.len();
        for life in [300, 2_900, 600, 900, 2_900, 200, 400] {
            trio.kill(restless);
            trio.agreed().await;
            trio.start_node(restless);
            sleep(Duration::from_millis(life)).await;
            under_load.until_served().await;
        }
        let time = begun.elapsed();
        let claims = trio.claims().await.split_off(claims);
        let own = claims
            .iter()
            .filter(|(_, node)| node == NAMES[restless])
            .count();
        println!("{own} takeovers by the largest rank in {time:?}: {claims:?}");
        assert!(own >= 1, "it lived longer than the dwell time twice");
        assert!(DWELL * own.try_into().unwrap() <= time);
        under_load.end(cluster).await;
    });
}

/// How many requests are sent when the follower knows of the handover.
const AFTER_HANDOVER: usize = 50;
const HANDOVER_MAX: Duration = Duration::from_secs(30);

#[test]
fn a_coordinator_that_is_stopped_hands_over_and_no_client_sees_an_error() {
    let _turn = turn();
    let cluster = replica_set();
    Runtime::new().unwrap().block_on(async {
        let mut trio = Trio::start(cluster, Setup::default()).await;
        let under_load = UnderLoad::on(&trio, "stopped").await;
        let before = trio.agreed().await;
        let follower = others(before.node)[0];
        let through = trio.http(follower);
        let mut longest = Duration::ZERO;
        let mut replies = 0;
        trio.stop(before.node);
        let stopped = Instant::now();
        // Until well after it: each request is tried once, and must succeed.
        let mut left = AFTER_HANDOVER;
        while left > 0 {
            let sent = Instant::now();
            insert_once(&through).await.unwrap().expect(201);
            longest = longest.max(sent.elapsed());
            replies += 1;
            if left < AFTER_HANDOVER || trio.believed(follower).await != Some(before.node) {
                left -= 1;
            }
            assert!(
                left < AFTER_HANDOVER || stopped.elapsed() < HANDOVER_MAX,
                "no handover"
            );
        }
        println!("handover: the slowest of {replies} requests took {longest:?}");
        trio.until_stopped(before.node);
        assert_eq!(trio.agreed().await.epoch, before.epoch + 1);
        trio.start_node(before.node);
        under_load.end(cluster).await;
    });
}

#[test]
fn all_nodes_killed_at_once_come_back_and_nothing_is_lost() {
    let _turn = turn();
    let cluster = replica_set();
    Runtime::new().unwrap().block_on(async {
        let mut trio = Trio::start(cluster, Setup::default()).await;
        let mut under_load = UnderLoad::on(&trio, "all").await;
        let before = trio.agreed().await;
        (0..3).for_each(|node| trio.kill(node));
        let killed = Instant::now();
        (0..3).for_each(|node| trio.start_node(node));
        let time = under_load.until_served().await;
        println!(
            "all nodes killed and started: {time:?} to the next write, {:?} since the kill",
            killed.elapsed()
        );
        assert!(trio.agreed().await.epoch > before.epoch);
        under_load.end(cluster).await;
    });
}
