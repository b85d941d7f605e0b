//! A node takes no part before its name is its own: two of one name would depose each other.

use tokio::sync::{mpsc, oneshot, watch};

use crate::peer::Event;

/// Waits until this node may take part. What peers send meanwhile is for another. `false`: it ends
/// before that.
pub(super) async fn joined(
    mut join: watch::Receiver<bool>,
    events: &mut mpsc::Receiver<Event>,
    leaving: &mut mpsc::Receiver<oneshot::Sender<()>>,
) -> bool {
    loop {
        tokio::select! {
            joined = join.wait_for(|may| *may) => return joined.is_ok(),
            Some(_) = events.recv() => {}
            _ = leaving.recv() => return false,
        }
    }
}
