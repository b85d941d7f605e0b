//! `drumline up`.

use super::Exit;

/// Start a local three-member replica set with Drumline in front.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<Exit> {
    anyhow::bail!("not built yet")
}
