//! `drumline put`.

use super::Exit;

/// Store a document under an _id, whether or not it exists.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<Exit> {
    anyhow::bail!("not built yet")
}
