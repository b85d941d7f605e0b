//! Drumline: one serial order, Lamport stamps and exactly-once retries in front of a MongoDB
//! replica set. The modules in reading order; each uses only what stands above it.

pub mod model;
pub mod config;
pub mod mutants;
pub mod budget;
pub mod store;
pub mod sequencer;
pub mod gateway;
pub mod http;
pub mod node;
pub mod client;
pub mod bench;
pub mod cluster;
pub mod cli;
