//! The launcher of local clusters: finds mongod, starts the members and the nodes, stops them.
//!
//! Never speaks to MongoDB itself (that is `store`), never touches a process it did not start.
//! In reading order: `place` (folders and files), `spec` (what a cluster consists of), `mongod`
//! and `fetch` (the program), `process`, `guard` and `crew` (children), `supervisor` (the one
//! process that owns a cluster), `launch`, `stop` and `info` (what the commands ask for), `throwaway`
//! and `handles` (what a drill asks for).

mod crew;
mod cut;
mod error;
mod fetch;
mod guard;
mod handles;
pub mod info;
mod launch;
mod member;
mod mongod;
mod place;
mod process;
mod replica;
mod report;
mod run;
mod secrets;
mod signals;
mod spec;
mod stop;
mod supervisor;
mod throwaway;
mod web;

pub use error::Error;
pub use guard::guard;
pub use handles::{Handles, Process, Turn};
pub use launch::{Options, up};
pub use place::Place;
pub use replica::initiate;
pub use report::{listing, show, table};
pub use signals::StopRequests;
pub use spec::{ClusterName, NAME_DEFAULT, Wish};
pub use stop::{Stopped, down, purge};
pub use throwaway::Throwaway;
