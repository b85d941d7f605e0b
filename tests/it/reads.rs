//! I7: a linearizable read shows every write that was answered before the read began, whoever
//! wrote it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use bson::doc;
use drumline::client::{Client, ClientError, Clock};
use drumline::model::{Consistency, Namespace, Read, RequestId, Update, Write, WriteRequest};
use drumline::store::Guest;
use tokio::runtime::Runtime;

use crate::support::Cluster;
use crate::support::extra_node::ExtraNode;
use crate::support::load::Load;

const READERS: usize = 8;

/// One counter that writers raise and readers watch.
#[derive(Clone)]
struct Counter {
    namespace: Namespace,
    /// How high it is at least: raised after each answer.
    answered: Arc<AtomicI32>,
    reads: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
}

impl Counter {
    fn new() -> Self {
        Self {
            namespace: Namespace::parse("reads.counter").unwrap(),
            answered: Arc::default(),
            reads: Arc::default(),
            stop: Arc::default(),
        }
    }

    fn raise() -> Write {
        Write::Update {
            filter: doc! {"_id": "x"},
            update: Update::Operators(doc! {"$inc": {"n": 1}}),
            many: false,
            upsert: true,
        }
    }

    async fn raise_through(&self, client: &Client) {
        let id = RequestId::fresh();
        let written = client
            .write(&self.namespace, Self::raise(), &id, &Clock::default())
            .await;
        written.unwrap();
        self.answered.fetch_add(1, Ordering::SeqCst);
    }

    async fn raise_as_guest(&self, guest: &Guest) {
        let request = WriteRequest {
            id: RequestId::fresh(),
            digest: None,
            clock: 0,
            namespace: self.namespace.clone(),
            write: Self::raise(),
            bytes: 0,
        };
        let outcome = guest.write(request).await.unwrap();
        outcome.result.unwrap();
        self.answered.fetch_add(1, Ordering::SeqCst);
    }

    /// What a read shows; the error of one that was not answered.
    async fn read(&self, client: &Client) -> Result<(), ClientError> {
        let least = self.answered.load(Ordering::SeqCst);
        let read = Read::FindOne {
            filter: doc! {"_id": "x"},
            projection: None,
            sort: None,
        };
        let linearizable = Consistency::Linearizable;
        let found = client
            .read(&self.namespace, read, linearizable, &Clock::default())
            .await?;
        let shown = found
            .documents
            .first()
            .and_then(|d| d.get_i32("n").ok())
            .unwrap_or(0);
        assert!(
            shown >= least,
            "a read shows {shown}, and {least} was answered before it"
        );
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn read_all_the_time(self, client: Client) {
        while !self.stop.load(Ordering::Relaxed) {
            self.read(&client).await.unwrap();
        }
    }
}

#[test]
fn reads_show_every_answered_write_of_the_node_and_of_guests() {
    let cluster = Cluster::start(&[]);
    Runtime::new().unwrap().block_on(async {
        let load = Load::new(&cluster, "reads.counter");
        let counter = Counter::new();
        let client = || load.client(Duration::from_secs(20));
        let readers: Vec<_> = (0..READERS)
            .map(|_| tokio::spawn(counter.clone().read_all_the_time(client())))
            .collect();
        let guest = Guest::connect(&cluster.info.mongodb_uri).await.unwrap();
        let writer = client();
        for round in 0..200 {
            counter.raise_through(&writer).await;
            if round % 5 == 0 {
                counter.raise_as_guest(&guest).await;
            }
        }
        counter.stop.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.await.unwrap();
        }
        println!("{} reads", counter.reads.load(Ordering::Relaxed));
        assert!(counter.reads.load(Ordering::Relaxed) > 100);
    });
}

#[test]
fn a_deposed_node_shows_nothing_old() {
    let cluster = Cluster::start(&Cluster::ONE_NODE);
    Runtime::new().unwrap().block_on(async {
        let load = Load::new(&cluster, "reads.counter");
        let counter = Counter::new();
        let old = load.client(Duration::from_secs(2));
        counter.raise_through(&old).await;
        counter.read(&old).await.unwrap();
        let second = ExtraNode::start(&cluster, "n2", &cluster.info.mongodb_uri);
        second.until_listening();
        let new = load
            .clone()
            .through(&second.url)
            .client(Duration::from_secs(20));
        // The first read through the old node after this is the one that could be stale: nothing
        // has told the node yet that it is deposed.
        counter.raise_through(&new).await;
        let refused = counter.read(&old).await;
        assert!(
            refused.is_err(),
            "a deposed node answers no linearizable read"
        );
        counter.read(&new).await.unwrap();
    });
}
