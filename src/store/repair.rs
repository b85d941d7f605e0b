//! The deliberate way out when the log was changed behind the nodes: they go on with it as it is.

use bson::{Bson, Document, doc};
use mongodb::Client;
use tracing::info;

use super::codes::INDEX_NOT_FOUND;
use super::error::StoreError;
use super::fault::LogFault;
use super::reply::first_write_error;
use super::schema::{DATABASE, LOG, LogDocument, MARKS, REQUEST_IDS, batch_to_bson};
use super::{Store, log_of};
use crate::model::{BatchId, Position};

/// A mark is at most a minute old, or the writes that the log has lost since are not known to it at
/// all. The stamps go on so far above it: no coordinator gives more in a minute.
const UNMARKED_STAMPS_MAX: i64 = 1 << 22;

impl Store {
    /// What is wrong with the log, if anything is. Looks at all of it.
    pub async fn examine(&self) -> Result<Option<LogFault>, StoreError> {
        let examined = async {
            self.survey().await?;
            self.count_log().await
        };
        match examined.await {
            Ok(()) => Ok(None),
            Err(StoreError::Log(fault)) => Ok(Some(fault)),
            Err(error) => Err(error),
        }
    }

    /// Accepts the log as it is: makes its indexes, and appends a claim above every stamp and epoch
    /// that is known, from which the nodes go on. Gives the claim's position. Foreign documents must
    /// be gone before.
    pub async fn repair(&self, fault: Option<&LogFault>) -> Result<Position, StoreError> {
        if let Some(LogFault::NoIndex { .. }) = fault {
            self.drop_request_ids_index().await?;
            self.keep_first_of_each_id().await?;
        }
        self.prepare().await?;
        let tail = self.newest_tail().await?;
        let session = self.batch_session().await?;
        let mut claim = self.claim_after(&tail, BatchId::fresh());
        claim.last = claim.last.saturating_add(UNMARKED_STAMPS_MAX);
        claim.first = claim.last;
        self.append_claim(&claim, &session).await?;
        self.accept(&claim).await?;
        info!(position = %claim.position, "the log is accepted as it is");
        Ok(claim.position)
    }

    async fn drop_request_ids_index(&self) -> Result<(), StoreError> {
        let drop_index = doc! { "dropIndexes": LOG, "index": REQUEST_IDS };
        match self.run(&self.order, DATABASE, drop_index).await {
            Err(error) if error.code() == Some(INDEX_NOT_FOUND) => Ok(()),
            dropped => dropped.map(drop),
        }
    }

    /// Takes an id that stands in several documents out of all but the first. A retry of its request
    /// gets the first one's answer.
    async fn keep_first_of_each_id(&self) -> Result<(), StoreError> {
        let find = |client: Client| async move {
            let twice = [
                doc! { "$unwind": "$ids" },
                doc! { "$group": {"_id": "$ids", "first": {"$min": "$_id"}, "n": {"$sum": 1}} },
                doc! { "$match": {"n": {"$gt": 1}} },
            ];
            let mut found = log_of(&client)
                .aggregate(twice)
                .allow_disk_use(true)
                .await?;
            let mut ids = Vec::new();
            while found.advance().await? {
                ids.push(found.deserialize_current()?);
            }
            Ok::<_, mongodb::error::Error>(ids)
        };
        for twice in self.bounded(&self.order, find).await? {
            let (id, first) = (twice.get("_id").cloned(), twice.get("first").cloned());
            let (id, first) = (id.unwrap_or(Bson::Null), first.unwrap_or(Bson::Null));
            let others = doc! { "ids": &id, "_id": {"$gt": first} };
            let pull = doc! { "q": others, "u": {"$pull": {"ids": id}}, "multi": true };
            let update = doc! { "update": LOG, "updates": [pull] };
            checked(&self.run(&self.order, DATABASE, update).await?)?;
        }
        Ok(())
    }

    /// Notes that what is missing before this claim is known to be missing.
    async fn accept(&self, claim: &LogDocument) -> Result<(), StoreError> {
        let mark = doc! {
            "position": claim.position.0,
            "epoch": claim.epoch.0,
            "clock": claim.last,
            "batch": batch_to_bson(&claim.batch),
            "repaired": bson::DateTime::now().timestamp_millis(),
            "whole_from": claim.position.0,
        };
        let accept = doc! { "q": {"_id": LOG}, "u": {"$set": mark}, "upsert": true };
        let update = doc! { "update": MARKS, "updates": [accept] };
        checked(&self.run(&self.order, DATABASE, update).await?)
    }
}

fn checked(reply: &Document) -> Result<(), StoreError> {
    let error = first_write_error(reply).map(StoreError::from_write_error);
    error.map_or(Ok(()), Err)
}
