//! When to stop: signals, and the end of the process that started this one.

use std::io::{self, Read as _};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::error::Error;

/// Counts the requests to stop: the first asks, the second insists.
#[derive(Debug, Clone)]
pub struct StopRequests(watch::Receiver<u32>);

impl StopRequests {
    /// Listens for Ctrl-C, SIGTERM and the end of the terminal from now on.
    pub fn listen() -> Result<Self, Error> {
        let (sender, receiver) = watch::channel(0);
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        for kind in kinds {
            let stream = signal(kind).map_err(Error::io("listen for", "signals".as_ref()))?;
            tokio::spawn(count(stream, sender.clone()));
        }
        Ok(Self(receiver))
    }

    /// Also takes the end of stdin for a request that insists.
    ///
    /// That is how a test binds a cluster to its own life: the kernel closes a pipe when its
    /// writer ends, by whatever cause. A parent-death signal would come too early, at the end of
    /// the *thread* that started this process, and a test harness runs each test on its own.
    pub fn listen_to_stdin(self) -> Self {
        let (sender, receiver) = watch::channel(0);
        let mut signals = self.0;
        let relay = sender.clone();
        tokio::spawn(async move {
            while signals.changed().await.is_ok() {
                relay.send_modify(|count| *count += 1);
            }
        });
        // A thread of its own: a read of stdin cannot be cancelled, and must not hold up the end.
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while matches!(io::stdin().read(&mut buffer), Ok(1..)) {}
            sender.send_modify(|count| *count += 2);
        });
        Self(receiver)
    }

    /// Waits until somebody asks.
    pub async fn asked(&self) {
        self.reach(1).await;
    }

    /// Waits until somebody insists.
    pub async fn insisted(&self) {
        self.reach(2).await;
    }

    async fn reach(&self, least: u32) {
        let mut count = self.0.clone();
        if count.wait_for(|count| *count >= least).await.is_err() {
            // Nobody can ask any more.
            std::future::pending::<()>().await;
        }
    }
}

async fn count(mut stream: Signal, sender: watch::Sender<u32>) {
    while stream.recv().await.is_some() {
        sender.send_modify(|count| *count += 1);
    }
}
