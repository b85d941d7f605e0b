//! `drumline serve`.

use super::Exit;

/// Run one node in front of a replica set.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<Exit> {
    anyhow::bail!("not built yet")
}
