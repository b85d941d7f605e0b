//! How many documents a collection has, and a sum over them that does not depend on their order.

use sha2::{Digest as _, Sha256};

/// A count and a sum. Two collections with the same documents have the same; others do not, but by
/// a chance of one in 2^128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    pub documents: i64,
    sum: u128,
}

impl Sum {
    pub fn add(&mut self, document: &[u8]) {
        self.documents += 1;
        self.sum = self.sum.wrapping_add(digest(document));
    }

    pub fn take_out(&mut self, document: &[u8]) {
        self.documents -= 1;
        self.sum = self.sum.wrapping_sub(digest(document));
    }

    /// A sum from its text.
    pub fn read(documents: i64, sum: &str) -> Option<Self> {
        let sum = u128::from_str_radix(sum, 16).ok()?;
        Some(Self { documents, sum })
    }

    /// The sum as text.
    pub fn text(&self) -> String {
        format!("{:032x}", self.sum)
    }
}

fn digest(document: &[u8]) -> u128 {
    let digest = Sha256::digest(document);
    digest
        .first_chunk()
        .map_or(0, |bytes| u128::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_count_and_everything_else_does() {
        let sum = |documents: &[&[u8]]| {
            let mut sum = Sum::default();
            documents.iter().for_each(|document| sum.add(document));
            sum
        };
        assert_eq!(sum(&[b"a", b"b"]), sum(&[b"b", b"a"]));
        assert_ne!(sum(&[b"a", b"b"]), sum(&[b"a", b"c"]));
        assert_ne!(sum(&[b"a", b"a"]), sum(&[b"a"]));
        let mut less = sum(&[b"a", b"b"]);
        less.take_out(b"b");
        assert_eq!(less, sum(&[b"a"]));
    }
}
