//! A coordinator that dies under `up`, which starts it again.

use std::time::Instant;

use rustix::process::Signal;
use tokio::runtime::Runtime;

use super::turn;
use crate::support::load::Load;
use crate::support::under_load::UnderLoad;
use crate::support::{Cluster, kill, wait_until};

#[test]
fn a_coordinator_killed_under_up_comes_back_as_a_follower() {
    let _turn = turn();
    let cluster = Cluster::start(&[]);
    Runtime::new().unwrap().block_on(async {
        let mut under_load = UnderLoad::begin(Load::new(&cluster, "load.up")).await;
        let before = cluster.coordinator().await;
        let pid = cluster.node_pid(before);
        kill(pid, Signal::KILL);
        let killed = Instant::now();
        under_load.until_served().await;
        println!("kill -9 to the next write: {:?}", killed.elapsed());
        assert_ne!(cluster.coordinator().await, before);
        wait_until("the node is started again, and all is well", || {
            let status = ["status", "--name", Cluster::NAME];
            cluster.node_pid(before) != pid && cluster.sandbox().run(&status).status == 0
        });
        under_load.end(&cluster).await;
    });
}
