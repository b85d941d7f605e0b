//! The connections of one driver. They can be made anew, while calls run in the old ones.
//!
//! A firewall or a host that forgets a connection says so to nobody: what is sent on it is lost, and
//! the driver, which has no time limit for a reply, waits. New connections work meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;
use mongodb::options::{ClientOptions, ReadConcern};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::connections::{Connections, Counts};
use super::error::StoreError;
use super::schema::{DATABASE, LOG};
use super::sightings::{Seen, Sightings};

/// A call that nobody waits for any more ends after this long at the latest. MongoDB ends most of
/// them before (`maxTimeMS`), or the driver does when it takes a member for lost.
pub(super) const ABANDONED_MAX: Duration = Duration::from_secs(120);
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

    /// Begins other connections. Nobody uses them until [`Self::turn_to`].
    pub fn begin_others(&self) -> Result<Others, StoreError> {
        let driver = self.drivers.fetch_add(1, Ordering::Relaxed);
        let client = connect(&self.options, &self.counts, &self.sightings, driver)?;
        Ok(Others { client, driver })
    }

    /// From now on calls use these connections. Those in the earlier ones go on to their ends, and
    /// nobody waits for them any more.
    pub fn turn_to(&self, others: Others) {
        self.sightings.turn_to(others.driver);
        let mut old = None;
        self.now.send_modify(|now| {
            old = Some(std::mem::replace(&mut now.client, others.client));
            now.renewals += 1;
        });
        // Its last words go over a connection. By then those that hang are cut, and it takes another.
        tokio::spawn(async move {
            sleep(ABANDONED_MAX + UNUSED_MAX).await;
            drop(old);
        });
    }
}

/// Connections that are not in use yet.
#[derive(Debug)]
pub(super) struct Others {
    client: Client,
    driver: u64,
}

impl Others {
    /// Whether the primary shows the log by them within this time.
    pub async fn answer(&self, time: Duration) -> bool {
        let log = self.client.database(DATABASE).collection::<Document>(LOG);
        let look = tokio::spawn(async move {
            let find = log.find_one(doc! {}).projection(doc! {"_id": 1});
            let look = find.read_concern(ReadConcern::majority()).into_future();
            matches!(timeout(ABANDONED_MAX, look).await, Ok(Ok(_)))
        });
        matches!(timeout(time, look).await, Ok(Ok(true)))
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
