//! The way to the members, which are known by the names that the replica set gives them.

use crate::compose::Addresses;
use crate::config::Secret;
use crate::store::{Probe, StoreError};

/// How members are reached and logged in to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reach {
    uri: Secret,
    /// `None`: the names are addresses.
    addresses: Option<Addresses>,
}

impl Reach {
    /// The members' names are their addresses.
    pub const fn by_name(uri: Secret) -> Self {
        Self {
            uri,
            addresses: None,
        }
    }

    pub const fn at(uri: Secret, addresses: Addresses) -> Self {
        Self {
            uri,
            addresses: Some(addresses),
        }
    }

    pub const fn uri(&self) -> &Secret {
        &self.uri
    }

    /// Where a member is now; `None` if it is nowhere.
    pub fn address(&self, host: &str) -> Option<String> {
        match &self.addresses {
            Some(addresses) => addresses.of(host),
            None => Some(host.to_owned()),
        }
    }

    /// Prepares a connection to a member.
    pub async fn open(&self, host: &str) -> Result<Probe, StoreError> {
        match self.address(host) {
            Some(address) => Probe::open(self.uri.expose(), &address).await,
            None => Err(StoreError::Unavailable(format!(
                "{host} has no address now"
            ))),
        }
    }
}
