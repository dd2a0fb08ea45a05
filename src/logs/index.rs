//! The time index beside a log, `NAME.log.idx`.
//!
//! ```text
//!   header, 48 bytes:  magic and version | identity | base | next base | length before | dropped
//!   record, 16 bytes:  end position | nanoseconds since 1970        (appended as the log grows)
//! ```
//! All numbers are little-endian and 64 bits wide. `base` is the position of the file's first byte.
//! `dropped` counts the records that were removed from the front with the log's head, so that a record
//! has one number for ever.
//!
//! Shortening a log takes two steps that a crash may part: `next base` and `length before` are written,
//! the head is removed, `base` is set. A file shorter than `length before` tells that the second
//! step was done.
//!
//! Failure paths
//! - A header that is not ours or torn: the index begins anew.
//! - A torn or senseless tail (a crash, a full disk): cut off at the next opening.
//! - A log of another identity, or one that is shorter than the index knows: it was replaced or truncated;
//!   its positions go on after the last known one.
//! - Writing fails: the caller is told, the extent stays right, and the record is missing.
//!
//! One writer (`LogWatcher`), many readers (`times`, `file`).

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::file::Extent;

const MAGIC: u64 = u64::from_le_bytes(*b"stigidx1");
pub(super) const HEADER: u64 = 48;
pub(super) const RECORD: u64 = 16;

/// Beyond this a position is damage: it is four million terabytes.
const SENSELESS: u64 = 1 << 62;

/// How far back from its end an index is checked when it is opened.
const CHECKED: u64 = 256;

/// The path of the index of a log.
#[must_use]
pub fn index_path(log: &Path) -> PathBuf {
    let mut path = OsString::from(log);
    path.push(".idx");
    path.into()
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

    fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.end.to_le_bytes());
        bytes[8..].copy_from_slice(&self.nanos.to_le_bytes());
        bytes
    }
}

/// The head of an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    identity: u64,
    base: u64,
    next_base: u64,
    length_before: u64,
    pub(super) dropped: u64,
}

impl Header {
    const fn new(identity: u64, base: u64) -> Self {
        Self { identity, base, next_base: base, length_before: 0, dropped: 0 }
    }

    pub(super) fn load(file: &File) -> io::Result<Option<Self>> {
        let mut bytes = [0; 48];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut words = [0; 6];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let [magic, identity, base, next_base, length_before, dropped] = words;
        let sound = magic == MAGIC && base <= next_base && next_base < SENSELESS;
        Ok(sound.then_some(Self { identity, base, next_base, length_before, dropped }))
    }

    fn save(&self, file: &File) -> io::Result<()> {
        let words =
            [MAGIC, self.identity, self.base, self.next_base, self.length_before, self.dropped];
        let mut bytes = [0; 48];
        for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        file.write_all_at(&bytes, 0)
    }
}

/// What an index says about its log as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Summary {
    header: Option<Header>,
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

    /// The position of the first byte of the log file, given what the file system says about it.
    pub(super) fn base(&self, identity: u64, length: u64) -> u64 {
        let Some(header) = self.header else { return 0 };
        let shortened = header.next_base != header.base && length < header.length_before;
        let base = if shortened { header.next_base } else { header.base };
        if header.identity != identity || base + length < self.end { self.end } else { base }
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
fn record(file: &File, place: u64) -> io::Result<Option<Record>> {
    let mut bytes = [0; 16];
    file.read_exact_at(&mut bytes, HEADER + place * RECORD)?;
    Ok(Record::decode(&bytes))
}

/// Writes the index of one log. Holds no descriptor.
#[derive(Debug)]
pub(super) struct Writer {
    index: PathBuf,
    summary: Summary,
    header: Header,
    records: u64,
}

impl Writer {
    /// Opens or makes the index of the log that has this identity and length.
    pub(super) fn open(log: &Path, identity: u64, length: u64) -> io::Result<Self> {
        let index = index_path(log);
        let file = open(&index)?;
        let header = match Header::load(&file)? {
            Some(header) => header,
            None => begin(&file, Header::new(identity, 0))?,
        };
        let records = sound_records(&file)?;
        file.set_len(HEADER + records * RECORD)?;
        let end = match records {
            0 => header.base,
            _ => record(&file, records - 1)?.map_or(0, |last| last.end).max(header.base),
        };
        let summary = Summary { header: Some(header), end };
        let mut writer = Self { index, summary, header, records };
        // A removal that was announced and not done, because the engine died, is called off.
        if header.next_base != header.base && length >= header.length_before {
            writer.abandon_shortening()?;
        }
        writer.settle(identity, length)?;
        Ok(writer)
    }

    /// Whether a log of this identity and length holds something that the index does not know yet.
    pub(super) fn is_behind(&self, identity: u64, length: u64) -> bool {
        self.summary.base(identity, length) + length > self.summary.end
    }

    /// Takes note of what the file system says about the log at a time of the wall clock.
    ///
    /// # Errors
    /// The index could not be written. The extent is right nevertheless.
    pub(super) fn observe(
        &mut self,
        identity: u64,
        length: u64,
        nanos: i64,
    ) -> (Extent, io::Result<()>) {
        let settled = self.settle(identity, length);
        let end = self.header.base + length;
        let written = if end > self.summary.end {
            self.summary.end = end;
            self.append(Record { end, nanos })
        } else {
            Ok(())
        };
        (Extent { base: self.header.base, end }, settled.and(written))
    }

    /// Announces that `bytes` will be removed from the head of the log, which is `length` long.
    pub(super) fn begin_shortening(&mut self, bytes: u64, length: u64) -> io::Result<()> {
        self.header.next_base = self.header.base + bytes;
        self.header.length_before = length;
        self.save()
    }

    /// The announced removal came to nothing.
    pub(super) fn abandon_shortening(&mut self) -> io::Result<()> {
        self.header.next_base = self.header.base;
        self.save()
    }

    /// The announced removal is done. Records about what is gone go too.
    pub(super) fn finish_shortening(&mut self) -> io::Result<()> {
        self.header.base = self.header.next_base;
        self.save()?;
        self.drop_records()
    }

    /// Brings the header in line with the log.
    fn settle(&mut self, identity: u64, length: u64) -> io::Result<()> {
        let base = self.summary.base(identity, length);
        let header = Header {
            identity,
            base,
            next_base: base,
            length_before: 0,
            dropped: self.header.dropped,
        };
        // While a shortening is announced, the file has its old length and nothing is settled.
        let is_announced = self.header.next_base != self.header.base && base == self.header.base;
        if is_announced || header == self.header {
            return Ok(());
        }
        self.header = header;
        self.save()
    }

    fn save(&mut self) -> io::Result<()> {
        self.summary.header = Some(self.header);
        let file = self.opened()?;
        self.header.save(&file)
    }

    fn append(&mut self, record: Record) -> io::Result<()> {
        let file = self.opened()?;
        // Not by O_APPEND: this place is known, and what a torn write left there is overwritten.
        file.write_all_at(&record.encode(), HEADER + self.records * RECORD)?;
        self.records += 1;
        Ok(())
    }

    /// The index file, made anew if somebody removed it.
    fn opened(&mut self) -> io::Result<File> {
        let file = open(&self.index)?;
        if file.metadata()?.len() < HEADER + self.records * RECORD {
            self.header.dropped += self.records;
            self.records = 0;
            begin(&file, self.header)?;
        }
        Ok(file)
    }

    fn drop_records(&mut self) -> io::Result<()> {
        let file = self.opened()?;
        let mut kept_from = 0;
        let mut beyond = self.records;
        while kept_from < beyond {
            let middle = kept_from.midpoint(beyond);
            if record(&file, middle)?.is_some_and(|record| record.end > self.header.base) {
                beyond = middle;
            } else {
                kept_from = middle + 1;
            }
        }
        if kept_from == 0 {
            return Ok(());
        }
        let fresh_path = self.index.with_extension("idx.new");
        let fresh = open(&fresh_path)?;
        let mut header = self.header;
        header.dropped += kept_from;
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
        std::fs::rename(&fresh_path, &self.index)?;
        self.header = header;
        self.summary.header = Some(header);
        self.records -= kept_from;
        Ok(())
    }
}

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
