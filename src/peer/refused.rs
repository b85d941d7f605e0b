//! Why a peer's message is not taken.

use thiserror::Error;

use crate::model::NodeName;

/// Why a peer's message is not taken. The texts are for the peer's operator too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Error)]
pub enum Refused {
    #[error("the cluster secret is another one, or this node is of another version")]
    Secret,
    #[error("this node belongs to another cluster than '{0}'")]
    Cluster(String),
    #[error("this node is {here}, not '{wanted}'; correct the --peer of the sender")]
    Addressee { here: NodeName, wanted: String },
    #[error("'{0}' is not among the peers of this node; start it with a --peer for it")]
    Stranger(String),
    /// The sender does not know this process yet, or its clock. The reply tells it.
    #[error("the message is for another process of this node or for another time")]
    Stale { from: NodeName, nonce: String },
    #[error("this message was taken before")]
    Repeated,
    #[error("{0} was started anew too often in the last seconds; it is heard again soon")]
    Crowded(NodeName),
}
