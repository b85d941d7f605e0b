//! `drumline completions`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::output::Output;
use super::{Cli, Exit, args::Format};

/// Print a completion script for a shell.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "drumline", &mut script);
    let mut output = Output::new(Format::Table);
    output.write(&String::from_utf8(script)?)?;
    output.flush()?;
    Ok(Exit::Ok)
}
