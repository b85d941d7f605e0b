//! The way of one Data API request through the node.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use tokio::task::spawn_blocking;

use super::action::Action;
use super::error::{self, Problem};
use super::headers::{self, RequestHeaders};
use super::router::App;
use super::{body, decode, encode};
use crate::budget::Reservation;
use crate::model::{Call, Failure, Namespace, Read, RequestId, Write, WriteRequest, policy};

/// A body and a number of documents that take milliseconds to decode or to encode.
const LONG_BYTES: usize = 256 << 10;
const LONG_DOCUMENTS: usize = 1_000;

/// Answers `POST .../action/<name>`.
pub async fn handle(State(app): State<App>, request: Request) -> Response {
    let mut response = match answer(&app, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    let coordinator = app.gateway.coordinator();
    headers::write_coordinator(response.headers_mut(), coordinator.as_deref());
    response
}

/// The checks stand in the order of their price: who asks, what the head says, then the body.
async fn answer(app: &App, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    app.keys.check(&head.headers)?;
    let action = action(head.uri.path())?;
    let asked = RequestHeaders::read(&head.headers)?;
    // Held while the decoded request lives: a write goes on without its client.
    let mut reservation = app.budget.open();
    let bytes = body::read(body, &mut reservation).await?;
    let stamp_field = Arc::clone(&app.stamp_field);
    let size = bytes.len();
    let is_long = size > LONG_BYTES;
    let call = aside(is_long, move || admit(action, &bytes, &stamp_field)).await?;
    match call {
        Call::Write(namespace, write) => {
            let write = Sized { write, size };
            run_write(app, action, asked, namespace, write, reservation).await
        }
        Call::Read(namespace, read) => run_read(app, action, asked, namespace, read).await,
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

/// A write and the size of the body that it came in.
struct Sized {
    write: Write,
    size: usize,
}

async fn run_write(
    app: &App,
    action: Action,
    asked: RequestHeaders,
    namespace: Namespace,
    Sized { write, size }: Sized,
    reservation: Reservation,
) -> Result<Response, Problem> {
    let digest = asked.id.is_some().then(|| write.digest(&namespace));
    let request = WriteRequest {
        id: asked.id.unwrap_or_else(RequestId::fresh),
        digest,
        clock: asked.clock,
        namespace,
        write: write.with_ids(),
        bytes: size,
    };
    let outcome = app.gateway.write(request, reservation).await?;
    let mut response = match &outcome.result {
        Ok(answer) => encode::answer(action, answer, asked.reply),
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
    action: Action,
    asked: RequestHeaders,
    namespace: Namespace,
    read: Read,
) -> Result<Response, Problem> {
    // Held until the reply is made.
    let mut held = app.budget.open();
    let found = app
        .gateway
        .read(namespace, read, asked.consistency, asked.clock, &mut held)
        .await?;
    let is_long = found.documents.len() > LONG_DOCUMENTS;
    let reservation = app.budget.open();
    let encode = move || encode::documents(action, &found.documents, asked.reply, reservation);
    let mut response = aside(is_long, encode).await?;
    headers::write_order(response.headers_mut(), &found.stamp, found.position);
    Ok(response)
}
