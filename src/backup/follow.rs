//! The events after the base: one stream over the whole deployment, cut into segments.
//!
//! A segment ends where a transaction ends: events of one cluster time are never in two of them. So
//! every batch of Drumline is whole in a backup, or not in it at all.

use std::time::Duration;

use super::Report;
use super::error::Error;
use super::event::{Event, LogEntry, is_left_out, kept};
use super::folder::{Folder, name_of};
use super::frame::Writer;
use super::manifest::{Base, Manifest, Mark, Segment, Time};
use super::patience::Patience;
use super::raw;
use crate::model::{hex, unhex};
use crate::store::{Batch, Rows, Setback, Source, Start, StoreError, time_of};

/// A segment ends with the transaction that passes this size.
const SEGMENT_USUAL: u64 = 64 << 20;
/// How long MongoDB waits for an event before it says that there is none.
const WAIT: Duration = Duration::from_millis(200);

/// Follows a deployment's events.
#[derive(Debug)]
pub struct Follower<'a> {
    source: &'a Source,
    rows: Option<Rows>,
    /// Everything up to here has been read.
    seen: Option<Vec<u8>>,
    begin: Time,
    open: Option<Open>,
    /// The point that the events read so far lead to, and the token behind its last one.
    last: Mark,
    last_token: Option<Vec<u8>>,
    /// The log's last position, if any is known.
    position: Option<i64>,
}

/// How far to read.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    pub time: Time,
    /// No change which was made by this time is after that, in milliseconds since 1970; 0 if that is
    /// not known.
    pub wall: i64,
}

/// A segment that is being written.
#[derive(Debug)]
struct Open {
    writer: Writer,
    first: Time,
}

impl<'a> Follower<'a> {
    /// Goes on where a base ends.
    pub fn after(source: &'a Source, base: &Base) -> Result<Self, Error> {
        let token = base.token.as_deref().map(token_of).transpose()?;
        Ok(Self {
            source,
            rows: None,
            seen: token.clone(),
            begin: base.from,
            open: None,
            last: base.last(),
            last_token: token,
            position: Some(base.last().position).filter(|position| *position > 0),
        })
    }

    /// Takes in everything up to a cluster time and ends the segment there. The manifest is saved
    /// if there was anything.
    pub async fn catch_up(
        &mut self,
        goal: Goal,
        folder: &Folder,
        manifest: &mut Manifest,
        report: Report<'_>,
    ) -> Result<u64, Error> {
        let mut events = 0;
        loop {
            let batch = self.next(report).await?;
            let documents = batch.documents()?;
            let mut reached = documents.is_empty()
                && batch
                    .token()
                    .and_then(time_of)
                    .is_some_and(|time| Time::from(time) >= goal.time);
            for document in &documents {
                let event = Event::read(document)?;
                let begins_another = event.time != self.last.time;
                if begins_another && event.time > goal.time && self.last.time != Time::default() {
                    reached = true;
                    break;
                }
                let large = self.open.as_ref();
                let large = large.is_some_and(|open| open.writer.raw_bytes() >= SEGMENT_USUAL);
                if large && begins_another {
                    events += self.end(folder, manifest)?;
                }
                self.take(document, &event, folder, manifest)?;
            }
            if reached {
                // What was read beyond the goal is read again by the next run.
                if !documents.is_empty() {
                    self.rows = None;
                    self.seen.clone_from(&self.last_token);
                    self.pass(goal.time, goal.wall);
                } else if let Some(token) = batch.token() {
                    self.seen = Some(token.to_vec());
                    self.last_token.clone_from(&self.seen);
                    let time = time_of(token).map_or(self.last.time, Time::from);
                    self.pass(time, goal.wall);
                }
                return Ok(events + self.end(folder, manifest)?);
            }
        }
    }

    /// Nothing has happened up to this time: the state there is that after the last event.
    fn pass(&mut self, time: Time, wall: i64) {
        self.last.time = self.last.time.max(time);
        self.last.wall = self.last.wall.max(wall);
    }

    async fn next(&mut self, report: Report<'_>) -> Result<Batch, Error> {
        let patience = Patience::from_now();
        loop {
            let error = match self.try_next().await {
                Ok(batch) => return Ok(batch),
                Err(error) => error,
            };
            self.rows = None;
            match Setback::of(&error) {
                Setback::Lost => return Err(self.lost()),
                Setback::TooLarge => return Err(self.too_large()),
                _ => {}
            }
            let why = error.to_string();
            patience.rest(error).await?;
            report(&format!("the stream of events is opened again: {why}"));
        }
    }

    async fn try_next(&mut self) -> Result<Batch, StoreError> {
        let rows = match &mut self.rows {
            Some(rows) => rows,
            None => {
                let start = match &self.seen {
                    Some(token) => Start::After(token),
                    None => Start::At(self.begin.into()),
                };
                let rows = self.source.changes(start, WAIT).await?;
                self.rows.insert(rows)
            }
        };
        let ended = || StoreError::Unavailable("the stream of events has ended".into());
        rows.next().await?.ok_or_else(ended)
    }

    fn take(
        &mut self,
        document: &[u8],
        event: &Event<'_>,
        folder: &Folder,
        manifest: &Manifest,
    ) -> Result<(), Error> {
        let token = raw::find(document, "_id").and_then(|token| token.document());
        let token = token.ok_or_else(|| Error::damaged("an event", "it has no token"))?;
        // The stream begins with the last changes that the base has already.
        let is_in_base = event.time <= self.begin;
        let left_out = event.is_of_document() && is_left_out(event.database, event.collection);
        if !is_in_base && !left_out {
            if let Some(LogEntry { position, last, .. }) = event.log_entry() {
                self.check_position(position)?;
                (self.last.position, self.last.stamp) = (position, last);
                self.position = Some(position);
            }
            let open = match &mut self.open {
                Some(open) => open,
                None => {
                    let base = manifest.base.as_ref();
                    let number = base.map_or(1, |base| base.segments.count + 1);
                    let name = name_of(base.map_or(1, |base| base.number), 's', number);
                    let writer = Writer::create(folder.path(), name)?;
                    self.open.insert(Open {
                        writer,
                        first: event.time,
                    })
                }
            };
            open.writer.push(&kept(document)?)?;
        }
        self.last.time = event.time;
        self.last.wall = self.last.wall.max(event.wall);
        self.last_token = Some(token.to_vec());
        self.seen.clone_from(&self.last_token);
        Ok(())
    }

    /// The log's positions follow on one another (I1).
    fn check_position(&self, position: i64) -> Result<(), Error> {
        let Some(last) = self.position else {
            return Ok(());
        };
        if position == last + 1 {
            return Ok(());
        }
        let what = match position <= last {
            true => format!("the log goes back: position {position} comes after position {last}"),
            false => format!(
                "positions {} to {} of the log are missing: position {position} comes after {last}",
                last + 1,
                position - 1
            ),
        };
        Err(Error::Lost(format!(
            "{what}. Somebody has changed it. What the backup holds up to there stays as it is; \
             --new-base begins a new base beside it"
        )))
    }

    /// Ends the segment, and has the manifest name it. Gives its number of events.
    fn end(&mut self, folder: &Folder, manifest: &mut Manifest) -> Result<u64, Error> {
        let Some(base) = &mut manifest.base else {
            return Ok(0);
        };
        let (mut events, last) = (0, self.last);
        if let Some(Open { writer, first }) = self.open.take() {
            events = writer.documents();
            let segment = Segment {
                file: writer.finish()?,
                first,
                last: last.time,
                end: last,
            };
            let number = base.number;
            let name = |chapter| name_of(number, 'c', chapter);
            base.segments.push(segment, folder.path(), name)?;
        } else if base.is_whole() && !is_worth_saving(&base.end, &last) {
            return Ok(0);
        }
        base.end = last;
        base.token = self.last_token.as_deref().map(hex);
        folder.save(manifest)?;
        Ok(events)
    }

    /// Has the manifest say how far was read, also if nothing had happened: a point in time up to
    /// there can be restored.
    pub fn save_end(&self, folder: &Folder, manifest: &mut Manifest) -> Result<(), Error> {
        let Some(base) = &mut manifest.base else {
            return Ok(());
        };
        if base.end == self.last {
            return Ok(());
        }
        base.end = self.last;
        base.token = self.last_token.as_deref().map(hex);
        folder.save(manifest)
    }

    fn lost(&self) -> Error {
        Error::Lost(format!(
            "MongoDB's oplog does not reach back to the end of the backup: what happened after \
             cluster time {} ({}, position {}) is lost to it. What it holds up to there can be \
             restored; --new-base begins a new base beside it. Run more often, or make the oplog \
             larger",
            self.last.time,
            text_of(self.last.wall),
            self.last.position
        ))
    }

    fn too_large(&self) -> Error {
        Error::Lost(format!(
            "a change after cluster time {} is larger than the 16 MiB that MongoDB can tell at once: \
             the backup ends there. --new-base begins a new base beside it",
            self.last.time
        ))
    }
}

/// Without events the token is renewed from time to time, so that the oplog does not run away from
/// it.
const TOKEN_AGE_MAX: u32 = 600;

fn is_worth_saving(saved: &Mark, last: &Mark) -> bool {
    last.time.0.saturating_sub(saved.time.0) >= TOKEN_AGE_MAX
}

/// A time for people.
pub fn text_of(wall: i64) -> String {
    let at = bson::DateTime::from_millis(wall);
    at.try_to_rfc3339_string()
        .unwrap_or_else(|_| wall.to_string())
}

/// A token, or a key, from its text in the manifest.
pub fn token_of(text: &str) -> Result<Vec<u8>, Error> {
    unhex(text)
        .ok_or_else(|| Error::damaged("the manifest", "a token in it is no hexadecimal number"))
}
