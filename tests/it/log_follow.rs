//! Those who follow the log: many share one look at its end, slow ones harm nobody, and none keeps a
//! node from ending.

use bson::{Document, doc};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use mongodb::Client;
use rustix::process::Signal;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::extra_node::ExtraNode;
use crate::support::http::Http;
use crate::support::{Cluster, PATIENCE, eventually, kill};

const FOLLOWERS: usize = 300;
const WRITES: usize = 20;

/// A stream of one node, read frame by frame.
pub struct Raw {
    body: Incoming,
    text: String,
}

impl Raw {
    pub async fn open(url: &str, key: &str, path: &str) -> Result<Self, (u16, String)> {
        let client = HttpClient::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let request = Request::get(format!("{url}{path}"))
            .header("apiKey", key)
            .header("accept", "text/event-stream")
            .body(Full::default())
            .unwrap();
        let reply = client.request(request).await.unwrap();
        let (head, body) = reply.into_parts();
        if head.status == 200 {
            assert_eq!(head.headers["content-type"], "text/event-stream");
            return Ok(Self {
                body,
                text: String::new(),
            });
        }
        let text = body.collect().await.unwrap().to_bytes();
        Err((
            head.status.as_u16(),
            String::from_utf8(text.to_vec()).unwrap(),
        ))
    }

    /// Reads until the text holds this, or to the end.
    async fn until(&mut self, part: &str) -> bool {
        let reading = async {
            while !self.text.contains(part) {
                let Some(Ok(frame)) = self.body.frame().await else {
                    return false;
                };
                let bytes = frame.into_data().unwrap_or_default();
                self.text.push_str(str::from_utf8(&bytes).unwrap());
            }
            true
        };
        timeout(PATIENCE, reading)
            .await
            .expect("the stream goes on or ends")
    }

    fn ids(&self) -> Vec<i64> {
        let ids = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("id: "));
        ids.map(|id| id.parse().unwrap()).collect()
    }
}

async fn write(http: &Http) -> i64 {
    let one = json!({"database": "shop", "collection": "followed", "document": {}});
    let reply = http.act("insertOne", &one).await.expect(201);
    reply.header("drumline-position").unwrap().parse().unwrap()
}

/// How many change streams a node has open in MongoDB.
pub async fn cursors(driver: &Client, node: &str) -> usize {
    let current = doc! {"$currentOp": {"allUsers": true, "idleCursors": true}};
    let of_node = doc! {"$match": {
        "appName": format!("drumline {node}"), "cursor.tailable": true,
    }};
    let admin = driver.database("admin");
    let mut found = admin.aggregate([current, of_node]).await.unwrap();
    let mut count = 0;
    while found.advance().await.unwrap() {
        count += 1;
    }
    count
}

#[test]
fn hundreds_share_one_look_at_the_logs_end_and_one_who_reads_nothing_harms_nobody() {
    Runtime::new().unwrap().block_on(async {
        let cluster = Cluster::start(&["--members", "1"]);
        let node = &cluster.info.nodes[0];
        let (url, key) = (node.url.as_str(), cluster.info.api_key.as_str());
        let http = Http::to(&cluster);
        let driver = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        let from = write(&http).await;
        let path = format!("/log?from={from}");
        let _reads_nothing = Raw::open(url, key, "/log").await.unwrap();
        let mut followers = JoinSet::new();
        for _ in 0..FOLLOWERS {
            let mut raw = Raw::open(url, key, &path).await.unwrap();
            assert!(raw.until(&format!("id: {from}\n")).await);
            followers.spawn(async move {
                let last = raw.until("\"n\":\"last\"").await;
                (raw, last)
            });
        }
        eventually("all share one cursor", async || {
            (cursors(&driver, &node.name).await == 1).then_some(())
        })
        .await;
        for _ in 0..WRITES {
            write(&http).await;
        }
        let last = json!({
            "database": "shop", "collection": "followed",
            "document": {"_id": {"n": "last"}},
        });
        let end = http.act("insertOne", &last).await.expect(201);
        let end: i64 = end.header("drumline-position").unwrap().parse().unwrap();
        while let Some(ended) = followers.join_next().await {
            let (raw, has_all) = ended.unwrap();
            assert!(has_all, "{}", raw.text);
            assert_eq!(raw.ids(), (from..=end).collect::<Vec<_>>());
        }
        drop(_reads_nothing);
        eventually("nobody follows, and the cursor is closed", async || {
            (cursors(&driver, &node.name).await == 0).then_some(())
        })
        .await;
    });
}

#[test]
fn a_stream_lives_in_silence_and_does_not_keep_a_node_from_ending() {
    Runtime::new().unwrap().block_on(async {
        let cluster = Cluster::shared();
        let mut node = ExtraNode::start(cluster, "leaves", &cluster.info.mongodb_uri);
        node.until_listening();
        let key = cluster.info.api_key.as_str();
        Http::new(&node.url, key).until_ready().await;
        let mut log = Raw::open(&node.url, key, "/log?from=999999999")
            .await
            .unwrap();
        let watch = "/watch?ns=shop.silent";
        let mut changes = Raw::open(&node.url, key, watch).await.unwrap();
        for _ in 0..3 {
            log.text.clear();
            assert!(log.until(":\n\n").await, "it says that it lives");
        }
        kill(node.pid(), Signal::TERM);
        assert!(log.until(": this node stops").await);
        assert!(changes.until(": this node stops").await);
        assert!(!log.until("nothing more").await, "it has ended");
        node.until_ended();
        assert!(
            !node.said().contains("closing connections that still run"),
            "{}",
            node.said()
        );
    });
}

#[test]
fn a_position_that_the_log_has_no_more_is_refused_with_the_one_that_it_has() {
    Runtime::new().unwrap().block_on(async {
        let cluster = Cluster::start(&["--members", "1"]);
        let (url, key) = (&cluster.info.nodes[0].url, cluster.info.api_key.as_str());
        let http = Http::to(&cluster);
        let last = write(&http).await;
        let driver = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        let log = driver.database("drumline").collection::<Document>("log");
        log.delete_many(doc! {"_id": {"$lt": last}}).await.unwrap();
        let Err((status, text)) = Raw::open(url, key, "/log?from=1").await else {
            panic!("it was streamed");
        };
        assert_eq!(status, 410, "{text}");
        assert!(
            text.contains(&format!("the first from there on is {last}")),
            "{text}"
        );
        // Who asks for no position gets what there is.
        let mut raw = Raw::open(url, key, "/log").await.unwrap();
        assert!(raw.until(&format!("id: {last}\n")).await);
        assert_eq!(raw.ids(), [last]);
        for wrong in ["/log?from=0", "/log?limit=5", "/log?from=x"] {
            let refused = Raw::open(url, key, wrong).await.err().unwrap();
            assert_eq!(refused.0, 400, "{wrong}: {}", refused.1);
        }
        let refused = Raw::open(url, "wrong", "/log").await.err().unwrap();
        assert_eq!(refused.0, 401);
    });
}
