//! `drumline log`.

use super::Exit;

/// Show the log.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<Exit> {
    anyhow::bail!("not built yet")
}
