//! The connections of one driver. They can be made anew, while calls run in the old ones.
//!
//! A firewall or a host that forgets a connection says so to nobody: what is sent on it is lost, and
//! the driver, which has no time limit for a reply, waits. New connections work meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bson::doc;
use mongodb::Client;
use mongodb::options::ClientOptions;
use tokio::sync::watch;
use tokio::time::timeout;

use super::connections::{Connections, Counts};
use super::error::StoreError;
use super::topology::{Seen, Sightings};
use crate::mutants::{self, Mutant};

/// Connections that were not used for so long are closed rather than used: what stands between node
/// and member may have forgotten them. Firewalls do after four minutes and more.
const UNUSED_MAX: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub(super) struct Line {
    options: ClientOptions,
    counts: Connections,
    sightings: Arc<Sightings>,
    /// How many drivers were begun.
    drivers: AtomicU64,
    now: watch::Sender<Now>,
}

#[derive(Debug, Clone)]
struct Now {
    client: Client,
    renewals: u64,
}

/// The connections as they were at some moment.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    seen: watch::Receiver<Now>,
    then: Now,
}

impl Line {
    pub fn open(mut options: ClientOptions) -> Result<Self, StoreError> {
        options.max_idle_time.get_or_insert(UNUSED_MAX);
        let counts = Connections::default();
        let sightings = Arc::<Sightings>::default();
        let client = connect(&options, &counts, &sightings, 0)?;
        let renewals = 0;
        Ok(Self {
            options,
            counts,
            sightings,
            drivers: AtomicU64::new(1),
            now: watch::Sender::new(Now { client, renewals }),
        })
    }

    /// How many connections there are, by what they do.
    pub fn counts(&self) -> Counts {
        self.counts.read()
    }

    /// The members as the driver in use sees them.
    pub fn seen(&self) -> Seen {
        self.sightings.seen()
    }

    /// How often the connections were made anew.
    pub fn renewals(&self) -> u64 {
        self.now.borrow().renewals
    }

    pub fn watch(&self) -> Watch {
        let seen = self.now.subscribe();
        let then = seen.borrow().clone();
        Watch { seen, then }
    }

    /// Makes connections anew, if the primary answers by them within this time. Calls in the old
    /// ones go on to their ends, and nobody waits for them any more.
    pub async fn renew(&self, time: Duration) -> bool {
        if mutants::active(Mutant::NoRenewal) {
            return false;
        }
        let driver = self.drivers.fetch_add(1, Ordering::Relaxed);
        let connected = connect(&self.options, &self.counts, &self.sightings, driver);
        let Ok(client) = connected else {
            return false;
        };
        let asked = client.clone();
        // Nobody else has this client yet, and it goes if it gets no answer.
        let ping = tokio::spawn(async move {
            let ping = doc! {"ping": 1};
            asked.database("admin").run_command(ping).await.is_ok()
        });
        let answers = matches!(timeout(time, ping).await, Ok(Ok(true)));
        if answers {
            self.sightings.turn_to(driver);
            self.now.send_modify(|now| {
                now.client = client;
                now.renewals += 1;
            });
        }
        answers
    }
}

fn connect(
    options: &ClientOptions,
    counts: &Connections,
    sightings: &Arc<Sightings>,
    driver: u64,
) -> Result<Client, StoreError> {
    let mut options = options.clone();
    counts.follow(driver, &mut options);
    sightings.follow(driver, &mut options);
    Client::with_options(options).map_err(StoreError::from_connection_string)
}

impl Watch {
    pub fn client(&self) -> Client {
        self.then.client.clone()
    }

    pub fn renewals(&self) -> u64 {
        self.then.renewals
    }

    /// Waits until these connections are not the ones in use any more.
    pub async fn renewed(&mut self) {
        let then = self.then.renewals;
        if self.seen.wait_for(|now| now.renewals > then).await.is_err() {
            std::future::pending::<()>().await; // the node ends
        }
    }
}
