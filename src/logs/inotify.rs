//! One inotify descriptor, as the watcher uses it: every watch is for one event.
//!
//! A standing watch costs the writer of a log up to half its speed, for each write then queues or merges
//! an event. A watch for one event is gone after it, and costs nothing until it is armed again.

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::descriptor::register;

/// What the kernel told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// Something happened to the file that this watch is for.
    Touched(i32),
    /// A file of this name has come into the folder that this watch is for.
    Arrived(i32, OsString),
    /// So much happened that the kernel dropped events: everything has to be looked at.
    Overflow,
}

#[derive(Debug)]
pub(super) struct Inotify(AsyncFd<OwnedFd>);

impl Inotify {
    /// # Errors
    /// No descriptor, or the user's limit of inotify instances.
    pub(super) fn new() -> io::Result<Self> {
        let descriptor = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        register(descriptor, Interest::READABLE).map(Self)
    }

    /// Arms a watch for the next change of a file: its content, its name or its links.
    pub(super) fn arm(&self, path: &Path) -> io::Result<i32> {
        let changes = WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::MOVE_SELF
            | WatchFlags::DELETE_SELF
            | WatchFlags::ONESHOT;
        Ok(inotify::add_watch(&self.0, path, changes)?)
    }

    /// Watches a folder for files that come.
    pub(super) fn watch_folder(&self, path: &Path) -> io::Result<i32> {
        let arrivals = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        Ok(inotify::add_watch(&self.0, path, arrivals)?)
    }

    /// Ends a watch. One that is gone already is no error.
    pub(super) fn disarm(&self, watch: i32) {
        // The watch of a file that is gone, or whose event has come, is gone as well.
        let _gone_already = inotify::remove_watch(&self.0, watch);
    }

    /// Waits for events. Cancel-safe.
    pub(super) async fn events(&self) -> io::Result<Vec<Event>> {
        loop {
            let mut guard = self.0.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(self.0.get_ref(), &mut buffer);
            let mut events = Vec::new();
            loop {
                match reader.next() {
                    Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                        events.push(Event::Overflow);
                    }
                    // The end of a watch, and for a watch of one event merely its echo.
                    Ok(event) if event.events() == ReadFlags::IGNORED => {}
                    Ok(event) => events.push(match event.file_name() {
                        Some(name) => Event::Arrived(
                            event.wd(),
                            OsStr::from_bytes(name.to_bytes()).to_owned(),
                        ),
                        None => Event::Touched(event.wd()),
                    }),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => {
                        guard.clear_ready();
                        break;
                    }
                    Err(error) => return Err(error.into()),
                }
                // A buffer at a time, so that a flood cannot keep the loop here.
                if reader.is_buffer_empty() && !events.is_empty() {
                    break;
                }
            }
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}
