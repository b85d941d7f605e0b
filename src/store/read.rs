//! Reads at a known point of the serial order.
//!
//! A read takes one snapshot that a majority holds, and looks in it first for the log's last
//! document: that names the point. Data that a failover could roll back is never seen.
//! Whether the point is late enough is decided in `fresh`.

use bson::{Document, doc};
use mongodb::action::{Action as _, FindOne};
use mongodb::options::{
    AggregateOptions, FindOptions, ReadConcern, SelectionCriteria, ServerAddress,
};
use mongodb::{ClientSession, SessionCursor};
use tokio::time::timeout;

use super::error::{NOT_IN_TRANSACTION, StoreError};
use super::log::Tail;
use super::nearest::only;
use super::schema::stamp;
use super::{Store, within};
use crate::budget::Reservation;
use crate::model::limits::{FIND_DOCUMENTS_MAX, REPLY_BYTES_MAX, REQUEST_RUN_MAX};
use crate::model::{Documents, Failure, Namespace, Read, policy};
use crate::mutants::{self, Mutant};

/// A decoded document takes about this many times its bytes.
const MEMORY_PER_BYTE: usize = 3;

/// What is read, and where.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub namespace: &'a Namespace,
    pub read: &'a Read,
}

/// A snapshot of one member, and the point of the serial order at which it lies.
#[derive(Debug)]
pub(super) struct Snapshot {
    session: ClientSession,
    /// `None` for the primary, whichever member that is.
    member: Option<ServerAddress>,
    pub tail: Tail,
}

impl Store {
    /// Takes a snapshot of this member, else of the primary; `None` if it holds no log yet.
    pub(super) async fn snapshot(
        &self,
        member: Option<&ServerAddress>,
    ) -> Result<Option<Snapshot>, StoreError> {
        let local = mutants::active(Mutant::LocalReads);
        let mut session = self.session(!local).await?;
        let find = self
            .log
            .find_one(doc! {})
            .sort(doc! {"_id": -1})
            .projection(Tail::projection())
            .read_concern(ReadConcern::snapshot())
            .optional(member.map(only), FindOne::selection_criteria)
            .optional(local.then(ReadConcern::local), FindOne::read_concern)
            .session(&mut session);
        let find = Box::pin(async { find.await.map_err(StoreError::from) });
        let found = match member {
            Some(_) => within(super::CALL_MAX, find).await,
            None => self.bounded(find).await,
        };
        let Some(last) = found? else {
            return Ok(None);
        };
        Ok(Some(Snapshot {
            session,
            member: member.cloned(),
            tail: Tail::from_bson(&last)?,
        }))
    }

    /// Runs a read in a snapshot.
    pub(super) async fn read_in(
        &self,
        mut snapshot: Snapshot,
        question: Question<'_>,
        memory: &mut Reservation,
    ) -> Result<Documents, Failure> {
        let member = snapshot.member.as_ref();
        let documents = if describes(question.read) {
            let place = Place::outside(member, ReadConcern::local());
            self.outside_snapshot(question, place, memory).await?
        } else {
            let session = &mut snapshot.session;
            let collected = self.collect(session, question, Place::inside(member), memory);
            match collected.await {
                // A capped collection has no snapshots. A linearizable read, which is the primary's,
                // that begins after the snapshot was taken is never older than it.
                Err(Failure::ReadRefused { code, .. }) if code == NOT_IN_TRANSACTION => {
                    let place = Place::outside(None, ReadConcern::linearizable());
                    self.outside_snapshot(question, place, memory).await?
                }
                collected => collected?,
            }
        };
        let tail = snapshot.tail;
        let node = tail
            .node
            .ok_or_else(|| StoreError::Damaged("the last document has no node".into()))?;
        Ok(Documents {
            documents,
            stamp: stamp(tail.clock, &node),
            position: tail.position,
        })
    }

    async fn outside_snapshot(
        &self,
        question: Question<'_>,
        place: Place,
        memory: &mut Reservation,
    ) -> Result<Vec<Document>, Failure> {
        let mut plain = self.session(false).await?;
        self.collect(&mut plain, question, place, memory).await
    }

    async fn collect(
        &self,
        session: &mut ClientSession,
        question: Question<'_>,
        place: Place,
        memory: &mut Reservation,
    ) -> Result<Vec<Document>, Failure> {
        // The server ends a query that is merely slow; the bound outside is for one that is gone.
        let time = REQUEST_RUN_MAX + super::CALL_MAX;
        let at_primary = place.member.is_none();
        let reading = async {
            let cursor = self.open(session, question, place).await?;
            drain(cursor, session, memory).await
        };
        let reading = timeout(time, Box::pin(reading));
        let read = match at_primary {
            true => self.primary.lasting(reading).await?,
            false => reading.await,
        };
        read.unwrap_or_else(|_| Err(StoreError::TimedOut(time).into_failure()))
    }

    async fn open(
        &self,
        session: &mut ClientSession,
        Question { namespace, read }: Question<'_>,
        place: Place,
    ) -> Result<SessionCursor<Document>, StoreError> {
        let database = self.client.database(namespace.database());
        let collection = database.collection::<Document>(namespace.collection());
        let options = FindOptions::builder()
            .max_time(REQUEST_RUN_MAX)
            .read_concern(place.concern.clone())
            .selection_criteria(place.member.clone());
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
                    .read_concern(place.concern)
                    .selection_criteria(place.member);
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

/// Where a query runs.
struct Place {
    /// `None` for the primary.
    member: Option<SelectionCriteria>,
    concern: ReadConcern,
}

impl Place {
    /// The driver gives a command of a snapshot session its time, and leaves it the client's read concern: that it
    /// is a snapshot must be said each time.
    fn inside(member: Option<&ServerAddress>) -> Self {
        Self {
            member: member.map(only),
            concern: match mutants::active(Mutant::LocalReads) {
                true => ReadConcern::local(),
                false => ReadConcern::snapshot(),
            },
        }
    }

    fn outside(member: Option<&ServerAddress>, concern: ReadConcern) -> Self {
        Self {
            concern,
            ..Self::inside(member)
        }
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
