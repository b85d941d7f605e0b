//! What helps the replica set over the loss of a member: a candidate that is asked to stand, and who
//! copies from whom. MongoDB votes: nothing here can make a member primary that a majority of members
//! does not elect.

use std::io;
use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::ServerType;
use mongodb::options::ServerAddress;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::error::UNAUTHORIZED;
use super::members::run;
use super::{Store, StoreError, within};

/// How long a member may take for one of these commands.
const COMMAND_MAX: Duration = Duration::from_secs(1);
/// How long it may take to connect to a member on purpose.
const KNOCK_MAX: Duration = Duration::from_millis(250);
/// How long an elected member may take to accept writes.
const WRITABLE_MAX: Duration = Duration::from_secs(2);
/// The pause between two looks at it.
const WRITABLE_PAUSE: Duration = Duration::from_millis(2);
/// Between two times that a new primary is told that it has caught up enough.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(25);
/// How often a member tries its sync source again before it looks for another, with growing pauses:
/// about a second in all. MongoDB's default is once. That takes 2 ms, finds nobody that is further
/// ahead, and then rests for a second. While it tries, `replSetSyncFrom` is heard at once.
const SYNC_TRIES: i32 = 10;

/// The members as the driver knows them, in the order of their names.
#[derive(Debug, Clone)]
pub struct Members(super::topology::Seen);

/// What the driver knows of the members at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    pub primary: Option<String>,
    /// Those that hold data and answer, the primary left out.
    pub secondaries: Vec<String>,
    /// All members that there are.
    pub all: usize,
}

impl Members {
    /// Waits for a change. `false`: there will be none any more.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }

    pub fn sight(&mut self) -> Sight {
        let seen = self.0.borrow_and_update();
        let of = |wanted: ServerType| {
            let members = seen.iter().filter(move |(_, kind)| *kind == wanted);
            members.map(|(address, _)| address.to_string())
        };
        Sight {
            primary: of(ServerType::RsPrimary).next(),
            secondaries: of(ServerType::RsSecondary).collect(),
            all: seen.len(),
        }
    }
}

impl Sight {
    /// Whether enough members are there to elect one of them.
    pub fn can_elect(&self) -> bool {
        let there = self.secondaries.len() + usize::from(self.primary.is_some());
        there * 2 > self.all
    }

    /// Whether the member answers the driver.
    pub fn has(&self, host: &str) -> bool {
        self.primary.as_deref() == Some(host) || self.secondaries.iter().any(|other| other == host)
    }
}

/// What a member says when it is asked what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// It takes writes.
    pub primary: bool,
    /// The term in which it was elected, if it is primary.
    pub term: Option<i64>,
    /// The term and the time of the last write that it has applied.
    pub applied: (i64, u32, u32),
}

impl Store {
    /// The members, and the way to hear of changes.
    pub fn topology(&self) -> Members {
        Members(self.members.seen())
    }

    /// Asks one member, and nobody in its place.
    pub async fn hello(&self, host: &str) -> Result<Greeting, StoreError> {
        let hello = self.ask_member(host, doc! {"hello": 1}).await?;
        Ok(read_hello(&hello))
    }

    /// Whether nothing listens at a member's address any more. A member that is silent, or out of
    /// reach in another way, may live.
    pub async fn refuses(&self, host: &str) -> bool {
        let connected = timeout(KNOCK_MAX, TcpStream::connect(host)).await;
        matches!(connected, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// What the user of the connection string may not do of what helps, as MongoDB calls it.
    pub async fn missing_rights(&self) -> Result<Vec<&'static str>, StoreError> {
        let admin = self.client.database("admin");
        let status = admin.run_command(doc! {"connectionStatus": 1, "showPrivileges": true});
        let status = self.bounded(async { status.await.map_err(StoreError::from) });
        Ok(missing_rights(&status.await?))
    }

    /// The member that this one copies the oplog from.
    pub async fn sync_source(&self, host: &str) -> Result<Option<String>, StoreError> {
        let status = self.ask_member(host, doc! {"replSetGetStatus": 1}).await?;
        let source = status.get_str("syncSourceHost").ok();
        Ok(source.filter(|host| !host.is_empty()).map(str::to_owned))
    }

    /// Asks a member to stand for election. An error tells that it was not elected, or that this is
    /// unknown.
    pub async fn stand(&self, host: &str) -> Result<(), StoreError> {
        self.ask_member(host, doc! {"replSetStepUp": 1})
            .await
            .map(drop)
    }

    /// Waits until a member that was elected takes writes. First it copies what others have that is on
    /// no majority, and so was never acknowledged; it waits for word of a member that may be frozen, for
    /// 10 s. It may do so for `catch_up` at least, and is then told that this is enough.
    pub async fn until_writable(&self, host: &str, catch_up: Duration) -> Result<(), StoreError> {
        let began = Instant::now();
        let mut tell = began + catch_up;
        while !self.hello(host).await?.primary {
            if began.elapsed() > WRITABLE_MAX {
                return Err(StoreError::TimedOut(WRITABLE_MAX));
            }
            if Instant::now() > tell {
                tell = Instant::now() + CATCH_UP_PAUSE;
                let enough = doc! {"replSetAbortPrimaryCatchUp": 1};
                if let Err(error) = self.ask_member(host, enough).await {
                    tracing::debug!(%error, "the new primary is not catching up");
                }
            }
            sleep(WRITABLE_PAUSE).await;
        }
        Ok(())
    }

    /// Has a member copy the oplog from another one. Not to be asked for what is so already: the
    /// member would rest for a second.
    pub async fn sync_from(&self, host: &str, source: &str) -> Result<(), StoreError> {
        let command = doc! {"replSetSyncFrom": source};
        self.ask_member(host, command).await.map(drop)
    }

    /// Makes the primary's oplog longer: a member copies only from one that is ahead of it.
    pub async fn lengthen(&self, primary: &str) -> Result<(), StoreError> {
        let note = doc! {
            "appendOplogNote": 1,
            "data": {"drumline": "a sync source was lost"},
            "writeConcern": {"w": 1},
        };
        self.ask_member(primary, note).await.map(drop)
    }

    /// Has a member that loses its sync source wait a second for word of another.
    pub async fn make_patient(&self, host: &str) -> Result<(), StoreError> {
        let set = doc! {"setParameter": 1, "oplogFetcherSteadyStateMaxFetcherRestarts": SYNC_TRIES};
        self.ask_member(host, set).await.map(drop)
    }

    async fn ask_member(&self, host: &str, command: Document) -> Result<Document, StoreError> {
        let address = ServerAddress::parse(host)
            .map_err(|_| StoreError::Damaged(format!("{host} is no member's address")))?;
        within(COMMAND_MAX, run(&self.aside, &address, command)).await
    }
}

impl StoreError {
    /// The user of the connection string lacks a right.
    pub fn is_unauthorized(&self) -> bool {
        self.code() == Some(UNAUTHORIZED)
    }
}

/// Standing for election, and sync sources.
pub const STATE_CHANGE: &str = "replSetStateChange";
/// What else helps.
const RIGHTS: [&str; 3] = [STATE_CHANGE, "appendOplogNote", "setParameter"];

fn missing_rights(status: &Document) -> Vec<&'static str> {
    let info = status.get_document("authInfo").ok();
    let list = |name| info.and_then(|info| info.get_array(name).ok());
    // Nobody is logged in: MongoDB asks nobody for rights.
    if list("authenticatedUsers").is_none_or(Vec::is_empty) {
        return Vec::new();
    }
    let privileges = list("authenticatedUserPrivileges").into_iter().flatten();
    let of_cluster = privileges
        .filter_map(Bson::as_document)
        .filter(|privilege| {
            privilege.get_document("resource").is_ok_and(|resource| {
                ["cluster", "anyResource"]
                    .iter()
                    .any(|scope| resource.get_bool(scope).unwrap_or(false))
            })
        });
    let actions: Vec<&str> = of_cluster
        .filter_map(|privilege| privilege.get_array("actions").ok())
        .flatten()
        .filter_map(Bson::as_str)
        .collect();
    let may = |right: &&str| actions.contains(right) || actions.contains(&"anyAction");
    RIGHTS.into_iter().filter(|right| !may(right)).collect()
}

fn read_hello(hello: &Document) -> Greeting {
    let last_write = hello.get_document("lastWrite").ok();
    let optime = last_write.and_then(|write| write.get_document("opTime").ok());
    let time = optime.and_then(|optime| optime.get_timestamp("ts").ok());
    let term = optime.and_then(|optime| optime.get_i64("t").ok());
    Greeting {
        primary: hello.get_bool("isWritablePrimary").unwrap_or(false),
        term: hello.get("electionId").and_then(term_of),
        applied: (
            term.unwrap_or(0),
            time.map_or(0, |time| time.time),
            time.map_or(0, |time| time.increment),
        ),
    }
}

/// An election's id carries its term in the last eight bytes.
fn term_of(id: &Bson) -> Option<i64> {
    let bytes = id.as_object_id()?.bytes();
    let last: [u8; 8] = bytes[4..].try_into().ok()?;
    i64::try_from(u64::from_be_bytes(last)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::oid::ObjectId;
    use bson::{DateTime, Timestamp};

    #[test]
    fn a_primary_tells_its_term_and_its_progress() {
        let mut id = [0xff; 12];
        id[0] = 0x7f;
        id[4..].copy_from_slice(&7_u64.to_be_bytes());
        let ts = Timestamp {
            time: 5,
            increment: 2,
        };
        let hello = doc! {
            "isWritablePrimary": true, "electionId": ObjectId::from_bytes(id),
            "lastWrite": {"opTime": {"ts": ts, "t": 7_i64}, "lastWriteDate": DateTime::now()},
        };
        let greeting = read_hello(&hello);
        assert!(greeting.primary);
        assert_eq!((greeting.term, greeting.applied), (Some(7), (7, 5, 2)));

        let other = read_hello(&doc! {"isWritablePrimary": false});
        assert_eq!((other.term, other.applied), (None, (0, 0, 0)));
    }

    #[test]
    fn rights_are_read_from_the_privileges_on_the_cluster() {
        let status = |privileges: Vec<Document>| {
            doc! {"authInfo": {
                "authenticatedUsers": [{"user": "u", "db": "admin"}],
                "authenticatedUserPrivileges": privileges,
            }}
        };
        let cluster = doc! {"cluster": true};
        let some =
            doc! {"resource": &cluster, "actions": ["replSetStateChange", "appendOplogNote"]};
        assert_eq!(missing_rights(&status(vec![some])), ["setParameter"]);
        let elsewhere =
            doc! {"resource": {"db": "x", "collection": ""}, "actions": ["setParameter"]};
        assert_eq!(missing_rights(&status(vec![elsewhere])), RIGHTS);
        let any = doc! {"resource": {"anyResource": true}, "actions": ["anyAction"]};
        assert_eq!(missing_rights(&status(vec![any])), [""; 0]);
        let nobody = doc! {"authInfo": {"authenticatedUsers": []}};
        assert_eq!(missing_rights(&nobody), [""; 0]);
    }
}
