//! Failover drills: load, one fault, what clients saw of it, and the proof that nothing was lost.
//!
//! An outside client: it never looks inside a node. In reading order: `report` (what comes out);
//! `scenario` (the faults), `dice` and `mix` (what the load asks for), `worker` and `load` (the clients),
//! `timeline` and `watch` (what members and nodes do), `reach`, `hands` and `site` (the cluster), `fault` and `confirm` (what
//! is done to it), `measure` (the figures), `run` (one run), `engine` (all of them); `stats`, `outcome`, `slo`,
//! `junit`, `summary`, `diff`, `html` (how a report is shown).

mod confirm;
mod dice;
mod engine;
mod fault;
mod hands;
mod load;
mod measure;
mod mix;
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

pub use engine::{Plan, Told, drill};
pub use run::is_of_the_end;
pub use scenario::{Aim, Fault};
pub use site::Site;
