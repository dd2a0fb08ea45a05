//! Reading a log by position while its head may be removed under the reader.
//!
//! Between learning where the file begins and reading from it, a rotation may move everything. So the
//! base is determined before and after a read, and a read between two different bases is done again.
//!
//! Failure paths: a log that is not there is an empty one; what is no regular file is refused (a FIFO
//! would block the reader for ever).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::index::{Summary, identity};

/// How often a read is tried while rotations interfere; each takes far longer than a read.
const TRIES: usize = 16;

/// The part of a log that its file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extent {
    /// The position of the file's first byte: how many bytes are gone from its head.
    pub base: u64,
    /// The position behind its last byte: how many bytes the component has ever written.
    pub end: u64,
}

/// What was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Block {
    /// The position of the first byte; later than asked for if what was asked for is gone.
    pub(super) position: u64,
    /// How many bytes; 0 at the end.
    pub(super) length: usize,
}

/// Which part of the log its file holds now.
///
/// # Errors
/// The log or its index cannot be read. A log that does not exist is empty.
pub fn extent(log: &Path) -> io::Result<Extent> {
    if let Some(file) = open(log)? {
        return extent_of(log, &file);
    }
    let base = Summary::load(log)?.base(0, 0);
    Ok(Extent { base, end: base })
}

/// The position at which the next byte will be written: where a run that is launched now begins.
///
/// # Errors
/// The log or its index cannot be read.
pub fn end_position(log: &Path) -> io::Result<u64> {
    extent(log).map(|extent| extent.end)
}

/// Reads from a position into `buffer`.
pub(super) fn read_at(log: &Path, position: u64, buffer: &mut [u8]) -> io::Result<Block> {
    for _ in 0..TRIES {
        let Some(file) = open(log)? else { return Ok(Block { position, length: 0 }) };
        let before = extent_of(log, &file)?;
        let position = position.max(before.base);
        let length = file.read_at(buffer, position - before.base)?;
        if extent_of(log, &file)?.base == before.base {
            return Ok(Block { position, length });
        }
    }
    Err(io::Error::other("the log is shortened faster than it can be read"))
}

fn open(log: &Path) -> io::Result<Option<File>> {
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(log) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.metadata()?.is_file() {
        return Ok(Some(file));
    }
    Err(io::Error::other("it is not a regular file"))
}

fn extent_of(log: &Path, file: &File) -> io::Result<Extent> {
    let summary = Summary::load(log)?;
    let metadata = file.metadata()?;
    let base = summary.base(identity(&metadata), metadata.len());
    Ok(Extent { base, end: base + metadata.len() })
}
