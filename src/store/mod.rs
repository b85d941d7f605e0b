//! The only module that names the MongoDB driver: batches, the log, reads, members.
//!
//! Never decides what to do next; it says what is known after each call. Never drops a call of the
//! driver half-way: all of them go through `gate`.

pub mod admin;
mod append;
mod apply;
mod assist;
mod batch;
mod capture;
mod claim;
mod codes;
mod connections;
mod direct;
mod error;
mod fault;
mod fresh;
mod gate;
mod ground;
mod guest;
mod health;
mod hello;
mod knock;
mod left;
mod line;
mod log;
mod log_watch;
mod members;
mod merged;
mod name;
mod nearest;
mod probe;
mod read;
mod refill;
mod repair;
mod reply;
mod schema;
mod serving;
mod sightings;
mod since;
mod statement;
mod stored;
mod survey;
mod topology;
mod watch;
mod work;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::options::{ClientOptions, ReadConcern, WriteConcern};
use mongodb::{Client, ClientSession, Collection};
use tokio::time::{Instant, timeout};

use crate::model::{Failure, Namespace, NodeName};
use codes::NAMESPACE_EXISTS;
use gate::Gate;
use nearest::Nearest;

pub use assist::{Greeting, Members, Outlook, STATE_CHANGE, Sight};
pub use batch::{Item, Place, Run, Session};
pub use capture::{Batch, Listed, Rows, Setback, Source, Start, Wanted, time_of};
pub use claim::{ClaimError, Claimed, Sign};
pub use connections::Counts;
pub use direct::{Direct, DirectError};
pub use error::StoreError;
pub use fault::LogFault;
pub use ground::Fault;
pub use guest::Guest;
pub use left::Left;
pub use log::{LOG_DOCUMENTS_MAX, Seen, Standing, Tail};
pub use members::{Apart, MemberLook};
pub use name::{Holder, Instance};
pub use probe::{Look, Probe, members_of};
pub use read::Question;
pub use schema::{Entry, LogDocument, STAMP_FIELD};
pub use survey::survey;
pub use watch::{Changes, Heard, LogWake, Since, Watched};

/// Every call to MongoDB ends after this long at the latest: the driver has no socket time-out.
const CALL_MAX: Duration = Duration::from_secs(5);
/// How long the driver looks for a primary or another fitting member.
const SELECTION_MAX: Duration = Duration::from_secs(3);
/// How often the driver looks whether a lost member is back. The others tell it of changes at once.
const MEMBER_HEARTBEAT: Duration = Duration::from_secs(1);
/// How many known collections are remembered; past that the memory is begun anew.
const KNOWN_COLLECTIONS_MAX: usize = 10_000;
/// How long a new collection is waited for while something that passes keeps it from being made.
const CREATE_WAIT_MAX: Duration = Duration::from_secs(2);
const CREATE_PAUSE: Duration = Duration::from_millis(20);

/// How many calls may run at the same time, a kind. What keeps the order going (batches, claims,
/// looks) has connections that no read can take. Among them are calls that were left and have not
/// come to their end: MongoDB does not interrupt every expression.
const ORDER_CALLS_MAX: usize = 80;
/// Looks at the log's tail, which reads share, and what else is asked beside the order: a few at a
/// time, and those that a frozen primary has not answered before the driver gives it up.
const LOOK_CALLS_MAX: usize = 64;
/// Collections that are met for the first time.
const COLLECTION_CALLS_MAX: usize = 8;
/// Signs of life and of health: up to ten a second for each member, and the driver takes about five
/// seconds to give up one that is frozen.
const VITAL_CALLS_MAX: usize = 256;
/// Reads of the log: looks of clients, pages of those who follow it, and its end for all of these.
const LOG_READS_MAX: usize = 6;

/// The replica set behind a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Shared>);

#[derive(Debug)]
pub struct Shared {
    order: Gate,
    looks: Gate,
    collections: Gate,
    vital: Gate,
    log_reads: Gate,
    streams: Gate,
    reads: read::Gates,
    node: NodeName,
    members: members::Members,
    nearest: Nearest,
    primary: topology::Primary,
    /// What is known of the log.
    memory: log_watch::Memory,
    health: health::Health,
    /// The collections met before, and what they are like.
    known: Mutex<BTreeMap<Namespace, Known>>,
}

/// What a collection was like when it was met. Another of its name may stand there by now: whoever
/// relies on it names the collection by its UUID.
#[derive(Debug, Clone)]
struct Known {
    uuid: Option<Bson>,
    /// Whether it compares strings by a collation.
    collated: bool,
    validated: bool,
}

/// A collection without a collation.
#[derive(Debug, Clone)]
struct Plain {
    uuid: Bson,
    /// Whether it had a validator. (It may have got one since: nothing that is stored relies on
    /// it.)
    validated: bool,
}

impl Deref for Store {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Store {
    /// Parses the connection string (`mongodb://` or `mongodb+srv://`) and prepares the driver.
    /// Connects lazily: an unreachable replica set is not an error here.
    pub async fn connect(uri: &str, node: NodeName) -> Result<Self, StoreError> {
        let mut options = ClientOptions::parse(uri)
            .await
            .map_err(StoreError::from_connection_string)?;
        options.app_name = Some(format!("drumline {node}"));
        options.server_selection_timeout = Some(SELECTION_MAX);
        options.connect_timeout.get_or_insert(SELECTION_MAX);
        options.heartbeat_freq.get_or_insert(MEMBER_HEARTBEAT);
        // Retried by position and batch id instead: a hidden second try would blur what is known.
        options.retry_writes = Some(false);
        // A connection string may ask for secondaries or for less than a majority; order may not.
        options.selection_criteria = None;
        options.read_concern = Some(ReadConcern::majority());
        options.write_concern = Some(WriteConcern::majority());
        // Requests that wait for a connection must not make the members look silent, nor keep the
        // order waiting: three drivers.
        let vital = Gate::open(options.clone(), "signs of life", VITAL_CALLS_MAX, 0)?;
        let log_reads = Gate::open(
            options.clone(),
            "reads of the log",
            LOG_READS_MAX,
            read::CALLS_MAX + watch::CALLS_MAX,
        )?;
        let others = LOOK_CALLS_MAX + COLLECTION_CALLS_MAX;
        let order = Gate::open(options, "the order", ORDER_CALLS_MAX, others)?;
        let seen = order.line().seen();
        let looks = order.share("looks at the log", LOOK_CALLS_MAX);
        let primary = topology::Primary::of(&looks, &seen);
        Ok(Self(Arc::new(Shared {
            collections: order.share("new collections", COLLECTION_CALLS_MAX),
            looks,
            order,
            vital,
            reads: read::Gates::beside(&log_reads),
            streams: log_reads.share("streams of changes", watch::CALLS_MAX),
            log_reads,
            node,
            members: members::Members::new(seen.clone()),
            nearest: Nearest::new(seen),
            primary,
            memory: log_watch::Memory::default(),
            health: health::Health::default(),
            known: Mutex::default(),
        })))
    }

    /// Makes sure that the log exists with its indexes. Safe to call at any time, from any node.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        self.create(schema::DATABASE, schema::LOG).await?;
        // The create command makes an index outside any batch. It is built at once: the log is
        // empty or has the index already.
        let indexes = doc! {
            "createIndexes": schema::LOG,
            "indexes": schema::indexes(),
            "writeConcern": {"w": "majority"},
        };
        self.run(&self.order, schema::DATABASE, indexes)
            .await
            .map(drop)
    }

    /// Gets to know a collection before a batch writes to it, and creates it if documents are to be
    /// made there: in a transaction this would lock the catalogue.
    pub async fn ensure(&self, namespace: &Namespace, makes: bool) -> Result<(), Failure> {
        if self.known().contains_key(namespace) {
            return Ok(());
        }
        if makes {
            self.create_soon(namespace).await?;
        }
        Ok(self.learn(namespace).await?)
    }

    /// Creates a collection. What passes (its database is being dropped, say) is waited for a
    /// while.
    async fn create_soon(&self, namespace: &Namespace) -> Result<(), StoreError> {
        let until = Instant::now() + CREATE_WAIT_MAX;
        loop {
            let created = self.create(namespace.database(), namespace.collection());
            match created.await {
                Err(error) if error.passes() && Instant::now() < until => {
                    self.pause(CREATE_PAUSE).await;
                }
                created => return created,
            }
        }
    }

    /// Looks what a collection is like, if there is one.
    async fn learn(&self, namespace: &Namespace) -> Result<(), StoreError> {
        let Some(found) = self.look_at(namespace).await? else {
            return Ok(());
        };
        let mut known = self.known();
        if known.len() >= KNOWN_COLLECTIONS_MAX {
            known.clear();
        }
        known.insert(namespace.clone(), found);
        Ok(())
    }

    /// What is known of a collection is not true any more.
    fn forget(&self, namespace: &Namespace) {
        self.known().remove(namespace);
    }

    /// The collection, if it is known to have no collation.
    fn plain_collection(&self, namespace: &Namespace) -> Option<(Namespace, Plain)> {
        let known = self.known();
        let found = known.get(namespace).filter(|found| !found.collated)?;
        let plain = Plain {
            uuid: found.uuid.clone()?,
            validated: found.validated,
        };
        Some((namespace.clone(), plain))
    }

    /// What a collection is like; `None` if there is none of this name.
    async fn look_at(&self, namespace: &Namespace) -> Result<Option<Known>, StoreError> {
        let list = doc! { "listCollections": 1, "filter": {"name": namespace.collection()} };
        let reply = self.run(&self.collections, namespace.database(), list);
        let reply = reply.await?;
        let batch = reply.get_document("cursor").ok();
        let batch = batch.and_then(|cursor| cursor.get_array("firstBatch").ok());
        let found = batch.and_then(|batch| batch.first()?.as_document());
        Ok(found.map(|collection| {
            let part = |name| collection.get_document(name).ok();
            let has = |option| part("options").is_some_and(|options| options.contains_key(option));
            Known {
                // A view has none.
                uuid: part("info").and_then(|info| info.get("uuid").cloned()),
                collated: has("collation"),
                validated: has("validator"),
            }
        }))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<Namespace, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn create(&self, database: &str, collection: &str) -> Result<(), StoreError> {
        let create = doc! { "create": collection, "writeConcern": {"w": "majority"} };
        match self.run(&self.collections, database, create).await {
            Err(error) if error.code() == Some(NAMESPACE_EXISTS) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Makes a call to the primary. The wait for it ends after [`CALL_MAX`], or when another member
    /// becomes primary; the call itself comes to its own end.
    async fn bounded<T, E, F>(
        &self,
        gate: &Gate,
        call: impl FnOnce(Client) -> F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        E: Into<StoreError> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.primary.lasting(gate.call(CALL_MAX, call)).await?
    }

    /// Runs a command on the primary, in the bounds of [`Self::bounded`].
    async fn run(
        &self,
        gate: &Gate,
        database: &str,
        command: Document,
    ) -> Result<Document, StoreError> {
        let database = database.to_owned();
        let call = move |client: Client| async move {
            client.database(&database).run_command(command).await
        };
        self.bounded(gate, call).await
    }

    /// Waits before a call is made again; no longer than until a member becomes primary.
    pub async fn pause(&self, time: Duration) {
        let _ = timeout(time, self.primary.next()).await;
    }

    /// A session for batches.
    async fn plain_session(&self) -> Result<ClientSession, StoreError> {
        let start =
            |client: Client| async move { client.start_session().causal_consistency(false).await };
        self.order.call(CALL_MAX, start).await
    }
}

/// The log's collection.
fn log_of(client: &Client) -> Collection<Document> {
    client.database(schema::DATABASE).collection(schema::LOG)
}

/// Bounds a wait for calls to MongoDB, which come to their own ends (see [`gate`]). After the time
/// it is not known whether they took effect.
async fn within<T>(
    time: Duration,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match timeout(time, call).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::TimedOut(time)),
    }
}
