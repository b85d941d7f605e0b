//! The integration tests, one binary: real processes, real MongoDB, loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

mod answers;
mod backup;
mod bad_input;
mod browser;
mod causal;
mod check;
mod cli;
mod compose;
mod crowd;
mod drill;
mod exactly_once;
mod faults;
mod failover;
mod fetch;
mod field;
mod foreign;
mod forgotten;
mod ground;
mod guest;
mod layers;
mod lifetime;
mod limits;
mod log_faults;
mod log_follow;
mod namesake;
mod neighbours;
mod odd;
mod order;
mod readme;
mod reads;
mod refusals;
mod rights;
mod status;
mod streams;
mod takeover;
mod types;
mod up;
mod watch;
mod ways_in;
