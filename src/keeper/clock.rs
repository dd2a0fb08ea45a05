//! The clocks of the keeper: the one place of the module that asks what time it is.

use std::time::Duration;

use nix::time::ClockId;

use crate::model::Time;

/// Now, on the monotonic clock that all processes of this boot share.
pub(super) fn now() -> Time {
    Time::from_nanos(nanos(ClockId::CLOCK_MONOTONIC))
}

/// Now, in nanoseconds since 1970.
pub(super) fn realtime() -> u64 {
    nanos(ClockId::CLOCK_REALTIME)
}

/// Neither clock can fail on Linux.
fn nanos(clock: ClockId) -> u64 {
    let time = clock.now().map_or(Duration::ZERO, Duration::from);
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
