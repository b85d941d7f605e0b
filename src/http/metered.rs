//! Replies that hold their share of memory until they are sent.

use std::io;

use axum::body::Bytes;

use crate::budget::Reservation;

/// Bytes that hold their share of the budget until they are sent.
#[derive(Debug)]
pub struct MeteredBuffer {
    bytes: Vec<u8>,
    reservation: Reservation,
}

impl MeteredBuffer {
    pub fn new(reservation: Reservation) -> Self {
        Self {
            bytes: Vec::new(),
            reservation,
        }
    }

    /// The share comes back when the last clone of the result is dropped.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for MeteredBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl io::Write for MeteredBuffer {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        let needed = self.bytes.len() + more.len();
        if needed > self.bytes.capacity() {
            // Vec doubles; the share must be there before the memory is.
            self.reservation
                .grow_to(needed.max(2 * self.bytes.capacity()))
                .map_err(io::Error::other)?;
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::budget::Budget;
    use crate::model::Failure;

    const UNIT_BYTES: usize = 1 << 10;

    #[test]
    fn a_buffer_gives_its_share_back_when_it_was_sent() {
        let budget = Budget::new(4 * UNIT_BYTES);
        let mut buffer = MeteredBuffer::new(budget.open());
        buffer.write_all(&[1; 3 * UNIT_BYTES]).unwrap();
        assert!(buffer.write_all(&[1; 2 * UNIT_BYTES]).is_err());
        let bytes = buffer.into_bytes();
        assert_eq!(budget.open().grow_to(2 * UNIT_BYTES), Err(Failure::Busy));
        drop(bytes);
        budget.open().grow_to(4 * UNIT_BYTES).unwrap();
    }
}
