//! The headers of a request and of its reply.

use std::fmt;
use std::str::FromStr;

use axum::http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::error::Problem;
use crate::ejson::Format;
use crate::model::{Consistency, Failure, NodeName, Position, RequestId, Stamp};
use crate::peer::REQUEST_HEADERS;

pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub const DRUMLINE_STAMP: HeaderName = HeaderName::from_static("drumline-stamp");
pub const DRUMLINE_READ: HeaderName = HeaderName::from_static("drumline-read");
pub const DRUMLINE_SHOW_STAMP: HeaderName = HeaderName::from_static("drumline-show-stamp");
pub const DRUMLINE_TOKEN: HeaderName = HeaderName::from_static("drumline-token");
pub const DRUMLINE_POSITION: HeaderName = HeaderName::from_static("drumline-position");
pub const DRUMLINE_COORDINATOR: HeaderName = HeaderName::from_static("drumline-coordinator");
pub const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What the headers of a request say beside its credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeaders {
    /// The id that the client gave the request.
    pub id: Option<RequestId>,
    /// The client's Lamport clock: the larger of its stamp and its token, 0 without either.
    pub clock: i64,
    pub consistency: Consistency,
    /// The format that the reply must have.
    pub reply: Format,
    /// Whether found documents show their stamps; `None` leaves it to the path.
    pub show_stamp: Option<bool>,
}

impl RequestHeaders {
    pub fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        check_content(headers)?;
        let stamp = one(headers, &DRUMLINE_STAMP)?.map_or(Ok(0), clock)?;
        let token = one(headers, &DRUMLINE_TOKEN)?
            .map(str::parse::<Token>)
            .transpose()?;
        Ok(Self {
            id: one(headers, &IDEMPOTENCY_KEY)?
                .map(request_id)
                .transpose()?,
            clock: token.map_or(stamp, |token| stamp.max(token.t)),
            consistency: one(headers, &DRUMLINE_READ)?
                .map_or(Ok(Consistency::default()), consistency)?,
            reply: reply_format(headers),
            show_stamp: one(headers, &DRUMLINE_SHOW_STAMP)?
                .map(show_stamp)
                .transpose()?,
        })
    }
}

/// The headers that a request keeps when it is passed on, its id, and what its path says of stamps:
/// it goes on by another path.
pub fn passed_on(headers: &HeaderMap, id: Option<&RequestId>, shows_stamp: bool) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in REQUEST_HEADERS {
        for value in headers.get_all(&name) {
            kept.append(name.clone(), value.clone());
        }
    }
    let shows_stamp = HeaderValue::from_static(if shows_stamp { "true" } else { "false" });
    kept.insert(DRUMLINE_SHOW_STAMP, shows_stamp);
    // In quotes: an id may have quotes of its own, and the reader takes one pair off.
    let id = id.and_then(|id| HeaderValue::from_str(&format!("\"{id}\"")).ok());
    kept.remove(IDEMPOTENCY_KEY);
    if let Some(id) = id {
        kept.insert(IDEMPOTENCY_KEY, id);
    }
    kept
}

/// The one value of a header. Two would leave open which counts.
pub(super) fn only<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h HeaderValue>, Failure> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    match values.next() {
        None => Ok(value),
        Some(_) => Err(Failure::Invalid(format!(
            "the header {name} is there twice"
        ))),
    }
}

/// The same as text.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Failure> {
    let Some(value) = only(headers, name)? else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(text) => Ok(Some(text.trim_ascii())),
        Err(_) => Err(Failure::Invalid(format!(
            "the header {name} holds characters other than visible ASCII"
        ))),
    }
}

/// Takes the id bare, or quoted as the IETF draft writes it; both name the same request.
fn request_id(text: &str) -> Result<RequestId, Failure> {
    RequestId::read(text).map_err(|why| {
        Failure::Invalid(format!("the header {IDEMPOTENCY_KEY} is malformed: {why}"))
    })
}

/// Takes a counter, or a whole stamp as replies to other programs show it: `17` or `17.n1`.
fn clock(text: &str) -> Result<i64, Failure> {
    let (t, node) = text
        .split_once('.')
        .map_or((text, None), |(t, n)| (t, Some(n)));
    let node_fits = node.is_none_or(|node| NodeName::parse(node).is_ok());
    counter(t).filter(|_| node_fits).ok_or_else(|| {
        Failure::Invalid(format!(
            "the header {DRUMLINE_STAMP} must be a whole number from 0, or one with a node like 17.n1"
        ))
    })
}

/// Digits only: `+5` and ` 5` are not what a program that counts would send.
fn counter(text: &str) -> Option<i64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

fn consistency(text: &str) -> Result<Consistency, Failure> {
    match text {
        "linearizable" => Ok(Consistency::Linearizable),
        "causal" => Ok(Consistency::Causal),
        _ => Err(Failure::Invalid(format!(
            "the header {DRUMLINE_READ} must be linearizable or causal"
        ))),
    }
}

fn show_stamp(text: &str) -> Result<bool, Failure> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Failure::Invalid(format!(
            "the header {DRUMLINE_SHOW_STAMP} must be true or false"
        ))),
    }
}

/// What a client saw last. Clients keep it and send it back; to them it is opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    pub position: Position,
    /// The counter of the stamp.
    pub t: i64,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.position, self.t)
    }
}

impl FromStr for Token {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let parts = text.split_once('.');
        let token = parts.and_then(|(position, t)| {
            Some(Self {
                position: Position(counter(position)?),
                t: counter(t)?,
            })
        });
        token.ok_or_else(|| {
            Failure::Invalid(format!(
                "the header {DRUMLINE_TOKEN} is malformed; send the one of an earlier reply, unchanged"
            ))
        })
    }
}

/// Refuses a body that says it is something other than JSON. No type, or the type that curl's -d
/// sends, says nothing.
fn check_content(headers: &HeaderMap) -> Result<(), Problem> {
    const TAKEN: [&str; 3] = [
        "application/json",
        "application/ejson",
        "application/x-www-form-urlencoded",
    ];
    if headers.contains_key(CONTENT_ENCODING) && !is_identity(headers) {
        return Err(Problem::UnsupportedMediaType(
            "the body must not be compressed; send it without Content-Encoding".into(),
        ));
    }
    let Some(value) = only(headers, &CONTENT_TYPE)? else {
        return Ok(());
    };
    let media = value.to_str().map_or("", essence);
    if value.is_empty() || TAKEN.iter().any(|taken| media.eq_ignore_ascii_case(taken)) {
        return Ok(());
    }
    Err(Problem::UnsupportedMediaType(
        "the body must be JSON: send Content-Type application/json or application/ejson".into(),
    ))
}

fn is_identity(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .all(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// A media type without its parameters.
fn essence(media: &str) -> &str {
    media.split(';').next().unwrap_or_default().trim()
}

/// The first of our two formats that the client names; plain JSON if it names neither.
fn reply_format(headers: &HeaderMap) -> Format {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|media| match essence(media) {
            media if media.eq_ignore_ascii_case("application/ejson") => Some(Format::Canonical),
            media if media.eq_ignore_ascii_case("application/json") => Some(Format::Plain),
            _ => None,
        })
        .unwrap_or_default()
}

/// Says in a reply's headers where in the serial order it stands.
pub fn write_order(headers: &mut HeaderMap, stamp: &Stamp, position: Position) {
    let token = Token {
        position,
        t: stamp.t,
    };
    headers.insert(DRUMLINE_STAMP, HeaderValue::from(stamp.t));
    headers.insert(DRUMLINE_POSITION, HeaderValue::from(position.0));
    if let Ok(token) = HeaderValue::from_str(&token.to_string()) {
        headers.insert(DRUMLINE_TOKEN, token);
    }
}

/// Says in a reply's headers which node is coordinator.
pub fn write_coordinator(headers: &mut HeaderMap, coordinator: Option<&NodeName>) {
    let value = coordinator.and_then(|name| HeaderValue::from_str(name.as_str()).ok());
    if let Some(value) = value {
        headers.insert(DRUMLINE_COORDINATOR, value);
    }
}

/// Says in a reply's headers that an earlier try of the same request was answered with it.
pub fn write_replayed(headers: &mut HeaderMap) {
    headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &'static str)]) -> Result<RequestHeaders, Problem> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        RequestHeaders::read(&headers)
    }

    #[track_caller]
    fn assert_invalid(headers: &[(&'static str, &'static str)], fragment: &str) {
        match read(headers) {
            Err(Problem::Failure(Failure::Invalid(text))) if text.contains(fragment) => {}
            other => panic!("{headers:?} gave {other:?}"),
        }
    }

    #[test]
    fn a_request_without_headers_is_a_plain_linearizable_one() {
        let plain = RequestHeaders {
            id: None,
            clock: 0,
            consistency: Consistency::Linearizable,
            reply: Format::Plain,
            show_stamp: None,
        };
        assert_eq!(read(&[]), Ok(plain));
    }

    #[test]
    fn the_id_is_taken_bare_and_quoted() {
        let id = |text| read(&[("Idempotency-Key", text)]).unwrap().id;
        assert_eq!(id("abc"), id("\"abc\""));
        assert_eq!(id("abc"), RequestId::parse("abc").ok());
        for text in ["", "\"\"", "a b"] {
            assert_invalid(&[("Idempotency-Key", text)], "1 to 128");
        }
        assert_invalid(
            &[("Idempotency-Key", "a"), ("Idempotency-Key", "b")],
            "twice",
        );
    }

    #[test]
    fn the_clock_is_the_later_of_stamp_and_token() {
        let clock = |headers: &[_]| read(headers).unwrap().clock;
        assert_eq!(clock(&[("Drumline-Stamp", "17")]), 17);
        assert_eq!(clock(&[("Drumline-Stamp", "17.n1")]), 17);
        assert_eq!(
            clock(&[("Drumline-Token", "3.18"), ("Drumline-Stamp", "17")]),
            18
        );
        for text in [
            "",
            "-1",
            "+1",
            "x",
            "1.",
            "1.a b",
            "9223372036854775808",
            "1.5.ü",
        ] {
            assert_invalid(&[("Drumline-Stamp", text)], "drumline-stamp");
        }
        for text in ["", "1", "1.", ".1", "1.-2", "1.2.3"] {
            assert_invalid(&[("Drumline-Token", text)], "drumline-token");
        }
    }

    #[test]
    fn tokens_come_back_as_they_were_sent() {
        let token = Token {
            position: Position(12),
            t: 345,
        };
        assert_eq!(token.to_string().parse(), Ok(token));
    }

    #[test]
    fn the_consistency_is_one_of_two() {
        let causal = read(&[("Drumline-Read", "causal")]).unwrap();
        assert_eq!(causal.consistency, Consistency::Causal);
        assert_invalid(&[("Drumline-Read", "eventual")], "linearizable or causal");
    }

    #[test]
    fn stamps_are_shown_or_not() {
        let show = |text| read(&[("Drumline-Show-Stamp", text)]).unwrap().show_stamp;
        assert_eq!((show("true"), show("false")), (Some(true), Some(false)));
        assert_invalid(&[("Drumline-Show-Stamp", "yes")], "true or false");
    }

    #[test]
    fn the_reply_has_the_first_format_that_is_named() {
        let reply = |accept| read(&[("Accept", accept)]).unwrap().reply;
        assert_eq!(reply("application/ejson"), Format::Canonical);
        assert_eq!(
            reply("Application/EJSON; q=1, application/json"),
            Format::Canonical
        );
        assert_eq!(reply("application/json, application/ejson"), Format::Plain);
        assert_eq!(reply("text/html, */*"), Format::Plain);
    }

    #[test]
    fn bodies_are_json_or_say_nothing() {
        for media in [
            "application/json; charset=utf-8",
            "application/ejson",
            "application/x-www-form-urlencoded",
            "",
        ] {
            assert!(read(&[("Content-Type", media)]).is_ok(), "{media:?}");
        }
        for header in [
            ("Content-Type", "text/xml"),
            ("Content-Type", "application/jsonx"),
            ("Content-Type", "multipart/form-data; boundary=x"),
            ("Content-Encoding", "gzip"),
        ] {
            let refused = matches!(read(&[header]), Err(Problem::UnsupportedMediaType(_)));
            assert!(refused, "{header:?}");
        }
        assert!(read(&[("Content-Encoding", "identity")]).is_ok());
    }
}
