//! `drumline down`.

use std::io::{self, IsTerminal as _, Write as _};

use super::Exit;
use super::up::{block_on, explain};
use crate::cluster::{self, ClusterName, Stopped};

/// Stop a local cluster.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which cluster
    #[arg(long, value_name = "NAME", default_value = cluster::NAME_DEFAULT)]
    name: String,
    /// Delete its data too; asks first on a terminal
    #[arg(long)]
    purge: bool,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let name = ClusterName::parse(&args.name).map_err(explain)?;
    if args.purge && !confirmed(&name)? {
        eprintln!("nothing was stopped or deleted");
        return Ok(Exit::Failed);
    }
    match block_on(cluster::down(&name))?.map_err(explain)? {
        Stopped::Now => eprintln!("the cluster '{name}' has stopped"),
        Stopped::Before => eprintln!("the cluster '{name}' does not run"),
    }
    if args.purge {
        cluster::purge(&name).map_err(explain)?;
        eprintln!("its data is deleted");
    }
    Ok(Exit::Ok)
}

fn confirmed(name: &ClusterName) -> io::Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(true);
    }
    eprint!("Delete all data of the cluster '{name}'? [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
