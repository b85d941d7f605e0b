//! Drumline: one serial order, Lamport stamps and exactly-once retries in front of a MongoDB
//! replica set. The modules in reading order; each uses only what stands above it.

pub mod text;
pub mod model;
pub mod ejson;
pub mod check;
pub mod config;
pub mod mutants;
pub mod job;
pub mod budget;
pub mod store;
pub mod backup;
pub mod peer;
pub mod sequencer;
pub mod liveness;
pub mod view;
pub mod metrics;
pub mod election;
pub mod failover;
pub mod ground;
pub mod namesake;
pub mod observer;
pub mod gateway;
pub mod http;
pub mod node;
pub mod client;
pub mod bench;
pub mod cluster;
pub mod compose;
pub mod drill;
pub mod cli;
