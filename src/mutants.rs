//! Deliberate mistakes, one for each barrier of the protocol, for the tests that show that such
//! mistakes are found (tests/mutants.rs).
//!
//! Only with the feature `mutants`, which is for these tests alone. Without it no mistake can be
//! chosen and nothing of this is compiled in.

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// The reply is sent before the commit (against I4).
    ReplyBeforeCommit,
    /// A deposed coordinator takes the later epoch for a guest's append and goes on (against I2, I8).
    NoFence,
    /// A batch in doubt that stands in the log is taken for another's and put behind it.
    NoBatchId,
    /// The log's unique index does not learn the request ids (against I5).
    NoRequestIds,
    /// Inserted and replaced documents carry no stamp (against I3).
    NoStamps,
    /// A claim does not end what the predecessor left open.
    SessionsLeftOpen,
}

/// Whether this process is to make the mistake.
#[cfg(feature = "mutants")]
pub fn active(mutant: Mutant) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| crate::config::env("DRUMLINE_MUTANT"));
    (chosen.as_ref()).is_some_and(|chosen| *chosen == format!("{mutant:?}"))
}

/// Never: this is no test build.
#[cfg(not(feature = "mutants"))]
pub const fn active(_: Mutant) -> bool {
    false
}
