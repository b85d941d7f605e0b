//! Seeded schedules against a log in memory.

use std::collections::{BTreeMap, VecDeque};

use super::*;

/// A replica set in a few lines: a log that takes one batch a position, and faults drawn by seed.
struct World {
    random: u64,
    log: Vec<(BatchId, Vec<(Ticket, i64)>)>,
    epoch: Epoch,
    clock: i64,
}

impl World {
    fn draw(&mut self, below: u64) -> u64 {
        // xorshift64*: https://doi.org/10.18637/jss.v008.i14
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below
    }

    fn tail(&self) -> Position {
        Position(self.log.len() as i64)
    }

    fn append(&mut self, batch: BatchId, entries: Vec<(Ticket, i64)>) {
        for (_, stamp) in &entries {
            assert!(*stamp > self.clock, "I3: stamps increase");
            self.clock = *stamp;
        }
        self.log.push((batch, entries));
    }

    /// Commits the batch if its position is free, whatever the core is told about it.
    fn run(&mut self, batch: &Batch<()>) -> Ran {
        let doubt = Ran::Doubt { repeated: false };
        if batch.position != self.tail().next() {
            // A primary of yesterday may refuse, or meet a lock, where the batch stands already.
            return match self.draw(4) {
                0 => Ran::Contended { first: 0, count: 1 },
                1 if batch.slots[0].refused.is_none() => Ran::Refused {
                    index: 0,
                    refusal: refusal(),
                },
                _ => doubt,
            };
        }
        if self.draw(6) == 0 {
            self.append(
                BatchId::from_bytes([0xee; 16]),
                vec![(u64::MAX, self.clock + 1)],
            );
            return doubt;
        }
        let count = batch.slots.len();
        let index = self.draw(count as u64) as usize;
        match self.draw(11) {
            0 => doubt,
            1 if batch.slots[index].refused.is_none() => Ran::Refused {
                index,
                refusal: refusal(),
            },
            2 => Ran::Contended {
                first: index,
                count: 1 + self.draw((count - index) as u64) as usize,
            },
            4 => Ran::Barred { index },
            5 => Ran::Held {
                index,
                refusal: refusal(),
            },
            fate => {
                let count = if fate == 3 { index + 1 } else { count };
                let slots = batch.slots[..count].iter();
                let entries = slots.map(|slot| (slot.submission.ticket, slot.stamp));
                self.append(batch.id, entries.collect());
                if fate >= 9 {
                    doubt
                } else {
                    Ran::Committed { count }
                }
            }
        }
    }

    /// A primary of yesterday knows of nothing, whatever stands there.
    fn resolve(&mut self, batch: &Batch<()>, proven: bool) -> Resolved {
        if !proven && self.draw(2) == 0 {
            return Resolved::Vacant;
        }
        match self.log.get(batch.position.0 as usize - 1) {
            None => Resolved::Absent,
            Some((id, entries)) if *id == batch.id => Resolved::Mine {
                count: entries.len(),
            },
            Some(_) if self.epoch > batch.epoch => Resolved::Fenced,
            Some(_) => Resolved::Guest {
                tail: self.tail(),
                clock: self.clock,
            },
        }
    }
}

/// One schedule: whatever happens, each caller gets one reply, an answer means one place in the
/// log, and a rejection other than [`Reject::Unknown`] means none.
fn schedule(seed: u64) {
    let mut world = World {
        random: seed | 1,
        log: vec![(BatchId::from_bytes([0; 16]), Vec::new())],
        epoch: Epoch(1),
        clock: 1,
    };
    let mut core = serving();
    let mut pending = VecDeque::new();
    let mut replies: BTreeMap<Ticket, Option<Reject>> = BTreeMap::new();
    let mut resting = VecDeque::new();
    for step in 1..400_u64 {
        let input = match world.draw(4) {
            0 => submit(step),
            3 => match resting.pop_front() {
                Some(ticket) => Input::Rested(ticket),
                None => continue,
            },
            1 if world.draw(12) == 0 => Input::Withdraw(world.draw(step) + 1),
            _ => match pending.pop_front() {
                Some(Output::Run(batch)) => Input::Ran(world.run(&batch)),
                Some(Output::Resolve(batch)) => Input::Resolved(world.resolve(&batch, false)),
                Some(Output::Prove(batch)) => Input::Resolved(world.resolve(&batch, true)),
                _ => continue,
            },
        };
        for output in core.step(input) {
            let (ticket, reply) = match output {
                Output::Answer { ticket, .. } => (ticket, None),
                Output::Reject { ticket, why } => (ticket, Some(why)),
                Output::Advanced { .. } => continue,
                Output::Rest { ticket, .. } => {
                    resting.push_back(ticket);
                    continue;
                }
                work => {
                    pending.push_back(work);
                    assert_eq!(pending.len(), 1, "one piece of work at a time");
                    continue;
                }
            };
            assert_eq!(
                replies.insert(ticket, reply),
                None,
                "two replies for {ticket}"
            );
        }
    }
    for (ticket, reply) in &replies {
        let entries = world.log.iter().flat_map(|(_, entries)| entries);
        let places = entries.filter(|(logged, _)| logged == ticket).count();
        match reply {
            None => assert_eq!(places, 1, "seed {seed}: {ticket} was answered"),
            Some(Reject::Unknown) => assert!(places <= 1, "seed {seed}: {ticket} twice"),
            Some(why) => assert_eq!(places, 0, "seed {seed}: {ticket} was rejected: {why:?}"),
        }
    }
}

#[test]
fn seeded_schedules_lose_double_and_reorder_nothing() {
    for seed in 1..3_000_u64 {
        schedule(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    }
}
