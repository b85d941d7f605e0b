//! Processes of the machine, told apart by more than their pid.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// One process. The kernel gives a pid again after its process has ended; the start time (in
/// clock ticks since boot) tells the two apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: u32,
    pub start: u64,
}

impl Identity {
    /// The process that has this pid now.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, start) = parse_stat(&stat)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "odd /proc stat line"))?;
        Ok(Self { pid, start })
    }

    /// Whether this very process still runs. A zombie does not.
    pub fn alive(self) -> bool {
        self.state().is_some()
    }

    /// The letter of its state in `/proc`; `None` if it has ended.
    pub fn state(self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let (state, start) = parse_stat(&stat)?;
        (start == self.start && !matches!(state, 'Z' | 'X')).then_some(state)
    }

    /// Whether this very process still runs with `folder` in its command line.
    pub fn works_in(self, folder: &Path) -> bool {
        let needle = folder.as_os_str().as_bytes();
        self.alive()
            && fs::read(format!("/proc/{}/cmdline", self.pid))
                .is_ok_and(|line| line.windows(needle.len()).any(|part| part == needle))
    }

    /// Sends a signal if `ours` holds for the process. The pidfd is opened before the check, so
    /// the process that gets the signal is the one that was checked.
    pub fn signal_if(self, signal: Signal, ours: impl Fn(Self) -> bool) -> bool {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return false;
        };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
            return false;
        };
        ours(self) && pidfd_send_signal(handle, signal).is_ok()
    }
}

/// State and start time out of a line of `/proc/PID/stat`. The second field is the program's name
/// in parentheses and may itself hold spaces and parentheses: count from the last one.
fn parse_stat(line: &str) -> Option<(char, u64)> {
    let mut fields = line.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // Field 22 of the line; `fields` now stands at field 4.
    let start = fields.nth(18)?.parse().ok()?;
    Some((state, start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_from_its_last_parenthesis() {
        let line = "42 (odd) name) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 2";
        assert_eq!(parse_stat(line), Some(('S', 98765)));
        assert_eq!(parse_stat("42 (x"), None);
        assert_eq!(parse_stat("42 (x) S 1"), None);
    }

    #[test]
    fn a_recycled_pid_is_another_process() {
        let me = Identity::of(std::process::id()).unwrap();
        assert!(me.alive());
        let earlier = Identity {
            start: me.start - 1,
            ..me
        };
        assert!(!earlier.alive());
        assert!(!earlier.signal_if(Signal::TERM, Identity::alive));
        assert!(!me.works_in(Path::new("/no/such/folder")));
    }
}
