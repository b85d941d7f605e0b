//! Where the load goes.

use bson::doc;
use hyper::header::HeaderValue;

use crate::client::ClientError;
use crate::client::wire::{Message, key_header};
use crate::config::{Secret, ServerUrl};
use crate::model::{Namespace, RequestId, Write};
use crate::store::Direct;

use super::connection::{Connection, Inserted};

/// Fills a document up to about 150 bytes, the size of a small record.
const PAD: &str = "................................................................";

/// A target, shared by all clients of a run.
#[derive(Debug, Clone)]
pub enum Target {
    /// Drumline's nodes.
    Http(Http),
    /// The replica set itself, each insert with w:majority: what the nodes are compared with.
    /// All clients share the driver's pool, as in a program that uses it.
    Direct(Direct),
}

/// The servers and the key.
#[derive(Debug, Clone)]
pub struct Http {
    servers: Vec<ServerUrl>,
    key: Option<HeaderValue>,
}

impl Http {
    pub fn new(servers: Vec<ServerUrl>, key: Option<&Secret>) -> Result<Self, ClientError> {
        if let Some(server) = servers.iter().find(|server| server.is_https()) {
            return Err(ClientError::Invalid(format!(
                "{server}: the bench measures http:// servers only, TLS would be measured with them"
            )));
        }
        let key = key.map(key_header).transpose()?;
        Ok(Self { servers, key })
    }
}

impl Target {
    pub async fn direct(uri: &Secret) -> Result<Self, String> {
        let connected = Direct::connect(uri.expose()).await;
        connected
            .map(Self::Direct)
            .map_err(|error| error.to_string())
    }

    pub const fn name(&self) -> &'static str {
        match self {
            Self::Http(_) => "drumline",
            Self::Direct(_) => "direct",
        }
    }

    /// Drops a run's collection, where that can be done at once. `false`: it has to be emptied.
    pub async fn drop(&self, namespace: &Namespace) -> Result<bool, String> {
        match self {
            Self::Http(_) => Ok(false),
            Self::Direct(direct) => {
                let dropped = direct.drop_collection(namespace).await;
                dropped.map(|()| true).map_err(|error| error.to_string())
            }
        }
    }

    /// One client of this target, ready to send.
    pub(super) async fn client(&self, number: u32) -> Result<Inserter, String> {
        match self {
            Self::Http(http) => {
                let mut connection =
                    Connection::new(http.servers.clone(), http.key.clone(), number as usize);
                connection.connect_to_any().await?;
                Ok(Inserter::Http(connection))
            }
            Self::Direct(direct) => Ok(Inserter::Direct(direct.clone())),
        }
    }
}

/// One client's way to the target.
#[derive(Debug)]
pub(super) enum Inserter {
    Http(Connection),
    Direct(Direct),
}

impl Inserter {
    /// Inserts one document. Both targets get the same one.
    pub(super) async fn insert(
        &mut self,
        namespace: &Namespace,
        key: i64,
        client: u32,
        id: &RequestId,
    ) -> Inserted {
        let document = doc! { "_id": key, "client": i64::from(client), "pad": PAD };
        match self {
            Self::Http(connection) => {
                let write = Write::Insert {
                    documents: vec![document],
                };
                connection
                    .insert(&Message::write(namespace, write, id))
                    .await
            }
            Self::Direct(direct) => match direct.insert(namespace, document).await {
                Ok(()) => Inserted::Ok {
                    stamp: None,
                    position: None,
                },
                Err(error) => Inserted::Unknown(error.to_string()),
            },
        }
    }
}
