//! What is full or frozen says so in time, keeps its memory bounded, and comes back by itself.

use std::time::{Duration, Instant};

use drumline::model::limits::{IN_FLIGHT_BYTES_MAX, QUEUE_BYTES_MAX, REQUEST_WAIT_MAX};
use futures_util::future::join_all;
use hyper::body::Bytes;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::sleep;

use crate::support::audit::audit;
use crate::support::http::{Http, Reply};
use crate::support::load::Load;
use crate::support::processes::memory;
use crate::support::{Cluster, kill, wait_until};

const MIB: usize = 1 << 20;
/// Done, or in words not done: on a busy machine a time may be up.
const BUSY_ANSWERS: [u16; 5] = [200, 201, 429, 503, 504];
const REST_BYTES_MAX: usize = 64 * MIB;
/// Beside the counted bodies and replies: what the driver and the allocator hold of the same bytes.
const LOAD_BYTES_MAX: usize = 4 * IN_FLIGHT_BYTES_MAX;
/// A reply may come this much after the wait is over.
const GRACE: Duration = Duration::from_secs(if cfg!(debug_assertions) { 4 } else { 1 });
/// The wait begins when the body is decoded. With big ones an unoptimised build takes seconds.
const BIG_BODY_GRACE: Duration = Duration::from_secs(if cfg!(debug_assertions) { 15 } else { 2 });

/// Less than is left of the time of a call that began before the freeze.
const THAWED_MAX: Duration = Duration::from_secs(if cfg!(debug_assertions) { 2 } else { 1 });

fn body(fields: Value) -> Value {
    let mut body = fields;
    body["database"] = json!("limits");
    body["collection"] = json!("big");
    body
}

fn document_of(bytes: usize) -> Value {
    body(json!({"document": {"text": "x".repeat(bytes)}}))
}

#[test]
fn memory_is_small_at_rest_and_bounded_under_big_bodies_and_replies() {
    let cluster = Cluster::start(&Cluster::ONE_NODE);
    let node = cluster.node_pid(0);
    Runtime::new().unwrap().block_on(async {
        let http = Http::to(&cluster);
        http.act("insertOne", &document_of(1)).await.expect(201);
        // What the start took is given back when the machine gets to it.
        wait_until("the node is small at rest", || {
            memory(node, "VmRSS") < REST_BYTES_MAX
        });
        println!("node at rest: {} MiB", memory(node, "VmRSS") / MIB);

        let big = document_of(4 * MIB);
        let inserts = join_all((0..24).map(|_| http.act("insertOne", &big))).await;
        count_statuses("inserts of 4 MiB at once", &inserts, &BUSY_ANSWERS);
        let filter = body(json!({"filter": {}, "limit": 10}));
        let finds = join_all((0..24).map(|_| http.act("find", &filter))).await;
        count_statuses("finds of 40 MiB at once", &finds, &BUSY_ANSWERS);
        // It is no bound on memory that holds if nothing is done.
        for (what, replies) in [("insert", &inserts), ("find", &finds)] {
            let is_done = |reply: &Reply| matches!(reply.status, 200 | 201);
            assert!(replies.iter().any(is_done), "no {what} was done");
        }
        let peak = memory(node, "VmHWM");
        println!("node's peak: {} MiB", peak / MIB);
        assert!(peak < LOAD_BYTES_MAX);
        http.act("insertOne", &document_of(1)).await.expect(201);
    });
}

#[test]
fn a_slow_read_is_refused_after_its_time_with_what_to_do() {
    Runtime::new().unwrap().block_on(async {
        let http = Http::to(Cluster::shared());
        let one = json!({"database": "limits", "collection": "slow", "document": {}});
        http.act("insertOne", &one).await.expect(201);
        let numbers = json!({"$range": [0, 20_000]});
        let sum = json!({"$sum": {"$map": {"input": numbers, "in": {"$add": ["$$this", "$n"]}}}});
        let slow = json!({
            "database": "limits",
            "collection": "slow",
            "pipeline": [
                {"$project": {"n": numbers}},
                {"$unwind": "$n"},
                {"$match": {"$expr": {"$eq": [sum, -1]}}},
            ],
        });
        let reply = http.act("aggregate", &slow).await.expect(400).json();
        assert_eq!(reply["error_code"], "MaxTimeMSExpired", "{reply}");
        let told = reply["error"].as_str().unwrap();
        assert!(told.contains("ran longer than 5 s"), "{told}");
    });
}

/// Prints how often each status came; fails on any other than those that are allowed.
#[track_caller]
fn count_statuses(what: &str, replies: &[Reply], allowed: &[u16]) {
    let of = |status: u16| replies.iter().filter(|r| r.status == status).count();
    let counts: Vec<_> = allowed
        .iter()
        .map(|status| (*status, of(*status)))
        .collect();
    println!("{what}: {counts:?}");
    let counted: usize = counts.iter().map(|(_, count)| count).sum();
    assert_eq!(counted, replies.len(), "{replies:?}");
    for reply in replies
        .iter()
        .filter(|reply| matches!(reply.status, 429 | 503))
    {
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
    }
}

/// The replica set's processes, stopped until this is dropped.
struct Frozen<'a>(&'a Cluster);

impl<'a> Frozen<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        signal_members(cluster, Signal::STOP);
        Self(cluster)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        signal_members(self.0, Signal::CONT);
    }
}

fn signal_members(cluster: &Cluster, signal: Signal) {
    let members = cluster.info.members.iter();
    members.for_each(|member| kill(member.pid, signal));
}

#[test]
fn while_mongodb_is_frozen_every_request_is_answered_in_time_and_the_node_recovers_alone() {
    let cluster = Cluster::start(&Cluster::ONE_NODE);
    Runtime::new().unwrap().block_on(async {
        let load = Load::new(&cluster, "load.frozen_members");
        let running = tokio::spawn({
            let load = load.clone();
            async move { load.run(16).await }
        });
        let http = Http::to(&cluster);
        http.act("insertOne", &document_of(1)).await.expect(201);

        let frozen = Frozen::new(&cluster);
        let (small, big, reads) = requests_while_frozen(&http).await;
        count_statuses("inserts while MongoDB is frozen", &small, &[503, 504]);
        count_statuses(
            "inserts of 6 MiB while it is frozen",
            &big,
            &[429, 503, 504],
        );
        count_statuses("finds while it is frozen", &reads, &[503]);
        let full = big.iter().filter(|reply| reply.status == 429).count();
        assert!(full > 0, "the queue has no bound");
        drop(frozen);

        let thawed = Instant::now();
        while http.act("insertOne", &document_of(1)).await.status != 201 {
            assert!(
                thawed.elapsed() < Duration::from_secs(30),
                "it never recovers"
            );
        }
        println!(
            "thaw to the first acknowledged write: {:?}",
            thawed.elapsed()
        );
        load.stop();
        let mut records = running.await.unwrap();
        load.settle(&mut records).await;
        let audited = audit(&cluster.info.mongodb_uri, &load.namespace, &records).await;
        println!("{audited:?}");
        assert_eq!(audited.unknown, 0);
    });
}

/// Small and big writes and reads, all at once. Each must be answered within its time.
async fn requests_while_frozen(http: &Http) -> (Vec<Reply>, Vec<Reply>, Vec<Reply>) {
    let small = document_of(10);
    let large = document_of(6 * MIB);
    let filter = body(json!({"filter": {"_id": 1}}));
    let [small, large, filter] = [small, large, filter].map(|b| Bytes::from(b.to_string()));
    let in_time = async |action: &str, body: &Bytes| {
        let begun = Instant::now();
        let reply = http.act_bytes(action, &[], body.clone()).await;
        let time = begun.elapsed();
        let grace = if body.len() > MIB {
            BIG_BODY_GRACE
        } else {
            GRACE
        };
        assert!(time < REQUEST_WAIT_MAX + grace, "{time:?}: {reply:?}");
        reply
    };
    // More than the queue holds.
    let count = 2 * QUEUE_BYTES_MAX / (6 * MIB);
    let smalls = join_all((0..20).map(|_| in_time("insertOne", &small)));
    let larges = join_all((0..count).map(|_| in_time("insertOne", &large)));
    let reads = join_all((0..10).map(|_| in_time("find", &filter)));
    tokio::join!(smalls, larges, reads)
}

#[test]
fn a_primary_frozen_for_a_moment_costs_a_moment() {
    let cluster = Cluster::start(&["--members", "1"]);
    Runtime::new().unwrap().block_on(async {
        let http = Http::to(&cluster);
        http.act("insertOne", &document_of(1)).await.expect(201);
        let frozen = Frozen::new(&cluster);
        let first = document_of(1);
        let waiting = http.act("insertOne", &first);
        let thaw = async {
            // The length of the freeze, which is what the test is about.
            sleep(Duration::from_secs(2)).await;
            drop(frozen);
            Instant::now()
        };
        let (reply, thawed) = tokio::join!(waiting, thaw);
        println!("thaw to the answer: {:?}", thawed.elapsed());
        reply.expect(201);
        assert!(thawed.elapsed() < THAWED_MAX);
    });
}
