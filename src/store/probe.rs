//! A straight look at one member, for drills: cheap enough to repeat each few milliseconds.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;
use mongodb::options::{ClientOptions, ServerAddress, WriteConcern};

use super::error::StoreError;
use super::hello::{HelloReply, Role};
use super::members::sync_source;
use super::{CALL_MAX, within};
use crate::model::Namespace;

/// How long a member may be silent before the look has failed.
const LOOK_MAX: Duration = Duration::from_millis(250);
/// A member that steps down waits this long for another to catch up, and as long for itself to be free.
const STEP_DOWN_WAIT: i64 = 10;
/// How long a member that has stepped down does not stand again, in seconds.
const STEP_DOWN_SECONDS: i64 = 30;
const STEP_DOWN_MAX: Duration = Duration::from_secs(20);
const CHECKPOINT_MAX: Duration = Duration::from_secs(20);
/// A collection goes when the transactions that use it have ended.
const DROP_MAX: Duration = Duration::from_secs(20);

const PRIMARY: &str = "primary";

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Look {
    /// `primary`, `secondary` or `other`.
    pub state: String,
    /// The newest term it knows, as far as it was asked for.
    pub term: Option<i64>,
    /// Its last write, as seconds and a counter.
    pub applied: (u32, u32),
    /// The term of the newest write that it knows a majority to hold.
    pub committed_term: Option<i64>,
    /// All hosts of its set.
    pub hosts: Vec<String>,
}

impl Look {
    pub fn is_primary(&self) -> bool {
        self.state == PRIMARY
    }
}

/// A connection to one member, whatever that is.
#[derive(Debug, Clone)]
pub struct Probe(Client);

impl Probe {
    /// Prepares a connection to `host` with the credentials and the TLS settings of `uri`.
    pub async fn open(uri: &str, host: &str) -> Result<Self, StoreError> {
        let parsed = ClientOptions::parse(uri).await;
        let mut options = parsed.map_err(StoreError::from_connection_string)?;
        let address = ServerAddress::parse(host).map_err(StoreError::from_connection_string)?;
        options.hosts = vec![address];
        options.direct_connection = Some(true);
        options.repl_set_name = None;
        options.load_balanced = None;
        options.srv_max_hosts = None;
        options.connect_timeout = Some(LOOK_MAX);
        options.server_selection_timeout = Some(LOOK_MAX);
        options.retry_reads = Some(false);
        options.retry_writes = Some(false);
        options.write_concern = None;
        options.read_concern = None;
        options.selection_criteria = None;
        let client = Client::with_options(options).map_err(StoreError::from_connection_string)?;
        Ok(Self(client))
    }

    /// One `hello`.
    pub async fn look(&self) -> Result<Look, StoreError> {
        Ok(read(&self.run(doc! {"hello": 1}, LOOK_MAX).await?))
    }

    /// The newest term it has heard of, before it is primary in it. Dearer than [`Probe::look`].
    pub async fn term(&self) -> Result<Option<i64>, StoreError> {
        Ok(self.status().await?.get_i64("term").ok())
    }

    /// The host that it copies the oplog from.
    pub async fn sync_source(&self) -> Result<Option<String>, StoreError> {
        Ok(sync_source(&self.status().await?))
    }

    pub async fn version(&self) -> Result<String, StoreError> {
        let reply = self.run(doc! {"buildInfo": 1}, LOOK_MAX).await?;
        Ok(reply.get_str("version").unwrap_or("unknown").to_owned())
    }

    /// The set's election time-out.
    pub async fn election_timeout(&self) -> Result<Option<Duration>, StoreError> {
        let reply = self.run(doc! {"replSetGetConfig": 1}, LOOK_MAX).await?;
        let settings = reply
            .get_document("config")
            .and_then(|config| config.get_document("settings"));
        let millis = settings.ok().and_then(|settings| {
            let value = settings.get("electionTimeoutMillis")?;
            value
                .as_i64()
                .or_else(|| value.as_i32().map(i64::from))
                .and_then(|millis| u64::try_from(millis).ok())
        });
        Ok(millis.map(Duration::from_millis))
    }

    /// Asks a primary to step down; with `force` it does not wait for a successor that has caught up.
    pub async fn step_down(&self, force: bool) -> Result<(), StoreError> {
        let mut command = doc! { "replSetStepDown": STEP_DOWN_SECONDS, "force": force };
        command.insert(
            "secondaryCatchUpPeriodSecs",
            if force { 0 } else { STEP_DOWN_WAIT },
        );
        self.run(command, STEP_DOWN_MAX).await.map(drop)
    }

    /// Lets a member that has stepped down stand for election again.
    pub async fn let_stand(&self) -> Result<(), StoreError> {
        let command = doc! {"replSetFreeze": 0};
        self.run(command, CALL_MAX).await.map(drop)
    }

    /// Has the member write a checkpoint. One that is killed has to replay what it wrote after its last one.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        self.run(doc! {"fsync": 1}, CHECKPOINT_MAX).await.map(drop)
    }

    /// Drops a collection, on a primary; there need not be one. Done when a majority of members has.
    pub async fn drop_collection(&self, namespace: &Namespace) -> Result<(), StoreError> {
        let database = self.0.database(namespace.database());
        let collection = database.collection::<Document>(namespace.collection());
        let drop = collection.drop().write_concern(WriteConcern::majority());
        within(DROP_MAX, async { drop.await.map_err(StoreError::from) }).await
    }

    async fn status(&self) -> Result<Document, StoreError> {
        let command = doc! {"replSetGetStatus": 1, "initialSync": 0};
        self.run(command, LOOK_MAX).await
    }

    async fn run(&self, command: Document, time: Duration) -> Result<Document, StoreError> {
        let admin = self.0.database("admin");
        within(time, async {
            admin.run_command(command).await.map_err(StoreError::from)
        })
        .await
    }
}

/// The members of a replica set, as one that the connection string names tells them.
pub async fn members_of(uri: &str) -> Result<Vec<String>, StoreError> {
    let parsed = ClientOptions::parse(uri).await;
    let options = parsed.map_err(StoreError::from_connection_string)?;
    let mut last = StoreError::Unavailable("the connection string names no member".into());
    for host in options.hosts {
        let probe = Probe::open(uri, &host.to_string()).await?;
        match probe.look().await {
            Ok(look) if look.hosts.is_empty() => {
                last = StoreError::Unavailable(format!("{host} is not in a replica set"));
            }
            Ok(look) => return Ok(look.hosts),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn read(hello: &Document) -> Look {
    let hello = HelloReply(hello);
    let state = match hello.role() {
        Role::Primary => PRIMARY,
        Role::Secondary => "secondary",
        Role::Other => "other",
    };
    let applied = hello.applied();
    Look {
        state: state.to_owned(),
        term: hello.elected_in().max(applied.map(|(_, term)| term)),
        applied: applied.map_or((0, 0), |(at, _)| (at.time, at.increment)),
        committed_term: hello.committed().map(|(_, term)| term),
        hosts: hello.hosts(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Timestamp, oid::ObjectId};

    #[test]
    fn a_new_primary_shows_its_term_before_it_writes() {
        let at = Timestamp {
            time: 9,
            increment: 2,
        };
        let hello = doc! {
            "isWritablePrimary": true, "hosts": ["a:1", "b:1"],
            "electionId": ObjectId::from_bytes([0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 7]),
            "lastWrite": {"opTime": {"ts": at, "t": 6_i64}, "majorityOpTime": {"ts": at, "t": 5_i64}},
        };
        let look = read(&hello);
        assert_eq!((look.term, look.committed_term), (Some(7), Some(5)));
        assert_eq!((look.state.as_str(), look.applied), ("primary", (9, 2)));
        assert_eq!(look.hosts, ["a:1", "b:1"]);
        let starting = read(&doc! {"isWritablePrimary": false, "secondary": false});
        assert_eq!((starting.state.as_str(), starting.term), ("other", None));
    }
}
