//! What cannot be served is refused at the start with the reason, and what is wrong with a
//! connection is told where it is seen: by the one-shot command, in the node's log, in `/readyz` and
//! in the status.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use bson::doc;
use mongodb::Client;
use mongodb::options::{ClientOptions, Credential, ServerAddress};
use rustix::process::Signal;
use tokio::runtime::Runtime;

use crate::support::extra_node::{ExtraNode, free_address};
use crate::support::http::Http;
use crate::support::{Cluster, Outcome, Sandbox, eventually, kill, wait_for, wait_until};

/// Within this all is told, on a machine that is busy with other tests too.
const TOLD_MAX: Duration = Duration::from_secs(30);

/// A mongod of the test's own.
struct Mongod {
    process: Child,
    address: String,
}

impl Mongod {
    fn start(sandbox: &Sandbox, flags: &[&str]) -> Self {
        let address = free_address("127.0.0.1");
        let (_, port) = address.split_once(':').unwrap();
        let data = sandbox.path(&format!("mongod-{port}"));
        fs::create_dir_all(&data).unwrap();
        let process = sandbox
            .command(Cluster::mongod().to_str().unwrap())
            .args(["--bind_ip", "127.0.0.1", "--port", port, "--nounixsocket"])
            .args(["--wiredTigerCacheSizeGB", "0.25", "--dbpath"])
            .arg(&data)
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("mongod listens", || {
            std::net::TcpStream::connect(&address).is_ok()
        });
        Self { process, address }
    }

    fn uri(&self) -> String {
        format!("mongodb://{}/", self.address)
    }

    async fn client(&self) -> Client {
        straight(&self.address, None)
    }

    /// Initiates a set with this member first.
    async fn initiate(&self, config: bson::Document) {
        let client = self.client().await;
        let admin = client.database("admin");
        eventually("the set is initiated", async || {
            let initiate = doc! {"replSetInitiate": config.clone()};
            admin.run_command(initiate).await.ok()
        })
        .await;
        self.until_primary().await;
    }

    async fn until_primary(&self) {
        let client = self.client().await;
        eventually("it is primary", async || {
            let hello = client
                .database("admin")
                .run_command(doc! {"hello": 1})
                .await;
            hello
                .ok()?
                .get_bool("isWritablePrimary")
                .ok()?
                .then_some(())
        })
        .await;
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn straight(address: &str, login: Option<(&str, &str)>) -> Client {
    let mut options = ClientOptions::default();
    options.hosts = vec![ServerAddress::parse(address).unwrap()];
    options.direct_connection = Some(true);
    options.server_selection_timeout = Some(Duration::from_secs(5));
    options.credential = login.map(|(user, password)| {
        let credential = Credential::builder().username(user.to_owned());
        credential.password(password.to_owned()).build()
    });
    Client::with_options(options).unwrap()
}

/// A ground on which nothing can be served, and what is told of it.
struct Row<'a> {
    name: &'a str,
    uri: String,
    told: &'a [&'a str],
    /// Never shown.
    secret: Option<&'a str>,
}

fn get(sandbox: &Sandbox, uri: &str) -> Outcome {
    let command = sandbox
        .drumline(&["get", "ground.things", "1"])
        .env("DRUMLINE_MONGODB", uri)
        .output()
        .unwrap();
    Outcome {
        status: command.status.code().unwrap_or(-1),
        stdout: String::from_utf8(command.stdout).unwrap(),
        stderr: String::from_utf8(command.stderr).unwrap(),
    }
}

fn insert(sandbox: &Sandbox, uri: &str) -> Outcome {
    let mut command = sandbox.drumline(&["insert", "ground.things", "{}"]);
    let output = command.env("DRUMLINE_MONGODB", uri).output().unwrap();
    Outcome {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[track_caller]
fn assert_tells(row: &Row<'_>, place: &str, text: &str) {
    for part in row.told {
        assert!(
            text.contains(part),
            "{}, {place}: '{part}' is not in: {text}",
            row.name
        );
    }
    if let Some(secret) = row.secret {
        assert!(
            !text.contains(secret),
            "{}, {place} shows a secret",
            row.name
        );
    }
}

/// A node that is started on such a ground ends with the reason, and writes nothing.
#[track_caller]
fn refuses_to_start(sandbox: &Sandbox, row: &Row<'_>) {
    let begun = Instant::now();
    let address = free_address("127.0.0.1");
    let mut command = sandbox.drumline(&["serve", "--name", "n1", "--listen", &address]);
    let output = command
        .env("DRUMLINE_MONGODB", &row.uri)
        .env("DRUMLINE_API_KEY", "k".repeat(32))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}: {output:?}", row.name);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_tells(row, "serve", &text);
    assert!(
        begun.elapsed() < TOLD_MAX,
        "{}: {:?}",
        row.name,
        begun.elapsed()
    );
}

#[track_caller]
fn command_tells(sandbox: &Sandbox, row: &Row<'_>, status: i32) {
    let begun = Instant::now();
    for outcome in [get(sandbox, &row.uri), insert(sandbox, &row.uri)] {
        assert_eq!(outcome.status, status, "{}: {outcome:?}", row.name);
        assert_tells(row, "one-shot", &outcome.stderr);
    }
    println!(
        "{}: two commands told it in {:?}",
        row.name,
        begun.elapsed()
    );
    assert!(begun.elapsed() < TOLD_MAX, "{}", row.name);
}

/// A node that waits for such a ground says so, and serves when it is over.
fn node_tells(cluster: &Cluster, row: &Row<'_>) -> ExtraNode {
    let begun = Instant::now();
    let node = ExtraNode::start(cluster, "waits", &row.uri);
    node.until_listening();
    let runtime = Runtime::new().unwrap();
    let http = Http::new(&node.url, "no key");
    let told = wait_for("/readyz tells", || {
        let reply = runtime.block_on(http.get("/readyz"));
        let text = reply.text;
        (reply.status == 503 && text.contains(row.told[0])).then_some(text)
    });
    assert_tells(row, "/readyz", &told);
    let view = runtime.block_on(http.get("/status")).json();
    assert_tells(row, "/status", &view["faults"].to_string());
    assert_tells(row, "log", &node.said());
    let table = cluster
        .sandbox()
        .run(&["status", "--servers", &node.url, "-o", "table"]);
    assert_eq!(table.status, 3, "{table:?}");
    let table: Vec<_> = table.stdout.split_whitespace().collect();
    assert_tells(row, "status", &table.join(" "));
    assert_eq!(
        node.said().matches("cannot serve").count(),
        1,
        "{}",
        node.said()
    );
    println!("{}: a node told it in {:?}", row.name, begun.elapsed());
    assert!(begun.elapsed() < TOLD_MAX, "{}", row.name);
    node
}

/// A user with these roles, and the connection string of a cluster for it.
async fn user(cluster: &Cluster, name: &str, roles: Vec<bson::Document>) -> String {
    let uri = &cluster.info.mongodb_uri;
    let driver = Client::with_uri_str(uri).await.unwrap();
    let user = doc! {"createUser": name, "pwd": name, "roles": roles};
    driver.database("admin").run_command(user).await.unwrap();
    let (_, hosts) = uri.split_once('@').unwrap();
    format!("mongodb://{name}:{name}@{hosts}")
}

#[test]
fn a_connection_string_that_is_wrong_is_told_by_its_fault() {
    let cluster = Cluster::shared();
    let sandbox = cluster.sandbox();
    let uri = &cluster.info.mongodb_uri;
    let (login, hosts) = uri.split_once('@').unwrap();
    let (members, _) = hosts.split_once('/').unwrap();
    let (user_name, _) = login
        .trim_start_matches("mongodb://")
        .split_once(':')
        .unwrap();
    let runtime = Runtime::new().unwrap();
    let reads = doc! {"role": "readAnyDatabase", "db": "admin"};
    let reader = runtime.block_on(user(cluster, "reads-only", vec![reads]));
    let view = runtime
        .block_on(Http::new(&cluster.info.nodes[0].url, "no key").get("/status"))
        .json();
    let members_seen = view["members"].as_array().unwrap();
    let secondary = members_seen
        .iter()
        .find(|member| member["state"] == "secondary");
    let secondary = secondary.unwrap()["host"].as_str().unwrap();
    let (_, node) = cluster.info.nodes[0].url.split_once("//").unwrap();
    let free = free_address("127.0.0.1");

    let permanent = [
        Row {
            name: "a wrong password",
            uri: format!("mongodb://{user_name}:wrong-secret@{hosts}"),
            told: &["refuses the login", "password"],
            secret: Some("wrong-secret"),
        },
        Row {
            name: "an unknown user",
            uri: format!("mongodb://nobody:wrong-secret@{hosts}"),
            told: &["refuses the login", "the user"],
            secret: Some("wrong-secret"),
        },
        Row {
            name: "no login",
            uri: format!("mongodb://{hosts}"),
            told: &["demands a login"],
            secret: None,
        },
        Row {
            name: "a wrong replicaSet",
            uri: format!("{login}@{members}/?replicaSet=other"),
            told: &["belongs to the replica set", "replicaSet=other"],
            secret: None,
        },
        Row {
            name: "a direct connection to a secondary",
            uri: format!("{login}@{secondary}/?directConnection=true"),
            told: &["directConnection=true", "is a secondary"],
            secret: None,
        },
        Row {
            name: "no right to write the log",
            uri: reader,
            told: &["may not insert, update", "database 'drumline'", "readWrite"],
            secret: None,
        },
        Row {
            name: "a port that speaks HTTP",
            uri: format!("{login}@{node}/?replicaSet=x"),
            told: &["is not MongoDB", "HTTP"],
            secret: None,
        },
        Row {
            name: "TLS that nobody speaks",
            uri: format!(
                "{uri}{}tls=true",
                if uri.contains('?') { "&" } else { "/?" }
            ),
            told: &["tls=true", "does not speak TLS"],
            secret: None,
        },
    ];
    for row in &permanent {
        // A node on these serves causal reads, and says what it cannot do.
        match row.name {
            "no right to write the log" | "a direct connection to a secondary" => {
                node_tells(cluster, row);
            }
            _ => refuses_to_start(sandbox, row),
        }
        // To read is all that the reader may do.
        if row.name == "no right to write the log" {
            let outcome = insert(sandbox, &row.uri);
            assert_eq!(outcome.status, 1, "{outcome:?}");
            assert_tells(row, "one-shot", &outcome.stderr);
        } else {
            command_tells(sandbox, row, 1);
        }
    }

    let passing = [
        Row {
            name: "an unknown host",
            uri: "mongodb://no-such-host.invalid:1/?replicaSet=x".into(),
            told: &["no-such-host.invalid:1 is an unknown host"],
            secret: None,
        },
        Row {
            name: "nobody listens",
            uri: format!("{login}@{free}/?replicaSet=x"),
            told: &["refuses connections"],
            secret: None,
        },
    ];
    for row in &passing {
        command_tells(sandbox, row, 4);
        node_tells(cluster, row);
    }
}

#[test]
fn a_mongod_that_cannot_be_served_is_refused_and_what_may_pass_is_waited_for() {
    let cluster = Cluster::shared();
    let sandbox = cluster.sandbox();
    let runtime = Runtime::new().unwrap();

    let alone = Mongod::start(sandbox, &[]);
    let standalone = Row {
        name: "a standalone mongod",
        uri: alone.uri(),
        told: &["is a standalone mongod", "rs.initiate()"],
        secret: None,
    };
    refuses_to_start(sandbox, &standalone);
    command_tells(sandbox, &standalone, 1);
    let names = runtime.block_on(async {
        let client = alone.client().await;
        client.list_database_names().await.unwrap()
    });
    assert!(!names.contains(&"drumline".to_owned()), "{names:?}");
    drop(alone);

    tls_on_one_side_only(sandbox);
    let set = Mongod::start(sandbox, &["--replSet", "own"]);
    let waits = Row {
        name: "a set that is not initiated",
        uri: set.uri(),
        told: &["is not initiated", "rs.initiate()"],
        secret: None,
    };
    command_tells(sandbox, &waits, 4);
    let node = node_tells(cluster, &waits);
    let config = |journal: bool, version: i32| {
        doc! {
            "_id": "own", "version": version, "writeConcernMajorityJournalDefault": journal,
            "members": [{"_id": 0, "host": &set.address}],
        }
    };
    runtime.block_on(set.initiate(config(true, 1)));
    let http = Http::new(&node.url, "no key");
    wait_until("the node serves when the ground is there", || {
        runtime.block_on(http.get("/readyz")).status == 200
    });
    let view = runtime.block_on(http.get("/status")).json();
    assert!(view.get("faults").is_none(), "{view:#}");

    // Under a running node it is told, and the node goes on.
    runtime.block_on(async {
        let admin = set.client().await.database("admin");
        let change = doc! {"replSetReconfig": config(false, 2)};
        admin.run_command(change).await.unwrap();
    });
    wait_until("a running node tells it within its minute", || {
        let reply = runtime.block_on(http.get("/readyz"));
        reply.status == 503 && reply.text.contains("writeConcernMajorityJournalDefault")
    });
    drop(node);
    let forgets = Row {
        name: "a majority that may forget",
        uri: set.uri(),
        told: &["writeConcernMajorityJournalDefault: false", "rs.reconfig()"],
        secret: None,
    };
    refuses_to_start(sandbox, &forgets);
    let outcome = insert(sandbox, &forgets.uri);
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert_tells(&forgets, "one-shot", &outcome.stderr);

    runtime.block_on(async {
        let admin = set.client().await.database("admin");
        let change = doc! {"replSetReconfig": config(true, 3)};
        admin.run_command(change).await.unwrap();
        let older = doc! {"setFeatureCompatibilityVersion": "5.0"};
        admin.run_command(older).await.unwrap();
    });
    let old = Row {
        name: "a set held to old behaviour",
        uri: set.uri(),
        told: &["featureCompatibilityVersion", "5.0"],
        secret: None,
    };
    refuses_to_start(sandbox, &old);
}

fn tls_on_one_side_only(sandbox: &Sandbox) {
    let certificate = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/data/mongod.pem");
    let flags = [
        "--replSet",
        "tls",
        "--tlsMode",
        "requireTLS",
        "--tlsCertificateKeyFile",
    ];
    let flags = [&flags[..], &[certificate]].concat();
    let mongod = Mongod::start(sandbox, &flags);
    let demanded = Row {
        name: "TLS that the server demands",
        uri: mongod.uri(),
        told: &["speaks TLS alone", "tls=true"],
        secret: None,
    };
    let unknown = Row {
        name: "a certificate that nobody vouches for",
        uri: format!("{}?tls=true", mongod.uri()),
        told: &["the TLS connection to", "certificate", "tlsCAFile"],
        secret: None,
    };
    for row in [demanded, unknown] {
        refuses_to_start(sandbox, &row);
        command_tells(sandbox, &row, 1);
    }
    // With TLS on both sides it is looked at like any other.
    let uri = format!("{}?tls=true&tlsAllowInvalidCertificates=true", mongod.uri());
    let outcome = get(sandbox, &uri);
    assert!(outcome.stderr.contains("is not initiated"), "{outcome:?}");
}

#[test]
fn an_arbiter_that_keeps_a_primary_without_a_majority_is_told() {
    let cluster = Cluster::shared();
    let sandbox = cluster.sandbox();
    let runtime = Runtime::new().unwrap();
    let members: Vec<_> = (0..3)
        .map(|_| Mongod::start(sandbox, &["--replSet", "psa"]))
        .collect();
    runtime.block_on(members[0].initiate(doc! {
        "_id": "psa",
        "settings": {"heartbeatIntervalMillis": 500, "heartbeatTimeoutSecs": 2},
        "members": [
            {"_id": 0, "host": &members[0].address, "priority": 2},
            {"_id": 1, "host": &members[1].address},
            {"_id": 2, "host": &members[2].address, "arbiterOnly": true},
        ],
    }));
    let uri = format!("mongodb://{}/?replicaSet=psa", members[0].address);
    let node = ExtraNode::start(cluster, "psa", &uri);
    node.until_listening();
    let http = Http::new(&node.url, "no key");
    wait_until("the node serves", || {
        runtime.block_on(http.get("/readyz")).status == 200
    });
    let lost = members[1].process.id();
    kill(lost, Signal::STOP);
    let told = wait_for("the node tells it within its minute", || {
        let reply = runtime.block_on(http.get("/readyz"));
        let text = reply.text;
        (reply.status == 503 && text.contains("arbiters hold no data")).then_some(text)
    });
    assert!(
        told.contains("2 members that vote and hold data are needed"),
        "{told}"
    );
    assert!(told.contains("1 of them are up"), "{told}");
    kill(lost, Signal::CONT);
    wait_until("it is over when the member is back", || {
        runtime.block_on(http.get("/readyz")).status == 200
    });
}

#[test]
fn a_user_who_loses_rights_and_then_the_login_under_a_running_node_is_told() {
    let cluster = Cluster::start(&["--nodes", "0", "--members", "1"]);
    let runtime = Runtime::new().unwrap();
    let any = doc! {"role": "readWriteAnyDatabase", "db": "admin"};
    let uri = runtime.block_on(user(&cluster, "passing", vec![any]));
    let node = ExtraNode::start(&cluster, "n1", &uri);
    node.until_listening();
    let http = Http::new(&node.url, "no key");
    let ready = || runtime.block_on(http.get("/readyz"));
    wait_until("the node serves", || ready().status == 200);
    let change = |command: bson::Document| {
        runtime.block_on(async {
            let driver = Client::with_uri_str(&cluster.info.mongodb_uri)
                .await
                .unwrap();
            driver.database("admin").run_command(command).await.unwrap();
        });
    };
    let reads = doc! {"role": "readAnyDatabase", "db": "admin"};
    change(doc! {"updateUser": "passing", "roles": [reads]});
    wait_until("that it may not write is told within its minute", || {
        let reply = ready();
        reply.status == 503 && reply.text.contains("may not insert, update")
    });
    change(doc! {"dropUser": "passing"});
    wait_until("that nobody knows it is told within its minute", || {
        let reply = ready();
        reply.status == 503 && reply.text.contains("refuses the login")
    });
    let log = node.said();
    assert_eq!(log.matches("refuses the login").count(), 1, "{log}");
    let again = doc! {"role": "readWriteAnyDatabase", "db": "admin"};
    change(doc! {"createUser": "passing", "pwd": "passing", "roles": [again]});
    // Its connections are the old user's; that nobody lets them in again is not for it to mend.
    wait_until(
        "that it is to be restarted is told within its minute",
        || ready().text.contains("restart the node"),
    );
    drop(node);
    let node = ExtraNode::start(&cluster, "n1", &uri);
    node.until_listening();
    let http = Http::new(&node.url, "no key");
    wait_until("it serves when it is started anew", || {
        runtime.block_on(http.get("/readyz")).status == 200
    });
}
