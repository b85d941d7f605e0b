//! `GET /watch?ns=<database.collection>&pipeline=<stages>&fromStamp=<stamp>`: the changes of a
//! collection as server-sent events, in canonical Extended JSON; the id of each is where to resume.

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bson::Bson;
use tokio::task::spawn_blocking;

use super::error::Problem;
use super::events::{self, Frame, Speech, Streams};
use super::router::App;
use crate::ejson::{self, Format};
use crate::model::{Failure, Namespace, policy};
use crate::store::{Changes, Heard, Since, Watched};

pub async fn handle(State(app): State<App>, request: Request) -> Response {
    answer(&app, request)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn answer(app: &App, request: Request) -> Result<Response, Problem> {
    app.keys.check(request.headers())?;
    let watched = asked(request.uri().query().unwrap_or_default())?;
    let since = match events::last_seen(request.headers())? {
        Some(id) => Since::event(id)?,
        None => watched.above.map_or(Since::Now, Since::Stamp),
    };
    let seat = app.streams.watch()?;
    let changes = Box::pin(app.gateway.watch(watched, since)).await?;
    let mut watcher = Watcher {
        streams: app.streams.clone(),
        changes,
    };
    // The first says where the stream begins, even if nothing has happened yet.
    let first = watcher.speak().await?;
    Ok(events::reply(seat, first, watcher))
}

/// What a query asks for.
fn asked(query: &str) -> Result<Watched, Failure> {
    let invalid = |why: String| Failure::Invalid(why);
    let (mut namespace, mut pipeline, mut above) = (None, Vec::new(), None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "ns" => {
                let parsed = Namespace::parse(&value);
                namespace = Some(parsed.map_err(|why| invalid(format!("'ns': {why}")))?);
            }
            "pipeline" => pipeline = stages(&value)?,
            "fromStamp" => {
                let number = value.parse().ok().filter(|stamp: &i64| *stamp >= 0);
                let wrong = || invalid("'fromStamp' must be a whole number from 0 on".into());
                above = Some(number.ok_or_else(wrong)?);
            }
            _ => {
                let known = "a watch takes 'ns', 'pipeline' and 'fromStamp'";
                return Err(invalid(known.into()));
            }
        }
    }
    let namespace = namespace.ok_or_else(|| {
        invalid("'ns' is missing: it names the collection, like shop.orders".into())
    })?;
    policy::check_watch(&namespace, &pipeline)?;
    Ok(Watched {
        namespace,
        pipeline,
        above,
    })
}

fn stages(json: &str) -> Result<Vec<bson::Document>, Failure> {
    let wrong =
        |why: &str| Failure::Invalid(format!("'pipeline' must be an array of stages: {why}"));
    let mut object =
        ejson::object(format!("{{\"pipeline\":{json}}}").as_bytes()).map_err(|why| wrong(&why))?;
    let Some(Bson::Array(stages)) = object.remove("pipeline").filter(|_| object.is_empty()) else {
        return Err(wrong("it is none"));
    };
    let stages = stages.into_iter().map(|stage| match stage {
        Bson::Document(stage) => Ok(stage),
        _ => Err(wrong("a stage is an object")),
    });
    stages.collect()
}

/// One who watches.
struct Watcher {
    streams: Streams,
    changes: Changes,
}

impl Watcher {
    async fn speak(&mut self) -> Result<Bytes, Failure> {
        let heard = self.changes.next().await?;
        let mut frame = Frame::new(self.streams.memory());
        // A batch may be 16 MB: heartbeats share the other threads.
        let written = spawn_blocking(move || {
            write(&heard, &mut frame)?;
            Ok(frame.into_bytes())
        });
        // Work that is not done was not begun: the node is stopping.
        written.await.unwrap_or(Err(Failure::Busy))
    }
}

/// The events, and where they have led. Without any, that alone: what a client resumes after keeps
/// up with MongoDB's oplog, which forgets.
fn write(heard: &Heard, frame: &mut Frame) -> Result<(), Failure> {
    for (id, event) in heard.changes()? {
        frame.event(id.as_deref(), &event, Format::Canonical)?;
    }
    match &heard.through {
        Some(id) => frame.seen(id),
        None => frame.written(b":\n\n"),
    }
}

impl Speech for Watcher {
    async fn next(mut self) -> (Self, Result<Bytes, Failure>) {
        let said = self.speak().await;
        (self, said)
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn a_query_names_what_is_watched() {
        let watched = asked(
            "ns=shop.orders&fromStamp=7&pipeline=%5B%7B%22%24match%22%3A%7B%22a%22%3A1%7D%7D%5D",
        )
        .unwrap();
        assert_eq!(watched.namespace.to_string(), "shop.orders");
        assert_eq!(watched.pipeline, [doc! {"$match": {"a": 1}}]);
        assert_eq!(watched.above, Some(7));
        for wrong in [
            "",
            "ns=shop",
            "ns=drumline.log",
            "ns=a.b&fromStamp=-1",
            "ns=a.b&fromStamp=x",
            "ns=a.b&pipeline={}",
            "ns=a.b&pipeline=[1]",
            "ns=a.b&pipeline=[],\"b\":[]",
            "ns=a.b&pipeline=[{\"$out\":\"x\"}]",
            "ns=a.b&since=7",
        ] {
            assert!(asked(wrong).is_err(), "{wrong} was taken");
        }
    }
}
