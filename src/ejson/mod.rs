//! Extended JSON v2: JSON that holds every BSON type. The one reader and the one writer of it,
//! whichever way a text comes in or goes out.
//!
//! The `bson` crate has a conversion too, but not one for a store that must not lie: it keeps the
//! last of two equal keys, reads an empty `$numberDecimal` as 0, and goes through a tree that the
//! reader and the writer here do without.

mod count;
mod date;
mod integers;
mod read;
mod types;
mod write;

pub use count::{EXPECTED as COUNT, NotACount, count, count_text, whole_text};
pub use read::{Fault, Item, object, reply, values};
pub use write::{Fields, Format, Json};

#[cfg(test)]
mod tests;
