//! The memory that requests in flight may hold together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::Failure;

/// What the budget counts in. Smaller holdings round up to it.
const UNIT_BYTES: usize = 1 << 10;

/// A shared number of bytes. What is reserved comes back when its [`Reservation`] is dropped.
#[derive(Debug, Clone)]
pub struct Budget {
    units: Arc<Semaphore>,
    bytes_max: usize,
}

impl Budget {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            units: Arc::new(Semaphore::new(bytes_max / UNIT_BYTES)),
            bytes_max,
        }
    }

    /// A reservation of nothing yet.
    pub fn open(&self) -> Reservation {
        Reservation {
            budget: self.clone(),
            held: None,
        }
    }
}

/// A share of a [`Budget`] that grows with what it stands for.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    held: Option<OwnedSemaphorePermit>,
}

impl Reservation {
    /// A reservation of nothing yet in the same budget, for a task that the holder of this one may
    /// not wait for.
    pub fn beside(&self) -> Self {
        self.budget.open()
    }

    /// Takes over what another reservation of the same budget holds.
    pub fn absorb(&mut self, other: Self) {
        match (&mut self.held, other.held) {
            (Some(held), Some(more)) => held.merge(more),
            (None, more) => self.held = more,
            (Some(_), None) => {}
        }
    }

    /// Holds at least `bytes` from now on. It never waits: when memory is short, waiting requests
    /// would only add to it.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), Failure> {
        if bytes > self.budget.bytes_max {
            return Err(Failure::TooLarge(format!(
                "the request needs about {} MiB of memory, more than the {} MiB there are for all requests; split it",
                bytes >> 20,
                self.budget.bytes_max >> 20
            )));
        }
        let held = self
            .held
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.div_ceil(UNIT_BYTES).saturating_sub(held);
        if missing == 0 {
            return Ok(());
        }
        let missing = u32::try_from(missing).map_err(|_| Failure::Busy)?;
        let more = Arc::clone(&self.budget.units)
            .try_acquire_many_owned(missing)
            .map_err(|_| Failure::Busy)?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_not_there_for_others_until_it_is_dropped() {
        let budget = Budget::new(8 * UNIT_BYTES);
        let (mut a, mut b) = (budget.open(), budget.open());
        a.grow_to(5 * UNIT_BYTES).unwrap();
        a.grow_to(2 * UNIT_BYTES).unwrap();
        assert_eq!(b.grow_to(4 * UNIT_BYTES), Err(Failure::Busy));
        b.grow_to(3 * UNIT_BYTES).unwrap();
        drop(a);
        b.grow_to(8 * UNIT_BYTES).unwrap();
    }

    #[test]
    fn what_can_never_fit_is_too_large_rather_than_busy() {
        let budget = Budget::new(8 * UNIT_BYTES);
        let refused = budget.open().grow_to(8 * UNIT_BYTES + 1);
        assert!(matches!(refused, Err(Failure::TooLarge(_))));
    }
}
