//! Three nodes and what can happen to them and between them, under the load of 64 clients. After each
//! fault the log, the replies and the stored documents must tell one story.

mod members;
mod messages;
mod network;
mod nodes;
mod random;
mod sniffed;
mod up;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::support::Cluster;

/// The tests take turns: their times are those of a failover and not of their neighbours.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed in its turn has said so itself.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The replica set of those tests that do no harm to it.
fn replica_set() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start(&["--nodes", "0"]))
}
