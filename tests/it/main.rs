//! The integration tests, one binary: real processes, real MongoDB, loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

mod cli;
mod fetch;
mod layers;
mod lifetime;
mod order;
mod readme;
mod up;
