//! The exit statuses, and the one place where a command's error becomes a line on stderr.

use std::io::Write as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};

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

/// A longer value is repeated in part, by the one who refuses it.
const REPEATED_BYTES_MAX: usize = 80;
const PROGRAM: &str = "drumline";
/// The fault of a drill, as clap names it in a mistake.
const FAULT: &str = "<FAULT>";
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
            .map_or_else(|| of_other(&error), |known| known.exit)
    });
    ExitCode::from(exit as u8)
}

/// Settings are read in many places, by commands whose other errors have no status of their own.
fn of_other(error: &anyhow::Error) -> Exit {
    match error.is::<ConfigError>() {
        true => Exit::Usage,
        false => Exit::Failed,
    }
}

/// Prints what clap has to say: help as it is, a mistake as one line.
pub fn usage(error: &clap::Error) -> ExitCode {
    let is_bare = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if !error.use_stderr() || is_bare {
        // Help that nobody can read is no failure of the command.
        let _ = error.print();
        let exit = if error.use_stderr() {
            Exit::Usage
        } else {
            Exit::Ok
        };
        return ExitCode::from(exit as u8);
    }
    say(&told(error));
    ExitCode::from(Exit::Usage as u8)
}

/// What is wrong, and where all that would be right is listed.
fn told(error: &clap::Error) -> String {
    let context = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    let argument = context(ContextKind::InvalidArg);
    let value = context(ContextKind::InvalidValue);
    let (text, list) = match error.kind() {
        // It may hold a password or pages of text, and clap would repeat it.
        ErrorKind::ValueValidation if value.contains('@') || value.len() > REPEATED_BYTES_MAX => {
            let why = std::error::Error::source(error).map(ToString::to_string);
            (format!("{argument}: {}", why.unwrap_or_default()), None)
        }
        ErrorKind::InvalidValue if argument == FAULT => {
            (error.to_string(), Some("drumline drill list".to_owned()))
        }
        ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument => {
            let command = command_of(&context(ContextKind::Usage));
            (error.to_string(), Some(format!("{command} --help")))
        }
        _ => (error.to_string(), None),
    };
    let list = list.map(|command| format!("; `{command}` has them all"));
    one_line(&text) + &list.unwrap_or_default()
}

/// The words of a line of usage that are typed as they are.
fn command_of(usage: &str) -> String {
    let words = usage.split_whitespace().skip_while(|word| *word != PROGRAM);
    let typed = words.take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
    match typed.collect::<Vec<_>>() {
        words if words.is_empty() => PROGRAM.to_owned(),
        words => words.join(" "),
    }
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
    use clap::Parser as _;

    use super::*;

    #[test]
    fn an_unknown_word_is_told_with_the_list_that_it_is_not_in() {
        for (typed, list) in [
            ("fetch", "`drumline --help` has them all"),
            ("backup --lst", "`drumline backup --help` has them all"),
            ("find a.b --limt 1", "`drumline find --help` has them all"),
            ("drill lst", "`drumline drill list` has them all"),
            ("drill kill --member x", "primary, successor, other"),
            ("completions dos", "bash, elvish, fish"),
            ("find a.b --read dirty", "linearizable, causal"),
            ("log -o xml", "table, json, jsonl"),
        ] {
            let words = ["drumline"].into_iter().chain(typed.split(' '));
            let error = super::super::Cli::try_parse_from(words).unwrap_err();
            let told = told(&error);
            assert!(told.contains(list), "{typed}: {told}");
            assert!(!told.contains('\n'), "{told}");
        }
    }

    #[test]
    fn a_value_with_a_password_is_not_repeated() {
        let words = ["drumline", "status", "--servers", "http://ada:hunter2@a:1"];
        let error = super::super::Cli::try_parse_from(words).unwrap_err();
        let told = told(&error);
        assert!(told.starts_with("--servers <URL,...>: "), "{told}");
        assert!(
            told.contains("no credentials") && !told.contains("hunter2"),
            "{told}"
        );
    }

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
