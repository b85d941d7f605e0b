//! Writes a history while it happens.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::thread::JoinHandle;

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::history::Operation;

/// Operations that wait for the disk. Past it the clients wait too.
const WAITING_MAX: usize = 4_096;

/// The clock of all histories: monotonic, and the same for all processes of a machine.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Takes operations and writes them on a thread of its own. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder(mpsc::Sender<Operation>);

/// The thread that writes. It ends when every [`Recorder`] is dropped.
#[derive(Debug)]
pub struct Writer(JoinHandle<std::io::Result<()>>);

impl Recorder {
    pub fn create(path: &Path) -> anyhow::Result<(Self, Writer)> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let (sender, operations) = mpsc::channel(WAITING_MAX);
        let thread = std::thread::spawn(move || write_all(file, operations));
        Ok((Self(sender), Writer(thread)))
    }

    /// A writer that has failed says so at the end of the run.
    pub async fn push(&self, operation: Operation) {
        let _ = self.0.send(operation).await;
    }
}

impl Writer {
    /// Waits until all is written. Drop every [`Recorder`] first.
    pub fn finish(self) -> anyhow::Result<()> {
        match self.0.join() {
            Ok(result) => result.context("the history could not be written"),
            Err(_) => anyhow::bail!("the history's writer panicked"),
        }
    }
}

fn write_all(file: File, mut operations: mpsc::Receiver<Operation>) -> std::io::Result<()> {
    let mut out = BufWriter::new(file);
    while let Some(operation) = operations.blocking_recv() {
        serde_json::to_writer(&mut out, &operation)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}
