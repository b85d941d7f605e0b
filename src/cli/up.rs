//! `drumline up`.

use std::path::PathBuf;

use super::Exit;
use super::args::whole;
use super::exit::ExitError;
use crate::cluster::{self, ClusterName, Options, Wish};

/// Start a local replica set with Drumline in front.
///
/// Runs in the foreground until Ctrl-C; with --detach in the background until `drumline down`.
/// Started again, it is the same cluster with the same data and the same ports.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which cluster: letters, digits, '-' and '_'
    #[arg(long, value_name = "NAME", default_value = cluster::NAME_DEFAULT)]
    name: String,
    /// Keep the data in this folder instead of the user's data folder
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// How many nodes; 0 starts a plain replica set [default: 3]
    #[arg(long, value_name = "COUNT", value_parser = whole::<usize>(0..=u64::MAX))]
    nodes: Option<usize>,
    /// How many members: 1, 3 or 5 [default: 3]
    #[arg(long, value_name = "COUNT", value_parser = whole::<usize>(0..=u64::MAX))]
    members: Option<usize>,
    /// Nodes listen at PORT+1 and up, members at PORT+11 and up; 0 takes free ports
    /// [default: 7400]
    #[arg(long, value_name = "PORT", value_parser = whole::<u16>(0..=u16::MAX.into()))]
    base_port: Option<u16>,
    /// Nodes ask a member to stand for election when the primary is lost [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    assist_elections: Option<bool>,
    /// Delete the data when the cluster stops
    #[arg(long, conflicts_with = "data_dir")]
    ephemeral: bool,
    /// Return when the cluster is ready, and leave it running
    #[arg(long)]
    detach: bool,
    /// Write `drumline info -o json` to this file when the cluster is ready
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Stop when stdin ends (for tests)
    #[arg(long, hide = true, conflicts_with = "detach")]
    exit_with_parent: bool,
    /// Start the members so that a drill can cut them off (for drills)
    #[arg(long, hide = true, conflicts_with = "detach", requires = "ephemeral")]
    can_be_cut: bool,
    /// Be the process that --detach leaves running
    #[arg(long, hide = true, conflicts_with = "detach")]
    background: bool,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let options = Options {
        name: ClusterName::parse(&args.name).map_err(explain)?,
        data_dir: args.data_dir,
        wish: Wish {
            nodes: args.nodes,
            members: args.members,
            base_port: args.base_port,
            ephemeral: args.ephemeral,
        },
        assist_elections: args.assist_elections.unwrap_or(true),
        ready_file: args.ready_file,
        detach: args.detach,
        background: args.background,
        exit_with_parent: args.exit_with_parent,
        can_be_cut: args.can_be_cut,
    };
    match block_on(cluster::up(options))? {
        Err(cluster::Error::AlreadyTold(status)) if status.code() == Some(Exit::Usage as i32) => {
            Ok(Exit::Usage)
        }
        Err(cluster::Error::AlreadyTold(_)) => Ok(Exit::Failed),
        result => result.map(|()| Exit::Ok).map_err(explain),
    }
}

/// Runs a cluster command on this very thread: children must be started from a thread that lives
/// as long as the process (see `cluster::guard`).
pub(super) fn block_on<F: Future>(work: F) -> anyhow::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let output = runtime.block_on(work);
    // A name that the system still looks up must not hold up the end.
    runtime.shutdown_background();
    Ok(output)
}

/// Gives a cluster's error its exit status.
pub(super) fn explain(error: cluster::Error) -> anyhow::Error {
    match error {
        cluster::Error::Usage(message) => ExitError::usage(message).into(),
        other => other.into(),
    }
}
