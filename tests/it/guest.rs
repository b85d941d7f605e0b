//! Commands without a server: they append to the log themselves, beside a node or without one, and
//! one that dies in its append stalls nobody.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use drumline::client::Clock;
use drumline::model::RequestId;
use mongodb::{Client, ClientSession};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::support::audit::audit;
use crate::support::load::{End, Load, Op, Record};
use crate::support::{Cluster, Outcome, bar};

/// What a command that died may cost the next request of a node.
const STALL_MAX: Duration = bar(2);

/// Runs commands on a cluster's replica set, without its nodes.
struct Commands<'a> {
    cluster: &'a Cluster,
    uri_file: String,
}

impl<'a> Commands<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let path = cluster.sandbox().path("mongodb-uri");
        fs::write(&path, &cluster.info.mongodb_uri).unwrap();
        let uri_file = path.to_str().unwrap().to_owned();
        Self { cluster, uri_file }
    }

    fn arguments<'b>(&'b self, arguments: &[&'b str]) -> Vec<&'b str> {
        [arguments, &["--mongodb-file", &self.uri_file]].concat()
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.cluster.sandbox().run(&self.arguments(arguments))
    }

    /// The JSON lines that a command prints.
    #[track_caller]
    fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        let outcome = self.cluster.sandbox().ok(&self.arguments(arguments));
        let lines = outcome.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Reads answer where there is no log yet, and begin none.
fn who_reads_writes_nothing(cluster: &Cluster, commands: &Commands<'_>) {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let driver = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        let others = driver.database("others").collection("notes");
        others.insert_one(doc! {"_id": 1, "a": 1}).await.unwrap();
    });
    for read in ["linearizable", "causal"] {
        let found = commands.lines(&["find", "others.notes", "--read", read]);
        assert_eq!(found, [json!({"_id": 1, "a": 1})]);
    }
    assert!(commands.lines(&["log"]).is_empty());
    runtime.block_on(async {
        let driver = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        let databases = driver.list_database_names().await.unwrap();
        assert!(!databases.contains(&"drumline".to_owned()), "{databases:?}");
    });
}

#[test]
fn commands_work_on_a_fresh_replica_set_without_any_node() {
    let cluster = Cluster::start(&["--nodes", "0"]);
    let commands = Commands::new(&cluster);
    who_reads_writes_nothing(&cluster, &commands);
    let inserted = &commands.lines(&["insert", "solo.notes", r#"{"_id": 1, "a": 1}"#])[0];
    assert_eq!(inserted["insertedId"], 1);
    commands.lines(&["put", "solo.notes", "2", r#"{"a": 2}"#]);
    let update = r#"{"$inc": {"a": 10}}"#;
    let updated = &commands.lines(&["update", "solo.notes", "{}", update, "--many"])[0];
    assert_eq!(updated["matchedCount"], 2);
    commands.lines(&["replace", "solo.notes", r#"{"_id": 1}"#, r#"{"b": 1}"#]);
    let found = commands.lines(&["find", "solo.notes", "--sort", r#"{"_id": 1}"#]);
    assert_eq!((&found[0]["b"], &found[1]["a"]), (&json!(1), &json!(12)));
    assert_eq!(commands.lines(&["get", "solo.notes", "2"])[0]["a"], 12);
    let causal = commands.lines(&["find", "solo.notes", "--read", "causal"]);
    assert_eq!(causal.len(), 2);
    commands.lines(&["delete", "solo.notes", r#"{"_id": 2}"#]);
    let refused = commands.run(&["insert", "solo.notes", r#"{"_id": 1}"#]);
    assert_eq!(refused.status, 1, "{refused:?}");

    let log = commands.lines(&["log"]);
    let kinds: Vec<_> = log.iter().map(|entry| entry["kind"].clone()).collect();
    assert_eq!(kinds[0], "claim", "an epoch begins with a claim");
    assert!(kinds[1..].iter().all(|kind| kind == "batch"));
    assert_eq!(kinds.len(), 7);
    assert_eq!(log[6]["entries"][0]["error"]["code"], 11000);
    let positions = log.iter().map(|entry| entry["_id"].as_i64().unwrap());
    assert!(positions.eq(1..=7));
}

#[test]
fn commands_append_beside_a_node_under_load_and_all_tell_one_story() {
    let cluster = Cluster::start(&[]);
    Runtime::new().unwrap().block_on(async {
        let load = Load::new(&cluster, "load.guests");
        let running = tokio::spawn({
            let load = load.clone();
            async move { load.run(8).await }
        });
        let commands = Commands::new(&cluster);
        let mut appended = Vec::new();
        let mut successes = 0;
        for number in 0..12 {
            let (record, done) = append(&commands, &format!("guest{number}"));
            appended.push(record);
            successes += usize::from(done);
        }
        load.stop();
        let mut records = running.await.unwrap();
        // The node knows the commands' answers too.
        load.settle(&mut appended).await;
        let replayed = |r: &&Record| matches!(&r.end, End::Acknowledged(w) if w.replayed);
        let replayed = appended.iter().filter(replayed).count();
        println!("{successes} of 12 commands got their turn beside 8 busy clients");
        assert!(replayed >= successes);
        records.extend(appended);
        let audited = audit(&cluster.info.mongodb_uri, &load.namespace, &records).await;
        println!("{audited:?}");
        assert_eq!(audited.unknown, 0);
        assert!(successes > 0, "no command got its turn");
    });
}

/// One insert by a command of its own, and whether the command succeeded.
fn append(commands: &Commands<'_>, key: &str) -> (Record, bool) {
    let id = RequestId::fresh();
    let document = json!({"_id": key, "by": id.as_str()}).to_string();
    let namespace = "load.guests";
    let invoked = Instant::now();
    let outcome = commands.run(&["insert", namespace, &document, "--request-id", id.as_str()]);
    let record = Record {
        id,
        op: Op::Insert { key: key.into() },
        invoked,
        returned: Instant::now(),
        end: End::Unknown,
    };
    if outcome.status != 0 {
        println!("{}", outcome.stderr.trim());
    }
    (record, outcome.status == 0)
}

/// What a command leaves that died after its log document and before its commit: its session is
/// registered, and an open transaction holds the log's next position.
async fn dead_append(driver: &Client) -> ClientSession {
    let database = driver.database("drumline");
    let mut session = driver.start_session().await.unwrap();
    let lsid = session.id().get("id").unwrap().clone();
    let guest = doc! {"_id": lsid.clone(), "at": bson::DateTime::now()};
    let guests = database.collection::<Document>("guests");
    guests.insert_one(guest).await.unwrap();
    session.start_transaction().await.unwrap();
    let log = database.collection::<Document>("log");
    let last = log.find_one(doc! {}).sort(doc! {"_id": -1}).await.unwrap();
    let position = last.unwrap().get_i64("_id").unwrap() + 1;
    let document = doc! {"_id": position, "lsid": lsid, "kind": Bson::Null};
    log.insert_one(document)
        .session(&mut session)
        .await
        .unwrap();
    session
}

#[test]
fn a_command_that_died_inside_its_append_stalls_the_node_for_a_moment() {
    let cluster = Cluster::start(&[]);
    Runtime::new().unwrap().block_on(async {
        let load = Load::new(&cluster, "load.dead");
        let client = load.client(Duration::from_secs(90));
        let insert = async |key: &str| {
            let op = Op::Insert { key: key.into() };
            load.one_request(&client, &Clock::default(), op).await
        };
        let mut records = vec![insert("before").await];
        let driver = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        for number in 0..3 {
            let _held = dead_append(&driver).await;
            let record = insert(&format!("held{number}")).await;
            let time = record.returned - record.invoked;
            println!("a write behind a command that died in its append: {time:?}");
            assert!(matches!(record.end, End::Acknowledged(_)), "{record:?}");
            assert!(time < STALL_MAX);
            records.push(record);
        }
        audit(&cluster.info.mongodb_uri, &load.namespace, &records).await;
    });
}

#[test]
fn commands_killed_at_any_moment_stall_the_node_for_a_moment() {
    let cluster = Cluster::start(&[]);
    Runtime::new().unwrap().block_on(async {
        let load = Load::new(&cluster, "load.killed_commands");
        let running = tokio::spawn({
            let load = load.clone();
            async move { load.run(4).await }
        });
        let commands = Commands::new(&cluster);
        for number in 0..30 {
            let key = format!(r#"{{"_id": "killed{number}"}}"#);
            let arguments = commands.arguments(&["insert", "other.killed", &key]);
            let mut command = cluster.sandbox().drumline(&arguments);
            let mut process = command
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            // Each dies a little later than the last: from before it connects until after its end.
            sleep(Duration::from_millis(10 * number)).await;
            process.kill().unwrap();
            spawn_blocking(move || process.wait())
                .await
                .unwrap()
                .unwrap();
        }
        load.stop();
        let mut records = running.await.unwrap();
        load.settle(&mut records).await;
        let longest = records
            .iter()
            .map(|r| r.returned - r.invoked)
            .max()
            .unwrap();
        println!("30 commands were killed; the slowest request took {longest:?}");
        assert!(longest < STALL_MAX);
        audit(&cluster.info.mongodb_uri, &load.namespace, &records).await;
    });
}
