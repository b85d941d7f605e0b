//! Which path leads where.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::auth::ApiKeys;
use super::budget::Budget;
use super::data_api;
use super::error::Problem;
use super::log;
use crate::gateway::Gateway;
use crate::model::limits::IN_FLIGHT_BYTES_MAX;

/// What every request shares. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    pub gateway: Gateway,
    pub keys: Arc<ApiKeys>,
    pub budget: Budget,
    /// The field of documents that holds their stamp.
    pub stamp_field: Arc<str>,
}

impl App {
    pub fn new(gateway: Gateway, keys: ApiKeys, stamp_field: &str) -> Self {
        Self {
            gateway,
            keys: Arc::new(keys),
            budget: Budget::new(IN_FLIGHT_BYTES_MAX),
            stamp_field: stamp_field.into(),
        }
    }
}

/// All paths of a node that clients use.
pub fn router(app: App) -> Router {
    let action = post(data_api::handle);
    Router::new()
        .route(
            "/app/{app}/endpoint/data/v1/action/{action}",
            action.clone(),
        )
        .route(
            "/app/{app}/endpoint/data/beta/action/{action}",
            action.clone(),
        )
        .route("/action/{action}", action)
        .route("/log", get(log::handle))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/openapi.json", get(openapi))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(app)
}

/// The process serves. A restart would not help with anything else, so nothing else counts.
async fn livez() -> &'static str {
    "ok\n"
}

/// The node can answer requests; if not, the text says why.
async fn readyz(State(app): State<App>) -> Response {
    match app.gateway.ready() {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn openapi() -> Response {
    let json = [(CONTENT_TYPE, "application/json")];
    (json, include_str!("openapi.json")).into_response()
}

async fn not_found() -> Problem {
    Problem::NotFound(
        "there is nothing at this path; actions are at /app/<app id>/endpoint/data/v1/action/<name> and /action/<name>".into(),
    )
}

async fn method_not_allowed() -> Problem {
    Problem::MethodNotAllowed
}
