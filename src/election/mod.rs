//! Who is coordinator: the bully algorithm (Garcia-Molina 1982), and what it takes to stay out of the
//! way of a coordinator that lives.
//!
//! The machine decides, the task carries out. Never carries safety: a node that is wrong about its
//! peers claims, and the log lets one claim through.

mod join;
mod machine;
mod phase;
mod steps;
mod task;
mod timing;
mod work;

pub use machine::Machine;
pub use steps::{Input, Looked, NotClaimed, Output, Patience, Timer};
pub use task::{Aside, Election, Leadership, Parts, spawn};
pub use timing::Timing;
