//! What `docker inspect` tells of containers. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A one-off container, as `docker compose run` makes it, is no part of the service that it is named after.
const ONE_OFF: &str = "com.docker.compose.oneoff";
const SERVICE: &str = "com.docker.compose.service";
/// A container's short id has so many digits; the engine makes it an alias by itself.
const SHORT_ID_CHARS: usize = 12;

/// A container as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    pub service: String,
    pub hostname: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    pub one_off: bool,
    pub state: State,
    pub endpoints: Vec<Endpoint>,
    /// From the container's port, as `7401/tcp`, to where it is published on this machine.
    pub published: BTreeMap<String, Vec<Binding>>,
}

/// What its process does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub status: Status,
    /// What the engine calls it: `running`, `exited`, ...
    pub word: String,
    /// On this machine; 0 if it does not run.
    pub pid: u32,
    pub started_at: String,
}

/// What matters of a container's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Running,
    Paused,
    /// Or about to be started.
    Ended,
}

/// Its place in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub network: String,
    /// While it runs.
    pub address: Option<String>,
    /// The names that others find it by.
    pub aliases: Vec<String>,
    /// The addresses that the compose file gives it.
    pub fixed_v4: Option<String>,
    pub fixed_v6: Option<String>,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Binding {
    pub host_ip: String,
    pub host_port: String,
}

impl Endpoint {
    /// The arguments of `docker network connect` that give a container this place.
    pub fn connecting(&self, container: &str) -> Vec<String> {
        let mut words = vec!["network".to_owned(), "connect".to_owned()];
        let mut option = |name: &str, value: &str| {
            words.extend([name.to_owned(), value.to_owned()]);
        };
        for alias in &self.aliases {
            option("--alias", alias);
        }
        if let Some(address) = &self.fixed_v4 {
            option("--ip", address);
        }
        if let Some(address) = &self.fixed_v6 {
            option("--ip6", address);
        }
        words.extend([self.network.clone(), container.to_owned()]);
        words
    }
}

/// Reads the list that `docker inspect` prints; `Err` says what is wrong with it.
pub fn parse(told: &str) -> Result<Vec<Container>, String> {
    let raw: Vec<Raw> = serde_json::from_str(told).map_err(|error| error.to_string())?;
    Ok(raw.into_iter().map(Container::from).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Raw {
    id: String,
    path: String,
    args: Option<Vec<String>>,
    state: RawState,
    config: RawConfig,
    network_settings: RawNetworks,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawState {
    status: String,
    pid: u32,
    started_at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    hostname: String,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawNetworks {
    networks: Option<BTreeMap<String, RawEndpoint>>,
    ports: Option<BTreeMap<String, Option<Vec<Binding>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawEndpoint {
    #[serde(rename = "NetworkID")]
    network: String,
    #[serde(rename = "IPAddress", default)]
    address: String,
    aliases: Option<Vec<String>>,
    #[serde(rename = "IPAMConfig")]
    wanted: Option<RawWanted>,
}

#[derive(Deserialize)]
struct RawWanted {
    #[serde(rename = "IPv4Address")]
    v4: Option<String>,
    #[serde(rename = "IPv6Address")]
    v6: Option<String>,
}

impl From<Raw> for Container {
    fn from(raw: Raw) -> Self {
        let labels = raw.config.labels.unwrap_or_default();
        let label = |name| labels.get(name).cloned().unwrap_or_default();
        let networks = raw.network_settings.networks.unwrap_or_default();
        let endpoints = networks.into_iter();
        let ports = raw.network_settings.ports.unwrap_or_default().into_iter();
        let command = [raw.path].into_iter().chain(raw.args.unwrap_or_default());
        Self {
            service: label(SERVICE),
            hostname: raw.config.hostname,
            command: command.collect(),
            one_off: label(ONE_OFF).eq_ignore_ascii_case("true"),
            state: State::from(raw.state),
            endpoints: endpoints
                .map(|(name, endpoint)| endpoint.of(name, &raw.id))
                .collect(),
            published: ports
                .filter_map(|(port, bindings)| Some((port, bindings?)))
                .collect(),
            id: raw.id,
        }
    }
}

impl From<RawState> for State {
    fn from(raw: RawState) -> Self {
        let status = match raw.status.as_str() {
            "running" => Status::Running,
            "paused" => Status::Paused,
            _ => Status::Ended,
        };
        Self {
            status,
            word: raw.status,
            pid: raw.pid,
            started_at: raw.started_at,
        }
    }
}

impl RawEndpoint {
    fn of(self, name: String, container: &str) -> Endpoint {
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let short = container.get(..SHORT_ID_CHARS).unwrap_or(container);
        let aliases = self.aliases.unwrap_or_default().into_iter();
        let (fixed_v4, fixed_v6) = self
            .wanted
            .map_or((None, None), |wanted| (wanted.v4, wanted.v6));
        Endpoint {
            // A container that never ran knows its networks by their names.
            network: filled(Some(self.network)).unwrap_or(name),
            address: filled(Some(self.address)),
            aliases: aliases.filter(|alias| alias != short).collect(),
            fixed_v4: filled(fixed_v4),
            fixed_v6: filled(fixed_v6),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Shortened from what an engine of version 28 tells.
    pub const TOLD: &str = r#"[
        {"Id": "c0ffee000000aaaaaaaa", "Path": "mongod", "Args": ["--replSet=drumline", "--bind_ip_all"],
         "State": {"Status": "running", "Running": true, "Paused": false, "Pid": 4711, "StartedAt": "2026-01-01T00:00:00Z"},
         "Config": {"Hostname": "m1", "Labels": {"com.docker.compose.service": "m1", "com.docker.compose.oneoff": "False"}},
         "NetworkSettings": {"Ports": {"27017/tcp": null}, "Networks": {"p_replica": {
            "IPAMConfig": {"IPv4Address": "172.20.0.9"}, "Aliases": ["m1", "c0ffee000000"], "NetworkID": "9a8b",
            "IPAddress": "172.20.0.9", "GlobalIPv6Address": "", "DNSNames": ["p_m1_1", "m1"]}}}},
        {"Id": "beef00000000bbbbbbbb", "Path": "drumline", "Args": ["serve", "--name=n1", "--listen=0.0.0.0:7401"],
         "State": {"Status": "paused", "Pid": 12, "StartedAt": "2026-01-01T00:00:01Z"},
         "Config": {"Hostname": "n1", "Labels": {"com.docker.compose.service": "n1", "com.docker.compose.oneoff": "False"}},
         "NetworkSettings": {"Ports": {"7401/tcp": [{"HostIp": "127.0.0.1", "HostPort": "7501"}]}, "Networks": {
            "p_peers": {"IPAMConfig": null, "Aliases": ["n1", "n1.peers"], "NetworkID": "77", "IPAddress": "172.21.0.2"}}}},
        {"Id": "dead00000000cccccccc", "Path": "bash", "Args": null,
         "State": {"Status": "exited", "Pid": 0, "StartedAt": ""},
         "Config": {"Hostname": "x", "Labels": null},
         "NetworkSettings": {"Ports": null, "Networks": null}}]"#;

    #[test]
    fn a_container_is_read_with_its_places() {
        let [m1, n1, other] = &parse(TOLD).unwrap()[..] else {
            panic!("three containers");
        };
        assert_eq!((m1.service.as_str(), m1.state.pid), ("m1", 4711));
        assert_eq!(
            m1.command,
            ["mongod", "--replSet=drumline", "--bind_ip_all"]
        );
        let place = &m1.endpoints[0];
        assert_eq!(place.address.as_deref(), Some("172.20.0.9"));
        assert_eq!(place.aliases, ["m1"], "not the short id");
        assert_eq!(
            place.connecting(&m1.id).join(" "),
            "network connect --alias m1 --ip 172.20.0.9 9a8b c0ffee000000aaaaaaaa"
        );
        assert_eq!(n1.state.status, Status::Paused);
        assert_eq!(n1.published["7401/tcp"][0].host_port, "7501");
        assert_eq!(
            n1.endpoints[0].connecting("x").join(" "),
            "network connect --alias n1 --alias n1.peers 77 x"
        );
        assert_eq!(
            (other.state.status, other.endpoints.len()),
            (Status::Ended, 0)
        );
    }

    #[test]
    fn something_else_is_no_panic() {
        assert!(parse("").is_err());
        assert!(parse("[{\"Id\": 4}]").is_err());
        assert_eq!(parse("[]").unwrap(), []);
    }
}
