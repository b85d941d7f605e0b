//! Making a replica set ready for use: initiate, the first user, waiting for a primary.
//!
//! Each call goes to one member, directly, and is bounded in time.

use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::Client;
use mongodb::error::{Error as DriverError, ErrorKind};
use mongodb::options::{ClientOptions, ConnectionString, Credential, HostInfo, ServerAddress};

use super::codes::{MAX_TIME_EXPIRED, UNAUTHORIZED};
use super::hello::HelloReply;
pub use super::hello::Role;

/// The longest that one call may take. Starting members answer slowly, but they answer.
const CALL_MAX: Duration = Duration::from_secs(10);
/// MongoDB's code for a replica set that exists already.
const ALREADY_INITIALIZED: i32 = 23;
/// How long a changed configuration is waited for.
const CONFIRM_MAX: Duration = Duration::from_millis(100);
/// MongoDB's code for a user who exists.
const USER_EXISTS: i32 = 51003;
/// MongoDB's code for a role that exists.
const ROLE_EXISTS: i32 = 51002;

/// The role of nodes, in the database `admin`.
pub const NODE_ROLE: &str = "drumlineNode";
/// What a node does beside reading and writing: it reads the state of the set and of the sessions;
/// ends the transactions of nodes and commands that have died; and helps over the loss of a member.
const NODE_ROLES: [&str; 2] = ["readWriteAnyDatabase", "clusterMonitor"];
const NODE_ACTIONS: [&str; 4] = [
    "killAnySession",
    "replSetStateChange",
    "appendOplogNote",
    "setParameter",
];

/// Why a member did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("{host} did not answer `{command}` within {} s", CALL_MAX.as_secs())]
    TimedOut { host: String, command: String },
    #[error("{host} refused `{command}`: {message} (code {code})")]
    Refused {
        host: String,
        command: String,
        code: i32,
        message: String,
    },
    #[error("{host} could not be asked: {message}")]
    Unreachable { host: String, message: String },
}

impl AdminError {
    fn code(&self) -> Option<i32> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The replica set it belongs to; `None` before that is initiated.
    pub set: Option<String>,
    pub role: Role,
    /// The host of the primary it knows.
    pub primary: Option<String>,
    /// How far it has applied the oplog.
    pub applied: (u32, u32),
}

/// A user name and its password.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    user: &'a str,
    password: &'a str,
    /// The database that knows the user.
    source: &'a str,
}

impl<'a> Login<'a> {
    pub fn of_user(user: &'a str, password: &'a str) -> Self {
        Self {
            user,
            password,
            source: "admin",
        }
    }

    /// The login of members among themselves, whose password is what their keyfile holds. It may
    /// do everything, in a set that is not initiated yet too.
    pub fn of_members(keyfile: &'a str) -> Self {
        Self {
            user: "__system",
            password: keyfile,
            source: "local",
        }
    }
}

impl std::fmt::Debug for Login<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({}@{})", self.user, self.source)
    }
}

/// What a connection string tells of a replica set: enough to make it.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed {
    pub set: String,
    pub hosts: Vec<String>,
    pub user: String,
    pub password: String,
}

impl Seed {
    /// Reads a `mongodb://` connection string. The error says what it lacks, and shows none of it.
    pub fn parse(uri: &str) -> Result<Self, String> {
        let lacks = |what| format!("the connection string lacks {what}");
        let Ok(parsed) = ConnectionString::parse(uri) else {
            return Err("the connection string cannot be read".to_owned());
        };
        let HostInfo::HostIdentifiers(hosts) = parsed.host_info else {
            return Err(
                "the connection string must list its hosts: mongodb://HOST:PORT,...".into(),
            );
        };
        let credential = parsed.credential.unwrap_or_default();
        Ok(Self {
            set: parsed.replica_set.ok_or_else(|| lacks("?replicaSet="))?,
            hosts: hosts.iter().map(ToString::to_string).collect(),
            user: credential.username.ok_or_else(|| lacks("a user"))?,
            password: credential.password.ok_or_else(|| lacks("a password"))?,
        })
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seed({} on {})", self.set, self.hosts.join(","))
    }
}

/// The times by which the members of a replica set watch each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a silent primary is waited for.
    pub election: Duration,
    pub heartbeat: Duration,
}

impl Timing {
    fn settings(self) -> Document {
        doc! {
            "electionTimeoutMillis": millis(self.election),
            "heartbeatIntervalMillis": millis(self.heartbeat),
        }
    }
}

/// A direct connection to one member.
#[derive(Debug, Clone)]
pub struct Member {
    host: String,
    client: Client,
}

impl Member {
    /// Prepares a connection, without a login through MongoDB's localhost exception. Nothing is
    /// sent yet.
    pub fn open(host: &str, login: Option<Login<'_>>) -> Result<Self, AdminError> {
        let unreachable = |error: DriverError| AdminError::Unreachable {
            host: host.to_owned(),
            message: error.to_string(),
        };
        let mut options = ClientOptions::default();
        options.hosts = vec![ServerAddress::parse(host).map_err(unreachable)?];
        options.direct_connection = Some(true);
        options.app_name = Some("drumline up".to_owned());
        options.connect_timeout = Some(Duration::from_secs(2));
        options.server_selection_timeout = Some(Duration::from_secs(2));
        options.credential = login.map(|login| {
            Credential::builder()
                .username(login.user.to_owned())
                .password(login.password.to_owned())
                .source(login.source.to_owned())
                .build()
        });
        Ok(Self {
            host: host.to_owned(),
            client: Client::with_options(options).map_err(unreachable)?,
        })
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub async fn hello(&self) -> Result<Hello, AdminError> {
        Ok(read_hello(&self.run(doc! {"hello": 1}).await?))
    }

    /// Initiates the replica set, unless it is already.
    pub async fn initiate(
        &self,
        set: &str,
        hosts: &[String],
        timing: Timing,
    ) -> Result<(), AdminError> {
        let members: Vec<Bson> = (0_i32..)
            .zip(hosts)
            .map(|(id, host)| doc! {"_id": id, "host": host}.into())
            .collect();
        let config = doc! {
            "_id": set,
            "members": members,
            "settings": timing.settings(),
        };
        match self.run(doc! {"replSetInitiate": config}).await {
            Err(error) if error.code() == Some(ALREADY_INITIALIZED) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Makes the role of nodes, or gives it the rights that it has today.
    pub async fn keep_node_role(&self) -> Result<(), AdminError> {
        self.make_or_update("Role", node_role(), ROLE_EXISTS).await
    }

    /// Makes the user that nodes log in as, who may do what a node does; one who is there keeps his
    /// password and may do no more from now on.
    pub async fn keep_node_user(&self, login: Login<'_>) -> Result<(), AdminError> {
        let user = doc! {
            "name": login.user,
            "pwd": login.password,
            "roles": [{"role": NODE_ROLE, "db": "admin"}],
        };
        self.make_or_update("User", user, USER_EXISTS).await
    }

    async fn make_or_update(
        &self,
        what: &str,
        mut content: Document,
        exists: i32,
    ) -> Result<(), AdminError> {
        let name = content.remove("name").unwrap_or_default();
        content.insert(
            "writeConcern",
            doc! {"w": "majority", "wtimeout": millis(CALL_MAX)},
        );
        let mut create = doc! {format!("create{what}"): name.clone()};
        create.extend(content.clone());
        match self.run(create).await {
            Err(error) if error.code() == Some(exists) => {}
            result => return result.map(drop),
        }
        content.remove("pwd");
        let mut update = doc! {format!("update{what}"): name};
        update.extend(content);
        self.run(update).await.map(drop)
    }

    /// Makes the first user, who may do everything, unless there is a user already. The localhost
    /// exception ends with the first user: then MongoDB refuses.
    pub async fn create_user(&self, login: Login<'_>) -> Result<(), AdminError> {
        let command = doc! {
            "createUser": login.user,
            "pwd": login.password,
            "roles": ["root"],
            "writeConcern": {"w": "majority", "wtimeout": millis(CALL_MAX)},
        };
        match self.run(command).await {
            Err(error) if matches!(error.code(), Some(UNAUTHORIZED | USER_EXISTS)) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Asks the member to stand for primary now. It refuses when it cannot win.
    pub async fn step_up(&self) -> Result<(), AdminError> {
        self.run(doc! {"replSetStepUp": 1}).await.map(drop)
    }

    /// Sets the times by which members watch each other, if they are not so already. Does not wait
    /// for a majority to confirm: it has the new times at once, but says so with its next, now
    /// slower heartbeat. Were they lost with this primary, the next start would set them again.
    pub async fn set_timing(&self, timing: Timing) -> Result<(), AdminError> {
        let mut reply = self.run(doc! {"replSetGetConfig": 1}).await?;
        let Some(Bson::Document(mut config)) = reply.remove("config") else {
            return Err(self.odd("replSetGetConfig"));
        };
        let version = config.get("version").and_then(integer).unwrap_or(1);
        let settings = config
            .get_document_mut("settings")
            .map_err(|_| self.odd("replSetGetConfig"))?;
        let wanted = timing.settings();
        let same =
            |key: &String| settings.get(key).and_then(integer) == wanted.get(key).and_then(integer);
        if wanted.keys().all(same) {
            return Ok(());
        }
        settings.extend(wanted);
        config.insert("version", version + 1);
        let command = doc! {"replSetReconfig": config, "maxTimeMS": millis(CONFIRM_MAX)};
        match self.run(command).await {
            Err(error) if error.code() == Some(MAX_TIME_EXPIRED) => Ok(()),
            result => result.map(drop),
        }
    }

    async fn run(&self, command: Document) -> Result<Document, AdminError> {
        let name = command.keys().next().cloned().unwrap_or_default();
        let admin = self.client.database("admin");
        match tokio::time::timeout(CALL_MAX, admin.run_command(command)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(self.explain(name, &error)),
            Err(_) => Err(AdminError::TimedOut {
                host: self.host.clone(),
                command: name,
            }),
        }
    }

    fn explain(&self, command: String, error: &DriverError) -> AdminError {
        let host = self.host.clone();
        match error.kind.as_ref() {
            ErrorKind::Command(refusal) => AdminError::Refused {
                host,
                command,
                code: refusal.code,
                message: refusal.message.clone(),
            },
            _ => AdminError::Unreachable {
                host,
                message: error.to_string(),
            },
        }
    }

    fn odd(&self, command: &str) -> AdminError {
        AdminError::Unreachable {
            host: self.host.clone(),
            message: format!("its answer to `{command}` has an unknown form"),
        }
    }
}

/// The role of nodes, as MongoDB's commands take it but for the name of the command.
fn node_role() -> Document {
    let roles = NODE_ROLES.map(|role| doc! {"role": role, "db": "admin"});
    doc! {
        "name": NODE_ROLE,
        "privileges": [{
            "resource": {"cluster": true},
            "actions": NODE_ACTIONS.to_vec(),
        }],
        "roles": roles.to_vec(),
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// MongoDB gives back small numbers as i32, as i64 or as double, as its version likes.
#[allow(clippy::cast_possible_truncation)] // a double here is a whole number of milliseconds
fn integer(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(number) => Some((*number).into()),
        Bson::Int64(number) => Some(*number),
        Bson::Double(number) => Some(*number as i64),
        _ => None,
    }
}

fn read_hello(reply: &Document) -> Hello {
    let reply = HelloReply(reply);
    let applied = reply.applied();
    Hello {
        set: reply.set_name(),
        role: reply.role(),
        primary: reply.primary_host(),
        applied: applied.map_or((0, 0), |(at, _)| (at.time, at.increment)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_describes_a_replica_set_or_says_what_it_lacks() {
        let seed = Seed::parse("mongodb://u:p%40ss@a:1,b/?replicaSet=s").unwrap();
        let hosts = vec!["a:1".to_owned(), "b:27017".to_owned()];
        assert_eq!((&*seed.set, &seed.hosts), ("s", &hosts));
        assert_eq!((&*seed.user, &*seed.password), ("u", "p@ss"));
        assert!(!format!("{seed:?}").contains("ss@"), "{seed:?}");
        for (uri, lack) in [
            ("mongodb://u:secret@a:1/", "replicaSet"),
            ("mongodb://a:1/?replicaSet=s", "a user"),
            ("mongodb+srv://u:secret@a.example/", "list its hosts"),
            ("u:secret@a:1", "cannot be read"),
        ] {
            let told = Seed::parse(uri).unwrap_err();
            assert!(told.contains(lack) && !told.contains("secret"), "{told}");
        }
    }

    #[test]
    fn the_documented_role_is_the_one_that_is_made() {
        let page = include_str!("../../docs/nodes.md");
        let (_, command) = page.split_once("db.adminCommand(").unwrap();
        let (command, _) = command.split_once("})").unwrap();
        let documented: serde_json::Value = serde_json::from_str(&format!("{command}}}")).unwrap();
        let mut expected = doc! {"createRole": NODE_ROLE};
        let mut role = node_role();
        role.remove("name");
        expected.extend(role);
        assert_eq!(documented, serde_json::to_value(expected).unwrap());
    }

    #[test]
    fn hello_tells_role_set_and_progress() {
        let ghost = read_hello(&doc! {"isWritablePrimary": false, "isreplicaset": true});
        assert_eq!((ghost.set, ghost.role), (None, Role::Other));

        let at = bson::Timestamp {
            time: 7,
            increment: 3,
        };
        let secondary = read_hello(&doc! {
            "setName": "s", "secondary": true, "primary": "h:1", "isWritablePrimary": false,
            "lastWrite": {"opTime": {"ts": at, "t": 1_i64}},
        });
        assert_eq!(secondary.role, Role::Secondary);
        assert_eq!(secondary.applied, (7, 3));
        assert_eq!(secondary.primary.as_deref(), Some("h:1"));
    }
}
