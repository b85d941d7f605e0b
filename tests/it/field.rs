//! What real clients send, and what real shells hand over: taken, or refused with the reason.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Stdio;

use bson::doc;
use hyper::body::Bytes;
use mongodb::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::support::http::Http;
use crate::support::{Cluster, Sandbox};

const BYTE_ORDER_MARK: &str = "\u{feff}";

fn block_on(test: impl Future<Output = ()>) {
    Runtime::new().unwrap().block_on(test);
}

/// Sends a body as it is written here, to the collection `field.c`.
async fn send(action: &str, fields: &str) -> (u16, String) {
    let http = Http::to(Cluster::shared());
    let body = format!(r#"{{"database":"field","collection":"c",{fields}}}"#);
    let reply = http.act_bytes(action, &[], Bytes::from(body)).await;
    (reply.status, reply.text)
}

#[test]
fn what_clients_send_is_taken() {
    block_on(async {
        let rows = [
            ("findOne", r#""filter":null,"projection":null"#, 200),
            (
                "find",
                r#""filter":null,"projection":null,"sort":null,"limit":null"#,
                200,
            ),
            ("deleteMany", r#""filter":null"#, 400),
            (
                "insertOne",
                r#""document":{"d":{"$date":"2021-12-03T16:15:10.000+0000"}}"#,
                201,
            ),
            (
                "insertOne",
                r#""document":{"d":{"$date":"2021-12-03T18:15:10+0200"}}"#,
                201,
            ),
            (
                "insertOne",
                r#""document":{"d":{"$date":"2021-12-03T10:45:10.5-0530"}}"#,
                201,
            ),
            (
                "insertOne",
                r#""document":{"d":{"$date":"2021-12-03T10:45:10+9900"}}"#,
                400,
            ),
            (
                "insertOne",
                r#""document":{"b":{"$binary":"AAECAw==","$type":"00"}}"#,
                201,
            ),
            (
                "insertOne",
                r#""document":{"b":{"$binary":"AAECAw==","$type":"80"}}"#,
                201,
            ),
            (
                "insertOne",
                r#""document":{"b":{"$binary":"AAECAw==","$type":"xyz"}}"#,
                400,
            ),
            ("insertOne", r#""document":{"a":1,"a":2}"#, 400),
            ("insertOne", r#""document":{"n":12345678901234567891}"#, 400),
        ];
        for (action, fields, status) in rows {
            let (got, text) = send(action, fields).await;
            assert_eq!(got, status, "{action} {fields}: {text}");
        }
        let http = Http::to(Cluster::shared());
        let body = r#"{"database":"field","collection":"c","filter":{}}"#;
        let body = format!("{BYTE_ORDER_MARK}{body}");
        http.act_bytes("findOne", &[], Bytes::from(body))
            .await
            .expect(200);
    });
}

/// One request on a connection of its own, sent to its end before the reply is read.
async fn exchange(request: Vec<u8>) -> String {
    let url = &Cluster::shared().info.nodes[0].url;
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&request).await.unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.unwrap();
    String::from_utf8(reply).unwrap()
}

fn post(path: &str, key: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: node\r\napiKey: {key}\r\ncontent-type: {content_type}\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn paths_that_were_joined_carelessly_are_found() {
    block_on(async {
        let key = &Cluster::shared().info.api_key;
        let body = br#"{"database":"field","collection":"c","filter":{}}"#;
        for path in [
            "/app/x/endpoint/data/v1//action/findOne",
            "//action/findOne",
            "/action/findOne/",
        ] {
            let reply = exchange(post(path, key, "application/json", body)).await;
            assert!(reply.starts_with("HTTP/1.1 200"), "{path}: {reply}");
        }
    });
}

#[test]
fn a_refusal_reaches_a_client_that_sends_all_of_its_body_first() {
    block_on(async {
        let key = &Cluster::shared().info.api_key;
        let body = vec![b'x'; 8 << 20];
        let json = "application/json";
        for (request, status) in [
            (post("/action/insertOne", "wrong", json, &body), "401"),
            (post("/nope", key, json, &body), "404"),
            (post("/action/insertOne", key, "text/plain", &body), "415"),
        ] {
            let reply = exchange(request).await;
            assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{reply}");
            let scheme = reply.to_lowercase().contains("www-authenticate");
            assert_eq!(scheme, status == "401", "{reply}");
        }
    });
}

#[test]
fn a_validator_that_takes_no_other_field_is_explained() {
    block_on(async {
        let driver = Client::with_uri_str(&Cluster::shared().info.mongodb_uri)
            .await
            .unwrap();
        let schema = doc! {
            "required": ["a"], "properties": {"_id": {}, "a": {}}, "additionalProperties": false,
        };
        let database = driver.database("field");
        let create = database.create_collection("strict");
        create
            .validator(doc! {"$jsonSchema": schema})
            .await
            .unwrap();
        let http = Http::to(Cluster::shared());
        let body = r#"{"database":"field","collection":"strict","document":{"a":1}}"#;
        let reply = http
            .act_bytes("insertOne", &[], Bytes::from(body))
            .await
            .expect(400);
        assert!(reply.text.contains("_stamp"), "{}", reply.text);
    });
}

/// A user at a shell with the shared cluster.
fn shell() -> Sandbox {
    let cluster = Cluster::shared();
    Sandbox::new()
        .set("DRUMLINE_SERVERS", &cluster.info.nodes[0].url)
        .set("DRUMLINE_API_KEY", &cluster.info.api_key)
}

#[test]
fn the_command_line_refuses_a_key_that_stands_twice_as_http_does() {
    let shell = shell();
    let id = "field-twice";
    shell.ok(&["put", "field.cli", id, r#"{"a":2}"#]);
    let twice = format!(r#"{{"a":99,"_id":"{id}","a":2}}"#);
    let by_id = format!(r#"{{"_id":"{id}"}}"#);
    for arguments in [
        vec!["insert", "field.cli", r#"{"a":1,"a":2}"#],
        vec!["find", "field.cli", r#"{"a":99,"a":2}"#],
        vec![
            "update",
            "field.cli",
            &by_id,
            r#"{"$set":{"x":1},"$set":{"y":1}}"#,
        ],
        vec!["delete", "field.cli", &twice],
    ] {
        let outcome = shell.run(&arguments);
        assert_eq!(outcome.status, 2, "{arguments:?}: {outcome:?}");
    }
    let kept = shell.ok(&["get", "field.cli", id, "-o", "jsonl"]);
    assert!(kept.stdout.contains(r#""a":2"#), "{kept:?}");
}

#[test]
fn two_numbers_of_twenty_digits_are_not_one_document() {
    let shell = shell();
    for id in ["12345678901234567891", "12345678901234567892"] {
        let outcome = shell.run(&["put", "field.long", id, r#"{"v":1}"#]);
        assert_eq!(outcome.status, 2, "{outcome:?}");
        assert!(outcome.stderr.contains(id), "{outcome:?}");
    }
}

#[test]
fn marks_and_newlines_around_what_a_file_or_a_variable_holds_are_no_part_of_it() {
    let shell = shell();
    shell.ok(&["put", "field.c", "x1", r#"{"a":1}"#]);
    let mut insert = shell
        .drumline(&["insert", "field.c", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let line = format!("{BYTE_ORDER_MARK}{{\"a\":1}}\n");
    insert
        .stdin
        .take()
        .unwrap()
        .write_all(line.as_bytes())
        .unwrap();
    assert!(insert.wait().unwrap().success());

    let cluster = Cluster::shared();
    let file = shell.path("key");
    fs::write(
        &file,
        format!("{BYTE_ORDER_MARK}{}\r\n", cluster.info.api_key),
    )
    .unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let by_file = Sandbox::new().set("DRUMLINE_SERVERS", &cluster.info.nodes[0].url);
    by_file.ok(&[
        "get",
        "field.c",
        "x1",
        "--api-key-file",
        file.to_str().unwrap(),
    ]);

    let uri = format!("{}\n", cluster.info.mongodb_uri);
    let straight = Sandbox::new().set("DRUMLINE_MONGODB", uri);
    straight.ok(&["get", "field.c", "x1"]);
}

#[test]
fn a_relative_path_to_mongod_is_meant_from_where_it_was_typed() {
    let folder = Sandbox::new();
    symlink(Cluster::mongod(), folder.path("mongod")).unwrap();
    let sandbox = Sandbox::new().set("DRUMLINE_MONGOD", "./mongod");
    let ready = sandbox.path("ready");
    let arguments = [
        "up",
        "--name",
        "relative",
        "--members",
        "1",
        "--nodes",
        "1",
        "--base-port",
        "0",
        "--ephemeral",
        "--detach",
        "--ready-file",
        ready.to_str().unwrap(),
    ];
    let up = sandbox
        .drumline(&arguments)
        .current_dir(folder.folder())
        .output()
        .unwrap();
    assert!(
        up.status.success(),
        "{}",
        String::from_utf8_lossy(&up.stderr)
    );
    sandbox.ok(&["down", "--name", "relative"]);
}

#[test]
fn a_document_comes_back_with_its_stamp_and_gets_another() {
    let shell = shell();
    shell.ok(&["put", "field.round", "x", r#"{"a":1}"#]);
    let read = shell.ok(&["get", "field.round", "x", "-o", "jsonl"]);
    assert!(read.stdout.contains("_stamp"), "{read:?}");
    let document = read.stdout.trim();
    shell.ok(&["replace", "field.round", r#"{"_id":"x"}"#, document]);
    let again = shell.ok(&["get", "field.round", "x", "-o", "jsonl"]);
    assert_ne!(again.stdout, read.stdout, "it was stamped anew");
    let update = r#"{"$set":{"_stamp":1}}"#;
    let named = shell.run(&["update", "field.round", r#"{"_id":"x"}"#, update]);
    assert!(
        named.status != 0 && named.stderr.contains("_stamp"),
        "{named:?}"
    );

    block_on(async {
        let key = &Cluster::shared().info.api_key;
        let body = br#"{"database":"field","collection":"round","filter":{}}"#;
        let path = "/app/x/endpoint/data/v1/action/findOne";
        let reply = exchange(post(path, key, "application/json", body)).await;
        assert!(
            reply.starts_with("HTTP/1.1 200") && !reply.contains("_stamp"),
            "{reply}"
        );
        let short = exchange(post("/action/findOne", key, "application/json", body)).await;
        assert!(short.contains("_stamp"), "{short}");
    });
}
