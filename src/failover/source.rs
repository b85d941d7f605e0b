//! Has a member copy the oplog from another one.

use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::chain::Change;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};

/// A member refuses a source that is not ahead of it, and then rests for a second, in a set without writes for up to
/// 20 s. It lets go of the old source with the first entry that this gives it, and asks the new one 2 to 4 ms later. So
/// the oplog grows without a pause until it has asked.
const LENGTHEN_FOR: Duration = Duration::from_millis(50);

/// Makes a change, unless it has been made: a member that is told to copy from where it copies already
/// rests for a second.
pub async fn have_copy(
    store: &Store,
    metrics: &Metrics,
    primary: &str,
    change: &Change,
    why: &str,
) {
    let Change { member, source } = change;
    match make(store, primary, member, source).await {
        Ok(true) => {
            metrics.sync_source_changed();
            info!(%member, %source, "copies from another member: {why}");
        }
        Ok(false) => {}
        Err(error) => info!(%member, %source, %error, "cannot be made to copy from another"),
    }
}

async fn make(
    store: &Store,
    primary: &str,
    member: &str,
    source: &str,
) -> Result<bool, StoreError> {
    let now = store.outlook(member).await?.sync_source;
    if now.as_deref() == Some(source) {
        return Ok(false);
    }
    let may_lengthen = lengthen(store, primary).await?;
    store.sync_from(member, source).await?;
    let end = Instant::now() + LENGTHEN_FOR;
    while may_lengthen && Instant::now() < end {
        lengthen(store, primary).await?;
    }
    Ok(true)
}

/// Whether it may be done. In a set with writes it is not needed.
async fn lengthen(store: &Store, primary: &str) -> Result<bool, StoreError> {
    match store.lengthen(primary).await {
        Ok(()) => Ok(true),
        Err(error) if error.is_unauthorized() => Ok(false),
        Err(error) => Err(error),
    }
}
