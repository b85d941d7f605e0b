//! Lines between nodes, and between nodes and MongoDB, are cut, fall silent, or work one way only.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::{replica_set, turn};
use crate::support::line::Mode;
use crate::support::trio::{NAMES, Setup, Tenure, Trio, others};
use crate::support::under_load::{UnderLoad, first_write};
use crate::support::{POLL, eventually};

/// Longer than it takes to notice a cut, to look for signs of life, and to claim.
const STEADY: Duration = Duration::from_secs(2);
/// A second until it is noticed, another until the look ends, three of patience, and the election.
const ABDICATION_MAX: Duration = Duration::from_secs(12);

fn lines(mongodb_lines: bool) -> Setup {
    Setup {
        peer_lines: true,
        mongodb_lines,
        ..Setup::default()
    }
}

/// Fails if this node stops being coordinator, or begins another tenure, while clients are served.
async fn stays_coordinator(trio: &Trio<'_>, under_load: &mut UnderLoad, tenure: Tenure) {
    let claims = trio.claims().await.len();
    let begun = Instant::now();
    while begun.elapsed() < STEADY {
        under_load.until_served().await;
        first_write(&trio.http(tenure.node), Instant::now()).await;
        assert_eq!(trio.believed(tenure.node).await, Some(tenure.node));
        tokio::time::sleep(POLL).await;
    }
    let claims = trio.claims().await.split_off(claims);
    assert!(claims.is_empty(), "{claims:?} while {tenure:?} was at work");
}

#[test]
fn a_coordinator_cut_off_from_its_peers_goes_on_without_a_duel() {
    let _turn = turn();
    let cluster = replica_set();
    Runtime::new().unwrap().block_on(async {
        let trio = Trio::start(cluster, lines(false)).await;
        let mut under_load = UnderLoad::on(&trio, "cut").await;
        let tenure = trio.agreed().await;
        let peer = others(tenure.node)[0];
        for mode in [Mode::Cut, Mode::Silent, Mode::NoReplies] {
            println!("{mode:?} to one peer");
            trio.between(tenure.node, peer, mode);
            stays_coordinator(&trio, &mut under_load, tenure).await;
            trio.between(tenure.node, peer, Mode::Whole);
            assert_eq!(trio.agreed().await, tenure);
        }
        for mode in [Mode::Cut, Mode::Silent] {
            println!("{mode:?} to both peers");
            trio.around(tenure.node, mode);
            stays_coordinator(&trio, &mut under_load, tenure).await;
            trio.around(tenure.node, Mode::Whole);
            assert_eq!(trio.agreed().await, tenure);
        }
        under_load.end(cluster).await;
    });
}

#[test]
fn a_line_that_works_one_way_only_makes_no_second_coordinator() {
    let _turn = turn();
    let cluster = replica_set();
    Runtime::new().unwrap().block_on(async {
        let trio = Trio::start(cluster, lines(false)).await;
        let mut under_load = UnderLoad::on(&trio, "oneway").await;
        let tenure = trio.agreed().await;
        for (mode, outgoing) in [
            (Mode::Silent, true),
            (Mode::Silent, false),
            (Mode::NoReplies, true),
            (Mode::NoReplies, false),
        ] {
            let set = |mode| {
                for peer in others(tenure.node) {
                    let line = match outgoing {
                        true => trio.line(tenure.node, peer),
                        false => trio.line(peer, tenure.node),
                    };
                    line.set(mode);
                }
            };
            println!("{mode:?}, requests of the coordinator's: {outgoing}");
            set(mode);
            stays_coordinator(&trio, &mut under_load, tenure).await;
            set(Mode::Whole);
            assert_eq!(trio.agreed().await, tenure);
        }
        under_load.end(cluster).await;
    });
}

#[test]
fn a_coordinator_cut_off_from_mongodb_abdicates() {
    let _turn = turn();
    let cluster = replica_set();
    Runtime::new().unwrap().block_on(async {
        let trio = Trio::start(cluster, lines(true)).await;
        let under_load = UnderLoad::on(&trio, "abdicates").await;
        for mode in [Mode::Cut, Mode::Silent] {
            let before = trio.agreed().await;
            trio.to_mongodb(before.node).set(mode);
            let cut = Instant::now();
            let time = first_write(&trio.http(others(before.node)[0]), cut).await;
            println!("{mode:?} between coordinator and MongoDB to the next write: {time:?}");
            let after = trio.agreed_among(&others(before.node)).await;
            assert_eq!(after.epoch, before.epoch + 1);
            trio.to_mongodb(before.node).set(Mode::Whole);
            assert_eq!(trio.agreed().await.epoch, after.epoch);
            assert!(time < ABDICATION_MAX);
        }
        under_load.end(cluster).await;
    });
}

#[test]
fn a_follower_cut_off_from_mongodb_changes_nothing_and_does_not_stand() {
    let _turn = turn();
    let cluster = replica_set();
    Runtime::new().unwrap().block_on(async {
        let mut trio = Trio::start(cluster, lines(true)).await;
        let mut under_load = UnderLoad::on(&trio, "follower").await;
        let tenure = trio.agreed().await;
        let [cut, sound] = others(tenure.node);
        trio.to_mongodb(cut).set(Mode::Silent);
        stays_coordinator(&trio, &mut under_load, tenure).await;
        // It passes requests on as before.
        first_write(&trio.http(cut), Instant::now()).await;
        let claims = trio.claims().await.len();
        trio.kill(tenure.node);
        let time = first_write(&trio.http(cut), Instant::now()).await;
        println!("kill -9 while a follower is without MongoDB, to a write through that: {time:?}");
        let claims = trio.claims().await.split_off(claims);
        assert!(
            claims.iter().all(|(_, node)| node == NAMES[sound]),
            "{claims:?}"
        );
        trio.heal();
        eventually("all agree again", async || {
            (trio.agreed().await.node == sound).then_some(())
        })
        .await;
        under_load.end(cluster).await;
    });
}
