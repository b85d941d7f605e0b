//! Which containers of a project are members, which are nodes, and how they are reached. Pure.

use super::inspect::{Container, Endpoint, Status};
use crate::config::ServerUrl;

/// A drill needs so many of each.
const EACH: usize = 3;

/// The parts of a project that a drill can harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    pub members: Vec<Container>,
    pub nodes: Vec<Node>,
}

/// A container that runs a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub url: ServerUrl,
    pub container: Container,
}

impl Roles {
    /// Sorts the containers of a project; `Err` says what is lacking, and what to do.
    pub fn of(containers: Vec<Container>) -> Result<Self, String> {
        let own = containers
            .into_iter()
            .filter(|container| !container.one_off);
        let (nodes, others): (Vec<_>, Vec<_>) = own.partition(is_node);
        let members: Vec<_> = others.into_iter().filter(is_member).collect();
        if members.len() != EACH || nodes.len() != EACH {
            return Err(format!(
                "it has {} members and {} nodes, and a drill needs {EACH} of each, as docker-compose.yml has them",
                members.len(),
                nodes.len()
            ));
        }
        for container in members.iter().chain(&nodes) {
            if container.state.status != Status::Running {
                let (service, state) = (&container.service, &container.state.word);
                return Err(format!(
                    "{service} is {state}: `docker compose up -d` starts what is not running, `docker compose unpause` \
                     wakes what is paused"
                ));
            }
        }
        Ok(Self {
            members,
            nodes: nodes.into_iter().map(Node::of).collect::<Result<_, _>>()?,
        })
    }
}

impl Node {
    fn of(container: Container) -> Result<Self, String> {
        let name = option(&container.command, "--name").unwrap_or(&container.service);
        let name = name.to_owned();
        let Some(url) = url(&container) else {
            return Err(format!(
                "{name} publishes no port on this machine, and the clients of a drill come from here: publish it, as \
                 docker-compose.yml does"
            ));
        };
        Ok(Self {
            name,
            url: ServerUrl::parse(&url)?,
            container,
        })
    }
}

/// Where a port of it is published: the one that it listens on, if that is told.
fn url(container: &Container) -> Option<String> {
    let listen = option(&container.command, "--listen");
    let port = listen.and_then(|listen| Some(listen.rsplit_once(':')?.1));
    let own = port.and_then(|port| container.published.get(&format!("{port}/tcp")));
    let binding = own
        .or_else(|| container.published.values().next())?
        .first()?;
    let host = match binding.host_ip.as_str() {
        "" | "0.0.0.0" | "::" => "127.0.0.1".to_owned(),
        v6 if v6.contains(':') => format!("[{v6}]"),
        other => other.to_owned(),
    };
    Some(format!("http://{host}:{}", binding.host_port))
}

fn is_node(container: &Container) -> bool {
    container.command.iter().any(|word| word == "serve")
}

fn is_member(container: &Container) -> bool {
    let words = &container.command;
    words
        .iter()
        .any(|word| word == "mongod" || word.ends_with("/mongod"))
}

/// The value of an option, behind `=` or as the next word.
fn option<'a>(words: &'a [String], name: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| {
        let rest = word.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })?;
    match words[at].split_once('=') {
        Some((_, value)) => Some(value),
        None => words.get(at + 1).map(String::as_str),
    }
}

/// Whether the replica set's name for a member means this container.
pub fn is_called(container: &Container, host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let knows = |endpoint: &Endpoint| {
        let fixed = [&endpoint.fixed_v4, &endpoint.fixed_v6];
        endpoint.aliases.iter().any(|alias| alias == name)
            || fixed.iter().any(|fixed| fixed.as_deref() == Some(name))
    };
    container.service == name || container.hostname == name || container.endpoints.iter().any(knows)
}

/// Where this machine reaches a member's port now.
pub fn address(container: &Container, host: &str) -> Option<String> {
    let port = host.rsplit_once(':').map_or("27017", |(_, port)| port);
    let mut addresses = container.endpoints.iter();
    let address = addresses.find_map(|endpoint| endpoint.address.as_ref())?;
    Some(format!("{address}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::super::inspect::{parse, tests::TOLD};
    use super::*;

    /// Three of each, made of one of each.
    fn project() -> Vec<Container> {
        let [m1, n1, other] = &parse(TOLD).unwrap()[..] else {
            panic!("three containers");
        };
        let copy = |of: &Container, service: String| {
            let mut copy = of.clone();
            copy.state.status = Status::Running;
            copy.service = service;
            copy
        };
        let of = |number| {
            [
                copy(m1, format!("m{number}")),
                copy(n1, format!("n{number}")),
            ]
        };
        (1..=3).flat_map(of).chain([other.clone()]).collect()
    }

    #[test]
    fn members_and_nodes_are_known_by_what_they_run() {
        let roles = Roles::of(project()).unwrap();
        assert_eq!(roles.members.len(), 3);
        assert_eq!(roles.nodes[0].name, "n1");
        assert_eq!(roles.nodes[0].url.as_str(), "http://127.0.0.1:7501");
        let m1 = &roles.members[0];
        assert!(is_called(m1, "m1:27017") && !is_called(m1, "m2:27017"));
        assert_eq!(address(m1, "m1:27018").unwrap(), "172.20.0.9:27018");
    }

    #[test]
    fn what_does_not_fit_says_what_to_do() {
        let why = |change: &dyn Fn(&mut Vec<Container>)| {
            let mut project = project();
            change(&mut project);
            Roles::of(project).unwrap_err()
        };
        let lacks = why(&|all| drop(all.remove(0)));
        assert!(lacks.starts_with("it has 2 members and 3 nodes"), "{lacks}");
        let ended = why(&|all| all[2].state = all[6].state.clone());
        assert!(
            ended.starts_with("m2 is exited: `docker compose up"),
            "{ended}"
        );
        let hidden = why(&|all| all[1].published.clear());
        assert!(hidden.contains("publishes no port"), "{hidden}");
        let mut more = project();
        let one_off = more[0].clone();
        more.push(Container {
            one_off: true,
            ..one_off
        });
        assert!(Roles::of(more).is_ok());
    }

    #[test]
    fn an_option_has_its_value_in_either_form() {
        let words = ["serve", "--name", "n7", "--listen=[::]:74"].map(str::to_owned);
        assert_eq!(option(&words, "--name"), Some("n7"));
        assert_eq!(option(&words, "--listen"), Some("[::]:74"));
        assert_eq!(option(&words, "--url"), None);
    }
}
