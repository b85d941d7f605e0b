//! Cutting one member off from everybody, both ways.
//!
//! The member is started in a control group of its own, and the kernel's packet filter drops what the sockets
//! of the group send and what is sent to them. A socket belongs to the group that it was made in, so
//! that only members that started there can be cut. Only a cluster that goes with its drill does so.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::error::Error;
use super::spec::{ClusterName, Part};

const FILTER: &str = "iptables";
/// A rule is taken out until it is not there any more, but not for ever.
const REMOVALS_MAX: usize = 8;

/// The control groups of a cluster's members.
#[derive(Debug, Clone)]
pub struct Groups {
    /// Where the kernel shows groups.
    mount: PathBuf,
    cluster: ClusterName,
}

impl Groups {
    /// Says what this machine or this user lacks.
    pub fn of(cluster: &ClusterName) -> Result<Self, Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(lacking("it needs root"));
        }
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let Some(mount) = mount_of(&mounts) else {
            return Err(lacking("no control groups of version 2 are mounted"));
        };
        if !filter(&["-w", "-S", "OUTPUT"]) {
            return Err(lacking(
                "the program iptables is not there or may not be used",
            ));
        }
        Ok(Self {
            mount,
            cluster: cluster.clone(),
        })
    }

    fn name(&self, member: &str) -> String {
        format!("drumline-{}-{member}", self.cluster)
    }

    fn folder(&self, member: &str) -> PathBuf {
        self.mount.join(self.name(member))
    }

    /// Makes the group of a member.
    pub fn make(&self, member: &str) -> Result<PathBuf, Error> {
        let folder = self.folder(member);
        fs::create_dir_all(&folder).map_err(Error::io("make", &folder))?;
        Ok(folder)
    }

    /// Cuts a member off.
    pub fn cut(&self, part: &Part) -> Result<(), Error> {
        if !self.folder(&part.name).exists() {
            return Err(lacking(
                "this cluster was not started so that it can be cut",
            ));
        }
        for rule in self.rules(part) {
            if !filter_rule("-I", &rule) {
                self.rejoin(part);
                return Err(lacking("iptables refuses a rule by control group"));
            }
        }
        Ok(())
    }

    /// Takes the cut back; there need not be one.
    pub fn rejoin(&self, part: &Part) {
        for rule in self.rules(part) {
            let gone = |_: &usize| !filter_rule("-D", &rule);
            let _ = (0..REMOVALS_MAX).find(gone);
        }
    }

    /// Leaves no rule and no group. The members must have ended.
    pub fn remove(&self, members: &[Part]) {
        for part in members {
            self.rejoin(part);
            let _ = fs::remove_dir(self.folder(&part.name));
        }
    }

    /// What it sends; what is sent to its port; what is sent on connections that it has opened.
    fn rules(&self, part: &Part) -> [Vec<String>; 3] {
        let name = self.name(&part.name);
        let port = part.port.to_string();
        let by_group = |chain: &str| words(&[chain, "-m", "cgroup", "--path", &name, "-j", "DROP"]);
        [
            by_group("OUTPUT"),
            words(&["INPUT", "-p", "tcp", "--dport", &port, "-j", "DROP"]),
            by_group("INPUT"),
        ]
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn filter_rule(act: &str, rule: &[String]) -> bool {
    let mut arguments = vec!["-w", act];
    arguments.extend(rule.iter().map(String::as_str));
    filter(&arguments)
}

fn filter(arguments: &[&str]) -> bool {
    let mut command = Command::new(FILTER);
    command.args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn lacking(what: &str) -> Error {
    Error::Failed(format!(
        "a member cannot be isolated here: {what}; run the drill as root on Linux with cgroup v2 and iptables, or freeze the \
         member instead, which its peers cannot tell from a cut (drumline drill freeze)"
    ))
}

/// The mount point of the second version.
fn mount_of(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let point = fields.nth(1)?;
        (fields.next() == Some("cgroup2")).then(|| PathBuf::from(point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_version_is_found_among_the_mounts() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_of(mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_of("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0"), None);
    }

    #[test]
    fn a_cut_is_both_ways() {
        let groups = Groups {
            mount: "/g".into(),
            cluster: ClusterName::parse("x").unwrap(),
        };
        let part = Part {
            name: "m2".into(),
            port: 7412,
        };
        let rules = groups.rules(&part).map(|rule| rule.join(" "));
        assert_eq!(
            rules,
            [
                "OUTPUT -m cgroup --path drumline-x-m2 -j DROP",
                "INPUT -p tcp --dport 7412 -j DROP",
                "INPUT -m cgroup --path drumline-x-m2 -j DROP"
            ]
        );
    }
}
