//! Every reply that is not an answer: its status, its code and its text.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::model::{Failure, Refusal};

/// How long a client should pause before it tries again, in seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// What a client may send instead of the credentials that were refused. HTTP wants it with each 401,
/// and some clients take a 401 without it for a broken server.
const SCHEME: HeaderValue = HeaderValue::from_static("Bearer realm=\"drumline\"");

/// What a peer is told whose message has another body than its proof says.
const UNPROVEN_BODY: &str = "the body is not the one that the proof covers";

/// Why a request has no answer: what the core says, or what only HTTP can be wrong about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    Failure(Failure),
    /// A kind of credentials that the Data API had and Drumline has not.
    UnsupportedCredentials(&'static str),
    /// A peer's message came with another body than its proof covers.
    UnprovenBody,
    /// No such path or no such action; the text says what there is.
    NotFound(String),
    MethodNotAllowed,
    UnsupportedMediaType(String),
    /// A page of another site asks; the text names it.
    ForeignPage(String),
    /// The request is for a host that is no name of this node; the text names it.
    WrongHost(String),
    /// The body did not arrive in time.
    SlowBody,
    /// The client went away while it sent its body; nobody reads this.
    BrokenBody,
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Problem {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Failure(failure) => status_of(failure),
            Self::UnsupportedCredentials(_) | Self::UnprovenBody => StatusCode::UNAUTHORIZED,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::ForeignPage(_) => StatusCode::FORBIDDEN,
            Self::WrongHost(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::BrokenBody => StatusCode::BAD_REQUEST,
        }
    }

    /// The `error_code` of the body, for programs.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Failure(failure) => code_of(failure),
            Self::UnsupportedCredentials(_) | Self::UnprovenBody => "InvalidSession",
            Self::NotFound(_) => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::UnsupportedMediaType(_) => "UnsupportedMediaType",
            Self::ForeignPage(_) => "ForeignPage",
            Self::WrongHost(_) => "WrongHost",
            Self::SlowBody => "RequestTimeout",
            Self::BrokenBody => "InvalidParameter",
        }
    }

    /// The body of the reply, for where it is said in the middle of one.
    pub fn to_json(&self) -> Vec<u8> {
        body(&self.text(), self.code(), self.mongodb_code())
    }

    /// MongoDB's number for the error, where it is MongoDB's.
    const fn mongodb_code(&self) -> Option<i32> {
        match self {
            Self::Failure(Failure::ReadRefused { code, .. }) => Some(*code),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Failure(failure) => failure.to_string(),
            Self::UnsupportedCredentials(kind) => format!(
                "invalid session: this server does not take {kind}; send an API key in the header apiKey, or as a bearer token"
            ),
            Self::UnprovenBody => UNPROVEN_BODY.into(),
            Self::NotFound(text)
            | Self::UnsupportedMediaType(text)
            | Self::ForeignPage(text)
            | Self::WrongHost(text) => text.clone(),
            Self::MethodNotAllowed => "this path takes another method; actions take POST".into(),
            Self::SlowBody => "the request body did not arrive in time".into(),
            Self::BrokenBody => "the request body ended before its end".into(),
        }
    }
}

const fn status_of(failure: &Failure) -> StatusCode {
    match failure {
        Failure::Invalid(_) | Failure::NoCredentials | Failure::ReadRefused { .. } => {
            StatusCode::BAD_REQUEST
        }
        Failure::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        Failure::Gone(_) => StatusCode::GONE,
        Failure::WrongCredentials => StatusCode::UNAUTHORIZED,
        Failure::IdReused => StatusCode::UNPROCESSABLE_ENTITY,
        Failure::Busy => StatusCode::TOO_MANY_REQUESTS,
        Failure::NoCoordinator | Failure::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        Failure::Unknown | Failure::Stale(_) => StatusCode::GATEWAY_TIMEOUT,
        Failure::LogFault(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn code_of(failure: &Failure) -> &str {
    match failure {
        Failure::Invalid(_) => "InvalidParameter",
        Failure::TooLarge(_) => "TooLarge",
        Failure::Gone(_) => "Gone",
        Failure::NoCredentials => "MissingParameter",
        Failure::WrongCredentials => "InvalidSession",
        Failure::IdReused => "IdempotencyKeyReused",
        Failure::Busy => "TooManyRequests",
        Failure::NoCoordinator => "NoCoordinator",
        Failure::Unavailable(_) => "Unavailable",
        Failure::Unknown => "OutcomeUnknown",
        Failure::Stale(_) => "StaleRead",
        Failure::LogFault(_) => "LogFault",
        Failure::ReadRefused { name, .. } => name,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = reply(status, &self.text(), self.code(), self.mongodb_code());
        let again = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, SCHEME);
        }
        if again {
            response
                .headers_mut()
                .insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }
}

/// The reply to a request that was run and refused. Whatever the reason, sending it again cannot
/// help: 400, as the Data API did, for a duplicate key too.
pub fn refused(refusal: &Refusal) -> Response {
    let code = (refusal.code != 0).then_some(refusal.code);
    reply(
        StatusCode::BAD_REQUEST,
        &refusal.message,
        &refusal.name,
        code,
    )
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    error_code: &'a str,
    link: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mongodb_code: Option<i32>,
}

fn body(error: &str, error_code: &str, mongodb_code: Option<i32>) -> Vec<u8> {
    let body = ErrorBody {
        error,
        error_code,
        link: "",
        mongodb_code,
    };
    // Strings and a number always serialize.
    serde_json::to_vec(&body).unwrap_or_default()
}

fn reply(status: StatusCode, error: &str, error_code: &str, mongodb_code: Option<i32>) -> Response {
    let bytes = body(error, error_code, mongodb_code);
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Problems of every kind, for tests of what is said about them.
#[cfg(test)]
pub(super) mod examples {
    use super::*;

    /// One of each kind. Whoever adds a kind is led here by the compiler, through [`after`].
    pub fn all() -> Vec<Problem> {
        std::iter::successors(Some(Problem::BrokenBody), after).collect()
    }

    /// The next kind.
    fn after(problem: &Problem) -> Option<Problem> {
        let text = String::new;
        Some(match problem {
            Problem::BrokenBody => Problem::SlowBody,
            Problem::SlowBody => Problem::WrongHost(text()),
            Problem::WrongHost(_) => Problem::ForeignPage(text()),
            Problem::ForeignPage(_) => Problem::UnsupportedMediaType(text()),
            Problem::UnsupportedMediaType(_) => Problem::MethodNotAllowed,
            Problem::MethodNotAllowed => Problem::NotFound(text()),
            Problem::NotFound(_) => Problem::UnprovenBody,
            Problem::UnprovenBody => Problem::UnsupportedCredentials("a JWT"),
            Problem::UnsupportedCredentials(_) => Failure::Invalid(text()).into(),
            Problem::Failure(failure) => after_failure(failure)?.into(),
        })
    }

    fn after_failure(failure: &Failure) -> Option<Failure> {
        let text = String::new;
        Some(match failure {
            Failure::Invalid(_) => Failure::TooLarge(text()),
            Failure::TooLarge(_) => Failure::NoCredentials,
            Failure::NoCredentials => Failure::WrongCredentials,
            Failure::WrongCredentials => Failure::IdReused,
            Failure::IdReused => Failure::Busy,
            Failure::Busy => Failure::NoCoordinator,
            Failure::NoCoordinator => Failure::Unavailable(text()),
            Failure::Unavailable(_) => Failure::Unknown,
            Failure::Unknown => Failure::Stale(text()),
            Failure::Stale(_) => Failure::Gone(text()),
            Failure::Gone(_) => Failure::LogFault(text()),
            Failure::LogFault(_) => Failure::ReadRefused {
                code: 2,
                name: "BadValue".into(),
                message: text(),
            },
            Failure::ReadRefused { .. } => return None,
        })
    }
}
