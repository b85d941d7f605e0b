//! The command line: what was typed becomes one command, and its result one exit status.
//!
//! Data goes to stdout, messages to stderr. No command's own work is here: see `cli/*.rs`.

mod args;
mod backend;
mod exit;
mod json;
mod output;
mod route;
mod session;
mod table;

mod aggregate;
mod bench;
mod completions;
mod delete;
mod down;
mod find;
mod get;
mod guard;
mod info;
mod insert;
mod log;
mod ls;
mod man;
mod put;
mod replace;
mod serve;
mod up;
mod update;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use exit::Exit;

/// One serial order, Lamport stamps and exactly-once retries in front of a MongoDB replica set.
#[derive(Debug, Parser)]
#[command(name = "drumline", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Args),
    Down(down::Args),
    Info(info::Args),
    Ls(ls::Args),
    Serve(serve::Args),
    Insert(insert::Args),
    Put(put::Args),
    Get(get::Args),
    Find(find::Args),
    Update(update::Args),
    Replace(replace::Args),
    Delete(delete::Args),
    Aggregate(aggregate::Args),
    Log(log::Args),
    Bench(bench::Args),
    Completions(completions::Args),
    Man(man::Args),
    #[command(hide = true)]
    Guard(guard::Args),
}

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    let result = match cli.command {
        Command::Up(args) => up::run(args),
        Command::Down(args) => down::run(args),
        Command::Info(args) => info::run(args),
        Command::Ls(args) => ls::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Insert(args) => insert::run(args),
        Command::Put(args) => put::run(args),
        Command::Get(args) => get::run(args),
        Command::Find(args) => find::run(args),
        Command::Update(args) => update::run(args),
        Command::Replace(args) => replace::run(args),
        Command::Delete(args) => delete::run(args),
        Command::Aggregate(args) => aggregate::run(args),
        Command::Log(args) => log::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
        Command::Guard(args) => guard::run(args),
    };
    exit::report(result)
}
