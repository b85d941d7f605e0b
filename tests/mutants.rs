//! A check of the checks: each barrier of the protocol is taken out in turn, and the checker of
//! histories must notice; for what no history shows, the comparison or the time limit that guards it.
//! Each scenario is so built that one run shows the mistake; none needs luck.
//! Run with `cargo test --features mutants --test mutants`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the other tests")]
mod support;

#[path = "mutants/answers.rs"]
mod answers;
#[path = "mutants/forgotten.rs"]
mod forgotten;
#[path = "mutants/log_cut.rs"]
mod log_cut;
#[path = "mutants/neighbours.rs"]
mod neighbours;
#[path = "mutants/sniffed.rs"]
mod sniffed;

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bson::doc;
use drumline::check::Findings;
use drumline::check::history::{Op as Asked, Operation, Outcome};
use drumline::client::Clock;
use drumline::mutants::Mutant;
use hyper::body::Bytes;
use mongodb::{Client, Database};
use rustix::process::Signal;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use support::audit::inspect;
use support::extra_node::ExtraNode;
use support::history::{History, blank};
use support::http::Http;
use support::line::Mode;
use support::load::{End, Load, Op, Record};
use support::passing::{MemberNodes, Passing};
use support::proxy::{Proxy, direct};
use support::transactions::{TAKEOVER_MAX, takeover};
use support::trio::{Setup, Trio, primary};
use support::{Cluster, Sandbox, alive, eventually, kill, state, wait_until};

/// What a scenario finds wrong: with the checker, and else.
#[derive(Debug, Default)]
struct Violations {
    checked: Vec<String>,
    else_found: Vec<String>,
}

impl Violations {
    fn of_checker(findings: &Findings) -> Self {
        let wrong = findings.verdicts().filter(|(_, holds, _)| !holds);
        Self {
            checked: wrong
                .map(|(rule, _, witness)| format!("{rule}: {witness}"))
                .collect(),
            else_found: Vec::new(),
        }
    }

    fn other(else_found: Vec<String>) -> Self {
        Self {
            checked: Vec::new(),
            else_found,
        }
    }

    fn all(&self) -> Vec<&str> {
        let all = self.checked.iter().chain(&self.else_found);
        all.map(String::as_str).collect()
    }
}

type Scenario = fn(&Runtime, Sandbox) -> Violations;

/// Who must find a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// `drumline check`, on the scenario's history.
    Checker,
    /// No history shows it.
    Scenario,
}

/// Each mistake with the scenario that must show it.
const PAIRS: [(Mutant, By, Scenario); 22] = [
    (Mutant::OneMemberAcknowledges, By::Checker, rolled_back),
    (Mutant::LocalReads, By::Checker, rolled_back),
    (Mutant::NoFence, By::Checker, frozen_and_succeeded),
    (Mutant::PositionRecomputed, By::Checker, commit_replies_lost),
    (Mutant::NoRequestIds, By::Checker, tried_again),
    (Mutant::ReplyBeforeCommit, By::Checker, killed_after_replies),
    (
        Mutant::InterruptedIsFailure,
        By::Checker,
        commits_interrupted,
    ),
    (
        Mutant::UnvalidatedReads,
        By::Checker,
        deposed_beside_a_stale_member,
    ),
    (Mutant::NoStamps, By::Scenario, tried_again),
    (
        Mutant::SessionsLeftOpen,
        By::Scenario,
        killed_inside_transaction,
    ),
    (Mutant::StaleReads, By::Scenario, stamps_passed_on),
    (Mutant::NoGate, By::Scenario, neighbours::readers_leave),
    (
        Mutant::NothingIsLeft,
        By::Scenario,
        neighbours::one_holds_up_all,
    ),
    (
        Mutant::LoopsShare,
        By::Scenario,
        neighbours::one_holds_up_all,
    ),
    (Mutant::NoProof, By::Scenario, log_cut::tried_again),
    (Mutant::UnprovenBodies, By::Scenario, sniffed::changed),
    (Mutant::RepeatedMessages, By::Scenario, sniffed::sent_again),
    (Mutant::PassingErrorsKept, By::Scenario, answers::barred),
    (Mutant::StaleCollation, By::Scenario, answers::compared),
    (Mutant::SymbolsApart, By::Scenario, answers::compared),
    (Mutant::DrawnAgain, By::Scenario, answers::compared),
    (Mutant::NoRenewal, By::Scenario, forgotten::connections_hang),
];

#[test]
fn each_mistake_is_found_and_without_one_nothing_is() {
    let runtime = Runtime::new().unwrap();
    let only = drumline::config::setting("DRUMLINE_MUTANT_ONLY").unwrap();
    let (mut survivors, mut tried) = (Vec::new(), 0);
    for (mutant, by, scenario) in PAIRS {
        let name = format!("{mutant:?}");
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let right = scenario(&runtime, Sandbox::new());
        assert!(right.all().is_empty(), "without {name}: {right:#?}");
        let wrong = scenario(&runtime, Sandbox::new().set("DRUMLINE_MUTANT", &name));
        let caught = match by {
            By::Checker => !wrong.checked.is_empty(),
            By::Scenario => !wrong.all().is_empty(),
        };
        let first = match caught {
            true => wrong.all()[0],
            false => "SURVIVED",
        };
        println!("{name} ({by:?}): {first:.200}");
        tried += 1;
        if !caught {
            survivors.push(name);
        }
    }
    println!("mutation score {}/{tried}", tried - survivors.len());
    assert!(tried > 0, "no mutant is named {only:?}");
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}

fn insert(key: &str) -> Op {
    Op::Insert { key: key.into() }
}

async fn one(load: &Load, op: Op) -> Record {
    let client = load.client(Duration::from_secs(10));
    load.one_request(&client, &Clock::default(), op).await
}

/// What the checker says, and what the comparison with the collection does.
async fn violations(cluster: &Cluster, load: &Load, records: &[Record]) -> Violations {
    let uri = &cluster.info.mongodb_uri;
    let mut history = History::begin();
    history.records(records);
    Violations {
        else_found: inspect(uri, &load.namespace, records).await.1,
        ..Violations::of_checker(&history.beside_log(uri).await)
    }
}

/// Kill -9 of the node right after a reply.
fn killed_after_replies(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    let cluster = Cluster::start_in(sandbox, &["--nodes", "1", "--members", "1"]);
    runtime.block_on(async {
        let load = Load::new(&cluster, "load.replied");
        let mut records = vec![one(&load, insert("before")).await];
        kill(cluster.node_pid(cluster.coordinator().await), Signal::KILL);
        records.push(one(&load, insert("after")).await);
        violations(&cluster, &load, &records).await
    })
}

/// A coordinator is frozen and cut off from its peers, and another is elected; then it goes on, and
/// nobody tells it.
fn frozen_and_succeeded(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    let cluster = Cluster::start_in(sandbox, &["--members", "1", "--nodes", "0"]);
    runtime.block_on(async {
        let setup = Setup {
            peer_lines: true,
            ..Setup::default()
        };
        let mut trio = Trio::start(&cluster, setup).await;
        let load = trio.load("load.frozen");
        let running = tokio::spawn({
            let load = load.clone();
            async move { load.run(8).await }
        });
        let mut records = vec![one(&load, insert("before")).await];
        let zombie = trio.agreed().await.node;
        let unkeyed = Unkeyed::start(&trio.http(zombie));
        unkeyed.until_answered(1).await;
        trio.freeze(zombie);
        trio.around(zombie, Mode::Cut);
        let successor = trio.agreed().await.node;
        let through_successor = load
            .clone()
            .through(&format!("http://{}", trio.address(successor)));
        records.push(one(&through_successor, insert("after")).await);
        trio.thaw(zombie);
        // What it had when it was frozen, and what it was asked after that.
        unkeyed.until_answered(2).await;
        drop(unkeyed);
        load.stop();
        records.extend(running.await.unwrap());
        through_successor.settle(&mut records).await;
        violations(&cluster, &load, &records).await
    })
}

const UNKEYED: usize = 4;

/// Writers without request ids: what they had in flight at a frozen node, no other node has done
/// when it is thawed. They end with this.
#[derive(Debug)]
struct Unkeyed {
    _writers: JoinSet<()>,
    /// The answers of each writer, whatever they say.
    answers: Arc<[AtomicU64; UNKEYED]>,
}

impl Unkeyed {
    fn start(http: &Http) -> Self {
        let answers: Arc<[AtomicU64; UNKEYED]> = Arc::default();
        let mut writers = JoinSet::new();
        for writer in 0..UNKEYED {
            let (http, answers) = (http.clone(), answers.clone());
            writers.spawn(async move {
                let insert = json!({"database": "load", "collection": "unkeyed", "document": {}});
                let body = Bytes::from(insert.to_string());
                loop {
                    let _ = http.try_act("insertOne", &[], body.clone()).await;
                    answers[writer].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self {
            _writers: writers,
            answers,
        }
    }

    fn counts(&self) -> [u64; UNKEYED] {
        array::from_fn(|writer| self.answers[writer].load(Ordering::Relaxed))
    }

    /// Waits until each writer has had so many more answers.
    async fn until_answered(&self, more: u64) {
        let before = self.counts();
        eventually("each writer is answered", async || {
            let mut both = self.counts().into_iter().zip(before);
            both.all(|(now, before)| now >= before + more).then_some(())
        })
        .await;
    }
}

/// The commit takes effect, and all its replies are lost.
fn commit_replies_lost(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    unkeyed_insert(runtime, sandbox, |proxy| {
        // The driver sends a commit twice, and Drumline sends it three times.
        proxy.lose_replies(6);
    })
}

/// The commit takes effect, and its replies say that a change of the primary interrupted it.
fn commits_interrupted(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    // The driver sends a commit twice. Drumline's next one is answered.
    unkeyed_insert(runtime, sandbox, |proxy| proxy.interrupt_commits(2))
}

/// An insert while the replies to commits suffer a fault. It has no id of its own: the index over
/// ids would find a second run, and another barrier is what this is about.
fn unkeyed_insert(runtime: &Runtime, sandbox: Sandbox, fault: fn(&Proxy)) -> Violations {
    let cluster = Cluster::start_in(sandbox, &["--nodes", "0", "--members", "1"]);
    runtime.block_on(async {
        let host = &cluster.info.members[0].host;
        let proxy = Proxy::start(host).await;
        // After such an error the driver takes the member for lost until it has looked again.
        let uri = proxy.uri(&cluster.info.mongodb_uri) + "&heartbeatFrequencyMS=500";
        let node = ExtraNode::start(&cluster, "n1", &uri);
        node.until_listening();
        let http = Http::new(&node.url, &cluster.info.api_key);
        http.until_ready().await;
        let mut history = History::begin();
        insert_unkeyed(&http, &mut history, 1).await;
        fault(&proxy);
        insert_unkeyed(&http, &mut history, 2).await;
        Violations::of_checker(&history.alone())
    })
}

async fn insert_unkeyed(http: &Http, history: &mut History, key: i32) {
    let insert = json!({"database": "load", "collection": "unkeyed", "document": {"_id": key}});
    let invoked = Instant::now();
    let reply = http.act("insertOne", &insert).await;
    let place = |name: &str| Some(reply.header(name)?.split('.').next()?.parse().unwrap());
    let (outcome, result) = match reply.status {
        201 => (Outcome::Ok, json!(null)),
        504 => (Outcome::Unknown, reply.json()),
        _ => (Outcome::Fail, reply.json()),
    };
    let operation = Operation {
        value: json!(key),
        outcome,
        result,
        stamp: place("drumline-stamp"),
        position: place("drumline-position"),
        ..blank(Asked::Insert, json!(key))
    };
    history.push((invoked, Instant::now()), operation);
}

/// How long a client waits for what no majority can hold. Two such waits are over before MongoDB's primary
/// steps down, 10 s after it has lost its majority.
const IN_VAIN: Duration = Duration::from_secs(2);

/// Both secondaries are killed and kept away, and a client writes and reads. Then the primary is frozen and
/// the coordinator killed; the others come back empty-handed, and one that never heard of the write is
/// elected.
fn rolled_back(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    let cluster = Cluster::start_in(sandbox, &["--nodes", "1"]);
    runtime.block_on(async {
        let uri = &cluster.info.mongodb_uri;
        let load = Load::new(&cluster, "load.lost");
        let mut records = vec![one(&load, insert("before")).await];
        let old = primary(uri).await;
        let old_pid = cluster.primary_pid().await;
        let others = cluster.info.members.iter().filter(|m| m.host != old);
        let others: Vec<_> = others.map(|member| &member.host).collect();
        let away = kill_all_but(&cluster, &old);
        let mut history = History::begin();
        let impatient = load.client(IN_VAIN);
        let clock = Clock::default();
        let lost = load.one_request(&impatient, &clock, insert("lost"));
        records.push(lost.await);
        history.read(&load, &impatient, "lost").await;
        kill(old_pid, Signal::STOP);
        wait_until("the primary is frozen", || state(old_pid) == Some('T'));
        kill(cluster.node_pid(0), Signal::KILL);
        away.iter().for_each(|member| cluster.release(member));
        elect_one_of(uri, &others).await;
        Http::new(&cluster.info.nodes[0].url, &cluster.info.api_key)
            .until_ready()
            .await;
        let patient = load.client(Duration::from_secs(60));
        let after = load.one_request(&patient, &clock, insert("after"));
        records.push(after.await);
        history.records(&records);
        // What it has alone it rolls back; a driver would wait for it.
        kill(old_pid, Signal::CONT);
        Violations::of_checker(&history.beside_log(uri).await)
    })
}

/// Kill -9 of all members but one. They stay away until they are released, by the names that this returns.
fn kill_all_but(cluster: &Cluster, host: &str) -> Vec<String> {
    let members = cluster.info.members.iter().enumerate();
    let victims: Vec<_> = members.filter(|(_, member)| member.host != host).collect();
    let kill_one = |(index, _)| {
        let name = format!("m{}", index + 1);
        cluster.hold(&name);
        let pid = cluster.member_pid(index);
        kill(pid, Signal::KILL);
        wait_until("it is gone", || !alive(pid));
        name
    };
    victims.into_iter().map(kill_one).collect()
}

/// Has one of these members elected, as soon as it can be.
async fn elect_one_of(uri: &str, hosts: &[&String]) {
    let mut members = Vec::new();
    for host in hosts {
        members.push(one_member(uri, host).await.database("admin"));
    }
    eventually("one of the others is primary", async || {
        for admin in &members {
            if admin.run_command(doc! {"replSetStepUp": 1}).await.is_ok() {
                until_writable(admin).await;
                return Some(());
            }
        }
        None
    })
    .await;
}

/// A member that has won an election still catches up.
async fn until_writable(admin: &Database) {
    eventually("the elected member is writable", async || {
        let hello = admin.run_command(doc! {"hello": 1}).await.ok()?;
        hello.get_bool("isWritablePrimary").unwrap().then_some(())
    })
    .await;
}

/// A driver for this member alone, which gives up soon.
async fn one_member(uri: &str, host: &str) -> Client {
    let uri = direct(uri, host) + "&serverSelectionTimeoutMS=1000&connectTimeoutMS=1000";
    Client::with_uri_str(uri).await.unwrap()
}

/// A coordinator reaches only a member that was primary, and is kept from replicating since; another
/// coordinator writes, and nobody tells the first.
fn deposed_beside_a_stale_member(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    let cluster = Cluster::start_in(sandbox, &["--nodes", "0"]);
    runtime.block_on(async {
        let uri = &cluster.info.mongodb_uri;
        let old = primary(uri).await;
        let first = ExtraNode::start(&cluster, "n1", &direct(uri, &old));
        first.until_listening();
        Http::new(&first.url, &cluster.info.api_key)
            .until_ready()
            .await;
        let load = Load::new(&cluster, "load.stale").through(&first.url);
        let mut history = History::begin();
        let before = one(&load, insert("before")).await;
        let others = cluster.info.members.iter().filter(|m| m.host != old);
        let others: Vec<_> = others.map(|member| &member.host).collect();
        elect_one_of(uri, &others).await;
        let stale = one_member(uri, &old).await.database("admin");
        let lock = doc! {"fsync": 1, "lock": true};
        stale.run_command(lock).await.unwrap();
        let second = ExtraNode::start(&cluster, "n2", uri);
        second.until_listening();
        let through_second = load.clone().through(&second.url);
        let after = one(&through_second, insert("after")).await;
        assert!(matches!(after.end, End::Acknowledged(_)), "{after:?}");
        let client = load.client(Duration::from_secs(2));
        history.read(&load, &client, "after").await;
        stale.run_command(doc! {"fsyncUnlock": 1}).await.unwrap();
        history.records(&[before, after]);
        Violations::of_checker(&history.beside_log(uri).await)
    })
}

/// A client that did not hear its answer sends its request again.
fn tried_again(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    let cluster = Cluster::start_in(sandbox, &["--nodes", "1", "--members", "1"]);
    runtime.block_on(async {
        let load = Load::new(&cluster, "load.again");
        let add = Op::Add { key: "a".into() };
        let mut records = vec![one(&load, insert("i")).await, one(&load, add).await];
        for record in &mut records {
            record.end = End::Unknown;
        }
        load.settle(&mut records).await;
        violations(&cluster, &load, &records).await
    })
}

/// Kill -9 of a node between its log document and its commit, and the time until its successor has
/// a write acknowledged.
fn killed_inside_transaction(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    let cluster = Cluster::start_in(sandbox, &["--nodes", "0", "--members", "1"]);
    runtime.block_on(async {
        let (time, record) = takeover(&cluster, TAKEOVER_MAX).await;
        match record.end {
            End::Acknowledged(_) => Violations::default(),
            end => Violations::other(vec![format!("after {time:?}: {end:?}")]),
        }
    })
}

/// Clients pass stamps on to others, which read at members that may not have the write yet.
fn stamps_passed_on(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    // Otherwise nodes may lead the other secondary to the one that is held back: no majority is left
    // then, and nothing is written that a read could lack.
    let cluster = Cluster::start_in(sandbox, &["--assist-elections=false"]);
    runtime.block_on(async {
        let nodes = MemberNodes::start(&cluster).await;
        let passing = Passing::start(&cluster, nodes.https());
        passing.until_read(100).await;
        let held_back = hold_back_a_secondary(&cluster.info.mongodb_uri).await;
        // Each client reads there every third time. A read that cares for its stamp waits there, and in vain.
        passing.until_read_or_refused(100).await;
        let unlock = doc! {"fsyncUnlock": 1};
        held_back.run_command(unlock).await.unwrap();
        passing.until_read(100).await;
        Violations::other(passing.stop().await)
    })
}

/// Keeps a secondary that nobody copies from from applying anything until it is unlocked by what this
/// returns; it can be read meanwhile.
async fn hold_back_a_secondary(uri: &str) -> Database {
    let hosts = uri.split_once('@').unwrap().1.split_once('/').unwrap().0;
    let primary = primary(uri).await;
    let secondaries: Vec<_> = hosts.split(',').filter(|host| *host != primary).collect();
    let [one, other] = secondaries[..] else {
        panic!("{hosts} are not three members")
    };
    let held_back = match source_of(uri, other).await == one {
        true => other,
        false => one,
    };
    let admin = one_member(uri, held_back).await.database("admin");
    let lock = doc! {"fsync": 1, "lock": true};
    admin.run_command(lock).await.unwrap();
    admin
}

/// From whom a member copies. A young one may still look for somebody.
async fn source_of(uri: &str, host: &str) -> String {
    let admin = one_member(uri, host).await.database("admin");
    eventually("a member copies from another", async || {
        let status = admin.run_command(doc! {"replSetGetStatus": 1}).await;
        let source = status.ok()?.get_str("syncSourceHost").ok()?.to_owned();
        (!source.is_empty()).then_some(source)
    })
    .await
}
