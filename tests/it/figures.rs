//! Figures that docs/figures.md quotes: run with `--release -- --nocapture figures`.

use std::time::{Duration, Instant};

use drumline::client::Clock;

use crate::support::load::{Load, Op};
use crate::support::{Cluster, Pid};

const RUNS: usize = 200;
/// The bars of an optimised build. An unoptimised one is not what anybody runs for speed.
const GET_MEDIAN_MAX: Duration = Duration::from_millis(10);
const REST_KIB_MAX: u64 = 64 << 10;

#[test]
fn a_get_is_a_matter_of_milliseconds_as_a_whole_process() {
    let cluster = Cluster::start(&[]);
    let sandbox = cluster.sandbox();
    sandbox.ok(&["put", "figures.get", "one", r#"{"item": "drum"}"#]);
    let mut times: Vec<_> = (0..RUNS)
        .map(|_| {
            let begun = Instant::now();
            sandbox.ok(&["get", "figures.get", "one"]);
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    let (median, p95) = (times[RUNS / 2], times[RUNS * 95 / 100]);
    println!("get, whole process, {RUNS} runs: median {median:?}, p95 {p95:?}");
    assert!(cfg!(debug_assertions) || median < GET_MEDIAN_MAX);
}

#[test]
fn a_node_is_small_at_rest_and_stays_small_under_load() {
    let cluster = Cluster::start(&[]);
    let node = cluster.node_pid(0);
    let fresh = resident_kib(node);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let most = runtime.block_on(async {
        let load = Load::new(&cluster, "figures.memory");
        let running = tokio::spawn({
            let load = load.clone();
            async move { load.run(256).await }
        });
        let client = load.client(Duration::from_secs(20));
        let mut most = 0;
        for number in 0..300 {
            let key = format!("probe{number}");
            load.one_request(&client, &Clock::default(), Op::Insert { key })
                .await;
            most = most.max(resident_kib(node));
        }
        load.stop();
        running.await.unwrap();
        most
    });
    println!("node, resident: {fresh} KiB at rest, at most {most} KiB with 256 clients");
    assert!(fresh < REST_KIB_MAX);
    assert!(most < 2 * REST_KIB_MAX, "bounded under load");
}

fn resident_kib(pid: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
