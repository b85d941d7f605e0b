//! What a node does in MongoDB to become coordinator: looks for signs of another, and claims.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::steps::{Looked, NotClaimed};
use crate::model::{Epoch, NodeName, Tenure};
use crate::store::{ClaimError, Claimed, Instance, Store};

/// The pause between two looks for a sign of life.
const LOOK_PAUSE: Duration = Duration::from_millis(25);
/// A claim that takes longer is given up: MongoDB has other things to do.
const CLAIM_MAX: Duration = Duration::from_secs(8);

/// Watches the log and the last claimant's signs of life for so long, or until something moves.
pub(super) async fn look(store: Store, me: NodeName, patience: Duration) -> Looked {
    let first = match store.sign().await {
        Ok(sign) => sign,
        Err(error) => {
            debug!(%error, "cannot look at the log");
            return Looked::Unreachable;
        }
    };
    // This node's own last tenure shows no more signs of life.
    let another = |tenure: &Tenure| tenure.node != me;
    let watches = first.tenure.as_ref().is_some_and(another);
    // A number of looks, not a time: on a machine that stalls, the other has as much to catch up.
    let looks = patience.as_millis() / LOOK_PAUSE.as_millis();
    for _ in (0..looks).take_while(|_| watches) {
        sleep(LOOK_PAUSE).await;
        match store.sign().await {
            Ok(sign) if sign == first => {}
            Ok(sign) => {
                return match sign.tenure {
                    Some(tenure) => Looked::Active(tenure),
                    None => Looked::Quiet(None),
                };
            }
            Err(error) => {
                debug!(%error, "cannot look at the log");
                return Looked::Unreachable;
            }
        }
    }
    Looked::Quiet(first.tenure)
}

/// A process that was frozen may find the log in the hands of another one of its name. To the log they
/// are one node: so the name is looked at before each claim.
pub(super) async fn claim(
    store: Store,
    me: Instance,
    over: Epoch,
    prepared: bool,
) -> Result<Claimed, NotClaimed> {
    let claiming = async {
        if !prepared {
            // A log that is gone is not begun anew.
            store.survey().await?;
            store.prepare().await?;
        }
        if !store.has_name(&me).await? {
            return Ok(None);
        }
        store.claim(over).await.map(Some)
    };
    match timeout(CLAIM_MAX, claiming).await {
        Ok(Ok(Some(claimed))) => Ok(claimed),
        Ok(Ok(None)) => {
            info!("does not claim: another process has this node's name");
            Err(NotClaimed::Unreachable)
        }
        Ok(Err(ClaimError::Superseded(tenure))) => {
            info!(coordinator = %tenure.node, epoch = %tenure.epoch, "another claim came first");
            Err(NotClaimed::Superseded(tenure))
        }
        Ok(Err(ClaimError::Behind(last))) => {
            warn!(%over, %last, "the epoch that was heard of is not in the log");
            Err(NotClaimed::Behind(last))
        }
        Ok(Err(ClaimError::Store(error))) => {
            warn!(%error, "cannot claim");
            Err(NotClaimed::Unreachable)
        }
        Err(_) => {
            warn!("a claim took too long");
            Err(NotClaimed::Unreachable)
        }
    }
}
