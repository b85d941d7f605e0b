//! Requests and replies as they travel: the Data API in Extended JSON that keeps every type.

use bson::{Bson, Document, doc};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};

use super::clock::{Seen, Token};
use super::error::ClientError;
use crate::config::{Secret, ServerUrl};
use crate::ejson::{self, Fields, Format};
use crate::model::{Answer, Consistency, Namespace, Read, RequestId, Update, Write};
use crate::view::ClusterView;

const EJSON: HeaderValue = HeaderValue::from_static("application/ejson");
/// A stream of events whose data keeps every type.
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream, application/ejson");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const API_KEY: HeaderName = HeaderName::from_static("api-key");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const STAMP: HeaderName = HeaderName::from_static("drumline-stamp");
const POSITION: HeaderName = HeaderName::from_static("drumline-position");
const TOKEN: HeaderName = HeaderName::from_static("drumline-token");
const SHOW_STAMP: HeaderName = HeaderName::from_static("drumline-show-stamp");
const READ: HeaderName = HeaderName::from_static("drumline-read");

/// A key as a header that no trace of the request shows.
pub fn key_header(key: &Secret) -> Result<HeaderValue, ClientError> {
    let mut value = HeaderValue::from_bytes(key.expose().as_bytes()).map_err(|_| {
        ClientError::Invalid("the API key holds characters that no header can hold".into())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A request, before it is known which server gets it.
#[derive(Debug, Clone)]
pub struct Message {
    method: Method,
    path: String,
    body: Bytes,
    id: Option<RequestId>,
    consistency: Option<Consistency>,
    /// What of a stream was seen last; the message asks for one if this is there.
    stream: Option<Option<HeaderValue>>,
}

impl Message {
    pub fn write(namespace: &Namespace, write: Write, id: &RequestId) -> Self {
        let (action, fields) = encode_write(write);
        Self {
            id: Some(id.clone()),
            ..Self::action(action, namespace, fields)
        }
    }

    pub fn read(namespace: &Namespace, read: Read, consistency: Consistency) -> Self {
        let (action, fields) = encode_read(read);
        Self {
            consistency: Some(consistency),
            ..Self::action(action, namespace, fields)
        }
    }

    pub fn log(from: i64, limit: u32) -> Self {
        Self {
            method: Method::GET,
            path: format!("/log?from={from}&limit={limit}"),
            body: Bytes::new(),
            id: None,
            consistency: None,
            stream: None,
        }
    }

    /// Asks for a stream of events, from the one on that comes after the last that was seen.
    pub fn stream(path: &str, last_id: Option<&str>) -> Self {
        Self {
            method: Method::GET,
            path: path.to_owned(),
            body: Bytes::new(),
            id: None,
            consistency: None,
            stream: Some(last_id.and_then(|id| HeaderValue::from_str(id).ok())),
        }
    }

    pub fn status() -> Self {
        Self {
            method: Method::GET,
            path: "/status".to_owned(),
            body: Bytes::new(),
            id: None,
            consistency: None,
            stream: None,
        }
    }

    fn action(action: &str, namespace: &Namespace, fields: Document) -> Self {
        let mut body =
            doc! { "database": namespace.database(), "collection": namespace.collection() };
        body.extend(fields);
        Self {
            method: Method::POST,
            path: format!("/action/{action}"),
            // The writer of JSON fails only where the bytes go, and a Vec takes all.
            body: serde_json::to_vec(&Fields(&body, Format::Short))
                .unwrap_or_default()
                .into(),
            id: None,
            consistency: None,
            stream: None,
        }
    }

    /// The id of a write; reads have none.
    pub fn id(&self) -> Option<&RequestId> {
        self.id.as_ref()
    }

    /// The HTTP request to one server.
    pub fn to_request(
        &self,
        server: &ServerUrl,
        key: Option<&HeaderValue>,
        seen: &Seen,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(format!("{server}{}", self.path))
            .header(ACCEPT, if self.stream.is_some() { EVENTS } else { EJSON })
            // Whatever path stands in front of the node's own.
            .header(SHOW_STAMP, "true")
            .header(STAMP, seen.t);
        if self.method == Method::POST {
            request = request.header(CONTENT_TYPE, EJSON);
        }
        if let Some(token) = &seen.token {
            request = request.header(TOKEN, token.as_str());
        }
        if let Some(key) = key {
            request = request.header(API_KEY, key.clone());
        }
        if let Some(id) = &self.id {
            // In quotes: an id may have quotes of its own, and the reader takes one pair off.
            request = request.header(IDEMPOTENCY_KEY, format!("\"{id}\""));
        }
        if let Some(consistency) = self.consistency {
            request = request.header(READ, consistency_name(consistency));
        }
        if let Some(Some(last_id)) = &self.stream {
            request = request.header(LAST_EVENT_ID, last_id.clone());
        }
        request.body(Full::new(self.body.clone()))
    }
}

const fn consistency_name(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Linearizable => "linearizable",
        Consistency::Causal => "causal",
    }
}

fn encode_write(write: Write) -> (&'static str, Document) {
    match write {
        Write::Insert { mut documents } if documents.len() == 1 => {
            ("insertOne", doc! { "document": documents.remove(0) })
        }
        Write::Insert { documents } => ("insertMany", doc! { "documents": documents }),
        Write::Update {
            filter,
            update,
            many,
            upsert,
        } => {
            let update = match update {
                Update::Operators(operators) => Bson::Document(operators),
                Update::Pipeline(stages) => Bson::from(stages),
            };
            let action = if many { "updateMany" } else { "updateOne" };
            (
                action,
                doc! { "filter": filter, "update": update, "upsert": upsert },
            )
        }
        Write::Replace {
            filter,
            replacement,
            upsert,
        } => (
            "replaceOne",
            doc! { "filter": filter, "replacement": replacement, "upsert": upsert },
        ),
        Write::Delete { filter, many } => {
            let action = if many { "deleteMany" } else { "deleteOne" };
            (action, doc! { "filter": filter })
        }
    }
}

fn encode_read(read: Read) -> (&'static str, Document) {
    match read {
        Read::FindOne {
            filter,
            projection,
            sort,
        } => {
            let mut fields = doc! { "filter": filter };
            put_some(&mut fields, "projection", projection);
            put_some(&mut fields, "sort", sort);
            ("findOne", fields)
        }
        Read::Find {
            filter,
            projection,
            sort,
            limit,
            skip,
        } => {
            let mut fields = doc! { "filter": filter, "limit": limit, "skip": skip };
            put_some(&mut fields, "projection", projection);
            put_some(&mut fields, "sort", sort);
            ("find", fields)
        }
        Read::Aggregate { pipeline } => ("aggregate", doc! { "pipeline": pipeline }),
    }
}

fn put_some(fields: &mut Document, name: &str, value: Option<Document>) {
    if let Some(value) = value {
        fields.insert(name, value);
    }
}

/// A reply whose body is not read yet.
#[derive(Debug, Clone)]
pub struct Received {
    pub status: StatusCode,
    pub stamp: Option<i64>,
    pub position: Option<i64>,
    token: Option<Token>,
    pub replayed: bool,
    body: Bytes,
}

impl Received {
    pub fn new(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Self {
        Self {
            status,
            stamp: leading_integer(headers, &STAMP),
            position: leading_integer(headers, &POSITION),
            token: token(headers),
            replayed: headers
                .get(IDEMPOTENCY_REPLAYED)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true")),
            body,
        }
    }

    /// What a client has seen with this reply.
    pub fn seen(&self) -> Option<Seen> {
        let token = self.token.clone();
        self.stamp.map(|t| Seen { t, token })
    }

    fn document(&self) -> Result<Document, String> {
        ejson::reply(&self.body)
    }
}

/// A stamp is written `t` or `t.node`.
fn leading_integer(headers: &HeaderMap, name: &HeaderName) -> Option<i64> {
    let text = headers.get(name)?.to_str().ok()?;
    text.split('.').next()?.parse().ok()
}

/// A token that cannot be kept is none: the stamp promises as much.
fn token(headers: &HeaderMap) -> Option<Token> {
    Token::parse(headers.get(TOKEN)?.to_str().ok()?)
}

/// What a write did, and where in the serial order.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    pub answer: Answer,
    pub position: Option<i64>,
    pub stamp: Option<i64>,
    /// The answer is that of an earlier try of the same request.
    pub replayed: bool,
}

/// What a read found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub documents: Vec<Document>,
    pub position: Option<i64>,
    pub stamp: Option<i64>,
}

/// Reads the reply to a write; `op` is [`Write::op`].
pub fn written(op: &str, received: &Received) -> Result<Written, String> {
    let mut body = received.document()?;
    let answer = match op {
        "insert" => Answer::Inserted {
            ids: take_ids(&mut body)?,
        },
        "deleteOne" | "deleteMany" => Answer::Deleted {
            deleted: count(&body, "deletedCount")?,
        },
        _ => Answer::Updated {
            matched: count(&body, "matchedCount")?,
            modified: count(&body, "modifiedCount")?,
            upserted: body.remove("upsertedId"),
        },
    };
    Ok(Written {
        answer,
        position: received.position,
        stamp: received.stamp,
        replayed: received.replayed,
    })
}

fn take_ids(body: &mut Document) -> Result<Vec<Bson>, String> {
    if let Some(id) = body.remove("insertedId") {
        return Ok(vec![id]);
    }
    match body.remove("insertedIds") {
        Some(Bson::Array(ids)) => Ok(ids),
        _ => Err("the body has neither insertedId nor insertedIds".into()),
    }
}

fn count(body: &Document, field: &str) -> Result<i64, String> {
    match body.get(field) {
        Some(Bson::Int32(n)) => Ok(i64::from(*n)),
        Some(Bson::Int64(n)) => Ok(*n),
        _ => Err(format!("the body has no integer {field}")),
    }
}

/// Reads the reply to a read.
pub fn found(received: &Received) -> Result<Found, String> {
    let mut body = received.document()?;
    let documents = match body.remove("document") {
        Some(Bson::Null) => Vec::new(),
        Some(Bson::Document(document)) => vec![document],
        Some(_) => return Err("the body's document is none".into()),
        None => take_documents(&mut body, "documents")?,
    };
    Ok(Found {
        documents,
        position: received.position,
        stamp: received.stamp,
    })
}

/// Reads a page of the log.
pub fn entries(received: &Received) -> Result<Vec<Document>, String> {
    take_documents(&mut received.document()?, "entries")
}

/// Reads a node's view of its cluster.
pub fn view(received: &Received) -> Result<ClusterView, String> {
    serde_json::from_slice(&received.body)
        .map_err(|error| format!("the body is no cluster view ({error})"))
}

fn take_documents(body: &mut Document, field: &str) -> Result<Vec<Document>, String> {
    let wrong = || format!("the body has no array {field} of documents");
    let Some(Bson::Array(values)) = body.remove(field) else {
        return Err(wrong());
    };
    let documents = values.into_iter().map(|value| match value {
        Bson::Document(document) => Ok(document),
        _ => Err(wrong()),
    });
    documents.collect()
}

/// Codes of errors that pass, or that another server may not have.
pub const PASSING_CODES: [&str; 4] = [
    "Unavailable",
    "TooManyRequests",
    "NoCoordinator",
    "StaleRead",
];

/// The text and the code of a Data API error; `None` if the body is not one.
pub fn refusal(received: &Received) -> Option<(String, String)> {
    refusal_in(&received.body)
}

/// The same of an error that came in the middle of a reply.
pub fn refusal_in(json: &[u8]) -> Option<(String, String)> {
    let body = ejson::reply(json).ok()?;
    let message = body.get_str("error").ok()?.to_owned();
    let code = match body.get("error_code") {
        Some(Bson::String(code)) => code.clone(),
        Some(Bson::Int32(code)) => code.to_string(),
        Some(Bson::Int64(code)) => code.to_string(),
        _ => String::new(),
    };
    Some((message, code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(body: &str) -> Received {
        let mut headers = HeaderMap::new();
        headers.insert(STAMP, HeaderValue::from_static("13.n1"));
        headers.insert(POSITION, HeaderValue::from_static("12"));
        Received::new(StatusCode::OK, &headers, Bytes::from(body.to_owned()))
    }

    #[test]
    fn writes_keep_types_and_key_order() {
        let ns = Namespace::parse("shop.orders").unwrap();
        let document = doc! { "z": 1_i64, "a": 1.0, "_id": 7 };
        let write = Write::Insert {
            documents: vec![document],
        };
        let message = Message::write(&ns, write, &RequestId::parse("r1").unwrap());
        assert_eq!(message.path, "/action/insertOne");
        assert_eq!(
            message.body,
            r#"{"database":"shop","collection":"orders","document":{"z":{"$numberLong":"1"},"a":1.0,"_id":7}}"#
        );
    }

    #[test]
    fn requests_carry_id_clock_and_key() {
        let ns = Namespace::parse("shop.orders").unwrap();
        let write = Write::Delete {
            filter: doc! {},
            many: true,
        };
        let message = Message::write(&ns, write, &RequestId::parse("r1").unwrap());
        let key = key_header(&Secret::new("k".into())).unwrap();
        let server = ServerUrl::parse("http://a:1/base/").unwrap();
        let seen = Seen {
            t: 42,
            token: Token::parse("41.42"),
        };
        let request = message.to_request(&server, Some(&key), &seen).unwrap();
        assert_eq!(request.uri(), "http://a:1/base/action/deleteMany");
        assert_eq!(request.headers()["idempotency-key"], "\"r1\"");
        assert_eq!(request.headers()["drumline-stamp"], "42");
        assert_eq!(request.headers()["drumline-token"], "41.42");
        assert_eq!(request.headers()["api-key"], "k");
    }

    #[test]
    fn replies_are_read() {
        let one = received(r#"{"insertedId": {"$oid": "65a0000000000000000000aa"}}"#);
        let answer = written("insert", &one).unwrap();
        assert_eq!((answer.position, answer.stamp), (Some(12), Some(13)));
        let updated = received(r#"{"matchedCount": {"$numberInt": "2"}, "modifiedCount": 1}"#);
        assert_eq!(
            written("updateMany", &updated).unwrap().answer,
            Answer::Updated {
                matched: 2,
                modified: 1,
                upserted: None
            }
        );
        assert_eq!(
            found(&received(r#"{"document": null}"#)).unwrap().documents,
            vec![]
        );
        assert_eq!(
            found(&received(r#"{"documents": [{"a": 1}]}"#))
                .unwrap()
                .documents,
            vec![doc! {"a": 1}]
        );
        for wrong in ["", "[]", "{}", r#"{"documents": [1]}"#, "<html>"] {
            assert!(found(&received(wrong)).is_err(), "{wrong:?} was taken");
            assert!(
                written("deleteOne", &received(wrong)).is_err(),
                "{wrong:?} was taken"
            );
        }
    }
}
