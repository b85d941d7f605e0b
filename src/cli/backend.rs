//! What executes a one-shot command: a server, or the command itself.

use std::time::Duration;

use bson::Document;
use tokio::time::sleep;

use super::exit::say;
use crate::client::{Client, ClientError, Clock, Found, Seen, Written};
use crate::config::Secret;
use crate::model::{
    Call, Consistency, Failure, Namespace, Position, Read, RequestId, Stamp, Write, WriteRequest,
    policy,
};
use crate::store::{Guest, STAMP_FIELD, StoreError, survey};

/// A request that has taken so long is worth a look at what the connection string leads to.
const SUSPICIOUS_AFTER: Duration = Duration::from_millis(500);

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
            Self::Direct(direct) => {
                let written = direct.write(namespace, write, id, clock).await;
                direct.explain(written).await
            }
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
            Self::Direct(direct) => {
                let found = direct.read(namespace, read, consistency, clock).await;
                direct.explain(found).await
            }
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
            Self::Direct(direct) => direct.explain(direct.log(from, limit).await).await,
        }
    }
}

/// The command as its own sequencer, for once: it appends to the log itself.
#[derive(Debug)]
pub struct Direct {
    uri: Secret,
}

impl Direct {
    pub const fn new(uri: Secret) -> Self {
        Self { uri }
    }

    async fn write(
        &self,
        namespace: &Namespace,
        write: Write,
        id: &RequestId,
        clock: &Clock,
    ) -> Result<Written, ClientError> {
        let call = Call::Write(namespace.clone(), write);
        let Call::Write(_, write) = checked(call)? else {
            return Err(Failure::NoCoordinator.into());
        };
        let request = WriteRequest {
            id: id.clone(),
            digest: Some(write.digest(namespace)),
            clock: clock.now(),
            namespace: namespace.clone(),
            bytes: 0,
            write: write.with_ids(),
        };
        let guest = self.guest().await?;
        let can_write = async { Ok(guest.can_write(self.uri.expose()).await?) };
        self.unless_hopeless(Box::pin(can_write)).await?;
        let outcome = match guest.write(request).await {
            Err(Failure::Unknown) => return Err(ClientError::UnknownToGuest { id: id.clone() }),
            other => other?,
        };
        clock.witness(at(&outcome.stamp));
        let answer = outcome.result.map_err(|refusal| ClientError::Refused {
            status: 400,
            code: refusal.name,
            message: refusal.message,
        })?;
        Ok(Written {
            answer,
            position: Some(outcome.position.0),
            stamp: Some(outcome.stamp.t),
            replayed: outcome.replayed,
        })
    }

    async fn read(
        &self,
        namespace: &Namespace,
        read: Read,
        consistency: Consistency,
        clock: &Clock,
    ) -> Result<Found, ClientError> {
        let Call::Read(namespace, read) = checked(Call::Read(namespace.clone(), read))? else {
            return Err(Failure::NoCoordinator.into());
        };
        let guest = self.guest().await?;
        let reading = async {
            let found = guest.read(&namespace, &read, consistency, clock.now());
            Ok(found.await?)
        };
        let found = self.unless_hopeless(Box::pin(reading)).await?;
        clock.witness(at(&found.stamp));
        Ok(Found {
            documents: found.documents,
            position: Some(found.position.0),
            stamp: Some(found.stamp.t),
        })
    }

    async fn log(&self, from: i64, limit: u32) -> Result<Vec<Document>, ClientError> {
        let guest = self.guest().await?;
        Ok(guest.log(Position(from), i64::from(limit)).await?)
    }

    /// Does what changes nothing, unless it becomes clear that no waiting will help.
    async fn unless_hopeless<T>(
        &self,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let hopeless = async {
            sleep(SUSPICIOUS_AFTER).await;
            match Box::pin(survey(self.uri.expose())).await {
                Ok(Some(fault)) if fault.forbids_all() => fault,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            done = work => done,
            fault = hopeless => Err(fault.into()),
        }
    }

    /// Where the replica set itself is to blame, that is said instead of what the request met.
    async fn explain<T>(&self, ended: Result<T, ClientError>) -> Result<T, ClientError> {
        let error = match ended {
            Err(error) if may_be_the_ground(&error) => error,
            other => return other,
        };
        match (Box::pin(survey(self.uri.expose())).await, error) {
            (Ok(Some(fault)), error @ ClientError::UnknownToGuest { .. }) => {
                say(&fault.to_string());
                Err(error)
            }
            (Ok(Some(fault)), _) => Err(fault.into()),
            (_, error) => Err(error),
        }
    }

    async fn guest(&self) -> Result<Guest, ClientError> {
        let connected = Guest::connect(self.uri.expose()).await;
        connected.map_err(|error| match error {
            StoreError::ConnectionString(why) => ClientError::Invalid(format!("--mongodb: {why}")),
            other => other.into_failure().into(),
        })
    }
}

/// MongoDB's codes for who may not, and for what a server does not do that is in no replica set:
/// Unauthorized, AuthenticationFailed, IllegalOperation, InvalidOptions, NoReplicationEnabled,
/// CommandNotSupported, NotAReplicaSet, ReadConcernMajorityNotEnabled.
const GROUND_CODES: [i32; 8] = [13, 18, 20, 72, 76, 115, 123, 148];

fn may_be_the_ground(error: &ClientError) -> bool {
    match error {
        ClientError::UnknownToGuest { .. } | ClientError::Guest(Failure::Unavailable(_)) => true,
        ClientError::Guest(Failure::ReadRefused { code, .. }) => GROUND_CODES.contains(code),
        _ => false,
    }
}

/// Without a server there is no token; a stamp promises as much.
const fn at(stamp: &Stamp) -> Seen {
    Seen {
        t: stamp.t,
        token: None,
    }
}

/// What a node would refuse is refused here too.
fn checked(call: Call) -> Result<Call, ClientError> {
    policy::check(&call, STAMP_FIELD)?;
    Ok(call)
}
