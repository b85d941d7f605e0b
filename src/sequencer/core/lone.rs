//! Requests that would hold up others leave their batch. They run alone, turn about with the queue.

use super::{CONFLICTS_MAX, Core, HELD_LOOP_MAX, HELD_MAX, InFlight, RECOVERY, WARY_BATCHES};
use crate::model::Refusal;
use crate::sequencer::steps::{Output, Reject, Slot, Ticket};

impl<P: Clone> Core<P> {
    /// The place of the next one that may run alone now.
    pub(super) fn next_lone(&self) -> Option<usize> {
        let may_run = |slot: &Slot<P>| !(self.crowded && slot.submission.loops);
        self.lone
            .iter()
            .position(may_run)
            .filter(|_| !self.recovering)
    }

    pub(super) fn take_lone(&mut self) -> Option<Slot<P>> {
        let slot = self.lone.remove(self.next_lone()?)?;
        self.queue_bytes -= slot.submission.bytes;
        Some(slot)
    }

    /// Takes out the requests that nobody waits for any more.
    pub(super) fn drop_abandoned(&mut self) {
        let mut gone = Vec::new();
        for queue in [&mut self.queue, &mut self.lone] {
            while let Some(at) = queue.iter().position(Slot::abandoned) {
                gone.extend(queue.remove(at));
            }
        }
        while let Some(at) = self.resting.iter().position(Slot::abandoned) {
            gone.push(self.resting.remove(at));
        }
        for slot in gone {
            self.queue_bytes -= slot.submission.bytes;
            self.forget_id(&slot);
        }
    }

    pub(super) fn rested(&mut self, ticket: Ticket, out: &mut Vec<Output<P>>) {
        if ticket == RECOVERY.0 {
            self.recovering = false;
            return self.begin(out);
        }
        let rested = |slot: &Slot<P>| slot.submission.ticket == ticket;
        if let Some(at) = self.resting.iter().position(rested) {
            let slot = self.resting.remove(at);
            self.lone.push_back(slot);
            self.begin(out);
        }
    }

    /// Another program's lock is in the way. The requests that may have met it rest, and then run
    /// alone; the others run again at once.
    pub(super) fn contended(&mut self, first: usize, count: usize, out: &mut Vec<Output<P>>) {
        let Some(mut flight) = self.in_flight.take() else {
            return;
        };
        let slots = &mut flight.batch.slots;
        let end = first.saturating_add(count).min(slots.len());
        let met: Vec<_> = slots.drain(first.min(end)..end).collect();
        for mut slot in met {
            slot.conflicts += 1;
            slot.refused = None;
            if slot.conflicts > CONFLICTS_MAX {
                self.reject(slot, Reject::Contended, out);
            } else if slot.abandoned() {
                self.forget_id(&slot);
            } else {
                let (ticket, conflicts) = (slot.submission.ticket, slot.conflicts);
                self.queue_bytes += slot.submission.bytes;
                self.resting.push(slot);
                out.push(Output::Rest { ticket, conflicts });
            }
        }
        self.without(flight, first, out);
    }

    /// One request cannot be done until somebody mends the servers. Its callers are told, and
    /// nothing is logged, so that it can be done then; the others run again without it.
    pub(super) fn barred(&mut self, index: usize, out: &mut Vec<Output<P>>) {
        let Some(mut flight) = self.in_flight.take() else {
            return;
        };
        if index < flight.batch.slots.len() {
            let slot = flight.batch.slots.remove(index);
            self.reject(slot, Reject::Barred, out);
        }
        self.without(flight, index, out);
    }

    /// A request ran for too long. At first that may have been its neighbours' fault, or the
    /// machine's: it runs again, alone, and so do those of its neighbours that may be of its kind.
    pub(super) fn held(&mut self, index: usize, refusal: Refusal, out: &mut Vec<Output<P>>) {
        if !self.recovering {
            self.recovering = true;
            let (ticket, conflicts) = RECOVERY;
            out.push(Output::Rest { ticket, conflicts });
        }
        let Some(mut flight) = self.in_flight.take() else {
            return;
        };
        if let Some(slot) = flight.batch.slots.get_mut(index) {
            slot.held += 1;
            let loops = slot.submission.loops;
            if loops && !self.crowded {
                self.crowded = true;
                out.push(Output::AwaitLeft);
            }
            if slot.held >= if loops { HELD_LOOP_MAX } else { HELD_MAX } {
                self.in_flight = Some(flight);
                return self.refused(index, refusal, out);
            }
        }
        self.wary = WARY_BATCHES;
        let slots = std::mem::take(&mut flight.batch.slots);
        for (at, mut slot) in slots.into_iter().enumerate() {
            if at != index && slot.submission.touches.is_some() {
                flight.batch.slots.push(slot);
            } else if slot.abandoned() {
                self.forget_id(&slot);
            } else {
                slot.refused = None;
                self.queue_bytes += slot.submission.bytes;
                self.lone.push_back(slot);
            }
        }
        self.without(flight, 0, out);
    }

    /// Runs a batch again from which requests were taken out, the first of them at this place.
    fn without(&mut self, mut flight: InFlight<P>, first: usize, out: &mut Vec<Output<P>>) {
        for slot in flight.batch.slots.iter_mut().skip(first) {
            slot.refused = None;
        }
        flight.batch.attempt = 0;
        self.rerun(flight, out);
    }
}
