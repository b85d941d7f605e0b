//! `drumline serve`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::Exit;
use super::args::whole;
use super::exit::ExitError;
use crate::config::{
    self, ClusterLabel, GivenSecret, HostName, Layer, NodeLayer, Secret, ServerUrl, Settings,
    parse_duration,
};
use crate::election::Timing;
use crate::failover::Assist;
use crate::model::{NodeName, Rank};
use crate::node::{self, Shutdown};
use crate::peer::{Credentials, Peer};

/// The cluster that is meant when none is named.
const CLUSTER_DEFAULT: &str = "drumline";
const HEARTBEAT_MIN: Duration = Duration::from_millis(10);
const HEARTBEAT_MAX: Duration = Duration::from_secs(10);
const PRIMARY_TIMEOUT_MIN: Duration = Duration::from_millis(100);
const PRIMARY_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Run one node in front of a replica set.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node's name, unique in its cluster, like n1.
    #[arg(long, value_parser = NodeName::parse)]
    name: NodeName,
    /// The address to listen on, like 127.0.0.1:7401.
    #[arg(long, value_name = "HOST:PORT")]
    listen: String,
    /// Where others reach this node, if not at the address that it listens on.
    #[arg(long, value_name = "URL", value_parser = ServerUrl::parse)]
    url: Option<ServerUrl>,
    /// The replica set's connection string. Others can see arguments: with a password in it, use
    /// --mongodb-file or DRUMLINE_MONGODB.
    #[arg(long, value_name = "URI", conflicts_with = "mongodb_file")]
    mongodb: Option<GivenSecret>,
    /// A file that holds the connection string.
    #[arg(long, value_name = "FILE")]
    mongodb_file: Option<PathBuf>,
    /// A file that holds the API key of clients, and nothing else; else DRUMLINE_API_KEY.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Another node of the cluster, like n2=http://10.0.0.2:7401; once for each.
    #[arg(long = "peer", value_name = "NAME=URL", value_parser = parse_peer)]
    peers: Vec<(NodeName, ServerUrl)>,
    /// The cluster's name: nodes of another cluster are refused [default: drumline].
    #[arg(long, value_name = "NAME", value_parser = ClusterLabel::parse)]
    cluster: Option<ClusterLabel>,
    /// A file that holds the secret that the nodes of the cluster share; else
    /// DRUMLINE_CLUSTER_SECRET.
    #[arg(long, value_name = "FILE")]
    cluster_secret_file: Option<PathBuf>,
    /// The time between two heartbeats, the same on all nodes [default: 100ms].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    heartbeat: Option<Duration>,
    /// How many heartbeats in a row may be missing before a peer is suspect [default: 3].
    #[arg(long, value_name = "COUNT", value_parser = whole::<u32>(0..=u32::MAX.into()))]
    missed_heartbeats: Option<u32>,
    /// How long a coordinator is left in peace by nodes of larger rank [default: 10s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    dwell: Option<Duration>,
    /// Ask a member to stand for election when a majority of the nodes finds that the primary is gone,
    /// and keep a successor ready; MongoDB elects [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    assist_elections: Option<bool>,
    /// How long a primary may be silent until a node finds that it is gone [default: 2s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    primary_timeout: Option<Duration>,
    /// Another name that browsers and programs may reach this node by, like db.example.com; once for
    /// each.
    #[arg(long = "allow-host", value_name = "NAME", value_parser = HostName::parse)]
    allow_hosts: Vec<HostName>,
    /// The rank in elections, instead of one that is drawn; another one for each start.
    #[arg(long, value_name = "NUMBER", hide = true, value_parser = whole::<u64>(0..=u64::MAX))]
    rank: Option<u64>,
    /// A settings file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    log_to_stderr()?;
    let settings = settings(&args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(async {
        let listener = TcpListener::bind(&args.listen).await.with_context(|| {
            format!(
                "cannot listen on {}: choose another address with --listen",
                args.listen
            )
        })?;
        node::run(listener, settings, stopped()).await?;
        Ok(Exit::Ok)
    })
}

fn settings(args: &Args) -> anyhow::Result<node::Settings> {
    let read = |file: &PathBuf| Secret::read(file);
    let given = args.mongodb.as_ref();
    let given = given
        .map(|secret| secret.of_flag("--mongodb"))
        .transpose()?;
    let from_file = args.mongodb_file.as_ref().map(read).transpose()?;
    let flags = Layer {
        mongodb: from_file.or(given),
        api_key: args.api_key_file.as_ref().map(read).transpose()?,
        node: NodeLayer {
            cluster: args.cluster.clone(),
            cluster_secret: args.cluster_secret_file.as_ref().map(read).transpose()?,
            peers: (!args.peers.is_empty()).then(|| args.peers.clone()),
            heartbeat: args.heartbeat,
            missed_heartbeats: args.missed_heartbeats,
            dwell: args.dwell,
            assist_elections: args.assist_elections,
            primary_timeout: args.primary_timeout,
            allow_hosts: (!args.allow_hosts.is_empty()).then(|| args.allow_hosts.clone()),
        },
        ..Layer::default()
    };
    let all = match &args.config {
        Some(file) => Settings::load_with(flags, file)?,
        None => Settings::load(flags)?,
    };
    let missing = |what: &str| ExitError::usage(format!("serve needs {what}"));
    let node = all.node();
    let peers = peers(&args.name, node.peers.clone().unwrap_or_default())?;
    Ok(node::Settings {
        rank: rank(args),
        mongodb_uri: all
            .mongodb()
            .ok_or_else(|| missing("--mongodb-file FILE, --mongodb URI or DRUMLINE_MONGODB"))?,
        api_keys: vec![
            all.api_key()
                .ok_or_else(|| missing("--api-key-file FILE or DRUMLINE_API_KEY"))?,
        ],
        credentials: credentials(&args.name, &node, !peers.is_empty())?,
        peers,
        timing: timing(&node)?,
        assist: assist(&node, timing(&node)?)?,
        url: args.url.clone(),
        hosts: hosts(args, node.allow_hosts.unwrap_or_default()),
    })
}

/// The names that the node was given, and that of its machine.
fn hosts(args: &Args, mut hosts: Vec<HostName>) -> Vec<HostName> {
    hosts.extend(HostName::of_authority(&args.listen));
    hosts.extend(args.url.as_ref().and_then(HostName::of_url));
    hosts.extend(HostName::of_authority(args.name.as_str()));
    hosts.extend(HostName::of_machine());
    hosts
}

fn rank(args: &Args) -> Rank {
    let node = args.name.clone();
    match args.rank {
        Some(number) => Rank { number, node },
        None => Rank::draw(node),
    }
}

fn parse_peer(text: &str) -> Result<(NodeName, ServerUrl), String> {
    let wrong = || format!("'{text}' is not a peer: write NAME=URL, like n2=http://10.0.0.2:7401");
    let (name, url) = text.split_once('=').ok_or_else(wrong)?;
    let name = NodeName::parse(name).map_err(|error| error.to_string())?;
    Ok((name, ServerUrl::parse(url)?))
}

fn peers(me: &NodeName, named: Vec<(NodeName, ServerUrl)>) -> anyhow::Result<Vec<Peer>> {
    let mut peers: Vec<Peer> = Vec::new();
    for (name, url) in named {
        let why_not = if name == *me {
            Some("is this node itself")
        } else if peers.iter().any(|peer| peer.name == name) {
            Some("is named twice")
        } else if url.is_https() {
            Some("must have an http URL: nodes speak to each other in a network of their own")
        } else if url.has_path() {
            Some("must have a URL without a path")
        } else {
            None
        };
        if let Some(why_not) = why_not {
            return Err(ExitError::usage(format!("the peer {name} {why_not}")).into());
        }
        peers.push(Peer { name, url });
    }
    Ok(peers)
}

fn credentials(
    me: &NodeName,
    node: &NodeLayer,
    needed: bool,
) -> anyhow::Result<Option<Credentials>> {
    let Some(secret) = &node.cluster_secret else {
        if needed {
            let text = "a node with peers needs --cluster-secret-file FILE or \
                        DRUMLINE_CLUSTER_SECRET, the same for all nodes";
            return Err(ExitError::usage(text).into());
        }
        return Ok(None);
    };
    let cluster = node
        .cluster
        .as_ref()
        .map_or(CLUSTER_DEFAULT, ClusterLabel::as_str);
    Ok(Some(Credentials::new(me.clone(), cluster, secret)?))
}

fn timing(node: &NodeLayer) -> anyhow::Result<Timing> {
    let defaults = Timing::default();
    let timing = Timing {
        heartbeat: node.heartbeat.unwrap_or(defaults.heartbeat),
        missed: node.missed_heartbeats.unwrap_or(defaults.missed),
        dwell: node.dwell.unwrap_or(defaults.dwell),
    };
    let wrong = |text: &str| Err(ExitError::usage(text).into());
    if !(HEARTBEAT_MIN..=HEARTBEAT_MAX).contains(&timing.heartbeat) {
        return wrong("give --heartbeat 10ms to 10s");
    }
    if !(1..=100).contains(&timing.missed) {
        return wrong("give --missed-heartbeats 1 to 100");
    }
    Ok(timing)
}

/// The primary is asked with each heartbeat: some of its answers in a row must be missing.
fn assist(node: &NodeLayer, timing: Timing) -> anyhow::Result<Option<Assist>> {
    let least = timing.heartbeat * 3;
    let default = Assist::default().primary_timeout.max(least * 2);
    let primary_timeout = node.primary_timeout.unwrap_or(default);
    if !(PRIMARY_TIMEOUT_MIN..=PRIMARY_TIMEOUT_MAX).contains(&primary_timeout) {
        return Err(ExitError::usage("give --primary-timeout 100ms to 60s").into());
    }
    if primary_timeout < least {
        let text = "give a --primary-timeout of three heartbeats at least";
        return Err(ExitError::usage(text).into());
    }
    let wanted = node.assist_elections.unwrap_or(false);
    Ok(wanted.then_some(Assist { primary_timeout }))
}

/// Resolves at the first SIGTERM or SIGINT.
async fn stopped() -> Shutdown {
    let (Ok(mut term), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => Shutdown::Leave,
        _ = interrupt.recv() => Shutdown::AtOnce,
    }
}

fn log_to_stderr() -> Result<(), ExitError> {
    let filter = config::setting("DRUMLINE_LOG")?.unwrap_or_else(|| "info".into());
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        ExitError::usage(format!(
            "DRUMLINE_LOG: {error}: write error, warn, info, debug or trace"
        ))
    })?;
    let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(color && config::env_path("NO_COLOR").is_none())
        .with_env_filter(filter)
        .init();
    Ok(())
}
