//! One batch as one transaction: the requests' changes and the log document, or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bson::{Bson, doc};
use mongodb::error::{Error as DriverError, UNKNOWN_TRANSACTION_COMMIT_RESULT};
use mongodb::options::{ReadConcern, WriteConcern};
use mongodb::{Client, ClientSession};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

use super::append::{self, Last};
use super::codes::{DUPLICATE_KEY, TRANSACTION_TOO_LARGE, TRANSACTION_TOO_LARGE_FOR_CACHE};
use super::error::StoreError;
use super::left::Left;
use super::log::Tail;
use super::merged;
use super::schema::{DATABASE, Entry, LOG, LogDocument};
use super::work::{Fault, Merging, Work};
use super::{CALL_MAX, ORDER_CALLS_MAX, Plain, Store, work};
use crate::model::{BatchId, Epoch, Failure, Namespace, Position, Refusal, WriteRequest};
use crate::mutants::{self, Mutant};

/// How often a commit of unknown result is sent again before the position is looked at instead.
const COMMIT_TRIES_MAX: u32 = 3;
/// How often in a run it is learnt again what a collection is like. After that nothing is relied
/// on.
const RENEWED_MAX: u32 = 3;
/// For how long it is tried to end a session that was left: the calls that say so may be lost with it.
const END_MAX: Duration = Duration::from_secs(6);
const END_PAUSE: Duration = Duration::from_millis(250);

/// How many sessions a claim names: so many calls may be left without an end before more are noted.
const SESSIONS: usize = 8;

/// A request with its place in the batch.
#[derive(Debug, Clone)]
pub struct Item<'a> {
    pub request: &'a WriteRequest,
    pub stamp: i64,
    /// Set if an earlier run of the batch was refused because of it: it is logged, not run.
    pub refused: Option<&'a Refusal>,
}

/// What fixes a batch in the log.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub position: Position,
    pub epoch: Epoch,
    pub batch: BatchId,
}

/// How a run ended. `Err` of the run itself means doubt: whether it took effect is unknown.
#[derive(Debug, Clone, PartialEq)]
pub enum Run {
    /// These entries, the first of the batch, are durable on a majority together with their
    /// effects. There are fewer than the batch has if its time was up.
    Committed(Vec<Entry>),
    /// Nothing was done, because of this request.
    Refused { index: usize, refusal: Refusal },
    /// Nothing was done: another program's lock, or something else that passes, is in the way of
    /// these requests, or of some of them.
    Contended {
        first: usize,
        count: usize,
        /// What a caller is told that does not wait for it any longer.
        why: Failure,
    },
    /// Nothing was done: the servers do not let the nodes do what this request asks for.
    Barred { index: usize, why: Failure },
    /// Nothing was done, and nothing will be: this request ran longer than its bound.
    Held { index: usize, refusal: Refusal },
    /// Nothing was done: MongoDB does not take the log document of so many requests.
    Oversized,
}

/// The sessions in which a coordinator writes, one at a time. Their ids stand in the claim, so that
/// a successor can end whatever they left open. Where a call does not come back its session is
/// left, and the next one takes its place.
#[derive(Debug)]
pub struct Session {
    store: Store,
    /// All of them, as MongoDB knows them.
    ids: Vec<Bson>,
    current: Option<Homing>,
    spares: mpsc::Receiver<Kept>,
    home: mpsc::Sender<Kept>,
    open: bool,
    left: Left,
    /// The last position of the log, as far as this writer knows.
    last: Option<Last>,
    /// The sessions whose commits are not known to have ended well: their end is made sure of each
    /// time that the position is looked at, until the batch is known to stand or not.
    committing: Vec<Bson>,
    /// When the request that runs alone in a command has had its time.
    pub(super) until: Option<Instant>,
    /// The collections without a collation that this run relies on.
    pub(super) plain: BTreeMap<Namespace, Plain>,
    /// Set while inserts meet ids that are taken: then it is worth looking for them first.
    pub(super) careful: bool,
    /// Whether the look found one in this batch.
    pub(super) duplicates: bool,
}

/// A driver's session, and how often the connections had been made anew when it began: it is of no
/// use on later ones.
#[derive(Debug)]
struct Kept {
    session: ClientSession,
    renewals: u64,
}

/// A session that goes back among the spare ones if nobody takes it out.
#[derive(Debug)]
struct Homing {
    session: Option<Kept>,
    home: mpsc::Sender<Kept>,
}

impl Drop for Homing {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // There is room for all, unless their owner is gone.
            let _ = self.home.try_send(session);
        }
    }
}

impl Store {
    /// Sessions for batches.
    pub async fn batch_session(&self) -> Result<Session, StoreError> {
        let (home, spares) = mpsc::channel(ORDER_CALLS_MAX);
        let mut ids = Vec::with_capacity(SESSIONS);
        for _ in 0..SESSIONS {
            let kept = self.session_to_keep().await?;
            ids.push(id_of(&kept.session));
            let _ = home.try_send(kept); // there is room
        }
        Ok(Session {
            store: self.clone(),
            ids,
            current: None,
            spares,
            home,
            open: false,
            left: Left::default(),
            last: None,
            committing: Vec::new(),
            until: None,
            plain: BTreeMap::new(),
            careful: false,
            duplicates: false,
        })
    }

    async fn session_to_keep(&self) -> Result<Kept, StoreError> {
        // Taken for older than it is, the session is only given up sooner.
        let renewals = self.order.line().renewals();
        let session = self.plain_session().await?;
        Ok(Kept { session, renewals })
    }
}

/// The session's id (`lsid`) as MongoDB knows it.
fn id_of(session: &ClientSession) -> Bson {
    session.id().get("id").cloned().unwrap_or(Bson::Null)
}

impl Session {
    /// The ids of all its sessions.
    pub fn ids(&self) -> &[Bson] {
        &self.ids
    }

    /// What was left of its calls.
    pub fn left(&self) -> Left {
        self.left.clone()
    }

    /// The id of the session that writes now.
    fn id(&self) -> Bson {
        let session = self.current.as_ref().and_then(|now| now.session.as_ref());
        session.map_or(Bson::Null, |kept| id_of(&kept.session))
    }

    /// The log ends with this: the next batch stands after it.
    pub(super) fn is_after(&mut self, tail: &Tail) {
        let position = tail.position;
        self.last = tail.batch.map(|batch| Last { position, batch });
        self.committing.clear();
        self.store.remember(tail);
    }

    /// This batch is in the log, durable on a majority, with stamps up to this counter.
    pub(super) fn stands(&mut self, place: Place, clock: i64) {
        let Place {
            position,
            batch,
            epoch,
        } = place;
        self.last = Some(Last { position, batch });
        self.committing.clear();
        let memory = &self.store.memory;
        memory.remember(position, batch, epoch, clock);
    }

    /// Runs the batch and commits it with majority. An error means that nothing is known about it;
    /// [`Store::resolve`] finds out.
    ///
    /// A request whose effect is not known beforehand (any but an insert or one by `_id`) may run
    /// for `bound`; a longer one gives [`Run::Held`].
    pub async fn run(
        &mut self,
        place: Place,
        items: &[Item<'_>],
        bound: Duration,
    ) -> Result<Run, StoreError> {
        let mut merging = Merging::Neighbours;
        let mut renewed = 0;
        loop {
            return match self.try_run(place, items, merging, bound).await {
                Ok(run) => Ok(run),
                // Nothing was done. One command a request tells what a command for many did not.
                Err(Fault::Ambiguous) if merging == Merging::Neighbours => {
                    merging = Merging::Nothing;
                    continue;
                }
                Err(Fault::Ambiguous) => Err(StoreError::Damaged(
                    "a reply does not fit its command".into(),
                )),
                Err(Fault::Store(StoreError::Renewed)) => {
                    renewed += 1;
                    self.learn_again(items, renewed < RENEWED_MAX).await;
                    continue;
                }
                Err(Fault::Store(error)) => Err(error),
            };
        }
    }

    /// A collection of these requests was dropped and made anew. What is not known of one is not
    /// relied on, so it is right to go on without knowing it, only slower.
    async fn learn_again(&self, items: &[Item<'_>], look: bool) {
        let namespaces: BTreeSet<_> = items.iter().map(|item| &item.request.namespace).collect();
        for namespace in namespaces {
            self.store.forget(namespace);
            if look && let Err(error) = self.store.learn(namespace).await {
                debug!(%error, %namespace, "a collection is not known for now");
            }
        }
    }

    async fn try_run(
        &mut self,
        place: Place,
        items: &[Item<'_>],
        merging: Merging,
        bound: Duration,
    ) -> Result<Run, Fault> {
        let ran = self.transact(place, items, merging, bound).await;
        self.until = None;
        if self.open {
            self.abort().await;
        }
        ran
    }

    async fn transact(
        &mut self,
        place: Place,
        items: &[Item<'_>],
        merging: Merging,
        bound: Duration,
    ) -> Result<Run, Fault> {
        self.begin().await?;
        self.duplicates = false;
        let node = self.store.node.clone();
        self.plain = (items.iter())
            .filter_map(|item| self.store.plain_collection(&item.request.namespace))
            .collect();
        let plain = |namespace: &Namespace| self.plain.contains_key(namespace);
        let mut work = Work::new(items, merging, plain);
        while let Some(step) = work.next_step() {
            self.until = work.is_bounded(&step).then(|| Instant::now() + bound);
            match merged::run(self, &step, items, &node).await {
                Ok(applied) => work.done(&step, applied),
                Err(error) => {
                    if self.until.is_some() && self.is_at_fault(&error.error).await {
                        let index = step.indexes().start;
                        let refusal = work::ran_too_long_in_order(bound);
                        return Ok(Run::Held { index, refusal });
                    }
                    let verdict = error.verdict(&step);
                    if let Ok(Run::Refused { refusal, .. }) = &verdict {
                        self.careful |= refusal.code == DUPLICATE_KEY;
                    }
                    return verdict;
                }
            }
        }
        self.until = None;
        self.careful = self.duplicates;
        let entries = work.into_entries();
        match self.append_to_log(place, &entries).await {
            Err(StoreError::Refused(refusal)) => return oversized(items, refusal),
            Err(error) if items.len() > 1 && is_too_large(&error) => return Ok(Run::Oversized),
            inserted => inserted?,
        }
        if mutants::active(Mutant::ReplyBeforeCommit) {
            self.open = false;
            return Ok(Run::Committed(entries));
        }
        match self.commit().await {
            Err(StoreError::Refused(refusal)) if mutants::active(Mutant::InterruptedIsFailure) => {
                Ok(Run::Refused { index: 0, refusal })
            }
            committed => {
                committed?;
                self.stands(place, entries.last().map_or(0, |entry| entry.t));
                Ok(Run::Committed(entries))
            }
        }
    }

    /// Whether the request itself ran for too long. If MongoDB has not answered at all, it is the
    /// request's fault only if the primary answers others.
    async fn is_at_fault(&self, error: &StoreError) -> bool {
        match error {
            StoreError::TimedOut(_) => self.store.primary_answers().await,
            error => error.is_out_of_time(),
        }
    }

    /// Ends every earlier transaction of these sessions for good. A commit that was sent and never
    /// answered may still lie in a socket of a primary that was frozen; a newer transaction on the
    /// same session makes the server refuse it. Only after this does an empty position stay empty.
    ///
    /// A transaction whose commit was never sent needs no burial: nobody will commit it. A session
    /// that was left in its commit is killed: its transaction is aborted then, or has committed,
    /// and a commit that comes later finds none.
    pub async fn bury(&mut self) -> Result<(), StoreError> {
        if !self.committing.is_empty() {
            self.store.end_sessions(self.committing.clone()).await?;
        }
        self.begin().await?;
        let nothing = doc! { "find": LOG, "filter": {"_id": 0}, "limit": 1 };
        let buried = self.command(DATABASE, nothing).await;
        if self.open {
            self.abort().await;
        }
        buried.map(drop)
    }

    /// Makes a call on the current session. If it does not come back in time, or another member
    /// becomes primary, the session is left to it, and killed.
    pub(super) async fn on_session<T, F>(
        &mut self,
        time: Duration,
        call: impl FnOnce(Client, ClientSession) -> F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = (ClientSession, Result<T, DriverError>)> + Send + 'static,
    {
        let taken = self.current.take().and_then(|mut now| now.session.take());
        let Some(Kept { session, renewals }) = taken else {
            return Err(StoreError::Unavailable("the transaction was left".into()));
        };
        let id = id_of(&session);
        if renewals < self.store.order.line().renewals() {
            self.leave(id);
            return Err(StoreError::Unavailable(
                "the connections were made anew".into(),
            ));
        }
        let home = self.home.clone();
        let (underway, leaver) = self.left.begin();
        let make = |_| {
            // A session is used on the connections that it was begun on.
            let call = call(session.client(), session);
            async move {
                let (session, result) = call.await;
                drop(underway);
                let session = Some(Kept { session, renewals });
                Ok::<_, StoreError>((Homing { session, home }, result))
            }
        };
        let called = self.store.order.call(time, make);
        match self.store.primary.lasting(called).await {
            Ok(Ok((session, result))) => {
                self.current = Some(session);
                result.map_err(StoreError::from)
            }
            Ok(Err(error)) | Err(error) => {
                leaver.leave();
                self.leave(id);
                Err(error)
            }
        }
    }

    /// Has the server end what the session runs, and lets its locks go. Nobody waits for that.
    fn leave(&mut self, id: Bson) {
        self.open = false;
        debug!(session = %id, "a session is left");
        let store = self.store.clone();
        tokio::spawn(async move {
            let until = Instant::now() + END_MAX;
            while let Err(error) = store.end_sessions(vec![id.clone()]).await {
                debug!(%error, "a session that was left is not ended yet");
                if Instant::now() > until {
                    return;
                }
                store.pause(END_PAUSE).await;
            }
        });
    }

    /// Has a session at hand that no call is using.
    async fn have_session(&mut self) -> Result<(), StoreError> {
        let renewals = self.store.order.line().renewals();
        let is_of_use = |kept: &Kept| kept.renewals == renewals;
        let current = self.current.as_ref().and_then(|now| now.session.as_ref());
        if current.is_some_and(is_of_use) {
            return Ok(());
        }
        if current.is_some() {
            self.leave(self.id());
        }
        let session = loop {
            match self.spares.try_recv() {
                Ok(spare) if is_of_use(&spare) => break spare,
                Ok(_) => {}
                Err(_) => break self.another_session().await?,
            }
        };
        let session = Some(session);
        let home = self.home.clone();
        self.current = Some(Homing { session, home });
        // One that comes back from a call that was left may have its transaction open still.
        self.abort().await;
        match self.current {
            Some(_) => Ok(()),
            None => Err(StoreError::TimedOut(CALL_MAX)),
        }
    }

    /// One more session than the claim names: noted where a successor finds it too.
    async fn another_session(&mut self) -> Result<Kept, StoreError> {
        let kept = self.store.session_to_keep().await?;
        let id = id_of(&kept.session);
        self.store.note_sessions(std::slice::from_ref(&id)).await?;
        self.ids.push(id);
        Ok(kept)
    }

    async fn begin(&mut self) -> Result<(), StoreError> {
        self.have_session().await?;
        if mutants::active(Mutant::ReplyBeforeCommit) {
            self.commit().await.ok(); // the batch before, if there was one
        }
        let concern = match mutants::active(Mutant::OneMemberAcknowledges) {
            true => WriteConcern::nodes(1),
            false => WriteConcern::majority(),
        };
        let start = |_, mut session: ClientSession| async move {
            let start = session.start_transaction();
            let start = start.read_concern(ReadConcern::snapshot());
            let started = start.write_concern(concern).await;
            (session, started)
        };
        self.on_session(CALL_MAX, start).await?;
        self.open = true;
        Ok(())
    }

    async fn append_to_log(&mut self, place: Place, entries: &[Entry]) -> Result<(), StoreError> {
        let stamps = entries.first().zip(entries.last());
        let (first, last) = stamps.map_or((0, 0), |(first, last)| (first.t, last.t));
        let document = LogDocument {
            position: place.position,
            epoch: place.epoch,
            node: self.store.node.clone(),
            batch: place.batch,
            first,
            last,
            entries: entries.to_vec(),
            claim: false,
        };
        let last = self
            .last
            .filter(|last| last.position.next() == place.position);
        let last = last.ok_or(StoreError::Unproven)?;
        let stored = document.to_bson(self.id());
        let command = append::command(&document, &stored, last);
        append::appended(&self.command(DATABASE, command).await?)
    }

    async fn commit(&mut self) -> Result<(), StoreError> {
        self.open = false;
        let mut tries = 0;
        let id = self.id();
        if !self.committing.contains(&id) {
            self.committing.push(id); // until it stands
        }
        loop {
            tries += 1;
            let commit = |_, mut session: ClientSession| async move {
                let committed = session.commit_transaction().await;
                // Only the driver's own error tells whether the outcome is known.
                (session, Ok(committed))
            };
            match self.on_session(CALL_MAX, commit).await? {
                Ok(()) => return Ok(()),
                Err(error) if mutants::active(Mutant::InterruptedIsFailure) => {
                    return Err(StoreError::taking_interruption_for_refusal(error));
                }
                Err(error) => {
                    let unknown = error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT);
                    if !unknown || tries >= COMMIT_TRIES_MAX {
                        return Err(error.into());
                    }
                }
            }
        }
    }

    /// Gives the locks back now instead of when the transaction's life ends. If this does not get
    /// through, the session is left and killed.
    async fn abort(&mut self) {
        self.open = false;
        let abort = |_, mut session: ClientSession| async move {
            let aborted = session.abort_transaction().await;
            (session, aborted)
        };
        if let Err(error) = self.on_session(CALL_MAX, abort).await {
            debug!(%error, "an abort was not answered");
        }
    }
}

/// Whether MongoDB has no room for so large a transaction.
fn is_too_large(error: &StoreError) -> bool {
    let codes = [TRANSACTION_TOO_LARGE, TRANSACTION_TOO_LARGE_FOR_CACHE];
    error.code().is_some_and(|code| codes.contains(&code))
}

/// What the refusal of a log document means. A lone request gets it for its own; where even the
/// note of a refusal is refused (a right is missing, say), the batch stays in doubt and is tried
/// again.
fn oversized(items: &[Item<'_>], refusal: Refusal) -> Result<Run, Fault> {
    match items {
        [lone] if lone.refused.is_some() => Err(Fault::Store(StoreError::Refused(refusal))),
        [_] => Ok(Run::Refused { index: 0, refusal }),
        _ => Ok(Run::Oversized),
    }
}
