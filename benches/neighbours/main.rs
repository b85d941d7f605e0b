//! What one client, one request or another program costs the others, beside the plain driver in the
//! same run: `cargo bench --bench neighbours`, or one row: `cargo bench --bench neighbours --
//! lock`. docs/figures.md quotes it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement fails by panicking"
)]

#[path = "../../tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests")]
mod support;

mod members;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{Document, RawDocumentBuf, doc};
use mongodb::{Client, Collection, IndexModel};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use members::{How, Secondary, stand_still, step_down};
use support::http::Http;
use support::{Cluster, eventually, setting};

/// The longest that the others may go without an answer.
const GAP_MAX: Duration = Duration::from_secs(2);
/// The longest that one of them may wait while a member stands still, or after the last step-down.
const STILL_WAIT_MAX: Duration = Duration::from_secs(3);
/// How long each row lasts.
const LASTS: Duration = Duration::from_secs(8);
/// The others: as many write as read.
const OTHERS: usize = 16;
const DOCUMENTS: i32 = 50_000;
/// How many readers vanish together, and how often.
const CROWD: u64 = 256;
const CROWDS: u64 = 1_000;
/// The last of them is gone after this many microseconds.
const VANISH_MAX_US: u64 = 40_000;

/// One kind of careless neighbour: what it does, again and again, with so many clients.
struct Row {
    name: &'static str,
    clients: usize,
    act: Act,
}

enum Act {
    /// Sends a request of the Data API.
    Sends(&'static str, fn(usize) -> Value),
    /// Sends it under one request id.
    Repeats(&'static str, fn(usize) -> Value),
    /// Sends it and hangs up after so many milliseconds.
    Leaves(&'static str, fn(usize) -> Value, u64),
    /// Crowds of readers vanish, one after the other, each reader at another moment.
    Vanishes,
    /// Reads the log.
    ReadsLog,
    /// Another program holds documents of `held` in a transaction, and updates want them.
    HoldsDocuments,
    /// Another program's index waits for a transaction on `locked`, and updates want that.
    LocksCollection,
    /// Another program makes and drops a collection that requests write to.
    DropsCollection,
    /// A secondary stands still for a minute.
    StandsStill(Secondary, How),
    /// The primary steps down each second for a minute.
    StepsDown,
}

/// A value that takes long to compute, and no document has.
fn long(rounds: i32) -> Value {
    let over = |name: &str, value: Value| json!({"$sum": {"$map": {"input": {"$range": [0, rounds]}, "as": name, "in": value}}});
    over("a", over("b", json!({"$multiply": ["$$a", "$$b"]})))
}

fn with(collection: &str, more: Value) -> Value {
    let mut body = json!({"database": "careless", "collection": collection});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn endless_regex() -> Value {
    json!({"text": {"$regex": "(a+)+(a+)+(a+)+$"}})
}

fn rows() -> Vec<Row> {
    let sends = |name, clients, action, body| Row {
        name,
        clients,
        act: Act::Sends(action, body),
    };
    vec![
        sends("update with one long expression", 1, "updateOne", |_| {
            let filter = json!({"_id": 1, "$expr": {"$eq": [long(6_000), -1]}});
            with(
                "big",
                json!({"filter": filter, "update": {"$inc": {"n": 1}}}),
            )
        }),
        sends("find with one long expression", 4, "find", |_| {
            let filter = json!({"_id": 1, "$expr": {"$eq": [long(4_000), -1]}});
            with("big", json!({"filter": filter}))
        }),
        sends("replaceOne of what is not UTF-8", 8, "replaceOne", |_| {
            let filter = json!({"name": {"$exists": true}});
            with(
                "odd",
                json!({"filter": filter, "replacement": {"name": "plain"}}),
            )
        }),
        sends("slow finds", 32, "find", |_| {
            let filter = json!({"$expr": {"$eq": [long(60), -1]}});
            with("big", json!({"filter": filter}))
        }),
        sends("finds with an endless pattern", 12, "find", |_| {
            with("text", json!({"filter": endless_regex()}))
        }),
        sends("finds of 50,000 documents", 8, "find", |_| {
            with("big", json!({"filter": {}, "limit": DOCUMENTS}))
        }),
        sends(
            "deleteMany with an endless pattern",
            4,
            "deleteMany",
            |_| with("text", json!({"filter": endless_regex()})),
        ),
        sends("updateMany of 10,000 documents", 2, "updateMany", |_| {
            let filter = json!({"_id": {"$lt": 10_000}});
            with(
                "big",
                json!({"filter": filter, "update": {"$inc": {"n": 1}}}),
            )
        }),
        sends("updateMany without an index", 8, "updateMany", |client| {
            let filter = json!({"n": -1 - i64::try_from(client).unwrap()});
            with(
                "big",
                json!({"filter": filter, "update": {"$inc": {"n": 1}}}),
            )
        }),
        sends("insertMany of 10,000 documents", 2, "insertMany", |_| {
            let documents: Vec<_> = (0..10_000).map(|n| json!({"n": n})).collect();
            with("bulk", json!({"documents": documents}))
        }),
        sends("bodies of 8 MiB", 4, "insertOne", |_| {
            with("bulk", json!({"document": {"text": "x".repeat(8 << 20)}}))
        }),
        sends(
            "aggregates that join a collection with itself",
            4,
            "aggregate",
            |_| {
                let join =
                    json!({"from": "big", "localField": "n", "foreignField": "n", "as": "all"});
                let pipeline = json!([{"$limit": 200}, {"$lookup": join}, {"$count": "all"}]);
                with("big", json!({"pipeline": pipeline}))
            },
        ),
        sends("aggregates that group and sort", 8, "aggregate", |_| {
            let group = json!({"$group": {"_id": {"$mod": ["$_id", 9973]}, "n": {"$sum": "$n"}}});
            with(
                "big",
                json!({"pipeline": [group, {"$sort": {"n": 1, "_id": 1}}]}),
            )
        }),
        sends("requests that are always refused", 8, "updateOne", |_| {
            let filter = json!({"_id": "text"});
            with(
                "text",
                json!({"filter": filter, "update": {"$inc": {"text": 1}}}),
            )
        }),
        sends("inserts of an id that is taken", 8, "insertOne", |_| {
            with("text", json!({"document": {"_id": "text"}}))
        }),
        Row {
            name: "one key again and again",
            clients: 8,
            act: Act::Repeats("insertOne", |_| with("bulk", json!({"document": {"a": 1}}))),
        },
        Row {
            name: "readers that leave after 20 ms",
            clients: 256,
            act: Act::Leaves("find", |_| with("big", json!({"filter": {"n": 1}})), 20),
        },
        Row {
            name: "readers by _id that leave after 2 ms",
            clients: 256,
            act: Act::Leaves("findOne", |n| with("big", json!({"filter": {"_id": n}})), 2),
        },
        Row {
            name: "writers that leave after 3 ms",
            clients: 256,
            act: Act::Leaves("insertOne", |_| with("bulk", json!({"document": {}})), 3),
        },
        Row {
            name: "readers of the log",
            clients: 32,
            act: Act::ReadsLog,
        },
        Row {
            name: "a transaction on 60 documents that 60 clients want",
            clients: 60,
            act: Act::HoldsDocuments,
        },
        Row {
            name: "a lock on a collection that 8 clients want",
            clients: 8,
            act: Act::LocksCollection,
        },
        Row {
            name: "a collection that is dropped again and again",
            clients: 8,
            act: Act::DropsCollection,
        },
        still("the successor frozen", Secondary::Successor, How::Frozen),
        still(
            "the successor locked by fsync",
            Secondary::Successor,
            How::Locked,
        ),
        still("the other secondary frozen", Secondary::Other, How::Frozen),
        still(
            "the other secondary locked by fsync",
            Secondary::Other,
            How::Locked,
        ),
        Row {
            name: "crowds of 256 readers vanish",
            clients: 1,
            act: Act::Vanishes,
        },
        Row {
            name: "the primary steps down each second",
            clients: 1,
            act: Act::StepsDown,
        },
    ]
}

fn still(name: &'static str, secondary: Secondary, how: How) -> Row {
    Row {
        name,
        clients: 1,
        act: Act::StandsStill(secondary, how),
    }
}

fn main() -> ExitCode {
    let chosen = std::env::args().nth(1).unwrap_or_default();
    let cluster = Cluster::start(&[]);
    let holds = Runtime::new().unwrap().block_on(async {
        prepare(&cluster).await;
        settled(&cluster).await;
        println!(
            "| neighbour | longest time without a write answered | without a read | writes p50 / p99 / max \
             | driver: longest | p50 | errors of others | coordinator |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        let mut holds = true;
        let mut rows = rows();
        rows.insert(0, nobody());
        for row in rows {
            if chosen.starts_with('-') || row.name.contains(&chosen) {
                holds &= measure(&cluster, &row).await;
            }
        }
        holds
    });
    match holds {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn nobody() -> Row {
    let act = Act::Sends("findOne", |_| json!({}));
    let (name, clients) = ("(nobody)", 0);
    Row { name, clients, act }
}

/// The node of the largest rank takes over from one that happened to come first, once.
async fn settled(cluster: &Cluster) {
    let http = Http::to(cluster);
    eventually("the node of the largest rank is coordinator", async || {
        let status = http.get("/status").await.json();
        let nodes = status["nodes"].as_array()?;
        let largest = nodes.iter().max_by_key(|node| node["rank"].as_u64())?;
        (largest["name"] == status["coordinator"]).then_some(())
    })
    .await;
}

async fn driver(cluster: &Cluster) -> Client {
    Client::with_uri_str(&cluster.info.mongodb_uri)
        .await
        .unwrap()
}

async fn prepare(cluster: &Cluster) {
    let driver = driver(cluster).await;
    let careless = driver.database("careless");
    let big = (0..DOCUMENTS).map(|n| doc! {"_id": n, "n": n % 100, "text": "some text"});
    careless.collection("big").insert_many(big).await.unwrap();
    let text = (0..200).map(|_| doc! {"text": "a".repeat(28) + "b"});
    let texts = careless.collection::<Document>("text");
    texts.insert_many(text).await.unwrap();
    texts
        .insert_one(doc! {"_id": "text", "text": "text"})
        .await
        .unwrap();
    let mut bytes = doc! {"_id": "legacy", "name": "caf\u{e9}"}
        .to_vec()
        .unwrap();
    let at = bytes
        .windows(2)
        .position(|two| two == "\u{e9}".as_bytes())
        .unwrap();
    bytes[at] = 0xe9;
    let odd = careless.collection::<RawDocumentBuf>("odd");
    odd.insert_one(RawDocumentBuf::from_bytes(bytes).unwrap())
        .await
        .unwrap();
    for name in ["held", "locked"] {
        let held = (0..60).map(|n| doc! {"_id": format!("d{n}"), "n": 0});
        careless.collection(name).insert_many(held).await.unwrap();
    }
}

/// What the others saw: when each answer came, how long it took, and what was no answer.
#[derive(Default)]
struct Seen {
    answers: Vec<(Instant, Duration)>,
    errors: Vec<String>,
}

type Watched = Arc<Mutex<Seen>>;

async fn measure(cluster: &Cluster, row: &Row) -> bool {
    let before = epoch(cluster).await;
    let (end, ended) = watch::channel(false);
    let [writes, reads, direct]: [Watched; 3] = Default::default();
    let mut others = JoinSet::new();
    let nodes = &cluster.info.nodes;
    for number in 0..OTHERS {
        let node = &nodes[number % nodes.len()];
        let http = Http::new(&node.url, &cluster.info.api_key);
        let (seen, ended) = match number % 2 {
            0 => (Arc::clone(&writes), ended.clone()),
            _ => (Arc::clone(&reads), ended.clone()),
        };
        others.spawn(other(http, number, seen, ended));
    }
    let plain = driver(cluster)
        .await
        .database("others")
        .collection("direct");
    others.spawn(beside(plain, Arc::clone(&direct), ended));
    let begun = Instant::now();
    careless(cluster, row).await;
    let done = Instant::now();
    if matches!(row.act, Act::StandsStill(..) | Act::StepsDown) {
        sleep(STILL_WAIT_MAX).await;
    }
    end.send_replace(true);
    while let Some(joined) = others.join_next().await {
        joined.unwrap();
    }
    let after = epoch(cluster).await;
    let (writes, reads, direct) = (writes.lock().await, reads.lock().await, direct.lock().await);
    let (write_gap, read_gap) = (gap(&writes, begun), gap(&reads, begun));
    let errors: Vec<_> = writes.errors.iter().chain(&reads.errors).collect();
    let waited = match row.act {
        Act::StandsStill(..) => part(&writes, 100) < STILL_WAIT_MAX,
        // The bar is on the time after the last one.
        Act::StepsDown => last_gap(&writes, done) < STILL_WAIT_MAX,
        _ => write_gap < GAP_MAX && read_gap < GAP_MAX,
    };
    let holds = waited && errors.is_empty() && before == after;
    println!(
        "| {}{} | {} | {} | {} / {} / {} | {} | {} | {} | {} |",
        row.name,
        if holds { "" } else { " (missed)" },
        ms(write_gap),
        ms(read_gap),
        ms(part(&writes, 50)),
        ms(part(&writes, 99)),
        ms(part(&writes, 100)),
        ms(gap(&direct, begun)),
        ms(part(&direct, 50)),
        errors.len(),
        if before == after { "stays" } else { "changed" },
    );
    if let Some(first) = errors.first() {
        eprintln!("{}: {first:.300}", row.name);
    }
    holds
}

/// The epoch at the end of the log, once MongoDB tells it.
async fn epoch(cluster: &Cluster) -> i64 {
    let http = Http::to(cluster);
    eventually("the status tells the epoch", async || {
        http.get("/status").await.json()["epoch"].as_i64()
    })
    .await
}

/// One of the others, until the end.
async fn other(http: Http, number: usize, seen: Watched, ended: watch::Receiver<bool>) {
    let own = json!({"database": "others", "collection": "all", "filter": {"_id": number}});
    let new = json!({"database": "others", "collection": "all", "document": {"by": number}});
    while !*ended.borrow() {
        let begun = Instant::now();
        let reply = match number % 2 {
            0 => http.act("insertOne", &new).await,
            _ => http.act("findOne", &own).await,
        };
        let mut seen = seen.lock().await;
        match reply.status {
            200 | 201 => seen.answers.push((Instant::now(), begun.elapsed())),
            status => seen.errors.push(format!("{status} {}", reply.text)),
        }
        drop(seen);
        sleep(Duration::from_millis(5)).await;
    }
}

async fn beside(plain: Collection<Document>, seen: Watched, ended: watch::Receiver<bool>) {
    while !*ended.borrow() {
        let begun = Instant::now();
        let written = plain.insert_one(doc! {"a": 1}).await;
        let mut seen = seen.lock().await;
        match written {
            Ok(_) => seen.answers.push((Instant::now(), begun.elapsed())),
            Err(error) => seen.errors.push(error.to_string()),
        }
        drop(seen);
        sleep(Duration::from_millis(5)).await;
    }
}

/// The longest time without an answer, from the beginning to the end.
fn gap(seen: &Seen, begun: Instant) -> Duration {
    let times = seen
        .answers
        .iter()
        .map(|(at, _)| *at)
        .filter(|at| *at > begun);
    let times: Vec<_> = std::iter::once(begun).chain(times).collect();
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    let last = times.last().map_or(Duration::ZERO, Instant::elapsed);
    gaps.max().unwrap_or(last)
}

/// The time from then to the next answer.
fn last_gap(seen: &Seen, from: Instant) -> Duration {
    let after = seen
        .answers
        .iter()
        .map(|(at, _)| *at)
        .filter(|at| *at > from);
    after.min().map_or(Duration::MAX, |at| at - from)
}

/// The time that so many in a hundred took at most.
fn part(seen: &Seen, percent: usize) -> Duration {
    let mut times: Vec<_> = seen.answers.iter().map(|(_, time)| *time).collect();
    times.sort_unstable();
    let at = times.len() * percent / 100;
    let at = at.min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or_default()
}

fn ms(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}

/// Has the neighbours do what they do for the time of a row.
async fn careless(cluster: &Cluster, row: &Row) {
    let until = Instant::now() + LASTS;
    let http = Http::to(cluster);
    let database = driver(cluster).await.database("careless");
    let wants = |name: &'static str| {
        move |n: usize| {
            let filter = json!({"_id": format!("d{}", n % 60)});
            with(
                name,
                json!({"filter": filter, "update": {"$inc": {"n": 1}}}),
            )
        }
    };
    match &row.act {
        Act::Sends(action, body) => {
            all(row.clients, until, async |n| {
                drop(http.act(action, &body(n)).await);
            })
            .await;
            sleep(until.saturating_duration_since(Instant::now())).await;
        }
        Act::Repeats(action, body) => {
            let key = [("idempotency-key", "used")];
            let again = async |n| drop(http.act_with(action, &key, &body(n)).await);
            all(row.clients, until, again).await;
        }
        Act::Leaves(action, body, after_ms) => {
            let leaves = async |n| {
                let request = http.act_with(action, &[], &body(n)).await;
                drop(request);
            };
            let after = Duration::from_millis(*after_ms);
            all(row.clients, until, async |n| {
                drop(timeout(after, leaves(n)).await);
            })
            .await;
        }
        Act::Vanishes => {
            let body = with("text", json!({"filter": {"_id": "text"}}));
            for round in 0..setting("DRUMLINE_CROWDS", CROWDS) {
                let reader = async |number: u64| {
                    let until = Duration::from_micros((number * 97 + round * 31) % VANISH_MAX_US);
                    drop(timeout(until, http.act("findOne", &body)).await);
                };
                let crowd = (0..CROWD).map(reader);
                futures_util::future::join_all(crowd).await;
            }
        }
        Act::ReadsLog => {
            all(row.clients, until, async |_| read_log(&http).await).await;
        }
        Act::HoldsDocuments => {
            let held = database.collection::<Document>("held");
            let mut session = held.client().start_session().await.unwrap();
            session.start_transaction().await.unwrap();
            let change = held.update_many(doc! {}, doc! {"$set": {"held": true}});
            change.session(&mut session).await.unwrap();
            let body = wants("held");
            all(row.clients, until, async |n| {
                drop(http.act("updateOne", &body(n)).await);
            })
            .await;
            session.abort_transaction().await.unwrap();
        }
        Act::LocksCollection => {
            let locked = database.collection::<Document>("locked");
            let mut session = locked.client().start_session().await.unwrap();
            session.start_transaction().await.unwrap();
            let insert = locked.insert_one(doc! {"other": true});
            insert.session(&mut session).await.unwrap();
            let waiting = locked.clone();
            let indexing = tokio::spawn(async move {
                let index = IndexModel::builder().keys(doc! {"n": 1}).build();
                waiting.create_index(index).await
            });
            let body = wants("locked");
            all(row.clients, until, async |n| {
                drop(http.act("updateOne", &body(n)).await);
            })
            .await;
            session.abort_transaction().await.unwrap();
            indexing.await.unwrap().unwrap();
        }
        Act::StandsStill(which, how) => stand_still(cluster, *which, *how).await,
        Act::StepsDown => step_down(cluster).await,
        Act::DropsCollection => {
            let dropped = database.collection::<Document>("dropped");
            let body = |_| with("dropped", json!({"document": {"a": 1}}));
            let act = async |n: usize| match n {
                0 => dropped.drop().await.unwrap(),
                _ => drop(http.act("insertOne", &body(n)).await),
            };
            all(row.clients, until, act).await;
        }
    }
}

async fn read_log(http: &Http) {
    drop(http.try_get("/log?from=1&limit=1000").await);
}

/// So many clients at a time, each again and again until the time is up.
async fn all(clients: usize, until: Instant, act: impl AsyncFn(usize)) {
    let client = async |number: usize| {
        while Instant::now() < until {
            act(number).await;
        }
    };
    futures_util::future::join_all((0..clients).map(client)).await;
}
