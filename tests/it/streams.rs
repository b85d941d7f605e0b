//! Streams that are cut again and again show each event once, in order, and none is missing.

use std::fmt::Debug;
use std::time::Duration;

use bson::{Bson, Document, doc};
use drumline::client::Clock;
use mongodb::Client;
use rustix::process::Signal;
use tokio::runtime::Runtime;

use crate::support::http::Http;
use crate::support::load::{Load, Op};
use crate::support::stream::Stream;
use crate::support::{Cluster, eventually, kill, setting};

const NAMESPACE: &str = "shop.streamed";
const WRITERS: u64 = 16;
/// A writer's pause: the machine is shared, and what is shown is order.
const PACE: Duration = Duration::from_millis(30);
/// The document that is written last.
const END: &str = "the end";

/// Who cuts.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Kill -9 of the node that gives the stream of the log.
    NodeOfLog,
    /// The same of the changes.
    NodeOfChanges,
    /// Kill -9 of the primary.
    Primary,
    StepDown,
    /// The clients go and come back.
    Clients,
}

const CUTS: [Cut; 5] = [
    Cut::NodeOfLog,
    Cut::Clients,
    Cut::Primary,
    Cut::NodeOfChanges,
    Cut::StepDown,
];

/// A cluster under load, and the streams of what happens in it.
struct Streamed {
    cluster: Cluster,
    driver: Client,
    log: Stream,
    changes: Stream,
}

impl Streamed {
    async fn cut(&self, cut: Cut) {
        match cut {
            Cut::NodeOfLog => self.kill_node(self.log.server()).await,
            Cut::NodeOfChanges => self.kill_node(self.changes.server()).await,
            Cut::Primary => kill(self.cluster.primary_pid().await, Signal::KILL),
            Cut::StepDown => self.step_down().await,
            Cut::Clients => {
                self.log.close();
                self.changes.close();
            }
        }
    }

    async fn kill_node(&self, node: usize) {
        kill(self.cluster.node_pid(node), Signal::KILL);
        let node = &self.cluster.info.nodes[node];
        let node = Http::new(&node.url, &self.cluster.info.api_key);
        eventually("the node is back", async || {
            (node.status_of("/readyz").await == Some(200)).then_some(())
        })
        .await;
    }

    async fn step_down(&self) {
        let admin = self.driver.database("admin");
        eventually("the primary steps down", async || {
            let command = doc! {"replSetStepDown": 10, "secondaryCatchUpPeriodSecs": 5};
            admin.run_command(command).await.ok()
        })
        .await;
    }

    /// A write after which each stream is known to go on.
    async fn mark(&self, key: &str) {
        let load = Load::new(&self.cluster, NAMESPACE);
        let client = load.client(Duration::from_secs(5));
        eventually("a write is taken", async || {
            let op = Op::Put { key: key.into() };
            let record = load.one_request(&client, &Clock::default(), op).await;
            matches!(record.end, crate::support::load::End::Acknowledged(_)).then_some(())
        })
        .await;
        eventually("both streams show it", async || {
            self.log.assert_lives();
            self.changes.assert_lives();
            let in_log = self.log.has(|document| {
                let changes = Changes::of_entries(entries(std::slice::from_ref(document)));
                changes.stamped.iter().any(|(touched, _)| touched == key)
            });
            (in_log && self.changes.has(|event| key_of(event) == key)).then_some(())
        })
        .await;
    }

    async fn stored_log(&self) -> Vec<Document> {
        let log = self
            .driver
            .database("drumline")
            .collection::<Document>("log");
        let mut found = log.find(doc! {}).sort(doc! {"_id": 1}).await.unwrap();
        let mut documents = Vec::new();
        while found.advance().await.unwrap() {
            documents.push(found.deserialize_current().unwrap());
        }
        documents
    }
}

/// A change of a document: its key, and its stamp if the event tells one.
type Change = (String, Option<i64>);

/// The changes that log entries stand for: those that are deletions or tell their stamps; and
/// beside them the keys of updates, each of which is one more change, before that of its stamp.
#[derive(Debug, Default, PartialEq)]
struct Changes {
    stamped: Vec<Change>,
    updated: Vec<String>,
}

impl Changes {
    fn of_entries<'e>(entries: impl Iterator<Item = &'e Document>) -> Self {
        let mut changes = Self::default();
        for entry in entries {
            if entry.get_str("ns").unwrap() != NAMESPACE || entry.contains_key("error") {
                continue;
            }
            let op = entry.get_str("op").unwrap();
            let stamp = (!op.starts_with("delete")).then(|| entry.get_i64("t").unwrap());
            for key in entry.get_array("keys").unwrap() {
                let key = key.as_str().unwrap().to_owned();
                // One that made the document may have made it with its stamp.
                let made = entry
                    .get_document("result")
                    .unwrap()
                    .contains_key("upserted");
                if op == "updateOne" && !made {
                    changes.updated.push(key.clone());
                }
                changes.stamped.push((key, stamp));
            }
        }
        changes
    }

    fn of_events(events: &[Document]) -> Self {
        let mut changes = Self::default();
        for event in events {
            let stamp = event.get("stamp").and_then(Bson::as_i64);
            match (event.get_str("operationType").unwrap(), stamp) {
                ("delete", _) | (_, Some(_)) => changes.stamped.push((key_of(event), stamp)),
                ("insert", None) => {}
                _ => changes.updated.push(key_of(event)),
            }
        }
        changes
    }

    #[track_caller]
    fn same_as(&self, what: &str, expected: &Self) {
        same(&format!("{what}: stamps"), &self.stamped, &expected.stamped);
        same(
            &format!("{what}: updates"),
            &self.updated,
            &expected.updated,
        );
    }
}

fn entries(log: &[Document]) -> impl Iterator<Item = &Document> {
    let entries = log
        .iter()
        .flat_map(|document| document.get_array("entries").unwrap());
    entries.map(|entry| entry.as_document().unwrap())
}

fn key_of(event: &Document) -> String {
    let key = event.get_document("documentKey").ok();
    let id = key.and_then(|key| key.get_str("_id").ok());
    id.unwrap_or_default().to_owned()
}

/// Says where two lists part, which are too long to be shown.
#[track_caller]
fn same<T: PartialEq + Debug>(what: &str, found: &[T], expected: &[T]) {
    let pairs = found.iter().zip(expected).enumerate();
    for (at, (found, expected)) in pairs {
        assert_eq!(found, expected, "{what}, at place {at}");
    }
    assert_eq!(found.len(), expected.len(), "{what}: so many");
}

#[test]
fn streams_that_are_cut_show_each_event_once_and_in_order() {
    Runtime::new().unwrap().block_on(async {
        let cluster = Cluster::start(&[]);
        let uri = &cluster.info.mongodb_uri;
        let streamed = Streamed {
            driver: Client::with_uri_str(uri).await.unwrap(),
            log: Stream::open(&cluster, "/log"),
            changes: Stream::open(&cluster, &format!("/watch?ns={NAMESPACE}&fromStamp=0")),
            cluster,
        };
        let load = Load::new(&streamed.cluster, NAMESPACE).paced(PACE);
        let writing = tokio::spawn({
            let load = load.clone();
            async move { load.run(WRITERS).await }
        });
        streamed.mark("begin").await;
        let cuts = usize::try_from(setting("DRUMLINE_STREAM_CUTS", 20)).unwrap();
        for at in 0..cuts {
            let cut = CUTS[at % CUTS.len()];
            let before = (streamed.log.count(), streamed.changes.count());
            streamed.cut(cut).await;
            streamed.mark(&format!("after cut {at}")).await;
            println!("cut {at} by {cut:?} at {before:?}");
        }
        load.stop();
        let records = writing.await.unwrap();
        streamed.mark(END).await;

        let log = streamed.stored_log().await;
        let told = streamed.log.told();
        let position = |document: &Document| document.get_i64("_id").unwrap();
        let positions = told.iter().map(position).collect::<Vec<_>>();
        let last = *positions.last().unwrap();
        same("positions", &positions, &(1..=last).collect::<Vec<_>>());
        same("log documents", &told, &log[..told.len()]);

        let found = streamed.changes.told();
        Changes::of_events(&found).same_as("changes", &Changes::of_entries(entries(&log)));
        println!(
            "{} requests, {} log documents, {} changes, {} cuts; the clients came back {} times",
            records.len(),
            positions.len(),
            found.len(),
            cuts,
            streamed.log.opened() - 1
        );
        from_stamps(&streamed, &log).await;
    });
}

/// From any stamp on, the changes are those after it: also from one inside a batch.
async fn from_stamps(streamed: &Streamed, log: &[Document]) {
    let width = |document: &&Document| {
        document.get_i64("last").unwrap() - document.get_i64("first").unwrap()
    };
    let widest = log.iter().max_by_key(width).unwrap();
    let (first, last) = (
        widest.get_i64("first").unwrap(),
        widest.get_i64("last").unwrap(),
    );
    let end = log.last().unwrap().get_i64("last").unwrap();
    let mut stamps: Vec<_> = (0..8).map(|part| end * part / 8).collect();
    stamps.extend([first - 1, first, (first + last) / 2, last - 1, last]);
    println!("from stamps {stamps:?}; the widest batch has {first} to {last}");
    for stamp in stamps {
        let path = format!("/watch?ns={NAMESPACE}&fromStamp={stamp}");
        let stream = Stream::open(&streamed.cluster, &path);
        eventually("it shows the end", async || {
            stream.assert_lives();
            stream.has(|event| key_of(event) == END).then_some(())
        })
        .await;
        let later = entries(log).filter(|entry| entry.get_i64("t").unwrap() > stamp);
        let expected = Changes::of_entries(later);
        Changes::of_events(&stream.told()).same_as(&format!("after stamp {stamp}"), &expected);
    }
}
