//! The cluster view of real nodes and members, some of them frozen.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use drumline::model::limits::{LOOK_AGE_MAX, MEMBER_LOOK_MAX};
use futures_util::future::join_all;
use mongodb::Client;
use mongodb::bson::doc;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::sleep;

use crate::support::extra_node::ExtraNode;
use crate::support::http::Http;
use crate::support::{Cluster, Pid, kill, wait_for, wait_until};

/// A member may be silent for a second. An unoptimised build shares its cores with the tests beside it.
const REPLY_MAX: Duration =
    MEMBER_LOOK_MAX.saturating_add(Duration::from_millis(match cfg!(debug_assertions) {
        true => 3_000,
        false => 500,
    }));

/// The status as JSON, and the exit status.
fn status(cluster: &Cluster) -> (Value, i32) {
    let flags = ["status", "--name", Cluster::NAME, "-o", "json"];
    let outcome = cluster.sandbox().run(&flags);
    let view = serde_json::from_str(&outcome.stdout);
    (
        view.unwrap_or_else(|_| panic!("{outcome:#?}")),
        outcome.status,
    )
}

fn wait_for_health(cluster: &Cluster) -> Value {
    wait_for("the cluster is well", || {
        let (view, exit) = status(cluster);
        (exit == 0).then_some(view)
    })
}

/// As above, with a sync source of each secondary: one that chooses another tells none for a second.
fn wait_for_sync_sources(cluster: &Cluster) -> Value {
    wait_for("each secondary tells its sync source", || {
        let (view, exit) = status(cluster);
        let copies =
            |member: &Value| member["state"] != "secondary" || member["sync_source"].is_string();
        (exit == 0 && members(&view).iter().all(copies)).then_some(view)
    })
}

fn members(view: &Value) -> &[Value] {
    view["members"].as_array().unwrap()
}

#[track_caller]
fn assert_keys(value: &Value, keys: &[&str]) {
    let found: Vec<_> = value.as_object().unwrap().keys().collect();
    assert_eq!(found, keys);
}

/// The host of the first member in this state.
fn host(view: &Value, state: &str) -> String {
    let mut members = members(view).iter();
    let member = members.find(|member| member["state"] == state);
    member.unwrap()["host"].as_str().unwrap().to_owned()
}

fn member<'a>(view: &'a Value, host: &str) -> &'a Value {
    let mut members = members(view).iter();
    members.find(|member| member["host"] == host).unwrap()
}

fn pid(cluster: &Cluster, host: &str) -> Pid {
    let mut members = cluster.info.members.iter();
    members.find(|member| member.host == host).unwrap().pid
}

/// Stops a member's process and lets it go on at the end, however the test ends.
struct Frozen(Pid);

impl Frozen {
    fn new(cluster: &Cluster, host: &str) -> Self {
        let pid = pid(cluster, host);
        kill(pid, Signal::STOP);
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        kill(self.0, Signal::CONT);
    }
}

/// Asks for the status until this member is down in it, and no other: a look is given again for a
/// moment, and a busy machine may keep a member from its answer. Each reply must come in time.
fn until_down(runtime: &Runtime, http: &Http, host: &str) -> Value {
    wait_for("the member is down, and no other", || {
        let begun = Instant::now();
        let view = runtime.block_on(http.get("/status")).expect(200).json();
        let time = begun.elapsed();
        assert!(time < REPLY_MAX, "{time:?}");
        let right = |member: &Value| (member["state"] == "down") == (member["host"] == host);
        let told = members(&view).iter().all(right);
        told.then(|| println!("status with a frozen member: {time:?}"));
        told.then_some(view)
    })
}

#[test]
fn the_view_has_its_exact_form_and_tells_what_is_so() {
    let cluster = Cluster::shared();
    let insert = ["insert", "status.things", "{}", "--name", Cluster::NAME];
    let inserted: Value = serde_json::from_str(&cluster.sandbox().ok(&insert).stdout).unwrap();
    let view = wait_for_sync_sources(cluster);
    assert_keys(
        &view,
        &[
            "coordinator",
            "epoch",
            "position",
            "stamp",
            "primary",
            "term",
            "nodes",
            "members",
        ],
    );
    assert_keys(&view["stamp"], &["t", "n"]);
    assert!(view["epoch"].as_i64().unwrap() >= 1, "{view:#}");
    assert!(view["term"].as_i64().unwrap() >= 1, "{view:#}");
    assert!(view["position"].as_i64() >= inserted["position"].as_i64());
    assert!(view["stamp"]["t"].as_i64() >= inserted["stamp"].as_i64());

    let nodes = view["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), cluster.info.nodes.len());
    for (node, known) in nodes.iter().zip(&cluster.info.nodes) {
        assert_keys(node, &["name", "url", "rank", "role", "state"]);
        let role = match view["coordinator"] == known.name.as_str() {
            true => "coordinator",
            false => "follower",
        };
        let told = [&node["name"], &node["url"], &node["role"], &node["state"]];
        let expected = [
            json!(known.name),
            json!(known.url),
            json!(role),
            json!("alive"),
        ];
        assert_eq!(told, expected.each_ref());
        assert!(node["rank"].is_u64(), "{node}");
    }

    let hosts: BTreeSet<_> = members(&view)
        .iter()
        .map(|m| m["host"].as_str().unwrap())
        .collect();
    let real = cluster.info.members.iter();
    assert_eq!(hosts, real.map(|member| member.host.as_str()).collect());
    assert_eq!(view["primary"], json!(host(&view, "primary")));
    for member in members(&view) {
        assert_keys(
            member,
            &["host", "state", "lag_ms", "rtt_ms", "sync_source"],
        );
        let trip = member["rtt_ms"].as_f64().unwrap();
        assert!(trip > 0.0 && trip < 1_000.0, "{member:#}");
        let lag = member["lag_ms"].as_i64().unwrap();
        match member["state"].as_str().unwrap() {
            "primary" => assert!(lag == 0 && member["sync_source"].is_null(), "{member:#}"),
            "secondary" => assert!(hosts.contains(member["sync_source"].as_str().unwrap())),
            other => panic!("{other}: {member:#}"),
        }
    }
}

#[test]
fn a_frozen_member_is_down_and_delays_no_one() {
    let cluster = Cluster::start(&[]);
    let before = wait_for_health(&cluster);
    let http = Http::new(&cluster.info.nodes[0].url, "no key");
    let runtime = Runtime::new().unwrap();

    let secondary = host(&before, "secondary");
    let frozen = Frozen::new(&cluster, &secondary);
    let view = until_down(&runtime, &http, &secondary);
    let nothing = json!({"host": secondary, "state": "down", "lag_ms": null, "rtt_ms": null, "sync_source": null});
    assert_eq!(*member(&view, &secondary), nothing);
    for other in members(&before) {
        let host = other["host"].as_str().unwrap();
        if host != secondary {
            let now = member(&view, host);
            assert_eq!(now["state"], other["state"]);
            assert!(now["rtt_ms"].is_number(), "{view:#}");
        }
    }
    runtime.block_on(async {
        // They share the looks: one that runs, and one for who came too late for it.
        sleep(LOOK_AGE_MAX).await; // past it the last look is not given again
        let begun = Instant::now();
        let replies = join_all((0..200).map(|_| http.get("/status"))).await;
        let time = begun.elapsed();
        println!("200 at once: {time:?}");
        assert!(replies.iter().all(|reply| reply.status == 200));
        assert!(time < 2 * REPLY_MAX, "{time:?}");
    });
    let (view, exit) = status(&cluster);
    assert_eq!(exit, 3, "{view:#}");
    drop(frozen);
    wait_for_health(&cluster);

    let primary = wait_for_health(&cluster)["primary"]
        .as_str()
        .unwrap()
        .to_owned();
    let position = status(&cluster).0["position"].clone();
    let frozen = Frozen::new(&cluster, &primary);
    let view = until_down(&runtime, &http, &primary);
    assert_ne!(view["primary"], json!(primary));
    // The last known is told.
    assert!(view["position"].as_i64() >= position.as_i64(), "{view:#}");
    wait_until("another member is primary", || {
        status(&cluster).0["primary"].is_string()
    });
    drop(frozen);
    let after = wait_for_health(&cluster);
    assert_ne!(after["primary"], json!(primary));
    assert!(after["term"].as_i64() > before["term"].as_i64());
}

#[test]
fn a_member_that_was_killed_is_well_again_when_it_is_back() {
    let cluster = Cluster::start(&[]);
    let secondary = host(&wait_for_health(&cluster), "secondary");
    let killed = pid(&cluster, &secondary);
    kill(killed, Signal::KILL);
    wait_until("it is started again", || {
        let members = cluster.sandbox().info(Cluster::NAME).members;
        let now = members.iter().find(|member| member.host == secondary);
        now.is_some_and(|member| member.pid != killed && member.pid != 0)
    });
    let view = wait_for_health(&cluster);
    assert_eq!(member(&view, &secondary)["state"], "secondary");
}

#[test]
fn a_user_without_the_privilege_gets_the_rest_and_the_log_says_so_once() {
    let cluster = Cluster::start(&[]);
    let uri = &cluster.info.mongodb_uri;
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let driver = Client::with_uri_str(uri).await.unwrap();
        let user = doc! {"createUser": "plain", "pwd": "plain", "roles": ["readWriteAnyDatabase"]};
        driver.database("admin").run_command(user).await.unwrap();
    });
    let (_, hosts) = uri.split_once('@').unwrap();
    let node = ExtraNode::start(&cluster, "plain", &format!("mongodb://plain:plain@{hosts}"));
    node.until_listening();
    let http = Http::new(&node.url, "no key");
    let view = wait_for("all members are seen", || {
        let view = runtime.block_on(http.get("/status")).json();
        let mut states = members(&view).iter().map(|member| &member["state"]);
        let well =
            states.len() == 3 && states.all(|state| state == "primary" || state == "secondary");
        (well && view["primary"].is_string()).then_some(view)
    });
    assert!(view["term"].as_i64() >= Some(1), "{view:#}");
    for member in members(&view) {
        assert!(member["sync_source"].is_null() && member["rtt_ms"].is_number());
        assert_eq!(member["lag_ms"].as_i64().unwrap() % 1_000, 0, "{view:#}");
    }
    let log = node.said();
    assert_eq!(log.matches("clusterMonitor").count(), 1, "{log}");
}

#[test]
fn a_hidden_and_a_delayed_member_are_known_and_shown() {
    let cluster = Cluster::start(&[]);
    let before = wait_for_health(&cluster);
    let runtime = Runtime::new().unwrap();
    let mut hosts = members(&before)
        .iter()
        .filter(|member| member["state"] == "secondary");
    let late = hosts.next().unwrap()["host"].as_str().unwrap().to_owned();
    let hidden = hosts.next().unwrap()["host"].as_str().unwrap().to_owned();
    runtime.block_on(async {
        let driver = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        let admin = driver.database("admin");
        let reply = admin
            .run_command(doc! {"replSetGetConfig": 1})
            .await
            .unwrap();
        let mut config = reply.get_document("config").unwrap().clone();
        let version = config.get_i32("version").unwrap();
        config.insert("version", version + 1);
        for member in config.get_array_mut("members").unwrap() {
            let member = member.as_document_mut().unwrap();
            let host = member.get_str("host").unwrap().to_owned();
            if host == late || host == hidden {
                member.insert("hidden", true);
                member.insert("priority", 0);
            }
            if host == late {
                member.insert("secondaryDelaySecs", 3_600);
            }
        }
        admin
            .run_command(doc! {"replSetReconfig": config})
            .await
            .unwrap();
    });
    // The driver forgets them within a heartbeat.
    let view = wait_for("both are shown as what they are", || {
        let (view, exit) = status(&cluster);
        let all = members(&view);
        let found = all.iter().filter(|member| member["hidden"] == true).count();
        (exit == 0 && all.len() == 3 && found == 2).then_some(view)
    });
    assert_eq!(member(&view, &late)["delay_s"], 3_600, "{view:#}");
    let apart = member(&view, &hidden);
    assert_eq!(apart["state"], "secondary", "{view:#}");
    assert!(
        apart["lag_ms"].is_number() && apart.get("delay_s").is_none(),
        "{view:#}"
    );
    let leader = view["primary"].as_str().unwrap();
    assert!(member(&view, leader).get("hidden").is_none(), "{view:#}");
    let table = ["status", "--name", Cluster::NAME, "-o", "table"];
    let table = cluster.sandbox().run(&table);
    assert!(
        table.stdout.contains("secondary, hidden"),
        "{}",
        table.stdout
    );

    let frozen = Frozen::new(&cluster, &hidden);
    wait_for("the others tell that it is down", || {
        let (view, exit) = status(&cluster);
        let down = member(&view, &hidden)["state"] == "down";
        (exit == 3 && down).then_some(())
    });
    drop(frozen);
    wait_for_health(&cluster);
}
