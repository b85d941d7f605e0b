//! What helps the replica set over the loss of a member: a candidate that is asked to stand, and who
//! copies from whom. MongoDB votes: nothing here can make a member primary that a majority of members
//! does not elect.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::ServerType;
use mongodb::options::ServerAddress;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::codes::UNAUTHORIZED;
use super::hello::{HelloReply, Role};
use super::members::{members, run, sync_source};
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
pub struct Members {
    seen: super::sightings::Seen,
    hidden: Arc<AtomicUsize>,
}

/// What the driver knows of the members at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    pub primary: Option<String>,
    /// Those that hold data and answer, the primary left out.
    pub secondaries: Vec<String>,
    /// How many arbiters answer: they hold no data, and vote.
    pub arbiters: usize,
    /// How many vote that clients are not told of. Whether they answer is not known.
    pub hidden: usize,
    /// All members that there are.
    pub all: usize,
}

impl Members {
    /// Waits for a change. `false`: there will be none any more.
    pub async fn changed(&mut self) -> bool {
        self.seen.changed().await.is_ok()
    }

    pub fn sight(&mut self) -> Sight {
        let hidden = self.hidden.load(Ordering::Relaxed);
        Sight::of(&self.seen.borrow_and_update(), hidden)
    }
}

impl Sight {
    fn of(seen: &[(ServerAddress, ServerType)], hidden: usize) -> Self {
        let of = |wanted: ServerType| {
            let members = seen.iter().filter(move |(_, kind)| *kind == wanted);
            members.map(|(address, _)| address.to_string())
        };
        Self {
            primary: of(ServerType::RsPrimary).next(),
            secondaries: of(ServerType::RsSecondary).collect(),
            arbiters: of(ServerType::RsArbiter).count(),
            hidden,
            all: seen.len() + hidden,
        }
    }

    /// Whether enough members may be there to elect one of them.
    pub fn can_elect(&self) -> bool {
        let with_data = self.secondaries.len() + usize::from(self.primary.is_some());
        let there = with_data + self.arbiters + self.hidden;
        with_data > 0 && there * 2 > self.all
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

/// What a member says of its set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outlook {
    /// The member that it copies the oplog from.
    pub sync_source: Option<String>,
    /// It has heard from a majority of all members lately, itself included. Else it does not stand for
    /// election.
    pub hears_majority: bool,
}

impl Store {
    /// The members, and the way to hear of changes.
    pub fn topology(&self) -> Members {
        Members {
            seen: self.members.seen(),
            hidden: self.members.hidden(),
        }
    }

    /// Asks one member, and nobody in its place.
    pub async fn hello(&self, host: &str) -> Result<Greeting, StoreError> {
        let hello = self.ask_member(host, doc! {"hello": 1}).await?;
        Ok(read_greeting(&hello))
    }

    /// Whether nothing listens at a member's address any more. A member that is silent, or out of
    /// reach in another way, may live.
    pub async fn refuses(&self, host: &str) -> bool {
        let connected = timeout(KNOCK_MAX, TcpStream::connect(host)).await;
        matches!(connected, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// What the user of the connection string may not do of what helps, as MongoDB calls it.
    pub async fn missing_rights(&self) -> Result<Vec<&'static str>, StoreError> {
        let status = doc! {"connectionStatus": 1, "showPrivileges": true};
        let status = self.run(&self.vital, "admin", status);
        Ok(missing_rights(&status.await?))
    }

    /// Asks one member what it knows of its set.
    pub async fn outlook(&self, host: &str) -> Result<Outlook, StoreError> {
        let status = self.ask_member(host, doc! {"replSetGetStatus": 1}).await?;
        Ok(read_status(&status))
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
        within(COMMAND_MAX, run(&self.vital, &address, command)).await
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

fn read_greeting(hello: &Document) -> Greeting {
    let hello = HelloReply(hello);
    let applied = hello.applied();
    Greeting {
        primary: hello.role() == Role::Primary,
        term: hello.elected_in(),
        applied: applied.map_or((0, 0, 0), |(at, term)| (term, at.time, at.increment)),
    }
}

fn read_status(status: &Document) -> Outlook {
    let is_heard = |member: &&Document| member.get_f64("health").is_ok_and(|health| health > 0.0);
    let heard = members(Some(status)).filter(is_heard).count();
    Outlook {
        sync_source: sync_source(status),
        hears_majority: heard * 2 > members(Some(status)).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::Timestamp;
    use bson::oid::ObjectId;

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
            "lastWrite": {"opTime": {"ts": ts, "t": 7_i64}},
        };
        let greeting = read_greeting(&hello);
        assert!(greeting.primary);
        assert_eq!((greeting.term, greeting.applied), (Some(7), (7, 5, 2)));

        let other = read_greeting(&doc! {"isWritablePrimary": false});
        assert_eq!((other.term, other.applied), (None, (0, 0, 0)));
    }

    fn sight(kinds: &[ServerType]) -> Sight {
        let members = kinds.iter().zip(1..).map(|(kind, port)| {
            let address = ServerAddress::parse(format!("m:{port}")).unwrap();
            (address, *kind)
        });
        Sight::of(&members.collect::<Vec<_>>(), 0)
    }

    #[test]
    fn arbiters_that_answer_are_voters_and_hold_no_data() {
        use ServerType::{RsArbiter, RsPrimary, RsSecondary, Unknown};
        let whole = sight(&[RsPrimary, RsSecondary, RsArbiter]);
        assert_eq!((whole.arbiters, whole.all), (1, 3));
        assert_eq!(whole.primary.as_deref(), Some("m:1"));
        assert_eq!(whole.secondaries, ["m:2"]);
        assert!(sight(&[Unknown, RsSecondary, RsArbiter]).can_elect());
        assert!(!sight(&[Unknown, RsSecondary, Unknown]).can_elect());
        assert!(!sight(&[Unknown, Unknown, RsArbiter]).can_elect());
        assert!(sight(&[Unknown, RsSecondary, RsSecondary]).can_elect());
        assert!(!sight(&[Unknown, RsArbiter, RsArbiter]).can_elect());
        assert!(!sight(&[]).can_elect());
    }

    #[test]
    fn a_hidden_member_may_vote() {
        let left = [(
            ServerAddress::parse("m:1").unwrap(),
            ServerType::RsSecondary,
        )];
        let gone = (ServerAddress::parse("m:2").unwrap(), ServerType::Unknown);
        let members = [left[0].clone(), gone];
        assert!(!Sight::of(&members, 0).can_elect());
        assert!(Sight::of(&members, 1).can_elect());
        assert!(!Sight::of(&members[1..], 2).can_elect(), "nobody to elect");
    }

    #[test]
    fn a_member_that_hears_of_itself_alone_hears_no_majority() {
        let status = |health: [f64; 3]| {
            let members = health.map(|health| doc! {"health": health});
            doc! {"syncSourceHost": "a:1", "members": members.to_vec()}
        };
        let outlook = read_status(&status([1.0, 0.0, 1.0]));
        assert_eq!(outlook.sync_source.as_deref(), Some("a:1"));
        assert!(outlook.hears_majority);
        assert!(!read_status(&status([0.0, 0.0, 1.0])).hears_majority);
        let nowhere = read_status(&doc! {"syncSourceHost": "", "members": []});
        assert_eq!((nowhere.sync_source, nowhere.hears_majority), (None, false));
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
