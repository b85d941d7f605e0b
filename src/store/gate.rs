//! The one way to the driver. A caller waits for a place, and may go away while it waits. From then
//! on the call runs in a task that nobody drops.
//!
//! A driver's future that is dropped while it waits for a connection stays in the queue of the
//! driver's pool. The pool serves one waiter for each event, and none after a dead one until its
//! next event, so a queue of dead waiters drains at two a second and every living call stands
//! behind it. A future that is dropped later costs a connection. So the client is in here alone:
//! nothing outside this file can hold a driver's future and drop it.
//!
//! Never decides what to do next, and never looks at what a call says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mongodb::Client;
use mongodb::options::ClientOptions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::error::StoreError;
use super::line::{ABANDONED_MAX, Line, Watch};
use crate::mutants::{self, Mutant};

/// How many calls may wait for a place for each one that runs.
const WAITING_PER_PLACE_MAX: usize = 64;
/// How many connections of one pool may be made at the same time. The driver makes two.
const CONNECTING_MAX: u32 = 8;

/// Calls of one kind: they share connections and places, and take none of another kind's.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    line: Arc<Line>,
    places: Arc<Places>,
}

#[derive(Debug)]
struct Places {
    /// What the kind of calls is named in errors.
    kind: &'static str,
    /// Those of the connections that were made so many times anew: what hangs in earlier ones
    /// keeps no place of these.
    free: Mutex<(u64, Arc<Semaphore>)>,
    count: usize,
    waiting: AtomicUsize,
}

/// A place for one call or for several of one caller, one after the other.
#[derive(Debug)]
pub(super) struct Place {
    line: Watch,
    /// Held by the call itself while one runs.
    permit: Arc<OwnedSemaphorePermit>,
}

impl Gate {
    /// Prepares connections for so many calls at a time. `spare` connections more are there for
    /// calls that nobody waits for any more.
    pub fn open(
        mut options: ClientOptions,
        kind: &'static str,
        places: usize,
        spare: usize,
    ) -> Result<Self, StoreError> {
        let pool = u32::try_from(places + spare).unwrap_or(u32::MAX);
        if !mutants::active(Mutant::NoGate) {
            options.max_pool_size = Some(pool);
            options.min_pool_size = options.min_pool_size.map(|least| least.min(pool));
            options.max_connecting = Some(CONNECTING_MAX);
        }
        Ok(Self::beside(Arc::new(Line::open(options)?), kind, places))
    }

    /// The same connections, for other calls with places of their own.
    pub fn share(&self, kind: &'static str, places: usize) -> Self {
        Self::beside(self.line.clone(), kind, places)
    }

    /// The connections.
    pub fn line(&self) -> &Line {
        &self.line
    }

    fn beside(line: Arc<Line>, kind: &'static str, count: usize) -> Self {
        let count = match mutants::active(Mutant::NoGate) {
            true => Semaphore::MAX_PERMITS,
            false => count,
        };
        let places = Places {
            kind,
            free: Mutex::new((line.renewals(), Arc::new(Semaphore::new(count)))),
            count,
            waiting: AtomicUsize::new(0),
        };
        Self {
            line,
            places: Arc::new(places),
        }
    }

    /// Waits for a place for at most `time`. To be dropped at will.
    pub async fn place(&self, time: Duration) -> Result<Place, StoreError> {
        let until = Instant::now() + time;
        loop {
            let mut line = self.line.watch();
            let free = self.places.free(line.renewals());
            let permit = match Arc::clone(&free).try_acquire_owned() {
                Ok(permit) => permit,
                Err(_) => {
                    let _waiting = self.places.wait()?;
                    let crowded = || StoreError::Crowded(self.places.kind);
                    tokio::select! {
                        // The semaphore is never closed.
                        waited = timeout_at(until, free.acquire_owned()) => {
                            waited.map_err(|_| crowded())?.map_err(|_| crowded())?
                        }
                        () = line.renewed() => continue,
                    }
                }
            };
            let permit = Arc::new(permit);
            return Ok(Place { line, permit });
        }
    }

    /// Runs one call in a place of its own, and waits for its end for at most `time`.
    pub async fn call<T, E, F>(
        &self,
        time: Duration,
        call: impl FnOnce(Client) -> F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        E: Into<StoreError> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.place(time).await?.call(time, call).await
    }
}

impl Places {
    /// The places of calls by these connections.
    fn free(&self, renewals: u64) -> Arc<Semaphore> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.0 < renewals {
            *free = (renewals, Arc::new(Semaphore::new(self.count)));
        }
        free.1.clone()
    }

    fn wait(&self) -> Result<Waiting<'_>, StoreError> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting);
        match before < self.count.saturating_mul(WAITING_PER_PLACE_MAX) {
            true => Ok(waiting),
            false => Err(StoreError::Crowded(self.kind)),
        }
    }
}

/// One who waits for a place, counted until it goes.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Place {
    /// Runs a call in a task of its own and waits for its end for at most `time`, and no longer than
    /// the connections last. After that, or if the caller goes away, the call goes on to its end and
    /// keeps the place until then. Whether it took effect is unknown to a caller that has not
    /// waited.
    pub async fn call<T, E, F>(
        &self,
        time: Duration,
        call: impl FnOnce(Client) -> F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        E: Into<StoreError> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let permit = Arc::clone(&self.permit);
        let call = Box::pin(call(self.line.client()));
        let mut line = self.line.clone();
        tokio::select! {
            ended = handed(time, call, permit) => ended,
            () = line.renewed() => Err(StoreError::Unavailable(
                "the connections were made anew".into(),
            )),
        }
    }
}

/// Hands a driver's future to a task, which holds `kept` until the end, and waits for the result.
async fn handed<T, E>(
    time: Duration,
    call: impl Future<Output = Result<T, E>> + Send + 'static,
    kept: impl Send + 'static,
) -> Result<T, StoreError>
where
    T: Send + 'static,
    E: Into<StoreError> + Send + 'static,
{
    if mutants::active(Mutant::NoGate) {
        let ended = timeout(time, call).await;
        return ended
            .map_err(|_| StoreError::TimedOut(time))?
            .map_err(Into::into);
    }
    let (done, result) = oneshot::channel();
    tokio::spawn(async move {
        // The end of a call whose member is neither heard nor given up by the driver.
        if let Ok(ended) = timeout(ABANDONED_MAX, call).await {
            let _ = done.send(ended); // nobody may be waiting any more
        }
        drop(kept);
    });
    match timeout(time, result).await {
        Ok(Ok(ended)) => ended.map_err(Into::into),
        Ok(Err(_)) | Err(_) => Err(StoreError::TimedOut(time)),
    }
}
