//! However a drill ends, its cluster ends with it.

use std::fs;

use rustix::process::Signal;

use super::until_the_fault;
use crate::faults::turn;
use crate::support::{Sandbox, kill, processes_in, wait_for, wait_until};

/// A user whose temporary files go with the test.
fn with_temporary_folder() -> Sandbox {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("tmp");
    fs::create_dir_all(&folder).unwrap();
    sandbox.set("TMPDIR", folder.to_str().unwrap())
}

#[test]
fn ctrl_c_leaves_nothing() {
    let _turn = turn();
    let sandbox = with_temporary_folder();
    let mut drill = until_the_fault(&sandbox, &["kill"]);
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
    let mut drill = until_the_fault(&sandbox, &["kill"]);
    kill(drill.id(), Signal::KILL);
    drill.wait().unwrap();
    wait_until("no process is left", || {
        processes_in(sandbox.folder()).is_empty()
    });
    wait_until("no cluster is left", || {
        sandbox.listed() == serde_json::json!([])
    });
}
