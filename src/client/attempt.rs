//! One try of one request at one server, and what is known after it.

use std::error::Error as _;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::rotation::PATIENCE;
use super::wire::{self, Received};
use crate::model::Failure;
use crate::model::limits::REPLY_BYTES_MAX;

/// The most text one reply may have. Canonical Extended JSON takes up to six times its BSON.
const REPLY_TEXT_BYTES_MAX: usize = 6 * REPLY_BYTES_MAX;
/// The media type of a stream of events.
const EVENT_STREAM: &[u8] = b"text/event-stream";
/// The longest `Retry-After` that is believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// The result of a try.
#[derive(Debug)]
pub(super) enum Tried {
    /// The server has decided: asking again, here or elsewhere, would not change it.
    Definite(Received),
    /// It may be tried again with the same request id.
    Setback(Setback),
}

/// What came of asking for a stream.
#[derive(Debug)]
pub(super) enum Opened {
    Stream(Incoming),
    /// The server has decided against it, or does not know what a stream is.
    Answer(Received),
    /// Another try may succeed.
    Setback(Setback),
}

/// Why a try gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setback {
    pub(super) why: String,
    /// A server has spoken, so it can be reached.
    pub(super) reached: bool,
    /// The request may have been executed nevertheless.
    pub(super) may_be_done: bool,
    pub(super) retry_after: Option<Duration>,
}

impl Setback {
    /// The request never left.
    pub(super) fn unsent(why: String) -> Self {
        Self {
            why,
            reached: false,
            may_be_done: false,
            retry_after: None,
        }
    }

    fn lost(why: String) -> Self {
        Self {
            may_be_done: true,
            ..Self::unsent(why)
        }
    }
}

type Pool<C> = legacy::Client<C, Full<Bytes>>;

/// Connections to the servers, kept open between requests.
#[derive(Debug)]
pub(super) struct Connections {
    plain: Pool<HttpConnector>,
    /// Only if a server needs it: the root certificates take time to load.
    tls: Option<Pool<HttpsConnector<HttpConnector>>>,
}

impl Connections {
    pub(super) fn new(tls: bool, timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(PATIENCE.min(timeout / 2)));
        let pool = || legacy::Client::builder(TokioExecutor::new());
        Self {
            plain: pool().build(connector.clone()),
            tls: tls.then(|| pool().build(with_tls(connector))),
        }
    }

    pub(super) async fn attempt(&self, request: Request<Full<Bytes>>) -> Tried {
        match self.send(request).await {
            Ok(response) => Self::judged(response).await,
            Err(setback) => Tried::Setback(setback),
        }
    }

    /// Asks for a stream of events.
    pub(super) async fn open(&self, request: Request<Full<Bytes>>) -> Opened {
        let response = match self.send(request).await {
            Ok(response) => response,
            Err(setback) => return Opened::Setback(setback),
        };
        let kind = response.headers().get(CONTENT_TYPE);
        let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(EVENT_STREAM));
        if response.status() == StatusCode::OK && is_stream {
            return Opened::Stream(response.into_body());
        }
        match Self::judged(response).await {
            Tried::Definite(received) => Opened::Answer(received),
            Tried::Setback(setback) => Opened::Setback(setback),
        }
    }

    /// Sends a request; the body of the answer may be still to come.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Setback> {
        let tls = self
            .tls
            .as_ref()
            .filter(|_| request.uri().scheme_str() == Some("https"));
        let sent = match tls {
            Some(pool) => pool.request(request).await,
            None => self.plain.request(request).await,
        };
        sent.map_err(|error| match error.is_connect() {
            true => Setback::unsent(root_cause(&error)),
            false => Setback::lost(root_cause(&error)),
        })
    }

    async fn judged(response: Response<Incoming>) -> Tried {
        let (head, body) = response.into_parts();
        match Limited::new(body, REPLY_TEXT_BYTES_MAX).collect().await {
            Ok(body) => judge(head.status, &head.headers, body.to_bytes()),
            Err(error) => Tried::Setback(Setback::lost(format!("the answer broke off: {error}"))),
        }
    }
}

fn with_tls(mut connector: HttpConnector) -> HttpsConnector<HttpConnector> {
    connector.enforce_http(false);
    HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_only()
        .enable_http1()
        .wrap_connector(connector)
}

/// 429 and 503 say that nothing was done. Any other 5xx, 504 first of all, leaves that open.
fn judge(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Tried {
    let declined = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    let received = Received::new(status, headers, body);
    if !declined && !status.is_server_error() {
        return Tried::Definite(received);
    }
    let text = wire::refusal(&received)
        .map_or_else(|| received.status.to_string(), |(message, _)| message);
    Tried::Setback(Setback {
        why: format!("{}: {}", status.as_u16(), Failure::without_advice(&text)),
        reached: true,
        may_be_done: !declined,
        retry_after: (status == StatusCode::TOO_MANY_REQUESTS)
            .then(|| retry_after(headers))
            .flatten(),
    })
}

/// The form in seconds; nodes send no other.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// The innermost error says what happened; those around it say only that a request failed.
fn root_cause(error: &legacy::Error) -> String {
    let mut cause = error.source();
    while let Some(inner) = cause.and_then(|error| error.source()) {
        cause = Some(inner);
    }
    let text = cause.map_or_else(|| error.to_string(), ToString::to_string);
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, retry: Option<&'static str>, body: &'static str) -> Tried {
        let mut headers = HeaderMap::new();
        if let Some(retry) = retry {
            headers.insert(RETRY_AFTER, retry.parse().unwrap());
        }
        judge(
            StatusCode::from_u16(status).unwrap(),
            &headers,
            Bytes::from_static(body.as_bytes()),
        )
    }

    #[test]
    fn a_definite_answer_ends_the_tries() {
        for status in [200, 201, 302, 400, 401, 404, 413, 422] {
            assert!(
                matches!(judged(status, None, ""), Tried::Definite(_)),
                "{status}"
            );
        }
    }

    #[test]
    fn other_answers_say_whether_it_may_be_done() {
        for (status, may_be_done) in [
            (429, false),
            (503, false),
            (500, true),
            (502, true),
            (504, true),
        ] {
            let Tried::Setback(setback) = judged(
                status,
                Some("2"),
                r#"{"error": "no coordinator; this try did nothing, try again"}"#,
            ) else {
                panic!("{status} ended the tries")
            };
            assert_eq!(setback.may_be_done, may_be_done, "{status}");
            assert_eq!(setback.why, format!("{status}: no coordinator"));
            assert_eq!(setback.retry_after.is_some(), status == 429);
        }
    }

    #[test]
    fn retry_after_is_bounded() {
        let Tried::Setback(setback) = judged(429, Some("999999"), "") else {
            panic!("429 ended the tries")
        };
        assert_eq!(setback.retry_after, Some(RETRY_AFTER_MAX));
    }
}
