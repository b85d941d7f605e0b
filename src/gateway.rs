//! The one way in: a checked request goes to the sequencer, or in a snapshot to the replica set, or
//! to the peer that is coordinator.
//!
//! Never decodes or encodes, never decides the order. Passes on only what came from a client.

mod search;

use std::sync::Arc;

use bson::Document;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::error;

use self::search::{Place, Search, Setback};
use crate::budget::Reservation;
use crate::election::Leadership;
use crate::model::limits::{LOG_PAGE_BYTES_MAX, REQUEST_WAIT_MAX};
use crate::model::order::CLOCK_AHEAD_MAX;
use crate::model::{
    Consistency, Documents, Failure, Namespace, NodeName, Outcome, Position, Read, WriteRequest,
};
use crate::mutants::{self, Mutant};
use crate::peer::{Envelope, ForwardError, Forwarder, Relayed};
use crate::sequencer::{Handle, Validator};
use crate::store::{
    Changes, Counts, LOG_DOCUMENTS_MAX, LogWake, Question, Since, Store, StoreError, Watched,
};

/// Who answered a client's request.
#[derive(Debug)]
pub enum Reply<T> {
    Here(T),
    /// The coordinator, through the connection to it.
    Relayed(Relayed),
}

/// Answers requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gateway {
    store: Store,
    sequencer: Handle,
    validator: Validator,
    node: NodeName,
    leadership: watch::Receiver<Leadership>,
    forwarder: Forwarder,
}

impl Gateway {
    pub fn new(
        store: Store,
        sequencer: Handle,
        node: NodeName,
        leadership: watch::Receiver<Leadership>,
        forwarder: Forwarder,
    ) -> Self {
        Self {
            validator: Validator::new(store.clone()),
            store,
            sequencer,
            node,
            leadership,
            forwarder,
        }
    }

    /// Runs a client's write in the serial order, here or through the coordinator. `Ok` holds
    /// MongoDB's answer or its refusal; both are in the log and durable on a majority of members (I4).
    /// The write goes on to its end even if the caller waits no longer. `memory` is what the request
    /// holds until then.
    ///
    /// A request whose id the log keeps is tried again where the coordinator is next, if the one
    /// that had it is gone: the id makes that one execution (I5).
    pub async fn write(
        &self,
        request: WriteRequest,
        envelope: Envelope,
        memory: Reservation,
    ) -> Result<Reply<Outcome>, Failure> {
        let gateway = self.clone();
        let request = Arc::new(request);
        let run = async move { gateway.place_write(&request, &envelope).await };
        to_its_end(run, memory).await
    }

    /// Runs a write that a peer has passed on: here, or not at all.
    pub async fn write_here(
        &self,
        request: WriteRequest,
        memory: Reservation,
    ) -> Result<Outcome, Failure> {
        let gateway = self.clone();
        let deadline = Instant::now() + REQUEST_WAIT_MAX;
        let run = async move { gateway.run_write(Arc::new(request), deadline).await };
        to_its_end(run, memory).await
    }

    async fn place_write(
        &self,
        request: &Arc<WriteRequest>,
        envelope: &Envelope,
    ) -> Result<Reply<Outcome>, Failure> {
        let mut search = self.search();
        loop {
            self.trust_log()?;
            let place = search.place().await.map_err(|failure| self.why(failure))?;
            let tried = match &place {
                Place::Here => self.try_write_here(request, &search).await,
                Place::Peer(tenure) => self.pass_on(&tenure.node, envelope, &place, &search).await,
            };
            match tried {
                Ok(Reply::Relayed(reply)) if search.leaves_open(reply.status()) => {
                    search.after(Setback::NotBegun).await?;
                }
                Ok(reply) => return Ok(reply),
                // Without an id in the log another try could double it.
                Err(Setback::InDoubt) if request.digest.is_none() => return Err(Failure::Unknown),
                Err(setback) => search.after(setback).await?,
            }
        }
    }

    async fn try_write_here(
        &self,
        request: &Arc<WriteRequest>,
        search: &Search,
    ) -> Result<Reply<Outcome>, Setback> {
        let may_come_again = request.digest.is_some();
        tokio::select! {
            ran = self.run_write(Arc::clone(request), search.deadline()) => match ran {
                Ok(outcome) => Ok(Reply::Here(outcome)),
                Err(Failure::NoCoordinator) => Err(Setback::NotBegun),
                Err(failure) => Err(Setback::Final(failure)),
            },
            () = search.moved_from(&Place::Here), if may_come_again => Err(Setback::InDoubt),
        }
    }

    async fn run_write(
        &self,
        request: Arc<WriteRequest>,
        deadline: Instant,
    ) -> Result<Outcome, Failure> {
        if self.sequencer.progress().epoch.is_none() {
            return Err(Failure::NoCoordinator);
        }
        let makes = request.write.makes_documents();
        in_time(deadline, self.store.ensure(&request.namespace, makes)).await?;
        self.sequencer.submit(request, deadline).await
    }

    /// Asks the coordinator, until it answers, is another, or time is up.
    async fn pass_on<T>(
        &self,
        to: &NodeName,
        envelope: &Envelope,
        place: &Place,
        search: &Search,
    ) -> Result<Reply<T>, Setback> {
        tokio::select! {
            relayed = self.forwarder.forward(to, envelope.clone()) => match relayed {
                Ok(relayed) => Ok(Reply::Relayed(relayed)),
                Err(ForwardError::Unsent | ForwardError::NotCoordinator) => Err(Setback::NotBegun),
                Err(ForwardError::Lost) => Err(Setback::InDoubt),
            },
            () = search.moved_from(place) => Err(Setback::InDoubt),
            () = sleep_until(search.deadline()) => Err(Setback::InDoubt),
        }
    }

    /// Nothing is put in order, and nothing proved to be fresh, while the log is at fault. A
    /// coordinator has found it whole again.
    fn trust_log(&self) -> Result<(), Failure> {
        if self.leadership.borrow().coordinator.is_some() {
            return Ok(());
        }
        let fault = self.store.known_log_fault();
        fault.map_or(Ok(()), |fault| Err(StoreError::Log(fault).into()))
    }

    /// A log at fault is the reason for whatever else fails.
    fn why(&self, failure: Failure) -> Failure {
        self.trust_log().err().unwrap_or(failure)
    }

    fn search(&self) -> Search {
        let deadline = Instant::now() + REQUEST_WAIT_MAX;
        Search::new(self.leadership.clone(), self.sequencer.watch(), deadline)
    }

    /// Runs a client's read: a causal one here, a linearizable one here or through the coordinator.
    /// `clock` is the client's Lamport clock, 0 if it gave none: a causal read is never older than
    /// it. `memory` grows with the result.
    pub async fn read(
        &self,
        namespace: Namespace,
        read: Read,
        consistency: Consistency,
        clock: i64,
        envelope: Envelope,
        memory: &mut Reservation,
    ) -> Result<Reply<Documents>, Failure> {
        if consistency == Consistency::Causal {
            let found = self.read_here(namespace, read, consistency, clock, memory);
            return Box::pin(found).await.map(Reply::Here);
        }
        let question = Question {
            namespace: &namespace,
            read: &read,
        };
        let mut search = self.search();
        loop {
            self.trust_log()?;
            let place = search.place().await.map_err(|failure| self.why(failure))?;
            let tried = match &place {
                Place::Here => {
                    let reading = Box::pin(self.linearizable(question, clock, memory));
                    match in_time(search.deadline(), reading).await {
                        Ok(found) => Ok(Reply::Here(found)),
                        Err(Failure::NoCoordinator) => Err(Setback::NotBegun),
                        Err(failure) => Err(Setback::Final(failure)),
                    }
                }
                Place::Peer(tenure) => self.pass_on(&tenure.node, &envelope, &place, &search).await,
            };
            match tried {
                Ok(reply) => return Ok(reply),
                // A read that is lost on its way is just not done.
                Err(Setback::InDoubt) => search.after(Setback::NotBegun).await?,
                Err(setback) => search.after(setback).await?,
            }
        }
    }

    /// Runs a read here; a linearizable one only as coordinator.
    pub async fn read_here(
        &self,
        namespace: Namespace,
        read: Read,
        consistency: Consistency,
        clock: i64,
        memory: &mut Reservation,
    ) -> Result<Documents, Failure> {
        let deadline = Instant::now() + REQUEST_WAIT_MAX;
        let question = Question {
            namespace: &namespace,
            read: &read,
        };
        let reading = async {
            match consistency {
                Consistency::Causal => self.store.read_nearest(question, clock, memory).await,
                Consistency::Linearizable => self.linearizable(question, clock, memory).await,
            }
        };
        in_time(deadline, Box::pin(reading)).await
    }

    /// What this node knows to be acknowledged when the read begins is in the read's snapshot; that
    /// nobody else has acknowledged more is proved by a look that begins after the read did.
    async fn linearizable(
        &self,
        question: Question<'_>,
        clock: i64,
        memory: &mut Reservation,
    ) -> Result<Documents, Failure> {
        let progress = self.sequencer.progress();
        if clock.saturating_sub(progress.clock) > CLOCK_AHEAD_MAX {
            return Err(Failure::clock_too_far_ahead());
        }
        let (Some(epoch), Some(known)) = (progress.epoch, progress.tail) else {
            return Err(Failure::NoCoordinator);
        };
        if mutants::active(Mutant::UnvalidatedReads) {
            return self.store.read_primary(question, known, memory).await;
        }
        let (found, tail) = tokio::join!(
            self.store.read_primary(question, known, memory),
            self.validator.tail(),
        );
        // Without a majority both may fail: the look says why.
        let tail = tail.map_err(StoreError::into_failure)?;
        let found = found?;
        if tail.epoch > epoch {
            self.sequencer.depose(tail.epoch).await;
            return Err(Failure::NoCoordinator);
        }
        let own = |node: &NodeName| *node == self.node;
        // A command without a server may have appended, and its write been acknowledged, before
        // this read: at the end of the log, or before this node's own last batch.
        let guest = match tail.node.as_ref().is_some_and(own) {
            true => self.sequencer.progress().guest,
            false => Some(tail.position),
        };
        // What the client has seen already is on a majority, and so at or before this tail.
        let seen = (found.stamp.t < clock).then_some(tail.position);
        match guest.max(seen) {
            Some(least) if least > found.position => {
                self.store.read_primary(question, least, memory).await
            }
            _ => Ok(found),
        }
    }

    /// The log's documents from a position on, as they are stored.
    pub async fn log(&self, from: Position, limit: i64) -> Result<Vec<Document>, Failure> {
        Ok(self.store.log_from(from, limit).await?)
    }

    /// As [`Self::log`], for those who follow it: each with its bytes of BSON.
    pub async fn log_page(&self, from: Position) -> Result<Vec<(Document, usize)>, Failure> {
        let page = self
            .store
            .log_page(from, LOG_DOCUMENTS_MAX, LOG_PAGE_BYTES_MAX);
        Ok(page.await?)
    }

    /// How far a majority has the log.
    pub async fn log_end(&self) -> Result<Position, Failure> {
        Ok(self.store.tail().await?.position)
    }

    /// A stream that says when the log has grown.
    pub async fn log_wake(&self) -> Result<LogWake, Failure> {
        Ok(self.store.log_wake().await?)
    }

    /// The changes of a collection.
    pub async fn watch(&self, watched: Watched, since: Since) -> Result<Changes, Failure> {
        self.store.watch(watched, since).await
    }

    /// Whether this node can answer requests now; the text says why not.
    pub fn ready(&self) -> Result<(), String> {
        let why_not = search::why_not_ready(&self.leadership.borrow(), &self.sequencer.progress());
        why_not.map_or(Ok(()), Err)
    }

    /// Whether this node is coordinator, as far as it knows.
    pub fn is_coordinator(&self) -> bool {
        self.sequencer.progress().epoch.is_some()
    }

    /// This node's connections to the members, by what they are for.
    pub fn connections(&self) -> [(&'static str, Counts); 3] {
        self.store.connections()
    }

    /// How often this node made its connections anew.
    pub fn renewals(&self) -> u64 {
        self.store.renewals()
    }

    /// The name of the coordinator, if this node knows one.
    pub fn coordinator(&self) -> Option<NodeName> {
        let leadership = self.leadership.borrow();
        let tenure = leadership.coordinator.as_ref();
        tenure.map(|tenure| tenure.node.clone())
    }
}

/// Bounds what changes nothing for the client when it is given up.
async fn in_time<T>(
    deadline: Instant,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let late = |_| Failure::Unavailable("it did not answer in time".into());
    timeout_at(deadline, work).await.map_err(late)?
}

/// Runs a write in a task of its own, so that a client that leaves does not cancel it.
async fn to_its_end<T: Send + 'static>(
    write: impl Future<Output = Result<T, Failure>> + Send + 'static,
    memory: Reservation,
) -> Result<T, Failure> {
    let running = tokio::spawn(async move {
        let ended = write.await;
        drop(memory);
        ended
    });
    running.await.unwrap_or_else(|panic| {
        error!(%panic, "a write's task failed");
        Err(Failure::Unknown)
    })
}
