//! The way into the sequencer, and the view of how far it has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::steps::Ticket;
use crate::model::{Epoch, Failure, Outcome, Position, WriteRequest};

/// How long a caller waits for the sequencer's own word after its time is up.
const LAST_WORD_MAX: Duration = Duration::from_millis(500);

/// What callers send to the task.
pub(super) enum Command {
    Submit {
        request: Arc<WriteRequest>,
        reply: oneshot::Sender<Result<Outcome, Failure>>,
        /// By this the caller can take its request back.
        ticket: Ticket,
    },
    Withdraw(Ticket),
    /// The tenures before this epoch are over.
    Depose {
        before: Epoch,
    },
    /// The same; say when what ran has come to its end.
    Drain {
        before: Epoch,
        done: oneshot::Sender<()>,
    },
}

/// How far the sequencer of this node has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Set while this node is coordinator.
    pub epoch: Option<Epoch>,
    /// No tenure before this epoch goes on: a later claim was met in the log, or heard of.
    pub ended_before: Epoch,
    /// Everything up to here is durable on a majority.
    pub tail: Option<Position>,
    /// The last position known before which a command without a server has appended.
    pub guest: Option<Position>,
    /// The counter of the last stamp up to there.
    pub clock: i64,
    /// Since when it is not known whether the batch in flight was committed.
    pub doubted_since: Option<Instant>,
}

impl Progress {
    /// Notes whether the batch in flight is in doubt; whether that is new.
    pub(super) fn doubt(&mut self, doubts: bool) -> bool {
        let changes = doubts != self.doubted_since.is_some();
        if changes {
            self.doubted_since = doubts.then(Instant::now);
        }
        changes
    }
}

/// Submits writes. Cheap to clone; the queue behind it is bounded.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) tickets: Arc<AtomicU64>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Submit { .. } => "Submit",
            Self::Withdraw(_) => "Withdraw",
            Self::Depose { .. } => "Depose",
            Self::Drain { .. } => "Drain",
        })
    }
}

impl Handle {
    /// Puts a write in order and waits for its end: its outcome, or what is known without one.
    /// Takes until the deadline and a last word.
    pub async fn submit(
        &self,
        request: Arc<WriteRequest>,
        deadline: Instant,
    ) -> Result<Outcome, Failure> {
        let (reply, mut answer) = oneshot::channel();
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let command = Command::Submit {
            request,
            reply,
            ticket,
        };
        if let Err(error) = self.commands.try_send(command) {
            return Err(match error {
                mpsc::error::TrySendError::Full(_) => Failure::Busy,
                mpsc::error::TrySendError::Closed(_) => Failure::NoCoordinator,
            });
        }
        if let Ok(answer) = timeout_at(deadline, &mut answer).await {
            return answer.unwrap_or(Err(Failure::Unknown));
        }
        // A full channel means that the task does not keep up; the answer is unknown then too.
        let _ = self.commands.try_send(Command::Withdraw(ticket));
        match timeout(LAST_WORD_MAX, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(Failure::Unknown),
        }
    }

    /// Tells the sequencer that the tenures before this epoch are over.
    pub async fn depose(&self, before: Epoch) {
        // A closed channel means that the task has ended: there is nothing left to depose.
        let _ = self.commands.send(Command::Depose { before }).await;
    }

    /// Ends the tenures before this epoch. Resolves when what ran has come to its end.
    pub async fn drain(&self, before: Epoch) {
        let (done, drained) = oneshot::channel();
        let _ = self.commands.send(Command::Drain { before, done }).await;
        // The sender is dropped when the task has ended; that is as good.
        let _ = drained.await;
    }

    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// For those who wait for a change.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }
}
