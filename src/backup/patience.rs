//! How long MongoDB may be away until the work ends.

use std::time::{Duration, Instant};

use crate::store::{Setback, StoreError};

/// So long may calls fail that may be made again.
const FAILING_MAX: Duration = Duration::from_secs(60);
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(250);

/// Counts from the first call that failed.
#[derive(Debug, Clone, Copy)]
pub struct Patience(Instant);

impl Patience {
    pub fn from_now() -> Self {
        Self(Instant::now())
    }

    /// Waits a moment if the call may be made again, and gives the error if not.
    pub async fn rest(self, error: StoreError) -> Result<(), StoreError> {
        match Setback::of(&error) {
            Setback::Reopen | Setback::Later if self.0.elapsed() < FAILING_MAX => {
                tokio::time::sleep(PAUSE).await;
                Ok(())
            }
            _ => Err(error),
        }
    }
}
