//! `GET /status`: the cluster as this node sees it, for `drumline status` and monitoring.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::router::App;

/// Needs no key: it holds names and addresses, and no secret.
pub async fn handle(State(app): State<App>) -> Response {
    match serde_json::to_string(&app.observer.view().await) {
        Ok(json) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
