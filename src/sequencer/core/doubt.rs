//! What becomes of a batch of which it is not known whether it was done.

use super::{Core, InFlight};
use crate::sequencer::steps::{Output, Ran, Reject, Resolved, Slot};

impl<P: Clone> Core<P> {
    pub(super) fn resolved(&mut self, resolved: Resolved, out: &mut Vec<Output<P>>) {
        match resolved {
            Resolved::Mine { count } => self.settle(count, out),
            Resolved::Vacant => self.vacant(out),
            Resolved::Absent => self.absent(out),
            Resolved::Guest { tail, clock } => {
                self.advance(tail, clock, true, out);
                self.rebuild(out);
            }
            Resolved::Fenced => {
                self.depose(out);
                self.reject_in_flight(Reject::NotCoordinator, out);
                out.push(Output::Fenced);
            }
        }
    }

    /// The primary knows nothing of the batch. It may be a primary of yesterday, and the batch may
    /// stand: the very same batch may run again, since the log takes it once. Nothing else may be
    /// concluded.
    fn vacant(&mut self, out: &mut Vec<Output<P>>) {
        let serving = self.serving;
        let Some(flight) = &mut self.in_flight else {
            return;
        };
        let changes = flight.batch.slots.iter().any(Slot::abandoned);
        if !serving || flight.repeated || changes {
            return self.prove(out);
        }
        flight.unproven = true;
        self.again(out);
    }

    /// Nothing of the batch was done, and nothing will be.
    fn absent(&mut self, out: &mut Vec<Output<P>>) {
        if let Some(flight) = &mut self.in_flight {
            flight.unproven = false;
            if flight.repeated {
                return out.push(Output::Look(flight.batch.clone()));
            }
        }
        self.again(out);
    }

    /// An end that tells that this attempt did nothing tells nothing of an earlier one in doubt.
    pub(super) fn needs_proof(&self, ran: &Ran) -> bool {
        let is_end = !matches!(ran, Ran::Committed { .. } | Ran::Clash | Ran::Doubt { .. });
        is_end
            && self
                .in_flight
                .as_ref()
                .is_some_and(|flight| flight.unproven)
    }

    pub(super) fn prove(&mut self, out: &mut Vec<Output<P>>) {
        if let Some(flight) = &self.in_flight {
            out.push(Output::Prove(flight.batch.clone()));
        }
    }

    pub(super) fn again(&mut self, out: &mut Vec<Output<P>>) {
        let Some(mut flight) = self.in_flight.take() else {
            return;
        };
        if !self.serving || flight.batch.slots.iter().any(Slot::abandoned) {
            let (gone, kept): (Vec<_>, Vec<_>) =
                (flight.batch.slots.into_iter()).partition(Slot::abandoned);
            gone.iter().for_each(|slot| self.forget_id(slot));
            flight.batch.slots = kept;
            for slot in &mut flight.batch.slots {
                slot.refused = None;
            }
            return self.rerun(flight, out);
        }
        flight.batch.attempt += 1;
        out.push(Output::Run(flight.batch.clone()));
        self.in_flight = Some(flight);
    }

    /// Runs changed content at the same position: under a new batch id, since an id names exact
    /// content. Nothing of the old content was done.
    pub(super) fn rerun(&mut self, mut flight: InFlight<P>, out: &mut Vec<Output<P>>) {
        if !self.serving {
            for slot in flight.batch.slots {
                self.reject(slot, Reject::NotCoordinator, out);
            }
            return self.turn_away(out);
        }
        if flight.batch.slots.is_empty() {
            return self.begin(out);
        }
        flight.batch.id = self.next_batch_id();
        flight.batch.attempt += 1;
        out.push(Output::Run(flight.batch.clone()));
        self.in_flight = Some(flight);
    }
}
