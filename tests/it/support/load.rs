//! Clients that write all the time, and what each of them was told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use drumline::client::{Client, ClientError, Clock, Written};
use drumline::config::{Secret, ServerUrl};
use drumline::model::{Namespace, RequestId, Update, Write};

use super::Cluster;

/// How many keys the clients contend for.
const HOT_KEYS: u64 = 40;

/// What a client asks for. Each has an exact meaning in the [audit](super::audit)'s model.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Makes the document; refused if it exists.
    Insert {
        key: String,
    },
    /// Adds one to its counter; makes it if need be.
    Add {
        key: String,
    },
    /// Sets it whole; makes it if need be.
    Put {
        key: String,
    },
    Delete {
        key: String,
    },
}

impl Op {
    pub fn key(&self) -> &str {
        match self {
            Self::Insert { key } | Self::Add { key } | Self::Put { key } | Self::Delete { key } => {
                key
            }
        }
    }

    fn write(&self, id: &RequestId) -> Write {
        let filter = doc! {"_id": self.key()};
        match self {
            Self::Insert { key } => Write::Insert {
                documents: vec![doc! {"_id": key, "by": id.as_str()}],
            },
            Self::Add { .. } => Write::Update {
                filter,
                update: Update::Operators(doc! {"$inc": {"n": 1}, "$set": {"by": id.as_str()}}),
                many: false,
                upsert: true,
            },
            Self::Put { .. } => Write::Replace {
                filter,
                replacement: doc! {"by": id.as_str()},
                upsert: true,
            },
            Self::Delete { .. } => Write::Delete {
                filter,
                many: false,
            },
        }
    }
}

/// One request with all its tries, and its end.
#[derive(Debug, Clone)]
pub struct Record {
    pub id: RequestId,
    pub op: Op,
    pub invoked: Instant,
    pub returned: Instant,
    pub end: End,
}

/// What the client knows in the end.
#[derive(Debug, Clone)]
pub enum End {
    Acknowledged(Written),
    /// MongoDB refused it, with this text.
    Refused(#[allow(dead_code, reason = "shown when a comparison fails")] String),
    /// It was not done; the text says why.
    NotDone(#[allow(dead_code, reason = "shown when a comparison fails")] String),
    /// It may have been done.
    Unknown,
}

/// A collection under load.
#[derive(Debug, Clone)]
pub struct Load {
    servers: Vec<ServerUrl>,
    key: Secret,
    pub namespace: Namespace,
    stop: Arc<AtomicBool>,
    /// A client's pause after each request.
    pace: Duration,
    /// How long a client tries for an answer.
    patience: Duration,
}

impl Load {
    pub fn new(cluster: &Cluster, namespace: &str) -> Self {
        let nodes = cluster.info.nodes.iter();
        Self {
            servers: nodes
                .map(|node| ServerUrl::parse(&node.url).unwrap())
                .collect(),
            key: Secret::new(cluster.info.api_key.clone()),
            namespace: Namespace::parse(namespace).unwrap(),
            stop: Arc::default(),
            pace: Duration::ZERO,
            patience: Duration::from_secs(8),
        }
    }

    /// The same load with this pause after each of a client's requests.
    pub fn paced(mut self, pace: Duration) -> Self {
        self.pace = pace;
        self
    }

    /// The same load with clients that try this long for an answer.
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same load through this server alone.
    pub fn through(mut self, url: &str) -> Self {
        self.servers = vec![ServerUrl::parse(url).unwrap()];
        self
    }

    /// The same load through these servers.
    pub fn through_all(mut self, urls: impl Iterator<Item = String>) -> Self {
        self.servers = urls.map(|url| ServerUrl::parse(&url).unwrap()).collect();
        self
    }

    pub fn client(&self, timeout: Duration) -> Client {
        Client::new(self.servers.clone(), Some(&self.key), timeout).unwrap()
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Runs `clients` clients until [`Load::stop`] and gives their records.
    pub async fn run(&self, clients: u64) -> Vec<Record> {
        let running: Vec<_> = (0..clients)
            .map(|number| tokio::spawn(self.clone().one_client(number)))
            .collect();
        let mut records = Vec::new();
        for client in running {
            records.extend(client.await.unwrap());
        }
        records
    }

    async fn one_client(mut self, number: u64) -> Vec<Record> {
        // Each begins with another server, so that requests are passed on.
        let servers = self.servers.len();
        self.servers
            .rotate_left(usize::try_from(number).unwrap() % servers);
        let client = self.client(self.patience);
        let clock = Clock::default();
        let mut records = Vec::new();
        let mut step = 0;
        while !self.stop.load(Ordering::Relaxed) {
            step += 1;
            let op = choose(number, step);
            records.push(self.one_request(&client, &clock, op).await);
            if !self.pace.is_zero() {
                tokio::time::sleep(self.pace).await;
            }
        }
        records
    }

    pub async fn one_request(&self, client: &Client, clock: &Clock, op: Op) -> Record {
        let id = RequestId::fresh();
        let invoked = Instant::now();
        let written = client
            .write(&self.namespace, op.write(&id), &id, clock)
            .await;
        Record {
            id,
            op,
            invoked,
            returned: Instant::now(),
            end: end_of(written),
        }
    }

    /// Sends every request of unknown end again, with its id.
    pub async fn settle(&self, records: &mut [Record]) {
        let client = self.client(Duration::from_secs(20));
        for record in records {
            if !matches!(record.end, End::Unknown) {
                continue;
            }
            let write = record.op.write(&record.id);
            let again = client
                .write(&self.namespace, write, &record.id, &Clock::default())
                .await;
            record.returned = Instant::now();
            record.end = end_of(again);
        }
    }
}

fn end_of(written: Result<Written, ClientError>) -> End {
    match written {
        Ok(written) => End::Acknowledged(written),
        Err(ClientError::Refused {
            status: 400,
            message,
            ..
        }) => End::Refused(message),
        Err(ClientError::Unknown { .. }) => End::Unknown,
        Err(other) => End::NotDone(other.to_string()),
    }
}

/// A mix of all operations: fresh keys, contended keys, and refusals.
fn choose(client: u64, step: u64) -> Op {
    let mixed = (client << 32 | step).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let key = format!("hot{}", (mixed >> 40) % HOT_KEYS);
    match (mixed >> 20) % 10 {
        0..4 => Op::Insert {
            key: format!("c{client}-{step}"),
        },
        4..6 => Op::Add { key },
        6..8 => Op::Put { key },
        8 => Op::Insert { key },
        _ => Op::Delete { key },
    }
}

/// The document that an operation leaves in place of `before`, without its stamp; and whether it
/// is refused.
pub fn model(op: &Op, id: &str, before: Option<&Document>) -> Result<Option<Document>, ()> {
    let key = op.key();
    match op {
        Op::Insert { .. } if before.is_some() => Err(()),
        Op::Insert { .. } | Op::Put { .. } => Ok(Some(doc! {"_id": key, "by": id})),
        Op::Delete { .. } => Ok(None),
        Op::Add { .. } => {
            let n = before.and_then(|d| d.get_i32("n").ok()).unwrap_or(0);
            Ok(Some(doc! {"_id": key, "by": id, "n": n + 1}))
        }
    }
}
