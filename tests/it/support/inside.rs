//! A sequencer in the test's own process, so that a test says which requests share a batch.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bson::{Document, doc};
use drumline::model::{
    Epoch, Failure, Namespace, NodeName, Outcome, RequestId, Write, WriteRequest,
};
use drumline::sequencer::{self, Bounds, Handle};
use drumline::store::{Claimed, Store};
use futures_util::future::join_all;
use mongodb::Client;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A coordinator without HTTP, and a plain driver beside it.
#[derive(Debug)]
pub struct Inside {
    handle: Handle,
    store: Store,
    /// The sequencer lives as long as this does.
    _claims: mpsc::Sender<Claimed>,
    pub driver: Client,
}

/// The tests measure how long requests take; a busy machine must not end them before that.
const PATIENCE: Duration = Duration::from_secs(60);

impl Inside {
    /// Claims the log of a cluster that has no node.
    pub async fn start(uri: &str) -> Self {
        Self::with(uri, Bounds::default()).await
    }

    /// The same, with room for a machine that stalls: no request leaves its batch because it is slow.
    pub async fn patient(uri: &str) -> Self {
        let (shared, alone) = (PATIENCE, PATIENCE);
        Self::with(uri, Bounds { shared, alone }).await
    }

    async fn with(uri: &str, bounds: Bounds) -> Self {
        let name = NodeName::parse("n1").unwrap();
        let store = Store::connect(uri, name.clone()).await.unwrap();
        store.prepare().await.unwrap();
        let (claims, inbox) = mpsc::channel(1);
        let handle = sequencer::spawn(store.clone(), name, inbox, bounds);
        claims
            .send(store.claim(Epoch::ZERO).await.unwrap())
            .await
            .unwrap();
        while handle.progress().epoch.is_none() {
            tokio::task::yield_now().await;
        }
        Self {
            handle,
            store,
            _claims: claims,
            driver: Client::with_uri_str(uri).await.unwrap(),
        }
    }

    /// Has all these requests wait, in order, while another batch runs; so the next batch takes
    /// them together. Gives their ends in the same order.
    pub async fn together(
        &self,
        namespace: &Namespace,
        writes: Vec<Write>,
    ) -> Vec<Result<Outcome, Failure>> {
        self.store.ensure(namespace, true).await.unwrap();
        let first = doc! {"_id": bson::oid::ObjectId::new()};
        let first = Write::Insert {
            documents: vec![first],
        };
        let plug = Namespace::parse("plug.plug").unwrap();
        self.store.ensure(&plug, true).await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        let requests = std::iter::once(request(&plug, first))
            .chain(writes.into_iter().map(|write| request(namespace, write)));
        let mut waiting: Vec<Pin<Box<_>>> = requests
            .map(|request| Box::pin(self.handle.submit(request.into(), deadline)))
            .collect();
        // The first poll puts each of them into the queue.
        poll_fn(|context| {
            for submitted in &mut waiting {
                let polled = submitted.as_mut().poll(context);
                assert!(polled.is_pending(), "{polled:?} at once");
            }
            Poll::Ready(())
        })
        .await;
        let mut ends = join_all(waiting).await;
        ends.remove(0).unwrap();
        ends
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Puts a write in order and waits for its end.
    pub async fn write(&self, namespace: &Namespace, write: Write) -> Result<Outcome, Failure> {
        let makes = write.makes_documents();
        self.store.ensure(namespace, makes).await?;
        let deadline = Instant::now() + PATIENCE;
        let request = request(namespace, write).into();
        self.handle.submit(request, deadline).await
    }

    /// How many transactions the primary has begun since it started.
    pub async fn transactions(&self) -> i64 {
        let admin = self.driver.database("admin");
        let status = admin.run_command(doc! {"serverStatus": 1}).await.unwrap();
        let transactions = status.get_document("transactions").unwrap();
        transactions.get_i64("totalStarted").unwrap()
    }

    pub fn collection(&self, namespace: &Namespace) -> mongodb::Collection<Document> {
        let database = self.driver.database(namespace.database());
        database.collection(namespace.collection())
    }
}

fn request(namespace: &Namespace, write: Write) -> WriteRequest {
    WriteRequest {
        id: RequestId::fresh(),
        digest: Some(write.digest(namespace)),
        clock: 0,
        namespace: namespace.clone(),
        bytes: 200,
        write: write.with_ids(),
    }
}
