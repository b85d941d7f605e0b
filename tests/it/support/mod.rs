//! What the integration tests share: sandboxes, clusters, and waiting for conditions.

pub mod answers;
pub mod audit;
mod cluster;
pub mod docker;
pub mod drills;
pub mod extra_node;
mod files;
pub mod forgotten;
#[allow(dead_code, reason = "tests/mutants.rs uses it")]
pub mod history;
pub mod http;
pub mod inside;
pub mod line;
pub mod load;
pub mod mix;
pub mod passing;
pub mod processes;
pub mod proxy;
mod sandbox;
pub mod sniffed;
mod stand_in;
pub mod stream;
mod terminal;
pub mod transactions;
pub mod trio;
pub mod under_load;

use std::time::{Duration, Instant};

pub use cluster::Cluster;
pub use files::FileServer;
pub use processes::{Pid, alive, kill, kill_group, processes_in, state};
pub use sandbox::{Outcome, SMALL, Sandbox, up};
pub use terminal::on_terminal;

/// Long enough for a loaded machine: a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const POLL: Duration = Duration::from_millis(20);

/// A bar for time. It is held by an optimised build on a machine that has its cores to itself; an
/// unoptimised one among other tests gets five times as long.
pub const fn bar(seconds: u64) -> Duration {
    Duration::from_secs(if cfg!(debug_assertions) {
        5 * seconds
    } else {
        seconds
    })
}

/// Waits until `condition` gives a value; fails the test with `why` if that takes too long.
#[track_caller]
pub fn wait_for<T>(why: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "waited in vain: {why}");
        // The pause between two looks at a condition; nothing relies on its length.
        std::thread::park_timeout(POLL);
    }
}

/// As [`wait_for`], for a condition that is just true or false.
#[track_caller]
pub fn wait_until(why: &str, mut condition: impl FnMut() -> bool) {
    wait_for(why, || condition().then_some(()));
}

/// As [`wait_for`], for a condition that has to ask somebody.
pub async fn eventually<T>(why: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| panic!("waited in vain: {why}"))
}

/// A number from the environment, for runs that are longer than usual or are to be repeated.
pub fn setting(name: &str, default: u64) -> u64 {
    drumline::config::setting(name)
        .unwrap()
        .map_or(default, |value| value.parse().unwrap())
}
