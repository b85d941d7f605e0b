//! What the driver's errors mean: refused for good, or in doubt, or out of reach.

use std::time::Duration;

use bson::Document;
use mongodb::error::{Error, ErrorKind, TRANSIENT_TRANSACTION_ERROR, WriteFailure};
use thiserror::Error as ThisError;

use super::codes::{
    self, Class, ILLEGAL_OPERATION, INTERRUPTED_BY_STATE_CHANGE, MAX_TIME_EXPIRED,
    NOT_IN_TRANSACTION, SNAPSHOT_UNAVAILABLE, VALIDATION_FAILURE,
};
use super::fault::LogFault;
use crate::model::limits::REQUEST_RUN_MAX;
use crate::model::policy::STAMP_FIELD;
use crate::model::{Failure, Refusal};

/// Labels of an error that MongoDB gives when it has too much to do.
const OVERLOAD_LABELS: [&str; 2] = ["RetryableError", "SystemOverloadedError"];

/// A call to MongoDB that failed.
#[derive(Debug, Clone, ThisError)]
pub enum StoreError {
    /// The connection string is wrong. Its text is not repeated: it may hold a password.
    #[error("the connection string is wrong: {0}")]
    ConnectionString(String),
    /// MongoDB said no, for a reason that lies in the request.
    #[error("MongoDB refused: {} ({}, {})", .0.message, .0.name, .0.code)]
    Refused(Refusal),
    /// MongoDB is out of reach, has no primary, or its state changed under the call. Whether a
    /// write took effect is unknown.
    #[error("MongoDB is not available: {0}")]
    Unavailable(String),
    /// MongoDB has no room left. Whether a write took effect is unknown.
    #[error("the disk of MongoDB's primary is full (OutOfDiskSpace, 14031): make room there")]
    DiskFull,
    /// Another transaction holds a document that the call needs. Nothing was done.
    #[error("another transaction is in the way")]
    Contended,
    /// MongoDB cannot do it at the moment, for a reason that does not lie in the request. Nothing
    /// was done.
    #[error("MongoDB cannot do it at the moment: {} ({}, {})", .0.message, .0.name, .0.code)]
    Passing(Refusal),
    /// MongoDB said no, and whether that passes is not known. Nothing was done.
    #[error("MongoDB failed: {} ({}, {})", .0.message, .0.name, .0.code)]
    Vague(Refusal),
    /// MongoDB said no because of a right, a setting or the kind of server that it is. Nothing was
    /// done.
    #[error("the servers are not fit for it: {} ({}, {})", .0.message, .0.name, .0.code)]
    Ground(Refusal),
    /// The collection is another than the one that was met before. Nothing was done.
    #[error("a collection was dropped and made anew")]
    Renewed,
    /// The unique index over request ids refused: a request of this batch is in the log.
    #[error("a request id stands in the log already")]
    Repeated,
    /// Too many calls of this kind wait already, or none ended in time. Nothing was begun.
    #[error("{0}: too many run and wait at the moment")]
    Crowded(&'static str),
    /// A collection was made or changed after the snapshot was taken. Nothing was done.
    #[error("a collection has just changed")]
    SnapshotGone,
    /// No answer in time. Whether a write took effect is unknown.
    #[error("MongoDB did not answer within {0:?}")]
    TimedOut(Duration),
    /// The append found no position before its own, or no index of request ids. Nothing was done.
    #[error("the log is not what it was")]
    Unproven,
    /// Somebody has changed the log behind the nodes. Nothing was done.
    #[error("{0}")]
    Log(LogFault),
    /// MongoDB sent what Drumline does not understand.
    #[error("MongoDB's reply has another form: {0}")]
    Damaged(String),
}

impl StoreError {
    /// A failure while the connection string was read. Only the driver's own words about its form
    /// are kept.
    pub(super) fn from_connection_string(error: Error) -> Self {
        match error.kind.as_ref() {
            ErrorKind::InvalidArgument { message, .. }
            | ErrorKind::InvalidTlsConfig { message, .. } => {
                Self::ConnectionString(message.clone())
            }
            ErrorKind::DnsResolve { message, .. } => Self::Unavailable(message.clone()),
            _ => Self::Unavailable("the servers that the connection string names".into()),
        }
    }

    /// MongoDB's code, if it said no.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Refused(refusal)
            | Self::Passing(refusal)
            | Self::Vague(refusal)
            | Self::Ground(refusal) => Some(refusal.code),
            _ => None,
        }
    }

    /// Nothing was done, and a later try may succeed: the request waits, others need not.
    pub(super) const fn passes(&self) -> bool {
        matches!(
            self,
            Self::Contended | Self::Passing(_) | Self::Vague(_) | Self::Ground(_)
        )
    }

    /// Whether the same call may succeed later without anybody's doing.
    pub const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_)
                | Self::DiskFull
                | Self::Contended
                | Self::Passing(_)
                | Self::Vague(_)
                | Self::Crowded(_)
                | Self::SnapshotGone
                | Self::TimedOut(_)
        )
    }

    /// MongoDB stopped it when its time was over.
    pub(super) fn is_out_of_time(&self) -> bool {
        self.code() == Some(MAX_TIME_EXPIRED)
    }

    /// The public form, for a call that changed nothing when it failed.
    pub fn into_failure(self) -> Failure {
        match self {
            Self::Refused(refusal) => Failure::ReadRefused {
                message: match refusal.code {
                    MAX_TIME_EXPIRED => ran_too_long(": give its filter an index, or narrow it"),
                    _ => refusal.message,
                },
                code: refusal.code,
                name: refusal.name,
            },
            Self::Vague(refusal) | Self::Ground(refusal) => Failure::ReadRefused {
                code: refusal.code,
                name: refusal.name,
                message: refusal.message,
            },
            Self::Passing(refusal) => {
                Failure::Unavailable(format!("{}, {}", refusal.name, refusal.code))
            }
            Self::TimedOut(_) => Failure::Unavailable("it did not answer in time".into()),
            Self::Crowded(_) => Failure::Busy,
            Self::SnapshotGone | Self::Renewed => {
                Failure::Stale("a collection has just changed".into())
            }
            Self::DiskFull => {
                Failure::Unavailable("its primary's disk is full: make room there".into())
            }
            Self::Contended => Failure::Unavailable(
                "another program holds a document of this request in a transaction".into(),
            ),
            Self::Unavailable(_) => Failure::Unavailable("no primary, or no connection".into()),
            Self::Log(fault) => Failure::LogFault(fault.to_string()),
            Self::ConnectionString(_) | Self::Repeated | Self::Unproven | Self::Damaged(_) => {
                Failure::Unavailable("see the node's log".into())
            }
        }
    }
}

/// For calls that change nothing.
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        error.into_failure()
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let refusal = refusal_of(&error);
        // A label of the whole transaction says less than these codes do.
        let telling = |refusal: &Refusal| {
            let class = codes::class_of(refusal.code);
            for_capped(refusal) || matches!(class, Class::Locked | Class::Snapshot)
        };
        let transient = error.contains_label(TRANSIENT_TRANSACTION_ERROR);
        match refusal {
            Some(refusal) if !transient || telling(&refusal) => {
                let overloaded = OVERLOAD_LABELS
                    .iter()
                    .any(|label| error.contains_label(label));
                Self::from_refusal(refusal, overloaded)
            }
            _ => Self::Unavailable(short(&error)),
        }
    }
}

impl StoreError {
    /// Mutant: that the primary changed under a commit is taken for its failure.
    pub(super) fn taking_interruption_for_refusal(error: Error) -> Self {
        match refusal_of(&error) {
            Some(refusal) if refusal.code == INTERRUPTED_BY_STATE_CHANGE => Self::Refused(refusal),
            _ => error.into(),
        }
    }

    /// `overloaded`: MongoDB's labels say that it passes, whatever the code says.
    fn from_refusal(refusal: Refusal, overloaded: bool) -> Self {
        if for_capped(&refusal) {
            return Self::Refused(Refusal {
                code: NOT_IN_TRANSACTION,
                name: codes::name_of(NOT_IN_TRANSACTION),
                ..refusal
            });
        }
        match codes::class_of(refusal.code) {
            Class::Request | Class::Vague if overloaded => Self::Passing(refusal),
            Class::Request => Self::Refused(refusal),
            Class::Passing => Self::Passing(refusal),
            Class::Locked => Self::Contended,
            Class::Snapshot => Self::SnapshotGone,
            Class::Renewed => Self::Renewed,
            Class::Unknown => Self::Unavailable(format!("{} ({})", refusal.name, refusal.code)),
            Class::Ground => Self::Ground(refusal),
            Class::Disk => Self::DiskFull,
            Class::Vague => Self::Vague(refusal),
        }
    }

    /// Reads an element of `writeErrors` in a command's reply.
    pub(super) fn from_write_error(error: &Document) -> Self {
        let refusal = Refusal {
            code: error.get_i32("code").unwrap_or_default(),
            name: name_of(error),
            message: explained(error),
        };
        Self::from_refusal(refusal, false)
    }
}

/// MongoDB's text, and what it does not say: a validator that takes no other fields refuses the
/// stamp, which the client never sent.
fn explained(error: &Document) -> String {
    let text = error.get_str("errmsg").unwrap_or_default();
    let names_stamp = error
        .get_document("errInfo")
        .is_ok_and(|details| details.to_string().contains(STAMP_FIELD));
    if error.get_i32("code").ok() != Some(VALIDATION_FAILURE) || !names_stamp {
        return text.to_owned();
    }
    format!(
        "{text}: each document is stored with its stamp in the field '{STAMP_FIELD}'; let the \
         collection's validator take it, like with {{\"{STAMP_FIELD}\": {{}}}} in \"properties\""
    )
}

/// What a request is told that MongoDB has stopped; `what_then` ends the sentence.
pub(super) fn ran_too_long(what_then: &str) -> String {
    format!(
        "the request ran longer than {} s, the most that one request may take{what_then}",
        REQUEST_RUN_MAX.as_secs()
    )
}

/// The name that the reply gives, else that of the table.
fn name_of(error: &Document) -> String {
    match error.get_str("codeName") {
        Ok(name) => name.to_owned(),
        Err(_) => codes::name_of(error.get_i32("code").unwrap_or_default()),
    }
}

/// MongoDB has several codes for a capped collection in a snapshot or a transaction. One of them is
/// that of a snapshot which is too old and labelled transient: a retry would go on forever.
fn for_capped(refusal: &Refusal) -> bool {
    matches!(refusal.code, SNAPSHOT_UNAVAILABLE | ILLEGAL_OPERATION)
        && refusal.message.contains("capped collection")
}

pub(super) fn refusal_of(error: &Error) -> Option<Refusal> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(Refusal {
            code: command.code,
            name: command.code_name.clone(),
            message: command.message.clone(),
        }),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(Refusal {
            code: write.code,
            name: write.code_name.clone().unwrap_or_default(),
            message: write.message.clone(),
        }),
        _ => None,
    }
}

/// The kind of an error without the server's whole reply, which may hold documents.
fn short(error: &Error) -> String {
    let text = error.kind.to_string();
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::failure::Retry;
    use bson::doc;

    #[test]
    fn a_full_disk_is_no_refusal_of_the_request_and_is_told_as_what_it_is() {
        let error = doc! {"code": 14_031, "errmsg": "available disk space"};
        let error = StoreError::from_write_error(&error);
        assert!(matches!(error, StoreError::DiskFull), "{error:?}");
        let told = error.into_failure();
        assert!(matches!(&told, Failure::Unavailable(_)), "{told:?}");
        assert!(told.to_string().contains("disk is full"), "{told}");
    }

    #[test]
    fn each_code_of_the_table_is_judged_by_its_class() {
        for (code, name, class) in codes::tests::all() {
            let told = doc! {"code": code, "errmsg": "why"};
            let error = StoreError::from_write_error(&told);
            let as_expected = match class {
                Class::Request => matches!(error, StoreError::Refused(_)),
                Class::Passing => matches!(error, StoreError::Passing(_)),
                Class::Locked => matches!(error, StoreError::Contended),
                Class::Snapshot => matches!(error, StoreError::SnapshotGone),
                Class::Renewed => matches!(error, StoreError::Renewed),
                Class::Unknown => matches!(error, StoreError::Unavailable(_)),
                Class::Ground => matches!(error, StoreError::Ground(_)),
                Class::Disk => matches!(error, StoreError::DiskFull),
                Class::Vague => matches!(error, StoreError::Vague(_)),
            };
            assert!(as_expected, "{name}: {error:?}");
            // Only what may be stored as an answer is told as one for good.
            let stored = matches!(error, StoreError::Refused(_));
            assert_eq!(stored, class == Class::Request, "{name}");
            let retry = error.into_failure().retry();
            let again = matches!(
                class,
                Class::Passing
                    | Class::Locked
                    | Class::Snapshot
                    | Class::Renewed
                    | Class::Unknown
                    | Class::Disk
            );
            let expected = if again { Retry::Safe } else { Retry::Never };
            assert_eq!(retry, expected, "{name}");
        }
    }

    #[test]
    fn what_mongodb_says_is_too_much_at_the_moment_passes_whatever_its_code() {
        let refusal = Refusal {
            code: 31_034,
            name: "Location31034".into(),
            message: "why".into(),
        };
        let passes = |overloaded| StoreError::from_refusal(refusal.clone(), overloaded).passes();
        assert!(passes(true));
        assert!(!passes(false));
    }
}
