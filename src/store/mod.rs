//! The only module that names the MongoDB driver: batches, the log, reads, members.
//!
//! Never decides what to do next; it says what is known after each call.

pub mod admin;
mod apply;
mod assist;
mod batch;
mod claim;
mod direct;
mod error;
mod fresh;
mod guest;
mod hello;
mod log;
mod members;
mod merged;
mod nearest;
mod probe;
mod read;
mod schema;
mod topology;
mod work;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bson::{Document, doc};
use mongodb::options::{ClientOptions, ReadConcern, WriteConcern};
use mongodb::{Client, ClientSession, Collection};
use tokio::time::timeout;

use crate::model::{Failure, Namespace, NodeName};
use nearest::Nearest;

pub use assist::{Greeting, Members, Outlook, STATE_CHANGE, Sight};
pub use batch::{Item, Place, Run, Session};
pub use claim::{ClaimError, Claimed, Sign};
pub use direct::{Direct, DirectError};
pub use error::StoreError;
pub use guest::Guest;
pub use log::{Seen, Standing, Tail};
pub use members::MemberLook;
pub use probe::{Look, Probe, members_of};
pub use read::Question;
pub use schema::{Entry, LogDocument, STAMP_FIELD};

/// Every call to MongoDB ends after this long at the latest: the driver has no socket time-out.
const CALL_MAX: Duration = Duration::from_secs(5);
/// How long the driver looks for a primary or another fitting member.
const SELECTION_MAX: Duration = Duration::from_secs(3);
/// How often the driver looks whether a lost member is back. The others tell it of changes at once.
const MEMBER_HEARTBEAT: Duration = Duration::from_secs(1);
/// How many known collections are remembered; past that the memory is begun anew.
const KNOWN_COLLECTIONS_MAX: usize = 10_000;

/// The replica set behind a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    client: Client,
    /// For short commands to members.
    aside: Client,
    log: Collection<Document>,
    node: NodeName,
    members: members::Members,
    nearest: Nearest,
    primary: topology::Primary,
    /// The collections met before, and whether they have a collation.
    known: Arc<Mutex<BTreeMap<Namespace, bool>>>,
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
        // Requests that wait for a connection must not make the members look silent.
        let aside =
            Client::with_options(options.clone()).map_err(StoreError::from_connection_string)?;
        let seen = topology::follow(&mut options);
        let client = Client::with_options(options).map_err(StoreError::from_connection_string)?;
        let primary = topology::Primary::of(&client, &seen);
        let log = client.database(schema::DATABASE).collection(schema::LOG);
        Ok(Self {
            client,
            aside,
            log,
            node,
            members: members::Members::new(seen.clone()),
            nearest: Nearest::new(seen),
            primary,
            known: Arc::default(),
        })
    }

    /// Makes sure that the log exists with its indexes. Safe to call at any time, from any node.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        self.create(schema::DATABASE, schema::LOG).await?;
        let database = self.client.database(schema::DATABASE);
        self.bounded(async {
            // The create command makes an index outside any batch. It is built at once: the log is
            // empty or has the index already.
            let indexes = doc! {
                "createIndexes": schema::LOG,
                "indexes": schema::indexes(),
                "writeConcern": {"w": "majority"},
            };
            database
                .run_command(indexes)
                .await
                .map_err(StoreError::from)
        })
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
            self.create(namespace.database(), namespace.collection())
                .await?;
        }
        let Some(collated) = self.look_for_collation(namespace).await? else {
            return Ok(());
        };
        let mut known = self.known();
        if known.len() >= KNOWN_COLLECTIONS_MAX {
            known.clear();
        }
        known.insert(namespace.clone(), collated);
        Ok(())
    }

    /// Whether a collection is known to compare strings by a collation.
    fn is_collated(&self, namespace: &Namespace) -> bool {
        self.known()
            .get(namespace)
            .is_some_and(|collated| *collated)
    }

    /// Whether the collection has a collation; `None` if there is no such collection.
    async fn look_for_collation(&self, namespace: &Namespace) -> Result<Option<bool>, StoreError> {
        let database = self.client.database(namespace.database());
        let list = doc! { "listCollections": 1, "filter": {"name": namespace.collection()} };
        let reply =
            self.bounded(async { database.run_command(list).await.map_err(StoreError::from) });
        let reply = reply.await?;
        let batch = reply.get_document("cursor").ok();
        let batch = batch.and_then(|cursor| cursor.get_array("firstBatch").ok());
        let found = batch.and_then(|batch| batch.first()?.as_document());
        Ok(found.map(|collection| {
            let options = collection.get_document("options").ok();
            options.is_some_and(|options| options.contains_key("collation"))
        }))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<Namespace, bool>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn create(&self, database: &str, collection: &str) -> Result<(), StoreError> {
        const NAMESPACE_EXISTS: i32 = 48;
        let create = doc! { "create": collection, "writeConcern": {"w": "majority"} };
        let database = self.client.database(database);
        match self
            .bounded(async { database.run_command(create).await.map_err(StoreError::from) })
            .await
        {
            Err(error) if error.code() == Some(NAMESPACE_EXISTS) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Bounds a call to the primary by [`CALL_MAX`], and by that primary's tenure.
    async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.primary.bounded(CALL_MAX, call).await
    }

    /// Waits before a call is made again; no longer than until a member becomes primary.
    pub async fn pause(&self, time: Duration) {
        let _ = timeout(time, self.primary.next()).await;
    }

    async fn session(&self, snapshot: bool) -> Result<ClientSession, StoreError> {
        let start = self.client.start_session();
        let start = match snapshot {
            true => start.snapshot(true),
            false => start.causal_consistency(false),
        };
        within(CALL_MAX, async { start.await.map_err(StoreError::from) }).await
    }
}

/// Bounds a call to MongoDB. After the time it is not known whether the call took effect.
async fn within<T>(
    time: Duration,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match timeout(time, call).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::TimedOut(time)),
    }
}
