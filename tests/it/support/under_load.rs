//! What happens to three nodes while clients write through all of them, and the comparison after it.

use std::time::{Duration, Instant};

use drumline::client::Clock;
use drumline::model::RequestId;
use hyper::body::Bytes;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Cluster;
use super::audit::{Audited, audit};
use super::http::{Http, Reply};
use super::load::{End, Load, Op, Record};
use super::trio::Trio;

pub const CLIENTS: u64 = 64;
/// Longer than any fault lasts, with the election of a primary after it.
const PROBE_MAX: Duration = Duration::from_secs(60);
/// Longer than a node may take for its last word.
const REPLY_MAX: Duration = Duration::from_secs(15);

/// Clients at work.
#[derive(Debug)]
pub struct UnderLoad {
    load: Load,
    running: JoinHandle<Vec<Record>>,
    probes: Vec<Record>,
}

impl UnderLoad {
    /// Starts the clients and waits until writes are acknowledged.
    pub async fn begin(load: Load) -> Self {
        let running = tokio::spawn({
            let load = load.clone();
            async move { load.run(CLIENTS).await }
        });
        let mut begun = Self {
            load,
            running,
            probes: Vec::new(),
        };
        begun.until_served().await;
        begun
    }

    /// Load on three nodes, on a collection of its own.
    pub async fn on(trio: &Trio<'_>, name: &str) -> Self {
        Self::begin(trio.load(&format!("load.{name}{}", RequestId::fresh()))).await
    }

    /// Waits until a client that tries all nodes has a write acknowledged, and gives the time.
    pub async fn until_served(&mut self) -> Duration {
        let client = self.load.client(PROBE_MAX);
        let key = format!("probe {}", RequestId::fresh());
        let op = Op::Insert { key };
        let probe = self.load.one_request(&client, &Clock::default(), op).await;
        assert!(matches!(probe.end, End::Acknowledged(_)), "{probe:?}");
        let time = probe.returned - probe.invoked;
        self.probes.push(probe);
        time
    }

    /// Ends the load and compares everything. Panics with the violations, or if the end of a request
    /// cannot be found out.
    pub async fn end(self, cluster: &Cluster) -> Audited {
        self.load.stop();
        let mut records = self.running.await.unwrap();
        records.extend(self.probes);
        self.load.settle(&mut records).await;
        let uri = &cluster.info.mongodb_uri;
        let audited = audit(uri, &self.load.namespace, &records).await;
        assert_eq!(audited.unknown, 0, "{audited:?}");
        eprintln!("{audited:?}");
        audited
    }
}

/// One insert into a collection that no load writes to. It is tried once.
pub async fn insert_once(http: &Http) -> Result<Reply, String> {
    let body = json!({"database": "faults", "collection": "probes", "document": {}});
    let sent = http.try_act("insertOne", &[], Bytes::from(body.to_string()));
    let reply = timeout(REPLY_MAX, sent).await;
    reply.unwrap_or_else(|_| Err(format!("no reply within {REPLY_MAX:?}")))
}

/// Inserts through this node until one is acknowledged, and gives the time since `begun`.
pub async fn first_write(http: &Http, begun: Instant) -> Duration {
    super::eventually("a write is acknowledged", async || {
        let reply = insert_once(http).await.ok()?;
        (reply.status == 201).then(|| begun.elapsed())
    })
    .await
}
