//! The containers of a docker-compose project in the hands of a drill: found, ended, frozen, cut off, put back.
//!
//! Never makes or removes a container, never shows a secret. In reading order: `inspect` (what the engine tells,
//! pure), `engine` (the program `docker`), `roles` (which container is what, pure), `turn` (one drill at a time),
//! `containers` (what is done to them).

mod containers;
mod engine;
mod error;
mod inspect;
mod roles;
mod turn;

pub use containers::{Addresses, Containers, Life, Opened};
pub use error::Error;
pub use inspect::Status;
