//! The words of the program: identifiers, order, requests, answers and failures.
//!
//! Never does any IO, never names a driver, a protocol or a clock.

pub mod failure;
mod hex;
pub mod id;
mod language;
pub mod limits;
mod loops;
pub mod order;
pub mod peer;
pub mod policy;
pub mod request;

pub use failure::Failure;
pub use hex::{hex, unhex};
pub use id::{BatchId, Digest, Namespace, NodeName, RequestId};
pub use order::{Epoch, Position, Stamp};
pub use peer::{Beat, Liveness, Message, Rank, Role, Tenure};
pub use request::{
    Answer, Call, Consistency, Documents, Outcome, Read, Refusal, Update, Write, WriteRequest,
};
