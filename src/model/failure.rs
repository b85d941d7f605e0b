//! Why a request has no answer. Each variant says what is known afterwards of this try (done, not
//! done, unknown); its text is for the public and holds nothing internal.

use thiserror::Error;

/// A request that was not answered by the replica set.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// The request itself is wrong. Nothing was done; the same request fails again.
    #[error("{0}")]
    Invalid(String),
    /// The request, or what it asks for, is larger than a bound. Nothing was done.
    #[error("{0}")]
    TooLarge(String),
    /// What the request asks for is not kept any more. Nothing was done; the text says what can be
    /// had.
    #[error("{0}")]
    Gone(String),
    /// No credentials were given. Nothing was done.
    #[error(
        "must specify some form of authentication (either email+password, api-key, or jwt) in the request header or body"
    )]
    NoCredentials,
    /// The credentials are wrong. Nothing was done.
    #[error("invalid session: error finding user for endpoint")]
    WrongCredentials,
    /// The request id was used before, for another payload. Nothing was done.
    #[error(
        "the Idempotency-Key was used before with another payload; draw a new key for a new request"
    )]
    IdReused,
    /// A bound of the node is reached. Nothing was done; try again after a pause.
    #[error("too many requests are in flight; try again in a moment")]
    Busy,
    /// No node is coordinator, or this one cannot say which. Nothing was done.
    #[error("no coordinator is known at the moment; this try did nothing, try again")]
    NoCoordinator,
    /// MongoDB has no primary, or does not answer. Nothing was done.
    #[error("MongoDB does not answer at the moment ({0}); this try did nothing, try again")]
    Unavailable(String),
    /// The request was running when its time was up or its node lost the connection. It may have
    /// been done. A retry with the same id gets the answer; without an id a retry may double it.
    #[error(
        "the outcome is not known yet: the request may have been done; send it again with the same Idempotency-Key to get its answer"
    )]
    Unknown,
    /// A read did not reach the freshness it needs in time. Nothing was changed, nothing older shown.
    #[error("the read could not be made fresh enough in time ({0}); try again")]
    Stale(String),
    /// The log was changed behind the nodes. Nothing was done, and nothing will be until somebody
    /// mends it.
    #[error("{0}")]
    LogFault(String),
    /// MongoDB refused a read, with its code, its name of it and its text.
    #[error("{message}")]
    ReadRefused {
        code: i32,
        name: String,
        message: String,
    },
}

/// What the texts above advise for one try. It is no advice for a request of several tries.
const ADVICE: [&str; 3] = ["; this try did nothing", "; try again", "; send it again"];

impl Failure {
    /// What a failure's text says, without what it advises.
    pub fn without_advice(text: &str) -> &str {
        let ends = ADVICE.iter().filter_map(|advice| text.find(advice));
        &text[..ends.min().unwrap_or(text.len())]
    }
}

/// What a client may do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same request fails again.
    Never,
    /// Nothing was done: the same request may be sent again, to this or another server.
    Safe,
    /// It may have been done: only the same request with the same id may be sent again.
    SameId,
}

impl Failure {
    /// A client's clock that could exhaust the counter.
    pub fn clock_too_far_ahead() -> Self {
        Self::Invalid(
            "Drumline-Stamp is too far ahead of the log: send the stamp of the last reply you got"
                .into(),
        )
    }

    /// The log's counter of stamps has come to its end.
    pub fn clock_at_its_end() -> Self {
        Self::Invalid(
            "the log's counter of stamps is at its end (2^53), so no further write is taken: reads \
             go on; restore the data into a new replica set, whose log begins at 0"
                .into(),
        )
    }

    pub const fn retry(&self) -> Retry {
        match self {
            Self::Invalid(_)
            | Self::TooLarge(_)
            | Self::Gone(_)
            | Self::NoCredentials
            | Self::WrongCredentials
            | Self::IdReused
            | Self::LogFault(_)
            | Self::ReadRefused { .. } => Retry::Never,
            Self::Busy | Self::NoCoordinator | Self::Unavailable(_) | Self::Stale(_) => Retry::Safe,
            Self::Unknown => Retry::SameId,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failure_says_can_be_had_without_its_advice() {
        for (failure, fact) in [
            (Failure::Busy, "too many requests are in flight"),
            (
                Failure::NoCoordinator,
                "no coordinator is known at the moment",
            ),
            (
                Failure::Unknown,
                "the outcome is not known yet: the request may have been done",
            ),
            (
                Failure::Unavailable("it rests".into()),
                "MongoDB does not answer at the moment (it rests)",
            ),
        ] {
            assert_eq!(Failure::without_advice(&failure.to_string()), fact);
        }
    }
}
