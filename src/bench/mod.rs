//! Load: many clients that insert, through HTTP or straight through the driver, and what they saw.
//!
//! An outside client: it speaks HTTP and never looks inside a node.

mod compare;
mod connection;
mod history;
mod load;
mod stats;
mod target;

use std::time::Duration;

use crate::client::{Client, ClientError, Clock};
use crate::model::{Namespace, RequestId, Write};
use bson::doc;

pub use compare::{Comparison, Side, compare};

pub use load::{Stop, run};
pub use stats::Report;
pub use target::{Http, Target};

/// One measurement.
#[derive(Debug, Clone)]
pub struct Plan {
    pub clients: u32,
    pub time: Duration,
    /// Inserts a second, all clients together. Without it each client sends its next insert when it has the
    /// answer to the last.
    pub rate: Option<u32>,
    pub namespace: Namespace,
}

/// A collection of its own for each run, so that runs do not meet.
pub fn fresh_namespace(suffix: &str) -> Result<Namespace, crate::model::id::InvalidId> {
    let random = bson::Uuid::new().to_string();
    Namespace::new("bench", &format!("inserts_{}{suffix}", &random[..8]))
}

/// How many documents one request removes: well below what a node lets one request touch.
const REMOVED_AT_ONCE: i64 = 5_000;

/// Removes the documents with the keys `0..keys` through the servers.
pub async fn remove(client: &Client, namespace: &Namespace, keys: i64) -> Result<(), ClientError> {
    let clock = Clock::default();
    let mut from = 0;
    while from < keys {
        let to = from + REMOVED_AT_ONCE;
        let write = Write::Delete {
            filter: doc! { "_id": { "$gte": from, "$lt": to } },
            many: true,
        };
        client
            .write(namespace, write, &RequestId::fresh(), &clock)
            .await?;
        from = to;
    }
    Ok(())
}
