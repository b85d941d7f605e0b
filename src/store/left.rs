//! Calls that nobody waits for any more, and that MongoDB still runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::watch;

const RUNS: u8 = 0;
const LEFT: u8 = 1;
const ENDED: u8 = 2;

/// How many calls of one writer were left and have not ended.
#[derive(Debug, Clone)]
pub struct Left(Arc<watch::Sender<i64>>);

impl Default for Left {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

/// A call under way. Its end is when the last of its task is dropped.
#[derive(Debug)]
pub(super) struct Underway {
    state: Arc<AtomicU8>,
    left: Left,
}

/// The way to say that a call is left.
#[derive(Debug)]
pub(super) struct Leaver {
    state: Arc<AtomicU8>,
    left: Left,
}

impl Left {
    /// Waits until fewer calls than so many were left and have not ended.
    pub async fn until_below(&self, calls: i64) {
        let mut seen = self.0.subscribe();
        // The sender lives as long as this.
        let _ = seen.wait_for(|left| *left < calls).await;
    }

    pub(super) fn begin(&self) -> (Underway, Leaver) {
        let state = Arc::new(AtomicU8::new(RUNS));
        let underway = Underway {
            state: state.clone(),
            left: self.clone(),
        };
        let left = self.clone();
        (underway, Leaver { state, left })
    }

    fn add(&self, calls: i64) {
        // Its end may be counted a moment before it is left.
        self.0.send_modify(|left| *left += calls);
    }
}

impl Leaver {
    pub(super) fn leave(self) {
        let left = self
            .state
            .compare_exchange(RUNS, LEFT, Ordering::AcqRel, Ordering::Acquire);
        if left.is_ok() {
            self.left.add(1);
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if self.state.swap(ENDED, Ordering::AcqRel) == LEFT {
            self.left.add(-1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(left: &Left) -> i64 {
        *left.0.borrow()
    }

    #[test]
    fn what_is_left_counts_until_it_ends() {
        let left = Left::default();
        let (first, leaver) = left.begin();
        assert_eq!(count(&left), 0);
        leaver.leave();
        assert_eq!(count(&left), 1);
        let (second, leaver) = left.begin();
        drop(second);
        leaver.leave();
        assert_eq!(count(&left), 1, "it had ended before it was left");
        drop(first);
        assert_eq!(count(&left), 0);
    }
}
