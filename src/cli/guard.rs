//! `drumline guard`.

use super::Exit;

/// Run a child that ends when its parent does (internal).
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<Exit> {
    anyhow::bail!("not built yet")
}
