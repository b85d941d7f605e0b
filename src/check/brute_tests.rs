//! The checker beside a search through all orders, on small histories: it must say the same of each.

use super::history::{Op, Operation, Outcome};
use super::*;
use serde_json::{Value, json};

/// Histories that are tried. Each costs a fraction of a millisecond.
const HISTORIES: u64 = 40_000;

/// A cheap source of choices.
pub(super) struct Choices(u64);

impl Choices {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

pub(super) fn text(operations: &[Operation]) -> String {
    let line = |operation| serde_json::to_string(operation).unwrap() + "\n";
    operations.iter().map(line).collect()
}

pub(super) fn found(operations: &[Operation]) -> Findings {
    check(text(operations).as_bytes(), None::<&[u8]>).unwrap()
}

/// What an operation answers, and what it leaves.
pub(super) fn apply(op: Op, value: &Value, before: &Value) -> (Option<Value>, Value) {
    let exists = !before.is_null();
    let keep = before.clone();
    match op {
        Op::Insert if exists => (None, keep),
        Op::Insert => (Some(Value::Null), value.clone()),
        Op::Put => (Some(json!(u8::from(exists))), value.clone()),
        Op::Update if exists => (Some(json!(1)), value.clone()),
        Op::Update => (Some(json!(0)), keep),
        Op::Delete => (Some(json!(u8::from(exists))), Value::Null),
        Op::Cas if *before == value[0] => (Some(json!(1)), value[1].clone()),
        Op::Cas => (Some(json!(0)), keep),
        Op::Read => (Some(keep.clone()), keep),
    }
}

/// A history that happened, of a few operations that overlap, on one key or two. Some writes have an
/// unknown outcome, and of these some have not happened.
pub(super) fn simulated(choices: &mut Choices, unknown_one_in: u64) -> Vec<Operation> {
    simulated_with_log(choices, unknown_one_in).0
}

/// The same, and its log: a position for each write.
pub(super) fn simulated_with_log(
    choices: &mut Choices,
    unknown_one_in: u64,
) -> (Vec<Operation>, Vec<Value>) {
    let keys = 1 + choices.below(2);
    let count = 2 + choices.below(6);
    let mut state = vec![Value::Null; 2];
    let mut stamp = 1;
    let mut operations = Vec::new();
    let mut log =
        vec![json!({"_id": 1, "epoch": 1, "kind": "claim", "first": 1, "last": 1, "entries": []})];
    for number in 0..count {
        let key = choices.below(keys);
        let op = [
            Op::Insert,
            Op::Put,
            Op::Update,
            Op::Delete,
            Op::Cas,
            Op::Read,
            Op::Read,
        ][usize::try_from(choices.below(7)).unwrap()];
        let own = json!(100 + number);
        let before = state[usize::try_from(key).unwrap()].clone();
        let value = match op {
            Op::Cas if before.is_null() || choices.one_in(3) => {
                json!([100 + choices.below(count), own])
            }
            Op::Cas => json!([before, own]),
            Op::Delete | Op::Read => Value::Null,
            _ => own,
        };
        let unknown = op != Op::Read && choices.one_in(unknown_one_in);
        let happens = !unknown || !choices.one_in(3);
        let (answer, after) = apply(op, &value, &before);
        if happens {
            state[usize::try_from(key).unwrap()] = after;
            stamp += u64::from(op != Op::Read);
        }
        if happens && op != Op::Read {
            let mut entry = json!({"t": stamp, "n": "n1", "id": format!("r{number}"), "ns": "a.b",
                "op": "any", "keys": [key]});
            match &answer {
                Some(result) if *result == 0 && op != Op::Put => entry["keys"] = json!([]),
                Some(_) => (),
                None => entry["error"] = json!({"code": 11000}),
            }
            log.push(
                json!({"_id": stamp, "epoch": 1, "kind": "batch", "first": stamp,
                "last": stamp, "entries": [entry]}),
            );
        }
        let point = 1_000 + 10 * number;
        let invoke_ns = point - choices.below(25);
        let mut return_ns = point + choices.below(25);
        if unknown {
            return_ns = invoke_ns + choices.below(30);
        }
        let (outcome, result) = match answer {
            _ if unknown => (Outcome::Unknown, json!("no answer")),
            Some(result) => (Outcome::Ok, result),
            None => (Outcome::Fail, json!("duplicate key")),
        };
        let place = (!unknown).then(|| i64::try_from(stamp).unwrap());
        operations.push(Operation {
            process: u32::try_from(number).unwrap(),
            request: (op != Op::Read).then(|| format!("r{number}")),
            op,
            key: json!(key),
            value,
            invoke_ns,
            return_ns,
            outcome,
            result,
            stamp: place,
            position: place,
        });
    }
    (operations, log)
}

/// Makes a mistake, which may be one that changes nothing.
pub(super) fn mutate(choices: &mut Choices, operations: &mut Vec<Operation>) {
    let count = operations.len() as u64;
    let at = usize::try_from(choices.below(count)).unwrap();
    let other = usize::try_from(choices.below(count)).unwrap();
    let value = json!(100 + choices.below(count));
    let acknowledged = operations[at].outcome == Outcome::Ok;
    match choices.below(6) {
        0 => {
            operations.remove(at);
        }
        1 => {
            let (one, two) = (operations[at].stamp, operations[other].stamp);
            for (index, stamp) in [(at, two), (other, one)] {
                if operations[index].stamp.is_some() && stamp.is_some() {
                    operations[index].stamp = stamp;
                    operations[index].position = stamp;
                }
            }
        }
        2 if acknowledged => {
            operations[at].result = match operations[at].op {
                Op::Read if choices.one_in(4) => Value::Null,
                Op::Read => value,
                Op::Insert => return,
                _ => json!(choices.below(2)),
            };
        }
        3 if operations[at].op == Op::Read && acknowledged => {
            let stamp = Some(i64::try_from(1 + choices.below(count)).unwrap());
            operations[at].stamp = stamp;
            operations[at].position = stamp;
        }
        4 => {
            let shift = 5 + choices.below(40);
            operations[at].invoke_ns += shift;
            operations[at].return_ns += shift;
        }
        _ => {
            let shift = 5 + choices.below(40);
            operations[at].invoke_ns -= shift;
            operations[at].return_ns -= shift;
        }
    }
}

/// Whether some order explains the history, by trying them all. The order of those that have a
/// stamp is that of their stamps; an unknown one stands between two stamps, or nowhere.
fn possible(operations: &[Operation]) -> bool {
    let mut stamped: Vec<_> = operations
        .iter()
        .filter(|operation| operation.stamp.is_some())
        .collect();
    stamped.sort_by_key(|operation| (operation.stamp, operation.op == Op::Read));
    let write = |operation: &&&Operation| operation.op != Op::Read;
    let writes: Vec<_> = stamped.iter().filter(write).map(|o| o.stamp).collect();
    if writes.windows(2).any(|two| two[0] == two[1]) {
        return false;
    }
    let open: Vec<_> = operations
        .iter()
        .filter(|operation| operation.outcome == Outcome::Unknown)
        .collect();
    place(&stamped, &open)
}

fn place(order: &[&Operation], open: &[&Operation]) -> bool {
    let Some((next, rest)) = open.split_first() else {
        return explains(order);
    };
    if place(order, rest) {
        return true;
    }
    (0..=order.len()).any(|at| {
        let inside = at > 0
            && order
                .get(at)
                .is_some_and(|after| after.stamp.is_some() && after.stamp == order[at - 1].stamp);
        if inside {
            return false;
        }
        let mut longer = order.to_vec();
        longer.insert(at, next);
        place(&longer, rest)
    })
}

fn explains(order: &[&Operation]) -> bool {
    let unordered = |one: &Operation, other: &Operation| {
        one.op == Op::Read && other.op == Op::Read && one.stamp == other.stamp
    };
    for (at, one) in order.iter().enumerate() {
        for later in &order[at + 1..] {
            let answered = later.outcome != Outcome::Unknown;
            if answered && later.return_ns < one.invoke_ns && !unordered(one, later) {
                return false;
            }
        }
    }
    let mut state = vec![Value::Null; 2];
    order.iter().all(|operation| {
        let key = usize::try_from(operation.key.as_u64().unwrap()).unwrap();
        let (answer, after) = apply(operation.op, &operation.value, &state[key]);
        state[key] = after;
        match operation.outcome {
            Outcome::Unknown => true,
            Outcome::Fail => answer.is_none(),
            Outcome::Ok => answer.as_ref() == Some(&operation.result),
        }
    })
}

#[test]
fn what_happened_is_possible() {
    for seed in 0..HISTORIES / 4 {
        let operations = simulated(&mut Choices::new(seed), 3);
        let findings = found(&operations);
        assert!(
            findings.hold(),
            "seed {seed}: {findings:#?}\n{}",
            text(&operations)
        );
    }
}

#[test]
fn the_checker_and_the_search_through_all_orders_agree() {
    let mut impossible = 0;
    for seed in 0..HISTORIES {
        let mut choices = Choices::new(seed);
        let unknown_one_in = 2 + seed % 3;
        let mut operations = simulated(&mut choices, unknown_one_in);
        for _ in 0..=choices.below(3) {
            mutate(&mut choices, &mut operations);
            if operations.is_empty() {
                break;
            }
        }
        if operations.is_empty() {
            continue;
        }
        let possible = possible(&operations);
        impossible += u64::from(!possible);
        let findings = found(&operations);
        assert_eq!(
            findings.hold(),
            possible,
            "seed {seed}: {findings:#?}\n{}",
            text(&operations)
        );
    }
    // Else nothing was tried.
    assert!(
        (HISTORIES / 10..HISTORIES * 9 / 10).contains(&impossible),
        "{impossible}"
    );
}
