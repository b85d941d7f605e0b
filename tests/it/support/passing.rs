//! Clients that pass stamps on: each reads what another one wrote last, by that one's stamp or
//! token alone, at a member that may not have it yet.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bson::doc;
use drumline::client::{Client, Clock, Seen};
use drumline::model::{Namespace, RequestId, Update, Write};
use serde_json::json;
use tokio::task::JoinHandle;

use super::extra_node::ExtraNode;
use super::http::Http;
use super::load::Load;
use super::{Cluster, eventually};

const CLIENTS: usize = 8;
/// Long enough for several elections in a row.
const WRITE_MAX: Duration = Duration::from_secs(40);

/// For each member a node that reads there and nowhere else. Its MongoDB user may not write, so it
/// never claims.
#[derive(Debug)]
pub struct MemberNodes {
    nodes: Vec<ExtraNode>,
    key: String,
}

impl MemberNodes {
    pub async fn start(cluster: &Cluster) -> Self {
        let driver = mongodb::Client::with_uri_str(&cluster.info.mongodb_uri).await;
        let all = i32::try_from(cluster.info.members.len()).unwrap();
        let reader = doc! {
            "createUser": "reader",
            "pwd": "reader",
            "roles": ["readAnyDatabase"],
            "writeConcern": {"w": all},
        };
        let admin = driver.unwrap().database("admin");
        admin.run_command(reader).await.unwrap();
        let started = cluster.info.members.iter().enumerate().map(|(n, member)| {
            let host = &member.host;
            let uri =
                format!("mongodb://reader:reader@{host}/?directConnection=true&authSource=admin");
            ExtraNode::start(cluster, &format!("r{n}"), &uri)
        });
        let nodes: Vec<_> = started.collect();
        nodes.iter().for_each(ExtraNode::until_listening);
        Self {
            nodes,
            key: cluster.info.api_key.clone(),
        }
    }

    /// A client of each node, in the order of the members.
    pub fn https(&self) -> Vec<Http> {
        let nodes = self.nodes.iter();
        nodes.map(|node| Http::new(&node.url, &self.key)).collect()
    }
}

/// What a client wrote last.
#[derive(Debug, Clone, Default)]
struct Told {
    n: i32,
    seen: Seen,
}

#[derive(Debug)]
struct Shared {
    namespace: Namespace,
    readers: Vec<Http>,
    told: [Mutex<Told>; CLIENTS],
    violations: Mutex<Vec<String>>,
    reads: AtomicU64,
    refused: AtomicU64,
    stop: AtomicBool,
}

/// The clients at work.
#[derive(Debug)]
pub struct Passing {
    shared: Arc<Shared>,
    running: Vec<JoinHandle<()>>,
}

impl Passing {
    /// Clients that write through the cluster's nodes and read through these.
    pub fn start(cluster: &Cluster, readers: Vec<Http>) -> Self {
        let load = Load::new(cluster, "passing.counters");
        let shared = Arc::new(Shared {
            namespace: load.namespace.clone(),
            readers,
            told: Default::default(),
            violations: Mutex::default(),
            reads: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let running = (0..CLIENTS).map(|number| {
            let writer = load.client(WRITE_MAX);
            tokio::spawn(shared.clone().one_client(number, writer))
        });
        Self {
            running: running.collect(),
            shared,
        }
    }

    /// Waits until this many more reads were answered.
    pub async fn until_read(&self, more: u64) {
        let aim = self.reads() + more;
        let why = format!("{more} more reads");
        eventually(&why, async || (self.reads() >= aim).then_some(())).await;
    }

    /// As above, or until one more was refused: it has waited in vain for what its member lacks.
    #[allow(dead_code, reason = "tests/mutants.rs uses it")]
    pub async fn until_read_or_refused(&self, more: u64) {
        let (aim, refused) = (self.reads() + more, self.refused());
        let why = format!("{more} more reads, or a refused one");
        eventually(&why, async || {
            (self.reads() >= aim || self.refused() > refused).then_some(())
        })
        .await;
    }

    fn reads(&self) -> u64 {
        self.shared.reads.load(Ordering::Relaxed)
    }

    #[allow(dead_code, reason = "tests/mutants.rs uses it")]
    fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Ends the clients and gives what they saw that they must not see.
    pub async fn stop(self) -> Vec<String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.running {
            client.await.unwrap();
        }
        let shared = &self.shared;
        println!("{:?} reads, {:?} refused", shared.reads, shared.refused);
        std::mem::take(&mut shared.violations.lock().unwrap())
    }
}

impl Shared {
    async fn one_client(self: Arc<Self>, number: usize, writer: Client) {
        let clock = Clock::default();
        let neighbour = (number + 1) % CLIENTS;
        for round in 1.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let told = self.told[neighbour].lock().unwrap().clone();
            let reader = &self.readers[(number + round) % self.readers.len()];
            if told.n > 0 {
                self.read(neighbour, &told, reader, &clock).await;
            }
            let n = i32::try_from(round).unwrap();
            self.write(number, n, &writer, &clock).await;
        }
    }

    async fn read(&self, whose: usize, told: &Told, reader: &Http, clock: &Clock) {
        let stamp = told.seen.t.to_string();
        let token = told.seen.token.as_ref().unwrap().as_str();
        let passed_on = match told.n % 2 {
            0 => ("Drumline-Stamp", stamp.as_str()),
            _ => ("Drumline-Token", token),
        };
        let headers = [("Drumline-Read", "causal"), passed_on];
        let body = json!({
            "database": self.namespace.database(),
            "collection": self.namespace.collection(),
            "filter": {"_id": {"$numberInt": whose.to_string()}},
        });
        let reply = reader.act_with("findOne", &headers, &body).await;
        if matches!(reply.status, 503 | 504) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let reply = reply.expect(200);
        let document = &reply.json()["document"];
        let shown = document["n"]["$numberInt"].as_str().unwrap_or("0");
        let shown: i32 = shown.parse().unwrap();
        let at: i64 = reply.header("drumline-stamp").unwrap().parse().unwrap();
        if shown < told.n || at < told.seen.t {
            self.violations.lock().unwrap().push(format!(
                "client {whose} wrote {} at stamp {stamp}; a read that was told so shows {shown} at stamp {at}",
                told.n
            ));
        }
        clock.witness(Seen { t: at, token: None });
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    async fn write(&self, number: usize, n: i32, writer: &Client, clock: &Clock) {
        let set = Write::Update {
            filter: doc! {"_id": i32::try_from(number).unwrap()},
            update: Update::Operators(doc! {"$set": {"n": n}}),
            many: false,
            upsert: true,
        };
        let id = RequestId::fresh();
        let written = writer.write(&self.namespace, set, &id, clock).await;
        let seen = clock.seen();
        assert_eq!(written.unwrap().stamp, Some(seen.t));
        *self.told[number].lock().unwrap() = Told { n, seen };
    }
}
