//! Server-sent events: how they are written, and what all streams of them have in common.
//!
//! Never decides what is said. Who takes no events slows only itself: a stream asks for more when
//! the last have gone out.

use std::convert::Infallible;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use bson::Document;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use super::encode::no_room;
use super::error::Problem;
use super::metered::MeteredBuffer;
use crate::budget::{Budget, Reservation};
use crate::ejson::{Fields, Format};
use crate::model::Failure;
use crate::model::limits::{
    LOG_FOLLOWERS_MAX, LOG_PAGES_MAX, STREAM_BEAT, STREAM_BYTES_MAX, WATCHES_MAX,
};

/// The media type of a stream.
pub const EVENT_STREAM: &str = "text/event-stream";
/// What a client has seen last.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// A proxy that keeps replies back until they are long would keep events from their clients.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");
/// A comment: the stream lives. It comes first too, so that the head goes out.
const BEAT: Bytes = Bytes::from_static(b":\n\n");
const LEAVING: Bytes = Bytes::from_static(b": this node stops; go on at another one\n\n");

/// The streams of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Streams {
    followers: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    pages: Arc<Semaphore>,
    bytes: Budget,
    leaving: Arc<watch::Sender<bool>>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            followers: Arc::new(Semaphore::new(LOG_FOLLOWERS_MAX)),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            pages: Arc::new(Semaphore::new(LOG_PAGES_MAX)),
            bytes: Budget::new(STREAM_BYTES_MAX),
            leaving: Arc::new(watch::Sender::new(false)),
        }
    }
}

/// One stream's place, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    leaving: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl Streams {
    /// A place for one more who follows the log.
    pub fn follow(&self) -> Result<Seat, Failure> {
        self.seat(&self.followers)
    }

    /// A place for one more watch.
    pub fn watch(&self) -> Result<Seat, Failure> {
        self.seat(&self.watches)
    }

    fn seat(&self, places: &Arc<Semaphore>) -> Result<Seat, Failure> {
        let leaving = self.leaving.subscribe();
        let permit = Arc::clone(places).try_acquire_owned();
        match permit {
            Ok(permit) if !*leaving.borrow() => Ok(Seat {
                leaving,
                _permit: permit,
            }),
            _ => Err(Failure::Busy),
        }
    }

    /// A turn to read a page of the log. Those who wait are bounded: they have places.
    pub async fn page_turn(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let turn = Arc::clone(&self.pages).acquire_owned();
        turn.await.map_err(|_| Failure::Busy) // it is never closed
    }

    /// Memory for what is sent next.
    pub fn memory(&self) -> Reservation {
        self.bytes.open()
    }

    /// Ends all streams, and begins no more: this node stops.
    pub fn end(&self) {
        self.leaving.send_replace(true);
    }
}

/// Whether a client asks for a stream.
pub fn are_wanted(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let mut kinds = texts.flat_map(|text| text.split(','));
    kinds.any(|kind| {
        let essence = kind.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case(EVENT_STREAM)
    })
}

/// What the client has seen last, if it says so.
pub fn last_seen(headers: &HeaderMap) -> Result<Option<&str>, Failure> {
    let wrong =
        || Failure::Invalid("the header Last-Event-ID is there twice, or is no text".into());
    let mut values = headers.get_all(LAST_EVENT_ID).iter();
    let first = values
        .next()
        .map(|value| value.to_str().map_err(|_| wrong()));
    match values.next() {
        Some(_) => Err(wrong()),
        None => Ok(first.transpose()?.filter(|id| !id.is_empty())),
    }
}

/// Events that are sent together.
#[derive(Debug)]
pub struct Frame(MeteredBuffer);

impl Frame {
    pub fn new(memory: Reservation) -> Self {
        Self(MeteredBuffer::new(memory))
    }

    /// One event. Its JSON is one line.
    pub fn event(
        &mut self,
        id: Option<&str>,
        document: &Document,
        format: Format,
    ) -> Result<(), Failure> {
        if let Some(id) = id {
            writeln!(self.0, "id: {id}").map_err(no_room)?;
        }
        self.0.write_all(b"data: ").map_err(no_room)?;
        serde_json::to_writer(&mut self.0, &Fields(document, format))
            .map_err(|error| no_room(error.into()))?;
        self.0.write_all(b"\n\n").map_err(no_room)
    }

    /// Events that are written already.
    pub fn written(&mut self, events: &[u8]) -> Result<(), Failure> {
        self.0.write_all(events).map_err(no_room)
    }

    /// An id without an event: the client resumes after it.
    pub fn seen(&mut self, id: &str) -> Result<(), Failure> {
        write!(self.0, "id: {id}\n\n").map_err(no_room)
    }

    pub fn into_bytes(self) -> Bytes {
        self.0.into_bytes()
    }
}

/// An event that tells why the stream ends here.
fn cut(failure: Failure) -> Bytes {
    let why = Problem::from(failure).to_json();
    [b"event: cut\ndata: ".as_slice(), &why, b"\n\n"]
        .concat()
        .into()
}

/// What a stream says, piece after piece.
pub trait Speech: Sized + Send + 'static {
    /// Waits for what is to be said next. An error ends the stream.
    fn next(self) -> impl Future<Output = (Self, Result<Bytes, Failure>)> + Send;
}

/// A speech that is at work on what it says next.
type Working<S> = Pin<Box<dyn Future<Output = (S, Result<Bytes, Failure>)> + Send>>;

/// A stream under way. Its work is never dropped for a sign of life.
struct Running<S> {
    seat: Seat,
    speech: Option<S>,
    working: Option<Working<S>>,
    is_over: bool,
}

impl<S: Speech> Running<S> {
    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        if let Some(speech) = self.speech.take() {
            self.working = Some(Box::pin(speech.next()));
        }
        let working = self.working.as_mut()?;
        let leaving = self.seat.leaving.wait_for(|leaving| *leaving);
        let spoken = tokio::select! {
            biased;
            _ = leaving => {
                self.is_over = true;
                return Some(LEAVING);
            }
            spoken = timeout(STREAM_BEAT, working) => spoken,
        };
        match spoken {
            Err(_) => Some(BEAT),
            Ok((speech, Ok(said))) => {
                self.working = None;
                self.speech = Some(speech);
                Some(said)
            }
            Ok((_, Err(failure))) => {
                self.is_over = true;
                Some(cut(failure))
            }
        }
    }
}

/// The reply that is a stream: `first`, and then whatever is said.
pub fn reply<S: Speech>(seat: Seat, first: Bytes, speech: S) -> Response {
    let running = Running {
        seat,
        speech: Some(speech),
        working: None,
        is_over: false,
    };
    let begin = Some(if first.is_empty() { BEAT } else { first });
    let pieces = stream::unfold((begin, running), |(begin, mut running)| async move {
        let piece = match begin {
            Some(first) => first,
            None => running.next().await?,
        };
        Some((Ok::<_, Infallible>(piece), (None, running)))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    for (name, value) in [
        (CONTENT_TYPE, EVENT_STREAM),
        (CACHE_CONTROL, "no-store"),
        (UNBUFFERED, "no"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use bson::doc;
    use http_body_util::BodyExt as _;

    use super::*;

    /// Says these pieces, and is silent then.
    struct Pieces(Vec<Result<Bytes, Failure>>);

    impl Speech for Pieces {
        async fn next(mut self) -> (Self, Result<Bytes, Failure>) {
            match self.0.is_empty() {
                true => std::future::pending().await,
                false => {
                    let piece = self.0.remove(0);
                    (self, piece)
                }
            }
        }
    }

    #[tokio::test]
    async fn a_stream_ends_with_the_reason_or_with_the_node() {
        let streams = Streams::default();
        let said = vec![Ok("a\n\n".into()), Err(Failure::Busy)];
        let body = reply(streams.watch().unwrap(), "first\n\n".into(), Pieces(said)).into_body();
        let text = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&text);
        assert!(
            text.starts_with("first\n\na\n\nevent: cut\ndata: {\"error\":\""),
            "{text}"
        );
        assert!(
            text.ends_with("}\n\n") && text.contains("TooManyRequests"),
            "{text}"
        );

        let open = reply(streams.follow().unwrap(), Bytes::new(), Pieces(Vec::new())).into_body();
        let ended = tokio::spawn(open.collect());
        streams.end();
        let text = ended.await.unwrap().unwrap().to_bytes();
        assert_eq!(text, [BEAT, LEAVING].concat());
        assert!(streams.follow().is_err(), "the node stops");
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let streams = Streams::default();
        let mut seats: Vec<_> = (0..WATCHES_MAX).map(|_| streams.watch().unwrap()).collect();
        assert_eq!(streams.watch().unwrap_err(), Failure::Busy);
        assert!(streams.follow().is_ok(), "they are others");
        seats.pop();
        assert!(streams.watch().is_ok());
    }

    #[test]
    fn an_event_is_one_line_of_data_whatever_it_holds() {
        let mut frame = Frame::new(Streams::default().memory());
        let document = doc! {"a": "x\ny\r\u{2028}"};
        frame.event(Some("7"), &document, Format::Plain).unwrap();
        frame.seen("8").unwrap();
        let bytes = frame.into_bytes();
        let text = std::str::from_utf8(&bytes).unwrap();
        assert_eq!(
            text,
            "id: 7\ndata: {\"a\":\"x\\ny\\r\u{2028}\"}\n\nid: 8\n\n"
        );
    }

    #[test]
    fn who_asks_for_a_stream_says_so() {
        let mut headers = HeaderMap::new();
        assert!(!are_wanted(&headers));
        let accept = "text/event-stream; q=1, application/ejson";
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        assert!(are_wanted(&headers));
        headers.insert(LAST_EVENT_ID, HeaderValue::from_static("7"));
        assert_eq!(last_seen(&headers), Ok(Some("7")));
        headers.append(LAST_EVENT_ID, HeaderValue::from_static("8"));
        assert!(last_seen(&headers).is_err());
    }
}
