//! Proof that at most one copy lives: every copy writes itself down and holds a lock for as long as
//! it lives. A copy that finds the lock held writes that down as well and ends.
//!
//! ```text
//! born PID START_TICKS MONOTONIC_NANOSECONDS
//! double PID START_TICKS MONOTONIC_NANOSECONDS
//! ```
//!
//! The kernel lets go of the lock before the parent can hear of the death, so that a replacement
//! that was started because of it always gets the lock.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use nix::time::{ClockId, clock_gettime};
use rustix::fs::{FlockOperation, flock};

/// Exit code: `--births` found another copy alive.
pub(crate) const ANOTHER_COPY_LIVES: u8 = 99;
/// Exit code: `--lock` found the file locked.
pub(crate) const LOCKED_BY_ANOTHER: u8 = 98;

/// Writes this process down; gives the lock, or `None` if another copy lives.
pub(crate) fn register(path: &Path) -> io::Result<Option<File>> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    let alone = try_lock(&file)?;
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    // One write of one line, so that lines of several copies never mix.
    let line = format!(
        "{} {} {} {}{:09}\n",
        if alone { "born" } else { "double" },
        std::process::id(),
        start_ticks()?,
        now.tv_sec(),
        now.tv_nsec(),
    );
    file.write_all(line.as_bytes())?;
    Ok(alone.then_some(file))
}

/// Takes an exclusive lock on `path`; `None` if another process has it.
pub(crate) fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    Ok(try_lock(&file)?.then_some(file))
}

fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// When this process began, in clock ticks since boot: with its pid, who it is.
pub(crate) fn start_ticks() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name of the program may hold blanks and brackets; nothing behind the last bracket can.
    stat.rsplit_once(')')
        .and_then(|(_, fields)| fields.split_whitespace().nth(19))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::other("/proc/self/stat has no start time"))
}
