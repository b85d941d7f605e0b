//! What a node believes of its peers, from heartbeats alone.
//!
//! Never decides who is coordinator: belief is for the election to use, and safety rests on the log.

mod detector;

pub use detector::{Detector, Input, Output, Wait};
