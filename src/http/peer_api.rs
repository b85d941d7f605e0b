//! What peers ask of this node: to take a message, and to run a request as coordinator.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::timeout;

use super::crowd::Pass;
use super::data_api::{self, Asker};
use super::router::App;
use crate::model::limits::BODY_WAIT_MAX;
use crate::peer::{Admitted, Refused};

/// A message is some hundred bytes.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// Answers `POST /peer/message`.
pub async fn message(State(app): State<App>, request: Request) -> Response {
    if app.board.read().name.is_some() {
        // Its peers know the other one by this name.
        let text = "another process serves under this node's name\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    let admitted = match admit(&app, &request) {
        Ok(admitted) => admitted,
        Err(why) => return refuse(&why),
    };
    let body = Limited::new(request.into_body(), MESSAGE_BYTES_MAX).collect();
    let Ok(Ok(body)) = timeout(BODY_WAIT_MAX, body).await else {
        return (StatusCode::BAD_REQUEST, "the message did not arrive\n").into_response();
    };
    let mut reply = match app.inbox.take(&admitted.from, &body.to_bytes()) {
        Some(beat) => ([(CONTENT_TYPE, "application/json")], Body::from(beat)).into_response(),
        None => (StatusCode::BAD_REQUEST, "this is no message of a peer\n").into_response(),
    };
    app.inbox.sign(reply.headers_mut(), &admitted);
    reply
}

/// Answers `POST /peer/action/<name>`: as the Data API would, but passes nothing on.
pub async fn action(State(app): State<App>, request: Request) -> Response {
    match admit(&app, &request) {
        Ok(admitted) => {
            let mut reply = data_api::respond(&app, request, Asker::Peer).await;
            app.inbox.sign(reply.headers_mut(), &admitted);
            reply
        }
        Err(why) => refuse(&why),
    }
}

/// Whose request this is. From now on its connection has one of the peers' places.
fn admit(app: &App, request: &Request) -> Result<Admitted, Refused> {
    let admitted = app.inbox.admit(request.headers())?;
    if let Some(pass) = request.extensions().get::<Pass>() {
        pass.is_peers();
    }
    Ok(admitted)
}

fn refuse(why: &Refused) -> Response {
    let status = match why {
        Refused::Secret => StatusCode::UNAUTHORIZED,
        _ => StatusCode::FORBIDDEN,
    };
    (status, format!("{why}\n")).into_response()
}
