//! The way to a cluster: which servers or which replica set, and with which key.

use std::io::IsTerminal as _;

use crate::client::Client;
use crate::cluster::NAME_DEFAULT;
use crate::cluster::info::{self, ClusterInfo};
use crate::config::{Secret, ServerUrl, Settings, Target};

use super::args::Remote;
use super::exit::{ExitError, say};

/// The way that a one-shot command takes.
#[derive(Debug)]
pub enum Route {
    Servers(Servers),
    /// Straight to this replica set.
    Mongodb(Secret),
}

impl Route {
    /// What the strongest setting names; else the running cluster.
    pub fn choose(remote: &Remote, settings: &Settings) -> Result<Self, ExitError> {
        match settings.target() {
            Some(Target::Mongodb(uri)) if remote.name.is_none() => Ok(Self::Mongodb(uri)),
            _ => Servers::choose(remote, settings).map(Self::Servers),
        }
    }
}

/// Nodes, and the key that they take.
#[derive(Debug, Clone)]
pub struct Servers {
    pub urls: Vec<ServerUrl>,
    pub key: Option<Secret>,
}

impl Servers {
    /// The servers of the settings; else those of the running cluster.
    pub fn choose(remote: &Remote, settings: &Settings) -> Result<Self, ExitError> {
        match settings.servers() {
            Some(urls) if remote.name.is_none() => Ok(Self {
                key: settings.api_key().or_else(|| key_of_their_cluster(&urls)),
                urls,
            }),
            _ => Self::of_cluster(the_cluster(remote.name.as_deref())?, settings),
        }
    }

    fn of_cluster(cluster: ClusterInfo, settings: &Settings) -> Result<Self, ExitError> {
        if cluster.nodes.is_empty() {
            return Err(ExitError::unreachable(format!(
                "the cluster '{}' has no node: reach its replica set with --mongodb",
                cluster.name
            )));
        }
        let urls = cluster.nodes.iter().map(|node| ServerUrl::parse(&node.url));
        Ok(Self {
            urls: urls.collect::<Result<_, _>>().map_err(ExitError::usage)?,
            key: settings.api_key().or(Some(Secret::new(cluster.api_key))),
        })
    }

    pub fn client(&self, settings: &Settings) -> Result<Client, ExitError> {
        let client = Client::new(self.urls.clone(), self.key.as_ref(), settings.timeout());
        Ok(client?)
    }
}

/// The replica set of the settings; else that of the running cluster.
pub fn mongodb(remote: &Remote, settings: &Settings) -> Result<Secret, ExitError> {
    match settings.mongodb() {
        Some(uri) if remote.name.is_none() => Ok(uri),
        _ => Ok(Secret::new(
            the_cluster(remote.name.as_deref())?.mongodb_uri,
        )),
    }
}

/// The key of a running cluster goes to that cluster's nodes only.
fn key_of_their_cluster(urls: &[ServerUrl]) -> Option<Secret> {
    let has = |cluster: &ClusterInfo, url: &ServerUrl| {
        let mut nodes = cluster.nodes.iter();
        nodes.any(|node| node.url.trim_end_matches('/') == url.as_str())
    };
    let mut running = info::running().into_iter();
    let theirs = running.find(|cluster| urls.iter().all(|url| has(cluster, url)))?;
    Some(Secret::new(theirs.api_key))
}

/// The running cluster of that name. Without a name: the only one that runs, if it has the name that
/// `drumline up` gives, or if there is no other at all. Else it may be another one than was meant,
/// which has just been stopped.
fn the_cluster(name: Option<&str>) -> Result<ClusterInfo, ExitError> {
    let mut clusters = info::running();
    clusters.retain(|cluster| name.is_none_or(|name| cluster.name == name));
    match (clusters.len(), name) {
        (1, Some(_)) => Ok(clusters.remove(0)),
        (1, None) => {
            let cluster = clusters.remove(0);
            let other = info::other_than(&cluster.name);
            match other.filter(|_| cluster.name != NAME_DEFAULT) {
                None => {
                    tell(&cluster.name);
                    Ok(cluster)
                }
                Some(other) => Err(ExitError::usage(format!(
                    "which cluster? '{other}' is there and does not run, '{}' runs: choose one with --name",
                    cluster.name
                ))),
            }
        }
        (0, Some(name)) => Err(ExitError::unreachable(format!(
            "no cluster named '{name}' runs: `drumline ls` lists those that do"
        ))),
        (0, None) => Err(ExitError::unreachable(
            "no server is known: start a cluster with `drumline up`, or give --servers URL,... or DRUMLINE_SERVERS",
        )),
        (count, _) => {
            let names = clusters.into_iter().map(|cluster| cluster.name);
            let names = names.collect::<Vec<_>>().join(", ");
            Err(ExitError::usage(format!(
                "{count} clusters run ({names}): choose one with --name or --servers"
            )))
        }
    }
}

/// Who has had several clusters, of which one was deleted, may have meant another one. A program has no
/// use for the line.
fn tell(name: &str) {
    if name != NAME_DEFAULT && std::io::stderr().is_terminal() {
        say(&format!("in the cluster '{name}', the only one that runs"));
    }
}

/// The hosts of a MongoDB URI, without its credentials.
pub fn hosts(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    authority
        .rsplit_once('@')
        .map_or(authority, |(_, hosts)| hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_hold_no_credentials() {
        for (uri, expected) in [
            ("mongodb://u:p%40@a:1,b:2/db?x=@y", "a:1,b:2"),
            ("mongodb+srv://c.example.net", "c.example.net"),
            ("mongodb://a:1/?replicaSet=rs", "a:1"),
        ] {
            assert_eq!(hosts(uri), expected);
        }
    }
}
