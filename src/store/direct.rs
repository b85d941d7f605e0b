//! The plain driver, without Drumline: what the benchmark and the drills compare with.

use bson::{Bson, Document};
use mongodb::error::{Error as DriverError, ErrorKind};
use mongodb::options::{ClientOptions, ReadConcern, WriteConcern};
use mongodb::{Client, Collection};

use super::error::StoreError;
use super::{CALL_MAX, SELECTION_MAX, within};
use crate::model::{Namespace, Update, Write};

/// A call of the plain driver that failed, after all that the driver did to save it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct DirectError {
    /// Whether it is sure that nothing was done, and that nothing will be.
    pub nothing_done: bool,
    pub why: String,
}

/// A client as an application would make it: the driver's defaults and w:majority.
#[derive(Debug, Clone)]
pub struct Direct {
    client: Client,
}

impl Direct {
    pub async fn connect(uri: &str) -> Result<Self, StoreError> {
        let parsed = ClientOptions::parse(uri).await;
        let mut options = parsed.map_err(StoreError::from_connection_string)?;
        options.server_selection_timeout = Some(SELECTION_MAX);
        options.write_concern = Some(WriteConcern::majority());
        let client = Client::with_options(options).map_err(StoreError::from_connection_string)?;
        Ok(Self { client })
    }

    /// A client with all settings as its makers give them, and w:majority.
    pub async fn as_shipped(uri: &str) -> Result<Self, StoreError> {
        let parsed = ClientOptions::parse(uri).await;
        let mut options = parsed.map_err(StoreError::from_connection_string)?;
        options.write_concern = Some(WriteConcern::majority());
        let client = Client::with_options(options).map_err(StoreError::from_connection_string)?;
        Ok(Self { client })
    }

    /// Runs a write to one document, and says how many documents it matched, or deleted.
    pub async fn write(&self, namespace: &Namespace, write: Write) -> Result<u64, DirectError> {
        let collection = self.collection(namespace);
        let result = match write {
            Write::Insert { mut documents } => {
                let document = documents.pop().unwrap_or_default();
                collection.insert_one(document).await.map(|_| 1)
            }
            Write::Update {
                filter,
                update,
                upsert,
                ..
            } => {
                let update = match update {
                    Update::Operators(operators) => operators.into(),
                    Update::Pipeline(stages) => mongodb::options::UpdateModifications::from(stages),
                };
                let updated = collection.update_one(filter, update).upsert(upsert).await;
                updated.map(|done| done.matched_count)
            }
            Write::Replace {
                filter,
                replacement,
                upsert,
            } => {
                let replaced = collection.replace_one(filter, replacement).upsert(upsert);
                replaced.await.map(|done| done.matched_count)
            }
            Write::Delete { filter, .. } => {
                let deleted = collection.delete_one(filter).await;
                deleted.map(|done| done.deleted_count)
            }
        };
        result.map_err(|error| explain(&error))
    }

    /// The document with this `_id`, with read concern linearizable.
    pub async fn find(
        &self,
        namespace: &Namespace,
        id: impl Into<Bson>,
    ) -> Result<Option<Document>, DirectError> {
        let collection = self.collection(namespace);
        let find = collection.find_one(bson::doc! {"_id": id.into()});
        let find = find.read_concern(ReadConcern::linearizable());
        find.await.map_err(|error| explain(&error))
    }

    fn collection(&self, namespace: &Namespace) -> Collection<Document> {
        let database = self.client.database(namespace.database());
        database.collection(namespace.collection())
    }

    /// Inserts one document; it is durable on a majority when this returns.
    pub async fn insert(
        &self,
        namespace: &Namespace,
        document: Document,
    ) -> Result<(), StoreError> {
        self.collection(namespace).insert_one(document).await?;
        Ok(())
    }

    /// Drops a collection that the benchmark filled.
    pub async fn drop_collection(&self, namespace: &Namespace) -> Result<(), StoreError> {
        let collection = self.collection(namespace);
        let drop = async { collection.drop().await.map_err(StoreError::from) };
        within(CALL_MAX, drop).await
    }
}

/// A write error is MongoDB's word on the document. After anything else the last try may have been done.
fn explain(error: &DriverError) -> DirectError {
    let nothing_done = match error.kind.as_ref() {
        ErrorKind::Write(mongodb::error::WriteFailure::WriteError(_)) => true,
        // A write that was sent before ends with the error of that try.
        ErrorKind::ServerSelection { .. } => true,
        _ => false,
    };
    DirectError {
        nothing_done,
        why: StoreError::from(error.clone()).to_string(),
    }
}
