//! However a drill ends, its cluster ends with it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use rustix::process::Signal;

use super::SHORT;
use crate::faults::turn;
use crate::support::{Sandbox, kill, processes_in, wait_for, wait_until};

/// A user whose temporary files go with the test.
fn with_temporary_folder() -> Sandbox {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("tmp");
    fs::create_dir_all(&folder).unwrap();
    sandbox.set("TMPDIR", folder.to_str().unwrap())
}

/// Starts a drill, and returns when the fault is done.
fn until_the_fault(sandbox: &Sandbox) -> Child {
    let mut drill = sandbox.drumline(&["drill", "kill"]);
    drill
        .args(SHORT)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = drill.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let told = lines.find(|line| line.as_ref().unwrap().contains("kill: 127.0.0.1"));
    assert!(told.is_some(), "the drill did not come to its fault");
    // Whatever it says from now on is read by nobody, and must not stop it.
    std::thread::spawn(move || lines.count());
    child
}

#[test]
fn ctrl_c_leaves_nothing() {
    let _turn = turn();
    let sandbox = with_temporary_folder();
    let mut drill = until_the_fault(&sandbox);
    kill(drill.id(), Signal::INT);
    let status = wait_for("the drill ends", || drill.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    assert_eq!(fs::read_dir(sandbox.path("tmp")).unwrap().count(), 0);
    assert!(processes_in(sandbox.folder()).is_empty());
    assert_eq!(sandbox.listed(), serde_json::json!([]));
}

#[test]
fn a_killed_drill_takes_its_cluster_with_it() {
    let _turn = turn();
    let sandbox = with_temporary_folder();
    let mut drill = until_the_fault(&sandbox);
    kill(drill.id(), Signal::KILL);
    drill.wait().unwrap();
    wait_until("no process is left", || {
        processes_in(sandbox.folder()).is_empty()
    });
    wait_until("no cluster is left", || {
        sandbox.listed() == serde_json::json!([])
    });
}
