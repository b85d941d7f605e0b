//! `drumline guard`.

use std::ffi::OsString;
use std::path::PathBuf;

use super::Exit;
use crate::cluster;

/// Run a child that ends when its parent does (internal).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The process that this one must not outlive
    #[arg(long)]
    parent: u32,
    /// The control group to enter
    #[arg(long)]
    group: Option<PathBuf>,
    /// What to become
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let program = args.command[0].display().to_string();
    let error = cluster::guard(args.parent, args.group.as_deref(), &args.command);
    Err(anyhow::Error::new(error).context(format!("cannot run {program}")))
}
