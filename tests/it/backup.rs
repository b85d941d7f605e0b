//! The master backup, with real kills: what is restored is what was there, at the end and at
//! earlier points, also where another program writes and collections come and go.

mod dump;
mod faults;
mod interrupted;
mod little;
mod other_program;
mod selection;
mod stamps;
mod updates;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;
use rustix::process::Signal;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::load::{End, Load, Record, model};
use crate::support::{Cluster, Outcome, SMALL, eventually, kill, setting, wait_until};
use dump::{Dump, dump};
use other_program::{Dice, OtherProgram};

/// A file with a connection string, for commands.
fn uri_file(cluster: &Cluster) -> String {
    let path = cluster.sandbox().path("mongodb-uri");
    fs::write(&path, &cluster.info.mongodb_uri).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A backup of a cluster, in a folder of its sandbox.
struct Backup<'a> {
    cluster: &'a Cluster,
    folder: PathBuf,
    uri_file: String,
}

impl<'a> Backup<'a> {
    fn of(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            folder: cluster.sandbox().path("master"),
            uri_file: uri_file(cluster),
        }
    }

    fn folder(&self) -> &str {
        self.folder.to_str().unwrap()
    }

    fn arguments<'b>(&'b self, more: &[&'b str]) -> Vec<&'b str> {
        let mut arguments = vec!["backup", self.folder(), "--mongodb-file", &self.uri_file];
        arguments.extend(more);
        arguments
    }

    fn run(&self, more: &[&str]) -> Outcome {
        self.cluster.sandbox().run(&self.arguments(more))
    }

    /// A run to its end; what it prints.
    #[track_caller]
    fn ok(&self, more: &[&str]) -> Value {
        let outcome = self.cluster.sandbox().ok(&self.arguments(more));
        serde_json::from_str(outcome.stdout.trim_end()).unwrap()
    }

    fn start(&self, more: &[&str]) -> Child {
        let mut command = self.cluster.sandbox().drumline(&self.arguments(more));
        let log = self.cluster.sandbox().path("backup.log");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    fn said(&self) -> String {
        fs::read_to_string(self.cluster.sandbox().path("backup.log")).unwrap_or_default()
    }

    /// How many files there are whose names hold this.
    fn files(&self, part: &str) -> usize {
        files_in(&self.folder, part).len()
    }

    #[track_caller]
    fn verify(&self) {
        self.cluster
            .sandbox()
            .ok(&["backup", "verify", self.folder()]);
    }
}

fn files_in(folder: &Path, part: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let mut found: Vec<_> = paths
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().contains(part))
        })
        .collect();
    found.sort();
    found
}

/// A replica set to restore into, again and again.
struct Target {
    cluster: Cluster,
    uri_file: String,
}

impl Target {
    fn start() -> Self {
        let cluster = Cluster::start(&SMALL);
        Self {
            uri_file: uri_file(&cluster),
            cluster,
        }
    }

    fn run(&self, folder: &str, more: &[&str]) -> Outcome {
        let mut arguments = vec!["restore", folder, "--mongodb-file", &self.uri_file];
        arguments.extend(more);
        self.cluster.sandbox().run(&arguments)
    }

    /// Restores in the place of what is there; what the command prints.
    #[track_caller]
    fn ok(&self, folder: &str, more: &[&str]) -> Value {
        let outcome = self.run(folder, &[more, &["--drop", "--yes"]].concat());
        assert_eq!(outcome.status, 0, "{outcome:#?}");
        serde_json::from_str(outcome.stdout.trim_end()).unwrap()
    }

    async fn client(&self) -> Client {
        Client::with_uri_str(&self.cluster.info.mongodb_uri)
            .await
            .unwrap()
    }
}

/// The state of the source when nobody wrote.
struct Moment {
    position: i64,
    /// After the moment, and before anything else happened.
    time: String,
    dump: Dump,
}

/// The source while it is under load.
struct Source {
    cluster: Cluster,
    client: Client,
    records: Vec<Record>,
    moments: Vec<Moment>,
}

impl Source {
    async fn new() -> Self {
        let cluster = Cluster::start(&["--members", "1"]);
        let client = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        Self {
            client,
            cluster,
            records: Vec::new(),
            moments: Vec::new(),
        }
    }

    /// Clients and another program write, until that has had enough. Then a moment is kept.
    async fn burst(&mut self, other: &mut OtherProgram, steps: u32) {
        let load = Load::new(&self.cluster, "shop.load");
        let running = tokio::spawn({
            let load = load.clone();
            async move {
                let mut records = load.run(3).await;
                load.settle(&mut records).await;
                records
            }
        });
        other.run(steps).await;
        load.stop();
        self.records.extend(running.await.unwrap());
        self.keep_moment().await;
    }

    async fn keep_moment(&mut self) {
        // A last write through Drumline: its position stands for all that was done before it.
        let end = Load::new(&self.cluster, "shop.ends");
        let key = format!("end-{}", self.moments.len());
        let op = crate::support::load::Op::Insert { key };
        let client = end.client(Duration::from_secs(20));
        let record = end
            .one_request(&client, &drumline::client::Clock::default(), op)
            .await;
        let End::Acknowledged(written) = &record.end else {
            panic!("{record:?}");
        };
        let position = written.position.unwrap();
        // A node that claims meanwhile is no harm: the log is compared up to the position.
        let dump = dump(&self.client, Some(position)).await;
        let time = eventually("the clock goes on", async || {
            let hello = self
                .client
                .database("admin")
                .run_command(doc! {"hello": 1})
                .await
                .unwrap();
            let now = hello.get_datetime("localTime").unwrap().timestamp_millis();
            // Not the millisecond in which the last change was made.
            (now > dump.wall).then(|| {
                bson::DateTime::from_millis(now)
                    .try_to_rfc3339_string()
                    .unwrap()
            })
        })
        .await;
        self.moments.push(Moment {
            position,
            time,
            dump,
        });
    }

    /// What the log's order makes of the load's writes up to a position.
    fn replayed(&self, position: i64) -> BTreeMap<String, Document> {
        let done = self.records.iter().filter_map(|record| match &record.end {
            End::Acknowledged(written) => {
                Some((written.stamp.unwrap(), written.position.unwrap(), record))
            }
            _ => None,
        });
        let mut done: Vec<_> = done.filter(|(_, at, _)| *at <= position).collect();
        done.sort_by_key(|(stamp, _, _)| *stamp);
        let mut documents = BTreeMap::new();
        for (_, _, record) in done {
            let key = record.op.key().to_owned();
            match model(&record.op, record.id.as_str(), documents.get(&key)).unwrap() {
                Some(document) => drop(documents.insert(key, document)),
                None => drop(documents.remove(&key)),
            }
        }
        documents
    }
}

/// Kills runs of `backup --follow` again and again, each after it has done something, while the
/// source is under load.
fn killed_again_and_again(backup: &Backup<'_>, dice: &mut Dice, done: impl Fn() -> bool) -> u32 {
    let mut kills = 0;
    while !done() {
        let mut running = backup.start(&["--follow", "--every", "100ms", "--file-bytes", "300000"]);
        let (files, more) = (
            backup.files("b0001-"),
            1 + usize::try_from(dice.below(3)).unwrap(),
        );
        wait_until("the backup grows, or the load ends", || {
            let ended = running.try_wait().unwrap();
            assert!(ended.is_none(), "it ended by itself:\n{}", backup.said());
            done() || backup.files("b0001-") >= files + more
        });
        kill(running.id(), Signal::KILL);
        running.wait().unwrap();
        kills += 1;
    }
    kills
}

#[test]
fn what_is_restored_is_what_was_there_at_each_point() {
    let seed = setting("DRUMLINE_SEED", 0x0BAC_2026);
    let bursts = setting("DRUMLINE_BACKUP_BURSTS", 4);
    let points = setting("DRUMLINE_BACKUP_POINTS", 5);
    println!("DRUMLINE_SEED={seed}");
    let runtime = Runtime::new().unwrap();
    let mut source = runtime.block_on(Source::new());
    let mut dice = Dice::new(seed);
    let mut other = runtime.block_on(OtherProgram::new(&source.cluster.info.mongodb_uri, seed));
    runtime.block_on(other.prepare());
    let backup_cluster = Cluster::start_in(crate::support::Sandbox::new(), &SMALL);
    let backup = Backup {
        cluster: &backup_cluster,
        folder: backup_cluster.sandbox().path("master"),
        uri_file: uri_file(&source.cluster),
    };
    // The base is read, and killed, under the first burst.
    let done = std::sync::atomic::AtomicBool::new(false);
    let kills = std::thread::scope(|scope| {
        let killing = scope.spawn(|| {
            let done = || done.load(std::sync::atomic::Ordering::Relaxed);
            killed_again_and_again(&backup, &mut dice, done)
        });
        runtime.block_on(async {
            for _ in 0..bursts {
                source.burst(&mut other, 150).await;
            }
        });
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        killing.join().unwrap()
    });
    println!(
        "{kills} kills, {} requests, {}",
        source.records.len(),
        other.did()
    );
    let ran = backup.ok(&["--file-bytes", "300000"]);
    assert_eq!(ran["leftOut"], serde_json::json!([]), "{ran}");
    backup.verify();
    let target = Target::start();
    let client = runtime.block_on(target.client());
    let first = ran["first"]["position"].as_i64().unwrap();
    // The end, by its position and by no point at all.
    target.ok(backup.folder(), &[]);
    let last = source.moments.last().unwrap();
    runtime
        .block_on(dump(&client, Some(last.position)))
        .expect(&last.dump, "the end");
    let mut compared = 0;
    for moment in source
        .moments
        .iter()
        .filter(|moment| moment.position >= first)
    {
        let position = moment.position.to_string();
        let point = match compared % 2 {
            0 => ["--to-position", &position],
            _ => ["--to-time", &moment.time],
        };
        let restored = target.ok(backup.folder(), &point);
        assert_eq!(
            restored["position"], moment.position,
            "{point:?}: {restored}"
        );
        let restored = runtime.block_on(dump(&client, None));
        restored.expect(&moment.dump, &format!("{point:?}"));
        compared += 1;
    }
    assert!(
        compared > 1,
        "only {compared} moments lie in the window that begins at {first}"
    );
    for _ in 0..points {
        let span = u64::try_from(last.position - first).unwrap();
        let position = first + i64::try_from(dice.below(span)).unwrap();
        target.ok(backup.folder(), &["--to-position", &position.to_string()]);
        let stored = runtime.block_on(dump::unstamped(&client, "shop", "load"));
        assert!(
            stored == source.replayed(position),
            "at position {position}"
        );
    }
}

#[test]
fn a_restored_cluster_serves_and_knows_the_requests_that_it_answered() {
    let cluster = Cluster::start(&["--members", "1", "--nodes", "1"]);
    let url = &cluster.info.nodes[0].url;
    let key = cluster.sandbox().path("key");
    fs::write(&key, &cluster.info.api_key).unwrap();
    let to = |url: &str, more: &[&str]| {
        let mut arguments = more.to_vec();
        let key = key.to_str().unwrap().to_owned();
        arguments.extend(["--servers", url, "--api-key-file", &key]);
        cluster.sandbox().ok(&arguments).stdout
    };
    let insert = [
        "insert",
        "shop.orders",
        r#"{"_id": 1}"#,
        "--request-id",
        "order-1",
    ];
    let before = to(url, &insert);
    let backup = Backup::of(&cluster);
    backup.ok(&[]);
    let target = Target::start();
    target.ok(backup.folder(), &[]);
    let node = crate::support::extra_node::ExtraNode::start(
        &cluster,
        "n9",
        &target.cluster.info.mongodb_uri,
    );
    node.until_listening();
    let again: Value = serde_json::from_str(&to(&node.url, &insert)).unwrap();
    let before: Value = serde_json::from_str(&before).unwrap();
    assert_eq!(again["replayed"], true, "{again}");
    assert_eq!(
        (&again["stamp"], &again["position"]),
        (&before["stamp"], &before["position"])
    );
    let new = to(&node.url, &["insert", "shop.orders", r#"{"_id": 2}"#]);
    let new: Value = serde_json::from_str(&new).unwrap();
    assert!(new["stamp"].as_i64() > before["stamp"].as_i64(), "{new}");
}
