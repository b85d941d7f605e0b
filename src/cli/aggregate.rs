//! `drumline aggregate`.

use super::Exit;

/// Run an aggregation pipeline.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<Exit> {
    anyhow::bail!("not built yet")
}
