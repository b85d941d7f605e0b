//! The only module that names the MongoDB driver: batches, the log, reads, members.
//!
//! Never decides what to do next; it says what is known after each call.

pub mod admin;
