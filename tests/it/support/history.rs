//! Records of a load as a history, for the checker.

use std::time::Instant;

use bson::{Bson, Document, doc};
use drumline::check::history::{Op as Asked, Operation, Outcome};
use drumline::check::{self, Findings};
use drumline::client::{Client, Clock, Found};
use drumline::model::{Answer, Consistency, Read};
use mongodb::options::ReadConcern;
use serde_json::{Value, json};

use super::load::{End, Load, Op, Record};

/// Operations of a test, to be checked together.
#[derive(Debug)]
pub struct History {
    begun: Instant,
    operations: Vec<Operation>,
}

impl History {
    /// Begin it before the first operation.
    pub fn begin() -> Self {
        Self {
            begun: Instant::now(),
            operations: Vec::new(),
        }
    }

    fn ns(&self, moment: Instant) -> u64 {
        let time = moment.saturating_duration_since(self.begun);
        u64::try_from(time.as_nanos()).unwrap()
    }

    /// An operation as a client of its own sees it.
    pub fn push(&mut self, times: (Instant, Instant), mut operation: Operation) {
        operation.process = self.operations.len().try_into().unwrap();
        operation.invoke_ns = self.ns(times.0);
        operation.return_ns = self.ns(times.1);
        self.operations.push(operation);
    }

    /// Writes of a [`Load`]: a document's value is the id of the last request, its field `by`.
    pub fn records(&mut self, records: &[Record]) {
        for record in records {
            let (outcome, result, place) = end(&record.end);
            let op = match record.op {
                Op::Insert { .. } => Asked::Insert,
                Op::Add { .. } | Op::Put { .. } => Asked::Put,
                Op::Delete { .. } => Asked::Delete,
            };
            let operation = Operation {
                request: Some(record.id.to_string()),
                value: match op {
                    Asked::Delete => Value::Null,
                    _ => json!(record.id.as_str()),
                },
                outcome,
                result,
                stamp: place.map(|(stamp, _)| stamp),
                position: place.map(|(_, position)| position),
                ..blank(op, json!(record.op.key()))
            };
            self.push((record.invoked, record.returned), operation);
        }
    }

    /// Reads a document of a [`Load`]; a read that fails says nothing.
    pub async fn read(&mut self, load: &Load, client: &Client, key: &str) {
        let read = Read::FindOne {
            filter: doc! {"_id": key},
            projection: None,
            sort: None,
        };
        let invoked = Instant::now();
        let linearizable = Consistency::Linearizable;
        let clock = Clock::default();
        let found = client
            .read(&load.namespace, read, linearizable, &clock)
            .await;
        let Ok(Found {
            documents,
            position,
            stamp,
        }) = found
        else {
            return;
        };
        let by = documents.first().map(|d| d.get_str("by").unwrap());
        let operation = Operation {
            outcome: Outcome::Ok,
            result: json!(by),
            stamp,
            position,
            ..blank(Asked::Read, json!(key))
        };
        self.push((invoked, Instant::now()), operation);
    }

    fn text(&self) -> String {
        let line = |operation| serde_json::to_string(operation).unwrap() + "\n";
        self.operations.iter().map(line).collect()
    }

    /// What the checker says without a log.
    pub fn alone(&self) -> Findings {
        check::check(self.text().as_bytes(), None::<&[u8]>).unwrap()
    }

    /// What the checker says beside the log of this replica set.
    pub async fn beside_log(&self, uri: &str) -> Findings {
        let log = log(uri).await;
        check::check(self.text().as_bytes(), Some(log.as_bytes())).unwrap()
    }
}

/// An operation that knows only what is asked.
pub fn blank(op: Asked, key: Value) -> Operation {
    Operation {
        process: 0,
        request: None,
        op,
        key,
        value: Value::Null,
        invoke_ns: 0,
        return_ns: 0,
        outcome: Outcome::Unknown,
        result: Value::Null,
        stamp: None,
        position: None,
    }
}

fn end(end: &End) -> (Outcome, Value, Option<(i64, i64)>) {
    match end {
        End::Acknowledged(written) => {
            let result = match &written.answer {
                Answer::Inserted { .. } => Value::Null,
                Answer::Updated { matched, .. } => json!(matched),
                Answer::Deleted { deleted } => json!(deleted),
            };
            (Outcome::Ok, result, written.stamp.zip(written.position))
        }
        // The client's error does not tell the place of a refusal; the log does.
        End::Refused(why) => (Outcome::Unknown, json!(why), None),
        End::NotDone(why) => (Outcome::Fail, json!(why), None),
        End::Unknown => (Outcome::Unknown, Value::Null, None),
    }
}

/// The log as `drumline log -o jsonl` prints it, read past all code of Drumline's own.
async fn log(uri: &str) -> String {
    let client = mongodb::Client::with_uri_str(uri).await.unwrap();
    let log = client.database("drumline").collection::<Document>("log");
    let mut found = log
        .find(doc! {})
        .sort(doc! {"_id": 1})
        .read_concern(ReadConcern::majority())
        .await
        .unwrap();
    let mut text = String::new();
    while found.advance().await.unwrap() {
        let document: Document = found.deserialize_current().unwrap();
        text += &Bson::Document(document).into_relaxed_extjson().to_string();
        text += "\n";
    }
    // A driver that shuts down waits for its cursors.
    drop(found);
    client.shutdown().await;
    text
}
