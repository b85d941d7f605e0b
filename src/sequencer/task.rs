//! Carries out what the core decides: runs batches, looks at positions, answers callers.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use bson::Bson;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::arrange::Touches;
use super::core::Core;
use super::handle::{Command, Handle, Progress};
use super::steps::{Batch, Input, Output, Ran, Reject, Resolved, Submission, Ticket};
use crate::job::{Job, working};
use crate::model::limits::{ALONE_RUN_MAX, LOOPS_LEFT_MAX, QUEUE_REQUESTS_MAX, SHARED_RUN_MAX};
use crate::model::request::{encoded, is_exact};
use crate::model::{
    BatchId, Digest, Epoch, Failure, NodeName, Outcome, RequestId, Stamp, Write, WriteRequest,
};
use crate::store::{Claimed, Entry, Item, Place, Run, Seen, Session, Standing, Store, StoreError};

/// The pause before the n-th attempt grows to this.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// After this many attempts at one position, a command that died inside its append is assumed to
/// hold it, or a document of the batch.
const PATIENCE_ATTEMPTS: u32 = 8;

type Payload = Arc<WriteRequest>;
type Reply = oneshot::Sender<Result<Outcome, Failure>>;

/// For how long a write may run whose cost its size does not tell.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// In a batch with others.
    pub shared: Duration,
    /// In a batch of its own.
    pub alone: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            shared: SHARED_RUN_MAX,
            alone: ALONE_RUN_MAX,
        }
    }
}

/// Starts the sequencer of a node. It serves when it is given a claim, and ends when all handles
/// are gone or `claims` is closed.
pub fn spawn(
    store: Store,
    node: NodeName,
    claims: mpsc::Receiver<Claimed>,
    bounds: Bounds,
) -> Handle {
    let (commands, inbox) = mpsc::channel(QUEUE_REQUESTS_MAX);
    let (progress_out, progress) = watch::channel(Progress::default());
    let task = Task {
        store,
        node,
        bounds,
        core: Core::default(),
        callers: BTreeMap::new(),
        epoch: Epoch::ZERO,
        session: None,
        work: None,
        found: Found::Nothing,
        progress: progress_out,
        rests: FuturesUnordered::new(),
        crowd: None,
        drains: Vec::new(),
    };
    tokio::spawn(task.run(inbox, claims));
    Handle {
        commands,
        progress,
        tickets: Arc::default(),
    }
}

struct Task {
    store: Store,
    node: NodeName,
    bounds: Bounds,
    core: Core<Payload>,
    callers: BTreeMap<Ticket, Reply>,
    epoch: Epoch,
    /// Here while no batch runs.
    session: Option<Session>,
    work: Job<Done>,
    /// What the last work brought, for the replies that the core orders.
    found: Found,
    progress: watch::Sender<Progress>,
    /// Requests that met a lock, until their pauses end.
    rests: FuturesUnordered<BoxFuture<'static, Ticket>>,
    /// MongoDB runs too much of what was left, until this ends.
    crowd: Job<()>,
    /// Who waits for the end of what runs.
    drains: Vec<oneshot::Sender<()>>,
}

/// Results that wait for the core's word on who gets them.
enum Found {
    Nothing,
    Entries(Vec<Entry>),
    Seen(Vec<(usize, Seen)>),
    /// Why a request cannot be done now.
    Obstacle(Failure),
}

/// The end of a piece of work.
enum Done {
    Ran(Session, Result<Run, StoreError>),
    Resolved(Session, Standing),
    Looked(Vec<(usize, Seen)>),
    /// The log was changed behind the nodes. The session comes back if it was lent.
    Faulted(Option<Session>),
}

impl Task {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        mut claims: mpsc::Receiver<Claimed>,
    ) {
        loop {
            tokio::select! {
                biased;
                done = working(&mut self.work) => {
                    self.finish(done);
                }
                Some(ticket) = self.rests.next() => self.step(Input::Rested(ticket)),
                () = working(&mut self.crowd) => self.step(Input::LeftEnded),
                claim = claims.recv(), if self.core.is_idle() => match claim {
                    Some(claim) => self.serve(claim),
                    None => break,
                },
                command = inbox.recv() => match command {
                    Some(command) => self.obey(command),
                    None => break,
                },
            }
            // Whatever else has arrived travels with the next batch.
            while self.work.is_some()
                && let Ok(command) = inbox.try_recv()
            {
                self.obey(command);
            }
            if self.core.is_idle() {
                for drain in self.drains.drain(..) {
                    let _ = drain.send(()); // nobody may be waiting any more
                }
            }
        }
    }

    fn serve(&mut self, claim: Claimed) {
        if claim.epoch < self.progress.borrow().ended_before {
            return; // over before it began
        }
        self.epoch = claim.epoch;
        self.session = Some(claim.session);
        self.step(Input::Serve {
            epoch: claim.epoch,
            tail: claim.position,
            clock: claim.clock,
            nonce: BatchId::fresh().nonce(),
        });
        self.progress.send_modify(|progress| {
            // A log that was repaired goes on before the end that it had.
            progress.guest = progress.guest.filter(|guest| *guest <= claim.position);
            progress.epoch = Some(claim.epoch);
        });
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit {
                request,
                reply,
                ticket,
            } => self.submit(request, reply, ticket),
            Command::Withdraw(ticket) => self.step(Input::Withdraw(ticket)),
            Command::Depose { before } => self.end_tenures(before),
            Command::Drain { before, done } => {
                self.end_tenures(before);
                self.drains.push(done);
            }
        }
    }

    fn end_tenures(&mut self, before: Epoch) {
        self.progress.send_modify(|progress| {
            progress.ended_before = progress.ended_before.max(before);
        });
        if self.epoch >= before {
            return;
        }
        if self.progress.borrow().epoch.is_some() {
            info!(epoch = %self.epoch, "begins no further batch");
        }
        self.progress.send_modify(|progress| progress.epoch = None);
        self.step(Input::Depose);
    }

    fn submit(&mut self, request: Arc<WriteRequest>, reply: Reply, ticket: Ticket) {
        self.callers.insert(ticket, reply);
        let submission = Submission {
            ticket,
            id: request.id.clone(),
            digest: request.digest,
            clock: request.clock,
            bytes: request.bytes,
            touches: touches(&request),
            loops: request.write.loops(),
            payload: request,
        };
        self.step(Input::Submit(submission));
    }

    fn step(&mut self, input: Input<Payload>) {
        for output in self.core.step(input) {
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output<Payload>) {
        match output {
            Output::Run(batch) => self.begin_run(batch),
            Output::Resolve(batch) => self.begin_resolve(&batch, false),
            Output::Prove(batch) => self.begin_resolve(&batch, true),
            Output::Look(batch) => {
                self.work = Some(look(self.store.clone(), batch).boxed());
            }
            Output::Rest { ticket, conflicts } => {
                let pause = Duration::from_millis(1 << conflicts.min(10));
                self.rests.push(sleep(pause).map(move |()| ticket).boxed());
            }
            Output::AwaitLeft => {
                let left = self.session.as_ref().map(Session::left).unwrap_or_default();
                self.crowd = Some(async move { left.until_below(LOOPS_LEFT_MAX).await }.boxed());
            }
            Output::Answer {
                ticket,
                index,
                stamp,
                position,
            } => {
                let Found::Entries(entries) = &self.found else {
                    return self.reply(ticket, Err(Failure::Unknown));
                };
                let outcome = entries.get(index).map(|entry| Outcome {
                    result: entry.result.clone(),
                    stamp: self.stamp(stamp),
                    position,
                    replayed: false,
                });
                self.reply(ticket, outcome.ok_or(Failure::Unknown));
            }
            Output::Replay { ticket, index } => self.replay(ticket, index),
            Output::Reject { ticket, why } => {
                let failure = self.failure_of(why);
                self.reply(ticket, Err(failure));
            }
            Output::Advanced { tail, clock, guest } => self.progress.send_modify(|progress| {
                progress.tail = Some(tail);
                progress.clock = clock;
                if guest {
                    progress.guest = Some(tail);
                }
            }),
            Output::Fenced => {
                warn!(epoch = %self.epoch, "fenced: another node has claimed a later epoch");
                self.progress.send_modify(|progress| progress.epoch = None);
            }
        }
    }

    fn begin_run(&mut self, batch: Batch<Payload>) {
        let Some(session) = self.session.take() else {
            debug_assert!(false, "a batch began while another ran");
            return;
        };
        let run = run_batch(self.store.clone(), session, batch, self.bounds);
        self.work = Some(run.boxed());
    }

    fn begin_resolve(&mut self, batch: &Batch<Payload>, proven: bool) {
        let Some(session) = self.session.take() else {
            debug_assert!(false, "a position is resolved while its batch runs");
            return;
        };
        let resolve = resolve(self.store.clone(), session, place_of(batch), proven);
        self.work = Some(resolve.boxed());
    }

    fn finish(&mut self, done: Done) {
        let input = match done {
            Done::Ran(session, ran) => {
                self.session = Some(session);
                Input::Ran(self.ran(ran))
            }
            Done::Resolved(session, standing) => {
                self.session = Some(session);
                Input::Resolved(self.resolved(standing))
            }
            Done::Looked(seen) => {
                let digests = seen.iter().map(|(index, seen)| (*index, seen.entry.digest));
                let digests: Vec<(usize, Option<Digest>)> = digests.collect();
                self.found = Found::Seen(seen);
                Input::Looked(digests)
            }
            Done::Faulted(session) => {
                self.session = session.or(self.session.take());
                self.progress.send_modify(|progress| progress.epoch = None);
                Input::Faulted
            }
        };
        self.note_doubt(&input);
        self.step(input);
        if self.work.is_none() {
            self.set_doubt(false); // nobody waits for the batch any more
        }
        self.found = Found::Nothing;
    }

    /// The doubt about a batch begins with an attempt of unknown end, and ends when the batch does.
    fn note_doubt(&self, input: &Input<Payload>) {
        let doubts = match input {
            Input::Ran(Ran::Doubt { .. } | Ran::Clash) => true,
            Input::Ran(Ran::Committed { .. }) | Input::Faulted => false,
            Input::Resolved(Resolved::Vacant | Resolved::Absent) => return,
            Input::Resolved(_) => false,
            _ => return,
        };
        self.set_doubt(doubts);
    }

    fn set_doubt(&self, doubts: bool) {
        self.progress
            .send_if_modified(|progress| progress.doubt(doubts));
    }

    fn ran(&mut self, ran: Result<Run, StoreError>) -> Ran {
        match ran {
            Ok(Run::Committed(entries)) => {
                let count = entries.len();
                self.found = Found::Entries(entries);
                Ran::Committed { count }
            }
            Ok(Run::Refused { index, refusal }) => Ran::Refused { index, refusal },
            Ok(Run::Contended { first, count, why }) => {
                self.found = Found::Obstacle(why);
                Ran::Contended { first, count }
            }
            Ok(Run::Barred { index, why }) => {
                self.found = Found::Obstacle(why);
                Ran::Barred { index }
            }
            Ok(Run::Held { index, refusal }) => Ran::Held { index, refusal },
            Ok(Run::Oversized) => Ran::Oversized,
            Err(StoreError::Repeated) => Ran::Doubt { repeated: true },
            Err(StoreError::Refused(refusal)) => {
                debug!(?refusal, "a batch was not appended");
                Ran::Clash
            }
            Err(error) => {
                debug!(%error, "a batch is in doubt");
                Ran::Doubt { repeated: false }
            }
        }
    }

    fn resolved(&mut self, standing: Standing) -> Resolved {
        match standing {
            Standing::Mine(entries) => {
                let count = entries.len();
                self.found = Found::Entries(entries);
                Resolved::Mine { count }
            }
            Standing::Vacant => Resolved::Vacant,
            Standing::Absent => Resolved::Absent,
            Standing::Guest(tail) => Resolved::Guest {
                tail: tail.position,
                clock: tail.clock,
            },
            Standing::Fenced(epoch) => {
                self.progress.send_modify(|progress| {
                    progress.ended_before = progress.ended_before.max(epoch);
                });
                Resolved::Fenced
            }
        }
    }

    fn replay(&mut self, ticket: Ticket, index: usize) {
        let Found::Seen(seen) = &self.found else {
            return self.reply(ticket, Err(Failure::Unknown));
        };
        let stored = seen.iter().find(|(at, _)| *at == index);
        let outcome = stored.map(|(_, seen)| seen.outcome());
        self.reply(ticket, outcome.ok_or(Failure::Unknown));
    }

    fn reply(&mut self, ticket: Ticket, answer: Result<Outcome, Failure>) {
        if let Some(reply) = self.callers.remove(&ticket) {
            // The caller may be gone; its request's answer stays in the log.
            let _ = reply.send(answer);
        }
    }

    fn failure_of(&self, why: Reject) -> Failure {
        match why {
            Reject::LogFault => {
                let fault = self.store.known_log_fault();
                fault.map_or(Failure::NoCoordinator, |fault| {
                    StoreError::Log(fault).into_failure()
                })
            }
            Reject::Contended | Reject::Barred => match &self.found {
                Found::Obstacle(failure) => failure.clone(),
                _ => Failure::Unavailable("see the node's log".into()),
            },
            why => failure_of(why),
        }
    }

    fn stamp(&self, t: i64) -> Stamp {
        Stamp {
            t,
            n: self.node.clone(),
        }
    }
}

/// The most documents of one insert that are looked at one by one.
const INSERT_LOOK_MAX: usize = 16;

/// What a request touches, if its payload alone tells.
fn touches(request: &WriteRequest) -> Option<Touches> {
    let ids: Vec<&Bson> = match &request.write {
        Write::Insert { documents } if documents.len() > INSERT_LOOK_MAX => return None,
        Write::Insert { documents } => {
            let ids = documents.iter().map(|document| document.get("_id"));
            ids.collect::<Option<_>>()?
        }
        write if write.is_short() => vec![write.point()?],
        _ => return None,
    };
    // An `_id` that equals one of another type (1 and 1.0) hashes differently.
    let documents = ids
        .into_iter()
        .map(|id| is_exact(id).then(|| hash((&request.namespace, encoded(id)))));
    Some(Touches {
        kind: hash((&request.namespace, std::mem::discriminant(&request.write))),
        documents: documents.collect::<Option<_>>()?,
    })
}

fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

async fn run_batch(
    store: Store,
    mut session: Session,
    batch: Batch<Payload>,
    bounds: Bounds,
) -> Done {
    pause_before(&store, batch.attempt).await;
    if batch.attempt >= PATIENCE_ATTEMPTS {
        warn!(position = %batch.position, attempt = batch.attempt, "a batch runs again and again");
        if let Err(error) = store.end_guests(session.ids()).await {
            warn!(%error, "cannot end the sessions of commands that died");
        }
    }
    let place = place_of(&batch);
    let items: Vec<Item<'_>> = (batch.slots.iter())
        .map(|slot| Item {
            request: &slot.submission.payload,
            stamp: slot.stamp,
            refused: slot.refused.as_ref(),
        })
        .collect();
    if batch.attempt > 1 {
        debug!(position = %batch.position, attempt = batch.attempt, "a batch runs again");
    }
    let bound = match batch.alone {
        true => bounds.alone,
        false => bounds.shared,
    };
    let mut ran = session.run(place, &items, bound).await;
    if let Err(StoreError::Unproven) = ran
        && let Err(error) = store.survey().await
    {
        ran = Err(error);
    }
    match ran {
        Err(StoreError::Log(_)) => Done::Faulted(Some(session)),
        ran => Done::Ran(session, ran),
    }
}

/// Later attempts come after longer pauses: 0, 1, 2, 4 ms and so on, or as soon as a member becomes
/// primary.
async fn pause_before(store: &Store, attempt: u32) {
    let Some(doublings) = attempt.checked_sub(2) else {
        return;
    };
    let pause = Duration::from_millis(1 << doublings.min(10));
    store.pause(pause.min(PAUSE_MAX)).await;
}

/// Looks until MongoDB answers: an unknown outcome must become known before anything else runs.
/// Callers that wait no longer are let go meanwhile.
async fn resolve(store: Store, mut session: Session, place: Place, proven: bool) -> Done {
    let mut attempt = 0;
    loop {
        attempt += 1;
        pause_before(&store, attempt).await;
        match store.resolve(&mut session, place, proven).await {
            Ok(standing) => {
                debug!(position = %place.position, attempt, "a position is resolved");
                return Done::Resolved(session, standing);
            }
            Err(StoreError::Log(_)) if is_faulty(&store).await => {
                return Done::Faulted(Some(session));
            }
            Err(error) => {
                warn!(%error, position = %place.position, "cannot resolve a position yet");
            }
        }
    }
}

async fn look(store: Store, batch: Batch<Payload>) -> Done {
    let keyed = |index: usize| {
        let submission = &batch.slots[index].submission;
        submission.digest.is_some().then_some(&submission.id)
    };
    let ids: Vec<&RequestId> = (0..batch.slots.len()).filter_map(keyed).collect();
    let mut attempt = 0;
    let seen = loop {
        attempt += 1;
        pause_before(&store, attempt).await;
        match store.seen(&ids).await {
            Ok(seen) => break seen,
            Err(StoreError::Log(_)) if is_faulty(&store).await => return Done::Faulted(None),
            Err(error) => warn!(%error, "cannot look for request ids yet"),
        }
    };
    let index_of =
        |seen: &Seen| (batch.slots.iter()).position(|slot| slot.submission.id == seen.entry.id);
    let seen = seen.into_iter();
    Done::Looked(
        seen.filter_map(|seen| Some((index_of(&seen)?, seen)))
            .collect(),
    )
}

/// Whether the log itself is at fault. Says so to all who ask.
async fn is_faulty(store: &Store) -> bool {
    matches!(store.survey().await, Err(StoreError::Log(_)))
}

fn place_of(batch: &Batch<Payload>) -> Place {
    Place {
        position: batch.position,
        epoch: batch.epoch,
        batch: batch.id,
    }
}

fn failure_of(why: Reject) -> Failure {
    match why {
        Reject::Full => Failure::Busy,
        Reject::NotCoordinator | Reject::LogFault => Failure::NoCoordinator,
        Reject::ClockAhead => Failure::clock_too_far_ahead(),
        Reject::ClockAtEnd => Failure::clock_at_its_end(),
        Reject::IdReused => Failure::IdReused,
        // The task knows more of these.
        Reject::Contended | Reject::Barred => Failure::Unavailable("see the node's log".into()),
        Reject::Expired => Failure::Unavailable("the request did not get its turn in time".into()),
        Reject::Unknown => Failure::Unknown,
    }
}
