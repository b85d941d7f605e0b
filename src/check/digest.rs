//! JSON values as digests, taken while they are parsed: the checker compares values and never
//! needs them again.
//!
//! The hash is SipHash with keys drawn at random for each process. A value that differs from the expected one
//! passes for it with a probability of 2^-64; two keys of documents, or two request ids, are
//! taken for one with 2^-128.

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::OnceLock;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A JSON value, unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest {
    pub high: u64,
    /// Enough to compare two values. Never [`NONE`], but for null.
    pub low: u64,
    pub shape: Shape,
}

/// The `low` of null.
pub(super) const NONE: u64 = 0;

/// What must be known of a value beside its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Null,
    Zero,
    One,
    /// An array of two: their `low`.
    Pair(u64, u64),
    Other,
}

impl Digest {
    pub(super) const fn is_null(&self) -> bool {
        matches!(self.shape, Shape::Null)
    }
}

/// Two hashers with keys of their own.
struct Mixer([std::hash::DefaultHasher; 2]);

impl Mixer {
    fn new(kind: u8) -> Self {
        static KEYS: OnceLock<[RandomState; 2]> = OnceLock::new();
        let keys = KEYS.get_or_init(|| [RandomState::new(), RandomState::new()]);
        let mut mixer = Self([keys[0].build_hasher(), keys[1].build_hasher()]);
        mixer.bytes(&[kind]);
        mixer
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0[0].write(bytes);
        self.0[1].write(bytes);
    }

    fn digest(&mut self, digest: &Digest) {
        self.bytes(&digest.high.to_le_bytes());
        self.bytes(&digest.low.to_le_bytes());
    }

    fn end(self, shape: Shape) -> Digest {
        Digest {
            high: self.0[1].finish(),
            low: self.0[0].finish().max(NONE + 1),
            shape,
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Taker)
    }
}

struct Taker;

impl<'de> Visitor<'de> for Taker {
    type Value = Digest;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Digest, E> {
        Ok(Digest {
            high: 0,
            low: NONE,
            shape: Shape::Null,
        })
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Digest, E> {
        Ok(Mixer::new(if value { b't' } else { b'f' }).end(Shape::Other))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Digest, E> {
        let mut mixer = Mixer::new(b'i');
        mixer.bytes(&value.to_le_bytes());
        Ok(mixer.end(match value {
            0 => Shape::Zero,
            1 => Shape::One,
            _ => Shape::Other,
        }))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Digest, E> {
        if let Ok(value) = i64::try_from(value) {
            return self.visit_i64(value);
        }
        let mut mixer = Mixer::new(b'u');
        mixer.bytes(&value.to_le_bytes());
        Ok(mixer.end(Shape::Other))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Digest, E> {
        // 5 and 5.0 are the same number, and a server may print one for the other.
        const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
        if value.fract() == 0.0 && value.abs() <= WHOLE_MAX {
            #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
            return self.visit_i64(value as i64);
        }
        let mut mixer = Mixer::new(b'd');
        mixer.bytes(&value.to_bits().to_le_bytes());
        Ok(mixer.end(Shape::Other))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Digest, E> {
        let mut mixer = Mixer::new(b's');
        mixer.bytes(value.as_bytes());
        Ok(mixer.end(Shape::Other))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Digest, A::Error> {
        let mut mixer = Mixer::new(b'[');
        let mut first_two = [NONE; 2];
        let mut count = 0;
        while let Some(element) = seq.next_element::<Digest>()? {
            mixer.digest(&element);
            if let Some(place) = first_two.get_mut(count) {
                *place = element.low;
            }
            count += 1;
        }
        let [first, second] = first_two;
        Ok(mixer.end(if count == 2 {
            Shape::Pair(first, second)
        } else {
            Shape::Other
        }))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Digest, A::Error> {
        let mut mixer = Mixer::new(b'{');
        while let Some((name, value)) = map.next_entry::<Digest, Digest>()? {
            mixer.digest(&name);
            mixer.digest(&value);
        }
        Ok(mixer.end(Shape::Other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn values_have_one_digest_however_they_are_written() {
        assert_eq!(digest("\"a\""), digest("\"\\u0061\""));
        assert_eq!(digest("5"), digest("5.0"));
        assert_eq!(digest("{\"a\": [1, null]}"), digest("{\"a\":[1,null]}"));
        let all = [
            "1",
            "-1",
            "\"1\"",
            "[1]",
            "[[1]]",
            "[1,1]",
            "[]",
            "{}",
            "null",
            "true",
            "1.5",
            "{\"a\":1}",
            "{\"a\":1,\"b\":1}",
            "[\"a\",1]",
            "18446744073709551615",
        ];
        for (at, one) in all.iter().enumerate() {
            for other in &all[at + 1..] {
                assert_ne!(digest(one).low, digest(other).low, "{one} {other}");
                assert_ne!(digest(one).high, digest(other).high, "{one} {other}");
            }
        }
    }

    #[test]
    fn shapes_are_kept() {
        assert!(digest("null").is_null());
        assert_eq!(digest("0").shape, Shape::Zero);
        assert_eq!(digest("1").shape, Shape::One);
        assert_eq!(digest("\"1\"").shape, Shape::Other);
        let pair = Shape::Pair(digest("1").low, digest("\"b\"").low);
        assert_eq!(digest("[1,\"b\"]").shape, pair);
        assert_eq!(digest("[1,2,3]").shape, Shape::Other);
    }
}
