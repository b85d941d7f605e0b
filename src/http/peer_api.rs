//! What peers ask of this node: to take a message, and to run a request as coordinator.

use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::timeout;

use super::crowd::Pass;
use super::data_api::{self, Asker};
use super::error::Problem;
use super::router::App;
use crate::model::limits::BODY_WAIT_MAX;
use crate::peer::{Admitted, Content, PROVEN_BYTES_MAX, Refused};

/// A message is some hundred bytes.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// Answers `POST /peer/message`.
pub async fn message(State(app): State<App>, request: Request) -> Response {
    if app.board.read().name.is_some() {
        // Its peers know the other one by this name.
        let text = "another process serves under this node's name\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    let (mut head, body) = request.into_parts();
    let admitted = match admit(&app, &mut head) {
        Ok(admitted) => admitted,
        Err(why) => return refuse(&app, &why),
    };
    let body = Limited::new(body, MESSAGE_BYTES_MAX).collect();
    let Ok(Ok(body)) = timeout(BODY_WAIT_MAX, body).await else {
        return (StatusCode::BAD_REQUEST, "the message did not arrive\n").into_response();
    };
    let body = body.to_bytes();
    if !data_api::is_proven(admitted.content, &body) {
        return Problem::UnprovenBody.into_response();
    }
    let reply = match app.inbox.take(&admitted.from, &body) {
        Some(beat) => ([(CONTENT_TYPE, "application/json")], Body::from(beat)).into_response(),
        None => (StatusCode::BAD_REQUEST, "this is no message of a peer\n").into_response(),
    };
    signed(&app, &admitted, reply).await
}

/// Answers `POST /peer/action/<name>`: as the Data API would, but passes nothing on.
pub async fn action(State(app): State<App>, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    match admit(&app, &mut head) {
        Ok(admitted) => {
            let request = Request::from_parts(head, body);
            let asker = Asker::Peer(admitted.content);
            let reply = data_api::respond(&app, request, asker).await;
            match reply.status() {
                // It is not the peer that asked for this.
                StatusCode::UNAUTHORIZED => reply,
                _ => signed(&app, &admitted, reply).await,
            }
        }
        Err(why) => refuse(&app, &why),
    }
}

/// Whose request this is. From now on its connection has one of the peers' places.
fn admit(app: &App, head: &mut Parts) -> Result<Admitted, Refused> {
    let admitted = app.inbox.admit(head)?;
    if let Some(pass) = head.extensions.get::<Pass>() {
        pass.is_peers();
    }
    Ok(admitted)
}

/// The reply with its proof, which covers a short body: that is at hand as a whole.
async fn signed(app: &App, request: &Admitted, reply: Response) -> Response {
    let (mut head, mut body) = reply.into_parts();
    let mut content = None;
    let length = body.size_hint().exact();
    if length.is_some_and(|length| length <= PROVEN_BYTES_MAX as u64) {
        let Ok(bytes) = body.collect().await else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let bytes = bytes.to_bytes();
        content = Some(Content::of(&bytes));
        body = Body::from(bytes);
    }
    let status = head.status;
    app.inbox.sign(request, status, &mut head.headers, content);
    Response::from_parts(head, body)
}

fn refuse(app: &App, why: &Refused) -> Response {
    let status = match why {
        Refused::Secret | Refused::Stale { .. } => StatusCode::UNAUTHORIZED,
        // Its first copy may have been taken: nobody is to believe that nothing was done.
        Refused::Repeated => StatusCode::CONFLICT,
        _ => StatusCode::FORBIDDEN,
    };
    let mut reply = (status, format!("{why}\n")).into_response();
    if let Refused::Stale { from, nonce } = why {
        app.inbox.greet(reply.headers_mut(), from, nonce);
    }
    reply
}
