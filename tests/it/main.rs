//! The integration tests, one binary: real processes, real MongoDB, loopback only.

mod support;

mod fetch;
mod up;
