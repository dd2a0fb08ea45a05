//! What the keeper says on its standard error.
//!
//! Invariant: saying something never blocks. If whoever reads the standard error has stopped doing so,
//! the line is lost rather than the supervision.

use std::fmt;
use std::io::{self, Write};

use rustix::event::{PollFd, PollFlags, Timespec};

/// Says one line, if it can be said at once.
pub(super) fn say(line: fmt::Arguments<'_>) {
    let stderr = io::stderr();
    let mut polled = [PollFd::new(&stderr, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if matches!(rustix::event::poll(&mut polled, Some(&now)), Ok(ready) if ready > 0) {
        let text = format!("stigmer keeper: {line}\n");
        // Nobody is left to be told that telling failed.
        let _ = stderr.lock().write_all(text.as_bytes());
    }
}
