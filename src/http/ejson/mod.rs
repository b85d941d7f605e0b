//! Extended JSON v2: JSON that holds every BSON type.
//!
//! The `bson` crate has a conversion too, but not one for a store that must not lie: it keeps the
//! last of two equal keys, reads an empty `$numberDecimal` as 0, and goes through a tree that the
//! reader and the writer here do without.

mod read;
mod types;
mod write;

pub use read::object;
pub use write::{Fields, Format, Json};

#[cfg(test)]
mod tests;
