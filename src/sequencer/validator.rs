//! Linearizable reads share one proof of where the log ends (I7).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::store::{Store, StoreError, Tail};

/// Runs at most one look at the log's tail at a time; everyone who asked before it began shares it.
#[derive(Debug, Clone)]
pub struct Validator {
    store: Store,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// How many looks have begun.
    begun: AtomicU64,
    /// The last look that ended, by its number.
    ended: Mutex<Option<(u64, Result<Tail, StoreError>)>>,
}

impl Validator {
    pub fn new(store: Store) -> Self {
        Self {
            store,
            shared: Arc::default(),
        }
    }

    /// The end of the log at some moment after this call began.
    pub async fn tail(&self) -> Result<Tail, StoreError> {
        let wanted = self.shared.begun.load(Ordering::SeqCst) + 1;
        let mut ended = self.shared.ended.lock().await;
        if let Some((number, tail)) = ended.as_ref()
            && *number >= wanted
        {
            return tail.clone();
        }
        let number = self.shared.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let tail = self.store.tail().await;
        *ended = Some((number, tail.clone()));
        tail
    }
}
