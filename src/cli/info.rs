//! `drumline info`.

use super::Exit;
use super::up::explain;
use crate::cluster::{self, ClusterName, info};

/// Say what runs where in a local cluster.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which cluster
    #[arg(long, value_name = "NAME", default_value = cluster::NAME_DEFAULT)]
    name: String,
    /// How to print; json holds the secrets
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    output: Form,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Form {
    Table,
    Json,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let name = ClusterName::parse(&args.name).map_err(explain)?;
    let (info, place) = info::find(&name).map_err(explain)?;
    let text = match args.output {
        Form::Table => cluster::table(&info, place.folder()),
        Form::Json => serde_json::to_string(&info)? + "\n",
    };
    cluster::show(&text);
    Ok(Exit::Ok)
}
