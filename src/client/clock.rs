//! The client's own Lamport clock.

use std::sync::atomic::{AtomicI64, Ordering};

/// The largest stamp that this client has seen. It goes out with each request, so that whatever
/// the client does next is stamped later than all it has seen, whichever server does it.
#[derive(Debug, Default)]
pub struct Clock(AtomicI64);

impl Clock {
    pub const fn at(t: i64) -> Self {
        Self(AtomicI64::new(t))
    }

    pub fn now(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Never goes back.
    pub fn witness(&self, t: i64) {
        self.0.fetch_max(t, Ordering::Relaxed);
    }
}
