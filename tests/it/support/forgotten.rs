//! A firewall forgets the connections of a coordinator: what it sends on them is lost, and nobody says so.

use super::trio::{Tenure, Trio};
use super::under_load::insert_once;

/// What came of it.
#[derive(Debug)]
pub struct Forgotten {
    /// The status of the reply to the next write, or why there was none.
    pub reply: Result<u16, String>,
    pub before: Tenure,
    pub after: Tenure,
    /// How often the coordinator has made its connections anew.
    pub renewals: u64,
}

/// Has all connections of the coordinator hang, and writes through it. New ones work.
pub async fn forgotten(trio: &Trio<'_>) -> Forgotten {
    let before = trio.agreed().await;
    let http = trio.http(before.node);
    insert_once(&http).await.unwrap().expect(201);
    trio.to_mongodb(before.node).forget();
    let reply = insert_once(&http).await.map(|reply| reply.status);
    let metrics = http.get("/metrics").await.text;
    let mut counted = (metrics.lines())
        .filter_map(|line| line.strip_prefix("drumline_connection_renewals_total "));
    Forgotten {
        reply,
        before,
        after: trio.agreed().await,
        renewals: counted.next().unwrap().parse().unwrap(),
    }
}
