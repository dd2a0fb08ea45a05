//! The monotonic clock of the machine, and what its times are elsewhere.

use tokio::time::Instant;

use crate::model::Time;

/// The present point on the monotonic clock, which tokio's instants share.
#[must_use]
pub fn now() -> Time {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(clock.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(clock.tv_nsec).unwrap_or(0);
    Time::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// A time of the machine's as a time of day.
#[must_use]
pub fn wall_of(time: Time) -> jiff::Timestamp {
    let wall = jiff::Timestamp::now();
    wall.checked_sub(now().since(time)).unwrap_or(wall)
}

/// A time of the machine's as an instant of tokio's.
#[must_use]
pub fn instant_of(time: Time) -> Instant {
    let (clock, instant) = (now(), Instant::now());
    if time >= clock {
        instant + time.since(clock)
    } else {
        instant.checked_sub(clock.since(time)).unwrap_or(instant)
    }
}
