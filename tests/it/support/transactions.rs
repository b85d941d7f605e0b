//! Catching a process of Drumline inside a transaction.

use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use drumline::client::Clock;
use drumline::model::RequestId;
use mongodb::Client;
use rustix::process::Signal;

use super::extra_node::ExtraNode;
use super::load::{Load, Op, Record};
use super::proxy::Proxy;
use super::{Cluster, Pid, bar, kill, wait_until};

/// The time for a successor. Unless its claim ends the sessions that its predecessor left, MongoDB
/// lets the open transaction live for a minute: measured 63.9 s until the next append.
pub const TAKEOVER_MAX: Duration = bar(2);

/// How often a process may be stopped outside a transaction before the test gives up.
const TRIES_MAX: usize = 500;

/// The sessions whose transactions the primary holds open for programs with this name, while no
/// operation of theirs runs.
pub async fn open_transactions(driver: &Client, app: &str) -> Vec<Bson> {
    let pipeline = vec![
        doc! {"$currentOp": {"allUsers": true, "idleSessions": true, "localOps": true}},
        doc! {"$match": {
            "type": "idleSession",
            "transaction.parameters.autocommit": false,
            "appName": {"$regex": app},
        }},
    ];
    let admin = driver.database("admin");
    let mut found = admin.aggregate(pipeline).await.unwrap();
    let mut sessions = Vec::new();
    while found.advance().await.unwrap() {
        let op: Document = found.deserialize_current().unwrap();
        sessions.push(op.get_document("lsid").unwrap().get("id").unwrap().clone());
    }
    sessions
}

/// Stops the process at a moment at which it has a transaction open and nothing under way, and
/// gives the transaction's session. The process then stands still inside its transaction.
pub async fn freeze_inside_transaction(driver: &Client, app: &str, pid: Pid) -> Bson {
    for _ in 0..TRIES_MAX {
        kill(pid, Signal::STOP);
        // What was under way ends; after two equal looks the transaction is really idle.
        let first = open_transactions(driver, app).await;
        let second = open_transactions(driver, app).await;
        if let [session] = first.as_slice()
            && first == second
        {
            return session.clone();
        }
        kill(pid, Signal::CONT);
    }
    panic!("never inside a transaction");
}

/// Kills a node between its log document and its commit, so that its transaction holds the log's
/// next position, and gives the time until its successor has a write acknowledged. The cluster has no
/// node of its own.
pub async fn takeover(cluster: &Cluster, patience: Duration) -> (Duration, Record) {
    let uri = &cluster.info.mongodb_uri;
    let driver = Client::with_uri_str(uri).await.unwrap();
    let admin = driver.database("admin");
    let hello = admin.run_command(doc! {"hello": 1}).await.unwrap();
    let proxy = Proxy::start(hello.get_str("primary").unwrap()).await;
    let first = ExtraNode::start(cluster, "n1", &proxy.uri(uri));
    first.until_listening();
    let load = Load::new(cluster, "load.takeover");
    let insert = async |url: &str, key: &str, patience| {
        let load = load.clone().through(url);
        let key = format!("{key} {}", RequestId::fresh());
        let op = Op::Insert { key };
        let client = load.client(patience);
        load.one_request(&client, &Clock::default(), op).await
    };
    insert(&first.url, "before", Duration::from_secs(20)).await;
    proxy.hold_commits();
    let held = insert(&first.url, "held", Duration::from_millis(500)).await;
    assert!(proxy.holds_a_commit(), "{held:?}");
    kill(first.pid(), Signal::KILL);
    wait_until("the node is dead", || !super::alive(first.pid()));
    let left = open_transactions(&driver, "^drumline n1$").await;
    assert_eq!(left.len(), 1, "one transaction is left open");
    let killed = Instant::now();
    let second = ExtraNode::start(cluster, "n2", uri);
    let record = insert(&second.url, "after", patience).await;
    (killed.elapsed(), record)
}
