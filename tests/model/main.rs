//! The protocol, without MongoDB: the code that decides, checked in all states within bounds
//! (`checks`, with stateright) and in seeded schedules (`schedules`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod checks;
mod elections;
mod events;
mod node;
mod random;
mod schedules;
mod times;
mod world;
mod writes;
