//! What is wrong with the replica set that a connection string leads to: what is seen, and the way
//! out. Judges what the survey has found; asks nobody.

use bson::{Bson, Document};
use thiserror::Error as ThisError;

use super::codes::UNAUTHORIZED;
use super::hello::{HelloReply, Role};
use super::schema::{DATABASE, GUESTS, LOG, NODES};

/// MongoDB 6.0, the oldest that is supported, speaks this version of the wire protocol.
const WIRE_VERSION_MIN: i32 = 17;
/// The oldest behaviour that a set may be held to by its `featureCompatibilityVersion`.
const COMPATIBILITY_MIN: (u32, u32) = (6, 0);
/// What MongoDB says of a user who is not let in.
const AUTHENTICATION_FAILED: i32 = 18;
/// What Drumline does with the collections of its own database.
const RIGHTS: [&str; 6] = [
    "find",
    "insert",
    "update",
    "remove",
    "createCollection",
    "createIndex",
];

/// A reason why nothing can be served on what the connection string names.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
pub enum Fault {
    #[error(
        "{0} is a standalone mongod: Drumline needs a replica set, of one member at least; start \
         mongod with --replSet NAME and run rs.initiate()"
    )]
    Standalone(String),
    #[error(
        "{0} is a mongos: Drumline serves a replica set, not a sharded cluster; name the members \
         of a replica set in the connection string"
    )]
    Mongos(String),
    #[error(
        "{host} belongs to the replica set '{found}', and the connection string says \
         replicaSet={wanted}: correct it"
    )]
    WrongSet {
        host: String,
        found: String,
        wanted: String,
    },
    #[error(
        "the connection string has directConnection=true and {0} is a secondary, which takes no \
         writes: leave directConnection out, and the driver finds the primary"
    )]
    DirectToSecondary(String),
    #[error(
        "MongoDB refuses the login at {0}: the user, the password or the authSource of the \
         connection string is wrong; special characters in them must be percent-encoded"
    )]
    WrongPassword(String),
    #[error(
        "the user of the connection string was dropped and made anew, and the connections of this \
         node are of the old one: restart the node"
    )]
    StaleLogin,
    #[error(
        "{0} demands a login and the connection string has none: write \
         mongodb://USER:PASSWORD@HOST/?authSource=admin"
    )]
    NoLogin(String),
    #[error(
        "the user of the connection string may not {} on the collections of the database \
         '{DATABASE}': grant the role readWrite on it",
        .0.join(", ")
    )]
    NoRights(Vec<&'static str>),
    #[error(
        "the replica set has writeConcernMajorityJournalDefault: false, with which a majority \
         may forget what it has acknowledged: set it to true with rs.reconfig()"
    )]
    NotJournaled,
    #[error(
        "{host} is MongoDB{}, which is too old: MongoDB 6.0 or later is needed",
        .version.as_ref().map(|version| format!(" {version}")).unwrap_or_default()
    )]
    TooOld {
        host: String,
        version: Option<String>,
    },
    #[error(
        "the featureCompatibilityVersion of the replica set is {0}, and Drumline needs 6.0 or \
         later: raise it with setFeatureCompatibilityVersion"
    )]
    OldCompatibility(String),
    #[error(
        "{0} does not support the read concern 'majority': start its mongod without \
         enableMajorityReadConcern=false"
    )]
    NoMajorityReads(String),
    #[error(
        "a restore into the replica set is not at its end ({0}): start the same `drumline restore` \
         again, which goes on where it was, and the node after it"
    )]
    HalfRestored(String),
    #[error("{0} speaks TLS alone and the connection string does not ask for it: add tls=true")]
    TlsDemanded(String),
    #[error(
        "the connection string has tls=true and {0} does not speak TLS: leave it out, or give \
         that mongod a certificate"
    )]
    TlsNotSpoken(String),
    #[error(
        "the TLS connection to {host} fails: {why}; look at tlsCAFile and \
         tlsCertificateKeyFile in the connection string"
    )]
    TlsFails { host: String, why: String },
    #[error("what answers at {host} is not MongoDB, {what}: correct the host or the port")]
    Foreign { host: String, what: &'static str },
    #[error(
        "the replica set of {0} is not initiated: run rs.initiate() on one of its members; until \
         then this is tried again"
    )]
    NotInitiated(String),
    #[error("no member of the replica set can be reached: {}", listed(.0))]
    Unreachable(Vec<(String, String)>),
    #[error(
        "the replica set has its primary at {host}, which cannot be reached from here: {why}; its \
         members must be named in rs.conf() by addresses that hold for all"
    )]
    PrimaryUnreachable { host: String, why: String },
    #[error(
        "the replica set has no primary: {}; a majority of its voting members must run and reach \
         each other",
        listed(.0)
    )]
    NoPrimary(Vec<(String, String)>),
    #[error(
        "no write can reach a majority: {needed} members that vote and hold data are needed, and \
         {up} of them are up{}; start those that are down",
        if *.arbiters > 0 { " (arbiters hold no data)" } else { "" }
    )]
    NoMajority {
        up: usize,
        needed: usize,
        arbiters: usize,
    },
}

impl Fault {
    /// Whether it stays until somebody changes the connection string or the replica set. The others
    /// may pass by themselves.
    pub const fn is_permanent(&self) -> bool {
        !matches!(
            self,
            Self::NotInitiated(_)
                | Self::Unreachable(_)
                | Self::PrimaryUnreachable { .. }
                | Self::NoPrimary(_)
                | Self::NoMajority { .. }
        )
    }

    /// Whether nothing at all can be served: a node does not start. One that may not write, or is
    /// connected to a secondary alone, still serves causal reads.
    pub const fn forbids_all(&self) -> bool {
        self.is_permanent() && !matches!(self, Self::NoRights(_) | Self::DirectToSecondary(_))
    }

    /// What a refusal of MongoDB says of the ground, if it does.
    pub(super) fn of_code(code: i32, host: &str, has_login: bool) -> Option<Self> {
        match code {
            AUTHENTICATION_FAILED => Some(Self::WrongPassword(host.to_owned())),
            UNAUTHORIZED if !has_login => Some(Self::NoLogin(host.to_owned())),
            148 => Some(Self::NoMajorityReads(host.to_owned())),
            _ => None,
        }
    }
}

fn listed(hosts: &[(String, String)]) -> String {
    let told = hosts.iter().map(|(host, why)| format!("{host} {why}"));
    told.collect::<Vec<_>>().join(", ")
}

/// What the connection string wants, apart from its hosts.
#[derive(Debug, Clone, Default)]
pub(super) struct Intent {
    pub set: Option<String>,
    pub direct: bool,
    pub has_login: bool,
}

/// What stands behind one address.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    /// A member, with its reply to `hello`.
    Member(Document),
    /// It is out of reach for now, in these words: "refuses connections".
    Nothing(String),
    Fault(Fault),
}

/// What the primary, or the only host, says to one who has logged in. What it does not tell, since
/// the user may not ask, is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Inside {
    /// The reply to `connectionStatus`.
    pub rights: Option<Document>,
    /// The reply to `replSetGetStatus`.
    pub status: Option<Document>,
    /// The set's configuration.
    pub config: Option<Document>,
    pub compatibility: Option<String>,
    /// What a restore that is not at its end has noted.
    pub restore: Option<String>,
}

/// What one `hello` gives away, whoever sent it.
pub(super) fn of_hello(host: &str, reply: &Document, intent: &Intent) -> Option<Fault> {
    let hello = HelloReply(reply);
    let host = host.to_owned();
    let wire = reply.get_i32("maxWireVersion").ok();
    if reply.get_str("msg").ok() == Some("isdbgrid") {
        return Some(Fault::Mongos(host));
    }
    // One that is too old does not even know the command.
    let unknown = reply.get_i32("code").ok() == Some(59);
    if unknown || wire.is_some_and(|wire| wire < WIRE_VERSION_MIN) {
        let version = wire.and_then(version_of).map(str::to_owned);
        return Some(Fault::TooOld { host, version });
    }
    let Some(found) = hello.set_name() else {
        return Some(match reply.get_bool("isreplicaset").unwrap_or(false) {
            true => Fault::NotInitiated(host),
            false => Fault::Standalone(host),
        });
    };
    match &intent.set {
        Some(wanted) if *wanted != found => Some(Fault::WrongSet {
            host,
            found,
            wanted: wanted.clone(),
        }),
        _ if intent.direct && hello.role() == Role::Secondary => {
            Some(Fault::DirectToSecondary(host))
        }
        _ => None,
    }
}

fn version_of(wire: i32) -> Option<&'static str> {
    Some(match wire {
        ..=5 => "3.4 or older",
        6 => "3.6",
        7 => "4.0",
        8 => "4.2",
        9 => "4.4",
        13 => "5.0",
        _ => return None,
    })
}

/// What those say of the ground who have been asked from outside. `Ok` names the primary.
pub(super) fn of_hosts(found: &[(String, Found)], intent: &Intent) -> Result<String, Fault> {
    let is_fine = |reply: &Document, host: &str| of_hello(host, reply, intent).is_none();
    let fine = || {
        found.iter().filter_map(|(host, found)| match found {
            Found::Member(reply) if is_fine(reply, host) => Some((host, HelloReply(reply))),
            _ => None,
        })
    };
    if let Some((host, _)) = fine().find(|(_, hello)| hello.role() == Role::Primary) {
        return Ok(host.clone());
    }
    let mut named = fine().filter_map(|(_, hello)| hello.primary_host());
    let silent = found.iter().filter_map(|(host, found)| match found {
        Found::Nothing(why) => Some((host.clone(), why.clone())),
        _ => None,
    });
    let silent: Vec<_> = silent.collect();
    if let Some(primary) = named.next() {
        let why = silent.iter().find(|(host, _)| *host == primary);
        if let Some((host, why)) = why.cloned() {
            return Err(Fault::PrimaryUnreachable { host, why });
        }
    }
    let others = fine().map(|(host, hello)| {
        let state = match hello.role() {
            Role::Secondary => "is a secondary",
            _ => "is neither primary nor secondary",
        };
        (host.clone(), state.to_owned())
    });
    let others: Vec<_> = others.collect();
    if !others.is_empty() {
        return Err(Fault::NoPrimary([others, silent].concat()));
    }
    let faults = found.iter().filter_map(|(host, found)| match found {
        Found::Member(reply) => of_hello(host, reply, intent),
        Found::Fault(fault) => Some(fault.clone()),
        Found::Nothing(_) => None,
    });
    // What stays tells more than what may pass.
    let worst = faults.max_by_key(Fault::is_permanent);
    Err(worst.unwrap_or(Fault::Unreachable(silent)))
}

/// What the primary itself tells, to one who is logged in.
pub(super) fn of_inside(inside: &Inside) -> Option<Fault> {
    if let Some(asked) = &inside.restore {
        return Some(Fault::HalfRestored(asked.clone()));
    }
    let missing = inside.rights.as_ref().map(missing_rights);
    if let Some(missing) = missing.filter(|missing| !missing.is_empty()) {
        return Some(Fault::NoRights(missing));
    }
    let config = inside.config.as_ref();
    let journaled =
        config.and_then(|config| config.get_bool("writeConcernMajorityJournalDefault").ok());
    if journaled == Some(false) {
        return Some(Fault::NotJournaled);
    }
    if let Some(version) = inside.compatibility.as_deref()
        && compatibility(version).is_some_and(|version| version < COMPATIBILITY_MIN)
    {
        return Some(Fault::OldCompatibility(version.to_owned()));
    }
    inside
        .status
        .as_ref()
        .and_then(|status| majority(status, config))
}

fn compatibility(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Whether those who hold data and vote are enough for a majority write. A primary that is kept by
/// an arbiter's vote may be alone with its data.
fn majority(status: &Document, config: Option<&Document>) -> Option<Fault> {
    let needed = usize::try_from(status.get_i32("writeMajorityCount").ok()?).ok()?;
    let members = || {
        let members = status.get_array("members").into_iter().flatten();
        members.filter_map(Bson::as_document)
    };
    let votes = |member: &&Document| votes(member, config);
    let in_state = |wanted: &'static [i32]| {
        let is_in = |member: &&Document| {
            let health = member.get_f64("health").unwrap_or(0.0);
            let state = member.get_i32("state").unwrap_or(-1);
            health > 0.0 && wanted.contains(&state)
        };
        members().filter(is_in)
    };
    let up = in_state(&[1, 2]).filter(votes).count();
    let arbiters = in_state(&[7]).count();
    (up < needed).then_some(Fault::NoMajority {
        up,
        needed,
        arbiters,
    })
}

fn votes(member: &Document, config: Option<&Document>) -> bool {
    let listed = config.and_then(|config| config.get_array("members").ok());
    let mut listed = listed.into_iter().flatten().filter_map(Bson::as_document);
    let same = listed.find(|one| one.get("_id") == member.get("_id"));
    same.and_then(|one| one.get_i32("votes").ok()) != Some(0)
}

/// What the user may not do with Drumline's own collections, by the reply to `connectionStatus`.
fn missing_rights(status: &Document) -> Vec<&'static str> {
    let info = status.get_document("authInfo").ok();
    let list = |name| info.and_then(|info| info.get_array(name).ok());
    // Nobody is logged in: MongoDB asks nobody for rights.
    if list("authenticatedUsers").is_none_or(Vec::is_empty) {
        return Vec::new();
    }
    let Some(privileges) = list("authenticatedUserPrivileges") else {
        return Vec::new();
    };
    let may = |right: &str| {
        let all = [LOG, GUESTS, NODES];
        all.iter().all(|collection| {
            let mut privileges = privileges.iter().filter_map(Bson::as_document);
            privileges.any(|privilege| covers(privilege, collection) && allows(privilege, right))
        })
    };
    RIGHTS.into_iter().filter(|right| !may(right)).collect()
}

fn covers(privilege: &Document, collection: &str) -> bool {
    let Ok(resource) = privilege.get_document("resource") else {
        return false;
    };
    if resource.get_bool("anyResource").unwrap_or(false) {
        return true;
    }
    let is = |key: &str, wanted: &str| {
        let told = resource.get_str(key);
        told.is_ok_and(|told| told.is_empty() || told == wanted)
    };
    is("db", DATABASE) && is("collection", collection)
}

fn allows(privilege: &Document, right: &str) -> bool {
    let actions = privilege.get_array("actions").into_iter().flatten();
    let mut actions = actions.filter_map(Bson::as_str);
    actions.any(|action| action == right || action == "anyAction")
}

#[cfg(test)]
#[path = "ground_tests.rs"]
mod tests;
