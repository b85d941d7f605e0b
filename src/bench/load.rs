//! The clients at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::Plan;
use super::connection::Inserted;
use super::history;
use super::stats::{Report, Stats};
use super::target::{Inserter, Target};
use crate::check::record::{Recorder, monotonic_ns};
use crate::model::RequestId;

/// A client that failed waits this long, so that a dead server is not hammered.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);

/// Ends a run early, with what it has.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs a plan. `keys` is the next unused `_id` of the namespace; afterwards it is past all that were used.
pub async fn run(
    plan: &Plan,
    target: &Target,
    keys: &Arc<AtomicI64>,
    recorder: Option<&Recorder>,
    stop: &Stop,
) -> Result<Report, String> {
    let mut clients = Vec::new();
    for number in 0..plan.clients {
        clients.push(target.client(number).await?);
    }
    warm_up(plan, &mut clients, keys, recorder).await?;

    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (number, inserter) in (0..).zip(clients) {
        let worker = Worker {
            number,
            plan: plan.clone(),
            inserter,
            keys: Arc::clone(keys),
            recorder: recorder.cloned(),
            stop: stop.clone(),
            stats: Stats::new(),
        };
        tasks.spawn(worker.work(start));
    }
    let mut stats = Stats::new();
    while let Some(done) = tasks.join_next().await {
        stats.add(done.map_err(|error| format!("a client of the bench failed: {error}"))?);
    }
    Ok(stats.report(target.name(), plan, start.elapsed()))
}

/// The first insert creates the collection, which is not what is measured. It is in the history.
async fn warm_up(
    plan: &Plan,
    clients: &mut [Inserter],
    keys: &AtomicI64,
    recorder: Option<&Recorder>,
) -> Result<(), String> {
    let Some(inserter) = clients.first_mut() else {
        return Err("there is no client".into());
    };
    match insert(inserter, plan, plan.clients, keys, recorder).await {
        Inserted::Ok { .. } => Ok(()),
        Inserted::Failed(why) | Inserted::Unknown(why) => {
            Err(format!("the first insert failed: {why}"))
        }
    }
}

/// Inserts one document under the next key.
async fn insert(
    inserter: &mut Inserter,
    plan: &Plan,
    process: u32,
    keys: &AtomicI64,
    recorder: Option<&Recorder>,
) -> Inserted {
    let key = keys.fetch_add(1, Ordering::Relaxed);
    let id = RequestId::fresh();
    let invoke_ns = monotonic_ns();
    let inserted = inserter.insert(&plan.namespace, key, process, &id).await;
    if let Some(recorder) = recorder {
        let times = (invoke_ns, monotonic_ns());
        recorder
            .push(history::insert(process, &id, key, times, &inserted))
            .await;
    }
    inserted
}

/// One client.
struct Worker {
    number: u32,
    plan: Plan,
    inserter: Inserter,
    keys: Arc<AtomicI64>,
    recorder: Option<Recorder>,
    stop: Stop,
    stats: Stats,
}

impl Worker {
    async fn work(mut self, start: Instant) -> Stats {
        let end = start + self.plan.time;
        let mut schedule = Schedule::new(&self.plan, self.number, start);
        loop {
            let due = schedule.next();
            if due.is_some_and(|due| due >= end) {
                return self.stats;
            }
            let begin = begin_at(due).await;
            if Instant::now() >= end || self.stop.is_set() {
                // What was due and could not be sent is told, not left out.
                self.stats.missed = schedule.due_before(due, end.min(Instant::now()));
                return self.stats;
            }
            self.insert(begin).await;
        }
    }

    async fn insert(&mut self, begin: Instant) {
        let recorder = self.recorder.as_ref();
        let inserted = insert(
            &mut self.inserter,
            &self.plan,
            self.number,
            &self.keys,
            recorder,
        )
        .await;
        match inserted {
            Inserted::Ok { .. } => self.stats.ok(begin.elapsed()),
            Inserted::Failed(kind) | Inserted::Unknown(kind) => {
                self.stats.error(kind);
                sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}

/// When the time of an insert begins: when it was due, even if the client was still waiting for an
/// earlier answer then. A client that was on time does not answer for its timer, which is a millisecond coarse.
async fn begin_at(due: Option<Instant>) -> Instant {
    let now = Instant::now();
    match due {
        None => now,
        Some(due) if due <= now => due,
        Some(due) => {
            sleep_until(due).await;
            Instant::now()
        }
    }
}

/// When one client's inserts are due, if there is a rate. The clients' turns are spread evenly.
struct Schedule {
    first: Instant,
    /// Zero without a rate.
    interval: Duration,
    sent: u32,
}

impl Schedule {
    fn new(plan: &Plan, number: u32, start: Instant) -> Self {
        let interval = plan.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs(u64::from(plan.clients)) / rate.max(1)
        });
        Self {
            first: start + interval * number / plan.clients.max(1),
            interval,
            sent: 0,
        }
    }

    fn next(&mut self) -> Option<Instant> {
        if self.interval.is_zero() {
            return None;
        }
        let due = self.first + self.interval * self.sent;
        self.sent += 1;
        Some(due)
    }

    /// How many inserts are due from `due` on and before `end`.
    fn due_before(&self, due: Option<Instant>, end: Instant) -> u64 {
        let Some(late) = due.and_then(|due| end.checked_duration_since(due)) else {
            return 0;
        };
        let count = late.as_nanos().div_ceil(self.interval.as_nanos().max(1));
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Namespace;

    #[test]
    fn a_rate_is_spread_over_clients_and_misses_are_counted() {
        let plan = Plan {
            clients: 4,
            time: Duration::from_secs(1),
            rate: Some(8),
            namespace: Namespace::parse("bench.x").unwrap(),
        };
        let start = Instant::now();
        let mut schedule = Schedule::new(&plan, 1, start);
        let ms = Duration::from_millis;
        assert_eq!(schedule.next(), Some(start + ms(125)));
        assert_eq!(schedule.next(), Some(start + ms(625)));
        assert_eq!(
            schedule.due_before(Some(start + ms(625)), start + ms(600)),
            0
        );
        assert_eq!(
            schedule.due_before(Some(start + ms(625)), start + ms(1_200)),
            2
        );

        let free = Plan { rate: None, ..plan };
        assert_eq!(Schedule::new(&free, 1, start).next(), None);
    }
}
