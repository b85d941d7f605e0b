//! The history of a run: one line of JSON for each operation (docs/commands.md, "History").

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::thread::JoinHandle;

use anyhow::Context as _;
use serde::Serialize;
use tokio::sync::mpsc;

use super::connection::Inserted;
use crate::model::RequestId;

/// Operations that wait for the disk. Past it the clients wait too.
const WAITING_MAX: usize = 4_096;

/// One operation of one client.
#[derive(Debug, Serialize)]
pub(super) struct Operation {
    process: u32,
    request: String,
    op: &'static str,
    key: i64,
    value: u32,
    invoke_ns: u64,
    return_ns: u64,
    outcome: &'static str,
    result: Option<String>,
    stamp: Option<i64>,
    position: Option<i64>,
}

impl Operation {
    pub(super) fn insert(
        process: u32,
        id: &RequestId,
        key: i64,
        (invoke_ns, return_ns): (u64, u64),
        inserted: &Inserted,
    ) -> Self {
        let (outcome, result, stamp, position) = match inserted {
            Inserted::Ok { stamp, position } => ("ok", None, *stamp, *position),
            Inserted::Failed(why) => ("fail", Some(why.clone()), None, None),
            Inserted::Unknown(why) => ("unknown", Some(why.clone()), None, None),
        };
        Self {
            process,
            request: id.to_string(),
            op: "insert",
            key,
            value: process,
            invoke_ns,
            return_ns,
            outcome,
            result,
            stamp,
            position,
        }
    }
}

/// The clock of all histories: monotonic, and the same for all processes of a machine.
pub(super) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Takes operations and writes them on a thread of its own. Cheap to clone.
#[derive(Debug, Clone)]
pub struct History(mpsc::Sender<Operation>);

/// The thread that writes. It ends when every [`History`] is dropped.
#[derive(Debug)]
pub struct Writer(JoinHandle<std::io::Result<()>>);

impl History {
    pub fn create(path: &Path) -> anyhow::Result<(Self, Writer)> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let (sender, operations) = mpsc::channel(WAITING_MAX);
        let thread = std::thread::spawn(move || write_all(file, operations));
        Ok((Self(sender), Writer(thread)))
    }

    /// A writer that has failed says so at the end of the run.
    pub(super) async fn push(&self, operation: Operation) {
        let _ = self.0.send(operation).await;
    }
}

impl Writer {
    /// Waits until all is written. Drop every [`History`] first.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_operation_is_a_line() {
        let path = std::env::temp_dir().join(format!("drumline-history-{}", bson::Uuid::new()));
        let (history, writer) = History::create(&path).unwrap();
        let id = RequestId::parse("r1").unwrap();
        let ok = Inserted::Ok {
            stamp: Some(3),
            position: Some(2),
        };
        history
            .push(Operation::insert(7, &id, 1, (10, 20), &ok))
            .await;
        let unknown = Inserted::Unknown("connection lost".into());
        history
            .push(Operation::insert(7, &id, 2, (30, 40), &unknown))
            .await;
        drop(history);
        writer.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            r#"{"process":7,"request":"r1","op":"insert","key":1,"value":7,"invoke_ns":10,"return_ns":20,"outcome":"ok","result":null,"stamp":3,"position":2}"#
        );
        assert!(lines[1].contains(r#""outcome":"unknown","result":"connection lost""#));
        std::fs::remove_file(&path).unwrap();
    }
}
