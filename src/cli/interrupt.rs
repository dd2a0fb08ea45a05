//! Ctrl-C and SIGTERM while a command runs: read from a descriptor, so that what was going on can be
//! told and the exit code is the documented one. A command may ask for more signals.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::exit::Exit;

/// What the kernel writes for one signal; the signal's number comes first (`signalfd_siginfo`).
const RECORD: usize = 128;

/// What ends every command.
const USUAL: [Signal; 2] = [Signal::SIGINT, Signal::SIGTERM];

/// The signals, blocked and waiting to be read. Programs that are started by the standard library
/// begin with nothing blocked.
pub(super) struct Interrupt(pipe::Receiver);

impl Interrupt {
    /// Begins to listen; must be called inside the runtime, by its one thread.
    pub(super) fn listen() -> io::Result<Self> {
        Self::to(USUAL)
    }

    /// Listens to these as well, but for those that whoever started us wants ignored (`nohup`).
    pub(super) fn listen_also(&mut self, more: &[Signal]) -> io::Result<()> {
        let more = more.iter().copied().filter(|signal| !is_ignored(*signal));
        // Those that have come meanwhile stay pending, and are read from the new descriptor.
        *self = Self::to(USUAL.into_iter().chain(more))?;
        Ok(())
    }

    fn to(signals: impl IntoIterator<Item = Signal>) -> io::Result<Self> {
        let set: SigSet = signals.into_iter().collect();
        set.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let descriptor: OwnedFd = SignalFd::with_flags(&set, flags)?.into();
        // No pipe, but read and waited for like one.
        Ok(Self(pipe::Receiver::from_owned_fd_unchecked(descriptor)?))
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> Signal {
        let mut record = [0; RECORD];
        let read = self.0.read(&mut record).await;
        let [first, second, third, fourth, ..] = record;
        let number = i32::from_ne_bytes([first, second, third, fourth]);
        match (read, Signal::try_from(number)) {
            (Ok(RECORD), Ok(signal)) => signal,
            (Ok(_) | Err(_), _) => Signal::SIGINT,
        }
    }

    /// Waits for a signal that ends the command.
    pub(super) async fn wait(&mut self) -> Exit {
        match self.next().await {
            Signal::SIGTERM => Exit::Terminated,
            _ => Exit::Interrupted,
        }
    }
}

/// Whether a signal is ignored by this process.
fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal as i32 - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_known() {
        // The standard library sees to the first.
        assert!(is_ignored(Signal::SIGPIPE));
        assert!(!is_ignored(Signal::SIGUSR2));
    }
}
