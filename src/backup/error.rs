//! What keeps a backup or a restore from going on, in words that say what to do.

use std::io;
use std::path::{Path, PathBuf};

use super::diff::DiffError;
use super::raw::Malformed;
use crate::store::StoreError;

/// A failure. Whatever it is, the backup is what its last manifest says.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The folder is not what the command needs. Nothing was changed.
    #[error("{0}")]
    Folder(String),
    /// Another run has the folder. Nothing was changed.
    #[error("another run works on {}: wait for its end", .0.display())]
    Locked(PathBuf),
    /// The files are not what was written.
    #[error("the backup is damaged: {file}: {why}")]
    Damaged { file: String, why: String },
    /// What has happened since the last run cannot be had any more.
    #[error("{0}")]
    Lost(String),
    /// A point that cannot be reached. Nothing was changed.
    #[error("{0}")]
    Point(String),
    /// The replica set to restore into is not fit for it.
    #[error("{0}")]
    Target(String),
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl Error {
    /// Whether the same call may succeed later without anybody's doing.
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Store(error) => error.may_pass(),
            Self::Locked(_) => true,
            _ => false,
        }
    }

    pub(super) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn damaged(file: &str, why: impl Into<String>) -> Self {
        Self::Damaged {
            file: file.to_owned(),
            why: why.into(),
        }
    }
}

impl From<Malformed> for Error {
    fn from(error: Malformed) -> Self {
        Self::damaged("a document in it", error.to_string())
    }
}

impl From<DiffError> for Error {
    fn from(error: DiffError) -> Self {
        Self::damaged("an update in it", error.to_string())
    }
}
