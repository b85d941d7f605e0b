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

/// What `/proc` says of the process behind its name, from its state on; `None` if it is gone.
fn stat(pid: Pid) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.to_owned())
}

/// The letter of the process's state (`S`, `R`, `T`, ...); `None` if it is gone.
pub fn state(pid: Pid) -> Option<char> {
    stat(pid)?.chars().next()
}

/// Whether the process runs; a zombie does not.
pub fn alive(pid: Pid) -> bool {
    state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// When the process began, in ticks of the kernel: with its pid this tells it from all others.
pub fn began(pid: Pid) -> u64 {
    // Field 22 of the line; what is left begins with field 3.
    let fields = stat(pid).unwrap();
    fields.split_whitespace().nth(19).unwrap().parse().unwrap()
}

/// The processes that name a folder in their command lines.
pub fn processes_in(folder: &Path) -> Vec<Pid> {
    let needle = folder.as_os_str().as_bytes();
    // The folder itself or one in it, and none whose name begins with the same characters.
    let is_in = |rest: &[u8]| {
        let after = rest.strip_prefix(needle).map(<[u8]>::first);
        after.is_some_and(|next| next.is_none_or(|next| !next.is_ascii_alphanumeric()))
    };
    let names = |pid: &Pid| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| (0..line.len()).any(|at| is_in(&line[at..])))
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
