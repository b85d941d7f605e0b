//! What a failover costs, measured on three nodes of its own and printed beside the bars:
//! `cargo bench --bench failover`, or one of them: `cargo bench --bench failover -- frozen`. docs/figures.md quotes
//! it. `DRUMLINE_RUNS` sets the runs a fault.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement fails by panicking"
)]

#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests")]
mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mongodb::Client;
use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::sleep;

use support::transactions::{freeze_inside_transaction, open_transactions};
use support::trio::{NAMES, Setup, Tenure, Trio, others};
use support::under_load::{UnderLoad, first_write, insert_once};
use support::{Cluster, Pid, eventually, kill, setting};

/// How long the zombie is frozen: longer than it takes to elect another.
const FREEZE: Duration = Duration::from_secs(3);
/// The unit of times in /proc; Linux has it fixed there.
const TICKS_PER_SECOND: u64 = 100;
/// How long idle nodes are watched.
const IDLE: Duration = Duration::from_secs(30);
/// The clients that try each request once.
const SINGLE_CLIENTS: usize = 8;
/// A fault comes at any moment between two heartbeats and two batches.
const PHASE_MAX_MS: u64 = 400;

fn main() -> ExitCode {
    println!("| figure | bar | p50 / p95 / max |\n|---|---|---|");
    let runs = setting("DRUMLINE_RUNS", 30);
    let cluster = Cluster::start(&["--nodes", "0"]);
    let chosen = std::env::args().nth(1).unwrap_or_default();
    let is_chosen = |name: &str| chosen.starts_with('-') || name.contains(&chosen);
    let mut holds = true;
    Runtime::new().unwrap().block_on(async {
        if is_chosen("idle") {
            holds &= idle(&cluster).await;
        }
        if is_chosen("killed") {
            holds &= killed(&cluster, runs).await;
        }
        if is_chosen("frozen") {
            holds &= frozen(&cluster, runs).await;
        }
        if is_chosen("stopped") {
            holds &= stopped(&cluster, runs).await;
        }
        if is_chosen("taken over") {
            holds &= taken_over(&cluster, runs).await;
        }
    });
    match holds {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn row(figure: &str, bar: &str, measured: &str, holds: bool) -> bool {
    let verdict = if holds { "" } else { " (missed)" };
    println!("| {figure} | {bar} | {measured}{verdict} |");
    holds
}

/// Times of many runs.
struct Times(Vec<Duration>);

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// Of so many in a hundred runs none is longer.
    fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0[rank.saturating_sub(1)]
    }

    fn text(&self) -> String {
        let at = |percent| self.percentile(percent).as_millis();
        let runs = self.0.len();
        format!("{} / {} / {} ms, {runs} runs", at(50), at(95), at(100))
    }

    fn within(&self, p50_ms: u64, max_ms: u64) -> bool {
        let most = Duration::from_millis;
        self.percentile(50) < most(p50_ms) && self.percentile(100) < most(max_ms)
    }
}

/// The phase of this run, spread evenly.
async fn phase(run: u64) {
    sleep(Duration::from_millis(run * 137 % PHASE_MAX_MS)).await;
}

async fn idle(cluster: &Cluster) -> bool {
    let trio = Trio::start(cluster, Setup::default()).await;
    trio.agreed().await;
    let used = || (0..3).map(|node| cpu(trio.pid(node)));
    let before: Vec<_> = used().collect();
    sleep(IDLE).await;
    let shares: Vec<_> = used()
        .zip(before)
        .map(|(now, before)| (now - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0)
        .collect();
    let most = shares.iter().copied().fold(0.0, f64::max);
    let measured = shares.iter().map(|share| format!("{share:.2} %"));
    let measured = measured.collect::<Vec<_>>().join(", ");
    row(
        "CPU of each idle node, of one core, 30 s",
        "1 %",
        &measured,
        most < 1.0,
    )
}

/// The processor time that a process has used.
fn cpu(pid: Pid) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let ticks = rest.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND)
}

/// Kill -9 of the coordinator with a transaction open.
async fn killed(cluster: &Cluster, runs: u64) -> bool {
    let driver = Client::with_uri_str(&cluster.info.mongodb_uri).await;
    let driver = driver.unwrap();
    let mut trio = Trio::start(cluster, Setup::default()).await;
    let under_load = UnderLoad::on(&trio, "killed").await;
    let mut times = Vec::new();
    for run in 0..runs {
        phase(run).await;
        let Tenure { node, .. } = trio.agreed().await;
        let app = format!("^drumline {}$", NAMES[node]);
        let pid = trio.pid(node);
        let session = freeze_inside_transaction(&driver, &app, pid).await;
        if !open_transactions(&driver, &app).await.contains(&session) {
            kill(pid, Signal::CONT);
            continue;
        }
        trio.kill(node);
        times.push(first_write(&trio.http(others(node)[0]), Instant::now()).await);
        trio.start_node(node);
    }
    trio.agreed().await;
    under_load.end(cluster).await;
    let times = Times::of(times);
    row(
        "kill -9 of the coordinator with a transaction open, to a write through another node",
        "p50 500 ms, max 1500 ms",
        &times.text(),
        times.within(500, 1_500),
    )
}

async fn frozen(cluster: &Cluster, runs: u64) -> bool {
    let mut trio = Trio::start(cluster, Setup::default()).await;
    let under_load = UnderLoad::on(&trio, "frozen").await;
    let (mut times, mut returns) = (Vec::new(), Vec::new());
    let mut acknowledgements = 0;
    for run in 0..runs {
        phase(run).await;
        let before = trio.agreed().await;
        let zombie = before.node;
        trio.freeze(zombie);
        let begun = Instant::now();
        times.push(first_write(&trio.http(others(zombie)[0]), begun).await);
        sleep(FREEZE.saturating_sub(begun.elapsed())).await;
        let after = trio.agreed().await;
        trio.thaw(zombie);
        let thawed = Instant::now();
        let http = trio.http(zombie);
        let asked = futures_util::future::join_all((0..8).map(|_| insert_once(&http)));
        let follows = eventually("the zombie follows", async || {
            (trio.role(zombie).await? == "follower").then(|| thawed.elapsed())
        });
        let (replies, returned) = tokio::join!(asked, follows);
        returns.push(returned);
        for reply in replies.into_iter().flatten() {
            let position = reply.header("drumline-position").map(str::parse);
            if let Some(Ok(position)) = position {
                let author = trio.author(position).await;
                acknowledgements += u32::from(author.as_deref() != Some(NAMES[after.node]));
            }
        }
    }
    under_load.end(cluster).await;
    let (times, returns) = (Times::of(times), Times::of(returns));
    let first = row(
        "coordinator frozen, to a write through another node",
        "p50 1000 ms, max 2500 ms",
        &times.text(),
        times.within(1_000, 2_500),
    );
    let second = row(
        "thawed, until it follows",
        "max 2000 ms",
        &returns.text(),
        returns.within(2_000, 2_000),
    );
    let measured = format!("{acknowledgements}");
    let third = row(
        "acknowledgements by the thawed one",
        "0",
        &measured,
        acknowledgements == 0,
    );
    first && second && third
}

/// Clients that send to the followers alone, each request once.
struct Singles {
    stop: Arc<AtomicBool>,
    running: JoinSet<(Vec<Instant>, usize)>,
}

impl Singles {
    fn begin(trio: &Trio<'_>, nodes: &[usize]) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let mut running = JoinSet::new();
        for client in 0..SINGLE_CLIENTS {
            let http = trio.http(nodes[client % nodes.len()]);
            let stop = stop.clone();
            running.spawn(async move {
                let (mut acknowledged, mut errors) = (Vec::new(), 0);
                while !stop.load(Ordering::Relaxed) {
                    match insert_once(&http).await {
                        Ok(reply) if reply.status == 201 => acknowledged.push(Instant::now()),
                        failed => {
                            eprintln!("a request failed: {failed:?}");
                            errors += 1;
                        }
                    }
                }
                (acknowledged, errors)
            });
        }
        Self { stop, running }
    }

    /// The longest time between two acknowledgements, and how many requests failed.
    async fn end(self) -> (Duration, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut acknowledged, mut errors) = (Vec::new(), 0);
        for (times, failed) in self.running.join_all().await {
            acknowledged.extend(times);
            errors += failed;
        }
        acknowledged.sort_unstable();
        let gaps = acknowledged.windows(2).map(|pair| pair[1] - pair[0]);
        (gaps.max().unwrap_or_default(), errors)
    }
}

fn handover_row(figure: &str, gaps: Vec<Duration>, errors: usize) -> bool {
    let gaps = Times::of(gaps);
    let measured = format!("{}; {errors} errors", gaps.text());
    let holds = gaps.within(200, 200) && errors == 0;
    row(figure, "max 200 ms, no error", &measured, holds)
}

/// The coordinator is told to stop.
async fn stopped(cluster: &Cluster, runs: u64) -> bool {
    let mut trio = Trio::start(cluster, Setup::default()).await;
    let (mut gaps, mut failed) = (Vec::new(), 0);
    for run in 0..runs {
        let before = trio.agreed().await;
        let singles = Singles::begin(&trio, &others(before.node));
        phase(run + 1).await;
        trio.stop(before.node);
        trio.until_stopped(before.node);
        trio.agreed().await;
        phase(run + 1).await;
        let (gap, errors) = singles.end().await;
        gaps.push(gap);
        failed += errors;
        trio.start_node(before.node);
    }
    handover_row(
        "SIGTERM of the coordinator: longest time between two acknowledgements",
        gaps,
        failed,
    )
}

/// A larger rank takes over after the dwell time.
async fn taken_over(cluster: &Cluster, runs: u64) -> bool {
    let setup = Setup {
        dwell: "500ms",
        ..Setup::default()
    };
    let mut trio = Trio::start(cluster, setup).await;
    let (mut gaps, mut failed) = (Vec::new(), 0);
    for run in 0..runs {
        let before = trio.agreed().await;
        let [riser, _] = others(before.node);
        trio.kill(riser);
        trio.start_node(riser);
        phase(run).await;
        let singles = Singles::begin(&trio, &others(riser));
        eventually("the larger rank has taken over", async || {
            (trio.agreed().await.node == riser).then_some(())
        })
        .await;
        phase(run + 1).await;
        let (gap, errors) = singles.end().await;
        gaps.push(gap);
        failed += errors;
    }
    handover_row(
        "a larger rank takes over: longest time between two acknowledgements",
        gaps,
        failed,
    )
}
