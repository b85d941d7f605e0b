//! The exit statuses, and the one place where a command's error becomes a line on stderr.

use std::io::Write as _;
use std::process::ExitCode;

use crate::client::ClientError;
use crate::config::ConfigError;
use crate::model::Failure;

use super::output::StdoutClosed;

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

const GIVE_KEY: &str = "give it with --api-key-file or DRUMLINE_API_KEY";

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

impl From<ConfigError> for ExitError {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<ClientError> for ExitError {
    fn from(error: ClientError) -> Self {
        let exit = match error {
            ClientError::Invalid(_) => Exit::Usage,
            ClientError::Unreachable(_) | ClientError::Guest(Failure::Unavailable(_)) => {
                Exit::Unreachable
            }
            ClientError::Ground(ref fault) if !fault.is_permanent() => Exit::Unreachable,
            _ => Exit::Failed,
        };
        let message = match &error {
            ClientError::Unknown { id, .. } | ClientError::UnknownToGuest { id } => {
                format!("{error} (--request-id {id})")
            }
            ClientError::Refused { code, .. } if code == "MissingParameter" => {
                format!("the server wants an API key; {GIVE_KEY}")
            }
            ClientError::Refused { status: 401, .. } => {
                format!("the server does not take this API key; {GIVE_KEY}")
            }
            ClientError::Refused { status: 422, .. } | ClientError::Guest(Failure::IdReused) => {
                "the request id was used before, for another request; leave --request-id out, and \
                 a new one is drawn"
                    .into()
            }
            _ => error.to_string(),
        };
        Self { exit, message }
    }
}

/// Prints an error as one line on stderr and gives the process's exit code.
pub fn report(result: anyhow::Result<Exit>) -> ExitCode {
    let exit = result.unwrap_or_else(|error| {
        if error.is::<StdoutClosed>() {
            return Exit::Ok;
        }
        say(&format!("{error:#}"));
        error
            .downcast_ref::<ExitError>()
            .map_or(Exit::Failed, |known| known.exit)
    });
    ExitCode::from(exit as u8)
}

/// Prints what clap has to say: help as it is, a mistake as one line.
pub fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as BareCommand;
    if !error.use_stderr() || error.kind() == BareCommand {
        // Help that nobody can read is no failure of the command.
        let _ = error.print();
        let exit = if error.use_stderr() {
            Exit::Usage
        } else {
            Exit::Ok
        };
        return ExitCode::from(exit as u8);
    }
    say(&one_line(&error.to_string()));
    ExitCode::from(Exit::Usage as u8)
}

/// Joins clap's paragraphs: what is wrong, a tip if there is one, the usage.
fn one_line(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let paragraphs = text
        .split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|paragraph| {
            !paragraph.is_empty() && !paragraph.starts_with("For more information")
        });
    paragraphs.collect::<Vec<_>>().join("; ")
}

/// Writes one message for people; it may quote a server or a document, which must not rule the
/// terminal. A closed stderr is nobody's loss.
pub fn say(message: &str) {
    let message = crate::text::one_line(message);
    let _ = writeln!(std::io::stderr(), "drumline: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claps_text_becomes_one_line() {
        let text = "error: the following required arguments were not provided:\n  <NS>\n  <DOC>\n\n\
                    Usage: drumline insert <NS> <DOC>\n\nFor more information, try '--help'.\n";
        assert_eq!(
            one_line(text),
            "the following required arguments were not provided: <NS> <DOC>; \
             Usage: drumline insert <NS> <DOC>"
        );
    }
}
