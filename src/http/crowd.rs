//! The open connections: which of them has to make room when there are too many.
//!
//! Anybody can open connections and send nothing. Peers and clients come by the same door, so what
//! is idle never keeps out what works: past the bound the connection that has been without a
//! request for longest is closed. One with a request in progress never is, nor one of a peer.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// All connections of a node.
#[derive(Debug)]
pub struct Crowd {
    places: Places,
    inner: Mutex<Inner>,
    /// Somebody left, or would not.
    moved: Notify,
}

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    /// Past so many, idle ones are closed; and so many may have requests in progress.
    pub all: usize,
    /// So many more may be open, so that a peer comes in while all the others work.
    pub peers: usize,
}

#[derive(Debug, Default)]
struct Inner {
    seats: HashMap<u64, State>,
    /// The idle ones but for peers, by the turn in which they became idle.
    idle: BTreeMap<u64, u64>,
    /// How many have requests in progress, but for peers.
    working: usize,
    turn: u64,
}

#[derive(Debug)]
struct State {
    requests: usize,
    is_peer: bool,
    /// Its key among the idle ones.
    idle_since: Option<u64>,
    leave: Arc<Notify>,
}

impl Crowd {
    pub fn new(places: Places) -> Arc<Self> {
        Arc::new(Self {
            places,
            inner: Mutex::default(),
            moved: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection. Past the bound, another one is asked to leave.
    pub fn enter(self: &Arc<Self>) -> Seat {
        let mut inner = self.lock();
        inner.turn += 1;
        let id = inner.turn;
        let leave = Arc::new(Notify::new());
        let state = State {
            requests: 0,
            is_peer: false,
            idle_since: None,
            leave: Arc::clone(&leave),
        };
        inner.seats.insert(id, state);
        inner.rest(id);
        if inner.seats.len() > self.places.all {
            inner.ask_one();
        }
        drop(inner);
        Seat {
            crowd: Arc::clone(self),
            id,
            leave,
            has_unsent: Arc::default(),
        }
    }

    /// Waits until there is a place, even one of those for peers. Whoever is idle makes room.
    pub async fn has_room(&self) {
        loop {
            let moved = self.moved.notified();
            {
                let mut inner = self.lock();
                if inner.seats.len() < self.places.all + self.places.peers {
                    return;
                }
                inner.ask_one();
            }
            moved.await;
        }
    }

    /// Has the one that has been idle for longest leave, if there is one.
    pub fn make_room(&self) {
        self.lock().ask_one();
    }
}

impl Inner {
    fn rest(&mut self, id: u64) {
        self.turn += 1;
        let turn = self.turn;
        if let Some(state) = self.seats.get_mut(&id)
            && state.requests == 0
            && !state.is_peer
            && state.idle_since.is_none()
        {
            state.idle_since = Some(turn);
            self.idle.insert(turn, id);
        }
    }

    fn stir(&mut self, id: u64) {
        let since = self.seats.get_mut(&id).and_then(|s| s.idle_since.take());
        if let Some(since) = since {
            self.idle.remove(&since);
        }
    }

    fn ask_one(&mut self) {
        let Some((_, id)) = self.idle.pop_first() else {
            return;
        };
        if let Some(state) = self.seats.get_mut(&id) {
            state.idle_since = None;
            state.leave.notify_one();
        }
    }
}

/// One connection's place. Given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    crowd: Arc<Crowd>,
    id: u64,
    leave: Arc<Notify>,
    has_unsent: Arc<AtomicBool>,
}

impl Seat {
    /// What the connection's requests say of it.
    pub fn pass(&self) -> Pass {
        Pass {
            crowd: Arc::clone(&self.crowd),
            id: self.id,
        }
    }

    /// True while bytes of a reply wait for the client.
    pub fn unsent(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.has_unsent)
    }

    /// Waits until this connection is to make room, and is still idle then.
    pub async fn is_to_leave(&self) {
        loop {
            self.leave.notified().await;
            let mut inner = self.crowd.lock();
            let is_idle = inner
                .seats
                .get(&self.id)
                .is_some_and(|state| state.requests == 0 && !state.is_peer);
            if is_idle && !self.has_unsent.load(Ordering::Relaxed) {
                return;
            }
            // Another one is found when room is needed again.
            inner.rest(self.id);
            drop(inner);
            self.crowd.moved.notify_one();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inner = self.crowd.lock();
        inner.stir(self.id);
        if let Some(state) = inner.seats.remove(&self.id)
            && state.requests > 0
            && !state.is_peer
        {
            inner.working -= 1;
        }
        drop(inner);
        self.crowd.moved.notify_one();
    }
}

/// A handle to a connection's place, for its requests.
#[derive(Debug, Clone)]
pub struct Pass {
    crowd: Arc<Crowd>,
    id: u64,
}

impl Pass {
    /// A request is in progress until the result is dropped; `None` if too many others are.
    pub fn begin(&self, says_peer: bool) -> Option<Working> {
        let mut inner = self.crowd.lock();
        let is_full = inner.working >= self.crowd.places.all;
        let state = inner.seats.get_mut(&self.id)?;
        if state.requests == 0 && !state.is_peer {
            if is_full && !says_peer {
                return None;
            }
            state.requests += 1;
            inner.working += 1;
            inner.stir(self.id);
        } else {
            state.requests += 1;
        }
        drop(inner);
        Some(Working(self.clone()))
    }

    /// A peer has shown who it is: its connection is not asked to make room any more.
    pub fn is_peers(&self) {
        let mut inner = self.crowd.lock();
        inner.stir(self.id);
        if let Some(state) = inner.seats.get_mut(&self.id)
            && !state.is_peer
        {
            state.is_peer = true;
            if state.requests > 0 {
                inner.working -= 1;
            }
        }
    }
}

/// A request in progress.
#[derive(Debug)]
pub struct Working(Pass);

impl Drop for Working {
    fn drop(&mut self) {
        let Pass { crowd, id } = &self.0;
        let mut inner = crowd.lock();
        if let Some(state) = inner.seats.get_mut(id) {
            state.requests -= 1;
            if state.requests == 0 && !state.is_peer {
                inner.working -= 1;
            }
        }
        inner.rest(*id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn crowd(all: usize, peers: usize) -> Arc<Crowd> {
        Crowd::new(Places { all, peers })
    }

    fn is_to_leave(seat: &Seat) -> bool {
        seat.is_to_leave().now_or_never().is_some()
    }

    #[test]
    fn the_one_that_is_idle_for_longest_makes_room() {
        let crowd = crowd(2, 1);
        let (a, b) = (crowd.enter(), crowd.enter());
        drop(a.pass().begin(false));
        let c = crowd.enter();
        assert!(is_to_leave(&b), "a had a request after b came");
        assert!(!is_to_leave(&a) && !is_to_leave(&c));
        drop(b);
        let _d = crowd.enter();
        assert!(is_to_leave(&a));
    }

    #[test]
    fn requests_in_progress_unsent_replies_and_peers_stay() {
        let crowd = crowd(3, 2);
        let (busy, peer, unsent) = (crowd.enter(), crowd.enter(), crowd.enter());
        let working = busy.pass().begin(false).unwrap();
        peer.pass().is_peers();
        unsent.unsent().store(true, Ordering::Relaxed);
        let newest = crowd.enter();
        assert!(!is_to_leave(&busy) && !is_to_leave(&peer) && !is_to_leave(&unsent));
        crowd.make_room();
        assert!(
            is_to_leave(&newest),
            "the one that would not go is idle since later"
        );
        drop(working);
        crowd.make_room();
        unsent.unsent().store(false, Ordering::Relaxed);
        assert!(is_to_leave(&unsent));
        crowd.make_room();
        assert!(is_to_leave(&busy));
        crowd.make_room();
        assert!(!is_to_leave(&peer));
    }

    #[test]
    fn one_that_was_asked_and_began_to_work_stays() {
        let crowd = crowd(1, 1);
        let (a, b) = (crowd.enter(), crowd.enter());
        let working = a.pass().begin(false).unwrap();
        assert!(!is_to_leave(&a));
        drop(working);
        crowd.make_room();
        assert!(is_to_leave(&b));
    }

    #[test]
    fn peers_come_in_while_all_others_work() {
        let crowd = crowd(1, 1);
        let client = crowd.enter();
        let working = client.pass().begin(false).unwrap();
        let peer = crowd.enter();
        assert!(crowd.has_room().now_or_never().is_none());
        assert!(peer.pass().begin(false).is_none());
        // Nothing is idle but the newcomer, which `has_room` has asked; it works before it goes.
        let beat = peer.pass().begin(true).unwrap();
        peer.pass().is_peers();
        assert!(!is_to_leave(&peer));
        drop(beat);
        drop(working);
        assert!(client.pass().begin(false).is_some());
        drop(client);
        assert!(crowd.has_room().now_or_never().is_some());
    }
}
