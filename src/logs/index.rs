//! The time index beside a log, `NAME.log.idx`: up to which position the log had grown at which time.
//!
//! ```text
//!   header, 128 bytes (see `header`)
//!   record, 16 bytes:  end position | nanoseconds since 1970        (appended as the log grows)
//! ```
//! Beside a rotated file lies such an index as well, about its part of the log, with its records
//! compressed (see `rotate::copy`); it is never changed.
//!
//! Failure paths
//! - A header that is not ours or torn: the index begins anew, behind what rotated files hold.
//! - A torn or senseless tail (a crash, a full disk): cut off at the next opening.
//! - A log of another identity, or one that is shorter than the index knows: it was replaced or truncated;
//!   its positions go on after the last known one.
//! - Writing fails: the caller is told, the extent stays right, and the record is missing.
//!
//! One writer (the watcher, which lends it to a rotation), many readers (`times`, `file`).

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::file::Extent;
pub(super) use super::header::{HEADER, Header, SENSELESS, Step};
use crate::home::beside;

pub(super) const RECORD: u64 = 16;

/// How far back from its end an index is checked when it is opened.
const CHECKED: u64 = 256;

/// The path of the index of a log.
#[must_use]
pub fn index_path(log: &Path) -> PathBuf {
    beside(log, ".idx")
}

/// Up to `end` the log had grown at this time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) end: u64,
    /// Nanoseconds since 1970.
    pub(super) nanos: i64,
}

impl Record {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let end = u64::from_le_bytes(*bytes.first_chunk()?);
        let nanos = i64::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
        Some(Self { end, nanos })
    }

    pub(super) fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.end.to_le_bytes());
        bytes[8..].copy_from_slice(&self.nanos.to_le_bytes());
        bytes
    }
}

/// What the file system says about a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Measure {
    pub(super) identity: u64,
    pub(super) length: u64,
    /// It begins with the marker of the rotation that is under way.
    pub(super) is_marked: bool,
}

impl Measure {
    /// Looks at a log that is open. Marked is only what the header speaks of.
    pub(super) fn take(log: &File, header: Option<&Header>) -> io::Result<Self> {
        let is_marked = match header {
            Some(header) if header.step != Step::Rest => header.marks(log)?,
            Some(_) | None => false,
        };
        let metadata = log.metadata()?;
        Ok(Self { identity: identity(&metadata), length: metadata.len(), is_marked })
    }
}

/// Where positions lie in a log file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct View {
    /// The position of the first byte that counts.
    pub(super) base: u64,
    /// How many bytes lie before it in the file: a head that is about to be removed.
    pub(super) skip: u64,
}

impl View {
    /// The position behind the last byte of a file of this length.
    pub(super) const fn end(self, length: u64) -> u64 {
        self.base + length.saturating_sub(self.skip)
    }
}

/// What an index says about its log as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Summary {
    pub(super) header: Option<Header>,
    /// The end of the last record.
    end: u64,
}

impl Summary {
    /// Reads it; a log without an index has the empty one.
    pub(super) fn load(log: &Path) -> io::Result<Self> {
        let file = match File::open(index_path(log)) {
            Ok(file) => file,
            Err(error) if is_absence(&error) => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        if !file.metadata()?.is_file() {
            return Ok(Self::default());
        }
        let Some(header) = Header::load(&file)? else { return Ok(Self::default()) };
        let count = count(&file)?;
        let last = if count == 0 { None } else { record(&file, count - 1)? };
        let end = last.map_or(0, |last| last.end).max(header.base);
        Ok(Self { header: Some(header), end: if end < SENSELESS { end } else { header.base } })
    }

    /// Where positions lie in the log, given what the file system says about it.
    pub(super) fn view(&self, log: Measure) -> View {
        let Some(header) = self.header else { return View { base: 0, skip: 0 } };
        let head = header.next_base - header.base;
        let view = match (header.step, log.is_marked) {
            (Step::Rest, _) | (Step::Copied, false) => View { base: header.base, skip: 0 },
            (Step::Copied | Step::Marked, true) => View { base: header.next_base, skip: head },
            (Step::Marked, false) => View { base: header.next_base, skip: 0 },
        };
        if header.identity != log.identity || view.end(log.length) < self.end {
            return View { base: self.end.max(header.next_base), skip: 0 };
        }
        view
    }

    /// Where a log that does not exist would begin.
    pub(super) fn beginning(&self) -> u64 {
        self.header.map_or(0, |header| self.end.max(header.next_base))
    }
}

/// What tells a log file from another one of its name. The number of an inode is used again as soon as
/// its file is gone, so the time of its making belongs to it, where the file system knows it.
pub(super) fn identity(metadata: &Metadata) -> u64 {
    let made = metadata.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
    let made = made.map_or(0, |made| made.as_secs() << 30 | u64::from(made.subsec_nanos()));
    metadata.ino() ^ made.rotate_left(32)
}

/// An index that is not there for this user: times are unknown, lines are not.
fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotADirectory | NotFound | PermissionDenied)
}

/// How many whole records a file holds.
pub(super) fn count(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.len().saturating_sub(HEADER) / RECORD)
}

/// The record at a place in the file.
pub(super) fn record(file: &File, place: u64) -> io::Result<Option<Record>> {
    let mut bytes = [0; 16];
    file.read_exact_at(&mut bytes, HEADER + place * RECORD)?;
    Ok(Record::decode(&bytes))
}

/// Writes the index of one log. Holds no descriptor.
#[derive(Debug)]
pub(super) struct Writer {
    index: PathBuf,
    header: Header,
    /// The end of the last record.
    end: u64,
    records: u64,
    /// The time of the first record.
    oldest: Option<i64>,
}

impl Writer {
    /// Opens or makes the index of a log. One that is begun anew begins behind the positions that
    /// `rotated` says are in rotated files. Leaves a rotation that was under way as it is: see
    /// `rotate::recover`.
    pub(super) fn open(
        log: &Path,
        identity: u64,
        rotated: impl FnOnce() -> io::Result<Range<u64>>,
    ) -> io::Result<Self> {
        let index = index_path(log);
        let file = open(&index)?;
        let header = if let Some(header) = Header::load(&file)? {
            header
        } else {
            let Range { start: first, end } = rotated()?;
            begin(&file, Header { first, ..Header::new(identity, end) })?
        };
        let records = sound_records(&file)?;
        file.set_len(HEADER + records * RECORD)?;
        let last = if records == 0 { None } else { record(&file, records - 1)? };
        let end = last.map_or(0, |last| last.end).max(header.base);
        let oldest = if records == 0 { None } else { record(&file, 0)? };
        let oldest = oldest.map(|record| record.nanos);
        Ok(Self { index, header, end, records, oldest })
    }

    fn summary(&self) -> Summary {
        Summary { header: Some(self.header), end: self.end }
    }

    /// The header as it is in the file.
    pub(super) fn header(&self) -> Header {
        self.header
    }

    /// The time of the oldest line that the log file holds; `None` while nothing is known.
    pub(super) fn oldest(&self) -> Option<i64> {
        self.oldest
    }

    /// Up to which position it knows the log.
    pub(super) fn known_end(&self) -> u64 {
        self.end
    }

    /// Where positions lie in the log.
    pub(super) fn view(&self, log: Measure) -> View {
        self.summary().view(log)
    }

    /// Whether a log holds something that the index does not know yet.
    pub(super) fn is_behind(&self, log: Measure) -> bool {
        self.view(log).end(log.length) > self.end
    }

    /// Takes note of what the file system says about the log at a time of the wall clock.
    ///
    /// # Errors
    /// The index could not be written. The extent is right nevertheless.
    pub(super) fn observe(&mut self, log: Measure, nanos: i64) -> (Extent, io::Result<()>) {
        let settled = self.settle(log);
        let view = self.view(log);
        let end = view.end(log.length);
        let written = if end > self.end {
            self.end = end;
            self.append(Record { end, nanos })
        } else {
            Ok(())
        };
        let first = self.header.first;
        (Extent { first, base: view.base, end }, settled.and(written))
    }

    /// Brings the header in line with a log that was replaced or truncated. A rotation that was under
    /// way is over then: its copy holds what nothing else does.
    fn settle(&mut self, log: Measure) -> io::Result<()> {
        let view = self.view(log);
        let is_known = match self.header.step {
            Step::Rest => view.base == self.header.base,
            Step::Copied | Step::Marked => {
                view.base == self.header.base || view.base == self.header.next_base
            }
        };
        if self.header.identity == log.identity && is_known {
            return Ok(());
        }
        // Of a log that was never rotated nothing else is kept.
        let first = if self.header.stamp == 0 { view.base } else { self.header.first };
        let header = Header { identity: log.identity, first, ..self.header.at_rest(view.base) };
        self.save(header)
    }

    /// Writes another header. It counts as written even if that fails: it is tried again with the next.
    pub(super) fn save(&mut self, header: Header) -> io::Result<()> {
        self.header = header;
        let file = self.opened()?;
        header.save(&file)
    }

    /// Writes a header that must be on the disk before anything else happens.
    pub(super) fn save_durably(&mut self, header: Header) -> io::Result<()> {
        self.save(header)?;
        self.opened()?.sync_data()
    }

    fn append(&mut self, record: Record) -> io::Result<()> {
        let file = self.opened()?;
        // Not by O_APPEND: this place is known, and what a torn write left there is overwritten.
        file.write_all_at(&record.encode(), HEADER + self.records * RECORD)?;
        self.records += 1;
        self.oldest.get_or_insert(record.nanos);
        Ok(())
    }

    /// The index file, made anew if somebody removed it.
    fn opened(&mut self) -> io::Result<File> {
        let file = open(&self.index)?;
        if file.metadata()?.len() < HEADER + self.records * RECORD {
            self.header.dropped += self.records;
            self.records = 0;
            self.oldest = None;
            begin(&file, self.header)?;
        }
        Ok(file)
    }

    /// The head of the log is gone: a fresh index takes the place of this one, with the records about
    /// what is left. Until its name is changed nothing has happened.
    pub(super) fn begin_after_head(&mut self) -> io::Result<()> {
        let base = self.header.next_base;
        let file = self.opened()?;
        let kept_from = first_behind(&file, self.records, base)?;
        let mut header = self.header.at_rest(base);
        header.dropped += kept_from;
        header.stamp = header.stamp.max(self.header.making);
        let fresh_path = beside(&self.index, ".new");
        let fresh = open(&fresh_path)?;
        begin(&fresh, header)?;
        let (mut from, mut to) = (HEADER + kept_from * RECORD, HEADER);
        let mut block = [0; 4096];
        loop {
            let read = file.read_at(&mut block, from)?;
            if read == 0 {
                break;
            }
            fresh.write_all_at(&block[..read], to)?;
            from += read as u64;
            to += read as u64;
        }
        fresh.sync_data()?;
        std::fs::rename(&fresh_path, &self.index)?;
        self.records -= kept_from;
        self.oldest = match self.records {
            0 => None,
            _ => record(&fresh, 0)?.map(|record| record.nanos),
        };
        self.header = header;
        Ok(())
    }
}

/// The place of the first record that ends behind a position.
pub(super) fn first_behind(file: &File, records: u64, position: u64) -> io::Result<u64> {
    let (mut low, mut high) = (0, records);
    while low < high {
        let middle = low.midpoint(high);
        if record(file, middle)?.is_some_and(|record| record.end > position) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

/// Opens a file of ours for reading and writing, and makes it if need be.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

fn begin(file: &File, header: Header) -> io::Result<Header> {
    file.set_len(0)?;
    header.save(file)?;
    Ok(header)
}

/// How many records are whole and make sense; those behind the first that does not are given up.
fn sound_records(file: &File) -> io::Result<u64> {
    let count = count(file)?;
    let first = count.saturating_sub(CHECKED);
    let mut before = 0;
    for place in first..count {
        match record(file, place)? {
            Some(record) if record.end > before && record.end < SENSELESS && record.nanos > 0 => {
                before = record.end;
            }
            _ => return Ok(place),
        }
    }
    Ok(count)
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
