//! Reads at a known point of the serial order.
//!
//! A read takes one snapshot that a majority holds, and looks in it first for the log's last
//! document: that names the point. Data that a failover could roll back is never seen.
//! Whether the point is late enough is decided in `fresh`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bson::{Bson, Document, RawDocument, doc};
use mongodb::action::{Action as _, FindOne};
use mongodb::error::Error as DriverError;
use mongodb::options::{
    AggregateOptions, FindOptions, ReadConcern, SelectionCriteria, ServerAddress,
};
use mongodb::{Client, ClientSession, SessionCursor};
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::codes::NOT_IN_TRANSACTION;
use super::error::StoreError;
use super::gate::{Gate, Place};
use super::log::Tail;
use super::nearest::only;
use super::schema::stamp;
use super::stored::whole;
use super::{CALL_MAX, Store, log_of};
use crate::budget::Reservation;
use crate::model::limits::{FIND_DOCUMENTS_MAX, REPLY_BYTES_MAX, REQUEST_RUN_MAX};
use crate::model::{Documents, Failure, Namespace, Position, Read, policy};
use crate::mutants::{self, Mutant};

/// Reads of one document by its `_id` that run at one member at a time.
const POINTS_MAX: usize = 64;
/// All other reads at one member. A slow one waits behind other reads.
const QUERIES_MAX: usize = 32;
/// The primary is a member, and is read as what it is too.
pub(super) const CALLS_MAX: usize = 2 * (POINTS_MAX + QUERIES_MAX);
/// How long a read waits for a place behind others.
const PLACE_WAIT_MAX: Duration = Duration::from_secs(5);
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
    place: Place,
    session: ClientSession,
    /// `None` for the primary, whichever member that is.
    member: Option<ServerAddress>,
    pub tail: Tail,
}

/// The places of reads. Each member has its own: one that is frozen keeps those that read there
/// until the driver gives it up, and nobody else. So have reads by `_id`, which are short.
#[derive(Debug)]
pub(super) struct Gates {
    /// Whose connections they use.
    connections: Gate,
    /// For reads by `_id` and for queries, by the member; `None` for the primary, whichever that
    /// is.
    by_member: Mutex<BTreeMap<Option<String>, [Gate; 2]>>,
}

impl Gates {
    /// Places for reads on these connections.
    pub(super) fn beside(connections: &Gate) -> Self {
        Self {
            connections: connections.clone(),
            by_member: Mutex::default(),
        }
    }

    fn of(&self, read: &Read, member: Option<&ServerAddress>) -> Gate {
        let new = || {
            [("reads by _id", POINTS_MAX), ("reads", QUERIES_MAX)]
                .map(|(kind, places)| self.connections.share(kind, places))
        };
        let member = member.map(ToString::to_string);
        let mut gates = self
            .by_member
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let [points, queries] = gates.entry(member).or_insert_with(new);
        match read.point().is_some() {
            true => points.clone(),
            false => queries.clone(),
        }
    }
}

impl Store {
    /// Takes a snapshot of this member, else of the primary; `None` if it holds no log yet.
    pub(super) async fn snapshot(
        &self,
        read: &Read,
        member: Option<&ServerAddress>,
    ) -> Result<Option<Snapshot>, StoreError> {
        let place = self.reads.of(read, member).place(PLACE_WAIT_MAX).await?;
        let local = mutants::active(Mutant::LocalReads);
        let at = member.map(only);
        let look = move |client: Client| async move {
            let start = client.start_session();
            let mut session = match local {
                true => start.causal_consistency(false).await?,
                false => start.snapshot(true).await?,
            };
            let log = log_of(&client);
            let find = log.find_one(Tail::anywhere()).sort(doc! {"_id": -1});
            let last = find
                .projection(Tail::projection())
                .read_concern(ReadConcern::snapshot())
                .optional(at, FindOne::selection_criteria)
                .optional(local.then(ReadConcern::local), FindOne::read_concern)
                .session(&mut session)
                .await?;
            Ok::<_, DriverError>((session, last))
        };
        let looked = place.call(CALL_MAX, look);
        let (session, last) = match member {
            Some(_) => looked.await?,
            None => self.primary.lasting(looked).await??,
        };
        let Some(last) = last else {
            return Ok(None);
        };
        Ok(Some(Snapshot {
            place,
            session,
            member: member.cloned(),
            tail: Tail::from_bson(&last)?,
        }))
    }

    /// Runs a read where there is no log yet: the position is 0, and so is the stamp.
    pub(super) async fn read_without_log(
        &self,
        question: Question<'_>,
        memory: &mut Reservation,
    ) -> Result<Documents, Failure> {
        let place = self
            .reads
            .of(question.read, None)
            .place(PLACE_WAIT_MAX)
            .await?;
        let site = Site::outside(None, ReadConcern::majority());
        let documents = self.collect(&place, None, question, site, memory).await?;
        Ok(Documents {
            documents,
            stamp: stamp(0, &self.node),
            position: Position::ZERO,
        })
    }

    /// Runs a read in a snapshot.
    pub(super) async fn read_in(
        &self,
        snapshot: Snapshot,
        question: Question<'_>,
        memory: &mut Reservation,
    ) -> Result<Documents, Failure> {
        let Snapshot {
            place,
            session,
            member,
            tail,
        } = snapshot;
        let documents = if describes(question.read) {
            let site = Site::outside(member.as_ref(), ReadConcern::local());
            self.collect(&place, None, question, site, memory).await?
        } else {
            let site = Site::inside(member.as_ref());
            match self
                .collect(&place, Some(session), question, site, memory)
                .await
            {
                // A capped collection has no snapshots. A linearizable read, which is the
                // primary's, that begins after the snapshot was taken is never older than it.
                Err(Failure::ReadRefused { code, .. }) if code == NOT_IN_TRANSACTION => {
                    let site = Site::outside(None, ReadConcern::linearizable());
                    self.collect(&place, None, question, site, memory).await?
                }
                collected => collected?,
            }
        };
        let node = tail
            .node
            .ok_or_else(|| StoreError::Damaged("the last document has no node".into()))?;
        Ok(Documents {
            documents,
            stamp: stamp(tail.clock, &node),
            position: tail.position,
        })
    }

    /// Runs a query and reads its result, in this session or in a plain one. A caller that leaves
    /// leaves the query too: it ends with the batch of documents that it is at.
    async fn collect(
        &self,
        place: &Place,
        session: Option<ClientSession>,
        question: Question<'_>,
        site: Site,
        memory: &mut Reservation,
    ) -> Result<Vec<Document>, Failure> {
        // The server ends a query that is merely slow; the bound outside is for one that is gone.
        let time = REQUEST_RUN_MAX + CALL_MAX;
        let at_primary = site.member.is_none();
        let (namespace, read) = (question.namespace.clone(), question.read.clone());
        let mut held = memory.beside();
        let (reader, left) = oneshot::channel::<()>();
        let query = move |client: Client| async move {
            let mut session = match session {
                Some(session) => session,
                None => client.start_session().causal_consistency(false).await?,
            };
            let cursor = open(&client, &mut session, &namespace, &read, site).await?;
            let drained = drain(cursor, &mut session, &mut held, left).await?;
            Ok::<_, StoreError>(drained.map(|documents| (documents, held)))
        };
        let query = place.call(time, query);
        let read = match at_primary {
            true => self.primary.lasting(query).await?,
            false => query.await,
        };
        drop(reader);
        let (documents, held) = read.map_err(StoreError::into_failure)??;
        memory.absorb(held);
        Ok(documents)
    }
}

async fn open(
    client: &Client,
    session: &mut ClientSession,
    namespace: &Namespace,
    read: &Read,
    site: Site,
) -> Result<SessionCursor<Document>, DriverError> {
    let database = client.database(namespace.database());
    let collection = database.collection::<Document>(namespace.collection());
    let options = FindOptions::builder()
        .max_time(REQUEST_RUN_MAX)
        .read_concern(site.concern.clone())
        .selection_criteria(site.member.clone());
    match read {
        Read::FindOne {
            filter,
            projection,
            sort,
        } => {
            let options = options.projection(projection.clone()).sort(sort.clone());
            let find = collection.find(filter.clone());
            find.with_options(options.limit(-1).build())
                .session(session)
                .await
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
            find.with_options(options.build()).session(session).await
        }
        Read::Aggregate { pipeline } => {
            let options = AggregateOptions::builder()
                .max_time(REQUEST_RUN_MAX)
                .read_concern(site.concern)
                .selection_criteria(site.member);
            let aggregate = collection.aggregate(pipeline.clone());
            aggregate
                .with_options(options.build())
                .session(session)
                .await
        }
    }
}

/// Where a query runs.
struct Site {
    /// `None` for the primary.
    member: Option<SelectionCriteria>,
    concern: ReadConcern,
}

impl Site {
    /// The driver gives a command of a snapshot session its time, and leaves it the client's read
    /// concern: that it is a snapshot must be said each time.
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

/// Reads a cursor to its end, within the bounds of a reply and of the memory there is. Ends early
/// when the reader has left.
async fn drain(
    mut cursor: SessionCursor<Document>,
    session: &mut ClientSession,
    memory: &mut Reservation,
    mut left: oneshot::Receiver<()>,
) -> Result<Result<Vec<Document>, Failure>, DriverError> {
    let mut documents = Vec::new();
    let mut bytes = 0;
    let most = usize::try_from(FIND_DOCUMENTS_MAX).unwrap_or(usize::MAX);
    while cursor.advance(session).await? {
        bytes += cursor.current().as_bytes().len();
        if bytes > REPLY_BYTES_MAX || documents.len() >= most {
            return Ok(Err(too_large()));
        }
        if let Err(failure) = memory.grow_to(bytes * MEMORY_PER_BYTE) {
            return Ok(Err(failure));
        }
        if left.try_recv() == Err(TryRecvError::Closed) {
            break; // nobody gets what has been read
        }
        match decoded(cursor.current()) {
            Ok(document) => documents.push(document),
            Err(failure) => return Ok(Err(failure)),
        }
    }
    Ok(Ok(documents))
}

/// A stored document as it is.
fn decoded(stored: &RawDocument) -> Result<Document, Failure> {
    whole(stored).map_err(|_| {
        let id = stored
            .get("_id")
            .ok()
            .flatten()
            .and_then(|id| Bson::try_from(id).ok());
        let id = id.map_or("another _id than text".into(), |id| format!("the _id {id}"));
        Failure::ReadRefused {
            code: 0,
            name: "UnreadableDocument".into(),
            message: format!(
                "the document with {id} holds text that is not UTF-8, so it cannot be shown: leave \
                 it out by the filter, leave that field out by a projection, or replace it"
            ),
        }
    })
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
        "the result is larger than {FIND_DOCUMENTS_MAX} documents or {} MiB, the most that one \
         reply may hold: use limit and skip, or a projection",
        REPLY_BYTES_MAX >> 20
    ))
}
