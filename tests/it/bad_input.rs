//! Requests that are wrong, each with the error it must get. The rows are in `bad_input/*.txt`;
//! what does not fit in a line of text is built here.

use std::fmt::Debug;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::support::Cluster;

/// What the rows write to, were they taken.
pub const DATABASE: &str = "bad_input";
pub const COLLECTION: &str = "rows";

const RIGHT_BODY: &str = r#"{"database": "bad_input", "collection": "rows"}"#;
const REPLY_WAIT_MAX: Duration = Duration::from_secs(60);

/// The node that the rows are sent to.
#[derive(Debug, Clone)]
pub struct Target {
    /// `http://host:port`
    pub url: String,
    pub api_key: String,
}

/// One wrong request and the error it must get.
struct Row {
    name: String,
    request: Vec<u8>,
    status: u16,
    /// `None` where there is no body, or where MongoDB names the error.
    error_code: Option<&'static str>,
    /// Part of the error's text.
    text: String,
    /// MongoDB's number, for what MongoDB refuses.
    mongodb_code: Option<i64>,
}

/// Sends every malformed request. Each gets its documented error, and `state`, which the caller
/// reads from the collections and the log, is the same before and after.
pub async fn check_malformed<S: PartialEq + Debug>(target: &Target, state: impl AsyncFn() -> S) {
    let rows = malformed(target);
    assert!(rows.len() >= 200, "only {} rows", rows.len());
    check(target, &rows, state).await;
}

/// Sends every request that only MongoDB finds wrong. [`COLLECTION`] must hold the document
/// `{"_id": "seed", "text": "x"}`. `state` is read from the collections alone: the log grows, since a
/// refusal is an answer.
pub async fn check_refused<S: PartialEq + Debug>(target: &Target, state: impl AsyncFn() -> S) {
    let rows = refused(target);
    check(target, &rows, state).await;
}

async fn check<S: PartialEq + Debug>(target: &Target, rows: &[Row], state: impl AsyncFn() -> S) {
    let before = state().await;
    let mut wrong = Vec::new();
    for row in rows {
        let reply = tokio::time::timeout(REPLY_WAIT_MAX, send(target, &row.request)).await;
        let reply = reply.unwrap_or_else(|_| Reply::none("no reply in time"));
        wrong.extend(reply.differs_from(row));
    }
    assert!(
        wrong.is_empty(),
        "{} of {} rows:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
    assert_eq!(before, state().await, "something changed");
}

/// A reply, as far as the rows speak of it.
struct Reply {
    status: u16,
    body: String,
}

impl Reply {
    fn none(why: &str) -> Self {
        let body = why.to_owned();
        Self { status: 0, body }
    }

    fn differs_from(&self, row: &Row) -> Option<String> {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let field = |name| body[name].as_str().unwrap_or_default();
        let same = self.status == row.status
            && row
                .error_code
                .is_none_or(|code| field("error_code") == code)
            && field("error").contains(&row.text)
            && (row.error_code.is_none() || body["link"] == "")
            && body["mongodb_code"].as_i64() == row.mongodb_code;
        (!same).then(|| {
            let expected = (row.status, row.error_code, row.mongodb_code, &row.text);
            format!(
                "{}\n  got {} {}\n  not {expected:?}",
                row.name, self.status, self.body
            )
        })
    }
}

async fn send(target: &Target, request: &[u8]) -> Reply {
    let address = target
        .url
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return Reply::none("cannot connect");
    };
    // A node may answer and close before it has read everything.
    let _ = stream.write_all(request).await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let body = body.to_owned();
    status.map_or_else(|| Reply::none("no reply"), |status| Reply { status, body })
}

fn malformed(target: &Target) -> Vec<Row> {
    let mut rows = fields(target);
    rows.extend(values(target));
    rows.extend(bodies(target));
    rows.extend(heads(target));
    rows.extend(binary_bodies(target));
    rows.extend(large_bodies(target));
    rows.extend(broken_http(target));
    rows
}

/// The rows of a table: its lines but comments, split at `|`.
fn table<const COLUMNS: usize>(
    text: &'static str,
) -> impl Iterator<Item = [&'static str; COLUMNS]> {
    let is_row = |line: &&str| !line.is_empty() && !line.starts_with('#');
    text.lines().filter(is_row).map(|line| {
        let cells: Vec<_> = line.splitn(COLUMNS, " | ").map(str::trim).collect();
        cells
            .try_into()
            .unwrap_or_else(|_| panic!("{line:?} has not {COLUMNS} columns"))
    })
}

fn fields(target: &Target) -> Vec<Row> {
    table(include_str!("bad_input/fields.txt"))
        .map(|[action, fields, text]| invalid(target, action, &body_with(fields), text))
        .collect()
}

fn values(target: &Target) -> Vec<Row> {
    let places = |value: &str| {
        [
            ("insertOne", format!(r#""document": {{"v": {value}}}"#)),
            (
                "deleteMany",
                format!(r#""filter": {{"$or": [{{"v": {value}}}]}}"#),
            ),
            (
                "aggregate",
                format!(r#""pipeline": [{{"$match": {{"v": {value}}}}}]"#),
            ),
        ]
    };
    table(include_str!("bad_input/values.txt"))
        .flat_map(|[value, text]| {
            places(value).map(|(action, fields)| invalid(target, action, &body_with(&fields), text))
        })
        .collect()
}

fn bodies(target: &Target) -> Vec<Row> {
    table(include_str!("bad_input/bodies.txt"))
        .map(|[body, text]| invalid(target, "findOne", &body.replace("<nl>", "\n"), text))
        .collect()
}

fn heads(target: &Target) -> Vec<Row> {
    table(include_str!("bad_input/heads.txt"))
        .map(|[line, headers, status, error_code, text]| {
            let headers: String = headers
                .split("; ")
                .filter(|header| !header.is_empty())
                .map(|header| format!("{}\r\n", header.replace("KEY", &target.api_key)))
                .collect();
            Row {
                name: format!("{line} with {headers:?}"),
                request: http(line, &headers, RIGHT_BODY.as_bytes()),
                status: status.parse().unwrap_or_default(),
                error_code: Some(error_code),
                text: text.to_owned(),
                mongodb_code: None,
            }
        })
        .collect()
}

fn refused(target: &Target) -> Vec<Row> {
    table(include_str!("bad_input/refused.txt"))
        .map(|[action, fields, code]| Row {
            error_code: None,
            mongodb_code: code.parse().ok(),
            ..invalid(target, action, &body_with(fields), "")
        })
        .collect()
}

/// Bodies that are not text.
fn binary_bodies(target: &Target) -> Vec<Row> {
    let utf16: Vec<u8> = RIGHT_BODY
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let with_filter = |filter: &[u8]| {
        let (head, tail) = (
            br#"{"database": "bad_input", "collection": "rows", "filter": {"#,
            b"}}",
        );
        [head.as_slice(), filter, tail].concat()
    };
    [
        ("UTF-16", utf16),
        ("a null byte", vec![0]),
        ("BSON", vec![5, 0, 0, 0, 0]),
        ("gzip", vec![0x1f, 0x8b, 8, 0]),
        ("no UTF-8 in a value", with_filter(b"\"a\": \"\xff\"")),
        ("no UTF-8 in a key", with_filter(b"\"\xc3\": 1")),
        ("an overlong form", with_filter(b"\"a\": \"\xc0\xaf\"")),
        ("a bare surrogate", with_filter(b"\"a\": \"\xed\xa0\x80\"")),
        ("a control character", with_filter(b"\"a\": \"\x01\"")),
    ]
    .into_iter()
    .map(|(name, body)| Row {
        name: name.to_owned(),
        request: post(target, "findOne", &body),
        ..invalid(target, "findOne", "", "not valid JSON")
    })
    .collect()
}

/// Bodies at the bounds of docs/limits.md and past them.
fn large_bodies(target: &Target) -> Vec<Row> {
    let too_large = |action, fields: &str, text| Row {
        name: format!("{action} of {} bytes, {text}", fields.len()),
        status: 413,
        error_code: Some("TooLarge"),
        ..invalid(target, action, &body_with(fields), text)
    };
    let nested = |open: &str, close: &str, levels: usize| {
        let (open, close) = (open.repeat(levels), close.repeat(levels));
        invalid(
            target,
            "findOne",
            &body_with(&format!(r#""filter": {{"a": {open}1{close}}}"#)),
            "nests deeper",
        )
    };
    let long_text = |bytes: usize| format!(r#""document": {{"a": "{}"}}"#, "x".repeat(bytes));
    let list = |item: &str, count: usize| vec![item; count].join(",");
    vec![
        nested("[", "]", 100),
        nested("{\"a\":", "}", 100),
        nested("[", "]", 100_000),
        nested("{\"$and\":[", "]}", 50_000),
        too_large("insertOne", &long_text(16 << 20), "larger than 16 MiB"),
        too_large("insertOne", &long_text(20 << 20), "larger than 16 MiB"),
        too_large(
            "insertMany",
            &format!(r#""documents": [{}]"#, list("{}", 10_001)),
            "up to 10000",
        ),
        too_large(
            "insertOne",
            &format!(r#""document": {{"a": [{}]}}"#, list("1", 4 << 20)),
            "split it",
        ),
        too_large(
            "insertOne",
            &format!(r#""document": {{"a": [{}]}}"#, list("1", 1_600_000)),
            "16380 KiB of BSON",
        ),
        too_large(
            "aggregate",
            &format!(r#""pipeline": [{}]"#, list("{}", 4 << 20)),
            "split it",
        ),
    ]
}

/// What is no HTTP is answered by the HTTP library, with a status alone.
fn broken_http(target: &Target) -> Vec<Row> {
    let bare = |name: &str, request: String, status| Row {
        name: name.to_owned(),
        request: request.into_bytes(),
        status,
        error_code: None,
        mongodb_code: None,
        text: String::new(),
    };
    let start = format!(
        "POST /action/findOne HTTP/1.1\r\nHost: x\r\napiKey: {}\r\n",
        target.api_key
    );
    let long_key = format!("Idempotency-Key: {}\r\n", "k".repeat(129));
    vec![
        bare("no request line", "\u{1}\u{2}\r\n\r\n".into(), 400),
        bare(
            "another protocol",
            "SSH-2.0-OpenSSH_9.2\r\n\r\n".into(),
            400,
        ),
        bare(
            "a header without a colon",
            format!("{start}nonsense\r\n\r\n"),
            400,
        ),
        bare(
            "a length that is no number",
            format!("{start}Content-Length: x\r\n\r\n"),
            400,
        ),
        bare(
            "two lengths",
            format!("{start}Content-Length: 1\r\nContent-Length: 2\r\n\r\n"),
            400,
        ),
        bare(
            "a head without an end",
            format!("{start}X: {}\r\n\r\n", "x".repeat(1 << 20)),
            431,
        ),
        Row {
            name: "chunks that are none".to_owned(),
            request: format!(
                "{start}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
            )
            .into_bytes(),
            ..invalid(target, "findOne", "", "ended before its end")
        },
        Row {
            name: "a request id of 129 bytes".to_owned(),
            request: http(
                "POST /action/findOne",
                &format!("apiKey: {}\r\n{long_key}", target.api_key),
                RIGHT_BODY.as_bytes(),
            ),
            ..invalid(target, "findOne", "", "1 to 128")
        },
    ]
}

fn body_with(fields: &str) -> String {
    let comma = if fields.is_empty() { "" } else { ", " };
    format!(r#"{{"database": "{DATABASE}", "collection": "{COLLECTION}"{comma}{fields}}}"#)
}

/// A row for the commonest error, with the right credentials.
fn invalid(target: &Target, action: &str, body: &str, text: &str) -> Row {
    Row {
        name: format!("{action} {}", body.chars().take(200).collect::<String>()),
        request: post(target, action, body.as_bytes()),
        status: 400,
        error_code: Some("InvalidParameter"),
        text: text.to_owned(),
        mongodb_code: None,
    }
}

fn post(target: &Target, action: &str, body: &[u8]) -> Vec<u8> {
    let headers = format!(
        "Content-Type: application/json\r\napiKey: {}\r\n",
        target.api_key
    );
    http(&format!("POST /action/{action}"), &headers, body)
}

fn http(method_and_path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method_and_path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn each_malformed_request_gets_its_documented_error_and_changes_nothing() {
    let (cluster, runtime) = (Cluster::shared(), Runtime::new().unwrap());
    runtime.block_on(async {
        let driver = seeded(cluster).await;
        let state = async || (documents(&driver).await, entries(&driver).await);
        let (documents, entries) = state().await;
        assert_eq!((documents.len(), entries.len()), (1, 0));
        check_malformed(&target(cluster), state).await;
        check_refused(&target(cluster), async || self::documents(&driver).await).await;
        let refusals = self::entries(&driver).await;
        assert!(refusals.iter().all(|entry| entry.contains_key("error")));
        println!("{} refusals of writes are in the log", refusals.len());
    });
}

fn target(cluster: &Cluster) -> Target {
    Target {
        url: cluster.info.nodes[0].url.clone(),
        api_key: cluster.info.api_key.clone(),
    }
}

async fn seeded(cluster: &Cluster) -> Client {
    let driver = Client::with_uri_str(&cluster.info.mongodb_uri)
        .await
        .unwrap();
    let seed = doc! {"_id": "seed", "text": "x"};
    let rows = driver.database(DATABASE).collection::<Document>(COLLECTION);
    rows.insert_one(seed).await.unwrap();
    driver
}

/// What the rows' collection holds.
async fn documents(driver: &Client) -> Vec<Document> {
    let rows = driver.database(DATABASE).collection::<Document>(COLLECTION);
    let mut found = rows.find(doc! {}).sort(doc! {"_id": 1}).await.unwrap();
    let mut documents = Vec::new();
    while found.advance().await.unwrap() {
        documents.push(found.deserialize_current().unwrap());
    }
    documents
}

/// The log's entries about the rows' collection: other tests write at the same time.
async fn entries(driver: &Client) -> Vec<Document> {
    let namespace = format!("{DATABASE}.{COLLECTION}");
    let log = driver.database("drumline").collection::<Document>("log");
    let pipeline = vec![
        doc! {"$match": {"entries.ns": &namespace}},
        doc! {"$unwind": "$entries"},
        doc! {"$replaceRoot": {"newRoot": "$entries"}},
        doc! {"$match": {"ns": &namespace}},
    ];
    let mut found = log.aggregate(pipeline).await.unwrap();
    let mut entries = Vec::new();
    while found.advance().await.unwrap() {
        entries.push(found.deserialize_current().unwrap());
    }
    entries
}
