//! Settings: flags first, then the environment, then the file, then defaults. The only reader of
//! the environment and of settings files.
//!
//! Never decides what a command does with a setting, never prints a secret.

mod cluster_label;
mod duration;
mod file;
mod host_name;
mod secret;
mod server_url;
mod small_file;
mod text;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::model::NodeName;

pub use cluster_label::ClusterLabel;
pub use duration::{parse_bound, parse_duration};
pub use host_name::HostName;
pub use secret::{GivenSecret, Secret};
pub use server_url::ServerUrl;
pub use small_file::FLOW_WAIT_MAX;
pub use text::{tidied, tidied_bytes};

/// How long a one-shot command tries before it gives up.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// A setting that cannot be used; the text is one line that says where it is and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// A setting that the environment variable `name` holds; blank counts as not set. What is set and is
/// not text is refused: a command that went on without it would go elsewhere.
pub fn setting(name: &str) -> Result<Option<String>, ConfigError> {
    let Some(value) = raw(name) else {
        return Ok(None);
    };
    let text = value.into_string();
    let text = text.map_err(|_| ConfigError(format!("{name}: it is not text in UTF-8")))?;
    Ok(Some(tidied(&text).to_owned()).filter(|text| !text.is_empty()))
}

/// A path, or a list of them, that the environment variable `name` holds; any bytes can be one.
pub fn env_path(name: &str) -> Option<OsString> {
    let value = raw(name)?;
    // A value that was read from a file ends with a line break. It is no part of any setting of ours;
    // the paths of others are left as they are.
    let value = match name.starts_with("DRUMLINE_") {
        true => text::tidied_path(&value).to_owned(),
        false => value,
    };
    Some(value).filter(|value| !value.is_empty())
}

#[allow(
    clippy::disallowed_methods,
    reason = "this is the one reader of the environment"
)]
fn raw(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// The folder for files that a program keeps between its runs (XDG base directories), with
/// Drumline's own folder in it. `None` if the user has no home.
pub fn state_dir() -> Option<PathBuf> {
    user_dir("XDG_STATE_HOME", ".local/state")
}

/// The user's folder for Drumline by the XDG rules: a relative path in the variable counts as unset.
fn user_dir(variable: &str, below_home: &str) -> Option<PathBuf> {
    let named = env_path(variable).map(PathBuf::from);
    let named = named.filter(|path| path.is_absolute());
    let home = || env_path("HOME").map(|home| Path::new(&home).join(below_home));
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
    pub cluster: Option<ClusterLabel>,
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
    if let Some(path) = env_path("DRUMLINE_CONFIG") {
        return file::read(Path::new(&path));
    }
    match user_dir("XDG_CONFIG_HOME", ".config") {
        Some(folder) => file::read_if_present(&folder.join("config.toml")),
        None => Ok(Layer::default()),
    }
}

fn environment() -> Result<Layer, ConfigError> {
    Ok(Layer {
        servers: from_variable("DRUMLINE_SERVERS", |list| {
            list.split(',').map(ServerUrl::parse).collect()
        })?,
        api_key: from_variable("DRUMLINE_API_KEY", Secret::parse)?,
        mongodb: from_variable("DRUMLINE_MONGODB", Secret::parse)?,
        timeout: from_variable("DRUMLINE_TIMEOUT", parse_duration)?,
        output: None,
        node: NodeLayer {
            cluster_secret: from_variable("DRUMLINE_CLUSTER_SECRET", Secret::parse)?,
            allow_hosts: from_variable("DRUMLINE_ALLOW_HOSTS", |list| {
                list.split(',').map(HostName::parse).collect()
            })?,
            ..NodeLayer::default()
        },
    })
}

fn from_variable<T, E: fmt::Display>(
    name: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, ConfigError> {
    let read = setting(name)?.map(|text| parse(&text)).transpose();
    read.map_err(|why| ConfigError(format!("{name}: {why}")))
}

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
