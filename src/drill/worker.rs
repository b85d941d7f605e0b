//! One client of the load: an operation at a time, with a definite answer or a deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bson::{Bson, Document, doc};
use serde_json::Value;
use tokio::time::timeout;

use super::mix::Action;
use crate::check::history::{Op, Operation, Outcome};
use crate::check::record::monotonic_ns;
use crate::client::{Client, ClientError, Clock};
use crate::config::{Secret, ServerUrl};
use crate::model::{Answer, Consistency, Namespace, Read, RequestId, Update, Write};
use crate::store::{Direct, DirectError};

/// After this time an operation's outcome is unknown.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Where the load goes.
#[derive(Debug, Clone)]
pub enum Route {
    Servers {
        urls: Vec<ServerUrl>,
        key: Option<Secret>,
    },
    /// The plain driver; all clients share its pool.
    Direct(Direct),
}

/// A client and its number.
#[derive(Debug)]
pub struct Worker {
    pub process: u32,
    namespace: Namespace,
    way: Way,
    heard: Arc<Heard>,
}

/// The end of the log, as far as clients have heard of it.
#[derive(Debug, Default)]
pub struct Heard(AtomicI64);

impl Heard {
    fn hear(&self, position: Option<i64>) {
        self.0.fetch_max(position.unwrap_or(0), Ordering::Relaxed);
    }

    /// The largest position that a client was told; 0 if none was.
    pub fn position(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
enum Way {
    Servers(Box<Client>, Clock),
    Direct(Direct),
}

/// What an operation came to.
#[derive(Debug)]
pub struct Done {
    pub operation: Operation,
    /// It took more than one try of the client.
    pub retried: bool,
}

/// An answer, or why there is none.
struct Reply {
    outcome: Outcome,
    result: Value,
    stamp: Option<i64>,
    position: Option<i64>,
}

impl Worker {
    pub fn new(
        process: u32,
        route: &Route,
        namespace: &Namespace,
        heard: &Arc<Heard>,
    ) -> Result<Self, ClientError> {
        let way = match route {
            Route::Servers { urls, key } => {
                let mut urls = urls.clone();
                // Each client begins with another server.
                let first = process as usize % urls.len().max(1);
                urls.rotate_left(first);
                let client = Client::new(urls, key.as_ref(), DEADLINE)?;
                Way::Servers(Box::new(client), Clock::default())
            }
            Route::Direct(direct) => Way::Direct(direct.clone()),
        };
        Ok(Self {
            process,
            namespace: namespace.clone(),
            way,
            heard: Arc::clone(heard),
        })
    }

    pub async fn perform(&self, action: Action) -> Done {
        let id = (action.op != Op::Read).then(RequestId::fresh);
        let tries = self.tries();
        let invoke_ns = monotonic_ns();
        let reply = match &self.way {
            Way::Servers(client, clock) => self.ask(client, clock, action, id.as_ref()).await,
            Way::Direct(direct) => self.ask_directly(direct, action).await,
        };
        self.heard.hear(reply.position);
        let operation = Operation {
            process: self.process,
            request: id.as_ref().map(ToString::to_string),
            op: action.op,
            key: action.key.into(),
            value: action.shown_value(),
            invoke_ns,
            return_ns: monotonic_ns(),
            outcome: reply.outcome,
            result: reply.result,
            stamp: reply.stamp,
            position: reply.position,
        };
        Done {
            operation,
            retried: self.tries() > tries + 1,
        }
    }

    fn tries(&self) -> u64 {
        match &self.way {
            Way::Servers(client, _) => client.tries(),
            Way::Direct(_) => 0,
        }
    }

    async fn ask(
        &self,
        client: &Client,
        clock: &Clock,
        action: Action,
        id: Option<&RequestId>,
    ) -> Reply {
        let Some(id) = id else {
            let read = Read::FindOne {
                filter: doc! {"_id": action.key},
                projection: None,
                sort: None,
            };
            let found = client
                .read(&self.namespace, read, Consistency::Linearizable, clock)
                .await;
            return match found {
                Ok(found) => Reply {
                    outcome: Outcome::Ok,
                    result: value_of(found.documents.first()),
                    stamp: found.stamp,
                    position: found.position,
                },
                Err(error) => Reply::none(Outcome::Fail, error.to_string()),
            };
        };
        let written = client
            .write(&self.namespace, write(action), id, clock)
            .await;
        match written {
            Ok(written) => Reply {
                outcome: Outcome::Ok,
                result: result(action.op, &written.answer),
                stamp: written.stamp,
                position: written.position,
            },
            Err(error) => Reply::none(outcome(&error), error.to_string()),
        }
    }

    async fn ask_directly(&self, direct: &Direct, action: Action) -> Reply {
        let asked = async {
            if action.op == Op::Read {
                let found = direct.find(&self.namespace, action.key).await?;
                return Ok(value_of(found.as_ref()));
            }
            let count = direct.write(&self.namespace, write(action)).await?;
            Ok::<_, DirectError>(match action.op {
                Op::Insert => Value::Null,
                _ => count.into(),
            })
        };
        match timeout(DEADLINE, asked).await {
            Ok(Ok(result)) => Reply {
                outcome: Outcome::Ok,
                result,
                stamp: None,
                position: None,
            },
            Ok(Err(error)) if error.nothing_done || action.op == Op::Read => {
                Reply::none(Outcome::Fail, error.why)
            }
            Ok(Err(error)) => Reply::none(Outcome::Unknown, error.why),
            Err(_) => Reply::none(Outcome::Unknown, "no answer in time".into()),
        }
    }
}

impl Reply {
    fn none(outcome: Outcome, why: String) -> Self {
        Self {
            outcome,
            result: why.into(),
            stamp: None,
            position: None,
        }
    }
}

/// What is known of a write without an answer.
fn outcome(error: &ClientError) -> Outcome {
    match error {
        ClientError::Invalid(_)
        | ClientError::Refused { .. }
        | ClientError::Unreachable(_)
        | ClientError::Unavailable(_)
        | ClientError::Ground(_) => Outcome::Fail,
        ClientError::Unknown { .. }
        | ClientError::Guest(_)
        | ClientError::UnknownToGuest { .. }
        | ClientError::Strange { .. } => Outcome::Unknown,
    }
}

fn write(action: Action) -> Write {
    let set = || Update::Operators(doc! {"$set": {"value": action.value}});
    let update = |filter| Write::Update {
        filter,
        update: set(),
        many: false,
        upsert: false,
    };
    let document = || doc! {"_id": action.key, "value": action.value};
    match action.op {
        Op::Insert => Write::Insert {
            documents: vec![document()],
        },
        Op::Put => Write::Replace {
            filter: doc! {"_id": action.key},
            replacement: document(),
            upsert: true,
        },
        Op::Update | Op::Read => update(doc! {"_id": action.key}),
        Op::Cas => update(doc! {"_id": action.key, "value": action.from}),
        Op::Delete => Write::Delete {
            filter: doc! {"_id": action.key},
            many: false,
        },
    }
}

/// The result as the history has it.
fn result(op: Op, answer: &Answer) -> Value {
    match answer {
        _ if op == Op::Insert => Value::Null,
        Answer::Inserted { .. } => Value::Null,
        Answer::Updated { matched, .. } => (*matched).into(),
        Answer::Deleted { deleted } => (*deleted).into(),
    }
}

/// The value in a document that was found.
fn value_of(document: Option<&Document>) -> Value {
    let value = document.and_then(|document| document.get("value"));
    value
        .cloned()
        .map_or(Value::Null, Bson::into_relaxed_extjson)
}

/// What a register holds by an acknowledged operation; `None` if that is not known by it.
pub fn learnt(operation: &Operation, action: Action) -> Option<Option<i64>> {
    if operation.outcome != Outcome::Ok {
        return None;
    }
    let matched = operation.result.as_i64().unwrap_or(0) > 0;
    match action.op {
        Op::Put => Some(Some(action.value)),
        Op::Update | Op::Cas if matched => Some(Some(action.value)),
        Op::Read => Some(operation.result.as_i64()),
        Op::Delete => Some(None),
        Op::Insert | Op::Update | Op::Cas => None,
    }
}
