//! How fast a history is checked, and in how much memory: `cargo bench --bench checker`.
//!
//! Writes a history of 10 million operations (`DRUMLINE_OPERATIONS`) into the folder for temporary
//! files, about 2 GB, and has the program check it. The checker has one thread, so its processor time
//! is its time on one core with nothing beside it. docs/checker.md quotes the figures.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement fails by panicking"
)]

#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests")]
mod support;

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

use support::{PATIENCE, POLL, setting};

const OPERATIONS_DEFAULT: u64 = 10_000_000;
const PER_SECOND_BAR: u64 = 500_000;
const MEMORY_MIB_BAR: u64 = 256;
/// Registers, which are written and read again and again. Every second operation inserts a key of its own.
const REGISTERS: u64 = 10_000;
const CLIENTS: u64 = 64;
/// Of the kernel's clock of processor times; the same on all architectures.
const TICKS_PER_SECOND: u64 = 100;

fn main() -> ExitCode {
    let operations = setting("DRUMLINE_OPERATIONS", OPERATIONS_DEFAULT);
    let path = std::env::temp_dir().join(format!("drumline-checker-{}", std::process::id()));
    write_history(&path, operations);
    let megabytes = fs::metadata(&path).unwrap().len() / 1_000_000;
    let begun = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_drumline"))
        .arg("check")
        .arg(&path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let used = watch(child);
    let wall = begun.elapsed().as_secs_f32();
    fs::remove_file(&path).unwrap();
    let per_second = operations * TICKS_PER_SECOND / used.ticks.max(1);
    println!("| figure | bar | measured |\n|---|---|---|");
    println!(
        "| {operations} operations ({megabytes} MB) checked, a second of one core | {PER_SECOND_BAR} | {per_second}, {wall:.1} s by the clock |"
    );
    println!(
        "| memory of the checker, peak | {MEMORY_MIB_BAR} MiB | {} MiB |",
        used.peak_mib
    );
    if per_second >= PER_SECOND_BAR && used.peak_mib <= MEMORY_MIB_BAR {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What a process has used.
#[derive(Default)]
struct Used {
    ticks: u64,
    peak_mib: u64,
}

/// Waits for the end of the process and looks at it until then.
fn watch(mut child: Child) -> Used {
    let mut used = Used::default();
    let mut rounds = 0;
    loop {
        let folder = format!("/proc/{}", child.id());
        let read = |name: &str| fs::read_to_string(format!("{folder}/{name}")).unwrap_or_default();
        let status = read("status");
        if let Some(peak) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
            let kib: u64 = peak.split_whitespace().next().unwrap().parse().unwrap();
            used.peak_mib = kib / 1024;
        }
        let stat = read("stat");
        let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        // The times in user code and in the kernel; they stay until the process is waited for.
        let ticks = |field: usize| -> u64 { fields[field].parse().unwrap() };
        used.ticks = ticks(11) + ticks(12);
        if fields[0] == "Z" {
            let status = child.wait().unwrap();
            assert!(status.success(), "{status}");
            return used;
        }
        rounds += 1;
        assert!(POLL * rounds < PATIENCE * 10, "the checker does not end");
        #[expect(clippy::disallowed_methods, reason = "a look from time to time")]
        std::thread::sleep(POLL);
    }
}

/// Clients that insert, update, compare-and-set and read; a thousandth of the writes has an unknown outcome.
fn write_history(path: &Path, operations: u64) {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let mut registers = vec![0_u64; usize::try_from(REGISTERS).unwrap()];
    let mut stamp = 1;
    for number in 0..operations {
        let mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        let key = mixed % REGISTERS;
        let held = &mut registers[usize::try_from(key).unwrap()];
        let unknown = mixed % 1_009 == 0;
        let (op, key, value, result, write) = match number % 4 {
            0 | 2 => (
                "insert",
                format!("\"k{number}\""),
                number.to_string(),
                "null".to_owned(),
                true,
            ),
            1 if *held == 0 || unknown => {
                let result = u8::from(*held != 0).to_string();
                ("put", key.to_string(), number.to_string(), result, true)
            }
            1 => (
                "cas",
                key.to_string(),
                format!("[{held},{number}]"),
                "1".to_owned(),
                true,
            ),
            _ => {
                let shown = if *held == 0 {
                    "null".to_owned()
                } else {
                    held.to_string()
                };
                ("read", key.to_string(), "null".to_owned(), shown, false)
            }
        };
        if number % 4 == 1 {
            *held = number;
        }
        stamp += u64::from(write);
        let invoke = 1_000 * number;
        let returned = invoke + 1_000 * (CLIENTS - 1);
        let request = if write {
            format!(
                "\"{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}\"",
                mixed & 0xffff_ffff,
                number & 0xffff,
                mixed & 0xfff,
                number & 0xfff,
                number
            )
        } else {
            "null".into()
        };
        let (outcome, result, place) = if unknown && write {
            (
                "unknown",
                "\"connection lost\"".to_owned(),
                "null".to_owned(),
            )
        } else {
            ("ok", result, stamp.to_string())
        };
        writeln!(
            out,
            "{{\"process\":{},\"request\":{request},\"op\":\"{op}\",\"key\":{key},\"value\":{value},\"invoke_ns\":{invoke},\"return_ns\":{returned},\"outcome\":\"{outcome}\",\"result\":{result},\"stamp\":{place},\"position\":{place}}}",
            number % CLIENTS
        )
        .unwrap();
    }
    out.flush().unwrap();
}
