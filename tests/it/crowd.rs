//! Connections on which nobody asks anything keep out neither peers nor clients.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::support::http::Http;
use crate::support::{Cluster, bar};

/// More than a node keeps open.
const IDLE: usize = 5_000;
const WRITES: usize = 10;
/// Readers of the log at the same time.
const READERS: usize = 32;

#[test]
fn thousands_of_idle_connections_keep_out_nobody() {
    let cluster = Cluster::start(&[]);
    Runtime::new().unwrap().block_on(async {
        let coordinator = cluster.coordinator().await;
        let url = &cluster.info.nodes[coordinator].url;
        let address: SocketAddr = url.trim_start_matches("http://").parse().unwrap();
        let direct = Http::new(url, &cluster.info.api_key);
        let other = (coordinator + 1) % cluster.info.nodes.len();
        let other = Http::new(&cluster.info.nodes[other].url, &cluster.info.api_key);
        let epoch = other.get("/status").await.json()["epoch"].clone();

        let mut crowd = Vec::new();
        let mut longest = Duration::ZERO;
        for at in 0..IDLE {
            let mut idle = TcpStream::connect(address).await.unwrap();
            if at % 2 == 0 {
                // The rest of the head never comes.
                let _ = idle.write_all(b"GET /sta").await;
            }
            crowd.push(idle);
            if at % (IDLE / WRITES) == IDLE / WRITES - 1 {
                longest = longest.max(write(&other).await).max(write(&direct).await);
            }
        }
        longest = longest.max(write(&other).await).max(write(&direct).await);
        println!("the longest write among {IDLE} idle connections took {longest:?}");
        assert!(longest < bar(2), "{longest:?}");
        let view = other.get("/status").await.json();
        assert_eq!(view["epoch"], epoch, "the coordinator changed: {view}");
        drop(crowd);
    });
}

async fn write(http: &Http) -> Duration {
    let began = Instant::now();
    let one = json!({"database": "crowd", "collection": "c", "document": {}});
    http.act("insertOne", &one).await.expect(201);
    began.elapsed()
}

#[test]
fn many_who_read_the_log_take_nothing_from_writes() {
    let cluster = Cluster::start(&Cluster::ONE_NODE);
    Runtime::new().unwrap().block_on(async {
        let http = Http::to(&cluster);
        for _ in 0..20 {
            write(&http).await;
        }
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                let (reader, stopped) = (http.clone(), stopped.clone());
                tokio::spawn(async move {
                    let mut done = 0;
                    while !*stopped.borrow() {
                        let reply = reader.get_with_key("/log?limit=1000").await;
                        assert!(matches!(reply.status, 200 | 429), "{reply:?}");
                        done += usize::from(reply.status == 200);
                    }
                    done
                })
            })
            .collect();
        // Big bodies: what they take in memory counts.
        let big = "x".repeat(1 << 20);
        let one = json!({"database": "crowd", "collection": "c", "document": {"text": big}});
        for _ in 0..40 {
            http.act("insertOne", &one).await.expect(201);
        }
        stop.send(true).unwrap();
        let mut read = 0;
        for reader in readers {
            read += reader.await.unwrap();
        }
        println!("{read} looks at the log while 40 writes of 1 MiB were done");
        assert!(read > 0);
    });
}
