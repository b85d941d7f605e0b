//! Becoming coordinator: signs of a coordinator's life, and the claim that ends its tenure.

use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::Client;
use mongodb::options::ReadConcern;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::batch::{Place, Session};
use super::codes::DUPLICATE_KEY;
use super::error::StoreError;
use super::fault::LogFault;
use super::log::Tail;
use super::reply::first_write_error;
use super::schema::{DATABASE, GUESTS, LOG, LogDocument, NODES};
use super::{Store, log_of, within};
use crate::model::{BatchId, Epoch, NodeName, Position, Tenure};
use crate::mutants::{self, Mutant};

/// How long a claim's insert may wait for locks that a predecessor left.
const CLAIM_WAIT_MAX: Duration = Duration::from_secs(1);
/// The pause before the next attempt to claim.
const CLAIM_PAUSE: Duration = Duration::from_millis(2);
/// How long the primary may take to answer a ping.
const PING_MAX: Duration = Duration::from_millis(500);
/// A look or a sign of life that takes longer tells nothing in time.
const SIGN_MAX: Duration = Duration::from_secs(1);

/// A claim that stands in the log: this node is coordinator until another claims after it.
#[derive(Debug)]
pub struct Claimed {
    pub epoch: Epoch,
    pub position: Position,
    pub clock: i64,
    pub session: Session,
}

/// Why a claim was not made.
#[derive(Debug, Clone)]
pub enum ClaimError {
    /// Another node has claimed meanwhile.
    Superseded(Tenure),
    /// The log has not come to the epoch that was to be claimed over: it was hearsay, or it was
    /// rolled back. Nothing was done.
    Behind(Epoch),
    /// MongoDB did not answer. The claim may still appear in the log.
    Store(StoreError),
}

impl From<StoreError> for ClaimError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What a coordinator at work changes again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// The last claim in the log.
    pub tenure: Option<Tenure>,
    /// The end of the log, if the last claimant wrote it.
    tail: Option<Position>,
    /// The last claimant's count of its signs of life.
    count: Option<i64>,
}

impl Store {
    /// The last claim that a majority holds, and signs of its life as the primary knows them at this
    /// moment.
    pub async fn sign(&self) -> Result<Sign, StoreError> {
        let looked = within(SIGN_MAX, async {
            let Some(claim) = self.last_claim().await? else {
                return Ok(Sign {
                    tenure: None,
                    tail: None,
                    count: None,
                });
            };
            let tenure = tenure_of(&claim)?;
            let (tail, count) =
                tokio::try_join!(self.tail_with(ReadConcern::local()), self.life(&tenure))?;
            Ok(Sign {
                tail: (tail.node.as_ref() == Some(&tenure.node)).then_some(tail.position),
                count,
                tenure: Some(tenure),
            })
        })
        .await;
        self.heed(looked).await
    }

    /// Whatever meets a fault of the log has it looked at, so that all who ask are told.
    pub(super) async fn heed<T>(&self, looked: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Log(_)) = &looked {
            self.survey().await?;
        }
        looked
    }

    /// Whether the primary answers a ping.
    pub(super) async fn primary_answers(&self) -> bool {
        let ping = |client: Client| async move {
            client.database("admin").run_command(doc! {"ping": 1}).await
        };
        self.vital.call(PING_MAX, ping).await.is_ok()
    }

    async fn life(&self, tenure: &Tenure) -> Result<Option<i64>, StoreError> {
        let of = doc! {"_id": tenure.node.as_str(), "epoch": tenure.epoch.0};
        let find = |client: Client| async move {
            let nodes = client.database(DATABASE).collection::<Document>(NODES);
            let find = nodes.find_one(of).read_concern(ReadConcern::local());
            find.await
        };
        let found = self.vital.call(SIGN_MAX, find).await?;
        Ok(found.and_then(|document| document.get_i64("count").ok()))
    }

    /// Shows those who cannot hear this coordinator that it lives. The primary alone has to know.
    pub async fn show_life(&self, epoch: Epoch, count: i64) -> Result<(), StoreError> {
        let sign = doc! {"$set": {"epoch": epoch.0, "count": count, "at": bson::DateTime::now()}};
        let sign = doc! { "q": {"_id": self.node.as_str()}, "u": sign, "upsert": true };
        let update = doc! { "update": NODES, "updates": [sign], "writeConcern": {"w": 1} };
        let show =
            |client: Client| async move { client.database(DATABASE).run_command(update).await };
        self.vital.call(SIGN_MAX, show).await.map(drop)
    }

    /// Becomes coordinator: looks whether the log is whole, ends what the last one left open, then appends a claim with the epoch
    /// after `over`. Refuses if another epoch has begun since.
    ///
    /// The tail is read with majority read concern. One that only a primary holds could be rolled back
    /// between this look and the append, and the claim would stand above a hole.
    pub async fn claim(&self, over: Epoch) -> Result<Claimed, ClaimError> {
        let mut session = self.batch_session().await?;
        let batch = BatchId::fresh();
        tokio::try_join!(self.survey(), self.end_others(over))?;
        loop {
            let tail = self.tail_with(ReadConcern::majority()).await?;
            if tail.epoch > over {
                return self.superseded().await;
            }
            if tail.epoch < over {
                // A majority may have more than this member knows of.
                let tail = self.tail().await?;
                match tail.epoch < over {
                    true => return Err(ClaimError::Behind(tail.epoch)),
                    false => continue,
                }
            }
            let claim = self.claim_after(&tail, batch);
            match self.append_claim(&claim, &session).await {
                Ok(()) => {
                    session.stands(place_of(&claim), claim.last);
                    return Ok(self.claimed(&claim, session));
                }
                Err(error) if error.code() == Some(DUPLICATE_KEY) => {
                    debug!(position = %claim.position, "another append came first");
                }
                Err(StoreError::Contended) => {}
                Err(error) => {
                    warn!(%error, "a claim is in doubt");
                    let standing = self.at(claim.position).await?;
                    if standing.is_some_and(|document| document.batch == batch) {
                        session.stands(place_of(&claim), claim.last);
                        return Ok(self.claimed(&claim, session));
                    }
                }
            }
            sleep(CLAIM_PAUSE).await;
            self.end_others(over).await?;
        }
    }

    /// Ends what the coordinator of this epoch and commands without a server left open.
    async fn end_others(&self, over: Epoch) -> Result<(), StoreError> {
        self.end_sessions_of(over).await?;
        self.end_guests(&[]).await
    }

    async fn superseded(&self) -> Result<Claimed, ClaimError> {
        let claim = self.last_claim().await?;
        let claim = claim.ok_or_else(|| StoreError::Damaged("an epoch has no claim".into()))?;
        Err(ClaimError::Superseded(tenure_of(&claim)?))
    }

    /// Begins the first epoch of an empty log. If somebody else has done so meanwhile, that is as
    /// good: nobody is deposed.
    pub async fn claim_first(&self) -> Result<(), StoreError> {
        let session = self.batch_session().await?;
        let claim = self.claim_after(&Tail::EMPTY, BatchId::fresh());
        match self.append_claim(&claim, &session).await {
            Err(error) if error.code() == Some(DUPLICATE_KEY) => Ok(()),
            other => other,
        }
    }

    pub(super) fn claim_after(&self, tail: &Tail, batch: BatchId) -> LogDocument {
        // Past the end of the counter (`STAMP_MAX`) no write is taken; the room up to 2^63 is for
        // claims.
        //
        // A log that was repaired may end below what was seen of it.
        let (epoch, clock) = self.memory.floors();
        let clock = tail.clock.max(clock).saturating_add(1);
        LogDocument {
            position: tail.position.next(),
            epoch: tail.epoch.max(epoch).next(),
            node: self.node.clone(),
            batch,
            first: clock,
            last: clock,
            entries: Vec::new(),
            claim: true,
        }
    }

    fn claimed(&self, claim: &LogDocument, session: Session) -> Claimed {
        info!(epoch = %claim.epoch, position = %claim.position, "claimed");
        Claimed {
            epoch: claim.epoch,
            position: claim.position,
            clock: claim.last,
            session,
        }
    }

    pub(super) async fn append_claim(
        &self,
        claim: &LogDocument,
        session: &Session,
    ) -> Result<(), StoreError> {
        let time_ms = i64::try_from(CLAIM_WAIT_MAX.as_millis()).unwrap_or(i64::MAX);
        let command = doc! {
            "insert": LOG,
            "documents": [claim.to_bson(Bson::Array(session.ids().to_vec()))],
            "maxTimeMS": time_ms,
            "writeConcern": {"w": "majority"},
        };
        let reply = self.run(&self.order, DATABASE, command).await?;
        if let Some(error) = first_write_error(&reply) {
            return Err(StoreError::from_write_error(error));
        }
        match reply.contains_key("writeConcernError") {
            true => Err(StoreError::Unavailable(
                "the claim is not on a majority yet".into(),
            )),
            false => Ok(()),
        }
    }

    async fn last_claim(&self) -> Result<Option<Document>, StoreError> {
        let find = |client: Client| async move {
            let log = log_of(&client);
            let find = log.find_one(doc! {"kind": "claim"});
            let find = find.sort(doc! {"epoch": -1});
            let find = find.projection(doc! {"epoch": 1, "node": 1, "lsid": 1});
            find.read_concern(ReadConcern::majority()).await
        };
        self.bounded(&self.looks, find).await
    }

    /// A coordinator that was killed or frozen inside a transaction leaves its locks on the primary
    /// until the transaction's life ends (60 s). Its claim names its session: end that. The
    /// sessions of a later epoch are left in peace.
    async fn end_sessions_of(&self, epoch: Epoch) -> Result<(), StoreError> {
        let claim = self.last_claim().await?;
        let claim = claim.filter(|claim| claim.get_i64("epoch").ok() == Some(epoch.0));
        match claim.as_ref().map(|claim| claim.get_array("lsid")) {
            Some(Ok(ids)) => self.end_sessions_of_any(ids.clone()).await,
            _ => Ok(()),
        }
    }

    /// Ends the transactions of commands without a server that may have died inside them. One that
    /// lives tries again. `except` are the sessions of the caller.
    pub async fn end_guests(&self, except: &[Bson]) -> Result<(), StoreError> {
        let find = |client: Client| async move {
            let guests = client.database(DATABASE).collection::<Document>(GUESTS);
            let mut found = guests.find(doc! {}).await?;
            let mut ids = Vec::new();
            while found.advance().await? {
                ids.extend(found.deserialize_current()?.remove("_id"));
            }
            Ok::<_, mongodb::error::Error>(ids)
        };
        let mut ids = self.bounded(&self.order, find).await?;
        ids.retain(|id| !except.contains(id));
        if ids.is_empty() {
            return Ok(());
        }
        self.end_sessions_of_any(ids.clone()).await?;
        let these = doc! { "q": {"_id": {"$in": ids}}, "limit": 0 };
        let delete = doc! { "delete": GUESTS, "deletes": [these] };
        self.run(&self.order, DATABASE, delete).await.map(drop)
    }

    /// Ends sessions whosever they are: who writes without a node may log in as another user, and
    /// MongoDB takes a session's id alone for one of the caller's own.
    async fn end_sessions_of_any(&self, ids: Vec<Bson>) -> Result<(), StoreError> {
        if mutants::active(Mutant::SessionsLeftOpen) {
            return Ok(());
        }
        // A user of a connection string who may not do this ends his own, as below.
        let ended = async {
            let found = self.run(&self.order, "admin", owners(&ids)).await?;
            let found = found.get_document("cursor")?.get_array("firstBatch")?;
            let found = found.iter().filter_map(Bson::as_document);
            let whole: Vec<_> = found.filter_map(|session| session.get("_id")).collect();
            if !whole.is_empty() {
                let kill = doc! { "killSessions": whole };
                self.run(&self.order, "admin", kill).await?;
            }
            Ok::<_, anyhow::Error>(())
        };
        if let Err(error) = ended.await {
            tracing::debug!(%error, "sessions of other users are not ended");
        }
        self.end_sessions(ids).await
    }

    pub(super) async fn end_sessions(&self, ids: Vec<Bson>) -> Result<(), StoreError> {
        if mutants::active(Mutant::SessionsLeftOpen) {
            return Ok(());
        }
        let ids: Vec<_> = ids.into_iter().map(|id| doc! { "id": id }).collect();
        let kill = doc! { "killSessions": ids };
        self.run(&self.order, "admin", kill).await.map(drop)
    }
}

/// Asks for the whole names of sessions: MongoDB puts the user's beside the id.
fn owners(ids: &[Bson]) -> Document {
    doc! {
        "aggregate": 1,
        "pipeline": [
            {"$listLocalSessions": {"allUsers": true}},
            {"$match": {"_id.id": {"$in": ids}}},
            {"$project": {"_id": 1}},
        ],
        "cursor": {"batchSize": i32::MAX},
    }
}

fn place_of(claim: &LogDocument) -> Place {
    Place {
        position: claim.position,
        epoch: claim.epoch,
        batch: claim.batch,
    }
}

fn tenure_of(claim: &Document) -> Result<Tenure, StoreError> {
    let epoch = claim.get_i64("epoch").ok();
    let node = claim.get_str("node").ok();
    let node = node.and_then(|node| NodeName::parse(node).ok());
    let foreign = || StoreError::Log(LogFault::foreign(claim));
    let (epoch, node) = epoch.zip(node).ok_or_else(foreign)?;
    Ok(Tenure {
        node,
        epoch: Epoch(epoch),
    })
}
