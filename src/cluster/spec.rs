//! What a cluster consists of: chosen once, at its first start, and kept with its data.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, TcpListener};

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::place::{Place, write_private};
use crate::model::NodeName;

/// The cluster that is meant when none is named.
pub const NAME_DEFAULT: &str = "drumline";
pub(super) const NODES_DEFAULT: usize = 3;
const NODES_MAX: usize = 9;
pub(super) const MEMBERS_DEFAULT: usize = 3;
pub(super) const BASE_PORT_DEFAULT: u16 = 7400;
/// Nodes listen at base + 1 and up, members at base + 11 and up.
const MEMBER_OFFSET: u16 = 10;

/// The name of a local cluster: also a folder's name and a part of the replica set's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClusterName(String);

const NAME_BYTES_MAX: usize = 40;

impl ClusterName {
    /// Takes a node name that begins with a letter or digit and holds no dot.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let plain = NodeName::parse(text).is_ok() && !text.contains('.');
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if plain && begins && text.len() <= NAME_BYTES_MAX {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::Usage(format!(
            "'{}' cannot name a cluster: give --name 1 to {NAME_BYTES_MAX} letters, digits, '-' \
             or '_', a letter or digit first",
            text.escape_debug()
        )))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What `up` was asked for; `None` is "as it is, or the default".
#[derive(Debug, Clone, Default)]
pub struct Wish {
    pub nodes: Option<usize>,
    pub members: Option<usize>,
    pub base_port: Option<u16>,
    pub ephemeral: bool,
}

/// One process of the cluster and its port on the loopback interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub name: String,
    pub port: u16,
}

impl Part {
    /// The address as MongoDB and URLs write it.
    pub fn host(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }
}

/// The kept description of a cluster (`cluster.json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub name: ClusterName,
    /// The data goes when the cluster stops.
    pub ephemeral: bool,
    /// As it was asked for; 0 means that free ports were chosen.
    pub base_port: u16,
    /// The major version of the mongod that wrote the data.
    pub mongod: u32,
    pub nodes: Vec<Part>,
    pub members: Vec<Part>,
}

impl Spec {
    /// Reads the description of the cluster at `place`; `None` if it has none.
    pub fn load(place: &Place) -> Result<Option<Self>, Error> {
        let path = place.spec();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            Error::Failed(format!(
                "{} is damaged ({error}); restore it, or delete the cluster with \
                 `drumline down --purge`",
                path.display()
            ))
        })
    }

    pub fn save(&self, place: &Place) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::Failed(format!("cannot describe the cluster: {error}")))?;
        write_private(&place.spec(), &text)
    }

    /// Describes a new cluster.
    pub fn new(name: &ClusterName, wish: &Wish, mongod: u32) -> Result<Self, Error> {
        wish.check()?;
        let nodes = wish.nodes.unwrap_or(NODES_DEFAULT);
        let members = wish.members.unwrap_or(MEMBERS_DEFAULT);
        let base_port = wish.base_port.unwrap_or(BASE_PORT_DEFAULT);
        let ports = match base_port {
            0 => free_ports(nodes + members)?,
            base => (1..)
                .take(nodes)
                .chain((MEMBER_OFFSET + 1..).take(members))
                .map(|offset| base + offset)
                .collect(),
        };
        let (node_ports, member_ports) = ports.split_at(nodes);
        Ok(Self {
            name: name.clone(),
            ephemeral: wish.ephemeral,
            base_port,
            mongod,
            nodes: parts('n', node_ports),
            members: parts('m', member_ports),
        })
    }

    /// Refuses a wish that contradicts what the cluster is.
    pub fn accept(&self, name: &ClusterName, wish: &Wish) -> Result<(), Error> {
        wish.check()?;
        let nodes = self.nodes.len();
        let members = self.members.len();
        let clash = if self.name != *name {
            format!("is the cluster '{}'", self.name)
        } else if wish.nodes.is_some_and(|wanted| wanted != nodes) {
            format!("was made with --nodes {nodes}")
        } else if wish.members.is_some_and(|wanted| wanted != members) {
            format!("was made with --members {members}")
        } else if wish
            .base_port
            .is_some_and(|wanted| wanted != self.base_port)
        {
            format!("was made with --base-port {}", self.base_port)
        } else if wish.ephemeral && !self.ephemeral {
            "keeps its data".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::Usage(format!(
            "the cluster '{name}' {clash}; leave that flag out, give another --name, or delete it \
             with `drumline down --name {name} --purge`"
        )))
    }

    /// The name of the replica set.
    pub fn replica_set(&self) -> String {
        format!("drumline-{}", self.name)
    }

    pub fn hosts(&self) -> Vec<String> {
        self.members.iter().map(Part::host).collect()
    }

    /// Refuses to start when one of the ports is in use.
    pub fn check_ports(&self) -> Result<(), Error> {
        for part in self.nodes.iter().chain(&self.members) {
            if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, part.port)) {
                return Err(self.port_refused(part, &error));
            }
        }
        Ok(())
    }

    fn port_refused(&self, part: &Part, error: &io::Error) -> Error {
        let Part { name, port } = part;
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => "is taken by another program".to_owned(),
            _ => format!("cannot be used ({error})"),
        };
        Error::Failed(format!(
            "port {port}, for {name} of the cluster '{}', {why}; free it, or start another \
             cluster with `drumline up --name NAME --base-port 0`, which takes free ports",
            self.name
        ))
    }
}

impl Wish {
    fn check(&self) -> Result<(), Error> {
        if self.nodes.is_some_and(|nodes| nodes > NODES_MAX) {
            return Err(Error::Usage(format!("give --nodes 0 to {NODES_MAX}")));
        }
        if self.members.is_some_and(|n| !matches!(n, 1 | 3 | 5)) {
            let text = "give --members 1, 3 or 5: an even number adds cost, not safety";
            return Err(Error::Usage(text.into()));
        }
        if self
            .base_port
            .is_some_and(|p| p != 0 && !(1024..=65500).contains(&p))
        {
            let text = "give --base-port 0 (any free ports) or 1024 to 65500";
            return Err(Error::Usage(text.into()));
        }
        Ok(())
    }
}

fn parts(letter: char, ports: &[u16]) -> Vec<Part> {
    (1..)
        .zip(ports)
        .map(|(number, &port)| Part {
            name: format!("{letter}{number}"),
            port,
        })
        .collect()
}

/// Free ports below the range that the kernel gives to outgoing connections: a port from that
/// range could be taken by any program while its member is down.
fn free_ports(count: usize) -> Result<Vec<u16>, Error> {
    const FIRST: u16 = 10_240;
    const SPAN: u16 = 22_000;
    // From a random place on, so that clusters started at the same moment do not meet.
    let start = u16::from_le_bytes(random_bytes()?) % SPAN;
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let ports: Vec<_> = (0..SPAN)
        .map(|step| FIRST + (start + step) % SPAN)
        .filter(free)
        .take(count)
        .collect();
    if ports.len() < count {
        return Err(Error::Failed("this machine has no free ports".into()));
    }
    Ok(ports)
}

/// Random bytes from the kernel.
pub(super) fn random_bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(Error::io("read", "/dev/urandom".as_ref()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ClusterName {
        ClusterName::parse(text).unwrap()
    }

    #[test]
    fn names_are_safe_as_folders_and_replica_sets() {
        for good in ["drumline", "a", "7-b_C"] {
            assert!(ClusterName::parse(good).is_ok(), "{good:?} was refused");
        }
        for bad in [
            "",
            ".",
            "..",
            "a.b",
            "a/b",
            "-a",
            "_a",
            "ü",
            &"x".repeat(41),
        ] {
            assert!(ClusterName::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn ports_follow_the_base_port() {
        let wish = Wish {
            nodes: Some(2),
            base_port: Some(7400),
            ..Wish::default()
        };
        let spec = Spec::new(&name("a"), &wish, 8).unwrap();
        let ports = |parts: &[Part]| parts.iter().map(|part| part.port).collect::<Vec<_>>();
        assert_eq!(ports(&spec.nodes), [7401, 7402]);
        assert_eq!(ports(&spec.members), [7411, 7412, 7413]);
        assert_eq!(spec.members[2].name, "m3");
    }

    #[test]
    fn a_wish_is_taken_unless_it_contradicts() {
        let spec = Spec::new(&name("a"), &Wish::default(), 8).unwrap();
        assert!(spec.accept(&name("a"), &Wish::default()).is_ok());
        let same = Wish {
            members: Some(3),
            base_port: Some(BASE_PORT_DEFAULT),
            ..Wish::default()
        };
        assert!(spec.accept(&name("a"), &same).is_ok());
        let other = Wish {
            members: Some(5),
            ..Wish::default()
        };
        assert!(matches!(
            spec.accept(&name("a"), &other),
            Err(Error::Usage(_))
        ));
        assert!(spec.accept(&name("b"), &Wish::default()).is_err());
    }
}
