//! The end of the log, kept for all who follow it: one task reads it, while anybody does.
//!
//! Never waits for one of them: who is slower than what is kept reads pages of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use bson::Document;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::events::Frame;
use crate::budget::Reservation;
use crate::ejson::Format;
use crate::gateway::Gateway;
use crate::model::limits::{LOG_KEPT_BYTES_MAX, LOG_PAGE_BYTES_MAX, STREAM_PATIENCE_MAX};
use crate::model::{Failure, Position};
use crate::store::LogWake;

/// The pause where MongoDB did not answer, or has no stream for us.
const PAUSE: Duration = Duration::from_millis(200);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogTail(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    gateway: Gateway,
    kept: Mutex<Kept>,
    grown: watch::Sender<()>,
}

/// All log documents from `begin` to `end`, but for positions that the log has not.
#[derive(Debug)]
struct Kept {
    followers: usize,
    is_read: bool,
    documents: VecDeque<Arc<LogEvent>>,
    bytes: usize,
    /// Whoever wants a position from here on finds it here; `None` before the end is known.
    begin: Option<Position>,
    end: Position,
    /// When MongoDB last said something.
    heard: Instant,
}

/// A log document, and the event of it in each format that somebody has asked for.
#[derive(Debug)]
pub struct LogEvent {
    pub position: Position,
    document: Document,
    bytes: usize,
    plain: OnceLock<Bytes>,
    canonical: OnceLock<Bytes>,
}

impl LogEvent {
    /// A page of the log, as it was read.
    pub fn page(page: Vec<(Document, usize)>) -> Vec<Self> {
        let events = page.into_iter().filter_map(|(document, bytes)| {
            Some(Self {
                position: Position(document.get_i64("_id").ok()?),
                document,
                bytes,
                plain: OnceLock::new(),
                canonical: OnceLock::new(),
            })
        });
        events.collect()
    }

    /// Adds the event to a frame.
    pub fn write(&self, format: Format, frame: &mut Frame) -> Result<(), Failure> {
        frame.event(Some(&self.position.0.to_string()), &self.document, format)
    }

    /// The event as it is sent, made once for all. `memory` is what it may take while it is made.
    fn text(&self, format: Format, memory: Reservation) -> Result<&Bytes, Failure> {
        let text = match format {
            Format::Plain => &self.plain,
            Format::Canonical | Format::Short => &self.canonical,
        };
        if let Some(text) = text.get() {
            return Ok(text);
        }
        let mut frame = Frame::new(memory);
        self.write(format, &mut frame)?;
        Ok(text.get_or_init(|| Bytes::copy_from_slice(&frame.into_bytes())))
    }
}

/// What is kept of the log from a position on.
#[derive(Debug)]
pub enum Look {
    /// The next documents.
    Here(Vec<Arc<LogEvent>>),
    /// The position is before what is kept, or it is not known yet what is.
    Behind,
    /// There is nothing from there on yet.
    AtEnd,
}

/// One who follows the log; while there is one, the log's end is read.
#[derive(Debug)]
pub struct Membership {
    tail: LogTail,
    grown: watch::Receiver<()>,
}

impl LogTail {
    pub fn new(gateway: Gateway) -> Self {
        Self(Arc::new(Shared {
            gateway,
            kept: Mutex::new(Kept::new()),
            grown: watch::Sender::new(()),
        }))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes part from now on.
    pub fn join(&self) -> Membership {
        let grown = self.0.grown.subscribe();
        let mut kept = self.kept();
        kept.followers += 1;
        if !kept.is_read {
            kept.is_read = true;
            kept.heard = Instant::now();
            tokio::spawn(self.clone().read());
        }
        drop(kept);
        Membership {
            tail: self.clone(),
            grown,
        }
    }

    /// Reads the log's end, until nobody follows any more.
    async fn read(self) {
        let mut wake = None;
        while self.is_wanted() {
            if let Err(failure) = self.read_on(&mut wake).await {
                debug!(%failure, "the log's end was not read");
                wake = None;
                sleep(PAUSE).await;
            }
        }
    }

    fn is_wanted(&self) -> bool {
        let mut kept = self.kept();
        if kept.followers == 0 {
            kept.is_read = false;
            kept.begin = None;
            kept.documents.clear();
            kept.bytes = 0;
        }
        kept.is_read
    }

    /// Waits until the log has grown, and reads on. The stream only wakes: what is said is what a
    /// look at the log finds, position after position.
    async fn read_on(&self, wake: &mut Option<LogWake>) -> Result<(), Failure> {
        let gateway = &self.0.gateway;
        let grown_to = match wake {
            Some(wake) => wake.next().await?,
            None => {
                *wake = Some(gateway.log_wake().await?);
                None
            }
        };
        let (begin, mut end) = {
            let kept = self.kept();
            (kept.begin, kept.end)
        };
        if begin.is_none() {
            end = gateway.log_end().await?;
            self.kept().begin_after(end);
            self.0.grown.send_replace(());
        }
        loop {
            let page = LogEvent::page(gateway.log_page(end.next()).await?);
            // Only a log that can be read is heard of.
            self.kept().heard = Instant::now();
            let Some(last) = page.last() else {
                return Ok(());
            };
            end = last.position;
            self.kept().push(page);
            self.0.grown.send_replace(());
            if grown_to.is_some_and(|to| to <= end) {
                return Ok(());
            }
        }
    }
}

impl Kept {
    fn new() -> Self {
        Self {
            followers: 0,
            is_read: false,
            documents: VecDeque::new(),
            bytes: 0,
            begin: None,
            end: Position::ZERO,
            heard: Instant::now(),
        }
    }

    fn begin_after(&mut self, end: Position) {
        self.begin = Some(end.next());
        self.end = end;
    }

    fn push(&mut self, page: Vec<LogEvent>) {
        for event in page {
            self.end = event.position;
            self.bytes += event.bytes;
            self.documents.push_back(Arc::new(event));
        }
        while self.bytes > LOG_KEPT_BYTES_MAX
            && let Some(oldest) = self.documents.pop_front()
        {
            self.bytes -= oldest.bytes;
            self.begin = Some(oldest.position.next());
        }
    }

    fn look(&self, from: Position) -> Look {
        if self.begin.is_none_or(|begin| from < begin) {
            return Look::Behind;
        }
        let at = self
            .documents
            .partition_point(|event| event.position < from);
        let mut bytes = 0;
        let next = self.documents.iter().skip(at).take_while(|event| {
            let fits = bytes < LOG_PAGE_BYTES_MAX;
            bytes += event.bytes;
            fits
        });
        match next.cloned().collect::<Vec<_>>() {
            next if next.is_empty() => Look::AtEnd,
            next => Look::Here(next),
        }
    }
}

impl Membership {
    /// What is kept from this position on.
    pub fn look(&mut self, from: Position) -> Look {
        self.grown.mark_unchanged();
        self.tail.kept().look(from)
    }

    /// Waits until something is new since the last look. Fails when MongoDB is silent for long.
    pub async fn grown(&mut self) -> Result<(), Failure> {
        loop {
            let silent_at = self.tail.kept().heard + STREAM_PATIENCE_MAX;
            tokio::select! {
                _ = self.grown.changed() => return Ok(()),
                () = tokio::time::sleep_until(silent_at) => {}
            }
            if self.tail.kept().heard.elapsed() >= STREAM_PATIENCE_MAX {
                return Err(Failure::Unavailable("it has been silent for long".into()));
            }
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.tail.kept().followers -= 1;
    }
}

/// Adds events that are kept to a frame.
pub fn write_kept(
    events: &[Arc<LogEvent>],
    format: Format,
    memory: &Reservation,
    frame: &mut Frame,
) -> Result<(), Failure> {
    events
        .iter()
        .try_for_each(|event| frame.written(event.text(format, memory.beside())?))
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    fn kept(end: i64) -> Kept {
        let mut kept = Kept::new();
        assert!(matches!(kept.look(Position(1)), Look::Behind));
        kept.begin_after(Position(end));
        kept
    }

    fn page(positions: impl IntoIterator<Item = i64>, bytes: usize) -> Vec<LogEvent> {
        let page = positions.into_iter().map(|at| (doc! {"_id": at}, bytes));
        LogEvent::page(page.collect())
    }

    fn positions(look: Look) -> Vec<i64> {
        match look {
            Look::Here(events) => events.iter().map(|event| event.position.0).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_finds_what_it_wants_next_or_that_it_is_behind() {
        let mut kept = kept(10);
        assert!(matches!(kept.look(Position(10)), Look::Behind));
        assert!(matches!(kept.look(Position(11)), Look::AtEnd));
        kept.push(page(11..=14, 1));
        assert_eq!(positions(kept.look(Position(11))), [11, 12, 13, 14]);
        assert_eq!(positions(kept.look(Position(14))), [14]);
        assert!(matches!(kept.look(Position(15)), Look::AtEnd));
        assert!(matches!(kept.look(Position(10)), Look::Behind));
    }

    #[test]
    fn what_is_kept_and_what_is_given_at_once_is_bounded() {
        let mut kept = kept(0);
        let quarter = LOG_KEPT_BYTES_MAX / 4;
        kept.push(page(1..=6, quarter));
        assert_eq!(kept.documents.len(), 4);
        assert!(matches!(kept.look(Position(2)), Look::Behind));
        assert_eq!(positions(kept.look(Position(3))), [3], "larger than a page");
    }
}
