//! One node: puts the parts together, serves until it is told to stop.
//!
//! The composition root; nothing else makes a store, a sequencer and a server.

use std::future::Future;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::gateway::Gateway;
use crate::model::NodeName;
use crate::sequencer;
use crate::store::{Claimed, Store, StoreError};

/// The pause after a failed attempt to claim.
const CLAIM_PAUSE: Duration = Duration::from_millis(200);

/// What a node needs to know.
#[derive(Debug)]
pub struct Settings {
    pub name: NodeName,
    /// The connection string of the replica set, with its credentials.
    pub mongodb_uri: String,
    /// The keys that clients may use.
    pub api_keys: Vec<String>,
}

/// Runs a node on this listener until `shutdown` resolves; then finishes what it has begun.
pub async fn run(
    listener: TcpListener,
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), StoreError> {
    let store = Store::connect(&settings.mongodb_uri, settings.name.clone()).await?;
    let (claims_out, claims) = mpsc::channel(1);
    let sequencer = sequencer::spawn(store.clone(), settings.name.clone(), claims);
    let gateway = Gateway::new(store.clone(), sequencer, settings.name.to_string());
    info!(node = %settings.name, "serving");
    let claiming = tokio::spawn(claim(store, claims_out));
    let _ = (listener, gateway, settings.api_keys);
    shutdown.await;
    claiming.abort();
    Ok(())
}

/// Becomes coordinator, then stays out of the way. Tries until MongoDB can be reached.
async fn claim(store: Store, claims: mpsc::Sender<Claimed>) {
    let claimed = loop {
        let attempt = async {
            store.prepare().await?;
            store.claim().await
        };
        match attempt.await {
            Ok(claimed) => break claimed,
            Err(error) => warn!(%error, "cannot claim yet"),
        }
        sleep(CLAIM_PAUSE).await;
    };
    // The sequencer ends with the node; then there is nobody to give the claim to.
    let _ = claims.send(claimed).await;
    claims.closed().await;
}
