//! The times of the small world.

use std::time::Duration;

use drumline::election::Timing;

/// The interval of heartbeats; the other times are multiples of it.
pub const BEAT_MS: u64 = 100;
pub const DWELL_MS: u64 = 100 * BEAT_MS;
/// When a claim is given up. The task waits longer.
pub const CLAIM_MAX_MS: u64 = 20 * BEAT_MS;
/// When the last claim lands that was given up.
pub const CLAIM_LANDS_MS: u64 = 25 * BEAT_MS;

/// The times that nodes have if nobody sets them.
pub fn timing() -> Timing {
    let timing = Timing::default();
    assert_eq!(ms(timing.heartbeat), BEAT_MS);
    assert_eq!(ms(timing.dwell), DWELL_MS);
    timing
}

pub fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}
