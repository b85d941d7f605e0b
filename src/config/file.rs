//! The settings file, TOML.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bson::Bson;
use serde::Deserialize;

use super::duration::Span;
use super::small_file::{self, Unread};
use super::{ClusterLabel, ConfigError, HostName, Layer, NodeLayer, Secret, ServerUrl};
use crate::ejson;
use crate::model::NodeName;

/// A settings file is a few lines; a larger file is the wrong file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the file may say. docs/commands.md lists it for users.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Content {
    servers: Option<Vec<ServerUrl>>,
    api_key: Option<Secret>,
    api_key_file: Option<PathBuf>,
    mongodb: Option<Secret>,
    mongodb_file: Option<PathBuf>,
    timeout: Option<Span>,
    output: Option<String>,
    cluster: Option<ClusterLabel>,
    cluster_secret: Option<Secret>,
    cluster_secret_file: Option<PathBuf>,
    peers: Option<BTreeMap<NodeName, ServerUrl>>,
    heartbeat: Option<Span>,
    missed_heartbeats: Option<Count>,
    dwell: Option<Span>,
    assist_elections: Option<bool>,
    primary_timeout: Option<Span>,
    allow_hosts: Option<Vec<HostName>>,
}

/// A whole number, in the forms that a flag may have it in.
#[derive(Debug, Deserialize)]
#[serde(try_from = "toml::Value")]
struct Count(u32);

impl TryFrom<toml::Value> for Count {
    type Error = ejson::NotACount;

    fn try_from(value: toml::Value) -> Result<Self, Self::Error> {
        let number = match value {
            toml::Value::Integer(number) => Bson::Int64(number),
            toml::Value::Float(number) => Bson::Double(number),
            _ => return Err(ejson::NotACount),
        };
        let count = ejson::count(&number)?;
        u32::try_from(count).map(Self).map_err(|_| ejson::NotACount)
    }
}

pub(super) fn read(path: &Path) -> Result<Layer, ConfigError> {
    parse(path, &text_of(path)?)
}

/// A file that does not exist says nothing.
pub(super) fn read_if_present(path: &Path) -> Result<Layer, ConfigError> {
    match text_of(path) {
        Ok(text) => parse(path, &text),
        Err(Unread::Missing(_)) => Ok(Layer::default()),
        Err(Unread::Other(error)) => Err(error),
    }
}

fn text_of(path: &Path) -> Result<String, Unread> {
    small_file::read(path, FILE_BYTES_MAX, "settings")
}

fn parse(path: &Path, text: &str) -> Result<Layer, ConfigError> {
    let content: Content = toml::from_str(text).map_err(|error| located(path, text, &error))?;
    // A relative path in the file is relative to the file, not to where the command runs.
    let folder = path.parent().unwrap_or(Path::new(""));
    let either = |value: Option<Secret>, file: Option<PathBuf>| match (value, file) {
        (None, Some(file)) => Secret::read(&folder.join(file)).map(Some),
        (value, _) => Ok(value),
    };
    Ok(Layer {
        servers: content.servers.filter(|servers| !servers.is_empty()),
        api_key: either(content.api_key, content.api_key_file)?,
        mongodb: either(content.mongodb, content.mongodb_file)?,
        timeout: content.timeout.map(|timeout| timeout.0),
        output: content.output,
        node: NodeLayer {
            cluster: content.cluster,
            cluster_secret: either(content.cluster_secret, content.cluster_secret_file)?,
            peers: content.peers.map(|peers| peers.into_iter().collect()),
            heartbeat: content.heartbeat.map(|span| span.0),
            missed_heartbeats: content.missed_heartbeats.map(|count| count.0),
            dwell: content.dwell.map(|span| span.0),
            assist_elections: content.assist_elections,
            primary_timeout: content.primary_timeout.map(|span| span.0),
            allow_hosts: content.allow_hosts,
        },
    })
}

fn located(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |span| span.start);
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let what = error.message().replace('\n', "; ");
    ConfigError(format!("{}:{line}: {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Layer, ConfigError> {
        parse(Path::new("/etc/drumline.toml"), text)
    }

    #[test]
    fn holds_servers_and_keys() {
        let layer = parsed(
            "servers = [\"http://a:1\", \"http://b:2\"]\napi_key = \"k\"\ntimeout = \"3s\"\n",
        )
        .unwrap();
        assert_eq!(layer.servers.unwrap().len(), 2);
        assert_eq!(layer.api_key.unwrap().expose(), "k");
        assert_eq!(layer.timeout, Some(std::time::Duration::from_secs(3)));
    }

    #[test]
    fn a_mistake_in_a_secret_does_not_show_it() {
        for text in ["api_key = 12345", "api_key = x12345", "mongodb = [12345]"] {
            let ConfigError(message) = parsed(text).unwrap_err();
            assert!(!message.contains("12345"), "{message}");
        }
    }

    #[test]
    fn names_file_and_line_of_a_mistake() {
        for (text, line, word) in [
            ("servers = [\"http://a:1\"]\nserver = \"x\"\n", 2, "server"),
            ("\n\nservers = [\"a:1\"]\n", 3, "server URL"),
            ("api_key = \n", 1, ""),
            ("timeout = \"soon\"\n", 1, "soon"),
        ] {
            let ConfigError(message) = parsed(text).unwrap_err();
            assert!(
                message.starts_with(&format!("/etc/drumline.toml:{line}: ")),
                "{message}"
            );
            assert!(message.contains(word), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }
}
