//! `drumline completions`.

use clap_complete::Shell;

use super::output::Output;
use super::{Exit, args::Format, offered};

/// Print a completion script for a shell.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut offered(), "drumline", &mut script);
    let mut output = Output::new(Format::Table);
    output.write(&String::from_utf8(script)?)?;
    output.flush()?;
    Ok(Exit::Ok)
}
