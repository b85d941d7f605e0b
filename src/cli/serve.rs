//! `drumline serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::Exit;
use super::exit::ExitError;
use crate::config::{self, Layer, Secret, Settings};
use crate::model::NodeName;
use crate::node;

/// Run one node in front of a replica set.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node's name, unique in its cluster, like n1.
    #[arg(long, value_parser = NodeName::parse)]
    name: NodeName,
    /// The address to listen on, like 127.0.0.1:7401.
    #[arg(long, value_name = "HOST:PORT")]
    listen: SocketAddr,
    /// The replica set's connection string. Others can see arguments: with a password in it, use
    /// --mongodb-file or DRUMLINE_MONGODB.
    #[arg(long, value_name = "URI", conflicts_with = "mongodb_file")]
    mongodb: Option<String>,
    /// A file that holds the connection string.
    #[arg(long, value_name = "FILE")]
    mongodb_file: Option<PathBuf>,
    /// A file that holds the API key of clients, and nothing else; else DRUMLINE_API_KEY.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// A settings file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    log_to_stderr();
    let settings = settings(&args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.listen).await.with_context(|| {
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
    let from_file = args.mongodb_file.as_ref().map(read).transpose()?;
    let flags = Layer {
        mongodb: from_file.or_else(|| args.mongodb.clone().map(Secret::new)),
        api_key: args.api_key_file.as_ref().map(read).transpose()?,
        ..Layer::default()
    };
    let all = match &args.config {
        Some(file) => Settings::load_with(flags, file)?,
        None => Settings::load(flags)?,
    };
    let missing = |what: &str| ExitError::usage(format!("serve needs {what}"));
    Ok(node::Settings {
        name: args.name.clone(),
        mongodb_uri: all
            .mongodb()
            .ok_or_else(|| missing("--mongodb-file FILE, --mongodb URI or DRUMLINE_MONGODB"))?,
        api_keys: vec![
            all.api_key()
                .ok_or_else(|| missing("--api-key-file FILE or DRUMLINE_API_KEY"))?,
        ],
    })
}

/// Resolves at the first SIGTERM or SIGINT.
async fn stopped() {
    let (Ok(mut term), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn log_to_stderr() {
    let filter = config::env("DRUMLINE_LOG").unwrap_or_else(|| "info".into());
    let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(color && config::env("NO_COLOR").is_none())
        .with_env_filter(EnvFilter::new(filter))
        .init();
}
