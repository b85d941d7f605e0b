//! `drumline ls`.

use super::Exit;
use super::info::Form;
use super::up::explain;
use crate::cluster::{self, info};

/// List the local clusters of this user.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to print
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    output: Form,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let clusters = info::list().map_err(explain)?;
    match args.output {
        Form::Json => cluster::show(&(serde_json::to_string(&clusters)? + "\n")),
        Form::Table if clusters.is_empty() => {
            eprintln!("there are no clusters; `drumline up` starts one");
        }
        Form::Table => cluster::show(&cluster::listing(&clusters)),
    }
    Ok(Exit::Ok)
}
