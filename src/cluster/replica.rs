//! Brings a replica set from started members to a primary that Drumline can log in to.
//!
//! Every step looks before it acts, so that a start that was cut off anywhere is completed by the
//! next one.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::sleep;

use super::error::Error;
use super::report::Console;
use super::secrets::{NODE_USER, Secrets, USER};
use super::spec::Spec;
use crate::config::Secret;
use crate::store::admin::{AdminError, Hello, Login, Member, Role, Seed, Timing};

/// The longest that any one step may take; a slow disk needs some seconds.
const STEP_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(25);
/// A new set learns of itself by heartbeats and elects its first primary after the election
/// time-out: with MongoDB's defaults it needs ten seconds more.
const TIMING_AT_BIRTH: Timing = Timing {
    election: Duration::from_millis(500),
    heartbeat: Duration::from_millis(100),
};
/// Set as soon as there is a primary. A secondary whose sync source stands still lets go of it after
/// half of the election time-out and [`FETCH_BUFFER_SECONDS`](super::member::FETCH_BUFFER_SECONDS);
/// until then a majority holds no write, if the other member is the one that stands still. With
/// MongoDB's 10 s that is 6 s or more, and elections without help begin after 10 s.
const TIMING: Timing = Timing {
    election: Duration::from_millis(2_400),
    heartbeat: Duration::from_millis(250),
};

/// The replica set that shall be there.
struct Wanted<'a> {
    set: String,
    hosts: Vec<String>,
    /// What the members are called in messages.
    names: Vec<String>,
    /// Who may do everything in it.
    admin: Login<'a>,
    /// The user that nodes log in as.
    node: Login<'a>,
    /// How the members are entered before there is a user; `None` is the localhost exception, by
    /// which the first user is made.
    entry: Option<Login<'a>>,
}

/// Makes the replica set of a local cluster ready: initiated, with a primary, a user, and all
/// members in step.
pub async fn bring_up(spec: &Spec, secrets: &Secrets, console: &Console) -> Result<(), Error> {
    let wanted = Wanted {
        set: spec.replica_set(),
        hosts: spec.hosts(),
        names: spec.members.iter().map(|m| m.name.clone()).collect(),
        admin: Login::of_user(USER, &secrets.password),
        node: Login::of_user(NODE_USER, &secrets.node_password),
        entry: None,
    };
    make_ready(&wanted, console).await
}

/// Makes the replica set that a connection string describes ready, with the user that it names.
/// The members run already and are entered with the keyfile that they share.
pub async fn initiate(mongodb_uri: &Secret, keyfile: &Secret) -> Result<(), Error> {
    let seed = Seed::parse(mongodb_uri.expose()).map_err(Error::Usage)?;
    let members = Login::of_members(keyfile.expose());
    let wanted = Wanted {
        set: seed.set,
        names: seed.hosts.clone(),
        hosts: seed.hosts,
        admin: members,
        node: Login::of_user(&seed.user, &seed.password),
        entry: Some(members),
    };
    make_ready(&wanted, &Console::new()).await
}

async fn make_ready(wanted: &Wanted<'_>, console: &Console) -> Result<(), Error> {
    let set = ReplicaSet::reach(wanted).await?;
    console.step(&format!("listening: {}", wanted.names.join(", ")));
    let new = set.initiate().await?;
    if new {
        console.step(&format!("replica set {} initiated", wanted.set));
    }
    set.wait_for_members().await?;
    let primary = set.wait_for_primary(new).await?;
    set.settle(primary).await?;
    let name = &wanted.names[primary];
    console.step(&format!("{name} is primary, every member is in step"));
    Ok(())
}

struct ReplicaSet<'a> {
    wanted: &'a Wanted<'a>,
    members: Vec<Member>,
}

impl<'a> ReplicaSet<'a> {
    async fn reach(wanted: &'a Wanted<'a>) -> Result<Self, Error> {
        let mut members = Vec::new();
        for host in &wanted.hosts {
            // The driver looks again after half a second at the earliest: knock first.
            let knock = async || TcpStream::connect(host).await.is_ok().then_some(());
            wait_until(&format!("{host} to listen"), knock).await?;
            members.push(Member::open(host, wanted.entry).map_err(asking("connect to a member"))?);
        }
        Ok(Self { wanted, members })
    }

    /// Initiates the set if no member belongs to it yet.
    async fn initiate(&self) -> Result<bool, Error> {
        for member in &self.members {
            let hello = member.hello().await.map_err(asking("ask a member"))?;
            if hello.set.is_some() {
                return Ok(false);
            }
        }
        self.members[0]
            .initiate(&self.wanted.set, &self.wanted.hosts, TIMING_AT_BIRTH)
            .await
            .map_err(asking("initiate the replica set"))?;
        Ok(true)
    }

    async fn hellos(&self) -> Result<Vec<Hello>, AdminError> {
        let mut hellos = Vec::new();
        for member in &self.members {
            hellos.push(member.hello().await?);
        }
        Ok(hellos)
    }

    /// Waits until every member can vote and holds the data.
    async fn wait_for_members(&self) -> Result<(), Error> {
        let joined = async || {
            let hellos = self.hellos().await.ok()?;
            hellos.iter().all(|h| h.role != Role::Other).then_some(())
        };
        wait_until("all members to join the replica set", joined).await
    }

    /// Waits for a primary. A set that starts again has the long election time-out, so the member
    /// that is furthest ahead is asked to stand; a new set has no user yet who could ask.
    async fn wait_for_primary(&self, new: bool) -> Result<usize, Error> {
        let elected = async || {
            let hellos = self.hellos().await.ok()?;
            let primary = hellos.iter().position(|h| h.role == Role::Primary);
            if primary.is_none() && !new {
                self.nominate(&hellos).await;
            }
            primary
        };
        wait_until("the replica set to elect a primary", elected).await
    }

    /// A refusal changes nothing: the members then elect by themselves, later.
    async fn nominate(&self, hellos: &[Hello]) {
        let furthest = (0..hellos.len()).max_by_key(|&at| hellos[at].applied);
        let Some(host) = furthest.map(|at| self.members[at].host()) else {
            return;
        };
        if let Ok(candidate) = Member::open(host, Some(self.wanted.admin)) {
            let _ = candidate.step_up().await;
        }
    }

    /// Makes the users if the set has none, and gives the set its lasting timing.
    async fn settle(&self, primary: usize) -> Result<(), Error> {
        let member = &self.members[primary];
        if self.wanted.entry.is_none() {
            member
                .create_user(self.wanted.admin)
                .await
                .map_err(asking("make the first user in the replica set"))?;
        }
        let primary = Member::open(member.host(), Some(self.wanted.admin))
            .map_err(asking("reach the primary"))?;
        let making = "make the nodes' user in the replica set";
        primary.keep_node_role().await.map_err(asking(making))?;
        let kept = primary.keep_node_user(self.wanted.node).await;
        kept.map_err(asking(making))?;
        primary
            .set_timing(TIMING)
            .await
            .map_err(asking("set the replica set's election time-out"))
    }
}

fn asking(what: &str) -> impl FnOnce(AdminError) -> Error {
    let what = format!("cannot {what}");
    move |source| Error::ReplicaSet { what, source }
}

/// Polls until there is a value, within [`STEP_MAX`].
pub(super) async fn wait_until<T, F>(why: &str, mut ask: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Option<T>>,
{
    let end = Instant::now() + STEP_MAX;
    loop {
        if let Some(value) = ask().await {
            return Ok(value);
        }
        if Instant::now() > end {
            let seconds = STEP_MAX.as_secs();
            return Err(Error::Failed(format!(
                "waited {seconds} s in vain for {why}; the members' logs may tell more"
            )));
        }
        sleep(POLL).await;
    }
}
