//! Signals as messages: blocked for the whole program and taken in by one thread that waits for
//! them, so that no code ever runs inside a signal handler.

use std::io;
use std::thread;

use nix::sys::signal::{SigSet, Signal};

/// Hands every one of `signals` that arrives to `deliver`, until that answers false.
///
/// Call it before anything starts a thread: a signal is blocked in the calling thread and in those
/// that it makes later, and one thread that does not block it would get it the ordinary way.
pub(crate) fn deliver_to(
    signals: &[Signal],
    mut deliver: impl FnMut(Signal) -> bool + Send + 'static,
) -> io::Result<()> {
    let set: SigSet = signals.iter().copied().collect();
    set.thread_block()?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        while let Ok(signal) = set.wait() {
            if !deliver(signal) {
                return;
            }
        }
    })?;
    Ok(())
}
