//! Cutting one member off from everybody, both ways.
//!
//! The member is started in a control group of its own, and the kernel's packet filter drops what the sockets
//! of the group send and what is sent to them. A socket belongs to the group that it was made in, so
//! that only members that started there can be cut. Only a cluster that goes with its drill does so.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::error::Error;
use super::spec::{ClusterName, Part};

const FILTER: &str = "iptables";
/// What it exits with.
const DONE: i32 = 0;
const NO_SUCH_RULE: i32 = 1;
/// How many seconds another program may hold the filter's lock: Ctrl-C is not heard meanwhile.
const LOCK_WAIT: &str = "5";
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
        if filter(&["-S", "OUTPUT"]) != Some(DONE) {
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
        for (before, rule) in self.rules(part).iter().enumerate() {
            if filter_rule("-I", rule) != Some(DONE) {
                if before > 0 {
                    self.rejoin(part)?;
                }
                return Err(lacking("iptables refuses a rule by control group"));
            }
        }
        Ok(())
    }

    /// Takes the cut back; there need not be one.
    pub fn rejoin(&self, part: &Part) -> Result<(), Error> {
        let mut joined = Ok(());
        for rule in self.rules(part) {
            let removed = |_: &usize| filter_rule("-D", &rule) == Some(DONE);
            let _ = (0..REMOVALS_MAX).take_while(removed).count();
            // That a rule cannot be taken out does not say that it is not there.
            if filter_rule("-C", &rule) != Some(NO_SUCH_RULE) {
                joined = Err(left(&rule));
            }
        }
        joined
    }

    /// How many packets of a member that is cut off were dropped on their way out; `None` if it is not cut off. A
    /// kernel may take a rule by control group, and match nothing with it.
    pub fn dropped(&self, part: &Part) -> Option<u64> {
        let rules = run_filter(&["-v", "-S", "OUTPUT"])?;
        dropped_by(
            &String::from_utf8_lossy(&rules.stdout),
            &self.name(&part.name),
        )
    }

    /// Takes back what is left of a cluster whose supervisor did not live to do it. Most have made no group.
    pub fn sweep(cluster: &ClusterName, members: &[Part]) -> Result<(), Error> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let Some(mount) = mount_of(&mounts) else {
            return Ok(());
        };
        let left = Self {
            mount,
            cluster: cluster.clone(),
        };
        let mut folders = members.iter().map(|part| left.folder(&part.name));
        match folders.any(|folder| folder.exists()) {
            true => left.remove(members),
            false => Ok(()),
        }
    }

    /// Leaves no rule and no group. The members must have ended.
    pub fn remove(&self, members: &[Part]) -> Result<(), Error> {
        let mut removed = Ok(());
        for part in members {
            removed = removed.and(self.rejoin(part));
            let _ = fs::remove_dir(self.folder(&part.name));
        }
        removed
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

fn filter_rule(act: &str, rule: &[String]) -> Option<i32> {
    let mut arguments = vec![act];
    arguments.extend(rule.iter().map(String::as_str));
    filter(&arguments)
}

/// What the packet filter exits with; `None` if it could not be run.
fn filter(arguments: &[&str]) -> Option<i32> {
    run_filter(arguments)?.status.code()
}

fn run_filter(arguments: &[&str]) -> Option<Output> {
    let mut command = Command::new(FILTER);
    command.args(["-w", LOCK_WAIT]).args(arguments);
    // Ctrl-C is for the drill, which then takes the cut back.
    command.process_group(0).stdin(Stdio::null()).output().ok()
}

/// What the counters of the rule for this group say, in a list of rules.
fn dropped_by(rules: &str, group: &str) -> Option<u64> {
    let of_group = |line: &&str| {
        let mut words = line.split_ascii_whitespace();
        words.any(|word| word == "--path") && words.next() == Some(group)
    };
    let mut words = rules.lines().find(of_group)?.split_ascii_whitespace();
    words.find(|word| *word == "-c")?;
    words.next()?.parse().ok()
}

fn left(rule: &[String]) -> Error {
    Error::Failed(format!(
        "a cut is not taken back; take it back with `{FILTER} -D {}`",
        rule.join(" ")
    ))
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
    fn a_rule_tells_what_it_has_dropped() {
        let rules = "-P OUTPUT ACCEPT -c 9 900\n\
            -A OUTPUT -m cgroup --path drumline-x-m2 -c 3 180 -j DROP\n\
            -A OUTPUT -m cgroup --path drumline-x-m3 -c 0 0 -j DROP\n";
        assert_eq!(dropped_by(rules, "drumline-x-m2"), Some(3));
        assert_eq!(dropped_by(rules, "drumline-x-m3"), Some(0));
        assert_eq!(dropped_by(rules, "drumline-x-m1"), None);
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
