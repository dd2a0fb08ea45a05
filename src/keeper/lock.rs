//! One daemon a home: the lock on `daemon.lock`.
//!
//! The lock belongs to an open file, and lives as long as anyone has that file open. The keeper holds
//! it, and so does a child between fork and exec:
//!
//! ```text
//!   keeper  ────────────────✗ killed
//!   child        └─ fork ─────────┴─ exec or end
//!   lock    held held held held held │ free: the child's record is complete, or it never runs
//! ```
//!
//! Who takes the lock anew may therefore be sure that there is no other keeper, and that the records
//! tell of every process that a former keeper started. The engine does not hold it.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::clock;

/// The lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon, or a child that a killed one was just about to launch, has it.
    #[error("another daemon is running: it holds the lock on {path}")]
    Held {
        /// The lock file.
        path: PathBuf,
    },
    /// The file cannot be used.
    #[error("cannot lock {path}: {source}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// How often a held lock is tried again.
const PAUSE_NANOS: i64 = 5_000_000;

/// Takes the lock, close-on-exec, and waits for it at most as long as `patience`. A few hundred
/// milliseconds are enough for the children of a killed keeper to get out of the way.
///
/// The kernel can wait for a lock without trying again and again, but not for a limited time.
pub fn acquire(path: &Path, patience: Duration) -> Result<OwnedFd, LockError> {
    let fail = |source| LockError::Io { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(path).map_err(fail)?;
    let deadline = clock::now() + patience;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file.into()),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if clock::now() >= deadline => {
                return Err(LockError::Held { path: path.to_owned() });
            }
            Err(Errno::WOULDBLOCK) => {
                let pause = rustix::thread::Timespec { tv_sec: 0, tv_nsec: PAUSE_NANOS };
                let _ = rustix::thread::nanosleep(&pause);
            }
            Err(errno) => return Err(fail(errno.into())),
        }
    }
}

/// Whether somebody holds the lock. Only a look; whoever takes the lock at this very moment tries again.
#[must_use]
pub fn is_held(path: &Path) -> bool {
    let Ok(file) = OpenOptions::new().write(true).open(path) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_refused_until_the_last_holder_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("daemon.lock");
        assert!(!is_held(&path));
        let first = acquire(&path, Duration::ZERO).unwrap();
        assert!(is_held(&path));
        let inherited = first.try_clone().unwrap();
        assert!(matches!(acquire(&path, Duration::ZERO), Err(LockError::Held { .. })));
        drop(first);
        assert!(matches!(acquire(&path, Duration::ZERO), Err(LockError::Held { .. })));
        drop(inherited);
        acquire(&path, Duration::ZERO).unwrap();
    }
}
