//! What a page in a browser can make of a node: nothing for another site, and nothing by a name that
//! is not the node's.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use tokio::runtime::Runtime;

use crate::support::extra_node::{ExtraNode, free_address};
use crate::support::http::Http;
use crate::support::{Cluster, PATIENCE};

/// What needs no key.
const OPEN: [&str; 5] = ["/status", "/metrics", "/livez", "/readyz", "/openapi.json"];
const REBOUND: &str = "evil.example:7401";

/// The status and the text of a raw request; `head` has all headers but those of the body.
fn ask(address: &str, line: &str, head: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let request =
        format!("{line}\r\n{head}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let status = reply.split(' ').nth(1).unwrap().parse().unwrap();
    (status, reply)
}

fn get(address: &str, path: &str, head: &str) -> (u16, String) {
    ask(address, &format!("GET {path} HTTP/1.1"), head, "")
}

#[test]
fn a_page_that_leads_its_own_name_to_a_node_reads_nothing() {
    let cluster = Cluster::shared();
    let address = cluster.info.nodes[0].url.trim_start_matches("http://");
    let port = address.rsplit(':').next().unwrap();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(Http::to(cluster).until_ready());
    for path in OPEN {
        let (status, text) = get(address, path, &format!("Host: {REBOUND}\r\n"));
        assert_eq!(status, 421, "{path}: {text}");
        assert!(text.contains("evil.example"), "{path}: {text}");
        assert!(text.contains("--allow-host"), "{path}: {text}");
        assert!(!text.contains("n1"), "{path}: {text}");
        // The same site to the browser, which sends what it sends to the page's own host.
        let own = format!("Host: {REBOUND}\r\nOrigin: http://{REBOUND}\r\n");
        assert_eq!(get(address, path, &own).0, 421, "{path}");
        assert_eq!(get(address, path, "").0, 421, "{path} without a host");
        for host in [
            address,
            &format!("localhost:{port}"),
            "localhost",
            "[::1]:7401",
        ] {
            let (status, text) = get(address, path, &format!("Host: {host}\r\n"));
            assert_eq!(status, 200, "{path} at {host}: {text}");
        }
        let old = ask(address, &format!("GET {path} HTTP/1.0"), "", "");
        assert_eq!(old.0, 200, "{path} of a program that names no host");
    }
}

#[test]
fn a_page_of_another_site_is_refused_everywhere_and_a_program_is_not() {
    let cluster = Cluster::shared();
    let address = cluster.info.nodes[0].url.trim_start_matches("http://");
    let runtime = Runtime::new().unwrap();
    let key = &cluster.info.api_key;
    let action = |head: &str, id: &str| {
        let head = format!("Host: {address}\r\napiKey: {key}\r\n{head}");
        let body = format!(
            r#"{{"database": "browser", "collection": "c", "document": {{"_id": "{id}"}}}}"#
        );
        ask(address, "POST /action/insertOne HTTP/1.1", &head, &body)
    };
    for head in [
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n",
    ] {
        for path in OPEN.into_iter().chain(["/log", "/nowhere"]) {
            let (status, text) = get(address, path, &format!("Host: {address}\r\n{head}"));
            assert_eq!(status, 403, "{path}, {head}: {text}");
            assert!(text.contains("may not use this node"), "{path}: {text}");
        }
        let (status, text) = action(head, "refused");
        assert_eq!(status, 403, "{head}: {text}");
    }
    let of_node = format!("Origin: http://{address}\r\nSec-Fetch-Site: same-origin\r\n");
    for (head, id) in [("", "program"), (&of_node, "own page")] {
        let (status, text) = action(head, id);
        assert_eq!(status, 201, "{head}: {text}");
    }
    let found = serde_json::json!({"database": "browser", "collection": "c", "filter": {}});
    let found = runtime.block_on(Http::to(cluster).act("find", &found));
    let found = found.expect(200).json();
    let documents = found["documents"].as_array().unwrap();
    assert_eq!(documents.len(), 2, "{found}");
}

#[test]
fn a_node_is_asked_by_the_names_that_it_is_given() {
    let cluster = Cluster::start(&["--nodes", "0", "--members", "1"]);
    let file = cluster.sandbox().path("node.toml");
    fs::write(&file, "allow_hosts = [\"file.example\", \"two.example\"]\n").unwrap();
    let uri = &cluster.info.mongodb_uri;
    let start = |name: &str, more: &dyn Fn(&mut std::process::Command)| {
        let address = free_address("127.0.0.1");
        let node = ExtraNode::start_with(&cluster, name, uri, &address, more);
        node.until_listening();
        (node, address)
    };
    let (_flag, by_flag) = start("by-flag", &|command| {
        command.args([
            "--allow-host",
            "Flag.example",
            "--allow-host",
            "two.example.",
        ]);
        command.args(["--url", "https://front.example/db"]);
    });
    let (_env, by_env) = start("by-env", &|command| {
        command.env("DRUMLINE_ALLOW_HOSTS", "env.example, two.example");
    });
    let (_file, by_file) = start("by-file", &|command| {
        command.arg("--config").arg(&file);
    });
    let status = |address: &str, host: &str| get(address, "/livez", &format!("Host: {host}\r\n")).0;
    for (address, names) in [
        (
            &by_flag,
            [
                "flag.example:7401",
                "two.example",
                "front.example",
                "by-flag",
            ],
        ),
        (
            &by_env,
            ["env.example", "two.example:1", "localhost", "by-env"],
        ),
        (
            &by_file,
            ["file.example", "TWO.example", "127.0.0.9", "by-file"],
        ),
    ] {
        for name in names {
            assert_eq!(status(address, name), 200, "{name}");
        }
        for name in ["other.example", "sub.two.example", "10.0.0.1"] {
            assert_eq!(status(address, name), 421, "{name}");
        }
    }
    let page = format!("Host: {by_flag}\r\nOrigin: https://flag.example\r\n");
    assert_eq!(get(&by_flag, "/livez", &page).0, 200, "a page that may");

    for (wrong, why) in [
        ("http://a", "scheme"),
        ("a:7401", "port"),
        ("*.example", "each name"),
    ] {
        let outcome = cluster
            .sandbox()
            .run(&["serve", "--name", "n", "--allow-host", wrong]);
        assert_eq!(outcome.status, 2, "{outcome:?}");
        assert!(outcome.stderr.contains(why), "{outcome:?}");
    }
}
