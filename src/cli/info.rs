//! `drumline info`.

use super::Exit;

/// Show what runs where in a local cluster.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<Exit> {
    anyhow::bail!("not built yet")
}
