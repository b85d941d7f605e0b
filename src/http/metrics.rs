//! `GET /metrics`: the cluster as this node sees it, in Prometheus' text format.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::router::App;
use crate::gateway::Gateway;
use crate::metrics::{append, label};
use crate::model::Liveness;
use crate::view::ClusterView;

/// Needs no key: it holds names, addresses and numbers, and no secret.
pub async fn handle(State(app): State<App>) -> Response {
    let mut text = app.metrics.text();
    let leads = u8::from(app.gateway.is_coordinator());
    let help = "1 while this node is coordinator.";
    append(
        &mut text,
        "coordinator",
        help,
        "gauge",
        &[(String::new(), leads)],
    );
    tell_connections(&mut text, &app.gateway);
    describe(&mut text, &app.observer.view().await);
    let form = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (form, text).into_response()
}

fn tell_connections(text: &mut String, gateway: &Gateway) {
    let renewals = [(String::new(), gateway.renewals())];
    let help = "Times this node made its connections anew, since they gave no answer.";
    append(
        text,
        "connection_renewals_total",
        help,
        "counter",
        &renewals,
    );
    let mut samples = Vec::new();
    for (kind, counts) in gateway.connections() {
        let states = [
            ("opening", counts.opening),
            ("unused", counts.unused),
            ("used", counts.used),
        ];
        for (state, count) in states {
            samples.push((format!("{{for=\"{kind}\",state=\"{state}\"}}"), count));
        }
    }
    let help = "This node's connections to all members, by what they are for and do.";
    append(text, "connections", help, "gauge", &samples);
}

fn describe(text: &mut String, view: &ClusterView) {
    let numbers = [
        ("epoch", "The epoch at the end of the log.", view.epoch),
        ("position", "The last position of the log.", view.position),
        ("term", "MongoDB's term.", view.term),
    ];
    for (name, help, number) in numbers {
        if let Some(number) = number {
            append(text, name, help, "gauge", &[(String::new(), number)]);
        }
    }
    let of_nodes = view.nodes.iter().map(|node| {
        let alive = node.state == Liveness::Alive;
        (label("node", &node.name), u8::from(alive))
    });
    let of_nodes: Vec<_> = of_nodes.collect();
    append(
        text,
        "node_alive",
        "1 for a node that is heard from.",
        "gauge",
        &of_nodes,
    );
    let of_members = view.members.iter().map(|member| {
        let is_primary = view.primary.as_ref() == Some(&member.host);
        (label("host", &member.host), u8::from(is_primary))
    });
    let of_members: Vec<_> = of_members.collect();
    append(
        text,
        "member_primary",
        "1 for the primary.",
        "gauge",
        &of_members,
    );
    let lags = view.members.iter();
    let lags = lags.filter_map(|member| Some((label("host", &member.host), member.lag_ms?)));
    let lags: Vec<_> = lags.collect();
    let help = "How far a member is behind the primary, in milliseconds.";
    append(text, "member_lag_ms", help, "gauge", &lags);
}
