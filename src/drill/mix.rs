//! What the load asks for: the operation of each number, drawn from the seed.

use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::{Value, json};

use super::dice::Dice;
use crate::check::history::Op;

/// Documents that are written again and again; their keys are 0 and up.
pub const REGISTERS: i64 = 64;
/// No value of a register is known.
const UNKNOWN: i64 = -1;

/// One operation, before it is known which client runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action {
    pub op: Op,
    pub key: i64,
    /// What is written; unique in the run.
    pub value: i64,
    /// What a compare-and-set compares with.
    pub from: i64,
}

impl Action {
    pub const fn read(key: i64) -> Self {
        Self {
            op: Op::Read,
            key,
            value: 0,
            from: 0,
        }
    }

    /// The value of its line in the history.
    pub fn shown_value(&self) -> Value {
        match self.op {
            Op::Insert | Op::Put | Op::Update => self.value.into(),
            Op::Cas => json!([self.from, self.value]),
            Op::Delete | Op::Read => Value::Null,
        }
    }
}

/// Draws operations. What the registers held when a client last knew makes most
/// compare-and-sets match.
#[derive(Debug)]
pub struct Mix {
    seed: u64,
    registers: Vec<AtomicI64>,
}

impl Mix {
    pub fn new(seed: u64) -> Self {
        let unknown = || AtomicI64::new(UNKNOWN);
        Self {
            seed,
            registers: (0..REGISTERS).map(|_| unknown()).collect(),
        }
    }

    /// Operation `number` of the run. In 100: 20 put, 20 update, 20 insert, 10 compare and set, 2
    /// delete, 28 read.
    pub fn action(&self, number: u64) -> Action {
        let mut dice = Dice::part(self.seed, number);
        let number = i64::try_from(number).unwrap_or(i64::MAX - REGISTERS);
        let drawn = dice.below(100);
        let register = i64::try_from(dice.below(REGISTERS as u64)).unwrap_or(0);
        let (op, key) = match drawn {
            0..20 => (Op::Put, register),
            20..40 => (Op::Update, register),
            40..60 => (Op::Insert, REGISTERS + number),
            60..70 => (Op::Cas, register),
            70..72 => (Op::Delete, register),
            _ => (Op::Read, register),
        };
        Action {
            op,
            key,
            value: number + 1,
            from: self.known(key),
        }
    }

    /// A client has learnt what a register holds.
    pub fn learn(&self, key: i64, value: Option<i64>) {
        if let Some(register) = self.register(key) {
            register.store(value.unwrap_or(UNKNOWN), Ordering::Relaxed);
        }
    }

    fn known(&self, key: i64) -> i64 {
        self.register(key)
            .map_or(UNKNOWN, |register| register.load(Ordering::Relaxed))
    }

    fn register(&self, key: i64) -> Option<&AtomicI64> {
        self.registers.get(usize::try_from(key).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_value_and_every_inserted_key_comes_once() {
        let mix = Mix::new(3);
        let actions: Vec<_> = (0..10_000).map(|number| mix.action(number)).collect();
        let values: BTreeSet<_> = actions.iter().map(|action| action.value).collect();
        assert_eq!(values.len(), actions.len());
        assert!(!values.contains(&0) && !values.contains(&UNKNOWN));
        let inserted: Vec<_> = actions.iter().filter(|a| a.op == Op::Insert).collect();
        let keys: BTreeSet<_> = inserted.iter().map(|action| action.key).collect();
        assert_eq!(keys.len(), inserted.len());
        assert!(keys.iter().all(|key| *key >= REGISTERS));
        assert!(
            (1_800..2_200).contains(&inserted.len()),
            "{}",
            inserted.len()
        );
    }

    #[test]
    fn a_compare_and_set_compares_with_what_was_learnt() {
        let mix = Mix::new(3);
        for key in 0..REGISTERS {
            mix.learn(key, Some(1_000 + key));
        }
        let cas = (0..)
            .map(|number| mix.action(number))
            .find(|a| a.op == Op::Cas);
        let cas = cas.unwrap();
        assert_eq!(cas.shown_value(), json!([1_000 + cas.key, cas.value]));
    }
}
