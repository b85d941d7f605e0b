//! The plain driver, without Drumline: what the benchmark compares with.

use bson::Document;
use mongodb::Client;
use mongodb::options::{ClientOptions, WriteConcern};

use super::error::StoreError;
use super::{SELECTION_MAX, bounded};
use crate::model::Namespace;

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

    /// Inserts one document; it is durable on a majority when this returns.
    pub async fn insert(
        &self,
        namespace: &Namespace,
        document: Document,
    ) -> Result<(), StoreError> {
        let database = self.client.database(namespace.database());
        let collection = database.collection::<Document>(namespace.collection());
        collection.insert_one(document).await?;
        Ok(())
    }

    /// Drops a collection that the benchmark filled.
    pub async fn drop_collection(&self, namespace: &Namespace) -> Result<(), StoreError> {
        let database = self.client.database(namespace.database());
        let collection = database.collection::<Document>(namespace.collection());
        bounded(async { collection.drop().await.map_err(StoreError::from) }).await
    }
}
