//! Looking at processes, and ending those that a test started.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::process::{Signal, kill_process, kill_process_group};

pub type Pid = u32;

fn raw(pid: Pid) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

pub fn kill(pid: Pid, signal: Signal) {
    kill_process(raw(pid), signal).unwrap();
}

pub fn kill_group(leader: Pid, signal: Signal) {
    kill_process_group(raw(leader), signal).unwrap();
}

/// Whether the process runs; a zombie does not.
pub fn alive(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| Some(stat.rsplit_once(") ")?.1.to_owned()))
        .is_some_and(|rest| !rest.starts_with(['Z', 'X']))
}

/// The processes that name a folder in their command lines.
pub fn processes_in(folder: &Path) -> Vec<Pid> {
    let needle = folder.as_os_str().as_bytes();
    let names = |pid: &Pid| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.windows(needle.len()).any(|part| part == needle))
    };
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| names(pid) && alive(*pid))
        .collect()
}

/// A figure of `/proc/PID/status`, in bytes.
pub fn memory(pid: Pid, figure: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with(figure))
        .unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}
