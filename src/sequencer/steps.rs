//! What goes into the [core](super::core) and what comes out of it.

use super::arrange::Touches;
use crate::model::{BatchId, Digest, Epoch, Position, Refusal, RequestId};

/// Stands for one waiting caller.
pub type Ticket = u64;

/// A request as the core sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Submission<P> {
    pub ticket: Ticket,
    pub id: RequestId,
    /// Set if the client gave the id, so that it may come again.
    pub digest: Option<Digest>,
    /// The client's clock.
    pub clock: i64,
    /// The size of the payload.
    pub bytes: usize,
    /// What it touches, if its payload alone tells: it may then stand beside its like.
    pub touches: Option<Touches>,
    /// MongoDB may compute for long on it without a look at the clock: it runs alone from the first.
    pub loops: bool,
    pub payload: P,
}

/// What happens to the core.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input<P> {
    /// This node's claim is in the log: serve from `tail` on. The nonce makes batch ids unique.
    Serve {
        epoch: Epoch,
        tail: Position,
        clock: i64,
        nonce: u64,
    },
    Submit(Submission<P>),
    /// The caller of this ticket waits no longer.
    Withdraw(Ticket),
    /// The request of this ticket has rested: another lock may be out of its way by now.
    Rested(Ticket),
    /// MongoDB has ended enough of the requests that were left to it.
    LeftEnded,
    /// The run of the batch in flight ended.
    Ran(Ran),
    /// The look at the position of the batch in flight ended.
    Resolved(Resolved),
    /// The look for the request ids of the batch in flight ended: the ones that are in the log, by
    /// their place in the batch, with the digest that the log holds.
    Looked(Vec<(usize, Option<Digest>)>),
    /// The log was changed behind the nodes: the batch in flight was not done, and nothing can be.
    Faulted,
    /// Another node has claimed a later epoch, or this node stops: take and begin nothing more.
    Depose,
}

/// How one run of a batch ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ran {
    /// The first `count` requests and their log document are durable on a majority.
    Committed { count: usize },
    /// MongoDB refused this request, and with it the transaction: nothing was done.
    Refused { index: usize, refusal: Refusal },
    /// Another program's lock, or something else that passes, is in the way of these requests, or
    /// of some of them: nothing was done.
    Contended { first: usize, count: usize },
    /// The servers do not let the nodes do what this request asks for: nothing was done.
    Barred { index: usize },
    /// This request ran longer than its bound: nothing was done. If it was alone already, the
    /// refusal is its answer.
    Held { index: usize, refusal: Refusal },
    /// MongoDB does not take the batch's log document: nothing was done.
    Oversized,
    /// MongoDB refused the append itself: nothing was done. What stands there tells why.
    Clash,
    /// It is not known whether anything was done. `repeated`: a request id stands in the log.
    Doubt { repeated: bool },
}

/// What stands at the position of a batch in doubt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Resolved {
    /// This very batch, with its first `count` requests.
    Mine { count: usize },
    /// Nothing, by the word of the primary alone.
    Vacant,
    /// Nothing, for good.
    Absent,
    /// A batch of the same epoch from a command without a server. The log goes on after `tail`.
    Guest { tail: Position, clock: i64 },
    /// A later epoch (the fence).
    Fenced,
}

/// What the task is to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output<P> {
    /// Run this batch; answer with [`Input::Ran`].
    Run(Batch<P>),
    /// Look what stands at the batch's position; answer with [`Input::Resolved`]. That nothing does
    /// need not be proven ([`Resolved::Vacant`]).
    Resolve(Batch<P>),
    /// The same, and have a majority say so if nothing stands there ([`Resolved::Absent`]).
    Prove(Batch<P>),
    /// Look which of the batch's request ids are in the log; answer with [`Input::Looked`].
    Look(Batch<P>),
    /// Say [`Input::Rested`] with this ticket after a pause that grows with the conflicts.
    Rest { ticket: Ticket, conflicts: u32 },
    /// Say [`Input::LeftEnded`] when MongoDB has ended enough of what was left to it.
    AwaitLeft,
    /// Tell the caller the result of the batch's request number `index`.
    Answer {
        ticket: Ticket,
        index: usize,
        stamp: i64,
        position: Position,
    },
    /// Tell the caller the answer that [`Output::Look`] found for request number `index`.
    Replay { ticket: Ticket, index: usize },
    /// Tell the caller that there is no answer.
    Reject { ticket: Ticket, why: Reject },
    /// The log has come to this point, all of it durable on a majority.
    Advanced {
        tail: Position,
        clock: i64,
        /// A guest's append lies before the tail, or is it.
        guest: bool,
    },
    /// The batch in flight met a later epoch: this node is no longer coordinator.
    Fenced,
}

/// Why a caller gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reject {
    /// The queue is full. Not done.
    Full,
    /// This node is not coordinator. Not done.
    NotCoordinator,
    /// The client's clock is too far ahead. Not done.
    ClockAhead,
    /// The log's counter of stamps is at its end. Not done.
    ClockAtEnd,
    /// The id belongs to another payload. Not done.
    IdReused,
    /// The log was changed behind the nodes. Not done.
    LogFault,
    /// Another program held a document of this request for too long, or something else did not
    /// pass. Not done.
    Contended,
    /// The servers do not let the nodes do it. Not done.
    Barred,
    /// The caller waited no longer while the request still stood in the queue. Not done.
    Expired,
    /// The caller waited no longer while the request was running. Done or not: unknown.
    Unknown,
}

/// Requests that travel in one transaction, with everything that must not change when the batch
/// is run again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Batch<P> {
    pub position: Position,
    pub epoch: Epoch,
    pub id: BatchId,
    pub slots: Vec<Slot<P>>,
    /// It holds one request, which has met a lock, or run for long, or may: it may take longer than
    /// others.
    pub alone: bool,
    /// How often this batch was begun, from 1. The task pauses longer before later attempts.
    pub attempt: u32,
}

/// A request in a batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Slot<P> {
    pub submission: Submission<P>,
    /// The callers that wait: the first, and later ones with the same request.
    pub waiting: Vec<Ticket>,
    /// The counter of the request's stamp.
    pub stamp: i64,
    /// Set when MongoDB refused the request: it is skipped and only logged.
    pub refused: Option<Refusal>,
    /// How often in a row it met another program's lock.
    pub(super) conflicts: u32,
    /// How often it ran for too long.
    pub(super) held: u32,
}

impl<P> Slot<P> {
    /// Whether nobody waits for this request any more.
    pub(super) fn abandoned(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes the caller out; false if it does not wait here.
    pub(super) fn withdraw(&mut self, ticket: Ticket) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| *waiting != ticket);
        self.waiting.len() < before
    }
}
