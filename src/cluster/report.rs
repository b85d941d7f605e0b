//! What `up`, `info` and `ls` say: step lines, blocks and tables. Never fails: output that
//! nobody reads must not end a cluster.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::info::{ClusterInfo, Listed};
use super::spec::Spec;
use crate::config;

/// Where a starting cluster tells what it does: the terminal, and the cluster's own log.
#[derive(Debug, Clone)]
pub struct Console {
    started: Instant,
    log: Option<Arc<File>>,
}

impl Console {
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            log: None,
        }
    }

    /// Also writes to a log from now on.
    pub fn with_log(self, log: File) -> Self {
        Self {
            log: Some(Arc::new(log)),
            ..self
        }
    }

    /// One line with the time since the start.
    pub fn step(&self, text: &str) {
        let seconds = self.started.elapsed().as_secs_f32();
        let _ = writeln!(io::stderr(), "{seconds:>5.1} s  {text}");
        self.note(text);
    }

    /// One line as it is.
    pub fn line(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
        self.note(text);
    }

    fn note(&self, text: &str) {
        if let Some(log) = &self.log {
            let now = bson::DateTime::now()
                .try_to_rfc3339_string()
                .unwrap_or_default();
            let _ = writeln!(log.as_ref(), "{now}  {text}");
        }
    }
}

/// Data for stdout.
pub fn show(text: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The block that `up` ends with: what runs where, what persists, what to type next.
pub fn block(info: &ClusterInfo, spec: &Spec, folder: &Path) -> String {
    let name = &info.name;
    let flag = flag(name);
    let keeps = if spec.ephemeral {
        "deleted when the cluster stops"
    } else {
        "kept when the cluster stops"
    };
    let mut text = format!("\nThe cluster '{name}' is up.\n\n");
    let _ = write!(text, "{}", processes(info));
    let _ = writeln!(text, "\n  data  {} ({keeps})", folder.display());
    let _ = writeln!(
        text,
        "  logs  nodes/*.log and members/*/mongod.log in that folder"
    );
    let _ = writeln!(text, "  uri   {}", masked(&info.mongodb_uri));
    let _ = writeln!(
        text,
        "        with its password: drumline info{flag} -o json"
    );
    let _ = writeln!(text, "\nNext:\n");
    if !info.nodes.is_empty() {
        let _ = writeln!(
            text,
            "  drumline insert{flag} shop.orders '{{\"item\":\"drum\"}}'"
        );
        let _ = writeln!(text, "  drumline find{flag} shop.orders");
    }
    let _ = writeln!(text, "  drumline down{flag}\n");
    if let Some(path) = not_on_path() {
        let path = path.display();
        let _ = writeln!(text, "`drumline` is not on your PATH; here it is {path}\n");
    }
    text
}

/// Where this program is, if its name alone does not start it.
fn not_on_path() -> Option<PathBuf> {
    let this = std::env::current_exe().ok()?;
    let folders = config::env_path("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&folders);
    let starts =
        |folder: PathBuf| folder.join("drumline").canonicalize().ok() == this.canonicalize().ok();
    if folders.any(starts) {
        return None;
    }
    let here = std::env::current_dir().ok();
    let within = here.and_then(|here| this.strip_prefix(here).map(Path::to_owned).ok());
    Some(within.unwrap_or(this))
}

/// The `--name` that a next command needs; the default name needs none.
fn flag(name: &str) -> String {
    if name == super::spec::NAME_DEFAULT {
        return String::new();
    }
    format!(" --name {name}")
}

fn processes(info: &ClusterInfo) -> String {
    let nodes = info
        .nodes
        .iter()
        .map(|n| (n.name.as_str(), n.url.as_str(), n.pid));
    let members = info.members.iter();
    let members = (1..)
        .zip(members)
        .map(|(at, m)| (format!("m{at}"), m.host.as_str(), m.pid));
    let mut text = String::new();
    for (name, url, pid) in nodes {
        let _ = writeln!(text, "  {name:<4}  {url:<32}  pid {pid}");
    }
    for (name, host, pid) in members {
        let _ = writeln!(text, "  {name:<4}  {host:<32}  pid {pid}");
    }
    text
}

/// A cluster for humans: `drumline info`.
pub fn table(info: &ClusterInfo, folder: &Path) -> String {
    let mut text = format!("cluster '{}'\n\n{}\n", info.name, processes(info));
    let _ = writeln!(text, "  data  {}", folder.display());
    let _ = writeln!(text, "  uri   {}", masked(&info.mongodb_uri));
    text
}

/// All clusters: `drumline ls`.
pub fn listing(clusters: &[Listed]) -> String {
    let width = clusters
        .iter()
        .map(|c| c.name.len())
        .max()
        .unwrap_or(0)
        .max(4);
    let mut text = format!("{:<width$}  {:<8}  DATA\n", "NAME", "STATE");
    for cluster in clusters {
        let Listed { name, state, data } = cluster;
        let _ = writeln!(text, "{name:<width$}  {:<8}  {data}", state.as_str());
    }
    text
}

/// A connection string without its password.
fn masked(uri: &str) -> String {
    let parts = uri.split_once("://").and_then(|(scheme, rest)| {
        let (login, rest) = rest.split_once('@')?;
        let (user, _) = login.split_once(':')?;
        Some(format!("{scheme}://{user}:***@{rest}"))
    });
    parts.unwrap_or_else(|| uri.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked() {
        assert_eq!(
            masked("mongodb://drumline:secret@h:1,h:2/?replicaSet=s"),
            "mongodb://drumline:***@h:1,h:2/?replicaSet=s"
        );
        assert_eq!(masked("mongodb://h:1/"), "mongodb://h:1/");
    }
}
