//! What a batch says to MongoDB inside its transaction: commands and queries, within their time.
//!
//! Never begins or ends a transaction.

use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::{Client, ClientSession};
use tokio::time::Instant;

use super::CALL_MAX;
use super::batch::Session;
use super::error::StoreError;
use super::line::ABANDONED_MAX;
use super::reply::first_write_error;
use crate::model::Namespace;
use crate::model::limits::REQUEST_RUN_MAX;
use crate::mutants::{self, Mutant};

/// How much longer than its bound a request is waited for: MongoDB looks at the clock now and then.
const HELD_GRACE: Duration = Duration::from_millis(250);
/// MongoDB takes 0 for no bound.
const LEAST_TIME: Duration = Duration::from_millis(1);

impl Session {
    /// Runs a statement of one request; a write error in the reply is an error here.
    pub(super) async fn statement(
        &mut self,
        database: &str,
        command: Document,
    ) -> Result<Document, StoreError> {
        let reply = self.command(database, command).await?;
        match first_write_error(&reply) {
            Some(error) => Err(StoreError::from_write_error(error)),
            None => Ok(reply),
        }
    }

    pub(super) async fn command(
        &mut self,
        database: &str,
        mut command: Document,
    ) -> Result<Document, StoreError> {
        let left = self.time_left();
        // MongoDB takes 0 for no bound.
        let time_ms = i64::try_from(left.as_millis().max(1)).unwrap_or(i64::MAX);
        command.insert("maxTimeMS", time_ms);
        let database = database.to_owned();
        // The server ends a statement that is merely slow; this bound is for one that is gone, or
        // in an expression that MongoDB does not interrupt.
        let time = left + self.grace();
        let run = |client: Client, mut session: ClientSession| async move {
            let database = client.database(&database);
            let command = database.run_command(command);
            let reply = command.session(&mut session).await;
            (session, reply)
        };
        self.on_session(time, run).await
    }

    /// The UUID by which a command says which collection it means, where this run relies on what is
    /// known of it.
    pub(super) fn relied_on(&self, namespace: &Namespace) -> Option<&Bson> {
        match mutants::active(Mutant::StaleCollation) {
            true => None,
            false => self.plain.get(namespace).map(|plain| &plain.uuid),
        }
    }

    /// Whether a collection is known to have neither a collation nor a validator.
    pub(super) fn is_free(&self, namespace: &Namespace) -> bool {
        let plain = self.plain.get(namespace);
        plain.is_some_and(|plain| !plain.validated)
    }

    /// Reads all that a query finds, in the form that MongoDB stores.
    pub(super) async fn query(
        &mut self,
        namespace: &Namespace,
        filter: Document,
        projection: Document,
        limit: i64,
    ) -> Result<Vec<RawDocumentBuf>, StoreError> {
        let left = self.time_left();
        let time_ms = i64::try_from(left.max(LEAST_TIME).as_millis()).unwrap_or(i64::MAX);
        let mut find = doc! {
            "find": namespace.collection(),
            "filter": filter,
            "projection": projection,
            "limit": limit,
            "batchSize": limit,
            "maxTimeMS": time_ms,
        };
        if let Some(uuid) = self.relied_on(namespace) {
            find.insert("collectionUUID", uuid);
        }
        let database = namespace.database().to_owned();
        let run = move |client: Client, mut session: ClientSession| async move {
            let database = client.database(&database);
            let find = database.run_cursor_command(find);
            let found = async {
                let cursor = find.session(&mut session).await?;
                let mut cursor = cursor.with_type::<RawDocumentBuf>();
                let mut found = Vec::new();
                while cursor.advance(&mut session).await? {
                    found.push(cursor.current().to_owned());
                }
                Ok(found)
            };
            let found = found.await;
            (session, found)
        };
        let time = left + self.grace();
        self.on_session(time, run).await
    }

    fn time_left(&self) -> Duration {
        self.until.map_or(REQUEST_RUN_MAX, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    fn grace(&self) -> Duration {
        match self.until {
            Some(_) if mutants::active(Mutant::NothingIsLeft) => ABANDONED_MAX,
            Some(_) => HELD_GRACE,
            None => CALL_MAX,
        }
    }
}
