//! One drill of a project at a time: another would take back what this one did.
//!
//! No lock file: all users of a machine share its engine, and a project has no folder of its own there.

use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use super::error::Error;

/// Ends when it is dropped, or with its process. It is a socket's name without a file, which the kernel gives to
/// one process of a network namespace only: of a machine, but for drills in containers.
#[derive(Debug)]
pub struct Turn {
    _name: UnixListener,
}

impl Turn {
    pub fn take(project: &str) -> Result<Self, Error> {
        let taken = |error: io::Error| match error.kind() {
            ErrorKind::AddrInUse => Error::Busy(project.to_owned()),
            _ => Error::Unfit {
                project: project.to_owned(),
                why: format!("other drills of it cannot be kept away: {error}"),
            },
        };
        let name = SocketAddr::from_abstract_name(format!("drumline-drill-{project}"));
        let listener = name.and_then(|name| UnixListener::bind_addr(&name));
        listener.map(|name| Self { _name: name }).map_err(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_has_one_turn_at_a_time() {
        let project = format!("test-{}", std::process::id());
        let turn = Turn::take(&project).unwrap();
        assert!(matches!(Turn::take(&project), Err(Error::Busy(_))));
        Turn::take(&format!("{project}-other")).unwrap();
        drop(turn);
        Turn::take(&project).unwrap();
        // The kernel takes no name of that length: nobody is busy.
        let long = "x".repeat(200);
        assert!(matches!(Turn::take(&long), Err(Error::Unfit { .. })));
    }
}
