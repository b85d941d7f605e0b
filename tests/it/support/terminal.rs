//! A terminal of 80 columns, by the program `script`.

use super::{Outcome, Sandbox};

/// Runs a command line of the shell on a terminal of 80 columns and 24 lines. What it shows, messages
/// among it, is in `stdout`.
pub fn on_terminal(sandbox: &Sandbox, line: &str) -> Outcome {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_drumline"));
    let folder = program.parent().unwrap().display();
    let script = format!("stty cols 80 rows 24; PATH='{folder}':\"$PATH\"; {line}");
    let output = sandbox
        .command("script")
        .args([
            "--quiet",
            "--flush",
            "--return",
            "--command",
            &script,
            "/dev/null",
        ])
        .current_dir(sandbox.folder())
        .output()
        .unwrap();
    Outcome {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).replace("\r\n", "\n"),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
