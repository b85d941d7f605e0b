//! What is there twice leaves open which counts: it is refused.

use super::program::{Call, file};
use super::requests::{key, send};
use crate::support::Sandbox;

#[test]
fn a_flag() {
    let sandbox = &Sandbox::new();
    let node: &[&str] = &["serve", "--name", "n1", "--listen", "127.0.0.1:0"];
    let find: &[&str] = &["find", "a.b"];
    let tables: [(&[&str], &[&str]); 13] = [
        (find, &["--timeout", "5s"]),
        (find, &["--limit", "5"]),
        (find, &["--read", "causal"]),
        (find, &["--output", "json"]),
        (find, &["--name", "x"]),
        (find, &["--api-key-file", "/dev/null"]),
        (find, &["--mongodb", "mongodb://ada:hunter2@a"]),
        (&["insert", "a.b", "{}"], &["--request-id", "r"]),
        (node, &["--dwell", "5s"]),
        (node, &["--mongodb", "mongodb://ada:hunter2@a"]),
        (node, &["--cluster", "x"]),
        (node, &["--missed-heartbeats", "5"]),
        (node, &["--url", "http://127.0.0.1:1"]),
    ];
    for (words, flag) in tables {
        let said = Call::new(&[words, flag, flag].concat())
            .run(sandbox)
            .unwrap();
        assert_eq!(said.status, 2, "{flag:?}: {said:#?}");
        let told = &said.stderr;
        assert!(
            told.contains("cannot be used multiple times"),
            "{flag:?}: {told}"
        );
        assert!(!told.contains("hunter"), "{told}");
    }
}

#[test]
fn a_peer() {
    let sandbox = &Sandbox::new();
    let peer = ["--peer", "n2=http://127.0.0.1:1"];
    let node = ["serve", "--name", "n1", "--listen", "127.0.0.1:0"];
    let said = Call::new(&[&node[..], &peer, &peer].concat()).run(sandbox);
    assert!(said.unwrap().stderr.contains("the peer n2 is named twice"));
}

#[test]
fn a_key_of_a_settings_file() {
    let sandbox = &Sandbox::new();
    for line in [
        "timeout = \"5s\"",
        "api_key = \"hunter2\"",
        "peers.n2 = \"http://127.0.0.1:1\"",
    ] {
        let config = file(sandbox, format!("{line}\n{line}\n").as_bytes());
        let call = Call::new(&["status"]);
        let said = call
            .variable("DRUMLINE_CONFIG", config.as_os_str())
            .run(sandbox);
        let said = said.unwrap();
        assert_eq!(said.status, 2, "{line}: {said:#?}");
        let told = said.stderr;
        assert!(
            told.contains(":2: duplicate key") && !told.contains("hunter"),
            "{told}"
        );
    }
}

#[test]
fn a_header() {
    let body = br#"{"database": "ways", "collection": "twice"}"#;
    for header in [
        "Idempotency-Key: a",
        "Drumline-Stamp: 1",
        "Drumline-Token: 1.1",
        "Drumline-Read: causal",
        "Drumline-Show-Stamp: true",
        "Content-Type: application/json",
        "api-key: x",
        "Authorization: Bearer x",
    ] {
        let key = key();
        let reply = send(
            b"POST /action/findOne",
            &[&key, header.as_bytes(), header.as_bytes()],
            body,
        );
        assert_eq!(reply.status, 400, "{header}: {reply:#?}");
        let error = reply.json()["error"].as_str().unwrap().to_owned();
        assert!(error.ends_with("is there twice"), "{header}: {error}");
    }
    let (one, other) = (key(), key());
    let reply = send(b"POST /action/findOne", &[&one, &other], body);
    assert_eq!(reply.status, 400, "{reply:#?}");
}

#[test]
fn a_name_in_a_query() {
    for query in ["from=1&from=2", "limit=1&from=1&limit=1"] {
        let line = format!("GET /log?{query}");
        let reply = send(line.as_bytes(), &[&key()], b"");
        assert_eq!(reply.status, 400, "{query}: {reply:#?}");
        assert!(reply.body.contains("is there twice"), "{query}: {reply:#?}");
    }
}
