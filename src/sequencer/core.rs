//! The sequencer's decisions: which requests form the next batch, at which position, and what the
//! outcome of a batch means for each of them.
//!
//! Never does any IO and has no clock: inputs in, outputs out. Callers are known by their tickets;
//! reply channels stay with the task. The payload `P` is carried along unseen.

mod doubt;
mod lone;

use std::collections::{BTreeMap, VecDeque};

use super::arrange::arrange;
use super::steps::{Batch, Input, Output, Ran, Reject, Slot, Submission, Ticket};
use crate::model::limits;
use crate::model::order::{CLOCK_AHEAD_MAX, clock_is_at_its_end};
use crate::model::{BatchId, Digest, Epoch, Position, Refusal, RequestId};
use crate::mutants::{self, Mutant};

/// How many requests may be run again, over all attempts at one position, before the batch is cut.
/// A refusal aborts the whole transaction, so what stands before it must run again. A cut costs one
/// commit (about 5 ms) and a request that runs again about 0.4 ms; the sum is smallest near here.
const REDO_MAX: usize = 32;
/// How often in a row one request may meet another program's lock before it is sent back.
const CONFLICTS_MAX: u32 = 10;
/// How often one request may run for too long, with others and alone, before it is refused: MongoDB
/// counts the time in which the machine stalls.
const HELD_MAX: u32 = 3;
/// The same for one that may loop: it has run alone each time, and MongoDB goes on with it.
const HELD_LOOP_MAX: u32 = 2;
/// For so many batches after a request that ran for long, others whose work is not known beforehand
/// run alone from the first: a client that sends one such request sends more of them.
const WARY_BATCHES: u32 = 64;
/// The pause after a request that held up the others, before another runs alone: 512 ms. The first
/// one's ticket stands for it; no caller has that.
const RECOVERY: (Ticket, u32) = (Ticket::MAX, 9);
/// For so many batches after a request that came again, request ids are looked for beforehand: one
/// that the index finds costs the whole transaction.
const REPEATS_BATCHES: u32 = 64;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct InFlight<P> {
    batch: Batch<P>,
    /// How many requests were run again at this position.
    redone: usize,
    /// What to do once the position is known to be empty.
    repeated: bool,
    /// An attempt's outcome was not known at once.
    doubted: bool,
    /// An earlier attempt may stand, although the primary knew nothing of it.
    unproven: bool,
}

/// The state of the sequencer of one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Core<P> {
    serving: bool,
    epoch: Epoch,
    tail: Position,
    clock: i64,
    nonce: u64,
    batches: u64,
    queue: VecDeque<Slot<P>>,
    /// Those that run alone, between two batches of the queue.
    lone: VecDeque<Slot<P>>,
    /// Those that met a lock and wait for a moment before they run alone.
    resting: Vec<Slot<P>>,
    queue_bytes: usize,
    /// The last batch was one of the lone.
    lone_before: bool,
    wary: u32,
    /// A request has just held up the others: none runs alone until they have had their time.
    recovering: bool,
    /// MongoDB still computes on requests that were left to it: none that may loop runs until then.
    crowded: bool,
    /// For so many more batches, ids are looked for before the batch runs.
    repeats: u32,
    in_flight: Option<InFlight<P>>,
    /// Requests with a client's id that wait or run, by id, with their first ticket.
    by_id: BTreeMap<RequestId, Ticket>,
}

impl<P> Default for Core<P> {
    fn default() -> Self {
        Self {
            serving: false,
            epoch: Epoch::ZERO,
            tail: Position::ZERO,
            clock: 0,
            nonce: 0,
            batches: 0,
            queue: VecDeque::new(),
            lone: VecDeque::new(),
            resting: Vec::new(),
            queue_bytes: 0,
            lone_before: false,
            wary: 0,
            recovering: false,
            crowded: false,
            repeats: 0,
            in_flight: None,
            by_id: BTreeMap::new(),
        }
    }
}

impl<P: Clone> Core<P> {
    /// Takes one input and says what to do. The only way in.
    pub fn step(&mut self, input: Input<P>) -> Vec<Output<P>> {
        let mut out = Vec::new();
        match input {
            Input::Serve {
                epoch,
                tail,
                clock,
                nonce,
            } => self.serve(epoch, tail, clock, nonce, &mut out),
            Input::Submit(submission) => self.submit(submission, &mut out),
            Input::Withdraw(ticket) => self.withdraw(ticket, &mut out),
            Input::Rested(ticket) => self.rested(ticket, &mut out),
            Input::LeftEnded => {
                self.crowded = false;
                self.begin(&mut out);
            }
            Input::Ran(ran) => self.ran(ran, &mut out),
            Input::Resolved(resolved) => self.resolved(resolved, &mut out),
            Input::Looked(seen) => self.looked(&seen, &mut out),
            Input::Faulted => self.faulted(&mut out),
            Input::Depose => self.depose(&mut out),
        }
        debug_assert!(self.in_flight.is_none() || self.epoch > Epoch::ZERO);
        out
    }

    /// Whether nothing waits and nothing runs.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.waiting() == 0
    }

    /// How many requests wait.
    fn waiting(&self) -> usize {
        self.queue.len() + self.lone.len() + self.resting.len()
    }

    fn serve(
        &mut self,
        epoch: Epoch,
        tail: Position,
        clock: i64,
        nonce: u64,
        out: &mut Vec<Output<P>>,
    ) {
        debug_assert!(epoch > self.epoch && self.in_flight.is_none());
        self.serving = true;
        self.epoch = epoch;
        self.nonce = nonce;
        // A log that was repaired goes on before the end that it had.
        self.tail = self.tail.min(Position(tail.0 - 1));
        self.advance(tail, clock, false, out);
        self.begin(out);
    }

    fn submit(&mut self, submission: Submission<P>, out: &mut Vec<Output<P>>) {
        let ticket = submission.ticket;
        if let Some(why) = self.objection(&submission) {
            out.push(Output::Reject { ticket, why });
            return;
        }
        if submission.digest.is_some() {
            if let Some(first) = self.by_id.get(&submission.id).copied() {
                self.join(first, &submission, out);
                return;
            }
            self.by_id.insert(submission.id.clone(), ticket);
        }
        self.queue_bytes += submission.bytes;
        self.queue.push_back(Slot {
            submission,
            waiting: vec![ticket],
            stamp: 0,
            refused: None,
            conflicts: 0,
            held: 0,
        });
        self.begin(out);
    }

    fn objection(&self, submission: &Submission<P>) -> Option<Reject> {
        if !self.serving {
            return Some(Reject::NotCoordinator);
        }
        if submission.clock.saturating_sub(self.clock) > CLOCK_AHEAD_MAX {
            return Some(Reject::ClockAhead);
        }
        if clock_is_at_its_end(self.clock) {
            return Some(Reject::ClockAtEnd);
        }
        let full = self.waiting() >= limits::QUEUE_REQUESTS_MAX
            || self.queue_bytes.saturating_add(submission.bytes) > limits::QUEUE_BYTES_MAX;
        full.then_some(Reject::Full)
    }

    /// The same request again, while its first try waits or runs: one execution, two replies.
    fn join(&mut self, first: Ticket, again: &Submission<P>, out: &mut Vec<Output<P>>) {
        let ticket = again.ticket;
        let Some(slot) = self.slot_of(first) else {
            debug_assert!(false, "by_id names a ticket that no slot has");
            return;
        };
        if slot.submission.digest != again.digest {
            out.push(Output::Reject {
                ticket,
                why: Reject::IdReused,
            });
        } else if slot.waiting.len() >= limits::QUEUE_REQUESTS_MAX {
            out.push(Output::Reject {
                ticket,
                why: Reject::Full,
            });
        } else {
            slot.waiting.push(ticket);
        }
    }

    fn slot_of(&mut self, first: Ticket) -> Option<&mut Slot<P>> {
        let running = self.in_flight.iter_mut().flat_map(|f| &mut f.batch.slots);
        running
            .chain(&mut self.queue)
            .chain(&mut self.lone)
            .chain(&mut self.resting)
            .find(|slot| slot.submission.ticket == first)
    }

    fn withdraw(&mut self, ticket: Ticket, out: &mut Vec<Output<P>>) {
        let mut waiting = (self.queue.iter_mut())
            .chain(&mut self.lone)
            .chain(&mut self.resting);
        if waiting.any(|slot| slot.withdraw(ticket)) {
            self.drop_abandoned();
            let why = Reject::Expired;
            out.push(Output::Reject { ticket, why });
            return;
        }
        let mut running = self.in_flight.iter_mut().flat_map(|f| &mut f.batch.slots);
        if running.any(|slot| slot.withdraw(ticket)) {
            let why = Reject::Unknown;
            out.push(Output::Reject { ticket, why });
        }
    }

    fn ran(&mut self, ran: Ran, out: &mut Vec<Output<P>>) {
        if self.needs_proof(&ran) {
            return self.prove(out);
        }
        match ran {
            Ran::Committed { count } => self.settle(count, out),
            Ran::Refused { index, refusal } => self.refused(index, refusal, out),
            Ran::Contended { first, count } => self.contended(first, count, out),
            Ran::Barred { index } => self.barred(index, out),
            Ran::Held { index, refusal } => self.held(index, refusal, out),
            Ran::Oversized => self.oversized(out),
            Ran::Clash => {
                if let Some(flight) = &mut self.in_flight {
                    flight.repeated = false;
                    out.push(Output::Resolve(flight.batch.clone()));
                }
            }
            Ran::Doubt { repeated } => {
                if repeated {
                    self.repeats = REPEATS_BATCHES;
                }
                if let Some(flight) = &mut self.in_flight {
                    flight.repeated = repeated;
                    flight.doubted |= !repeated;
                    out.push(Output::Resolve(flight.batch.clone()));
                }
            }
        }
    }

    /// The first `count` requests are in the log; the others go back to the head of the queue.
    fn settle(&mut self, count: usize, out: &mut Vec<Output<P>>) {
        let Some(flight) = self.in_flight.take() else {
            return;
        };
        let mut batch = flight.batch;
        let rest = batch.slots.split_off(count.min(batch.slots.len()));
        let clock = batch.slots.last().map_or(self.clock, |slot| slot.stamp);
        self.advance(batch.position, clock, false, out);
        for (index, slot) in batch.slots.into_iter().enumerate() {
            self.forget_id(&slot);
            for ticket in slot.waiting {
                out.push(Output::Answer {
                    ticket,
                    index,
                    stamp: slot.stamp,
                    position: batch.position,
                });
            }
        }
        self.requeue(rest);
        self.turn_away(out);
        self.begin(out);
    }

    /// One request's refusal is its definite answer. The others run again without it; when that
    /// has become expensive, the batch ends with this request and the rest forms a new one.
    fn refused(&mut self, index: usize, refusal: Refusal, out: &mut Vec<Output<P>>) {
        let Some(mut flight) = self.in_flight.take() else {
            return;
        };
        let slots = &mut flight.batch.slots;
        if let Some(slot) = slots.get_mut(index) {
            slot.refused = Some(refusal);
        }
        // A refusal further on was judged after this request had succeeded. It did not now.
        for slot in slots.iter_mut().skip(index + 1) {
            slot.refused = None;
        }
        flight.redone += slots[..index]
            .iter()
            .filter(|s| s.refused.is_none())
            .count();
        if flight.redone > REDO_MAX {
            let rest = slots.split_off(index + 1);
            self.requeue(rest);
        }
        flight.batch.attempt = 0;
        self.rerun(flight, out);
    }

    /// Half of the batch may fit into a log document. The store refuses a lone request that does
    /// not.
    fn oversized(&mut self, out: &mut Vec<Output<P>>) {
        let Some(mut flight) = self.in_flight.take() else {
            return;
        };
        let slots = &mut flight.batch.slots;
        let rest = slots.split_off(slots.len().div_ceil(2));
        self.requeue(rest);
        self.rerun(flight, out);
    }

    /// Ids of the batch are in the log from an earlier try: these requests get the stored answer,
    /// the others run again without them.
    fn looked(&mut self, seen: &[(usize, Option<Digest>)], out: &mut Vec<Output<P>>) {
        let Some(mut flight) = self.in_flight.take() else {
            return;
        };
        flight.repeated = false;
        if seen.is_empty() {
            self.in_flight = Some(flight);
            return self.again(out);
        }
        let mut kept = Vec::new();
        for (index, mut slot) in flight.batch.slots.into_iter().enumerate() {
            let Some((_, digest)) = seen.iter().find(|(at, _)| *at == index) else {
                slot.refused = None;
                kept.push(slot);
                continue;
            };
            if *digest != slot.submission.digest {
                self.reject(slot, Reject::IdReused, out);
                continue;
            }
            self.repeats = REPEATS_BATCHES;
            self.forget_id(&slot);
            for ticket in slot.waiting {
                out.push(Output::Replay { ticket, index });
            }
        }
        flight.batch.slots = kept;
        self.rerun(flight, out);
    }

    /// The position is empty and nothing else is known to be wrong: the same batch once more,
    /// without the requests that nobody waits for.
    /// A guest took the position: everything of the batch is decided anew after it.
    fn rebuild(&mut self, out: &mut Vec<Output<P>>) {
        if let Some(flight) = self.in_flight.take() {
            let alone = flight.batch.alone;
            self.requeue(flight.batch.slots);
            if alone {
                self.lone.extend(self.queue.pop_front());
            }
        }
        self.turn_away(out);
        self.begin(out);
    }

    fn begin(&mut self, out: &mut Vec<Output<P>>) {
        if !self.serving || self.in_flight.is_some() {
            return;
        }
        let mut slots = Vec::new();
        if self.lone_before || self.next_lone().is_none() {
            slots = self.take_shared();
        }
        let mut alone = false;
        if slots.is_empty() {
            slots.extend(self.take_lone());
            alone = !slots.is_empty();
        }
        if slots.is_empty() {
            slots = self.take_shared();
        }
        if slots.is_empty() {
            return;
        }
        self.lone_before = alone;
        let mut slots = arrange(slots, |slot| slot.submission.touches.as_ref());
        let mut clock = self.clock;
        for slot in &mut slots {
            clock = clock.max(slot.submission.clock) + 1;
            slot.stamp = clock;
        }
        let batch = Batch {
            position: self.tail.next(),
            epoch: self.epoch,
            id: self.next_batch_id(),
            slots,
            alone,
            attempt: 1,
        };
        let may_repeat = |slot: &Slot<P>| slot.submission.digest.is_some();
        let looks = self.repeats > 0 && batch.slots.iter().any(may_repeat);
        self.repeats = self.repeats.saturating_sub(1);
        out.push(match looks {
            true => Output::Look(batch.clone()),
            false => Output::Run(batch.clone()),
        });
        self.in_flight = Some(InFlight {
            batch,
            redone: 0,
            repeated: false,
            doubted: false,
            unproven: false,
        });
    }

    /// Takes the requests of the next batch out of the queue.
    fn take_shared(&mut self) -> Vec<Slot<P>> {
        let mut slots = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.queue.front() {
            let fits = bytes + next.submission.bytes <= limits::BATCH_BYTES_MAX;
            if slots.len() >= limits::BATCH_REQUESTS_MAX || (!fits && !slots.is_empty()) {
                break;
            }
            let Some(slot) = self.queue.pop_front() else {
                break;
            };
            let wary = self.wary > 0 && slot.submission.touches.is_none();
            let loops = slot.submission.loops && !mutants::active(Mutant::LoopsShare);
            if wary || loops {
                self.lone.push_back(slot);
                continue;
            }
            bytes += slot.submission.bytes;
            self.queue_bytes -= slot.submission.bytes;
            slots.push(slot);
        }
        self.wary = self.wary.saturating_sub(u32::from(!slots.is_empty()));
        slots
    }

    /// Where an attempt was in doubt before, the log cannot be asked any more how it ended.
    fn faulted(&mut self, out: &mut Vec<Output<P>>) {
        let doubted = self.in_flight.as_ref().is_some_and(|flight| flight.doubted);
        let why = match doubted {
            true => Reject::Unknown,
            false => Reject::LogFault,
        };
        self.depose(out);
        self.reject_in_flight(why, out);
    }

    fn depose(&mut self, out: &mut Vec<Output<P>>) {
        self.serving = false;
        self.turn_away(out);
    }

    /// Turns the queue away if this node no longer serves.
    fn turn_away(&mut self, out: &mut Vec<Output<P>>) {
        if self.serving {
            return;
        }
        let queued = std::mem::take(&mut self.queue).into_iter();
        let lone = std::mem::take(&mut self.lone);
        let resting = std::mem::take(&mut self.resting);
        for slot in queued.chain(lone).chain(resting) {
            self.reject(slot, Reject::NotCoordinator, out);
        }
        self.queue_bytes = 0;
    }

    fn reject_in_flight(&mut self, why: Reject, out: &mut Vec<Output<P>>) {
        let Some(flight) = self.in_flight.take() else {
            return;
        };
        for slot in flight.batch.slots {
            self.reject(slot, why, out);
        }
    }

    fn reject(&mut self, slot: Slot<P>, why: Reject, out: &mut Vec<Output<P>>) {
        self.forget_id(&slot);
        let rejects = slot.waiting.into_iter();
        out.extend(rejects.map(|ticket| Output::Reject { ticket, why }));
    }

    fn requeue(&mut self, slots: Vec<Slot<P>>) {
        for mut slot in slots.into_iter().rev() {
            if slot.abandoned() {
                self.forget_id(&slot);
                continue;
            }
            slot.refused = None;
            self.queue_bytes += slot.submission.bytes;
            self.queue.push_front(slot);
        }
    }

    fn advance(&mut self, tail: Position, clock: i64, guest: bool, out: &mut Vec<Output<P>>) {
        debug_assert!(tail > self.tail && clock >= self.clock);
        self.tail = tail;
        self.clock = self.clock.max(clock);
        out.push(Output::Advanced {
            tail,
            clock: self.clock,
            guest,
        });
    }

    fn next_batch_id(&mut self) -> BatchId {
        self.batches += 1;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.nonce.to_be_bytes());
        bytes[8..].copy_from_slice(&self.batches.to_be_bytes());
        BatchId::from_bytes(bytes)
    }

    fn forget_id(&mut self, slot: &Slot<P>) {
        if slot.submission.digest.is_some() {
            self.by_id.remove(&slot.submission.id);
        }
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
