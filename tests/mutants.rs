//! A check of the checks: each barrier of the protocol is taken out in turn, and the comparison or
//! the time limit that guards it must notice. Run with `cargo test --features mutants --test mutants`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the other tests")]
mod support;

use std::time::Duration;

use bson::{Document, doc};
use drumline::client::Clock;
use drumline::mutants::Mutant;
use mongodb::Client;
use rustix::process::Signal;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::time::sleep;

use support::audit::inspect;
use support::extra_node::ExtraNode;
use support::http::Http;
use support::load::{End, Load, Op, Record};
use support::proxy::Proxy;
use support::transactions::{TAKEOVER_MAX, takeover};
use support::{Cluster, Sandbox, kill, wait_until};

/// What a scenario finds wrong.
type Violations = Vec<String>;

type Scenario = fn(&Runtime, Sandbox) -> Violations;

/// Each mistake with the scenario that must find it.
const PAIRS: [(Mutant, Scenario); 6] = [
    (Mutant::ReplyBeforeCommit, killed_after_replies),
    (Mutant::NoFence, frozen_and_succeeded),
    (Mutant::NoBatchId, commit_replies_lost),
    (Mutant::NoRequestIds, tried_again),
    (Mutant::NoStamps, tried_again),
    (Mutant::SessionsLeftOpen, killed_inside_transaction),
];

#[test]
fn each_mistake_is_found_and_without_one_nothing_is() {
    let runtime = Runtime::new().unwrap();
    let mut found = 0;
    for (mutant, scenario) in PAIRS {
        let right = scenario(&runtime, Sandbox::new());
        assert!(right.is_empty(), "without a mistake: {right:#?}");
        let name = format!("{mutant:?}");
        let wrong = scenario(&runtime, Sandbox::new().set("DRUMLINE_MUTANT", name));
        let first = wrong.first().map_or("SURVIVED", |first| first.as_str());
        println!("{mutant:?}: {} violations: {first:.160}", wrong.len());
        found += usize::from(!wrong.is_empty());
    }
    println!("mutation score {found}/{}", PAIRS.len());
    assert_eq!(found, PAIRS.len());
}

fn insert(key: &str) -> Op {
    Op::Insert { key: key.into() }
}

async fn one(load: &Load, op: Op) -> Record {
    let client = load.client(Duration::from_secs(10));
    load.one_request(&client, &Clock::default(), op).await
}

async fn violations(cluster: &Cluster, load: &Load, records: &[Record]) -> Violations {
    let uri = &cluster.info.mongodb_uri;
    inspect(uri, &load.namespace, records).await.1
}

/// Kill -9 of the node right after a reply.
fn killed_after_replies(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    let cluster = Cluster::start_in(sandbox, &["--members", "1"]);
    runtime.block_on(async {
        let load = Load::new(&cluster, "load.replied");
        let mut records = vec![one(&load, insert("before")).await];
        kill(cluster.node_pid(0), Signal::KILL);
        records.push(one(&load, insert("after")).await);
        let mut found = violations(&cluster, &load, &records).await;
        // The last reply may still wait for its commit, whoever sends that.
        found.retain(|violation| violation.contains("before"));
        found
    })
}

/// A second node claims while the first is frozen under load; then the first goes on.
fn frozen_and_succeeded(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    let cluster = Cluster::start_in(sandbox, &["--members", "1"]);
    let first = cluster.node_pid(0);
    runtime.block_on(async {
        let load = Load::new(&cluster, "load.frozen");
        let running = tokio::spawn({
            let load = load.clone();
            async move { load.run(8).await }
        });
        let mut records = vec![one(&load, insert("before")).await];
        kill(first, Signal::STOP);
        let second = ExtraNode::start(&cluster, "n2", &cluster.info.mongodb_uri);
        second.until_listening();
        let through_second = load.clone().through(&second.url);
        records.push(one(&through_second, insert("after")).await);
        kill(first, Signal::CONT);
        // Long enough for requests that the old coordinator must not answer.
        sleep(Duration::from_secs(1)).await;
        load.stop();
        records.extend(running.await.unwrap());
        through_second.settle(&mut records).await;
        violations(&cluster, &load, &records).await
    })
}

/// The commit takes effect, and all its replies are lost. No request has an id of its own: the index
/// over ids would find a second run, and another barrier is what this is about.
fn commit_replies_lost(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    let cluster = Cluster::start_in(sandbox, &["--nodes", "0", "--members", "1"]);
    runtime.block_on(async {
        let host = &cluster.info.members[0].host;
        let proxy = Proxy::start(host).await;
        let uri = proxy.uri(&cluster.info.mongodb_uri);
        let node = ExtraNode::start(&cluster, "n1", &uri);
        node.until_listening();
        let http = Http::new(&node.url, &cluster.info.api_key);
        http.until_ready().await;
        let place = json!({"database": "lost", "collection": "replies"});
        let mut first = place.clone();
        first["document"] = json!({"_id": 1, "n": 0});
        http.act("insertOne", &first).await.expect(201);
        // The driver sends a commit twice, and Drumline sends it three times.
        proxy.lose_replies(6);
        let mut add = place;
        add["filter"] = json!({"_id": 1});
        add["update"] = json!({"$inc": {"n": 1}});
        http.act("updateOne", &add).await.expect(200);
        wait_until("all replies are lost", || proxy.all_lost());
        let driver = Client::with_uri_str(&cluster.info.mongodb_uri).await;
        let replies = driver.unwrap().database("lost").collection("replies");
        let stored: Document = replies.find_one(doc! {}).await.unwrap().unwrap();
        match stored.get_i32("n").unwrap() {
            1 => Vec::new(),
            n => vec![format!("one $inc by 1 was acknowledged, and n is {n}")],
        }
    })
}

/// A client that did not hear its answer sends its request again.
fn tried_again(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    let cluster = Cluster::start_in(sandbox, &["--members", "1"]);
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
        let (time, record) = takeover(&cluster, Duration::from_secs(4)).await;
        match record.end {
            End::Acknowledged(_) if time < TAKEOVER_MAX => Vec::new(),
            end => vec![format!("after {time:?}: {end:?}")],
        }
    })
}
