//! Which server is asked next, and when. Pure: the clock and the dice are inputs.

use std::time::Duration;

use tokio::time::Instant;

use super::attempt::Setback;

/// How long a server may be silent before the next one is asked as well.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// The pause before a server is asked again; it doubles with each of its failures, up to the second.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask this server.
    Try(usize),
    /// Look again then, or when a try ends.
    At(Instant),
    /// All servers are being asked.
    AfterAnAnswer,
}

/// The state of one request's tries.
#[derive(Debug)]
pub(super) struct Rotation {
    servers: Vec<Slot>,
    /// No further server is asked before this, so that a healthy one has time to answer.
    quiet_until: Instant,
    dice: fn() -> f64,
}

#[derive(Debug, Clone)]
struct Slot {
    busy: bool,
    ready_at: Instant,
    failures: u32,
    last: Option<Setback>,
    /// A try may have been executed although its answer never came.
    doubt: bool,
}

/// What became of one server's tries.
#[derive(Debug)]
pub(super) struct Standing {
    /// The last setback, if a try ended.
    pub(super) last: Option<Setback>,
    /// A try is still without an answer.
    pub(super) busy: bool,
    /// A try may have been executed.
    pub(super) doubt: bool,
}

impl Rotation {
    pub(super) fn new(servers: usize, now: Instant) -> Self {
        let slot = Slot {
            busy: false,
            ready_at: now,
            failures: 0,
            last: None,
            doubt: false,
        };
        Self {
            servers: vec![slot; servers],
            quiet_until: now,
            dice,
        }
    }

    /// The idle server that has been ready longest; the first of the list among equals.
    pub(super) fn next(&self, now: Instant) -> Next {
        let idle = self
            .servers
            .iter()
            .enumerate()
            .filter(|(_, slot)| !slot.busy);
        let Some((index, slot)) = idle.min_by_key(|(index, slot)| (slot.ready_at, *index)) else {
            return Next::AfterAnAnswer;
        };
        let start = slot.ready_at.max(self.quiet_until);
        if start <= now {
            Next::Try(index)
        } else {
            Next::At(start)
        }
    }

    pub(super) fn began(&mut self, index: usize, now: Instant) {
        self.servers[index].busy = true;
        self.quiet_until = now + PATIENCE;
    }

    /// The next server is asked at once, this one after a pause.
    pub(super) fn failed(&mut self, index: usize, setback: Setback, now: Instant) {
        let slot = &mut self.servers[index];
        let pause = pause(slot.failures, (self.dice)());
        slot.busy = false;
        slot.failures += 1;
        slot.ready_at = now + pause.max(setback.retry_after.unwrap_or_default());
        slot.doubt |= setback.may_be_done;
        slot.last = Some(setback);
        self.quiet_until = now;
    }

    /// What is known of each server, in the order of the list.
    pub(super) fn into_standings(self) -> impl Iterator<Item = Standing> {
        self.servers.into_iter().map(|slot| Standing {
            last: slot.last,
            busy: slot.busy,
            doubt: slot.doubt || slot.busy,
        })
    }
}

/// Between half of the full pause and all of it, so that clients that failed together come back apart.
fn pause(failures: u32, dice: f64) -> Duration {
    let full = PAUSE_MIN
        .saturating_mul(1 << failures.min(8))
        .min(PAUSE_MAX);
    full.mul_f64(0.5 + dice / 2.0)
}

/// From 0 to 1. The standard library's hasher is seeded at random, which is all that is needed.
fn dice() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    let random = RandomState::new().hash_one(());
    f64::from((random >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn rotation(servers: usize) -> (Rotation, Instant) {
        let now = Instant::now();
        let mut rotation = Rotation::new(servers, now);
        rotation.dice = || 1.0;
        (rotation, now)
    }

    fn refused() -> Setback {
        Setback::unsent("connection refused".into())
    }

    #[test]
    fn asks_each_server_at_once_and_then_pauses() {
        let (mut rotation, now) = rotation(3);
        for index in 0..3 {
            assert_eq!(rotation.next(now), Next::Try(index));
            rotation.began(index, now);
            rotation.failed(index, refused(), now);
        }
        assert_eq!(rotation.next(now), Next::At(now + PAUSE_MIN));
        let later = now + PAUSE_MIN;
        assert_eq!(rotation.next(later), Next::Try(0));
        rotation.began(0, later);
        rotation.failed(0, refused(), later);
        assert_eq!(rotation.next(later), Next::Try(1));
    }

    #[test]
    fn a_silent_server_keeps_its_try_while_the_next_is_asked() {
        let (mut rotation, now) = rotation(2);
        rotation.began(0, now);
        assert_eq!(rotation.next(now), Next::At(now + PATIENCE));
        assert_eq!(rotation.next(now + PATIENCE), Next::Try(1));
        rotation.began(1, now + PATIENCE);
        assert_eq!(rotation.next(now + PATIENCE * 9), Next::AfterAnAnswer);
        assert!(
            rotation
                .into_standings()
                .all(|server| server.busy && server.doubt)
        );
    }

    #[test]
    fn retry_after_holds_for_the_server_that_said_it() {
        let (mut rotation, now) = rotation(2);
        let mut busy = refused();
        busy.retry_after = Some(1_000 * MS);
        rotation.began(0, now);
        rotation.failed(0, busy, now);
        assert_eq!(rotation.next(now), Next::Try(1));
        rotation.began(1, now);
        rotation.failed(1, refused(), now);
        assert_eq!(rotation.next(now + 100 * MS), Next::Try(1));
        rotation.began(1, now + 100 * MS);
        rotation.failed(1, refused(), now + 999 * MS);
        assert_eq!(rotation.next(now + 1_000 * MS), Next::Try(0));
    }

    #[test]
    fn doubt_outlives_later_failures() {
        let (mut rotation, now) = rotation(1);
        let mut lost = refused();
        lost.may_be_done = true;
        rotation.failed(0, lost, now);
        rotation.failed(0, refused(), now);
        assert!(rotation.into_standings().all(|server| server.doubt));
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_spread() {
        assert_eq!(pause(0, 1.0), PAUSE_MIN);
        assert_eq!(pause(0, 0.0), PAUSE_MIN / 2);
        assert_eq!(pause(1_000, 1.0), PAUSE_MAX);
        assert!((0.0..=1.0).contains(&dice()));
    }
}
