//! The integration tests, one binary: real processes, real MongoDB, loopback only.

mod support;

mod cli;
mod fetch;
mod up;
