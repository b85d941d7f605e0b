//! Settings: flags first, then the environment, then the file, then defaults. The only reader of
//! the environment and of settings files.
//!
//! Never decides what a command does with a setting, never prints a secret.

mod file;
mod host_name;
mod secret;
mod server_url;

use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::model::NodeName;

pub use host_name::HostName;
pub use secret::Secret;
pub use server_url::ServerUrl;

/// How long a one-shot command tries before it gives up.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// A setting that cannot be used; the text is one line that says where it is and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// The environment variable `name`, if it is set, not empty and valid UTF-8.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the one reader of the environment"
)]
pub fn env(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?;
    // A value that was read from a file ends with a line break. It is no part of any setting of ours;
    // the paths of others are left as they are.
    let value = match name.starts_with("DRUMLINE_") {
        true => secret::tidied(&value).to_owned(),
        false => value,
    };
    Some(value).filter(|value| !value.is_empty())
}

/// The folder for files that a program keeps between its runs (XDG base directories), with
/// Drumline's own folder in it. `None` if the user has no home.
pub fn state_dir() -> Option<PathBuf> {
    user_dir("XDG_STATE_HOME", ".local/state")
}

/// The user's folder for Drumline by the XDG rules: a relative path in the variable counts as unset.
fn user_dir(variable: &str, below_home: &str) -> Option<PathBuf> {
    let named = env(variable).map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || env("HOME").map(|home| Path::new(&home).join(below_home));
    Some(named.or_else(home)?.join("drumline"))
}

/// What one source (flags, environment or file) says about one-shot commands.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    pub servers: Option<Vec<ServerUrl>>,
    pub api_key: Option<Secret>,
    pub mongodb: Option<Secret>,
    pub timeout: Option<Duration>,
    pub output: Option<String>,
    pub node: NodeLayer,
}

/// What one source says about a node and its cluster.
#[derive(Debug, Clone, Default)]
pub struct NodeLayer {
    pub cluster: Option<String>,
    pub cluster_secret: Option<Secret>,
    pub peers: Option<Vec<(NodeName, ServerUrl)>>,
    pub heartbeat: Option<Duration>,
    pub missed_heartbeats: Option<u32>,
    pub dwell: Option<Duration>,
    pub assist_elections: Option<bool>,
    pub primary_timeout: Option<Duration>,
    pub allow_hosts: Option<Vec<HostName>>,
}

/// Where a one-shot command goes.
#[derive(Debug, Clone)]
pub enum Target {
    /// Through these nodes, over HTTP.
    Servers(Vec<ServerUrl>),
    /// Straight to this replica set: the command appends to the log itself.
    Mongodb(Secret),
}

/// All sources, the strongest first.
#[derive(Debug, Clone)]
pub struct Settings {
    layers: [Layer; 3],
}

impl Settings {
    /// Puts the flags on top of the environment and of the settings file.
    pub fn load(flags: Layer) -> Result<Self, ConfigError> {
        Ok(Self {
            layers: [flags, environment()?, from_file()?],
        })
    }

    /// The same with a settings file that a flag names.
    pub fn load_with(flags: Layer, file: &Path) -> Result<Self, ConfigError> {
        Ok(Self {
            layers: [flags, environment()?, file::read(file)?],
        })
    }

    /// The target that the strongest source names. Servers win over a MongoDB URI of the same source.
    pub fn target(&self) -> Option<Target> {
        self.first(|layer| {
            let servers = layer.servers.clone().map(Target::Servers);
            servers.or_else(|| layer.mongodb.clone().map(Target::Mongodb))
        })
    }

    pub fn servers(&self) -> Option<Vec<ServerUrl>> {
        self.first(|layer| layer.servers.clone())
    }

    pub fn mongodb(&self) -> Option<Secret> {
        self.first(|layer| layer.mongodb.clone())
    }

    pub fn api_key(&self) -> Option<Secret> {
        self.first(|layer| layer.api_key.clone())
    }

    pub fn timeout(&self) -> Duration {
        self.first(|layer| layer.timeout).unwrap_or(TIMEOUT_DEFAULT)
    }

    pub fn output(&self) -> Option<String> {
        self.first(|layer| layer.output.clone())
    }

    /// All that is said about a node, each setting by its strongest source.
    pub fn node(&self) -> NodeLayer {
        NodeLayer {
            cluster: self.first(|layer| layer.node.cluster.clone()),
            cluster_secret: self.first(|layer| layer.node.cluster_secret.clone()),
            peers: self.first(|layer| layer.node.peers.clone()),
            heartbeat: self.first(|layer| layer.node.heartbeat),
            missed_heartbeats: self.first(|layer| layer.node.missed_heartbeats),
            dwell: self.first(|layer| layer.node.dwell),
            assist_elections: self.first(|layer| layer.node.assist_elections),
            primary_timeout: self.first(|layer| layer.node.primary_timeout),
            allow_hosts: self.first(|layer| layer.node.allow_hosts.clone()),
        }
    }

    fn first<T>(&self, of: impl Fn(&Layer) -> Option<T>) -> Option<T> {
        self.layers.iter().find_map(of)
    }
}

/// The file that DRUMLINE_CONFIG names must exist; the one at the usual place need not.
fn from_file() -> Result<Layer, ConfigError> {
    if let Some(path) = env("DRUMLINE_CONFIG") {
        return file::read(Path::new(&path));
    }
    match user_dir("XDG_CONFIG_HOME", ".config") {
        Some(folder) => file::read_if_present(&folder.join("config.toml")),
        None => Ok(Layer::default()),
    }
}

fn environment() -> Result<Layer, ConfigError> {
    let wrong = |name: &str, why: String| ConfigError(format!("{name}: {why}"));
    let secret = |name: &str| {
        let read = env(name).map(|text| Secret::parse(&text)).transpose();
        read.map_err(|why| wrong(name, why.to_owned()))
    };
    Ok(Layer {
        servers: env("DRUMLINE_SERVERS")
            .map(|list| list.split(',').map(ServerUrl::parse).collect())
            .transpose()
            .map_err(|why| wrong("DRUMLINE_SERVERS", why))?,
        api_key: secret("DRUMLINE_API_KEY")?,
        mongodb: secret("DRUMLINE_MONGODB")?,
        timeout: env("DRUMLINE_TIMEOUT")
            .map(|text| parse_duration(&text))
            .transpose()
            .map_err(|why| wrong("DRUMLINE_TIMEOUT", why))?,
        output: None,
        node: NodeLayer {
            cluster_secret: secret("DRUMLINE_CLUSTER_SECRET")?,
            allow_hosts: env("DRUMLINE_ALLOW_HOSTS")
                .map(|list| list.split(',').map(HostName::parse).collect())
                .transpose()
                .map_err(|why| wrong("DRUMLINE_ALLOW_HOSTS", why))?,
            ..NodeLayer::default()
        },
    })
}

/// Reads `10`, `10s`, `500ms` or `2m`; a bare number is in seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let wrong = || format!("'{text}' is not a duration: write 10s, 500ms or 2m");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        _ => return Err(wrong()),
    };
    match number.checked_mul(millis) {
        Some(0) => Err(format!(
            "'{text}' is no time at all: write 10s, 500ms or 2m"
        )),
        Some(millis) if millis <= DURATION_MILLIS_MAX => Ok(Duration::from_millis(millis)),
        _ => Err(format!("'{text}' is longer than a day")),
    }
}

/// A day: far past any use, and far from where sums of instants overflow.
const DURATION_MILLIS_MAX: u64 = 24 * 60 * 60 * 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(url: &str) -> Layer {
        Layer {
            servers: Some(vec![ServerUrl::parse(url).unwrap()]),
            ..Layer::default()
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for bad in [
            "",
            "s",
            "-1",
            "1.5s",
            "0",
            "1h",
            "18446744073709551615m",
            "2000m",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn the_strongest_source_names_the_target() {
        let mongodb = Layer {
            mongodb: Some(Secret::new("mongodb://m".into())),
            timeout: Some(Duration::from_secs(3)),
            ..Layer::default()
        };
        let settings = Settings {
            layers: [Layer::default(), mongodb.clone(), servers("http://a:1")],
        };
        assert!(matches!(settings.target(), Some(Target::Mongodb(_))));
        assert_eq!(settings.timeout(), Duration::from_secs(3));

        let settings = Settings {
            layers: [servers("http://a:1"), mongodb, Layer::default()],
        };
        assert!(matches!(settings.target(), Some(Target::Servers(_))));
        assert!(settings.mongodb().is_some());
        assert!(settings.api_key().is_none());
    }
}
