//! What a restore does to a replica set: it makes collections, puts documents in, and reads them
//! back. Never decides what belongs there.
//!
//! A write does not wait for a majority: [`Source::settle`] does, once for all of them.

use std::time::Duration;

use bson::raw::{CStr, RawArrayBuf, RawDocumentBuf, cstr};
use bson::{Document, RawDocument, Timestamp, doc};
use mongodb::Client;

use super::capture::{Rows, Source};
use super::codes::{NAMESPACE_EXISTS, NAMESPACE_NOT_FOUND};
use super::error::StoreError;
use super::hello::HelloReply;
use super::reply::first_write_error;
use super::schema::{DATABASE, LOG, RESTORE};

/// How long one command with many documents may take.
const WRITE_MAX: Duration = Duration::from_secs(60);
/// The one document of the note.
const NOTE: i32 = 1;
/// An index over many documents takes long. The gate ends what takes longer.
const INDEX_MAX: Duration = super::line::ABANDONED_MAX;

impl Source {
    /// The collections and views that hold something, but those of Drumline that hold no data.
    pub async fn occupied(&self) -> Result<Vec<String>, StoreError> {
        let mut found = Vec::new();
        for listed in self.collections().await? {
            let own = listed.database == DATABASE;
            if own && listed.name != LOG || listed.name == "system.views" {
                continue;
            }
            let find = doc! { "find": &listed.name, "limit": 1, "projection": {"_id": 1} };
            let reply = match listed.uuid {
                Some(_) if own => self.run(&listed.database, find, WRITE_MAX).await?,
                _ => doc! {},
            };
            let batch = reply
                .get_document("cursor")
                .and_then(|cursor| cursor.get_array("firstBatch"));
            if !own || batch.is_ok_and(|batch| !batch.is_empty()) {
                found.push(format!("{}.{}", listed.database, listed.name));
            }
        }
        Ok(found)
    }

    /// Drops every database but MongoDB's own, and of Drumline's all but the note of a restore.
    pub async fn drop_everything(&self) -> Result<(), StoreError> {
        for database in self.databases().await? {
            if database != DATABASE {
                let drop = doc! { "dropDatabase": 1, "writeConcern": {"w": "majority"} };
                self.run(&database, drop, WRITE_MAX).await?;
            }
        }
        let all = self.collections().await?.into_iter();
        let own = all.filter(|listed| listed.database == DATABASE && listed.name != RESTORE);
        for listed in own.filter(|listed| listed.name != "system.views") {
            self.unmake(DATABASE, &listed.name).await?;
        }
        Ok(())
    }

    /// What a restore that is not at its end has noted.
    pub async fn noted(&self) -> Result<Option<Document>, StoreError> {
        let find = doc! {
            "find": RESTORE, "filter": {"_id": NOTE}, "limit": 1,
            "readConcern": {"level": "majority"},
        };
        let mut rows = self.find(DATABASE, find).await?;
        while let Some(batch) = rows.next().await? {
            if let Some(found) = batch.documents()?.first() {
                return Document::from_reader(*found).map(Some).map_err(damaged);
            }
        }
        Ok(None)
    }

    /// Notes how far a restore has come. A majority has the note, and so everything that was written
    /// before.
    pub async fn note(&self, note: Document) -> Result<(), StoreError> {
        let update = doc! { "q": {"_id": NOTE}, "u": note, "upsert": true };
        let command = doc! {
            "update": RESTORE, "updates": [update], "writeConcern": {"w": "majority"},
        };
        let reply = self.run(DATABASE, command, WRITE_MAX).await?;
        let error = first_write_error(&reply).map(StoreError::from_write_error);
        error.map_or(Ok(()), Err)
    }

    /// Takes the note away: the restore is at its end, which a majority has.
    pub async fn forget_note(&self) -> Result<(), StoreError> {
        self.settle().await?;
        let drop_it = doc! { "drop": RESTORE, "writeConcern": {"w": "majority"} };
        match self.run(DATABASE, drop_it, WRITE_MAX).await {
            Err(error) if error.code() == Some(NAMESPACE_NOT_FOUND) => Ok(()),
            dropped => dropped.map(drop),
        }
    }

    /// The term of the primary that takes the writes. What an earlier one has acknowledged alone may
    /// be gone.
    pub async fn reign(&self) -> Result<i64, StoreError> {
        let hello = self.run("admin", doc! {"hello": 1}, WRITE_MAX).await?;
        let term = HelloReply(&hello).elected_in();
        term.ok_or_else(|| StoreError::Unavailable("there is no primary".into()))
    }

    /// Makes a collection or a view with these options; whether there was none. One that is there is
    /// left as it is.
    pub async fn make(
        &self,
        database: &str,
        name: &str,
        options: Document,
    ) -> Result<bool, StoreError> {
        let mut create = doc! { "create": name };
        create.extend(options);
        create.insert("writeConcern", doc! {"w": 1});
        match self.run(database, create, WRITE_MAX).await {
            Err(error) if error.code() == Some(NAMESPACE_EXISTS) => Ok(false),
            made => made.map(|_| true),
        }
    }

    /// Drops a collection, if there is one.
    pub async fn unmake(&self, database: &str, name: &str) -> Result<(), StoreError> {
        let drop_it = doc! { "drop": name, "writeConcern": {"w": 1} };
        match self.run(database, drop_it, WRITE_MAX).await {
            Err(error) if error.code() == Some(NAMESPACE_NOT_FOUND) => Ok(()),
            dropped => dropped.map(drop),
        }
    }

    /// Changes the options of a collection.
    pub async fn modify(
        &self,
        database: &str,
        name: &str,
        options: Document,
    ) -> Result<(), StoreError> {
        let mut modify = doc! { "collMod": name };
        modify.extend(options);
        modify.insert("writeConcern", doc! {"w": 1});
        self.run(database, modify, WRITE_MAX).await.map(drop)
    }

    /// Builds indexes, and waits until they are built.
    pub async fn index(
        &self,
        database: &str,
        name: &str,
        indexes: &[Document],
    ) -> Result<(), StoreError> {
        let create = doc! { "createIndexes": name, "indexes": indexes.to_vec() };
        self.run(database, create, INDEX_MAX).await.map(drop)
    }

    /// Inserts documents, in order if that counts.
    pub async fn fill(
        &self,
        database: &str,
        name: &str,
        documents: Vec<Vec<u8>>,
        ordered: bool,
    ) -> Result<(), StoreError> {
        let mut array = RawArrayBuf::new();
        for document in &documents {
            array.push(raw(document)?);
        }
        drop(documents);
        let command = raw_of(&doc! { "insert": name, "ordered": ordered })?;
        self.write(database, command, cstr!("documents"), array)
            .await
    }

    /// Deletes the documents with these keys (`{_id: ...}`).
    pub async fn remove(
        &self,
        database: &str,
        name: &str,
        keys: &[&[u8]],
    ) -> Result<(), StoreError> {
        let mut array = RawArrayBuf::new();
        for key in keys {
            let mut statement = RawDocumentBuf::new();
            statement.append(cstr!("q"), raw(key)?);
            statement.append(cstr!("limit"), 1_i32);
            array.push(statement);
        }
        let command = raw_of(&doc! { "delete": name, "ordered": false })?;
        self.write(database, command, cstr!("deletes"), array).await
    }

    /// Puts documents in the place of those with their keys (`{_id: ...}`), or inserts them.
    pub async fn put(
        &self,
        database: &str,
        name: &str,
        documents: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), StoreError> {
        let mut array = RawArrayBuf::new();
        for (key, document) in documents {
            let mut statement = RawDocumentBuf::new();
            statement.append(cstr!("q"), raw(key)?);
            statement.append(cstr!("u"), raw(document)?);
            statement.append(cstr!("upsert"), true);
            array.push(statement);
        }
        let command = raw_of(&doc! { "update": name, "ordered": true })?;
        self.write(database, command, cstr!("updates"), array).await
    }

    /// The documents with these keys (`{_id: ...}`), as far as there are any.
    pub async fn fetch(
        &self,
        database: &str,
        name: &str,
        keys: &[&[u8]],
    ) -> Result<Rows, StoreError> {
        let mut ids = RawArrayBuf::new();
        for key in keys {
            let id = raw(key)?.get("_id").map_err(damaged)?;
            if let Some(id) = id {
                ids.push(id);
            }
        }
        let mut among = RawDocumentBuf::new();
        among.append(cstr!("$in"), ids);
        let mut filter = RawDocumentBuf::new();
        filter.append(cstr!("_id"), among);
        let mut find = raw_of(&doc! { "find": name })?;
        find.append(cstr!("filter"), filter);
        self.open_raw(database, find, None).await
    }

    /// The cluster time after everything that was written by now.
    pub async fn written(&self) -> Result<Timestamp, StoreError> {
        let reply = self.run("admin", doc! {"ping": 1}, WRITE_MAX).await?;
        let time = reply.get_timestamp("operationTime");
        time.map_err(|_| StoreError::Damaged("no operationTime".into()))
    }

    /// Waits until a majority holds everything that was written by now.
    pub async fn settle(&self) -> Result<(), StoreError> {
        let since = self.written().await?;
        let find = doc! {
            "find": LOG, "limit": 1, "projection": {"_id": 1},
            "readConcern": {"level": "majority", "afterClusterTime": since},
        };
        self.run(DATABASE, find, WRITE_MAX).await.map(drop)
    }

    async fn write(
        &self,
        database: &str,
        mut command: RawDocumentBuf,
        field: &'static CStr,
        array: RawArrayBuf,
    ) -> Result<(), StoreError> {
        command.append(field, array);
        command.append(cstr!("writeConcern"), raw_of(&doc! {"w": 1})?);
        let database = database.to_owned();
        let call = move |client: Client| async move {
            client.database(&database).run_raw_command(command).await
        };
        let reply = self.gate.call(WRITE_MAX, call).await?;
        let error = first_write_error(&reply).map(StoreError::from_write_error);
        error.map_or(Ok(()), Err)
    }
}

fn raw(bytes: &[u8]) -> Result<&RawDocument, StoreError> {
    RawDocument::from_bytes(bytes).map_err(damaged)
}

fn raw_of(document: &Document) -> Result<RawDocumentBuf, StoreError> {
    RawDocumentBuf::try_from(document).map_err(damaged)
}

fn damaged(error: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(error.to_string())
}
