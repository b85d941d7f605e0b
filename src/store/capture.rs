//! What a backup reads: the catalogue, documents as they were at one cluster time, and every change
//! after it.
//!
//! The stream has each update as the oplog has it (`showRawUpdateDescription`), and what happens to
//! views and to the buckets of time-series collections (`showSystemEvents`). Both are options that
//! MongoDB does not document; docs/adr/0018 says why they are used all the same. Never decides what
//! belongs into a backup.

use std::time::Duration;

use bson::{Bson, Document, RawDocument, RawDocumentBuf, Timestamp, doc};
use futures_util::StreamExt as _;
use mongodb::Client;
use mongodb::error::Error as DriverError;
use mongodb::options::{ClientOptions, CursorType};
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};

use super::codes::{
    BSON_OBJECT_TOO_LARGE, CHANGE_STREAM_FATAL, CHANGE_STREAM_HISTORY_LOST,
    COLLECTION_UUID_MISMATCH, CURSOR_KILLED, CURSOR_NOT_FOUND, INVALID_RESUME_TOKEN,
    NAMESPACE_NOT_FOUND, QUERY_PLAN_KILLED, SNAPSHOT_TOO_OLD, UNAUTHORIZED, UNREADABLE_INDEX,
};
use super::error::StoreError;
use super::gate::Gate;
use super::log::Tail;
use super::schema::{DATABASE, LOG};
use super::{CALL_MAX, MEMBER_HEARTBEAT, SELECTION_MAX};

/// One scan, one stream, and short calls beside them.
const CALLS_MAX: usize = 8;
/// How long the next documents of a scan may take. MongoDB may have to read them from a slow disk.
const ROWS_MAX: Duration = Duration::from_secs(60);
/// MongoDB's own databases. Users and settings are not part of a backup.
const OWN_DATABASES: [&str; 3] = ["admin", "config", "local"];

/// The second code is of a reply as a whole.
const TOO_LARGE: [i32; 2] = [BSON_OBJECT_TOO_LARGE, 17_280];

/// A replica set that is read from end to end, or written.
#[derive(Debug, Clone)]
pub struct Source {
    pub(super) gate: Gate,
}

/// A collection or a view, as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    pub database: String,
    pub name: String,
    /// Absent for a view.
    pub uuid: Option<[u8; 16]>,
    pub options: Document,
    /// Without the index of `_id`, and without those that are being built.
    pub indexes: Vec<Document>,
}

/// What to read of a collection.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    pub database: &'a str,
    pub name: &'a str,
    /// Refused if the collection of that name is another.
    pub uuid: [u8; 16],
    /// As it was at this cluster time; as a majority has it now if that is `None`, in the order in
    /// which the documents were inserted (for capped collections).
    pub at: Option<Timestamp>,
    /// `{_id: ...}`: begin with this document.
    pub from: Option<&'a [u8]>,
}

/// Where a stream begins.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// With the events of this cluster time.
    At(Timestamp),
    /// After this token.
    After(&'a [u8]),
}

/// What an error of a scan or a stream means for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setback {
    /// Open it again where it was.
    Reopen,
    /// Open it again at a later cluster time: that of the snapshot is gone.
    Later,
    /// The collection is gone or has another name.
    Moved,
    /// The events are gone.
    Lost,
    /// An event is larger than a document may be.
    TooLarge,
    /// Nothing helps.
    Fatal,
}

impl Setback {
    pub fn of(error: &StoreError) -> Self {
        match error {
            StoreError::SnapshotGone => return Self::Later,
            StoreError::Renewed => return Self::Moved,
            _ => {}
        }
        match error.code() {
            Some(CURSOR_NOT_FOUND | CURSOR_KILLED | QUERY_PLAN_KILLED) => Self::Reopen,
            Some(SNAPSHOT_TOO_OLD) => Self::Later,
            Some(NAMESPACE_NOT_FOUND | COLLECTION_UUID_MISMATCH) => Self::Moved,
            Some(INVALID_RESUME_TOKEN | CHANGE_STREAM_FATAL | CHANGE_STREAM_HISTORY_LOST) => {
                Self::Lost
            }
            Some(code) if TOO_LARGE.contains(&code) => Self::TooLarge,
            _ if error.may_pass() => Self::Reopen,
            _ => Self::Fatal,
        }
    }
}

impl Source {
    /// Prepares the driver. Connects lazily.
    pub async fn connect(uri: &str) -> Result<Self, StoreError> {
        let parsed = ClientOptions::parse(uri).await;
        let mut options = parsed.map_err(StoreError::from_connection_string)?;
        options.app_name = Some("drumline backup".to_owned());
        options.server_selection_timeout = Some(SELECTION_MAX);
        options.connect_timeout.get_or_insert(SELECTION_MAX);
        options.heartbeat_freq.get_or_insert(MEMBER_HEARTBEAT);
        options.selection_criteria = None;
        options.read_concern = None;
        options.write_concern = None;
        let gate = Gate::open(options, "backups", CALLS_MAX, CALLS_MAX)?;
        Ok(Self { gate })
    }

    pub(super) async fn run(
        &self,
        database: &str,
        command: Document,
        time: Duration,
    ) -> Result<Document, StoreError> {
        let database = database.to_owned();
        let call = move |client: Client| async move {
            client.database(&database).run_command(command).await
        };
        self.gate.call(time, call).await
    }

    /// The replica set's name, and its id if the user may know it.
    pub async fn identity(&self) -> Result<(String, Option<String>), StoreError> {
        let hello = self.run("admin", doc! {"hello": 1}, CALL_MAX).await?;
        let name = hello.get_str("setName").map_err(|_| {
            StoreError::Unavailable("it is no member of a replica set, which a backup needs".into())
        })?;
        let config = self.run("admin", doc! {"replSetGetConfig": 1}, CALL_MAX);
        let config = match config.await {
            Err(error) if error.code() == Some(UNAUTHORIZED) => return Ok((name.to_owned(), None)),
            config => config?,
        };
        let settings = config.get_document("config");
        let settings = settings.and_then(|config| config.get_document("settings"));
        let id = settings.and_then(|settings| settings.get_object_id("replicaSetId"));
        Ok((name.to_owned(), id.ok().map(bson::oid::ObjectId::to_hex)))
    }

    /// A cluster time up to which a majority has everything that was acknowledged before this call.
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        let find = doc! {
            "find": LOG, "filter": {"_id": 1_i64}, "limit": 1, "projection": {"_id": 1},
            "readConcern": {"level": "majority"},
        };
        let reply = self.run(DATABASE, find, CALL_MAX).await?;
        let time = reply.get_timestamp("operationTime");
        time.map_err(|_| StoreError::Damaged("no operationTime".into()))
    }

    /// The primary's clock, in milliseconds since 1970, and a cluster time that no change which was
    /// made by then is after.
    pub async fn clock(&self) -> Result<(Timestamp, i64), StoreError> {
        let hello = self.run("admin", doc! {"hello": 1}, CALL_MAX).await?;
        let read = || {
            let now = hello.get_datetime("localTime").ok()?.timestamp_millis();
            Some((hello.get_timestamp("operationTime").ok()?, now))
        };
        read().ok_or_else(|| StoreError::Damaged("no operationTime".into()))
    }

    /// The log's last position and its last stamp's counter, as they were at a cluster time; zeros
    /// without a log.
    pub async fn log_end(&self, at: Timestamp) -> Result<(i64, i64), StoreError> {
        let find = doc! {
            "find": LOG, "filter": Tail::anywhere(), "sort": {"_id": -1}, "limit": 1,
            "projection": {"last": 1},
            "readConcern": {"level": "snapshot", "atClusterTime": at},
        };
        let reply = self.run(DATABASE, find, CALL_MAX).await?;
        let last = reply.get_document("cursor").ok();
        let last = last.and_then(|cursor| cursor.get_array("firstBatch").ok()?.first());
        let last = last.and_then(Bson::as_document);
        let number = |name| last.and_then(|last| last.get_i64(name).ok()).unwrap_or(0);
        Ok((number("_id"), number("last")))
    }

    /// All collections and views of all databases but MongoDB's own.
    pub async fn collections(&self) -> Result<Vec<Listed>, StoreError> {
        let mut all = Vec::new();
        for database in self.databases().await? {
            // A time-series collection is a view of its buckets; views are listed as such.
            let list = doc! { "listCollections": 1, "cursor": {} };
            for found in self.listing(&database, list).await? {
                let name = found.get_str("name").unwrap_or_default().to_owned();
                let kind = found.get_str("type").unwrap_or_default();
                let uuid = found.get_document("info").ok().and_then(uuid_of);
                if kind == "timeseries" || (kind == "view" && uuid.is_some()) {
                    continue;
                }
                let indexes = match uuid {
                    Some(_) => self.indexes(&database, &name).await?,
                    None => Vec::new(),
                };
                all.push(Listed {
                    database: database.clone(),
                    name,
                    uuid,
                    options: found.get_document("options").cloned().unwrap_or_default(),
                    indexes,
                });
            }
        }
        Ok(all)
    }

    /// The names of all databases but MongoDB's own.
    pub async fn databases(&self) -> Result<Vec<String>, StoreError> {
        let filter = doc! { "name": {"$nin": OWN_DATABASES.to_vec()} };
        let list = doc! { "listDatabases": 1, "nameOnly": true, "filter": filter };
        let reply = self.run("admin", list, ROWS_MAX).await?;
        let databases = reply.get_array("databases").into_iter().flatten();
        let names = databases.filter_map(|found| found.as_document()?.get_str("name").ok());
        Ok(names.map(str::to_owned).collect())
    }

    /// The indexes of a collection, but for that of `_id` and those that are being built.
    pub async fn indexes(&self, database: &str, name: &str) -> Result<Vec<Document>, StoreError> {
        let list = doc! { "listIndexes": name, "includeBuildUUIDs": true, "cursor": {} };
        let mut found = match self.listing(database, list).await {
            Err(error) if error.code() == Some(NAMESPACE_NOT_FOUND) => return Ok(Vec::new()),
            Err(error) if error.code() == Some(UNREADABLE_INDEX) => {
                self.built_indexes(database, name).await?
            }
            found => found?,
        };
        // One that is being built has `buildUUID`; its end is an event.
        found.retain(|index| {
            let is_whole = !index.contains_key("buildUUID") && !index.contains_key("clustered");
            is_whole && index.get_str("name").ok() != Some("_id_")
        });
        Ok(found)
    }

    /// MongoDB 6.0 cannot tell of an index on a time-series collection that it is being built.
    async fn built_indexes(&self, database: &str, name: &str) -> Result<Vec<Document>, StoreError> {
        let stats = doc! { "collStats": name };
        let stats = self.run(database, stats, CALL_MAX).await?;
        let building: Vec<&Bson> = stats
            .get_array("indexBuilds")
            .into_iter()
            .flatten()
            .collect();
        let list = doc! { "listIndexes": name, "cursor": {} };
        let mut found = self.listing(database, list).await?;
        found.retain(|index| {
            index
                .get("name")
                .is_none_or(|name| !building.contains(&name))
        });
        Ok(found)
    }

    /// All that a command finds.
    pub(super) async fn listing(
        &self,
        database: &str,
        list: Document,
    ) -> Result<Vec<Document>, StoreError> {
        let mut rows = self.open(database, list, None).await?;
        let mut all = Vec::new();
        while let Some(batch) = rows.next().await? {
            for found in batch.documents()? {
                let found = RawDocument::from_bytes(found).and_then(TryInto::try_into);
                all.push(found.map_err(|error| StoreError::Damaged(error.to_string()))?);
            }
        }
        Ok(all)
    }

    /// Reads a collection in the order of `_id`.
    pub async fn scan(&self, wanted: &Wanted<'_>) -> Result<Rows, StoreError> {
        let uuid = Bson::Binary(bson::Binary {
            subtype: bson::spec::BinarySubtype::Uuid,
            bytes: wanted.uuid.to_vec(),
        });
        let mut find = doc! { "find": wanted.name, "collectionUUID": uuid };
        match wanted.at {
            Some(at) => {
                find.insert("hint", doc! {"_id": 1});
                find.insert(
                    "readConcern",
                    doc! {"level": "snapshot", "atClusterTime": at},
                );
            }
            None => {
                find.insert("sort", doc! {"$natural": 1});
                find.insert("readConcern", doc! {"level": "majority"});
            }
        }
        let malformed = |error: bson::error::Error| StoreError::Damaged(error.to_string());
        let mut command = RawDocumentBuf::try_from(&find).map_err(malformed)?;
        if let Some(from) = wanted.from {
            command.append(
                bson::raw::cstr!("min"),
                RawDocument::from_bytes(from).map_err(malformed)?,
            );
        }
        self.open_raw(wanted.database, command, None).await
    }

    /// All documents of a collection as a majority has them, no older than this cluster time.
    pub async fn read_all(
        &self,
        database: &str,
        name: &str,
        since: Timestamp,
    ) -> Result<Rows, StoreError> {
        let concern = doc! { "level": "majority", "afterClusterTime": since };
        let find = doc! { "find": name, "sort": {"$natural": 1}, "readConcern": concern };
        self.open(database, find, None).await
    }

    /// Everything that changes in the deployment from there on. An empty batch means that nothing
    /// more has happened by now; it may take `wait` to come.
    pub async fn changes(&self, start: Start<'_>, wait: Duration) -> Result<Rows, StoreError> {
        let mut options = doc! {
            "allChangesForCluster": true, "showExpandedEvents": true,
            "showRawUpdateDescription": true, "showSystemEvents": true,
        };
        match start {
            Start::At(time) => options.insert("startAtOperationTime", time),
            Start::After(token) => {
                let token = RawDocument::from_bytes(token).and_then(Document::try_from);
                let token = token.map_err(|error| StoreError::Damaged(error.to_string()))?;
                options.insert("resumeAfter", token)
            }
        };
        let aggregate = doc! {
            "aggregate": 1, "pipeline": [{"$changeStream": options}], "cursor": {},
            "readConcern": {"level": "majority"},
        };
        self.open("admin", aggregate, Some(wait)).await
    }

    /// What a `find` finds.
    pub(super) async fn find(&self, database: &str, find: Document) -> Result<Rows, StoreError> {
        self.open(database, find, None).await
    }

    pub(super) async fn open(
        &self,
        database: &str,
        command: Document,
        wait: Option<Duration>,
    ) -> Result<Rows, StoreError> {
        let command = RawDocumentBuf::try_from(&command);
        let command = command.map_err(|error| StoreError::Damaged(error.to_string()))?;
        self.open_raw(database, command, wait).await
    }

    pub(super) async fn open_raw(
        &self,
        database: &str,
        command: RawDocumentBuf,
        wait: Option<Duration>,
    ) -> Result<Rows, StoreError> {
        let database = database.to_owned();
        let call = move |client: Client| async move {
            let database = client.database(&database);
            let run = database.run_raw_cursor_command(command);
            match wait {
                Some(wait) => {
                    let run = run.cursor_type(CursorType::TailableAwait).max_time(wait);
                    run.batch().await
                }
                None => run.batch().await,
            }
        };
        let cursor = self.gate.call(ROWS_MAX, call).await?;
        Ok(Rows {
            gate: self.gate.clone(),
            cursor: Some(Box::new(cursor)),
        })
    }
}

fn uuid_of(info: &Document) -> Option<[u8; 16]> {
    match info.get("uuid")? {
        Bson::Binary(uuid) => uuid.bytes.as_slice().try_into().ok(),
        _ => None,
    }
}

/// Documents as MongoDB sends them.
pub struct Rows {
    gate: Gate,
    /// Absent after an error: open the rows again.
    cursor: Option<Box<RawBatchCursor>>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").finish_non_exhaustive()
    }
}

impl Rows {
    /// The next documents; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Batch>, StoreError> {
        let Some(mut cursor) = self.cursor.take() else {
            return Err(StoreError::Unavailable("the cursor is closed".into()));
        };
        let call = move |_| async move {
            let batch = cursor.next().await.transpose()?;
            Ok::<_, DriverError>((cursor, batch))
        };
        let (cursor, batch) = self.gate.call(ROWS_MAX, call).await?;
        self.cursor = Some(cursor);
        Ok(batch.map(Batch))
    }
}

/// Documents that came together, as bytes.
#[derive(Debug)]
pub struct Batch(RawBatch);

impl Batch {
    pub fn documents(&self) -> Result<Vec<&[u8]>, StoreError> {
        let damaged = |error: &dyn std::fmt::Display| StoreError::Damaged(error.to_string());
        let array = self.0.doc_slices().map_err(|error| damaged(&error))?;
        let documents = array.into_iter().map(|item| {
            let item = item.map_err(|error| damaged(&error))?;
            let document = item.as_document().ok_or_else(|| damaged(&"no document"))?;
            Ok(document.as_bytes())
        });
        documents.collect()
    }

    /// A stream goes on after this token if all documents of the batch have been taken in.
    pub fn token(&self) -> Option<&[u8]> {
        let cursor = self.0.as_raw_document().get_document("cursor").ok()?;
        let token = cursor.get_document("postBatchResumeToken").ok()?;
        Some(token.as_bytes())
    }
}

/// The cluster time that a token names. (Its text is a key of an index in hexadecimal, whose first
/// part is a timestamp.)
pub fn time_of(token: &[u8]) -> Option<Timestamp> {
    let token = RawDocument::from_bytes(token).ok()?;
    let text = token.get_str("_data").ok()?.strip_prefix("82")?;
    let number = |digits: Option<&str>| u32::from_str_radix(digits?, 16).ok();
    Some(Timestamp {
        time: number(text.get(0..8))?,
        increment: number(text.get(8..16))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_time() {
        let token = |text: &str| doc! {"_data": text}.to_vec().unwrap();
        let at = time_of(&token("826B0A9E61000000152B022C0100296E04")).unwrap();
        assert_eq!((at.time, at.increment), (0x6B0A_9E61, 0x15));
        for wrong in ["", "82", "836B0A9E6100000015", "82xxxxxxxxxxxxxxxx", "82ü"] {
            assert_eq!(time_of(&token(wrong)), None, "{wrong}");
        }
    }
}
