//! Reading a log by position, wherever that is: in the log, or in a rotated file.
//!
//! ```text
//!   first                base                           end
//!     | rotated | rotated |            the log            |
//! ```
//! Between learning where the log begins and reading from it, a rotation may move everything. So that
//! is determined before and after a read, and a read between two different answers is done again.
//! Rotated files never change.
//!
//! Failure paths: a log that is not there is an empty one, and what was rotated is still read; what is
//! no regular file is refused (a FIFO would block the reader for ever).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::index::{Measure, Summary, View};
use super::rotated::Shelf;

/// How often a read is tried while rotations interfere; each takes far longer than a read.
const TRIES: usize = 16;

/// Which positions of a log are where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extent {
    /// The position of the oldest byte that is kept, in a rotated file or in the log.
    pub first: u64,
    /// The position of the log file's first byte: how many bytes are gone from its head.
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

/// Where the log lies, and which part of it its file holds now.
///
/// # Errors
/// The log or its index cannot be read. A log that does not exist is empty.
pub fn extent(log: &Path) -> io::Result<Extent> {
    let mut before = Look::take(log)?;
    for _ in 0..TRIES {
        let after = Look::take(log)?;
        // The length was asked for between the two, and so it was that of this view.
        if (after.view, after.first) == (before.view, before.first) {
            return Ok(before.extent());
        }
        before = after;
    }
    Err(io::Error::other("the log is rotated faster than it can be read"))
}

/// The position at which the next byte will be written: where a run that is launched now begins.
///
/// # Errors
/// The log or its index cannot be read.
pub fn end_position(log: &Path) -> io::Result<u64> {
    extent(log).map(|extent| extent.end)
}

/// What there is to be known of a log at a moment.
struct Look {
    /// `None`: there is no such file.
    file: Option<File>,
    first: u64,
    view: View,
    length: u64,
}

impl Look {
    fn take(log: &Path) -> io::Result<Self> {
        let file = open(log)?;
        let summary = Summary::load(log)?;
        let first = summary.header.map_or(0, |header| header.first);
        let Some(file) = file else {
            let view = View { base: summary.beginning(), skip: 0 };
            return Ok(Self { file: None, first, view, length: 0 });
        };
        let measure = Measure::take(&file, summary.header.as_ref())?;
        let view = summary.view(measure);
        Ok(Self { file: Some(file), first, view, length: measure.length })
    }

    fn extent(&self) -> Extent {
        let View { base, .. } = self.view;
        Extent { first: self.first.min(base), base, end: self.view.end(self.length) }
    }
}

/// A log that is read by position. Holds no descriptor.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    shelf: Shelf,
}

impl Log {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), shelf: Shelf::new(path) }
    }

    /// Reads from a position into `buffer`.
    ///
    /// # Errors
    /// The log cannot be read, or a rotated file; the latter is passed over by the next call.
    pub(super) fn read_at(&mut self, position: u64, buffer: &mut [u8]) -> io::Result<Block> {
        let mut before = Look::take(&self.path)?;
        for _ in 0..TRIES {
            let View { base, skip } = before.view;
            if position < base
                && let Some((position, length)) = self.shelf.read_at(position, base, buffer)?
            {
                return Ok(Block { position, length });
            }
            let position = position.max(base);
            let Some(file) = &before.file else { return Ok(Block { position, length: 0 }) };
            let length = file.read_at(buffer, position - base + skip)?;
            let after = Look::take(&self.path)?;
            if after.view == before.view {
                return Ok(Block { position, length });
            }
            before = after;
        }
        Err(io::Error::other("the log is rotated faster than it can be read"))
    }
}

/// Whether an error of reading is that of a rotated file, behind which the next call goes on.
#[must_use]
pub fn is_passed_over(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
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
