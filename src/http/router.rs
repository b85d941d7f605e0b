//! Which path leads where.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::auth::ApiKeys;
use super::browser::{self, Names};
use super::data_api;
use super::error::Problem;
use super::events::Streams;
use super::log::LogDesk;
use super::log_tail::LogTail;
use super::{log, metrics, peer_api, status, watch};
use crate::budget::Budget;
use crate::gateway::Gateway;
use crate::ground::Board;
use crate::metrics::Metrics;
use crate::model::limits::{IN_FLIGHT_BYTES_MAX, READ_BYTES_MAX};
use crate::observer::Observer;
use crate::peer::{ACTION_PATH, Inbox, MESSAGE_PATH};

/// What every request shares. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    pub gateway: Gateway,
    /// Takes what peers send.
    pub inbox: Inbox,
    pub observer: Observer,
    /// What keeps this node from serving.
    pub board: Board,
    pub metrics: Metrics,
    pub keys: Arc<ApiKeys>,
    /// What the bodies of requests take, which writes need.
    pub budget: Budget,
    /// What reads and their replies take.
    pub reads: Budget,
    pub logs: LogDesk,
    pub streams: Streams,
    /// The end of the log, for all who follow it.
    pub tail: LogTail,
    /// The field of documents that holds their stamp.
    pub stamp_field: Arc<str>,
}

impl App {
    pub fn new(
        gateway: Gateway,
        inbox: Inbox,
        observer: Observer,
        board: Board,
        metrics: Metrics,
        keys: ApiKeys,
        stamp_field: &str,
    ) -> Self {
        Self {
            tail: LogTail::new(gateway.clone()),
            gateway,
            inbox,
            observer,
            board,
            metrics,
            keys: Arc::new(keys),
            budget: Budget::new(IN_FLIGHT_BYTES_MAX),
            reads: Budget::new(READ_BYTES_MAX),
            logs: LogDesk::default(),
            streams: Streams::default(),
            stamp_field: stamp_field.into(),
        }
    }
}

/// All paths of a node that is asked by these names.
pub fn router(app: App, names: Names) -> Router {
    let names = Arc::new(names);
    let action = post(data_api::handle);
    // What needs no key, and so must not be read by whoever has a user's browser.
    let open = Router::new()
        .route("/status", get(status::handle))
        .route("/metrics", get(metrics::handle))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/openapi.json", get(openapi))
        .route_layer(from_fn_with_state(Arc::clone(&names), browser::check_host));
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
        .route(MESSAGE_PATH, post(peer_api::message))
        .route(&format!("{ACTION_PATH}{{action}}"), post(peer_api::action))
        .route("/log", get(log::handle))
        .route("/watch", get(watch::handle))
        .merge(open)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(names, browser::check_origin))
        .with_state(app)
}

/// The process serves. A restart would not help with anything else, so nothing else counts.
async fn livez() -> &'static str {
    "ok\n"
}

/// The node can answer requests; if not, the text says why.
async fn readyz(State(app): State<App>) -> Response {
    let mut why_not = app.board.read().lines();
    why_not.extend(app.gateway.ready().err());
    match why_not.is_empty() {
        true => "ok\n".into_response(),
        false => {
            let text = format!("{}\n", why_not.join("\n"));
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use crate::http::action::Action;
    use crate::http::error::{Problem, examples};
    use crate::http::headers;
    use crate::model::Failure;
    use crate::model::limits::{FIND_DOCUMENTS_DEFAULT, FIND_DOCUMENTS_MAX, INSERT_DOCUMENTS_MAX};

    fn description() -> Value {
        serde_json::from_str(include_str!("openapi.json")).unwrap()
    }

    #[test]
    fn the_description_has_every_action_with_its_fields() {
        let description = description();
        for action in Action::ALL {
            let name = action.name();
            let operation = &description["paths"][format!("/action/{name}")]["post"];
            assert_eq!(operation["operationId"], name);
            let schema = &description["components"]["schemas"][name];
            let described: BTreeSet<_> = schema["properties"].as_object().unwrap().keys().collect();
            let common = ["dataSource", "database", "collection"].map(str::to_owned);
            let own = action.fields().iter().map(ToString::to_string);
            let known: BTreeSet<_> = common.into_iter().chain(own).collect();
            assert_eq!(described, known.iter().collect(), "{name}");
        }
        assert_eq!(
            description["paths"].as_object().unwrap().len(),
            Action::ALL.len() + 7
        );
    }

    /// What an operation says that it answers, without success.
    fn refusals(description: &Value, path: &str, method: &str) -> BTreeSet<String> {
        let responses = &description["paths"][path][method]["responses"];
        let statuses = responses.as_object().unwrap().keys().cloned();
        statuses.filter(|status| !status.starts_with('2')).collect()
    }

    #[test]
    fn the_description_has_every_refusal_with_its_codes() {
        let description = description();
        let problems = examples::all();
        let mut told: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for problem in &problems {
            let codes = told
                .entry(problem.status().as_str().to_owned())
                .or_default();
            // MongoDB has names of its own.
            if !matches!(problem, Problem::Failure(Failure::ReadRefused { .. })) {
                codes.insert(problem.code());
            }
        }
        let responses = &description["components"]["responses"];
        for (status, codes) in &told {
            let described = responses[status]["x-error-codes"].as_array();
            let described = described.unwrap_or_else(|| panic!("{status} is missing"));
            let described: BTreeSet<_> = described.iter().filter_map(Value::as_str).collect();
            assert_eq!(&described, codes, "{status}");
        }
        // Those that no action can have: 405 is for other methods, 410 for streams, 421 for paths without a
        // key.
        let of_actions = told
            .keys()
            .filter(|status| !["405", "410", "421"].contains(&status.as_str()));
        for action in Action::ALL {
            let path = format!("/action/{}", action.name());
            // A read has no request id.
            let own = |status: &&String| !action.is_read() || *status != "422";
            let expected: BTreeSet<_> = of_actions.clone().filter(own).cloned().collect();
            assert_eq!(refusals(&description, &path, "post"), expected, "{path}");
        }
        for path in ["/log", "/watch"] {
            let refusals = refusals(&description, path, "get");
            assert!(
                ["403", "410"]
                    .iter()
                    .all(|status| refusals.contains(*status))
            );
        }
        for path in ["/status", "/metrics", "/livez", "/readyz", "/openapi.json"] {
            let refusals = refusals(&description, path, "get");
            assert!(
                ["403", "421"]
                    .iter()
                    .all(|status| refusals.contains(*status)),
                "{path}"
            );
        }
    }

    #[test]
    fn the_description_has_every_header_and_bound() {
        let description = description();
        let components = &description["components"];
        let text = components.to_string().to_ascii_lowercase();
        for header in [
            headers::IDEMPOTENCY_KEY,
            headers::DRUMLINE_STAMP,
            headers::DRUMLINE_READ,
            headers::DRUMLINE_SHOW_STAMP,
            headers::DRUMLINE_TOKEN,
            headers::DRUMLINE_POSITION,
            headers::DRUMLINE_COORDINATOR,
            headers::IDEMPOTENCY_REPLAYED,
        ] {
            assert!(
                text.contains(&format!("\"{header}\"")),
                "{header} is missing"
            );
        }
        let find = &components["schemas"]["find"]["properties"];
        assert_eq!(find["limit"]["default"], FIND_DOCUMENTS_DEFAULT);
        assert_eq!(find["limit"]["maximum"], FIND_DOCUMENTS_MAX);
        let insert = &components["schemas"]["insertMany"]["properties"];
        assert_eq!(insert["documents"]["maxItems"], INSERT_DOCUMENTS_MAX);
        assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn the_description_refers_to_nothing_that_is_not_there() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    let target = fields.get("$ref").and_then(Value::as_str);
                    found.extend(target.map(str::to_owned));
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let description = description();
        let mut found = Vec::new();
        references(&description, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.trim_start_matches('#');
            assert!(description.pointer(pointer).is_some(), "{reference}");
        }
    }
}
