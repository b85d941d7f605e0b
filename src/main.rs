//! The program `drumline`: parses the arguments, runs one command, exits with its status.

use std::process::ExitCode;

fn main() -> ExitCode {
    drumline::cli::main()
}
