//! What nodes do when the primary is lost, and what they leave alone.

use std::time::{Duration, Instant};

use bson::doc;
use hyper::body::Bytes;
use mongodb::Client;
use rustix::process::Signal;
use serde_json::json;
use tokio::runtime::Runtime;

use crate::support::extra_node::{ExtraNode, free_address};
use crate::support::http::Http;
use crate::support::proxy::direct;
use crate::support::{Cluster, eventually, kill, wait_until};

/// How long the chain is watched: one that does not stay is lost within a second or two.
const CHAIN_WATCH: Duration = Duration::from_secs(6);

fn insert(id: i32) -> serde_json::Value {
    json!({"database": "failover", "collection": "c", "document": {"_id": {"$numberInt": id.to_string()}}})
}

/// Writes until a write is acknowledged.
async fn until_acknowledged(http: &Http, first: i32) -> Duration {
    let began = Instant::now();
    let mut id = first;
    eventually("a write is acknowledged", async || {
        id += 1;
        let body = Bytes::from(insert(id).to_string());
        let reply = http.try_act("insertOne", &[], body).await.ok()?;
        (reply.status == 201).then_some(())
    })
    .await;
    began.elapsed()
}

fn extra(cluster: &Cluster, flags: &[&str]) -> ExtraNode {
    let address = free_address("127.0.0.1");
    let uri = &cluster.info.mongodb_uri;
    let node = ExtraNode::start_with(cluster, "n1", uri, &address, |command| {
        command.arg("--assist-elections").args(flags);
        command.env("DRUMLINE_CLUSTER_SECRET", "the secret of the two");
    });
    node.until_listening();
    node
}

#[test]
fn the_nodes_notice_a_killed_primary_and_have_another_elected() {
    let cluster = Cluster::start(&[]);
    Runtime::new().unwrap().block_on(async {
        let http = Http::to(&cluster);
        until_acknowledged(&http, 0).await;
        kill(cluster.primary_pid().await, Signal::KILL);
        until_acknowledged(&http, 1_000).await;
        let count = async |figure: &str| {
            let mut sum = 0;
            for node in &cluster.info.nodes {
                let http = Http::new(&node.url, &cluster.info.api_key);
                let metrics = http.get("/metrics").await.text;
                let counted = metrics.lines().filter_map(|line| line.strip_prefix(figure));
                sum += counted
                    .map(|n| n.trim().parse::<u64>().unwrap())
                    .sum::<u64>();
            }
            sum
        };
        let noticed = count("drumline_primaries_lost_total ").await;
        assert!(noticed >= 2, "{noticed} of 3 nodes noticed");
        assert!(count("drumline_elections_asked_total ").await >= 1);
    });
}

/// Who copies from whom.
fn sources(cluster: &Cluster) -> Vec<(String, String, Option<String>)> {
    let arguments = ["status", "--name", Cluster::NAME, "-o", "json"];
    let outcome = cluster.sandbox().run(&arguments);
    let view: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap_or_default();
    let members = view["members"].as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let members = members.iter().map(|member| {
        let (host, state) = (text(&member["host"]), text(&member["state"]));
        let source = text(&member["sync_source"]);
        (host.unwrap_or_default(), state.unwrap_or_default(), source)
    });
    members.collect()
}

fn is_chain(members: &[(String, String, Option<String>)]) -> bool {
    let of = |wanted: &str| -> Vec<_> {
        let members = members.iter().filter(|(_, state, _)| state == wanted);
        members.collect()
    };
    let (primaries, secondaries) = (of("primary"), of("secondary"));
    let ([primary], [one, other]) = (&primaries[..], &secondaries[..]) else {
        return false;
    };
    let copies =
        |member: &(String, String, Option<String>), from: &str| member.2.as_deref() == Some(from);
    (copies(one, &primary.0) && copies(other, &one.0))
        || (copies(other, &primary.0) && copies(one, &other.0))
}

/// A member that is told a source which is not ahead of it refuses it, and rests: without writes for
/// 20 s, again and again.
#[test]
fn without_any_writes_the_sync_chain_stands_mostly_and_is_put_right_when_it_breaks() {
    let cluster = Cluster::start(&[]);
    wait_until("the sync chain stands", || is_chain(&sources(&cluster)));
    let end = Instant::now() + CHAIN_WATCH;
    let (mut looks, mut broken) = (0, Vec::new());
    while Instant::now() < end {
        let now = sources(&cluster);
        looks += 1;
        if !is_chain(&now) {
            broken.push(now);
        }
    }
    // MongoDB itself may choose another source when round trips change. The coordinator sees that within a
    // second, and a member that is told another rests for a second, it may be: so not each look finds a chain.
    let (count, last) = (broken.len(), broken.last());
    assert!(count * 2 < looks, "{count} of {looks}, last {last:?}");
    wait_until("the sync chain stands again", || {
        is_chain(&sources(&cluster))
    });
}

/// A backup locks a member like this. It answers and votes, and what copies from it waits with it.
#[test]
fn writes_go_on_while_the_successor_is_locked() {
    let cluster = Cluster::start(&[]);
    wait_until("the sync chain stands", || is_chain(&sources(&cluster)));
    let members = sources(&cluster);
    let source_of = |host: &str| {
        let member = members.iter().find(|(name, ..)| name == host);
        member.and_then(|(_, _, source)| source.clone())
    };
    let is_copied = |host: &String| members.iter().any(|member| member.2.as_ref() == Some(host));
    let successor = members
        .iter()
        .map(|(host, ..)| host)
        .find(|host| is_copied(host) && source_of(host).is_some())
        .unwrap();
    let primary = source_of(successor).unwrap();
    Runtime::new().unwrap().block_on(async {
        let uri = direct(&cluster.info.mongodb_uri, successor);
        let member = Client::with_uri_str(&uri).await.unwrap().database("admin");
        member
            .run_command(doc! {"fsync": 1, "lock": true})
            .await
            .unwrap();
        let http = Http::to(&cluster);
        for id in 0..20 {
            http.act("insertOne", &insert(id)).await.expect(201);
        }
        let copied = sources(&cluster);
        let from_primary = copied
            .iter()
            .filter(|member| member.2.as_ref() == Some(&primary));
        assert_eq!(from_primary.count(), 2, "{copied:?}");
        member.run_command(doc! {"fsyncUnlock": 1}).await.unwrap();
        wait_until("the sync chain stands again", || {
            is_chain(&sources(&cluster))
        });
    });
}

#[test]
fn one_node_of_two_does_nothing_by_itself() {
    let cluster = Cluster::start(&["--nodes", "0"]);
    let node = extra(&cluster, &["--peer", "n2=http://127.0.0.1:1"]);
    Runtime::new().unwrap().block_on(async {
        let http = Http::new(&node.url, &cluster.info.api_key);
        until_acknowledged(&http, 0).await;
        kill(cluster.primary_pid().await, Signal::KILL);
        // MongoDB's own election ends this.
        until_acknowledged(&http, 1_000).await;
    });
    let said = node.said();
    assert!(said.contains("the primary is gone"), "{said}");
    assert!(!said.contains("is asked to stand"), "{said}");
}

#[test]
fn without_the_privilege_it_is_said_once_and_all_else_works() {
    let cluster = Cluster::start(&["--nodes", "0"]);
    let uri = &cluster.info.mongodb_uri;
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let driver = Client::with_uri_str(uri).await.unwrap();
        let user = doc! {"createUser": "plain", "pwd": "plain", "roles": ["readWriteAnyDatabase"]};
        driver.database("admin").run_command(user).await.unwrap();
    });
    let (_, hosts) = uri.split_once('@').unwrap();
    let plain = format!("mongodb://plain:plain@{hosts}");
    let address = free_address("127.0.0.1");
    let node = ExtraNode::start_with(&cluster, "plain", &plain, &address, |command| {
        command.arg("--assist-elections");
    });
    node.until_listening();
    wait_until("the missing right is told", || {
        node.said().contains("lacks replSetStateChange")
    });
    let http = Http::new(&node.url, &cluster.info.api_key);
    runtime.block_on(until_acknowledged(&http, 0));
    let said = node.said();
    assert_eq!(said.matches("replSetStateChange").count(), 1, "{said}");
}
