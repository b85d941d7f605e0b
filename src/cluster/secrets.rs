//! The secrets of a cluster: drawn once, each in a file that only its owner reads.

use std::fs;
use std::io;

use super::error::Error;
use super::place::{Place, make_private_folder, write_private};
use super::spec::{Spec, random_bytes};
use crate::model::hex;

/// The MongoDB user that Drumline makes for people and for commands without a server. He may do
/// everything.
pub(super) const USER: &str = "drumline";
/// The MongoDB user that nodes log in as.
pub(super) const NODE_USER: &str = "drumline-node";

/// What the processes of a cluster prove themselves with.
#[derive(Clone)]
pub struct Secrets {
    pub api_key: String,
    pub password: String,
    pub node_password: String,
    /// The connection string, credentials included.
    pub mongodb_uri: String,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

impl Secrets {
    /// Reads the secrets, drawing those that are missing.
    pub fn make(place: &Place, spec: &Spec) -> Result<Self, Error> {
        make_private_folder(&place.folder().join("secrets"))?;
        kept_or_drawn(place, "keyfile")?;
        kept_or_drawn(place, "cluster-secret")?;
        let api_key = kept_or_drawn(place, "api-key")?;
        let password = kept_or_drawn(place, "password")?;
        let node_password = kept_or_drawn(place, "node-password")?;
        let mongodb_uri = uri(spec, USER, &password);
        write_private(&place.secret("mongodb-uri"), mongodb_uri.as_bytes())?;
        let node_uri = uri(spec, NODE_USER, &node_password);
        write_private(&place.secret("node-uri"), node_uri.as_bytes())?;
        Ok(Self {
            api_key,
            password,
            node_password,
            mongodb_uri,
        })
    }

    /// Reads the secrets of a cluster that has them all.
    pub fn load(place: &Place, spec: &Spec) -> io::Result<Self> {
        let password = fs::read_to_string(place.secret("password"))?;
        Ok(Self {
            api_key: fs::read_to_string(place.secret("api-key"))?,
            mongodb_uri: uri(spec, USER, &password),
            node_password: fs::read_to_string(place.secret("node-password"))?,
            password,
        })
    }
}

fn kept_or_drawn(place: &Place, name: &str) -> Result<String, Error> {
    let path = place.secret(name);
    match fs::read_to_string(&path) {
        Ok(text) => return Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("read", &path)(error)),
    }
    let text = hex(&random_bytes::<32>()?);
    write_private(&path, text.as_bytes())?;
    Ok(text)
}

fn uri(spec: &Spec, user: &str, password: &str) -> String {
    let hosts = spec.hosts().join(",");
    let set = spec.replica_set();
    format!("mongodb://{user}:{password}@{hosts}/?replicaSet={set}")
}
