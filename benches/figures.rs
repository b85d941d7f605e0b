//! The figures that Drumline promises, measured on clusters of their own and printed beside their
//! bars: `cargo bench --bench figures`. docs/figures.md quotes them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement fails by panicking"
)]

#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests")]
mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use drumline::model::Namespace;
use serde_json::Value;
use tokio::runtime::Runtime;

use support::inside::Inside;
use support::load::End;
use support::mix::Mix;
use support::processes::memory;
use support::transactions::takeover;
use support::{Cluster, Pid};

const GET_RUNS: usize = 200;
const TAKEOVER_RUNS: usize = 5;
const MIB: usize = 1 << 20;

/// Figures with their bars, as they are measured.
#[derive(Default)]
struct Table {
    missed: usize,
}

impl Table {
    fn begin() -> Self {
        println!("| figure | bar | measured |\n|---|---|---|");
        Self::default()
    }

    fn row(&mut self, figure: &str, bar: &str, measured: &str, holds: bool) {
        let verdict = if holds { "" } else { " (missed)" };
        self.missed += usize::from(!holds);
        println!("| {figure} | {bar} | {measured}{verdict} |");
    }
}

fn main() -> ExitCode {
    let mut table = Table::begin();
    node(&mut table);
    let runtime = Runtime::new().unwrap();
    runtime.block_on(mixes(&mut table));
    runtime.block_on(takeovers(&mut table));
    match table.missed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// What is measured from outside on a cluster with one node.
fn node(table: &mut Table) {
    let cluster = Cluster::start(&Cluster::ONE_NODE);
    let node = cluster.node_pid(0);
    at_rest(table, node);
    gets(table, &cluster);
    throughput(table, &cluster);
    let peak = memory(node, "VmHWM") / MIB;
    let measured = format!("{peak} MiB");
    table.row(
        "memory of a node after 256 clients, peak",
        "128 MiB",
        &measured,
        peak < 128,
    );
}

fn at_rest(table: &mut Table, node: Pid) {
    let rest = memory(node, "VmRSS") / MIB;
    let measured = format!("{rest} MiB");
    table.row("memory of a node at rest", "64 MiB", &measured, rest < 64);
}

fn gets(table: &mut Table, cluster: &Cluster) {
    let sandbox = cluster.sandbox();
    sandbox.ok(&["put", "figures.get", "one", r#"{"item": "drum"}"#]);
    let mut times: Vec<_> = (0..GET_RUNS)
        .map(|_| {
            let begun = Instant::now();
            sandbox.ok(&["get", "figures.get", "one"]);
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    let (median, p95) = (times[GET_RUNS / 2], times[GET_RUNS * 95 / 100]);
    let measured = format!("median {median:.1?}, 95 % within {p95:.1?}");
    let holds = median < Duration::from_millis(10);
    table.row(
        "`drumline get`, whole process, 200 runs",
        "median 10 ms",
        &measured,
        holds,
    );
}

/// The driver's inserts and Drumline's, in turn.
fn throughput(table: &mut Table, cluster: &Cluster) {
    let bars = [(1, 0.55), (64, 2.0), (256, 4.0)];
    let arguments = [
        "bench",
        "--compare",
        "--seconds",
        "8",
        "--rounds",
        "3",
        "-o",
        "jsonl",
    ];
    let output = cluster.sandbox().ok(&arguments).stdout;
    for ((clients, bar), line) in bars.into_iter().zip(output.lines()) {
        let compared: Value = serde_json::from_str(line).unwrap();
        assert_eq!(compared["clients"], clients);
        let figure = |name: &str| compared[name].as_f64().unwrap();
        let ratio = figure("ratio");
        let measured = format!(
            "{ratio:.2} times: {:.0}/s and {:.0}/s; median {:.1} ms and {:.1} ms",
            figure("direct_per_second"),
            figure("drumline_per_second"),
            figure("direct_p50_ms"),
            figure("drumline_p50_ms"),
        );
        let what = format!("inserts of {clients} clients, the driver and Drumline over HTTP");
        table.row(&what, &format!("{bar} times"), &measured, ratio >= bar);
    }
}

async fn mixes(table: &mut Table) {
    let cluster = Cluster::start(&["--nodes", "0"]);
    let inside = Inside::start(&cluster.info.mongodb_uri).await;
    let mixes = [
        ("every second one refused", Mix::alternating(500)),
        ("all but one refused", Mix::all_refused(499)),
        ("the last 250 refused", Mix::refused_at_end(500)),
    ];
    for (number, (name, mix)) in mixes.into_iter().enumerate() {
        let namespace = Namespace::parse(&format!("mix.m{number}")).unwrap();
        let cost = mix.run(&inside, &namespace).await;
        let (attempts, time) = (cost.attempts, cost.time);
        let measured = format!("{attempts} transactions, {time:.2?}");
        let holds = time < Duration::from_secs(10);
        let what = format!("500 requests at once, {name}");
        table.row(&what, "all others done in order, 10 s", &measured, holds);
    }
}

async fn takeovers(table: &mut Table) {
    let cluster = Cluster::start(&["--nodes", "0"]);
    let mut times = Vec::new();
    for _ in 0..TAKEOVER_RUNS {
        let (time, record) = takeover(&cluster, Duration::from_secs(90)).await;
        assert!(matches!(record.end, End::Acknowledged(_)), "{record:?}");
        times.push(time);
    }
    times.sort_unstable();
    let (median, longest) = (times[TAKEOVER_RUNS / 2], times[TAKEOVER_RUNS - 1]);
    let measured = format!("median {median:.0?}, at most {longest:.0?}, 5 runs");
    let what =
        "kill -9 of a node before its commit, start of another, its first acknowledged write";
    table.row(what, "2 s", &measured, longest < Duration::from_secs(2));
}
