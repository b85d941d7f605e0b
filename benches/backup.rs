//! What a master backup costs, printed beside the bars: `cargo bench --bench backup`. docs/backup.md
//! names it. `DRUMLINE_DOCUMENTS` sets how many documents the large base has.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement fails by panicking"
)]

#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests")]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use bson::{Document, RawDocumentBuf, doc};
use mongodb::options::WriteConcern;
use mongodb::{Client, Collection};
use tokio::runtime::Runtime;

use support::{Cluster, SMALL, setting};

const SMALL_BASE: i64 = 10_000;
const EVENTS: i64 = 10_000;
/// How many cursors the plain scan has.
const CURSORS: i64 = 4;
const BATCH: i64 = 1_000;
/// Of so many increments and idle runs the median counts.
const RUNS: usize = 5;
const MIB: u64 = 1 << 20;

/// Prints a row; whether the bar holds.
fn row(figure: &str, bar: &str, measured: &str, holds: bool) -> bool {
    let verdict = if holds { "" } else { " (missed)" };
    println!("| {figure} | {bar} | {measured}{verdict} |");
    holds
}

fn main() -> ExitCode {
    let documents = i64::try_from(setting("DRUMLINE_DOCUMENTS", 1_000_000)).unwrap();
    println!("{documents} documents\n\n| figure | bar | measured |\n|---|---|---|");
    let runtime = Runtime::new().unwrap();
    let large = Place::start(&runtime);
    let inserted = runtime.block_on(large.insert(0, documents));
    let mut holds = base(&runtime, &large, documents);
    holds &= restored(&large, inserted);
    let small = Place::start(&runtime);
    runtime.block_on(small.insert(0, SMALL_BASE));
    small.backup();
    holds &= increments(&runtime, &small, &large);
    holds &= idle(&large);
    match holds {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// A cluster and its backup.
struct Place {
    cluster: Cluster,
    many: Collection<Document>,
    folder: PathBuf,
    uri_file: String,
}

/// What a command took.
struct Took {
    time: Duration,
    /// The most memory that it had at once, in bytes.
    peak: u64,
}

impl Place {
    fn start(runtime: &Runtime) -> Self {
        let cluster = Cluster::start(&SMALL);
        let uri = &cluster.info.mongodb_uri;
        let client = runtime.block_on(async { Client::with_uri_str(uri).await.unwrap() });
        let file = cluster.sandbox().path("mongodb-uri");
        fs::write(&file, uri).unwrap();
        Self {
            many: client.database("figures").collection("many"),
            folder: cluster.sandbox().path("master"),
            uri_file: file.to_str().unwrap().to_owned(),
            cluster,
        }
    }

    /// Inserts documents with insertMany; how long that took.
    async fn insert(&self, from: i64, count: i64) -> Duration {
        let begun = Instant::now();
        let once = WriteConcern::builder().w(mongodb::options::Acknowledgment::Nodes(1));
        let once = once.build();
        for first in (from..from + count).step_by(usize::try_from(BATCH).unwrap()) {
            let ids = first..(first + BATCH).min(from + count);
            let documents = ids.map(|id| {
                let text = format!(
                    "{:0>32x}",
                    id.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64.cast_signed())
                );
                doc! {"_id": id, "n": id % 97, "name": &text, "text": text.repeat(4)}
            });
            let insert = self.many.insert_many(documents);
            insert.write_concern(once.clone()).await.unwrap();
        }
        begun.elapsed()
    }

    /// Reads everything with some cursors at once, and keeps nothing.
    async fn scan(&self, documents: i64) -> Duration {
        let begun = Instant::now();
        let part = documents / CURSORS + 1;
        let scans = (0..CURSORS).map(|at| {
            let many = self.many.clone_with_type::<RawDocumentBuf>();
            tokio::spawn(async move {
                let range = doc! {"_id": {"$gte": at * part, "$lt": (at + 1) * part}};
                let mut cursor = many.find(range).await.unwrap();
                let mut bytes = 0;
                while cursor.advance().await.unwrap() {
                    bytes += cursor.current().as_bytes().len();
                }
                bytes
            })
        });
        let scans: Vec<_> = scans.collect();
        let mut bytes = 0;
        for scan in scans {
            bytes += scan.await.unwrap();
        }
        assert!(bytes > 0);
        begun.elapsed()
    }

    fn run(&self, arguments: &[&str]) -> Took {
        let begun = Instant::now();
        let mut command = self.cluster.sandbox().drumline(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = command.spawn().unwrap();
        let mut clock = tokio::runtime::Builder::new_current_thread();
        let clock = clock.enable_time().build().unwrap();
        let mut peak = 0;
        let ended = loop {
            if let Some(ended) = running.try_wait().unwrap() {
                break ended;
            }
            peak = peak_of(running.id()).unwrap_or(peak);
            clock.block_on(async { tokio::time::sleep(Duration::from_millis(5)).await });
        };
        let time = begun.elapsed();
        assert!(ended.success(), "{arguments:?}: {ended}");
        Took { time, peak }
    }

    fn backup(&self) -> Took {
        let folder = self.folder.to_str().unwrap();
        self.run(&["backup", folder, "--mongodb-file", &self.uri_file])
    }

    fn bytes(&self) -> u64 {
        bytes_in(&self.folder)
    }

    fn manifest_bytes(&self) -> u64 {
        fs::metadata(self.folder.join("manifest.json"))
            .unwrap()
            .len()
    }
}

fn peak_of(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries.map(|entry| entry.metadata().unwrap().len()).sum()
}

fn base(runtime: &Runtime, large: &Place, documents: i64) -> bool {
    runtime.block_on(large.scan(documents)); // so that both find it in MongoDB's cache
    let scan = runtime.block_on(large.scan(documents));
    let took = large.backup();
    let ratio = scan.as_secs_f64() / took.time.as_secs_f64();
    let measured = format!(
        "{ratio:.2} times: {scan:.1?} and {:.1?}, {} KiB of files",
        took.time,
        large.bytes() >> 10
    );
    let fast = row(
        &format!("a base, whole process, beside a scan with {CURSORS} cursors"),
        "0.7 times the speed",
        &measured,
        ratio >= 0.7,
    );
    fast & memory("a base", &took)
}

fn memory(what: &str, took: &Took) -> bool {
    let peak = took.peak / MIB;
    row(
        &format!("memory of {what}, peak"),
        "256 MiB",
        &format!("{peak} MiB"),
        peak < 256,
    )
}

fn restored(large: &Place, inserted: Duration) -> bool {
    let target = Cluster::start(&SMALL);
    let file = target.sandbox().path("mongodb-uri");
    fs::write(&file, &target.info.mongodb_uri).unwrap();
    let folder = large.folder.to_str().unwrap();
    let took = large.run(&["restore", folder, "--mongodb-file", file.to_str().unwrap()]);
    let ratio = inserted.as_secs_f64() / took.time.as_secs_f64();
    let measured = format!("{ratio:.2} times: {inserted:.1?} and {:.1?}", took.time);
    let fast = row(
        "a restore with all its proofs, whole process, beside insertMany",
        "0.5 times the speed",
        &measured,
        ratio >= 0.5,
    );
    fast & memory("a restore", &took)
}

/// The median of some increments: time, and bytes that were written.
fn increment(runtime: &Runtime, place: &Place) -> (Duration, u64) {
    place.backup();
    let runs = (0..RUNS).map(|run| {
        let from = i64::try_from(run + 1).unwrap() * 100_000_000;
        runtime.block_on(place.insert(from, EVENTS));
        let before = place.bytes() - place.manifest_bytes();
        let time = place.backup().time;
        (time, place.bytes() - before)
    });
    let (mut times, mut bytes): (Vec<_>, Vec<_>) = runs.unzip();
    times.sort_unstable();
    bytes.sort_unstable();
    (times[RUNS / 2], bytes[RUNS / 2])
}

fn increments(runtime: &Runtime, small: &Place, large: &Place) -> bool {
    let few = increment(runtime, small);
    let many = increment(runtime, large);
    let time = many.0.as_secs_f64() / few.0.as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "a ratio")]
    let bytes = many.1 as f64 / few.1 as f64;
    let measured = format!(
        "{time:.2} times in time ({:.2?} and {:.2?}), {bytes:.2} in bytes ({} and {} KiB)",
        few.0,
        many.0,
        few.1 >> 10,
        many.1 >> 10
    );
    row(
        &format!("{EVENTS} new events on the large base, beside a base of {SMALL_BASE}"),
        "1.3 times",
        &measured,
        time <= 1.3 && bytes <= 1.3,
    )
}

fn idle(large: &Place) -> bool {
    let before = large.bytes() - large.manifest_bytes();
    let mut times: Vec<_> = (0..RUNS).map(|_| large.backup().time).collect();
    times.sort_unstable();
    let (time, bytes) = (times[RUNS / 2], large.manifest_bytes());
    assert_eq!(large.bytes() - bytes, before, "an idle run adds nothing");
    row(
        "a run with nothing new, whole process",
        "0.5 s, 4 KiB",
        &format!("{time:.2?}, {bytes} bytes"),
        time < Duration::from_millis(500) && bytes < 4096,
    )
}
