//! Waiting for a state by looking again and again, for what gives no notice of itself.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How long to wait for a state at most; far longer than it ever takes on a busy machine.
pub(crate) fn patience() -> Duration {
    let seconds = env::var("STIGMER_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// Looks until `look` gives something; `None` if it did not within `at_most`. The last look comes
/// after the time is over, so that a machine that stood still fails no test.
pub(crate) fn poll<T>(at_most: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + at_most;
    loop {
        let over = Instant::now() >= deadline;
        if let Some(found) = look() {
            return Some(found);
        }
        if over {
            return None;
        }
        thread::park_timeout(LOOK_AGAIN);
    }
}
