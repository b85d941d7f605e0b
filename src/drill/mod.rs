//! Failover drills: load, one fault, what clients saw of it, and the proof that nothing was lost.
//!
//! An outside client: it never looks inside a node. In reading order: `report` (what comes out) and `stats` (its
//! figures); `scenario` (the faults), `slo` and `plan` (what is asked for), `dice` and `mix` (what the load asks for),
//! `worker` and `load` (the clients), `reach`, `hands` (the ways to a cluster), `timeline` and `watch` (what members and
//! nodes do), `site` (the cluster), `fault` and `confirm` (what is done to it), `measure` (the figures), `checks` and
//! `run` (one run), `outcome` and `engine` (all of them); `junit`, `summary`, `diff`, `escape` and `html` (how a report
//! is shown).

mod checks;
mod confirm;
mod dice;
mod engine;
mod fault;
mod hands;
mod load;
mod measure;
mod mix;
mod plan;
mod reach;
pub mod report;
mod run;
mod scenario;
mod site;
mod timeline;
mod watch;
mod worker;

pub mod diff;
mod escape;
#[cfg(test)]
pub(crate) mod example;
pub mod html;
pub mod junit;
pub mod outcome;
pub mod slo;
pub mod stats;
pub mod summary;

pub use checks::tells_a_violation;
pub use engine::drill;
pub use plan::{Plan, Told};
pub use scenario::{Aim, Fault};
pub use site::Site;
