//! `drumline guard`: the first moment of every child, before it becomes mongod or a node.
//!
//! Asks the kernel to kill this process when the supervisor ends, by whatever cause, and then
//! becomes the real program. The request survives `exec`. It fires when the *thread* that started
//! the child ends, which is why the supervisor starts children from its main thread only.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// This very program, even if its file was replaced since it started.
pub(super) const THIS_PROGRAM: &str = "/proc/self/exe";

/// Becomes `command`, bound to the life of the process `parent`, in the control group `group` if one is given. Returns only if that failed.
///
/// The signal is SIGKILL: nobody is left to send a second one if a child hangs in its shutdown,
/// and MongoDB's journal makes a kill as safe as a stop.
pub fn guard(parent: u32, group: Option<&Path>, command: &[OsString]) -> io::Error {
    let Some((program, arguments)) = command.split_first() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "no command to run");
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // The parent may have ended before the request above: then nothing would ever fire.
    let actual = getppid().map_or(0, Pid::as_raw_pid);
    if u32::try_from(actual) != Ok(parent) {
        return io::Error::other("the supervisor has ended");
    }
    // All sockets that the program makes belong to the group that it was in then.
    if let Some(group) = group
        && let Err(error) = fs::write(group.join("cgroup.procs"), "0")
    {
        return error;
    }
    let mut command = Command::new(program);
    if program == THIS_PROGRAM {
        command.arg0("drumline");
    }
    command.args(arguments).exec()
}
