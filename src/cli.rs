//! The command line: what was typed becomes one command, and its result one exit status.
//!
//! Data goes to stdout, messages to stderr. No command's own work is here: see `cli/*.rs`.

mod args;
mod backend;
mod cluster_table;
mod exit;
mod feed;
mod flow;
mod json;
mod output;
mod route;
mod session;
mod table;

mod drill_diff;
mod drill_files;
mod drill_list;
mod drill_target;

mod aggregate;
mod backup;
mod bench;
mod check;
mod completions;
mod delete;
mod down;
mod drill;
mod find;
mod get;
mod guard;
mod info;
mod initiate;
mod insert;
mod log;
mod ls;
mod man;
mod manual;
mod put;
mod repair;
mod replace;
mod restore;
mod serve;
mod status;
mod up;
mod update;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

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
    Status(status::Args),
    Log(log::Args),
    Watch(watch::Args),
    Repair(repair::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Bench(bench::Args),
    Drill(drill::Args),
    Check(check::Args),
    Completions(completions::Args),
    Man(man::Args),
    #[command(hide = true)]
    Guard(guard::Args),
    #[command(hide = true)]
    Initiate(initiate::Args),
}

/// The program as it is offered: without the commands and flags that it keeps for itself.
fn offered() -> clap::Command {
    let version = env!("CARGO_PKG_VERSION");
    let shown = without_hidden(&Cli::command());
    shown.version(version).propagate_version(true)
}

fn without_hidden(command: &clap::Command) -> clap::Command {
    // Its names are those of the program's text, which lives as long as the process, but clap
    // gives them out for less. They are few, and asked for once.
    let name: &'static str = command.get_name().to_owned().leak();
    let args = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let inner = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    let mut shown = clap::Command::new(name)
        .args(args.cloned())
        .subcommands(inner.map(without_hidden));
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    if let Some(about) = command.get_long_about() {
        shown = shown.long_about(about.clone());
    }
    shown
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
        Command::Status(args) => status::run(args),
        Command::Log(args) => log::run(args),
        Command::Watch(args) => watch::run(args),
        Command::Repair(args) => repair::run(args),
        Command::Backup(args) => backup::run(args),
        Command::Restore(args) => restore::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Drill(args) => drill::run(args),
        Command::Check(args) => check::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
        Command::Guard(args) => guard::run(args),
        Command::Initiate(args) => initiate::run(args),
    };
    exit::report(result)
}
