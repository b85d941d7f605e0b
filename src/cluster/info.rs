//! What runs where in a local cluster: the form of `drumline info -o json`, which other programs
//! rely on.

use serde::{Deserialize, Serialize};

/// A local cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterInfo {
    pub name: String,
    /// With credentials: this text is a secret.
    pub mongodb_uri: String,
    pub api_key: String,
    pub nodes: Vec<NodeInfo>,
    pub members: Vec<MemberInfo>,
}

/// A front-end process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    pub name: String,
    pub url: String,
    pub pid: u32,
    pub log: String,
}

/// A mongod process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    pub host: String,
    pub pid: u32,
    pub dbpath: String,
    pub log: String,
}

/// The clusters of this user that run now.
pub fn running() -> Vec<ClusterInfo> {
    Vec::new()
}
