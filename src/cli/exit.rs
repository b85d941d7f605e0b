//! The exit statuses, and the one place where a command's error becomes a line on stderr.

use std::process::ExitCode;

/// How the program ends (docs: README, "Exit status").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Refused or failed.
    Failed = 1,
    /// The arguments are wrong.
    Usage = 2,
    /// It works, but not all of it.
    Degraded = 3,
    /// None of the servers could be reached.
    Unreachable = 4,
    /// A verification found a violation.
    Violation = 5,
}

/// An error that knows its exit status. Any other error exits with [`Exit::Failed`].
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExitError {
    pub exit: Exit,
    pub message: String,
}

impl ExitError {
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            message: message.into(),
        }
    }

    pub fn unreachable(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Unreachable,
            message: message.into(),
        }
    }
}

/// Prints an error as one line on stderr and gives the process's exit code.
pub fn report(result: anyhow::Result<Exit>) -> ExitCode {
    let exit = result.unwrap_or_else(|error| {
        eprintln!("drumline: {error:#}");
        error
            .downcast_ref::<ExitError>()
            .map_or(Exit::Failed, |known| known.exit)
    });
    ExitCode::from(exit as u8)
}
