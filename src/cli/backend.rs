//! What executes a one-shot command: a server, or the command itself.

use std::time::Duration;

use bson::Document;
use tokio::time::sleep;

use super::exit::say;
use super::feed::{Feed, LogFeed, Order};
use crate::client::{Client, ClientError, Clock, Found, Seen, Written};
use crate::config::Secret;
use crate::ejson::{Fields, Format};
use crate::model::{
    Call, Consistency, Failure, Namespace, Position, Read, RequestId, Stamp, Write, WriteRequest,
    policy,
};
use crate::store::{Changes, Guest, STAMP_FIELD, Since, StoreError, Watched, survey};

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

    pub async fn follow_log(&self, from: Option<i64>) -> Result<Feed<'_>, ClientError> {
        match self {
            Self::Servers(client) => {
                let from = from.map(|from| format!("?from={from}")).unwrap_or_default();
                Ok(Feed::Served {
                    following: client.follow(format!("/log{from}")),
                    order: Order::Positions(None),
                })
            }
            Self::Direct(direct) => {
                // What no waiting mends is said at once.
                let looked = direct.log(from.unwrap_or(1), 1).await;
                direct.explain(looked).await?;
                Ok(Feed::Log(LogFeed::new(direct.guest().await?, from)))
            }
        }
    }

    pub async fn watch(
        &self,
        namespace: &Namespace,
        pipeline: Vec<Document>,
        from_stamp: Option<i64>,
    ) -> Result<Feed<'_>, ClientError> {
        match self {
            Self::Servers(client) => {
                let query = watch_query(namespace, &pipeline, from_stamp);
                Ok(Feed::Served {
                    following: client.follow(format!("/watch?{query}")),
                    order: Order::Unknown,
                })
            }
            Self::Direct(direct) => {
                let changes = direct.watch(namespace, pipeline, from_stamp).await;
                let changes = Box::new(direct.explain(changes).await?);
                Ok(Feed::Changes {
                    changes,
                    is_silent: false,
                })
            }
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

    async fn watch(
        &self,
        namespace: &Namespace,
        pipeline: Vec<Document>,
        from_stamp: Option<i64>,
    ) -> Result<Changes, ClientError> {
        policy::check_watch(namespace, &pipeline)?;
        let guest = self.guest().await?;
        let watched = Watched {
            namespace: namespace.clone(),
            pipeline,
            above: from_stamp,
        };
        let since = from_stamp.map_or(Since::Now, Since::Stamp);
        let opening = async { Ok(guest.watch(watched, since).await?) };
        self.unless_hopeless(Box::pin(opening)).await
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

/// What a node is asked for.
fn watch_query(namespace: &Namespace, pipeline: &[Document], from_stamp: Option<i64>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("ns", &namespace.to_string());
    if !pipeline.is_empty() {
        let stages = pipeline.iter().map(|stage| Fields(stage, Format::Short));
        // The writer of JSON fails only where the text goes, and a String takes all.
        let stages = serde_json::to_string(&stages.collect::<Vec<_>>()).unwrap_or_default();
        query.append_pair("pipeline", &stages);
    }
    if let Some(stamp) = from_stamp {
        query.append_pair("fromStamp", &stamp.to_string());
    }
    query.finish()
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
