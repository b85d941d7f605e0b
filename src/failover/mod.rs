//! Makes the loss of a member short: notices it, asks a member to stand when a majority of nodes
//! agree that the primary is gone, and keeps a successor ready.
//!
//! Never decides who is primary, MongoDB does; never acts twice in one term.

mod ask;
mod chain;
mod hearsay;
mod keeper;
mod quorum;
#[cfg(test)]
mod quorum_tests;
mod source;
mod stillness;
mod task;

pub use task::{Assist, Parts, Wire, spawn};
