//! One run of a one-shot command: settings, backend, clock and runtime.

use bson::Document;

use crate::client::{Client, ClientError, Clock, ClockFile, Found, Written};
use crate::cluster::info::{self, ClusterInfo};
use crate::config::{self, Secret, ServerUrl, Settings, Target};
use crate::model::{Consistency, Namespace, Read, RequestId, Write};

use super::Exit;
use super::args::{Format, Remote};
use super::backend::{Backend, Direct};
use super::exit::{ExitError, say};

/// What a one-shot command works with.
#[derive(Debug)]
pub struct Session {
    pub format: Format,
    backend: Backend,
    clock: Clock,
    file: Option<ClockFile>,
}

/// Opens a session and runs a command in it.
pub fn run(
    remote: &Remote,
    work: impl AsyncFnOnce(&Session) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    let session = Session::open(remote)?;
    // One thread starts faster than many, and one request needs no more.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(work(&session));
    runtime.shutdown_background();
    result
}

impl Session {
    fn open(remote: &Remote) -> Result<Self, ExitError> {
        let settings = remote.settings()?;
        let format = Format::choose(&settings)?;
        let (backend, file) = match target(remote, &settings)? {
            Target::Servers(servers) => {
                let file = clock_file(servers.iter().map(ServerUrl::as_str));
                (
                    Backend::Servers(Box::new(client(servers, &settings)?)),
                    file,
                )
            }
            Target::Mongodb(uri) => {
                let file = clock_file([hosts(uri.expose())]);
                (Backend::Direct(Direct::new(uri)), file)
            }
        };
        Ok(Self {
            format,
            backend,
            clock: Clock::at(saved_clock(file.as_ref())),
            file,
        })
    }

    pub async fn write(
        &self,
        namespace: &Namespace,
        write: Write,
        id: &RequestId,
    ) -> Result<Written, ExitError> {
        let result = self.backend.write(namespace, write, id, &self.clock).await;
        self.finish(result).await
    }

    pub async fn read(
        &self,
        namespace: &Namespace,
        read: Read,
        consistency: Consistency,
    ) -> Result<Found, ExitError> {
        let result = self
            .backend
            .read(namespace, read, consistency, &self.clock)
            .await;
        self.finish(result).await
    }

    pub async fn log(&self, from: i64, limit: u32) -> Result<Vec<Document>, ExitError> {
        let result = self.backend.log(from, limit, &self.clock).await;
        self.finish(result).await
    }

    /// Saves the clock before anything is printed: whoever reads the output may act on it at once.
    async fn finish<T>(&self, result: Result<T, ClientError>) -> Result<T, ExitError> {
        let now = self.clock.now();
        if now > 0
            && let Some(file) = &self.file
            && let Err(error) = file.raise(now).await
        {
            say(&format!(
                "the clock could not be saved, the next command may read older data: {error}"
            ));
        }
        result.map_err(ExitError::from)
    }
}

/// A client for these servers, with the key that the settings give or that their cluster has.
pub fn client(servers: Vec<ServerUrl>, settings: &Settings) -> Result<Client, ExitError> {
    let key = key(&servers, settings);
    Ok(Client::new(servers, key.as_ref(), settings.timeout())?)
}

/// The key that the settings give; else that of the running cluster whose nodes these are.
pub fn key(servers: &[ServerUrl], settings: &Settings) -> Option<Secret> {
    settings.api_key().or_else(|| key_of_cluster(servers))
}

/// The key of a running cluster goes to that cluster's nodes only.
fn key_of_cluster(servers: &[ServerUrl]) -> Option<Secret> {
    let all_in = |cluster: &ClusterInfo| {
        let mut servers = servers.iter();
        servers.all(|server| {
            cluster
                .nodes
                .iter()
                .any(|node| node.url.trim_end_matches('/') == server.as_str())
        })
    };
    info::running()
        .into_iter()
        .find(all_in)
        .map(|cluster| Secret::new(cluster.api_key))
}

fn target(remote: &Remote, settings: &Settings) -> Result<Target, ExitError> {
    match settings.target() {
        Some(target) if remote.name.is_none() => Ok(target),
        _ => Ok(Target::Servers(node_urls(&the_cluster(
            remote.name.as_deref(),
        )?)?)),
    }
}

pub fn node_urls(cluster: &ClusterInfo) -> Result<Vec<ServerUrl>, ExitError> {
    let urls = cluster.nodes.iter().map(|node| ServerUrl::parse(&node.url));
    urls.collect::<Result<_, _>>().map_err(ExitError::usage)
}

/// The running cluster of that name, or the only one.
pub fn the_cluster(name: Option<&str>) -> Result<ClusterInfo, ExitError> {
    let mut clusters = info::running();
    clusters.retain(|cluster| name.is_none_or(|name| cluster.name == name));
    match (clusters.len(), name) {
        (1, _) => Ok(clusters.remove(0)),
        (0, Some(name)) => Err(ExitError::unreachable(format!(
            "no cluster named '{name}' runs: `drumline ls` lists those that do"
        ))),
        (0, None) => Err(ExitError::unreachable(
            "no server is known: start a cluster with `drumline up`, or give --servers URL,... or DRUMLINE_SERVERS",
        )),
        _ => {
            let names: Vec<_> = clusters
                .iter()
                .map(|cluster| cluster.name.as_str())
                .collect();
            Err(ExitError::usage(format!(
                "{} clusters run ({}): choose one with --name or --servers",
                names.len(),
                names.join(", ")
            )))
        }
    }
}

/// Without a home there is no clock file, and each command begins at 0.
fn clock_file<'a>(cluster: impl IntoIterator<Item = &'a str>) -> Option<ClockFile> {
    config::state_dir().map(|folder| ClockFile::new(folder, cluster))
}

/// A clock that cannot be read is no reason to fail: the server's own clock orders the request.
fn saved_clock(file: Option<&ClockFile>) -> i64 {
    let Some(file) = file else { return 0 };
    file.load().unwrap_or_else(|error| {
        say(&format!("the saved clock is not used: {error}"));
        0
    })
}

/// The hosts of a MongoDB URI, without its credentials.
fn hosts(uri: &str) -> &str {
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
