//! The flags that one-shot commands share.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use crate::config::{ConfigError, GivenSecret, Layer, Secret, ServerUrl, Settings, parse_duration};
use crate::ejson;
use crate::model::{Consistency, RequestId};

use super::exit::ExitError;

/// Reads whole numbers in this range, by the rules of a field of a body.
pub fn whole<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = ejson::whole_text(text).filter(|number| range.contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| match (*range.start(), *range.end()) {
            (least, u64::MAX) => format!("it must be a whole number from {least} on"),
            (least, most) => format!("it must be a whole number from {least} to {most}"),
        })
    }
}

/// Where a one-shot command goes, and how it prints.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Servers and output")]
pub struct Remote {
    /// The servers, tried in this order until one executes the command. Else DRUMLINE_SERVERS,
    /// the settings file, or the running cluster that `drumline up` started
    #[arg(long, value_name = "URL,...", value_delimiter = ',', value_parser = ServerUrl::parse)]
    servers: Option<Vec<ServerUrl>>,

    /// The running cluster of that name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["servers", "mongodb", "mongodb_file"])]
    pub name: Option<String>,

    /// A file that holds the API key. Else DRUMLINE_API_KEY
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,

    /// Use no server: append to the log on this replica set. Other users of the machine can read a
    /// password given here: prefer --mongodb-file or DRUMLINE_MONGODB
    #[arg(long, value_name = "URI", conflicts_with_all = ["servers", "mongodb_file"])]
    mongodb: Option<GivenSecret>,

    /// A file that holds the MongoDB URI
    #[arg(long, value_name = "FILE", conflicts_with = "servers")]
    mongodb_file: Option<PathBuf>,

    /// Give up after this time, all tries together [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,

    /// How to print [default: table on a terminal, jsonl otherwise]
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

impl Remote {
    /// All settings, these flags on top.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        let given = self.mongodb.as_ref();
        let given = given
            .map(|secret| secret.of_flag("--mongodb"))
            .transpose()?;
        let mongodb_file = self.mongodb_file.as_deref().map(Secret::read).transpose()?;
        Settings::load(Layer {
            servers: self.servers.clone(),
            api_key: self.api_key_file.as_deref().map(Secret::read).transpose()?,
            mongodb: given.or(mongodb_file),
            timeout: self.timeout,
            output: self.output.map(|format| format.name().to_owned()),
            ..Layer::default()
        })
    }
}

/// What writes have besides.
#[derive(Debug, Clone, clap::Args)]
pub struct Retry {
    /// The request id of an earlier try, to get its answer or to finish it; it is never done twice
    #[arg(long, value_name = "ID", value_parser = RequestId::read)]
    request_id: Option<RequestId>,
}

impl Retry {
    pub fn id(&self) -> RequestId {
        self.request_id.clone().unwrap_or_else(RequestId::fresh)
    }
}

/// What reads have besides.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Freshness {
    /// linearizable: shows every write answered before. causal: never older than what this user
    /// has seen, from any server
    #[arg(long, value_name = "HOW", default_value = "linearizable")]
    read: ReadConcern,
}

impl Freshness {
    pub const fn consistency(self) -> Consistency {
        match self.read {
            ReadConcern::Linearizable => Consistency::Linearizable,
            ReadConcern::Causal => Consistency::Causal,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ReadConcern {
    Linearizable,
    Causal,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: columns for many documents, an indented form for one
    Table,
    /// One indented JSON value
    Json,
    /// One line of JSON a document
    Jsonl,
}

impl Format {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Json => "json",
            Self::Jsonl => "jsonl",
        }
    }

    /// What the settings ask for; else what suits stdout.
    pub fn choose(settings: &Settings) -> Result<Self, ExitError> {
        use std::io::IsTerminal as _;
        match settings.output() {
            Some(name) => Self::from_str(&name, false).map_err(|_| {
                ExitError::usage(format!("output '{name}' is not one of table, json, jsonl"))
            }),
            None if std::io::stdout().is_terminal() => Ok(Self::Table),
            None => Ok(Self::Jsonl),
        }
    }
}
