//! `drumline initiate`.

use std::path::PathBuf;

use super::Exit;
use super::up::{block_on, explain};
use crate::cluster;
use crate::config::Secret;

/// Make a replica set of running members that share a keyfile (internal).
///
/// What is done already is left as it is.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file with the connection string: the hosts, the set's name, and the user to make
    #[arg(long, value_name = "FILE")]
    mongodb_file: PathBuf,
    /// The members' keyfile
    #[arg(long, value_name = "FILE")]
    keyfile: PathBuf,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let mongodb_uri = Secret::read(&args.mongodb_file)?;
    let keyfile = Secret::read(&args.keyfile)?;
    block_on(cluster::initiate(&mongodb_uri, &keyfile))?.map_err(explain)?;
    Ok(Exit::Ok)
}
