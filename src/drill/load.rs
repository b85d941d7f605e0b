//! Open-loop load: operations are due at a fixed rate, whatever became of those before.
//!
//! The queue of due operations is a number: the next free client takes the next one, late or not. So
//! a long outage costs no memory, and latency counts from the time an operation was due.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::mix::{Action, Mix, REGISTERS};
use super::worker::{Heard, Route, Worker, learnt};
use crate::check::history::{Op, Operation, Outcome};
use crate::check::record::{Recorder, monotonic_ns};
use crate::model::Namespace;

/// When the run has ended, due operations are sent for this much longer.
const DRAIN_MAX: Duration = Duration::from_secs(15);
/// How long the clients may take for what fell due in an outage before the run goes on.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);
/// They are on time if the next operation has been due for no longer than this.
const BEHIND_MAX: Duration = Duration::from_millis(50);
/// A client whose operation failed waits this long, so that a dead cluster is not hammered.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);
/// How late a timer may wake a client that waits.
const TIMER: Duration = Duration::from_millis(2);
/// No acknowledgement is waited for.
const UNARMED: u64 = u64::MAX;

/// The load of one run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub clients: u32,
    /// Operations a second, all clients together.
    pub rate: u32,
    pub seed: u64,
    pub namespace: Namespace,
    pub route: Route,
}

/// One finished operation, small enough to keep all of a run. Times are microseconds after its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub due_us: u32,
    pub sent_us: u32,
    pub returned_us: u32,
    pub outcome: Outcome,
    pub is_write: bool,
    pub retried: bool,
}

/// Load that runs.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    end: watch::Sender<Option<Instant>>,
    clients: JoinSet<(Worker, Vec<Sample>)>,
}

/// What all clients share.
#[derive(Debug)]
struct Shared {
    start: Instant,
    start_ns: u64,
    interval: Duration,
    /// The number of the next operation.
    next: AtomicU64,
    mix: Mix,
    history: Recorder,
    pulse: Pulse,
    acknowledged: AtomicU64,
    /// Without an answer, or with one that is no acknowledgement.
    others: AtomicU64,
    heard: Arc<Heard>,
}

/// Load that has ended.
#[derive(Debug)]
pub struct Ended {
    pub workers: Vec<Worker>,
    /// In no order.
    pub samples: Vec<Sample>,
    /// Due before the end, and never sent.
    pub unsent: u64,
    pub heard: Arc<Heard>,
    mix: Mix,
    numbers: u64,
}

impl Load {
    pub fn begin(plan: &Plan, history: &Recorder) -> Result<Self, String> {
        let (end, ended) = watch::channel(None);
        let shared = Arc::new(Shared {
            start: Instant::now(),
            start_ns: monotonic_ns(),
            interval: Duration::from_secs(1) / plan.rate.max(1),
            next: AtomicU64::new(0),
            mix: Mix::new(plan.seed),
            history: history.clone(),
            pulse: Pulse::new(),
            acknowledged: AtomicU64::new(0),
            others: AtomicU64::new(0),
            heard: Arc::default(),
        });
        let mut clients = JoinSet::new();
        for process in 0..plan.clients {
            let worker = Worker::new(process, &plan.route, &plan.namespace, &shared.heard);
            let worker = worker.map_err(|error| error.to_string())?;
            clients.spawn(work(worker, Arc::clone(&shared), ended.clone()));
        }
        Ok(Self {
            shared,
            end,
            clients,
        })
    }

    /// The start on the clock of the history.
    pub fn start_ns(&self) -> u64 {
        self.shared.start_ns
    }

    /// Waits until the clients have run what fell due while they could not, but not for ever.
    pub async fn catch_up(&self) {
        let end = Instant::now() + CATCH_UP_MAX;
        while Instant::now() < end {
            let next = self.shared.next.load(Ordering::Relaxed);
            if self.shared.due(next) + BEHIND_MAX > Instant::now() {
                return;
            }
            sleep(BEHIND_MAX).await;
        }
    }

    /// How it goes, in a few words.
    pub fn progress(&self) -> String {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        format!(
            "{:.1} s, {} acknowledged, {} not",
            self.shared.start.elapsed().as_secs_f64(),
            count(&self.shared.acknowledged),
            count(&self.shared.others)
        )
    }

    pub fn pulse(&self) -> &Pulse {
        &self.shared.pulse
    }

    /// Sends what was due until now, and stops.
    pub async fn end(mut self) -> Result<Ended, String> {
        let end = Instant::now();
        self.end.send_replace(Some(end));
        let mut workers = Vec::new();
        let mut samples = Vec::new();
        while let Some(done) = self.clients.join_next().await {
            let (worker, seen) = done.map_err(|error| format!("a client failed: {error}"))?;
            workers.push(worker);
            samples.extend(seen);
        }
        let nanos = (end - self.shared.start).as_nanos();
        let due = nanos.div_ceil(self.shared.interval.as_nanos().max(1));
        let due = u64::try_from(due).unwrap_or(u64::MAX);
        let shared = Arc::into_inner(self.shared).ok_or("a client still runs")?;
        Ok(Ended {
            workers,
            unsent: due.saturating_sub(samples.len() as u64),
            samples,
            heard: shared.heard,
            mix: shared.mix,
            numbers: due,
        })
    }
}

impl Ended {
    /// Reads every key that was written, so that a lost write is seen. Says how many were not read: a client
    /// whose read fails, which takes it as long as a request may, reads no more.
    pub async fn read_all(self, history: &Recorder) -> Result<u64, String> {
        let count = self.workers.len().max(1);
        let mix = Arc::new(self.mix);
        let mut readers = JoinSet::new();
        for (number, worker) in self.workers.into_iter().enumerate() {
            let history = history.clone();
            let mix = Arc::clone(&mix);
            let numbers = self.numbers;
            readers.spawn(async move {
                let inserted = (0..numbers)
                    .map(|number| mix.action(number))
                    .filter(|action| action.op == Op::Insert)
                    .map(|action| action.key);
                let keys = (0..REGISTERS).chain(inserted);
                let mut keys = keys.skip(number).step_by(count);
                while let Some(key) = keys.next() {
                    let done = worker.perform(Action::read(key)).await;
                    let read = done.operation.outcome == Outcome::Ok;
                    history.push(done.operation).await;
                    if !read {
                        return 1 + keys.count() as u64;
                    }
                }
                0
            });
        }
        let mut unread = 0;
        while let Some(done) = readers.join_next().await {
            unread += done.map_err(|error| format!("a client failed: {error}"))?;
        }
        Ok(unread)
    }
}

async fn work(
    worker: Worker,
    shared: Arc<Shared>,
    mut end: watch::Receiver<Option<Instant>>,
) -> (Worker, Vec<Sample>) {
    let mut samples = Vec::new();
    loop {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let due = shared.due(number);
        if !wait(due, &mut end).await {
            return (worker, samples);
        }
        // A client that was free answers for no delay of its timer, which is a millisecond coarse.
        let late = Instant::now().saturating_duration_since(due);
        let due = if late < TIMER { Instant::now() } else { due };
        let action = shared.mix.action(number);
        let done = worker.perform(action).await;
        if let Some(value) = learnt(&done.operation, action) {
            shared.mix.learn(action.key, value);
        }
        shared.pulse.feel(&done.operation);
        samples.push(shared.sample(due, &done.operation, done.retried));
        let failed = done.operation.outcome != Outcome::Ok;
        let count = match failed {
            true => &shared.others,
            false => &shared.acknowledged,
        };
        count.fetch_add(1, Ordering::Relaxed);
        shared.history.push(done.operation).await;
        if failed {
            sleep(PAUSE_AFTER_FAILURE).await;
        }
    }
}

/// Waits until an operation is due; `false` if the run ends before, or its last time is up.
async fn wait(due: Instant, end: &mut watch::Receiver<Option<Instant>>) -> bool {
    let is_over = |end: &Option<Instant>| {
        end.is_some_and(|end| due >= end || Instant::now() > end + DRAIN_MAX)
    };
    tokio::select! {
        biased;
        over = end.wait_for(is_over) => { drop(over); false }
        () = sleep_until(due) => true,
    }
}

impl Shared {
    fn due(&self, number: u64) -> Instant {
        let interval = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        self.start + Duration::from_nanos(interval.saturating_mul(number))
    }

    fn sample(&self, due: Instant, operation: &Operation, retried: bool) -> Sample {
        let micros = |ns: u64| u32::try_from(ns.saturating_sub(self.start_ns) / 1_000);
        let due = (due - self.start).as_micros();
        Sample {
            due_us: u32::try_from(due).unwrap_or(u32::MAX),
            sent_us: micros(operation.invoke_ns).unwrap_or(u32::MAX),
            returned_us: micros(operation.return_ns).unwrap_or(u32::MAX),
            outcome: operation.outcome,
            is_write: operation.op != Op::Read,
            retried,
        }
    }
}

/// The first acknowledged write after a moment.
#[derive(Debug)]
pub struct Pulse {
    armed_ns: AtomicU64,
    first_ns: watch::Sender<Option<u64>>,
}

impl Pulse {
    fn new() -> Self {
        Self {
            armed_ns: AtomicU64::new(UNARMED),
            first_ns: watch::Sender::new(None),
        }
    }

    /// From now on the first acknowledgement of a write counts that is sent after `ns`.
    pub fn arm(&self, ns: u64) {
        self.armed_ns.store(UNARMED, Ordering::SeqCst);
        self.first_ns.send_replace(None);
        self.armed_ns.store(ns, Ordering::SeqCst);
    }

    fn feel(&self, operation: &Operation) {
        let counts = operation.op != Op::Read
            && operation.outcome == Outcome::Ok
            && operation.invoke_ns >= self.armed_ns.load(Ordering::SeqCst);
        if counts {
            self.first_ns.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert(operation.return_ns);
                is_first
            });
        }
    }

    /// Waits for it.
    pub async fn beat(&self) -> u64 {
        let mut first = self.first_ns.subscribe();
        let felt = first.wait_for(Option::is_some).await;
        match felt.as_deref() {
            Ok(Some(ns)) => *ns,
            // Not reached while `self` holds the sender.
            _ => monotonic_ns(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_operation_is_run_if_it_was_due_before_the_end_and_no_other() {
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        let (end, mut ended) = watch::channel(None);
        assert!(wait(now, &mut ended).await);
        end.send_replace(Some(Instant::now()));
        assert!(wait(now, &mut ended).await, "it was due before the end");
        assert!(!wait(later, &mut ended).await);
        end.send_replace(now.checked_sub(DRAIN_MAX));
        assert!(!wait(now, &mut ended).await, "its last time is up");
    }

    #[tokio::test]
    async fn the_pulse_is_of_a_write_that_was_sent_after_it_was_armed() {
        let write = |invoke_ns, outcome, op| Operation {
            process: 0,
            request: None,
            op,
            key: 1.into(),
            value: 1.into(),
            invoke_ns,
            return_ns: invoke_ns + 7,
            outcome,
            result: 1.into(),
            stamp: None,
            position: None,
        };
        let pulse = Pulse::new();
        pulse.arm(100);
        pulse.feel(&write(99, Outcome::Ok, Op::Put));
        pulse.feel(&write(101, Outcome::Ok, Op::Read));
        pulse.feel(&write(102, Outcome::Unknown, Op::Put));
        assert_eq!(*pulse.first_ns.borrow(), None);
        pulse.feel(&write(103, Outcome::Ok, Op::Put));
        pulse.feel(&write(104, Outcome::Ok, Op::Put));
        assert_eq!(pulse.beat().await, 110);
        pulse.arm(200);
        assert_eq!(*pulse.first_ns.borrow(), None);
    }
}
