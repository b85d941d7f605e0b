//! What executes a one-shot command: a server, or the command itself.

use bson::Document;

use crate::client::{Client, ClientError, Clock, Found, Written};
use crate::config::Secret;
use crate::model::{Consistency, Namespace, Read, RequestId, Write};

/// Executes requests. Both ways give the same answers.
#[derive(Debug)]
pub enum Backend {
    /// The first server of the list that can.
    Servers(Box<Client>),
    /// This process, on the replica set.
    Direct(Direct),
}

impl Backend {
    pub async fn write(
        &self,
        namespace: &Namespace,
        write: Write,
        id: &RequestId,
        clock: &Clock,
    ) -> Result<Written, ClientError> {
        match self {
            Self::Servers(client) => client.write(namespace, write, id, clock).await,
            Self::Direct(direct) => Err(direct.not_built()),
        }
    }

    pub async fn read(
        &self,
        namespace: &Namespace,
        read: Read,
        consistency: Consistency,
        clock: &Clock,
    ) -> Result<Found, ClientError> {
        match self {
            Self::Servers(client) => client.read(namespace, read, consistency, clock).await,
            Self::Direct(direct) => Err(direct.not_built()),
        }
    }

    pub async fn log(
        &self,
        from: i64,
        limit: u32,
        clock: &Clock,
    ) -> Result<Vec<Document>, ClientError> {
        match self {
            Self::Servers(client) => client.log(from, limit, clock).await,
            Self::Direct(direct) => Err(direct.not_built()),
        }
    }
}

/// The command as its own sequencer, for once.
#[derive(Debug)]
pub struct Direct {
    #[expect(dead_code, reason = "the replica set is not reached from here yet")]
    uri: Secret,
}

impl Direct {
    pub const fn new(uri: Secret) -> Self {
        Self { uri }
    }

    fn not_built(&self) -> ClientError {
        ClientError::Invalid("--mongodb without a server is not built yet".into())
    }
}
