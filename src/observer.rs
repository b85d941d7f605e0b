//! Looks at the replica set for the cluster view. All who ask at the same time share one look.
//!
//! Never judges what it sees, never changes anything.

use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tracing::error;

use crate::ground::Board;
use crate::model::limits::LOOK_AGE_MAX;
use crate::store::{MemberLook, Store, Tail};
use crate::view::{ClusterView, NodesView};

/// Answers for the whole cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Observer {
    store: Store,
    nodes: watch::Receiver<NodesView>,
    board: Board,
    last: Arc<Mutex<Option<Look>>>,
}

/// The replica set at one moment.
#[derive(Debug, Clone)]
struct Look {
    ended: Instant,
    members: Vec<MemberLook>,
    /// The last that this node could learn.
    tail: Option<Tail>,
}

impl Observer {
    /// `nodes` always holds what this node believes of its cluster's nodes, itself included.
    pub fn new(store: Store, nodes: watch::Receiver<NodesView>, board: Board) -> Self {
        Self {
            store,
            nodes,
            board,
            last: Arc::default(),
        }
    }

    /// The cluster now, or at most [`LOOK_AGE_MAX`] ago. Takes hardly longer than the slowest member
    /// may, and no longer than two such looks.
    pub async fn view(&self) -> ClusterView {
        let observer = self.clone();
        // In a task of its own: a client that leaves must not make the next one begin anew.
        let look = tokio::spawn(async move { observer.look().await }).await;
        let look = look.inspect_err(|panic| error!(%panic, "a look at the replica set failed"));
        let nodes = self.nodes.borrow().clone();
        let mut view = match look {
            Ok(look) => ClusterView::new(nodes, &look.members, look.tail.as_ref()),
            Err(_) => ClusterView::new(nodes, &[], None),
        };
        view.faults = self.board.read().lines();
        view
    }

    async fn look(&self) -> Look {
        let mut last = self.last.lock().await;
        if let Some(look) = last.as_ref()
            && look.ended.elapsed() < LOOK_AGE_MAX
        {
            return look.clone();
        }
        let (members, tail) = tokio::join!(self.store.all_members(), self.store.recent_tail());
        let known = || last.as_ref().and_then(|look| look.tail.clone());
        let look = Look {
            members,
            tail: tail.ok().or_else(known),
            ended: Instant::now(),
        };
        *last = Some(look.clone());
        look
    }
}
