//! I7: a linearizable read shows every write that was answered before the read began, whoever
//! wrote it. And any read shows what was so at the position that it tells.

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
const WRITERS: usize = 4;
/// How often each of them raises the counter.
const RAISES: usize = 150;

/// What a read shows of the counter, and the position that it tells.
#[derive(Debug)]
struct Shown {
    n: i32,
    position: i64,
}

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

    /// Gives the position of the write.
    async fn raise_through(&self, client: &Client) -> i64 {
        let id = RequestId::fresh();
        let written = client
            .write(&self.namespace, Self::raise(), &id, &Clock::default())
            .await;
        let position = written.unwrap().position.unwrap();
        self.answered.fetch_add(1, Ordering::SeqCst);
        position
    }

    async fn raise_often(self, client: Client) -> Vec<i64> {
        let mut positions = Vec::new();
        for _ in 0..RAISES {
            positions.push(self.raise_through(&client).await);
        }
        positions
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
    async fn shown(&self, client: &Client, how: Consistency) -> Result<Shown, ClientError> {
        let read = Read::FindOne {
            filter: doc! {"_id": "x"},
            projection: None,
            sort: None,
        };
        let found = client
            .read(&self.namespace, read, how, &Clock::default())
            .await?;
        let document = found.documents.first();
        Ok(Shown {
            n: document.and_then(|d| d.get_i32("n").ok()).unwrap_or(0),
            position: found.position.unwrap(),
        })
    }

    async fn shown_all_the_time(self, client: Client, how: Consistency) -> Vec<Shown> {
        let mut shown = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            shown.push(self.shown(&client, how).await.unwrap());
        }
        shown
    }

    /// A linearizable read, which must show what was answered before it.
    async fn read(&self, client: &Client) -> Result<(), ClientError> {
        let least = self.answered.load(Ordering::SeqCst);
        let shown = self.shown(client, Consistency::Linearizable).await?.n;
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
fn a_read_shows_exactly_what_was_so_at_the_position_that_it_tells() {
    let cluster = Cluster::start(&[]);
    Runtime::new().unwrap().block_on(async {
        let load = Load::new(&cluster, "reads.counter");
        let counter = Counter::new();
        let client = || load.client(Duration::from_secs(20));
        let readers = [Consistency::Linearizable, Consistency::Causal]
            .into_iter()
            .cycle()
            .take(READERS)
            .map(|how| tokio::spawn(counter.clone().shown_all_the_time(client(), how)));
        let readers: Vec<_> = readers.collect();
        let writers = (0..WRITERS).map(|_| tokio::spawn(counter.clone().raise_often(client())));
        let writers: Vec<_> = writers.collect();
        let mut raised = Vec::new();
        for writer in writers {
            raised.extend(writer.await.unwrap());
        }
        counter.stop.store(true, Ordering::Relaxed);
        raised.sort_unstable();
        let (mut reads, mut wrong) = (0, Vec::new());
        for reader in readers {
            let shown = reader.await.unwrap();
            reads += shown.len();
            // Each write adds one, and several may share a position.
            let so_at = |position| raised.partition_point(|raised| *raised <= position);
            let other = |shown: &Shown| usize::try_from(shown.n).unwrap() != so_at(shown.position);
            wrong.extend(shown.into_iter().filter(other));
        }
        println!("{reads} reads beside {} writes", raised.len());
        assert!(reads > 100);
        let first = wrong.first();
        assert!(
            wrong.is_empty(),
            "{} of {reads} reads show another state than that of their position, the first: {first:?}",
            wrong.len()
        );
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
