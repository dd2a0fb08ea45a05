//! Waiting for descriptors, and what an event on each is about.
//!
//! A watched descriptor must be unwatched before it is closed. A child between fork and exec has a copy
//! of it, so that the kernel would go on reporting it; a child that hangs there would keep the keeper
//! busy for ever.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::model::RunId;

/// What an event is about; the number of the run is packed beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    Signals,
    Engine,
    Barrier(RunId),
    Survivor(RunId),
    Tree(RunId),
    Helper(RunId),
}

impl Source {
    fn to_token(self) -> u64 {
        match self {
            Self::Signals => 0,
            Self::Engine => 1 << 56,
            Self::Barrier(run) => (2 << 56) | run.0,
            Self::Survivor(run) => (3 << 56) | run.0,
            Self::Tree(run) => (4 << 56) | run.0,
            Self::Helper(run) => (5 << 56) | run.0,
        }
    }

    fn from_token(token: u64) -> Option<Self> {
        let run = RunId(token & ((1 << 56) - 1));
        match token >> 56 {
            0 => Some(Self::Signals),
            1 => Some(Self::Engine),
            2 => Some(Self::Barrier(run)),
            3 => Some(Self::Survivor(run)),
            4 => Some(Self::Tree(run)),
            5 => Some(Self::Helper(run)),
            _ => None,
        }
    }
}

/// An epoll instance.
#[derive(Debug)]
pub(super) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub(super) fn new() -> Result<Self, Errno> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Waits for a descriptor from now on.
    pub(super) fn watch(
        &self,
        descriptor: impl AsFd,
        source: Source,
        flags: EventFlags,
    ) -> Result<(), Errno> {
        epoll::add(&self.epoll, descriptor, EventData::new_u64(source.to_token()), flags)
    }

    /// Changes what is waited for.
    pub(super) fn change(&self, descriptor: impl AsFd, source: Source, flags: EventFlags) {
        let token = EventData::new_u64(source.to_token());
        // Can only fail for a descriptor that is not watched.
        let _ = epoll::modify(&self.epoll, descriptor, token, flags);
    }

    /// No longer waits for a descriptor.
    pub(super) fn unwatch(&self, descriptor: impl AsFd) {
        let _ = epoll::delete(&self.epoll, descriptor);
    }

    /// Waits for the next events, at most as long as `timeout`. No events also means that a signal
    /// that nobody takes came in between.
    pub(super) fn wait(
        &self,
        events: &mut Vec<Event>,
        timeout: Option<Duration>,
    ) -> Result<(), Errno> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        events.clear();
        let buffer = rustix::buffer::spare_capacity(events);
        match epoll::wait(&self.epoll, buffer, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// What an event is about.
    pub(super) fn source(event: &Event) -> Option<Source> {
        Source::from_token(event.data.u64())
    }
}

/// Waits for one descriptor, or for a time: in a process that has nothing else to do.
pub(super) fn poll_one(
    descriptor: BorrowedFd<'_>,
    flags: PollFlags,
    timeout: Option<Duration>,
) -> Result<usize, Errno> {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    rustix::event::poll(&mut [PollFd::from_borrowed_fd(descriptor, flags)], timeout.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_trip() {
        let run = RunId(crate::keeper::spawn::MAX_RUN - 1);
        for source in [
            Source::Signals,
            Source::Engine,
            Source::Barrier(run),
            Source::Survivor(RunId(0)),
            Source::Tree(run),
        ] {
            assert_eq!(Source::from_token(source.to_token()), Some(source));
        }
        assert_eq!(Source::from_token(u64::MAX), None);
    }
}
