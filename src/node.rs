//! One node: puts the parts together, serves until it is told to stop.
//!
//! The composition root; nothing else makes a store, a sequencer and a server.

use std::future::Future;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::config::Secret;
use crate::gateway::Gateway;
use crate::http::auth::ApiKeys;
use crate::http::router::{App, router};
use crate::http::server;
use crate::model::NodeName;
use crate::sequencer;
use crate::store::{Claimed, STAMP_FIELD, Store, StoreError};

/// The pause after a failed attempt to claim.
const CLAIM_PAUSE: Duration = Duration::from_millis(200);

/// What a node needs to know.
#[derive(Debug)]
pub struct Settings {
    pub name: NodeName,
    /// The connection string of the replica set, with its credentials.
    pub mongodb_uri: Secret,
    /// The keys that clients may use.
    pub api_keys: Vec<Secret>,
}

/// Runs a node on this listener until `shutdown` resolves; then finishes what it has begun.
pub async fn run(
    listener: TcpListener,
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) -> Result<(), StoreError> {
    let store = Store::connect(settings.mongodb_uri.expose(), settings.name.clone()).await?;
    let (claims_out, claims) = mpsc::channel(1);
    let sequencer = sequencer::spawn(store.clone(), settings.name.clone(), claims);
    let gateway = Gateway::new(store.clone(), sequencer, settings.name.to_string());
    let keys = ApiKeys::new(settings.api_keys.iter().map(Secret::expose));
    let app = router(App::new(gateway, keys, STAMP_FIELD));
    info!(node = %settings.name, "serving");
    let claiming = tokio::spawn(claim(store, claims_out));
    server::run(listener, app, shutdown).await;
    claiming.abort();
    info!(node = %settings.name, "stopped");
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
