//! Reads at a known point of the serial order.
//!
//! A read takes one snapshot that a majority holds, and looks in it first for the log's last
//! document: that names the point. Data that a failover could roll back is never seen.

use bson::{Document, doc};
use mongodb::options::{AggregateOptions, FindOptions, ReadConcern};
use mongodb::{ClientSession, SessionCursor};
use tokio::time::timeout;

use super::error::{NOT_IN_TRANSACTION, StoreError};
use super::log::Tail;
use super::schema::stamp;
use super::{Store, bounded};
use crate::budget::Reservation;
use crate::model::limits::{FIND_DOCUMENTS_MAX, REPLY_BYTES_MAX, REQUEST_RUN_MAX};
use crate::model::{Documents, Failure, Namespace, Position, Read, policy};

/// A decoded document takes about this many times its bytes.
const MEMORY_PER_BYTE: usize = 3;

/// A result, or word that the snapshot is older than asked for.
#[derive(Debug)]
pub enum Found {
    Documents(Documents),
    /// The snapshot ends here, before the position that was asked for.
    TooOld(Position),
}

impl Store {
    /// Runs a read in a snapshot whose log reaches `least` and whose stamps reach `clock`.
    pub async fn read(
        &self,
        namespace: &Namespace,
        read: &Read,
        least: Position,
        clock: i64,
        memory: &mut Reservation,
    ) -> Result<Found, Failure> {
        let mut session = self.session(true).await?;
        let Some(tail) = self.snapshot_tail(&mut session).await? else {
            return Ok(Found::TooOld(Position::ZERO));
        };
        if tail.position < least || tail.clock < clock {
            return Ok(Found::TooOld(tail.position));
        }
        let documents = if describes(read) {
            let concern = ReadConcern::local();
            self.outside_snapshot(namespace, read, concern, memory)
                .await?
        } else {
            let collected = self.collect(&mut session, namespace, read, None, memory);
            match collected.await {
                // A capped collection has no snapshots. A linearizable read that begins after the
                // snapshot was taken is never older than it.
                Err(Failure::ReadRefused { code, .. }) if code == NOT_IN_TRANSACTION => {
                    let concern = ReadConcern::linearizable();
                    self.outside_snapshot(namespace, read, concern, memory)
                        .await?
                }
                collected => collected?,
            }
        };
        let node = tail
            .node
            .ok_or_else(|| StoreError::Damaged("the last document has no node".into()))?;
        Ok(Found::Documents(Documents {
            documents,
            stamp: stamp(tail.clock, &node),
            position: tail.position,
        }))
    }

    async fn snapshot_tail(&self, session: &mut ClientSession) -> Result<Option<Tail>, StoreError> {
        let find = self
            .log
            .find_one(doc! {})
            .sort(doc! {"_id": -1})
            .projection(Tail::projection())
            .session(session);
        let last = bounded(async { find.await.map_err(StoreError::from) }).await?;
        last.map(|document| Tail::from_bson(&document)).transpose()
    }

    async fn outside_snapshot(
        &self,
        namespace: &Namespace,
        read: &Read,
        concern: ReadConcern,
        memory: &mut Reservation,
    ) -> Result<Vec<Document>, Failure> {
        let mut plain = self.session(false).await?;
        self.collect(&mut plain, namespace, read, Some(concern), memory)
            .await
    }

    async fn collect(
        &self,
        session: &mut ClientSession,
        namespace: &Namespace,
        read: &Read,
        concern: Option<ReadConcern>,
        memory: &mut Reservation,
    ) -> Result<Vec<Document>, Failure> {
        // The server ends a query that is merely slow; the bound outside is for one that is gone.
        let time = REQUEST_RUN_MAX + super::CALL_MAX;
        let reading = async {
            let cursor = self.open(session, namespace, read, concern).await?;
            drain(cursor, session, memory).await
        };
        match timeout(time, reading).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::TimedOut(time).into_failure()),
        }
    }

    async fn open(
        &self,
        session: &mut ClientSession,
        namespace: &Namespace,
        read: &Read,
        concern: Option<ReadConcern>,
    ) -> Result<SessionCursor<Document>, StoreError> {
        let database = self.client.database(namespace.database());
        let collection = database.collection::<Document>(namespace.collection());
        let options = FindOptions::builder()
            .max_time(REQUEST_RUN_MAX)
            .read_concern(concern.clone());
        let cursor = match read {
            Read::FindOne {
                filter,
                projection,
                sort,
            } => {
                let options = options.projection(projection.clone()).sort(sort.clone());
                let find = collection.find(filter.clone());
                find.with_options(options.limit(-1).build())
                    .session(session)
                    .await?
            }
            Read::Find {
                filter,
                projection,
                sort,
                limit,
                skip,
            } => {
                let options = options.projection(projection.clone()).sort(sort.clone());
                let options = options.limit(*limit).skip(u64::try_from(*skip).ok());
                let find = collection.find(filter.clone());
                find.with_options(options.build()).session(session).await?
            }
            Read::Aggregate { pipeline } => {
                let options = AggregateOptions::builder()
                    .max_time(REQUEST_RUN_MAX)
                    .read_concern(concern);
                let aggregate = collection.aggregate(pipeline.clone());
                aggregate
                    .with_options(options.build())
                    .session(session)
                    .await?
            }
        };
        Ok(cursor)
    }
}

/// Reads a cursor to its end, within the bounds of a reply and of the memory there is.
async fn drain(
    mut cursor: SessionCursor<Document>,
    session: &mut ClientSession,
    memory: &mut Reservation,
) -> Result<Vec<Document>, Failure> {
    let mut documents = Vec::new();
    let mut bytes = 0;
    let most = usize::try_from(FIND_DOCUMENTS_MAX).unwrap_or(usize::MAX);
    while cursor.advance(session).await.map_err(StoreError::from)? {
        bytes += cursor.current().as_bytes().len();
        if bytes > REPLY_BYTES_MAX || documents.len() >= most {
            return Err(too_large());
        }
        memory.grow_to(bytes * MEMORY_PER_BYTE)?;
        documents.push(cursor.deserialize_current().map_err(StoreError::from)?);
    }
    Ok(documents)
}

fn describes(read: &Read) -> bool {
    let Read::Aggregate { pipeline } = read else {
        return false;
    };
    let first = pipeline.first().and_then(|stage| stage.keys().next());
    first.is_some_and(|stage| policy::DESCRIBING_STAGES.contains(&stage.as_str()))
}

fn too_large() -> Failure {
    Failure::TooLarge(format!(
        "the result is larger than {FIND_DOCUMENTS_MAX} documents or {} MiB, the most that one reply may hold: \
         use limit and skip, or a projection",
        REPLY_BYTES_MAX >> 20
    ))
}
