//! Why a cluster command failed, in words for the person who typed it.

use std::io;
use std::path::Path;
use std::process::ExitStatus;

use crate::store::admin::AdminError;

/// A failed cluster command. Its text says what is wrong and, where there is one, what to type.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments are wrong, or contradict what the cluster is.
    #[error("{0}")]
    Usage(String),
    /// The operating system refused something.
    #[error("cannot {what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
    /// The replica set refused something or did not answer.
    #[error("{what}")]
    ReplicaSet {
        what: String,
        #[source]
        source: AdminError,
    },
    /// Anything else, said in full.
    #[error("{0}")]
    Failed(String),
    /// The user stopped the cluster while it was starting.
    #[error("stopped before the cluster was ready")]
    Interrupted,
    /// The background process failed, and has said why on the same stderr.
    #[error("the cluster did not start")]
    AlreadyTold(ExitStatus),
}

impl Error {
    /// Says what was tried with which file.
    pub(super) fn io(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{verb} {}", path.display());
        move |source| Self::Io { what, source }
    }
}
