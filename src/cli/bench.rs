//! `drumline bench`.

use super::Exit;

/// Measure.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<Exit> {
    anyhow::bail!("not built yet")
}
