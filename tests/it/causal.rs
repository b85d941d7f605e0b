//! Causal reads: any node, any member, and never older than the stamp or the token that the client
//! brings.

use std::future::Future;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures_util::future::join_all;
use mongodb::Client;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::sleep;

use crate::support::http::{Http, Reply};
use crate::support::passing::{MemberNodes, Passing};
use crate::support::{Cluster, PATIENCE, POLL, Pid, Sandbox, kill};

/// What a member that is frozen may cost one read.
const DETOUR_MAX: Duration = Duration::from_secs(4);

async fn driver(cluster: &Cluster) -> Client {
    Client::with_uri_str(&cluster.info.mongodb_uri)
        .await
        .unwrap()
}

/// A driver that speaks with this member alone.
async fn at(cluster: &Cluster, host: &str) -> Client {
    let (credentials, _) = cluster.info.mongodb_uri.split_once('@').unwrap();
    let uri = format!("{credentials}@{host}/?directConnection=true&authSource=admin");
    Client::with_uri_str(&uri).await.unwrap()
}

async fn until<T, F: Future<Output = Option<T>>>(why: &str, condition: impl Fn() -> F) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < end, "waited in vain: {why}");
        sleep(POLL).await;
    }
}

async fn primary(driver: &Client) -> Option<String> {
    let admin = driver.database("admin");
    let hello: Document = admin.run_command(doc! {"hello": 1}).await.ok()?;
    hello.get_str("primary").ok().map(str::to_owned)
}

/// Has the primary step down, and waits until another one is elected.
async fn change_primary(driver: &Client) {
    let before = until("there is a primary", || primary(driver)).await;
    until("another primary is elected", || async {
        // It may refuse, for a lock that it does not get or a secondary that has not caught up.
        let step_down = doc! {"replSetStepDown": 20, "secondaryCatchUpPeriodSecs": 10};
        let now = primary(driver).await;
        if now.as_ref() == Some(&before) {
            let _ = driver.database("admin").run_command(step_down).await;
        }
        now.filter(|now| *now != before)
    })
    .await;
}

/// From now on both secondaries copy from the primary alone, so that none waits for the other one.
///
/// A member that is merely told its source chooses another one when it finds that source not ahead.
async fn forbid_chains(driver: &Client, secondaries: [&Client; 2], primary: &str) {
    let admin = driver.database("admin");
    let got = admin.run_command(doc! {"replSetGetConfig": 1}).await;
    let mut config = got.unwrap().get_document("config").unwrap().clone();
    let version = config.get_i32("version").unwrap();
    config.insert("version", version + 1);
    let settings = config.get_document_mut("settings").unwrap();
    settings.insert("chainingAllowed", false);
    let change = doc! {"replSetReconfig": config};
    admin.run_command(change).await.unwrap();
    for secondary in secondaries {
        until("the secondary copies from the primary", || async {
            let asked = secondary.database("admin");
            let status: Document = asked
                .run_command(doc! {"replSetGetStatus": 1})
                .await
                .unwrap();
            let source = status.get_str("syncSourceHost");
            source.is_ok_and(|source| source == primary).then_some(())
        })
        .await;
    }
}

fn of(name: &str) -> Value {
    json!({"database": "causal", "collection": name})
}

async fn insert(http: &Http, name: &str, id: i32) -> Reply {
    let mut body = of(name);
    body["document"] = json!({"_id": {"$numberInt": id.to_string()}});
    http.act("insertOne", &body).await.expect(201)
}

/// All documents, read causally with this stamp.
async fn find(http: &Http, name: &str, stamp: &str) -> Reply {
    let headers = [("Drumline-Read", "causal"), ("Drumline-Stamp", stamp)];
    http.act_with("find", &headers, &of(name)).await
}

fn count(reply: &Reply) -> usize {
    reply.json()["documents"].as_array().unwrap().len()
}

#[test]
fn eight_clients_pass_stamps_on_while_the_primary_changes() {
    let cluster = Cluster::start(&[]);
    Runtime::new().unwrap().block_on(async {
        let driver = driver(&cluster).await;
        let nodes = MemberNodes::start(&cluster).await;
        let mut readers = nodes.https();
        readers.push(Http::to(&cluster));
        let passing = Passing::start(&cluster, readers);
        for _ in 0..4 {
            passing.until_read(100).await;
            change_primary(&driver).await;
        }
        passing.until_read(100).await;
        let violations = passing.stop().await;
        assert!(violations.is_empty(), "{violations:#?}");
    });
}

#[test]
fn a_secondary_that_lags_shows_nothing_old_and_others_serve() {
    // Otherwise nodes lead the other secondary back to the one that lags.
    let cluster = Cluster::start(&["--assist-elections=false"]);
    Runtime::new().unwrap().block_on(async {
        let writer = Http::to(&cluster);
        let driver = driver(&cluster).await;
        let nodes = MemberNodes::start(&cluster).await;
        let primary = until("there is a primary", || primary(&driver)).await;
        let members = cluster.info.members.iter().zip(nodes.https());
        let mut secondaries = members.filter(|(member, _)| member.host != primary);
        let (member, lagging) = secondaries.next().unwrap();
        let (other, _) = secondaries.next().unwrap();
        let locked = at(&cluster, &member.host).await;
        let free = at(&cluster, &other.host).await;
        forbid_chains(&driver, [&locked, &free], &primary).await;
        let first = insert(&writer, "lag", 1).await;
        let old = first.header("drumline-stamp").unwrap();
        find(&lagging, "lag", old).await.expect(200);

        let admin = locked.database("admin");
        admin
            .run_command(doc! {"fsync": 1, "lock": true})
            .await
            .unwrap();
        let second = insert(&writer, "lag", 2).await;
        let new = second.header("drumline-stamp").unwrap();
        let asked = Instant::now();
        let late = find(&lagging, "lag", new).await.expect(504);
        assert!(
            asked.elapsed() < Duration::from_secs(8),
            "{:?}",
            asked.elapsed()
        );
        assert_eq!(late.json()["error_code"], "StaleRead");
        for part in [
            format!("stamp {new} was asked for"),
            format!("is at {old};"),
        ] {
            assert!(late.text.contains(&part), "{late:?} lacks {part:?}");
        }
        let undemanding = find(&lagging, "lag", old).await.expect(200);
        assert_eq!(count(&undemanding), 1, "the member does not lag");
        for _ in 0..50 {
            let served = find(&writer, "lag", new).await.expect(200);
            assert_eq!(count(&served), 2);
        }

        admin.run_command(doc! {"fsyncUnlock": 1}).await.unwrap();
        let caught_up = until("the member catches up", || async {
            Some(find(&lagging, "lag", new).await).filter(|reply| reply.status == 200)
        });
        assert_eq!(count(&caught_up.await), 2);
    });
}

/// With the primary frozen, nobody but a secondary can answer.
#[test]
fn whichever_member_is_frozen_the_others_serve() {
    let cluster = Cluster::start(&[]);
    Runtime::new().unwrap().block_on(async {
        let http = Http::to(&cluster);
        let written = insert(&http, "frozen", 1).await;
        let stamp = written.header("drumline-stamp").unwrap();
        let primary = cluster.primary_pid().await;
        let mut pids: Vec<_> = cluster
            .info
            .members
            .iter()
            .map(|member| member.pid)
            .collect();
        // The primary last: while it is frozen another one is elected.
        pids.sort_by_key(|pid| *pid == primary);
        for pid in pids {
            kill(pid, Signal::STOP);
            let mut slowest = Duration::ZERO;
            for _ in 0..30 {
                let asked = Instant::now();
                let reply = find(&http, "frozen", stamp).await.expect(200);
                assert_eq!(count(&reply), 1);
                slowest = slowest.max(asked.elapsed());
            }
            kill(pid, Signal::CONT);
            println!("slowest read while a member was frozen: {slowest:?}");
            assert!(slowest < DETOUR_MAX);
        }
    });
}

/// The member that runs an aggregation over this collection now.
async fn runs_on(cluster: &Cluster, members: &[Client], name: &str) -> Option<Pid> {
    let mine = doc! {"currentOp": 1, "command.aggregate": name};
    for (driver, member) in members.iter().zip(&cluster.info.members) {
        let ops = driver.database("admin").run_command(mine.clone()).await;
        let ops: Document = ops.unwrap();
        if !ops.get_array("inprog").unwrap().is_empty() {
            return Some(member.pid);
        }
    }
    None
}

#[test]
fn a_member_that_freezes_in_the_middle_of_a_query_is_left() {
    let cluster = Cluster::start(&[]);
    Runtime::new().unwrap().block_on(async {
        let http = Http::to(&cluster);
        insert(&http, "slow", 1).await;
        let members = cluster.info.members.iter();
        let members = join_all(members.map(|member| at(&cluster, &member.host))).await;
        // About a second of arithmetic.
        let inner = json!({"$map": {"input": {"$range": [0, 10_000]}, "in": {"$sqrt": "$$this"}}});
        let sum = json!({"$add": ["$$value", {"$sum": inner}]});
        let outer = json!({"input": {"$range": [0, 300]}, "initialValue": 0, "in": sum});
        let mut slow = of("slow");
        slow["pipeline"] = json!([{"$project": {"sum": {"$reduce": outer}}}]);
        // On a busy machine the query may be over before it is seen, or before the member is
        // frozen: then the answer comes at once, and it is tried again.
        let why = "a member is frozen in the middle of the query";
        let (took, reply) = until(why, || {
            let (http, slow) = (Http::to(&cluster), slow.clone());
            let (cluster, members) = (&cluster, &members);
            async move {
                let mut reading = tokio::spawn(async move {
                    let headers = [("Drumline-Read", "causal")];
                    let reply = http.act_with("aggregate", &headers, &slow).await;
                    (Instant::now(), reply)
                });
                let seen = until("a member runs the query", || {
                    runs_on(cluster, members, "slow")
                });
                let pid = tokio::select! {
                    pid = seen => pid,
                    _ = &mut reading => return None,
                };
                kill(pid, Signal::STOP);
                let frozen = Instant::now();
                let (answered, reply) = reading.await.unwrap();
                kill(pid, Signal::CONT);
                let took = answered - frozen;
                (took > Duration::from_secs(1)).then_some((took, reply))
            }
        })
        .await;
        println!("frozen in a query, answered after {took:?}");
        assert_eq!(count(&reply.expect(200)), 1);
    });
}

#[test]
fn capped_collections_and_descriptions_are_read_causally_too() {
    let cluster = Cluster::shared();
    Runtime::new().unwrap().block_on(async {
        let database = driver(cluster).await.database("causal");
        let capped = doc! {"create": "ring", "capped": true, "size": 4_096};
        database.run_command(capped).await.unwrap();
        database
            .collection("ring")
            .insert_one(doc! {"_id": 1})
            .await
            .unwrap();
        let http = Http::to(cluster);
        for _ in 0..10 {
            assert_eq!(count(&find(&http, "ring", "0").await.expect(200)), 1);
            let mut describe = of("ring");
            describe["pipeline"] = json!([{"$collStats": {"count": {}}}]);
            let headers = [("Drumline-Read", "causal")];
            let described = http.act_with("aggregate", &headers, &describe).await;
            assert_eq!(count(&described.expect(200)), 1);
        }
    });
}

/// The cluster is deleted and made anew at the same addresses; its user still has the old clock.
#[test]
fn the_clock_of_a_cluster_that_is_gone_is_set_back() {
    let sandbox = Sandbox::new();
    let small = [
        "up",
        "--name",
        "anew",
        "--nodes",
        "1",
        "--members",
        "1",
        "--detach",
    ];
    let up = |port: &str| sandbox.ok(&[&small[..], &["--base-port", port]].concat());
    up("0");
    for id in ["1", "2", "3"] {
        sandbox.ok(&["put", "a.b", id, "{}"]);
    }
    let url = sandbox.info("anew").nodes[0].url.clone();
    sandbox.ok(&["down", "--name", "anew", "--purge"]);
    let port: u16 = url.rsplit(':').next().unwrap().parse().unwrap();
    up(&(port - 1).to_string());
    assert_eq!(sandbox.info("anew").nodes[0].url, url);

    let causal = ["find", "a.b", "--read", "causal", "--timeout", "7s"];
    let late = sandbox.run(&causal);
    assert_eq!(late.status, 1, "{late:#?}");
    assert!(
        late.stderr
            .contains("a linearizable read is one of the new log"),
        "{late:#?}"
    );
    let told = sandbox.ok(&["find", "a.b"]);
    assert!(told.stderr.contains("Your clock is set back"), "{told:#?}");
    assert_eq!(sandbox.ok(&causal).stderr, "");
    sandbox.ok(&["down", "--name", "anew", "--purge"]);
}
