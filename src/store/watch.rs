//! Streams of changes: those of one collection, and what wakes whoever follows the log.
//!
//! A stream goes on by itself where a member is lost. Never decides who gets what it says.

use std::time::Duration;

use bson::{Bson, Document, RawDocument, Timestamp, doc};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::capture::{Batch, Rows, Setback, Source, time_of};
use super::codes::{CHANGE_STREAM_FATAL, CHANGE_STREAM_HISTORY_LOST, INVALID_RESUME_TOKEN};
use super::error::StoreError;
use super::schema::{DATABASE, LOG};
use super::stored::whole;
use super::{CALL_MAX, Store};
use crate::model::limits::{STREAM_PATIENCE_MAX, WATCHES_MAX};
use crate::model::{Failure, Namespace, Position};

/// One call of each watch, one that it has left to its own end, one of the log, and looks for where
/// to begin.
pub(super) const CALLS_MAX: usize = 2 * WATCHES_MAX + 8;
/// How long MongoDB waits for a change before it says that there is none.
const CHANGE_WAIT_MAX: Duration = Duration::from_secs(1);
/// It has said so by then, or is silent.
const ANSWER_MAX: Duration = CHANGE_WAIT_MAX.saturating_add(CALL_MAX);
/// The pause before a stream is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
/// The longest id of an event. It holds the document's `_id`, and is sent back in a header.
const TOKEN_CHARS_MAX: usize = 16 << 10;
/// The field of an event that holds the counter of its write's stamp.
const STAMP: &str = "stamp";

/// What is watched.
#[derive(Debug, Clone)]
pub struct Watched {
    pub namespace: Namespace,
    /// Checked by [`crate::model::policy::check_watch`].
    pub pipeline: Vec<Document>,
    /// Changes with this stamp or an earlier one are left out: those of one batch do not come
    /// strictly in the order of their stamps.
    pub above: Option<i64>,
}

impl Watched {
    /// What another program writes may carry an old stamp: only changes of the batch that holds the
    /// stamp are judged by theirs. Those have one time, and the stream begins with it.
    fn stages(&self, since: &Since) -> Vec<Document> {
        let above = self.above.zip(since.time()).map(|(stamp, time)| {
            let before = doc! { STAMP: {"$lte": stamp}, "clusterTime": {"$lte": time} };
            doc! { "$match": {"$nor": [before]} }
        });
        let own = [stamp_stage()].into_iter().chain(above);
        own.chain(self.pipeline.iter().cloned()).collect()
    }
}

/// Where a stream begins.
#[derive(Debug, Clone, PartialEq)]
pub enum Since {
    Now,
    /// After the event with this id.
    Event(String),
    /// After the write with this stamp.
    Stamp(i64),
    /// With the changes of this cluster time.
    Time(Timestamp),
    /// With those of this cluster time that come after this event, whether or not the pipeline lets
    /// it through: MongoDB takes an event that it does not for one that is lost.
    Inside(Timestamp, String),
}

impl Since {
    /// The cluster time at which the stream begins, if it is known.
    fn time(&self) -> Option<Timestamp> {
        match self {
            Self::Now | Self::Stamp(_) => None,
            Self::Time(time) | Self::Inside(time, _) => Some(*time),
            Self::Event(id) => time_of(&doc! { "_data": id }.to_vec().ok()?),
        }
    }

    /// Whether this event comes later. The texts of tokens are in the order of the events.
    fn is_before(&self, event: &str) -> bool {
        match self {
            Self::Event(id) | Self::Inside(_, id) => id.as_str() < event,
            Self::Now | Self::Stamp(_) | Self::Time(_) => true,
        }
    }

    /// After the event with this id.
    pub fn event(id: &str) -> Result<Self, Failure> {
        let is_token = |id: &str| id.bytes().all(|b| b.is_ascii_hexdigit()) && !id.is_empty();
        match id.len() <= TOKEN_CHARS_MAX && is_token(id) {
            true => Ok(Self::Event(id.to_owned())),
            false => Err(Failure::Invalid(
                "Last-Event-ID is no id of an event of this stream".into(),
            )),
        }
    }
}

/// The stream of a collection's changes.
#[derive(Debug)]
pub struct Changes {
    store: Store,
    watched: Watched,
    since: Since,
    rows: Option<Rows>,
    /// When MongoDB last answered.
    answered: Instant,
}

/// Changes that came together; none, if there were none for a second.
#[derive(Debug)]
pub struct Heard {
    batch: Option<Batch>,
    /// Resume after this one if all of them were taken in.
    pub through: Option<String>,
}

impl Heard {
    /// Each change with its id, as it is read.
    pub fn changes(&self) -> Result<impl Iterator<Item = (Option<String>, Document)>, Failure> {
        let documents = self.batch.as_ref().map_or(Ok(Vec::new()), Batch::documents);
        let documents = documents.map_err(StoreError::into_failure)?;
        Ok(documents.into_iter().filter_map(|bytes| {
            let raw = RawDocument::from_bytes(bytes).ok()?;
            Some((id_of(raw.get_document("_id").ok()), readable(raw)))
        }))
    }
}

/// The text of a resume token.
fn text_of(token: Option<&RawDocument>) -> Option<String> {
    Some(token?.get_str("_data").ok()?.to_owned())
}

/// `None` for one that no header could hold.
fn id_of(token: Option<&RawDocument>) -> Option<String> {
    text_of(token).filter(|text| text.len() <= TOKEN_CHARS_MAX)
}

/// An event as it is. A part that holds text which is not UTF-8 is left out and named.
fn readable(raw: &RawDocument) -> Document {
    whole(raw).unwrap_or_else(|_| {
        let mut event = Document::new();
        let mut left_out = Vec::new();
        for element in raw.iter_elements().flatten() {
            let key = element.key().as_str();
            let value = match element.value() {
                Ok(bson::RawBsonRef::Document(inner)) => whole(inner).map(Bson::Document).ok(),
                Ok(value) => value.try_into().ok(),
                Err(_) => None,
            };
            match value {
                Some(value) => drop(event.insert(key, value)),
                None => left_out.push(key.to_owned()),
            }
        }
        event.insert("unreadable", left_out);
        event
    })
}

impl Store {
    /// Opens the stream, so that a request that cannot be served is refused before it begins.
    pub async fn watch(&self, watched: Watched, since: Since) -> Result<Changes, Failure> {
        let since = match since {
            Since::Stamp(stamp) => self.after_stamp(&watched.namespace, stamp).await?,
            other => other,
        };
        let mut changes = Changes {
            store: self.clone(),
            watched,
            since,
            rows: None,
            answered: Instant::now(),
        };
        changes.rows = Some(changes.until_open().await?);
        Ok(changes)
    }

    /// Opens a stream that says when the log has grown.
    pub async fn log_wake(&self) -> Result<LogWake, StoreError> {
        let stages = [
            doc! { "$match": {"operationType": "insert"} },
            doc! { "$project": {"documentKey": 1} },
        ];
        let rows = self.stream(DATABASE, LOG, &Since::Now, &stages).await?;
        Ok(LogWake {
            store: self.clone(),
            rows,
        })
    }

    pub(super) async fn stream(
        &self,
        database: &str,
        collection: &str,
        since: &Since,
        stages: &[Document],
    ) -> Result<Rows, StoreError> {
        let options = match since {
            Since::Now | Since::Stamp(_) => Document::new(),
            // Other than `resumeAfter`, it goes on after an invalidation too.
            Since::Event(id) => doc! { "startAfter": {"_data": id} },
            Since::Time(time) | Since::Inside(time, _) => doc! { "startAtOperationTime": time },
        };
        let mut pipeline = vec![doc! { "$changeStream": options }];
        if let Since::Inside(_, id) = since {
            // Their texts are in the order of the events.
            pipeline.push(doc! { "$match": {"_id._data": {"$gt": id}} });
        }
        pipeline.extend_from_slice(stages);
        let aggregate = doc! {
            "aggregate": collection, "pipeline": pipeline, "cursor": {},
            "readConcern": {"level": "majority"},
        };
        let source = Source {
            gate: self.streams.clone(),
        };
        let open = source.open(database, aggregate, Some(CHANGE_WAIT_MAX));
        self.answered(open).await
    }

    pub(super) async fn heard(&self, rows: &mut Rows) -> Result<Option<Batch>, StoreError> {
        self.answered(rows.next()).await
    }

    /// A stream's call, unless its member is silent or not primary any more. The call comes to its
    /// own end, and its cursor with it.
    async fn answered<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let call = timeout(ANSWER_MAX, self.primary.lasting(call));
        call.await.map_err(|_| StoreError::TimedOut(ANSWER_MAX))??
    }
}

/// The stamp of an event's write, where the event tells it. An update tells it by what it has
/// changed, which may be the counter alone. A deletion leaves no document to carry it.
pub(super) fn stamp_stage() -> Document {
    let part = doc! {
        "$getField": {"field": "_stamp.t", "input": "$updateDescription.updatedFields"},
    };
    let of_update = "$updateDescription.updatedFields._stamp.t";
    let found = vec![
        Bson::from("$fullDocument._stamp.t"),
        of_update.into(),
        part.into(),
        "$$REMOVE".into(),
    ];
    doc! { "$addFields": {STAMP: {"$ifNull": found}} }
}

impl Changes {
    /// The next changes. Waits through the loss of a member; no longer than
    /// [`STREAM_PATIENCE_MAX`] without an answer.
    pub async fn next(&mut self) -> Result<Heard, Failure> {
        let mut rows = self.until_open().await?;
        let batch = match self.store.heard(&mut rows).await {
            Ok(Some(batch)) => {
                self.rows = Some(rows);
                self.answered = Instant::now();
                Some(batch)
            }
            // The collection is gone: the stream goes on with the next of its name.
            Ok(None) => None,
            Err(error) => {
                debug!(%error, "a stream of changes broke off");
                if self.answered.elapsed() >= STREAM_PATIENCE_MAX {
                    return Err(error.into_failure());
                }
                self.judge(error).await?;
                None
            }
        };
        if batch.is_none() {
            self.store.pause(REOPEN_PAUSE).await;
        }
        let token = batch.as_ref().and_then(Batch::token);
        let token = token.and_then(|token| RawDocument::from_bytes(token).ok());
        // One that stands before where the stream began would lead back.
        let text = text_of(token).filter(|text| self.since.is_before(text));
        if let Some(id) = &text {
            self.since = Since::Event(id.clone());
        }
        let through = text.filter(|text| text.len() <= TOKEN_CHARS_MAX);
        Ok(Heard { batch, through })
    }

    /// Opens the stream where it was, if it is not open.
    async fn until_open(&mut self) -> Result<Rows, Failure> {
        if let Some(rows) = self.rows.take() {
            return Ok(rows);
        }
        let until = Instant::now() + STREAM_PATIENCE_MAX;
        let namespace = self.watched.namespace.clone();
        loop {
            let (database, collection) = (namespace.database(), namespace.collection());
            let stages = self.watched.stages(&self.since);
            let open = self
                .store
                .stream(database, collection, &self.since, &stages);
            let error = match open.await {
                Ok(rows) => return Ok(rows),
                Err(error) => error,
            };
            debug!(%error, "a stream of changes cannot be opened");
            if Instant::now() >= until {
                return Err(error.into_failure());
            }
            self.judge(error).await?;
            self.store.pause(REOPEN_PAUSE).await;
        }
    }

    /// Whether another try may help.
    async fn judge(&mut self, error: StoreError) -> Result<(), Failure> {
        match error.code() {
            Some(CHANGE_STREAM_HISTORY_LOST) => Err(self.store.gone().await),
            Some(INVALID_RESUME_TOKEN) => Since::event("").map(drop),
            Some(CHANGE_STREAM_FATAL) if self.goes_on_by_time() => Ok(()),
            _ => match Setback::of(&error) {
                Setback::Reopen | Setback::Later | Setback::Moved => Ok(()),
                Setback::TooLarge => Err(Failure::TooLarge(
                    "the next change is larger than MongoDB can send: leave its large fields out \
                     with $project or $unset in the pipeline, or begin after it"
                        .into(),
                )),
                Setback::Lost | Setback::Fatal => Err(error.into_failure()),
            },
        }
    }

    /// Goes on after the same event by its time, if it has not been tried.
    fn goes_on_by_time(&mut self) -> bool {
        let Since::Event(id) = &self.since else {
            return false;
        };
        let Some(time) = self.since.time() else {
            return false;
        };
        self.since = Since::Inside(time, id.clone());
        true
    }
}

/// Says when the log has grown.
#[derive(Debug)]
pub struct LogWake {
    store: Store,
    rows: Rows,
}

impl LogWake {
    /// Waits until it has, for about a second at most. Where it has come to, if that is known. After
    /// an error the stream is at its end.
    pub async fn next(&mut self) -> Result<Option<Position>, StoreError> {
        let batch = self.store.heard(&mut self.rows).await?;
        let batch =
            batch.ok_or_else(|| StoreError::Unavailable("the log's stream has ended".into()))?;
        let last = batch.documents()?.last().copied().map(<[u8]>::to_vec);
        let position = |event: Vec<u8>| {
            let event = RawDocument::from_bytes(&event).ok()?;
            event.get_document("documentKey").ok()?.get_i64("_id").ok()
        };
        Ok(last.and_then(position).map(Position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_hexadecimal_and_short_enough_for_a_header() {
        assert_eq!(Since::event("82Af"), Ok(Since::Event("82Af".into())));
        let long = "8".repeat(TOKEN_CHARS_MAX + 1);
        for wrong in ["", "82 ", "x", "{\"_data\":1}", long.as_str()] {
            assert!(Since::event(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_stream_does_not_go_back_to_before_its_beginning() {
        let event = "826B0AF187000000232B022C01002B046E5A1004".to_owned();
        let time = Timestamp {
            time: 0x6B0A_F187,
            increment: 0x23,
        };
        let inside = Since::Inside(time, event.clone());
        for (id, later) in [
            // What MongoDB gives when it has looked through the oplog up to that time.
            ("826B0AF187000000232B0229296E04", false),
            (event.as_str(), false),
            ("826B0AF187000000232B022C01002B066E5A1004", true),
            ("826B0AF187000000242B0229296E04", true),
        ] {
            assert_eq!(inside.is_before(id), later, "{id}");
            assert_eq!(Since::Event(event.clone()).is_before(id), later, "{id}");
        }
        assert!(Since::Now.is_before("82"));
    }

    #[test]
    fn an_event_with_text_that_is_none_is_shown_without_it() {
        let event = doc! {"operationType": "insert", "fullDocument": {"a": "xx"}};
        let mut bytes = event.to_vec().unwrap();
        let at = bytes.windows(3).position(|part| part == b"xx\0").unwrap();
        bytes[at] = 0xff;
        let event = readable(RawDocument::from_bytes(&bytes).unwrap());
        assert_eq!(
            event,
            doc! {"operationType": "insert", "unreadable": ["fullDocument"]}
        );
    }
}
