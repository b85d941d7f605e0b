//! The way of one Data API request through the node.

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use http_body_util::BodyExt as _;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::action::Action;
use super::error::{self, Problem};
use super::headers::{self, RequestHeaders};
use super::router::App;
use super::{body, decode, encode, stamps};
use crate::budget::Reservation;
use crate::gateway::Reply;
use crate::model::limits::REPLY_STALL_MAX;
use crate::model::{Call, Failure, Namespace, Read, RequestId, Write, WriteRequest, policy};
use crate::mutants::{self, Mutant};
use crate::peer::{Content, Envelope, NOT_COORDINATOR, Relayed};

/// A body and a number of documents that take milliseconds to decode or to encode.
const LONG_BYTES: usize = 256 << 10;
const LONG_DOCUMENTS: usize = 1_000;

/// Who sends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// Its request is answered by whichever node is coordinator.
    Client,
    /// Passes on a client's request, and has proven that it is a peer and sends this body. The answer
    /// is this node's own.
    Peer(Content),
}

impl Asker {
    const fn is_peer(self) -> bool {
        matches!(self, Self::Peer(_))
    }

    /// Whether this is the body that the asker has sent.
    fn sends(self, body: &[u8]) -> bool {
        match self {
            Self::Client => true,
            Self::Peer(content) => is_proven(content, body),
        }
    }
}

/// Whether this is the body that a peer's proof covers.
pub fn is_proven(content: Content, body: &[u8]) -> bool {
    mutants::active(Mutant::UnprovenBodies) || Content::of(body) == content
}

/// Answers `POST .../action/<name>`.
pub async fn handle(State(app): State<App>, request: Request) -> Response {
    match app.keys.check(request.headers()) {
        Ok(()) => respond(&app, request, Asker::Client).await,
        Err(problem) => problem.into_response(),
    }
}

/// Answers whoever may ask.
pub async fn respond(app: &App, request: Request, asker: Asker) -> Response {
    let mut response = match answer(app, request, asker).await {
        Ok(response) => response,
        Err(Problem::Failure(Failure::NoCoordinator)) if asker.is_peer() => {
            NOT_COORDINATOR.into_response()
        }
        Err(problem) => problem.into_response(),
    };
    // A reply that was relayed has it from the coordinator itself.
    if !response
        .headers()
        .contains_key(headers::DRUMLINE_COORDINATOR)
    {
        let coordinator = app.gateway.coordinator();
        headers::write_coordinator(response.headers_mut(), coordinator.as_ref());
    }
    response
}

/// The checks stand in the order of their price: what the head says, then the body.
async fn answer(app: &App, request: Request, asker: Asker) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let action = action(head.uri.path())?;
    let asked = RequestHeaders::read(&head.headers)?;
    let shows_stamp = asked
        .show_stamp
        .unwrap_or_else(|| !stamps::is_data_api(head.uri.path()));
    // Held while the decoded request lives: a write goes on without its client.
    let budget = match action.is_read() {
        true => &app.reads,
        false => &app.budget,
    };
    let mut reservation = budget.open();
    let bytes = Bytes::from(body::read(body, &mut reservation).await?);
    let stamp_field = Arc::clone(&app.stamp_field);
    let is_long = bytes.len() > LONG_BYTES;
    let body = bytes.clone();
    let admitted = aside(is_long, move || match asker.sends(&body) {
        true => admit(action, &body, &stamp_field).map(Some),
        false => Ok(None),
    });
    let call = admitted.await?.ok_or(Problem::UnprovenBody)?;
    let asked = Asked {
        asker,
        action,
        headers: asked,
        shows_stamp,
        original: head.headers,
        body: bytes,
    };
    match call {
        Call::Write(namespace, write) => run_write(app, asked, namespace, write, reservation).await,
        Call::Read(namespace, read) => run_read(app, asked, namespace, read).await,
    }
}

/// A request beside what it asks for.
struct Asked {
    asker: Asker,
    action: Action,
    headers: RequestHeaders,
    shows_stamp: bool,
    original: HeaderMap,
    body: Bytes,
}

impl Asked {
    /// The request as it can be passed on, under this id.
    fn envelope(&self, id: Option<&RequestId>) -> Envelope {
        Envelope {
            action: self.action.name(),
            headers: headers::passed_on(&self.original, id, self.shows_stamp),
            body: self.body.clone(),
        }
    }
}

/// What the body asks for, if it may.
fn admit(action: Action, body: &[u8], stamp_field: &str) -> Result<Call, Failure> {
    let call = decode::call(action, body)?;
    policy::check(&call, stamp_field)?;
    Ok(call)
}

/// Runs work where it delays nobody, if it is long: heartbeats share the other threads.
async fn aside<T: Send + 'static>(
    is_long: bool,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    if !is_long {
        return work();
    }
    // Work that is not done was not begun: the node is stopping.
    spawn_blocking(work).await.unwrap_or(Err(Failure::Busy))
}

fn action(path: &str) -> Result<Action, Problem> {
    let name = path.rsplit('/').next().unwrap_or_default();
    Action::parse(name).ok_or_else(|| {
        let names = Action::ALL.map(Action::name).join(", ");
        Problem::NotFound(format!("there is no such action; the actions are {names}"))
    })
}

async fn run_write(
    app: &App,
    asked: Asked,
    namespace: Namespace,
    write: Write,
    reservation: Reservation,
) -> Result<Response, Problem> {
    // A request that is passed on may have to be sent again: it needs an id that the log keeps.
    let keeps_id = asked.headers.id.is_some()
        || (asked.asker == Asker::Client && !app.gateway.is_coordinator());
    let id = asked.headers.id.clone().unwrap_or_else(RequestId::fresh);
    let envelope = asked.envelope(keeps_id.then_some(&id));
    let request = WriteRequest {
        id,
        digest: keeps_id.then(|| write.digest(&namespace)),
        clock: asked.headers.clock,
        namespace,
        write: write.with_ids(),
        bytes: asked.body.len(),
    };
    let outcome = match asked.asker {
        Asker::Peer(_) => app.gateway.write_here(request, reservation).await?,
        Asker::Client => match app.gateway.write(request, envelope, reservation).await? {
            Reply::Here(outcome) => outcome,
            Reply::Relayed(relayed) => return Ok(relay(relayed)),
        },
    };
    let mut response = match &outcome.result {
        Ok(answer) => encode::answer(asked.action, answer, asked.headers.reply),
        Err(refusal) => error::refused(refusal),
    };
    let headers = response.headers_mut();
    headers::write_order(headers, &outcome.stamp, outcome.position);
    if outcome.replayed {
        headers::write_replayed(headers);
    }
    Ok(response)
}

async fn run_read(
    app: &App,
    asked: Asked,
    namespace: Namespace,
    read: Read,
) -> Result<Response, Problem> {
    let envelope = asked.envelope(None);
    let Asked {
        asker,
        action,
        headers: asked,
        shows_stamp,
        ..
    } = asked;
    let hidden = stamps::hidden(&read, shows_stamp, &app.stamp_field);
    let stamp_field = Arc::clone(&app.stamp_field);
    // Held until the reply is made.
    let mut held = app.reads.open();
    let (consistency, clock) = (asked.consistency, asked.clock);
    let gateway = &app.gateway;
    let mut found = match asker {
        Asker::Peer(_) => {
            let found = gateway.read_here(namespace, read, consistency, clock, &mut held);
            found.await?
        }
        Asker::Client => {
            let found = gateway.read(namespace, read, consistency, clock, envelope, &mut held);
            match found.await? {
                Reply::Here(found) => found,
                Reply::Relayed(relayed) => return Ok(relay(relayed)),
            }
        }
    };
    let is_long = found.documents.len() > LONG_DOCUMENTS;
    let reservation = app.reads.open();
    let documents = std::mem::take(&mut found.documents);
    let encode = move || {
        let mut documents = documents;
        stamps::hide(&mut documents, hidden, &stamp_field);
        encode::documents(action, &documents, asked.reply, reservation)
    };
    let mut response = aside(is_long, encode).await?;
    headers::write_order(response.headers_mut(), &found.stamp, found.position);
    Ok(response)
}

/// The coordinator's reply as it comes. A coordinator that falls silent in the middle of it ends it.
fn relay(relayed: Relayed) -> Response {
    let (head, body) = relayed.into_parts();
    let chunks = stream::try_unfold(body, async |mut body| {
        let frame = timeout(REPLY_STALL_MAX, body.frame()).await;
        let Some(frame) = frame.map_err(io::Error::other)? else {
            return Ok(None);
        };
        let chunk = frame.map_err(io::Error::other)?.into_data();
        Ok::<_, io::Error>(Some((chunk.unwrap_or_default(), body)))
    });
    Response::from_parts(head, Body::from_stream(chunks))
}
