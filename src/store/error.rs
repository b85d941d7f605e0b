//! What the driver's errors mean: refused for good, or in doubt, or out of reach.

use std::time::Duration;

use bson::Document;
use mongodb::error::{Error, ErrorKind, TRANSIENT_TRANSACTION_ERROR, WriteFailure};
use thiserror::Error as ThisError;

use super::fault::LogFault;
use crate::model::limits::REQUEST_RUN_MAX;
use crate::model::policy::STAMP_FIELD;
use crate::model::{Failure, Refusal};

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

/// Codes of a server whose role or state changed: the request itself may be fine.
/// (NotWritablePrimary, its variants, interruptions such as that by killSessions, shutdowns,
/// network and time-out codes.)
const STATE_CODES: [i32; 21] = [
    6, 7, 46, 64, 89, 91, 133, 134, 189, 202, 244, 251, 262, 9001, 10058, 10107, 11600, 11601,
    11602, 13435, 13436,
];
/// For a user who may not do what is asked.
pub(super) const UNAUTHORIZED: i32 = 13;
const INTERRUPTED: i32 = 11602;
/// WriteConflict and LockTimeout: another transaction has written a document, or another operation
/// has locked a collection, or waits for its lock.
const IN_THE_WAY: [i32; 2] = [112, 24];
const OUT_OF_DISK_SPACE: i32 = 14_031;
const SNAPSHOT_UNAVAILABLE: i32 = 246;
const ILLEGAL_OPERATION: i32 = 20;
pub(super) const NOT_IN_TRANSACTION: i32 = 263;
pub(super) const MAX_TIME_EXPIRED: i32 = 50;
const VALIDATION_FAILURE: i32 = 121;
pub(super) const DUPLICATE_KEY: i32 = 11000;

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

    /// MongoDB's code, if it refused.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }

    /// Whether the same call may succeed later without anybody's doing.
    pub const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_)
                | Self::DiskFull
                | Self::Contended
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
            Self::TimedOut(_) => Failure::Unavailable("it did not answer in time".into()),
            Self::Crowded(_) => Failure::Busy,
            Self::SnapshotGone => Failure::Stale("a collection has just changed".into()),
            Self::DiskFull => {
                Failure::Unavailable("its primary's disk is full: make room there".into())
            }
            Self::Contended => Failure::Unavailable("a document is locked".into()),
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
        match refusal_of(&error) {
            Some(refusal) if IN_THE_WAY.contains(&refusal.code) => return Self::Contended,
            Some(refusal) if for_capped(&refusal) || refusal.code == SNAPSHOT_UNAVAILABLE => {
                return Self::from_refusal(refusal);
            }
            _ => {}
        }
        if error.contains_label(TRANSIENT_TRANSACTION_ERROR) {
            return Self::Unavailable(short(&error));
        }
        match refusal_of(&error) {
            Some(refusal) => Self::from_refusal(refusal),
            None => Self::Unavailable(short(&error)),
        }
    }
}

impl StoreError {
    /// Mutant: that the primary changed under a commit is taken for its failure.
    pub(super) fn taking_interruption_for_refusal(error: Error) -> Self {
        match refusal_of(&error) {
            Some(refusal) if refusal.code == INTERRUPTED => Self::Refused(refusal),
            _ => error.into(),
        }
    }

    fn from_refusal(refusal: Refusal) -> Self {
        if for_capped(&refusal) {
            return Self::Refused(Refusal {
                code: NOT_IN_TRANSACTION,
                name: "OperationNotSupportedInTransaction".into(),
                ..refusal
            });
        }
        if IN_THE_WAY.contains(&refusal.code) {
            return Self::Contended;
        }
        if refusal.code == SNAPSHOT_UNAVAILABLE {
            return Self::SnapshotGone;
        }
        if refusal.code == OUT_OF_DISK_SPACE {
            return Self::DiskFull;
        }
        if STATE_CODES.contains(&refusal.code) {
            return Self::Unavailable(format!("{} ({})", refusal.name, refusal.code));
        }
        Self::Refused(refusal)
    }

    /// Reads an element of `writeErrors` in a command's reply.
    pub(super) fn from_write_error(error: &Document) -> Self {
        let refusal = Refusal {
            code: error.get_i32("code").unwrap_or_default(),
            name: name_of(error),
            message: explained(error),
        };
        Self::from_refusal(refusal)
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

/// Write errors carry no name of their code in MongoDB's reply; the frequent ones get it here.
fn name_of(error: &Document) -> String {
    if let Ok(name) = error.get_str("codeName") {
        return name.to_owned();
    }
    match error.get_i32("code").unwrap_or_default() {
        DUPLICATE_KEY => "DuplicateKey",
        2 => "BadValue",
        9 => "FailedToParse",
        14 => "TypeMismatch",
        28 => "PathNotViable",
        40 => "ConflictingUpdateOperators",
        52 => "DollarPrefixedFieldName",
        66 => "ImmutableField",
        121 => "DocumentValidationFailure",
        NOT_IN_TRANSACTION => "OperationNotSupportedInTransaction",
        10334 => "BSONObjectTooLarge",
        _ => "WriteError",
    }
    .to_owned()
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
    use bson::doc;

    #[test]
    fn a_full_disk_is_no_refusal_of_the_request_and_is_told_as_what_it_is() {
        let error = doc! {"code": OUT_OF_DISK_SPACE, "errmsg": "available disk space"};
        let error = StoreError::from_write_error(&error);
        assert!(matches!(error, StoreError::DiskFull), "{error:?}");
        let told = error.into_failure();
        assert!(matches!(&told, Failure::Unavailable(_)), "{told:?}");
        assert!(told.to_string().contains("disk is full"), "{told}");
    }
}
