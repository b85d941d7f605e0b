//! The serial order: positions in the log, epochs of coordinators, Lamport stamps of requests.

use std::fmt;

use bson::{Bson, Document, doc};
use serde::{Deserialize, Serialize};

use super::id::NodeName;

/// A place in the log. The first is 1 and they have no gaps (I1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub i64);

impl Position {
    /// The place before the first: the tail of an empty log.
    pub const ZERO: Self = Self(0);

    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A coordinator's tenure. It begins with a claim document and never decreases along the log (I2).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub i64);

impl Epoch {
    /// The epoch of an empty log, in which nobody has claimed yet.
    pub const ZERO: Self = Self(0);

    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A Lamport stamp (Lamport 1978): a counter, and the node's name to break ties. The order is by
/// counter first; along the log stamps strictly increase (I3).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp {
    /// The counter.
    pub t: i64,
    /// The node that gave the stamp.
    pub n: NodeName,
}

impl Stamp {
    /// The form that documents carry: `{t: <i64>, n: <node>}`.
    pub fn to_bson(&self) -> Bson {
        Bson::Document(doc! { "t": self.t, "n": self.n.as_str() })
    }

    /// Reads the form that [`Stamp::to_bson`] writes; `None` if it has another.
    pub fn from_document(document: &Document) -> Option<Self> {
        let t = document.get_i64("t").ok()?;
        let n = NodeName::parse(document.get_str("n").ok()?).ok()?;
        Some(Self { t, n })
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.t, self.n)
    }
}

/// How far ahead of the log's last stamp a client's clock may be. A clock further ahead is refused:
/// it could exhaust the counter. An honest client's clock came from this log, so it is ahead only
/// of a log that was put back to an older state, by what was lost of it. At 2^20 a step it takes
/// eight thousand million requests that each lie anew to pass 2^53, the last integer that
/// JavaScript holds exactly, and a thousand times as many to reach the end of 64 bits.
pub const CLOCK_AHEAD_MAX: i64 = 1 << 20;

/// The last stamp's counter: the largest integer that JavaScript holds exactly. Where the next
/// batch could pass it, writes are refused. The counter never wraps.
pub const STAMP_MAX: i64 = (1 << 53) - 1;

/// Whether a batch after this clock could pass [`STAMP_MAX`].
pub const fn clock_is_at_its_end(clock: i64) -> bool {
    clock >= STAMP_MAX - 2 * CLOCK_AHEAD_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_order_by_counter_then_name() {
        let stamp = |t, n: &str| Stamp {
            t,
            n: NodeName::parse(n).unwrap(),
        };
        assert!(stamp(1, "n2") < stamp(2, "n1"));
        assert!(stamp(2, "n1") < stamp(2, "n2"));
        let s = stamp(7, "n3");
        let Bson::Document(form) = s.to_bson() else {
            panic!("a stamp is a document")
        };
        assert_eq!(Stamp::from_document(&form), Some(s));
        assert_eq!(Stamp::from_document(&doc! {"t": 7}), None);
    }
}
