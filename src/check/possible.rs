//! What a key may hold, given what its clients were told and the writes of unknown outcome.
//!
//! A write of unknown outcome may happen at most once, at any place after its earliest one, or never.
//! It is taken to happen only where a reply needs it, and as few as possible at a time. That loses no
//! possibility: whatever happened earlier without being needed could as well happen later, or was
//! overwritten unseen and need not have happened at all. So the set of [`State`]s that are kept is
//! empty only if no order explains the replies, and that is exact.

use std::collections::HashMap;

use super::digest::NONE;
use super::history::Op;
use super::line::{Deed, Told};

/// Possible states of one key at a time. Past it nothing is decided about the key.
const STATES_MAX: usize = 512;
/// Unknown writes of one key at a time. The same.
const OPEN_MAX: usize = 1 << 16;
/// Unknown writes that one reply may need, one after the other. The same.
const CHAIN_MAX: usize = 64;
/// Unknown writes that are tried for one reply. The same: there may be exponentially many ways that lead
/// nowhere.
const TRIES_MAX: usize = 1 << 20;
/// After a contradiction any value may be stored, so that it is told once.
const ANY: u64 = u64::MAX;

/// What a key may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    /// [`NONE`] if there is no document.
    value: u64,
    /// The line of the write that left it so; 0 at the beginning.
    line: u64,
    /// The unknown writes that happened in it, sorted.
    used: Vec<u32>,
}

impl State {
    const EMPTY: Self = Self {
        value: NONE,
        line: 0,
        used: Vec::new(),
    };

    fn exists(&self) -> bool {
        self.value != NONE
    }
}

/// What a reply says of the state before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    Absent,
    Present,
    Value(u64),
    Not(u64),
    /// No state has such a reply.
    Impossible,
}

impl Need {
    fn of(deed: &Deed) -> Self {
        match (deed.op, deed.told) {
            (_, Told::Nothing) => Self::Nothing,
            (Op::Read, _) if deed.value == NONE => Self::Absent,
            (Op::Read, _) => Self::Value(deed.value),
            (Op::Insert, Told::Refused) => Self::Present,
            (_, Told::Refused) => Self::Impossible,
            (Op::Insert, _) => Self::Absent,
            (Op::Cas, Told::One) => Self::Value(deed.value),
            (Op::Cas, Told::Zero) => Self::Not(deed.value),
            (_, Told::One) => Self::Present,
            (_, Told::Zero) => Self::Absent,
        }
    }

    /// What an unknown write needs to have its effect.
    fn to_apply(deed: &Deed) -> Self {
        match deed.op {
            Op::Put => Self::Nothing,
            _ => Self::of(&done(*deed)),
        }
    }

    fn met(self, value: u64) -> bool {
        value == ANY && self != Self::Impossible
            || match self {
                Self::Nothing => true,
                Self::Absent => value == NONE,
                Self::Present => value != NONE,
                Self::Value(wanted) => value == wanted,
                Self::Not(other) => value != other,
                Self::Impossible => false,
            }
    }
}

/// The value after an operation on a document that met its need.
fn after(deed: &Deed, before: u64) -> u64 {
    let exists = before != NONE;
    match deed.op {
        // The reply says more than a state that may be any.
        Op::Read if deed.told == Told::One => deed.value,
        Op::Read => before,
        Op::Insert if deed.told == Told::Refused || deed.told == Told::Nothing && exists => before,
        Op::Update if deed.told == Told::Zero || deed.told == Told::Nothing && !exists => before,
        Op::Cas if deed.told == Told::Zero => before,
        Op::Cas if deed.told == Told::Nothing && before != deed.value => before,
        Op::Insert | Op::Put | Op::Update => deed.value,
        Op::Cas => deed.to,
        Op::Delete => NONE,
    }
}

/// Why a reply is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// No state explains it. The line of the write before it in the likeliest one, 0 if there is none, and
    /// whether that left a document.
    Contradiction { line: u64, exists: bool },
    /// There are too many possibilities.
    Undecided,
}

/// What is left of [`TRIES_MAX`].
struct Tries(usize);

impl Tries {
    fn take(&mut self, count: usize) -> Result<(), Wrong> {
        self.0 = self.0.checked_sub(count).ok_or(Wrong::Undecided)?;
        Ok(())
    }
}

/// An unknown write.
#[derive(Debug, Clone, Copy)]
struct Open {
    deed: Deed,
    line: u64,
}

/// One key.
#[derive(Debug)]
pub(super) struct Possible {
    states: Vec<State>,
    open: Vec<Open>,
    /// Those that leave this value, by their index in `open`.
    leaving: HashMap<u64, Vec<u32>>,
    /// Those that are no deletions. The ones that are cannot be told apart: the first will do.
    setting: Vec<u32>,
    deleting: Vec<u32>,
}

impl Possible {
    pub(super) fn new() -> Self {
        Self {
            states: vec![State::EMPTY],
            open: Vec::new(),
            leaving: HashMap::new(),
            setting: Vec::new(),
            deleting: Vec::new(),
        }
    }

    /// Back to a key that nobody has touched.
    pub(super) fn clear(&mut self) {
        self.states.truncate(1);
        match self.states.first_mut() {
            Some(state) => state.clone_from(&State::EMPTY),
            None => self.states.push(State::EMPTY),
        }
        if !self.open.is_empty() {
            *self = Self::new();
        }
    }

    /// A write of unknown outcome may happen from here on.
    pub(super) fn may_happen(&mut self, deed: Deed, line: u64) -> Result<(), Wrong> {
        let index = self.open.len();
        if index >= OPEN_MAX {
            return Err(Wrong::Undecided);
        }
        let index = u32::try_from(index).map_err(|_| Wrong::Undecided)?;
        self.open.push(Open { deed, line });
        if deed.op == Op::Delete {
            self.deleting.push(index);
        } else {
            self.setting.push(index);
            let leaves = after(&done(deed), deed.value);
            self.leaving.entry(leaves).or_default().push(index);
        }
        Ok(())
    }

    /// An operation at its place in the order. `same` is the one before if it has the same stamp: no
    /// unknown write stands between them.
    pub(super) fn happened(
        &mut self,
        deed: &Deed,
        line: u64,
        same: Option<&Deed>,
    ) -> Result<(), Wrong> {
        let need = Need::of(deed);
        let before = same.map_or(Need::Nothing, Need::of);
        // Its reply leaves one value, or several: then this one tells which it was. 0 means that no unknown
        // write may be taken to happen, as it would stand between the two.
        let chain_max = match before {
            Need::Nothing | Need::Not(_) => CHAIN_MAX,
            Need::Present if same.is_some_and(|deed| deed.told == Told::Refused) => CHAIN_MAX,
            _ => 0,
        };
        if let [state] = self.states.as_mut_slice()
            && need.met(state.value)
        {
            leave(state, deed, line);
            return Ok(());
        }
        let mut met = Vec::new();
        let mut tries = Tries(TRIES_MAX);
        for state in &self.states {
            if chain_max > 0 || need.met(state.value) {
                self.reach(state, need, chain_max, &mut tries, &mut met)?;
            }
        }
        // The unknown writes stand before both operations, so the first one's reply must be right too.
        met.retain(|state| before.met(state.value) || chain_max == 0);
        if met.is_empty() {
            return Err(self.contradiction(deed, line));
        }
        for state in &mut met {
            leave(state, deed, line);
        }
        self.states = distinct(met);
        self.retire();
        Ok(())
    }

    /// Adds the states that meet the need and come from this one by as few unknown writes as possible.
    fn reach(
        &self,
        from: &State,
        need: Need,
        chain_max: usize,
        tries: &mut Tries,
        met: &mut Vec<State>,
    ) -> Result<(), Wrong> {
        if need.met(from.value) {
            return add(from.clone(), met);
        }
        if chain_max == 0 {
            return Err(Wrong::Undecided);
        }
        self.reach_by_writes(from, need, chain_max - 1, tries, met)
    }

    fn reach_by_writes(
        &self,
        from: &State,
        need: Need,
        chain_max: usize,
        tries: &mut Tries,
        met: &mut Vec<State>,
    ) -> Result<(), Wrong> {
        match need {
            Need::Nothing | Need::Impossible => (),
            Need::Absent => self.delete(from, tries, met)?,
            Need::Present => {
                tries.take(self.setting.len())?;
                for index in unused(&self.setting, from) {
                    if matches!(self.deed(index).op, Op::Insert | Op::Put) {
                        add(self.with(from, index), met)?;
                    }
                }
            }
            Need::Not(value) => {
                self.delete(from, tries, met)?;
                tries.take(self.setting.len())?;
                for index in unused(&self.setting, from) {
                    let deed = self.deed(index);
                    let applies = match deed.op {
                        Op::Put | Op::Update => deed.value != value,
                        Op::Cas => deed.value == value && deed.to != value,
                        _ => false,
                    };
                    if applies {
                        add(self.with(from, index), met)?;
                    }
                }
            }
            Need::Value(value) => {
                let leaving = self.leaving.get(&value).map_or(&[][..], Vec::as_slice);
                tries.take(leaving.len())?;
                for index in unused(leaving, from) {
                    let before = Need::to_apply(&self.deed(index));
                    let mut ready = Vec::new();
                    self.reach(from, before, chain_max, tries, &mut ready)?;
                    // One of them may have used this very write on its way.
                    ready.retain(|state| state.used.binary_search(&index).is_err());
                    for state in &ready {
                        add(self.with(state, index), met)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn delete(&self, from: &State, tries: &mut Tries, met: &mut Vec<State>) -> Result<(), Wrong> {
        tries.take(1)?;
        match unused(&self.deleting, from).next() {
            Some(index) => add(self.with(from, index), met),
            None => Ok(()),
        }
    }

    fn deed(&self, index: u32) -> Deed {
        self.open[index as usize].deed
    }

    /// The state after an unknown write that applies.
    fn with(&self, from: &State, index: u32) -> State {
        let open = self.open[index as usize];
        let mut used = from.used.clone();
        if let Err(at) = used.binary_search(&index) {
            used.insert(at, index);
        }
        State {
            value: after(&done(open.deed), from.value),
            line: open.line,
            used,
        }
    }

    /// What has happened in the only state that is left cannot happen again.
    fn retire(&mut self) {
        let [state] = self.states.as_mut_slice() else {
            return;
        };
        for index in std::mem::take(&mut state.used) {
            let others = |other: &u32| *other != index;
            self.setting.retain(others);
            self.deleting.retain(others);
            let deed = self.open[index as usize].deed;
            let leaves = after(&done(deed), deed.value);
            if let Some(leaving) = self.leaving.get_mut(&leaves) {
                leaving.retain(others);
            }
        }
    }

    /// Goes on as if a write's reply were right, and as if a read had not been.
    fn contradiction(&mut self, deed: &Deed, line: u64) -> Wrong {
        let state = self.states.first().cloned().unwrap_or(State::EMPTY);
        let wrong = Wrong::Contradiction {
            line: state.line,
            exists: state.exists(),
        };
        if deed.op == Op::Read {
            return wrong;
        }
        let mut next = State {
            value: ANY,
            ..state.clone()
        };
        leave(&mut next, deed, line);
        self.states = vec![next];
        self.retire();
        wrong
    }
}

/// One more possible state, within the bound.
fn add(state: State, met: &mut Vec<State>) -> Result<(), Wrong> {
    if met.len() >= STATES_MAX {
        return Err(Wrong::Undecided);
    }
    met.push(state);
    Ok(())
}

/// Those that have not happened in a state.
fn unused<'a>(among: &'a [u32], state: &'a State) -> impl Iterator<Item = u32> + 'a {
    let unused = |index: &u32| state.used.binary_search(index).is_err();
    among.iter().copied().filter(unused)
}

/// A write of unknown outcome as one that succeeded.
const fn done(deed: Deed) -> Deed {
    Deed {
        told: Told::One,
        ..deed
    }
}

fn leave(state: &mut State, deed: &Deed, line: u64) {
    let value = after(deed, state.value);
    if value != state.value {
        *state = State {
            value,
            line,
            used: std::mem::take(&mut state.used),
        };
    }
}

/// Drops states that have used more than another with the same value.
fn distinct(mut states: Vec<State>) -> Vec<State> {
    states.sort_by_key(|state| (state.value, state.used.len()));
    let mut kept: Vec<State> = Vec::new();
    for state in states {
        let used = |index: &u32| state.used.binary_search(index).is_ok();
        let worse = |other: &State| other.value == state.value && other.used.iter().all(used);
        if !kept.iter().any(worse) {
            kept.push(state);
        }
    }
    kept
}
