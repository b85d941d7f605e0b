//! The members of the replica set as this process sees them: state, progress, round trip.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use futures_util::future::join_all;
use mongodb::options::{ReadConcern, ReadPreference, SelectionCriteria, ServerAddress};
use mongodb::{Client, ServerType};
use tracing::info;

use super::codes::UNAUTHORIZED;
use super::gate::Gate;
use super::hello::{HelloReply, Role};
use super::log::Tail;
use super::nearest::only;
use super::sightings::Seen;
use super::{Store, StoreError, log_of, within};
use crate::model::limits::MEMBER_LOOK_MAX;

/// How long a member may take for a short command.
const MEMBER_CALL_MAX: Duration = Duration::from_secs(2);
/// The state of a member that does not answer.
const DOWN: &str = "down";

/// What one look at a member found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberLook {
    pub host: String,
    /// `primary`, `secondary`, `down`, or MongoDB's name of any other state in lower case.
    pub state: String,
    /// When the last write that it has applied was made, in milliseconds since 1970. In whole
    /// seconds where the user may not run `replSetGetStatus`.
    pub applied_ms: Option<i64>,
    pub round_trip: Option<Duration>,
    /// The member that it copies the oplog from.
    pub sync_source: Option<String>,
    /// The newest term it knows.
    pub term: Option<i64>,
    /// Its place in the set's configuration, from 0.
    pub index: Option<usize>,
    /// What sets it apart, if the set's configuration was read and says that something does.
    pub apart: Option<Apart>,
}

/// A member that clients do not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Apart {
    pub hidden: bool,
    /// How far behind it is held on purpose, in seconds.
    pub delay: i64,
    /// It takes part in elections.
    pub votes: bool,
}

/// The members to look at.
#[derive(Debug, Clone)]
pub(super) struct Members {
    seen: Seen,
    /// The node's log says once that a privilege is missing.
    told: Arc<AtomicBool>,
    /// How many vote that the driver never hears of, by the configuration that was read last.
    hidden: Arc<AtomicUsize>,
}

impl Members {
    pub(super) fn new(seen: Seen) -> Self {
        Self {
            seen,
            told: Arc::default(),
            hidden: Arc::default(),
        }
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.clone()
    }

    pub(super) fn hidden(&self) -> Arc<AtomicUsize> {
        self.hidden.clone()
    }
}

impl Store {
    /// All members of the set's configuration: those that the driver knows, and those that it never
    /// hears of, since they are hidden from clients. What the others say stands for these.
    pub async fn all_members(&self) -> Vec<MemberLook> {
        let config = within(MEMBER_LOOK_MAX, self.config());
        let ((mut looks, standings), config) = tokio::join!(self.look_at_members(), config);
        for (index, (host, apart)) in config.iter().flat_map(set_apart).enumerate() {
            match looks.iter_mut().find(|look| look.host == host) {
                Some(look) => look.apart = apart,
                None if apart.is_some_and(|apart| apart.hidden) => {
                    let mut look = silent(host, ServerType::RsOther, &standings);
                    look.apart = apart;
                    look.index = Some(index);
                    looks.push(look);
                }
                // It has just been added; the driver will see it.
                None => {}
            }
        }
        looks
    }

    /// Looks at all members that the driver knows at once, at each straight and for at most
    /// [`MEMBER_LOOK_MAX`].
    pub async fn members(&self) -> Vec<MemberLook> {
        self.look_at_members().await.0
    }

    async fn look_at_members(&self) -> (Vec<MemberLook>, Standings) {
        let seen = self.members.seen.borrow().clone();
        let asked = join_all(seen.iter().map(|(address, kind)| self.ask(address, *kind))).await;
        // What the primary says of the others is the newest.
        let mut answers: Vec<_> = asked.iter().flatten().collect();
        answers.sort_by_key(|answer| answer.state == "primary");
        let standings = answers
            .into_iter()
            .flat_map(|answer| answer.standings.clone());
        let standings: Standings = standings.collect();
        let looks = seen.iter().zip(asked).map(|((address, kind), answer)| {
            let host = address.to_string();
            match answer {
                Some(answer) => answer.into_look(host),
                None => silent(host, *kind, &standings),
            }
        });
        let looks = looks.collect();
        (looks, standings)
    }

    /// Reads which members are hidden from clients. They vote, and clients are not told of them.
    pub async fn learn_hidden(&self) -> Result<(), StoreError> {
        let config = self.config().await?;
        let hidden = set_apart(&config)
            .into_iter()
            .filter(|(_, apart)| apart.is_some_and(|apart| apart.hidden && apart.votes));
        self.members.hidden.store(hidden.count(), Ordering::Relaxed);
        Ok(())
    }

    /// The set's configuration, as any member holds it.
    async fn config(&self) -> Result<Document, StoreError> {
        let anyone = ReadPreference::PrimaryPreferred { options: None };
        let call = |client: Client| async move {
            let admin = client.database("admin");
            let get = admin.run_command(doc! {"replSetGetConfig": 1});
            get.selection_criteria(SelectionCriteria::ReadPreference(anyone))
                .await
        };
        let mut reply = match self.vital.call(MEMBER_CALL_MAX, call).await {
            Err(error) if error.code() == Some(UNAUTHORIZED) => {
                self.tell_unauthorized();
                return Err(error);
            }
            other => other?,
        };
        match reply.remove("config") {
            Some(Bson::Document(config)) => Ok(config),
            _ => Err(StoreError::Damaged(
                "the replica set's configuration has another form".into(),
            )),
        }
    }

    /// `None` if the member does not answer, or is one that the driver sends nothing to: an arbiter,
    /// or one that starts or recovers.
    async fn ask(&self, address: &ServerAddress, kind: ServerType) -> Option<Answer> {
        if is_set_apart(kind) {
            return None;
        }
        let asking = async {
            match self.ask_once(address).await {
                // The connection may be of a process that has ended, and the member back already.
                Err(StoreError::Unavailable(_)) => self.ask_once(address).await,
                other => other,
            }
        };
        within(MEMBER_LOOK_MAX, asking).await.ok()
    }

    async fn ask_once(&self, address: &ServerAddress) -> Result<Answer, StoreError> {
        let status = match run(&self.vital, address, doc! {"replSetGetStatus": 1}).await {
            Ok(status) => Some(status),
            Err(error) if error.code() == Some(UNAUTHORIZED) => {
                self.tell_unauthorized();
                None
            }
            Err(error) => return Err(error),
        };
        // The connection is open by now: this is the round trip alone.
        let begun = Instant::now();
        let hello = run(&self.vital, address, doc! {"hello": 1}).await?;
        Ok(Answer::read(
            HelloReply(&hello),
            status.as_ref(),
            begun.elapsed(),
        ))
    }

    fn tell_unauthorized(&self) {
        if !self.members.told.swap(true, Ordering::Relaxed) {
            info!(
                "the MongoDB user may not run replSetGetStatus and replSetGetConfig: the status lacks \
                 sync sources and hidden members, and its lags are in whole seconds; the role \
                 clusterMonitor allows it"
            );
        }
    }

    /// The end of the log as a majority held it a moment ago; for display, and cheap. Without a
    /// primary a secondary tells it, which may be behind.
    pub async fn recent_tail(&self) -> Result<Tail, StoreError> {
        let anyone = ReadPreference::PrimaryPreferred { options: None };
        let find = |client: Client| async move {
            let log = log_of(&client);
            let find = log.find_one(Tail::anywhere()).sort(doc! {"_id": -1});
            let find = find.projection(Tail::projection());
            let find = find.read_concern(ReadConcern::majority());
            find.selection_criteria(SelectionCriteria::ReadPreference(anyone))
                .await
        };
        let last = self.vital.call(MEMBER_LOOK_MAX, find);
        Tail::of(last.await?.as_ref())
    }
}

/// Sends a command to this member, and waits for its reply for at most [`MEMBER_CALL_MAX`].
pub(super) async fn run(
    gate: &Gate,
    address: &ServerAddress,
    command: Document,
) -> Result<Document, StoreError> {
    let only = only(address);
    let call = |client: Client| async move {
        let admin = client.database("admin");
        admin.run_command(command).selection_criteria(only).await
    };
    gate.call(MEMBER_CALL_MAX, call).await
}

/// Members that the driver knows and sends nothing to.
fn is_set_apart(kind: ServerType) -> bool {
    matches!(
        kind,
        ServerType::RsArbiter | ServerType::RsOther | ServerType::RsGhost
    )
}

/// A member without an answer: the others say what it does, if the driver reaches it.
fn silent(host: String, kind: ServerType, standings: &Standings) -> MemberLook {
    let standing = standings.get(&host).filter(|_| is_set_apart(kind));
    let state = match standing {
        _ if !is_set_apart(kind) => DOWN,
        Some(standing) => &standing.state,
        None if kind == ServerType::RsArbiter => "arbiter",
        None => "other",
    };
    MemberLook {
        state: state.to_owned(),
        host,
        applied_ms: standing.and_then(|standing| standing.applied_ms),
        round_trip: None,
        sync_source: standing.and_then(|standing| standing.sync_source.clone()),
        term: None,
        index: None,
        apart: None,
    }
}

/// The hosts in the order of the configuration, and what sets each apart.
fn set_apart(config: &Document) -> Vec<(String, Option<Apart>)> {
    let number = |value: &Bson| value.as_i64().or(value.as_i32().map(i64::from));
    let of = |member: &Document| {
        let hidden = member.get_bool("hidden").unwrap_or(false);
        let delay = member.get("secondaryDelaySecs").and_then(number);
        let apart = Apart {
            hidden,
            delay: delay.unwrap_or(0),
            votes: member.get("votes").and_then(number) != Some(0),
        };
        let host = member.get_str("host").ok()?.to_owned();
        Some((host, (apart.hidden || apart.delay > 0).then_some(apart)))
    };
    members(Some(config)).filter_map(of).collect()
}

/// What members say of each other, by host.
type Standings = BTreeMap<String, Standing>;

#[derive(Debug, Clone, PartialEq)]
struct Standing {
    state: String,
    applied_ms: Option<i64>,
    sync_source: Option<String>,
}

impl Standing {
    fn read(member: &Document) -> Option<Self> {
        let state = member.get_str("stateStr").ok()?;
        let unheard = member.get_f64("health").is_ok_and(|health| health <= 0.0);
        let at = member.get_datetime("lastAppliedWallTime").ok();
        let source = member.get_str("syncSourceHost").ok();
        Some(Self {
            state: match unheard {
                true => DOWN.to_owned(),
                false => state.to_lowercase(),
            },
            applied_ms: at.map(|at| at.timestamp_millis()).filter(|_| !unheard),
            sync_source: source.filter(|host| !host.is_empty()).map(str::to_owned),
        })
    }
}

/// What a member says of itself and of the others.
#[derive(Debug, PartialEq)]
struct Answer {
    state: String,
    applied_ms: Option<i64>,
    round_trip: Duration,
    sync_source: Option<String>,
    term: Option<i64>,
    index: Option<usize>,
    standings: Standings,
}

impl Answer {
    fn read(hello: HelloReply<'_>, status: Option<&Document>, round_trip: Duration) -> Self {
        let optimes = status.and_then(|status| status.get_document("optimes").ok());
        let exactly = optimes.and_then(|optimes| optimes.get_datetime("lastAppliedWallTime").ok());
        let at = exactly.copied().or(hello.applied_at());
        Self {
            state: state(hello, status),
            applied_ms: at.map(bson::DateTime::timestamp_millis),
            round_trip,
            sync_source: status.and_then(sync_source),
            term: status
                .and_then(|status| status.get_i64("term").ok())
                .or(hello.applied().map(|(_, term)| term)),
            index: members(status).position(is_self),
            standings: members(status)
                .filter_map(|member| {
                    let host = member.get_str("name").ok()?;
                    Some((host.to_owned(), Standing::read(member)?))
                })
                .collect(),
        }
    }

    fn into_look(self, host: String) -> MemberLook {
        MemberLook {
            host,
            state: self.state,
            applied_ms: self.applied_ms,
            round_trip: Some(self.round_trip),
            sync_source: self.sync_source,
            term: self.term,
            index: self.index,
            apart: None,
        }
    }
}

fn state(hello: HelloReply<'_>, status: Option<&Document>) -> String {
    match hello.role() {
        Role::Primary => return "primary".into(),
        Role::Secondary => return "secondary".into(),
        Role::Other => {}
    }
    let own = members(status).find(|member| is_self(member));
    let state = own.and_then(|member| member.get_str("stateStr").ok());
    // One that steps up or down is neither for a moment, whatever it calls itself.
    match state {
        None | Some("PRIMARY" | "SECONDARY") => "other".into(),
        Some(state) => state.to_lowercase(),
    }
}

fn is_self(member: &Document) -> bool {
    member.get_bool("self").unwrap_or(false)
}

/// From whom a member copies, by its `replSetGetStatus`.
pub(super) fn sync_source(status: &Document) -> Option<String> {
    let source = status.get_str("syncSourceHost").ok();
    source.filter(|host| !host.is_empty()).map(str::to_owned)
}

pub(super) fn members(status: Option<&Document>) -> impl Iterator<Item = &Document> {
    let members = status.and_then(|status| status.get_array("members").ok());
    members
        .into_iter()
        .flatten()
        .filter_map(|member| member.as_document())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{DateTime, Timestamp};

    fn hello() -> Document {
        let ts = Timestamp {
            time: 7,
            increment: 1,
        };
        doc! {
            "isWritablePrimary": false, "secondary": true,
            "lastWrite": {"opTime": {"ts": ts, "t": 4_i64}, "lastWriteDate": DateTime::from_millis(7_000)},
        }
    }

    fn status() -> Document {
        doc! {
            "term": 5_i64, "syncSourceHost": "a:1",
            "optimes": {"lastAppliedWallTime": DateTime::from_millis(7_123)},
            "members": [
                {"name": "a:1", "stateStr": "PRIMARY"},
                {"name": "b:1", "stateStr": "SECONDARY", "self": true},
                {"name": "c:1", "stateStr": "STARTUP2"},
            ],
        }
    }

    #[test]
    fn a_member_tells_its_progress_to_the_millisecond_if_it_may() {
        let answer = Answer::read(
            HelloReply(&hello()),
            Some(&status()),
            Duration::from_millis(1),
        );
        assert_eq!(answer.state, "secondary");
        assert_eq!((answer.applied_ms, answer.term), (Some(7_123), Some(5)));
        assert_eq!(answer.sync_source.as_deref(), Some("a:1"));
        assert_eq!(answer.index, Some(1));

        let answer = Answer::read(HelloReply(&hello()), None, Duration::from_millis(1));
        assert_eq!((answer.applied_ms, answer.term), (Some(7_000), Some(4)));
        assert_eq!(answer.sync_source, None);

        let mut alone = status();
        alone.insert("syncSourceHost", "");
        let answer = Answer::read(HelloReply(&hello()), Some(&alone), Duration::from_millis(1));
        assert_eq!(answer.sync_source, None);
    }

    #[test]
    fn a_state_that_is_neither_has_mongodbs_name() {
        let hello = doc! {"isWritablePrimary": false, "secondary": false};
        let mut status = status();
        assert_eq!(state(HelloReply(&hello), Some(&status)), "other");
        let recovering = doc! {"name": "b:1", "stateStr": "RECOVERING", "self": true};
        status.insert("members", vec![recovering]);
        assert_eq!(state(HelloReply(&hello), Some(&status)), "recovering");
        assert_eq!(state(HelloReply(&hello), None), "other");
    }

    #[test]
    fn a_silent_member_is_down_unless_the_driver_reaches_it() {
        let standings =
            Answer::read(HelloReply(&hello()), Some(&status()), Duration::ZERO).standings;
        let state = |host: &str, kind| silent(host.into(), kind, &standings).state;
        assert_eq!(state("b:1", ServerType::RsSecondary), "down");
        assert_eq!(state("a:1", ServerType::Unknown), "down");
        assert_eq!(state("c:1", ServerType::RsOther), "startup2");
        assert_eq!(state("d:1", ServerType::RsArbiter), "arbiter");
        assert_eq!(state("d:1", ServerType::RsOther), "other");
    }
}
