//! Streams of events that are cut, and go on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bson::Document;
use drumline::client::{Client, Told};
use drumline::ejson;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::Cluster;
use super::load::Load;

/// All that a stream has told, over all its cuts.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    told: Mutex<Vec<Document>>,
    close: Notify,
    /// The server that gives the stream, by its place in the list.
    server: AtomicUsize,
    opened: AtomicUsize,
}

impl Stream {
    /// Follows what this path streams, by whichever node gives it.
    pub fn open(cluster: &Cluster, path: &str) -> Self {
        let load = Load::new(cluster, "any.any");
        let client = load.client(super::PATIENCE);
        let shared = Arc::<Shared>::default();
        let task = tokio::spawn(follow(client, path.to_owned(), Arc::clone(&shared)));
        Self { shared, task }
    }

    /// The client goes away, and comes back with what it saw last.
    pub fn close(&self) {
        self.shared.close.notify_one();
    }

    pub fn server(&self) -> usize {
        self.shared.server.load(Ordering::Relaxed)
    }

    /// How often the client itself came back.
    pub fn opened(&self) -> usize {
        self.shared.opened.load(Ordering::Relaxed)
    }

    pub fn told(&self) -> Vec<Document> {
        self.shared.told.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.shared.told.lock().unwrap().len()
    }

    /// Whether it has told of something like this.
    pub fn has(&self, wanted: impl Fn(&Document) -> bool) -> bool {
        self.shared.told.lock().unwrap().iter().any(wanted)
    }

    /// Whether it goes on: it has not ended with an error.
    #[track_caller]
    pub fn assert_lives(&self) {
        assert!(!self.task.is_finished(), "the stream has ended");
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(client: Client, path: String, shared: Arc<Shared>) {
    let mut last = None;
    loop {
        let mut following = client.follow(path.clone());
        if let Some(id) = last.take() {
            following = following.after(id);
        }
        shared.opened.fetch_add(1, Ordering::Relaxed);
        loop {
            let told = tokio::select! {
                told = following.next() => told.unwrap(),
                () = shared.close.notified() => break,
            };
            shared.server.store(following.server(), Ordering::Relaxed);
            if let Told::Events(events) = told {
                let events = events.into_iter().map(|event| event.data.unwrap());
                let events = events.map(|data| ejson::reply(data.as_bytes()).unwrap());
                shared.told.lock().unwrap().extend(events);
            }
        }
        last = following.last_id().map(str::to_owned);
    }
}
