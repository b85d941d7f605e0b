//! Why a request has no answer, as the client sees it.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use super::rotation::{Rotation, Standing};
use super::wire::Message;
use crate::config::ServerUrl;
use crate::model::{Failure, RequestId};
use crate::store::Fault;

/// A request without an answer. Each variant says what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClientError {
    /// The client cannot even be built.
    #[error("{0}")]
    Invalid(String),
    /// A server decided against it. Nothing was done.
    #[error("{message}")]
    Refused {
        status: u16,
        code: String,
        message: String,
    },
    /// None of the servers ever spoke. Nothing was done.
    #[error("no server can be reached: {0}")]
    Unreachable(Setbacks),
    /// The servers could be reached, but none could do it in time. Nothing was done.
    #[error("no server could do it in time, nothing was done: {0}")]
    Unavailable(Setbacks),
    /// A write was sent, and no answer came. It may have been done.
    #[error(
        "the outcome is not known, it may have been done: {setbacks}. To get its answer, send the same request again with the same request id, {id}"
    )]
    Unknown { id: RequestId, setbacks: Setbacks },
    /// Without a server: the replica set did not do it, or its outcome is unknown.
    #[error("{0}")]
    Guest(#[from] Failure),
    /// Without a server: a write was begun, and its outcome is not known.
    #[error(
        "the outcome is not known, it may have been done. To get its answer, send the same request again with the same request id, {id}"
    )]
    UnknownToGuest { id: RequestId },
    /// Without a server: what the connection string leads to cannot be used. Nothing was done.
    #[error("{0}")]
    Ground(#[from] Fault),
    /// The server is something else than a Drumline node.
    #[error("{server} answered {status}, but not as a Drumline server does: {why}")]
    Strange {
        server: ServerUrl,
        status: u16,
        why: String,
    },
}

/// Each server that was asked, and why it gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setbacks(Vec<(ServerUrl, String)>);

impl Setbacks {
    pub(super) fn one(server: &ServerUrl, why: String) -> Self {
        Self(vec![(server.clone(), why)])
    }

    pub(super) const fn of(whys: Vec<(ServerUrl, String)>) -> Self {
        Self(whys)
    }
}

impl fmt::Display for Setbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (server, why)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{server}: {why}")?;
        }
        Ok(())
    }
}

/// Judges a request whose time is up.
pub(super) fn at_deadline(
    servers: &[ServerUrl],
    rotation: Rotation,
    message: &Message,
    timeout: Duration,
) -> ClientError {
    let standings: Vec<_> = rotation.into_standings().collect();
    let doubt = standings.iter().any(|server| server.doubt);
    let reached = standings
        .iter()
        .any(|server| server.last.as_ref().is_some_and(|setback| setback.reached));
    let whys = standings.into_iter().map(|standing| why(standing, timeout));
    let setbacks = Setbacks(servers.iter().cloned().zip(whys).collect());
    match message.id() {
        Some(id) if doubt => ClientError::Unknown {
            id: id.clone(),
            setbacks,
        },
        _ if reached => ClientError::Unavailable(setbacks),
        _ => ClientError::Unreachable(setbacks),
    }
}

fn why(standing: Standing, timeout: Duration) -> String {
    match standing.last {
        Some(setback) => setback.why,
        None if standing.busy => format!("no answer within {timeout:?}"),
        None => "not asked, the time was up".into(),
    }
}
