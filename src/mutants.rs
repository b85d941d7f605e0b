//! Deliberate mistakes, one for each barrier of the protocol, for the tests that show that such
//! mistakes are found (tests/mutants.rs).
//!
//! Only with the feature `mutants`, which is for these tests alone. Without it no mistake can be
//! chosen and nothing of this is compiled in.

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A batch is acknowledged when one member holds it (against I4).
    OneMemberAcknowledges,
    /// Reads show what one member holds (against I7).
    LocalReads,
    /// A coordinator's read is not validated by a look at the log's end (against I7).
    UnvalidatedReads,
    /// A commit that a change of MongoDB's primary interrupts (11602) is taken for one that failed.
    InterruptedIsFailure,
    /// The reply is sent before the commit (against I4).
    ReplyBeforeCommit,
    /// A deposed coordinator takes the later epoch for a guest's append, where a batch or its look once
    /// a second meets it, and goes on (against I2, I8).
    NoFence,
    /// A batch in doubt is put behind the log's end, whatever stands at its own position (against I5).
    PositionRecomputed,
    /// The log's unique index does not learn the request ids (against I5).
    NoRequestIds,
    /// Inserted and replaced documents carry no stamp (against I3).
    NoStamps,
    /// A claim does not end what the predecessor left open.
    SessionsLeftOpen,
    /// A causal read takes the first snapshot it gets, however old.
    StaleReads,
    /// All calls share the driver's connections as they come, and a client that leaves takes its call
    /// with it.
    NoGate,
    /// A call that does not come back is waited for.
    NothingIsLeft,
    /// A request that may compute for long shares a transaction with others.
    LoopsShare,
    /// A batch is appended whether or not the position before it stands (against I1, I5).
    NoProof,
    /// A peer's message is taken with any body.
    UnprovenBodies,
    /// A peer's message is taken as often as it comes.
    RepeatedMessages,
    /// An error of MongoDB's that passes is a request's answer for good.
    PassingErrorsKept,
    /// A collection is taken for the one that was met first, whatever has become of it since.
    StaleCollation,
    /// A symbol and a string of the same text are taken for two values.
    SymbolsApart,
    /// A filter that draws lots is asked again when its documents are known.
    DrawnAgain,
    /// Connections that give no answer are kept.
    NoRenewal,
}

/// Whether this process is to make the mistake.
#[cfg(feature = "mutants")]
pub fn active(mutant: Mutant) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| crate::config::setting("DRUMLINE_MUTANT").ok().flatten());
    (chosen.as_ref()).is_some_and(|chosen| *chosen == format!("{mutant:?}"))
}

/// Never: this is no test build.
#[cfg(not(feature = "mutants"))]
pub const fn active(_: Mutant) -> bool {
    false
}
