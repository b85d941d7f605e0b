//! What a request holds: arguments and stdin against a server that remembers, headers and bodies
//! against a node.

use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use bson::Bson;
use drumline::ejson;
use serde_json::Value;

use super::program::{Call, Said};
use super::table::{Made, Text, Way, check};
use crate::cli::server::{Reply, Server};
use crate::support::{Cluster, Sandbox};

/// A reply of a node.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }

    fn made(self, taken: impl FnOnce(&Self) -> Made) -> Made {
        match self.status {
            200 | 201 => taken(&self),
            400 | 401 => Made::Refused(self.body),
            _ => panic!("{self:#?}"),
        }
    }
}

/// Sends a request to the cluster's first node, whose lines and body may be any bytes.
pub fn send(line: &[u8], headers: &[&[u8]], body: &[u8]) -> Answer {
    let url = &Cluster::shared().info.nodes[0].url;
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    let mut request = [
        line,
        b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n",
    ]
    .concat();
    for header in headers {
        request.extend([*header, b"\r\n"].concat());
    }
    request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
    request.extend(body);
    stream.write_all(&request).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    let reply = String::from_utf8(reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

pub fn key() -> Vec<u8> {
    format!("apiKey: {}", Cluster::shared().info.api_key).into_bytes()
}

/// An action with the key, in canonical Extended JSON.
fn act(action: &str, more: &[&[u8]], body: &[u8]) -> Answer {
    let line = format!("POST /action/{action}");
    let mut headers: Vec<&[u8]> = vec![b"Accept: application/ejson"];
    let key = key();
    headers.push(&key);
    headers.extend(more);
    send(line.as_bytes(), &headers, body)
}

/// A body in which the bytes are at the place of this field. What may stand in front of a text stands
/// in front of the body.
fn body_with(collection: &str, field: &str, value: &[u8]) -> Vec<u8> {
    let (mark, value) = match value.strip_prefix(b"\xef\xbb\xbf") {
        Some(value) => (&b"\xef\xbb\xbf"[..], value),
        None => (&b""[..], value),
    };
    let begin = format!(r#"{{"database": "ways", "collection": "{collection}", "{field}": "#);
    [mark, begin.as_bytes(), value, b"}"].concat()
}

/// A document without what Drumline gives it, in one form.
fn form(json: &str) -> String {
    let mut document = ejson::object(json.as_bytes()).unwrap();
    document.remove("_id");
    document.remove("_stamp");
    Bson::Document(document)
        .into_canonical_extjson()
        .to_string()
}

/// What the server was asked for, or what was said instead of asking it.
fn asked(server: &Server, said: Option<Said>, of: impl FnOnce(&Value) -> String) -> Made {
    let Some(said) = said else {
        return Made::Impossible;
    };
    match server.asked().first() {
        Some(asked) => Made::Taken(of(&serde_json::from_str(&asked.body).unwrap())),
        None => {
            assert_eq!(said.status, 2, "{said:#?}");
            assert_eq!(said.stderr.trim_end().lines().count(), 1, "{said:#?}");
            Made::Refused(said.stderr)
        }
    }
}

#[test]
fn documents() {
    let sandbox = &Sandbox::new();
    let inserted = || Server::start([Reply::new(201, r#"{"insertedId":1}"#)]);
    let document = |body: &Value| form(&body["document"].to_string());
    let by_argument = |text: &Text| {
        let server = inserted();
        let call = Call::new(&["insert", "a.b", "--servers", &server.url, "--"]);
        asked(&server, call.word(text.os()).run(sandbox), document)
    };
    let by_stdin = |text: &Text| {
        let server = inserted();
        let call = Call::new(&["insert", "a.b", "--servers", &server.url, "-"]);
        asked(&server, call.input(&text.0).run(sandbox), document)
    };
    let by_body = |text: &Text| {
        let inserted = act(
            "insertOne",
            &[],
            &body_with("documents", "document", &text.0),
        );
        inserted.made(|reply| {
            let filter = format!(r#"{{"_id": {}}}"#, reply.json()["insertedId"]);
            let found = act(
                "findOne",
                &[],
                &body_with("documents", "filter", filter.as_bytes()),
            );
            Made::Taken(form(&found.json()["document"].to_string()))
        })
    };
    let ways: [Way<'_>; 3] = [
        ("argument", Box::new(by_argument)),
        ("stdin", Box::new(by_stdin)),
        ("body", Box::new(by_body)),
    ];
    check(include_str!("documents.txt"), &ways);
}

#[test]
fn filters() {
    let sandbox = &Sandbox::new();
    let deleted = || Server::start([Reply::new(200, r#"{"deletedCount":0}"#)]);
    let filter = |body: &Value| form(&body["filter"].to_string());
    let by_argument = |text: &Text| {
        let server = deleted();
        let call = Call::new(&["delete", "a.b", "--servers", &server.url, "--"]);
        asked(&server, call.word(text.os()).run(sandbox), filter)
    };
    let by_stdin = |text: &Text| {
        let server = deleted();
        let call = Call::new(&["delete", "a.b", "--servers", &server.url, "-"]);
        asked(&server, call.input(&text.0).run(sandbox), filter)
    };
    let by_body = |text: &Text| {
        let reply = act("deleteOne", &[], &body_with("nothing", "filter", &text.0));
        reply.made(|_| Made::Accepted)
    };
    let ways: [Way<'_>; 3] = [
        ("argument", Box::new(by_argument)),
        ("stdin", Box::new(by_stdin)),
        ("body", Box::new(by_body)),
    ];
    check(include_str!("documents.txt"), &ways);
}

#[test]
fn request_ids() {
    let sandbox = &Sandbox::new();
    let by_flag = |text: &Text| {
        let server = Server::start([Reply::new(201, r#"{"insertedId":1}"#)]);
        let mut word = OsString::from("--request-id=");
        word.push(text.os());
        let call = Call::new(&["insert", "a.b", "{}", "--servers", &server.url]);
        let said = call.word(&word).run(sandbox);
        match asked(&server, said, |_| String::new()) {
            Made::Taken(_) => {
                let id = server.asked()[0].headers["idempotency-key"].clone();
                let bare = id.strip_prefix('"').and_then(|id| id.strip_suffix('"'));
                Made::Taken(bare.unwrap().to_owned())
            }
            made => made,
        }
    };
    let by_header = |text: &Text| {
        if text.has(b"\r\n\0") {
            return Made::Impossible;
        }
        let header = [b"Idempotency-Key: ", text.0.as_slice()].concat();
        let body = body_with("request_ids", "document", b"{}");
        let reply = act("insertOne", &[&header], &body);
        if reply.status == 400 && reply.body.is_empty() {
            // The HTTP library takes no such byte in a header.
            return Made::Impossible;
        }
        reply.made(|reply| {
            let position = reply.header("Drumline-Position").unwrap();
            let line = format!("GET /log?from={position}&limit=1");
            let log = send(line.as_bytes(), &[&key()], b"").json();
            let entries = log["entries"][0]["entries"].as_array().unwrap().clone();
            let known = reply
                .header("Drumline-Stamp")
                .unwrap()
                .parse::<i64>()
                .unwrap();
            let own = entries.iter().find(|entry| entry["t"] == known).unwrap();
            Made::Taken(own["id"].as_str().unwrap().to_owned())
        })
    };
    let ways: [Way<'_>; 2] = [("flag", Box::new(by_flag)), ("header", Box::new(by_header))];
    check(include_str!("request_ids.txt"), &ways);
}

#[test]
fn namespaces() {
    let sandbox = &Sandbox::new();
    let by_argument = |text: &Text| {
        let server = Server::start([Reply::new(200, r#"{"documents":[]}"#)]);
        let call = Call::new(&["find", "--servers", &server.url, "--"]);
        asked(&server, call.word(text.os()).run(sandbox), |body| {
            let name = |field: &str| body[field].as_str().unwrap().to_owned();
            format!("{}.{}", name("database"), name("collection"))
        })
    };
    let by_body = |text: &Text| {
        let Some(dot) = text.0.iter().position(|byte| *byte == b'.') else {
            return Made::Impossible;
        };
        let string = |bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(text) => Value::from(text).to_string().into_bytes(),
            Err(_) => [b"\"", bytes, b"\""].concat(),
        };
        let body = [
            b"{\"database\": ".as_slice(),
            &string(&text.0[..dot]),
            b", \"collection\": ",
            &string(&text.0[dot + 1..]),
            b"}",
        ];
        act("find", &[], &body.concat()).made(|_| Made::Accepted)
    };
    let ways: [Way<'_>; 2] = [
        ("argument", Box::new(by_argument)),
        ("body", Box::new(by_body)),
    ];
    check(include_str!("namespaces.txt"), &ways);
}

#[test]
fn limits_and_skips() {
    let sandbox = &Sandbox::new();
    for (flag, field) in [("--limit=", "limit"), ("--skip=", "skip")] {
        let by_flag = |text: &Text| {
            let server = Server::start([Reply::new(200, r#"{"documents":[]}"#)]);
            let mut word = OsString::from(flag);
            word.push(text.os());
            let call = Call::new(&["find", "a.b", "--servers", &server.url]);
            asked(&server, call.word(&word).run(sandbox), |body| {
                match &body[field] {
                    Value::Number(number) => number.to_string(),
                    Value::Object(long) => long["$numberLong"].as_str().unwrap().to_owned(),
                    other => panic!("{other}"),
                }
            })
        };
        let by_body = |text: &Text| {
            let reply = act("find", &[], &body_with("nothing", field, &text.0));
            reply.made(|_| Made::Accepted)
        };
        let ways: [Way<'_>; 2] = [("flag", Box::new(by_flag)), ("body", Box::new(by_body))];
        check(include_str!("counts.txt"), &ways);
    }
}

#[test]
fn positions() {
    let cluster = Cluster::shared();
    let sandbox = &Sandbox::new().set("DRUMLINE_API_KEY", &cluster.info.api_key);
    let url = cluster.info.nodes[0].url.as_str();
    let by_flag = |text: &Text| {
        let mut word = OsString::from("--from=");
        word.push(text.os());
        let call = Call::new(&["log", "--servers", url]).word(&word);
        call.made(sandbox, |said| (said.status == 0).then_some(Made::Accepted))
    };
    let by_query = |text: &Text| {
        // Else it would be another request line.
        if text.has(b" \r\n\0") {
            return Made::Impossible;
        }
        let line = [b"GET /log?from=", text.0.as_slice(), b"&limit=1"].concat();
        let reply = send(&line, &[&key()], b"");
        match reply.status == 400 && reply.body.is_empty() {
            // No address of HTTP holds such a byte.
            true => Made::Impossible,
            false => reply.made(|_| Made::Accepted),
        }
    };
    let ways: [Way<'_>; 2] = [("flag", Box::new(by_flag)), ("query", Box::new(by_query))];
    check(include_str!("positions.txt"), &ways);
}

#[test]
fn keys_in_headers() {
    let key = &Cluster::shared().info.api_key;
    let with = |name: &'static str| {
        move |text: &Text| {
            let shown = text.0.clone();
            let value = String::from_utf8(shown).unwrap().replace("KEY", key);
            let header = format!("{name}{value}");
            let body = br#"{"database": "ways", "collection": "nothing"}"#;
            let reply = send(b"POST /action/findOne", &[header.as_bytes()], body);
            reply.made(|_| Made::Taken("KEY".to_owned()))
        }
    };
    let ways: [Way<'_>; 3] = [
        ("apiKey", Box::new(with("apiKey: "))),
        ("api-key", Box::new(with("api-key: "))),
        ("bearer", Box::new(with("Authorization: Bearer "))),
    ];
    check(include_str!("keys_in_headers.txt"), &ways);
}

#[test]
fn arguments_that_are_no_text_are_refused() {
    let sandbox = &Sandbox::new();
    let raw: OsString = {
        use std::os::unix::ffi::OsStringExt as _;
        OsString::from_vec(b"hunter\xff".to_vec())
    };
    let tables: [&[&str]; 9] = [
        &["get", "a.b", "?"],
        &["put", "a.b", "?", "{}"],
        &["put", "a.b", "1", "?"],
        &["find", "?"],
        &["find", "a.b", "?"],
        &["find", "a.b", "--sort", "?"],
        &["aggregate", "a.b", "?"],
        &["update", "a.b", "{}", "?"],
        &["?"],
    ];
    for words in tables {
        let words: Vec<&OsStr> = words
            .iter()
            .map(|word| {
                if *word == "?" {
                    raw.as_os_str()
                } else {
                    OsStr::new(word)
                }
            })
            .collect();
        let call = words
            .iter()
            .fold(Call::default(), |call, word| call.word(word));
        let said = call.run(sandbox).unwrap();
        assert_eq!(said.status, 2, "{words:?}: {said:#?}");
        assert_eq!(
            said.stderr.trim_end().lines().count(),
            1,
            "{words:?}: {said:#?}"
        );
        assert!(said.stdout.is_empty(), "{words:?}: {said:#?}");
    }
}
