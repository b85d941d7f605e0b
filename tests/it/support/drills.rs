//! Drills as tests run them: short ones, begun and read.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use drumline::drill::report::Report;

use super::Sandbox;

/// A load that a debug build carries on a busy machine, for as short as may be.
pub const SHORT: [&str; 6] = ["--rate", "60", "--clients", "8", "--seconds", "4"];

/// Starts a drill with these arguments, and returns when it has said this.
pub fn until_it_says(what: &str, sandbox: &Sandbox, arguments: &[&str]) -> Child {
    let mut drill = sandbox.drumline(&["drill"]);
    let drill = drill.args(arguments).stdout(Stdio::null());
    let mut child = drill.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let told = lines.find(|line| line.as_ref().unwrap().contains(what));
    assert!(told.is_some(), "the drill ended and did not say {what:?}");
    // Whatever it says from now on is read by nobody, and must not stop it.
    std::thread::spawn(move || lines.count());
    child
}

/// The report that a drill has left in this folder.
pub fn read(folder: &Path) -> Report {
    let text = fs::read_to_string(folder.join("report.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}
