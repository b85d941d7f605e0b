//! A straight look at one member, for drills: cheap enough to repeat each few milliseconds.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;
use mongodb::options::{ClientOptions, ServerAddress};

use super::error::StoreError;
use super::{CALL_MAX, within};

/// How long a member may be silent before the look has failed.
const LOOK_MAX: Duration = Duration::from_millis(250);
/// A member that steps down waits this long for another to catch up, and as long for itself to be free.
const STEP_DOWN_WAIT: i64 = 10;
/// How long a member that has stepped down does not stand again, in seconds.
const STEP_DOWN_SECONDS: i64 = 30;
const STEP_DOWN_MAX: Duration = Duration::from_secs(20);

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Look {
    /// `primary`, `secondary` or `other`.
    pub state: String,
    /// The newest term it knows, as far as it was asked for.
    pub term: Option<i64>,
    /// The host of the primary it knows.
    pub primary: Option<String>,
    /// Its last write, as seconds and a counter.
    pub applied: (u32, u32),
    /// The term of the newest write that it knows a majority to hold.
    pub committed_term: Option<i64>,
    /// All hosts of its set.
    pub hosts: Vec<String>,
    pub set: Option<String>,
}

/// A connection to one member, whatever that is.
#[derive(Debug, Clone)]
pub struct Probe {
    host: String,
    client: Client,
}

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
        Ok(Self {
            host: host.to_owned(),
            client,
        })
    }

    pub fn host(&self) -> &str {
        &self.host
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
        let status = self.status().await?;
        let source = status.get_str("syncSourceHost").unwrap_or_default();
        Ok((!source.is_empty()).then(|| source.to_owned()))
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

    async fn status(&self) -> Result<Document, StoreError> {
        let command = doc! {"replSetGetStatus": 1, "initialSync": 0};
        self.run(command, LOOK_MAX).await
    }

    async fn run(&self, command: Document, time: Duration) -> Result<Document, StoreError> {
        let admin = self.client.database("admin");
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
    let is = |key| hello.get_bool(key).unwrap_or(false);
    let text = |key| hello.get_str(key).ok().map(str::to_owned);
    let state = if is("isWritablePrimary") {
        "primary"
    } else if is("secondary") {
        "secondary"
    } else {
        "other"
    };
    let last = hello.get_document("lastWrite").ok();
    let optime = |key| last.and_then(|write| write.get_document(key).ok());
    let term = |key| optime(key).and_then(|time| time.get_i64("t").ok());
    let applied = optime("opTime").and_then(|time| time.get_timestamp("ts").ok());
    let hosts = hello.get_array("hosts").into_iter().flatten();
    Look {
        state: state.to_owned(),
        term: elected_in(hello).max(term("opTime")),
        primary: text("primary"),
        applied: applied.map_or((0, 0), |at| (at.time, at.increment)),
        committed_term: term("majorityOpTime"),
        hosts: hosts
            .filter_map(|host| host.as_str().map(str::to_owned))
            .collect(),
        set: text("setName"),
    }
}

/// A primary's `electionId` is four bytes that are always the same, and its term.
fn elected_in(hello: &Document) -> Option<i64> {
    let id = hello.get_object_id("electionId").ok()?.bytes();
    let term: [u8; 8] = id[4..].try_into().ok()?;
    Some(i64::from_be_bytes(term))
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
            "isWritablePrimary": true, "setName": "s", "hosts": ["a:1", "b:1"], "primary": "a:1",
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
