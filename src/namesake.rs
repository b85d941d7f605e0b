//! Two nodes of one name: the one that comes second waits and says so, until the first is gone.
//!
//! Never decides who is coordinator: the log keeps the order even where two take part.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::ground::Board;
use crate::model::NodeName;
use crate::store::{Holder, Instance, Store};

/// How often the holder of a name looks whether somebody asks for it.
const PACE: Duration = Duration::from_secs(1);

/// Holds a node's name for as long as the process lives.
#[derive(Debug)]
pub struct Keeper {
    may: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Becomes true when this node may take part in its cluster.
    pub fn may_take_part(&self) -> watch::Receiver<bool> {
        self.may.clone()
    }

    /// Waits until another process has the name that this one had.
    pub async fn replaced(&self) {
        let mut may = self.may.clone();
        while !self.task.is_finished() {
            // The task ends with its sender, which ends this wait.
            if may.changed().await.is_err() {
                return;
            }
        }
    }

    /// Answers for the name no longer.
    pub fn end(&self) {
        self.task.abort();
    }
}

/// Takes the name, and keeps it.
pub fn keep(store: Store, name: NodeName, me: Instance, board: Board) -> Keeper {
    let (out, may) = watch::channel(false);
    let task = tokio::spawn(hold(store, name, me, board, out));
    Keeper { may, task }
}

/// Ends when the name is another's that was this process's.
async fn hold(store: Store, name: NodeName, me: Instance, board: Board, may: watch::Sender<bool>) {
    loop {
        match store.hold_name(&me).await {
            Ok(Holder::Me) => {
                board.name(None);
                may.send_if_modified(|may| !std::mem::replace(may, true));
            }
            Ok(Holder::Other(url)) if *may.borrow() => {
                warn!(%name, at = %url, "another process has this node's name by now");
                return;
            }
            Ok(Holder::Other(url)) => board.name(Some(format!(
                "another process, at {url}, serves under the name {name}: nodes of one cluster \
                 need a --name each; this one waits until that one ends"
            ))),
            // Without MongoDB nobody can be deposed. A node may know a coordinator who reaches it.
            Err(error) => {
                debug!(%error, "cannot tell whose the name is");
                let waits = board.read().name.is_some();
                may.send_if_modified(|may| !waits && !std::mem::replace(may, true));
            }
        }
        sleep(PACE).await;
    }
}
