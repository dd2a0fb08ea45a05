//! The rotated files of a log: their names, which positions they hold, and reading them.
//!
//! ```text
//!   api.log                              the log itself
//!   api.log.20260501-093000-123.gz       what had been written until then (without .gz: not compressed)
//!   api.log.20260501-093000-123.idx      its times, and which positions it holds
//! ```
//! A file is named after the time (UTC) at which it was made, and names only ever go up, so that the
//! order of names is the order of what is in them. A name is never changed, and neither is a file.
//!
//! Failure paths: a file whose index is gone is taken to lie right before the next one. A file that was
//! removed is a gap. A file that holds more than the log has lost belongs to a rotation that is not
//! over; it does not count.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use super::gzip::Table;
use super::index::Header;
use crate::home::beside;

/// How long a listing is good for.
const LISTED: Duration = Duration::from_secs(1);

/// Which rotated file: milliseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Stamp(pub(super) u64);

impl Stamp {
    /// The stamp of a file that is made now, after one with the stamp `last`.
    pub(super) fn after(last: u64, now: Timestamp) -> Self {
        let now = u64::try_from(now.as_millisecond()).unwrap_or(0);
        Self(now.max(last.saturating_add(1)))
    }

    /// As it stands in a name.
    fn text(self) -> Option<String> {
        let millis = i64::try_from(self.0).ok()?;
        let at = Offset::UTC.to_datetime(Timestamp::from_millisecond(millis).ok()?);
        Some(format!(
            "{:04}{:02}{:02}-{:02}{:02}{:02}-{:03}",
            at.year(),
            at.month(),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            self.0 % 1000
        ))
    }

    fn parse(text: &str) -> Option<Self> {
        let number = |from: usize, to: usize| text.get(from..to)?.parse::<i16>().ok();
        let small = |from: usize, to: usize| i8::try_from(number(from, to)?).ok();
        let at = DateTime::new(
            number(0, 4)?,
            small(4, 6)?,
            small(6, 8)?,
            small(9, 11)?,
            small(11, 13)?,
            small(13, 15)?,
            0,
        );
        let seconds = Offset::UTC.to_timestamp(at.ok()?).ok()?.as_second();
        let millis = u64::try_from(number(16, 19)?).ok()?;
        let stamp = Self(u64::try_from(seconds).ok()?.checked_mul(1000)?.checked_add(millis)?);
        // The same text again: neither signs nor anything behind it.
        (stamp.text().as_deref() == Some(text)).then_some(stamp)
    }

    /// The path of the file of a log.
    pub(super) fn path(self, log: &Path, packed: bool) -> io::Result<PathBuf> {
        let text = self.text().ok_or_else(|| io::Error::other("the clock is out of its mind"))?;
        let suffix = if packed { ".gz" } else { "" };
        Ok(beside(log, &format!(".{text}{suffix}")))
    }

    /// The path of the index of that file.
    pub(super) fn index(self, log: &Path) -> io::Result<PathBuf> {
        Ok(beside(&self.path(log, false)?, ".idx"))
    }
}

/// A rotated file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rotated {
    pub(super) stamp: Stamp,
    pub(super) path: PathBuf,
    pub(super) packed: bool,
    /// The position of its first byte, and the one behind its last.
    pub(super) start: u64,
    pub(super) end: u64,
}

/// What lies beside a log.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The rotated files, the oldest first.
    pub(super) files: Vec<Rotated>,
    /// Indexes whose file is gone.
    pub(super) orphans: Vec<Stamp>,
}

/// Looks through the folder of a log. `base` is where the log itself begins, where that is known.
pub(super) fn find(log: &Path, base: Option<u64>) -> io::Result<Found> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name()) else {
        return Ok(Found::default());
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::default()),
        Err(error) => return Err(error),
    };
    let (mut files, mut indexes) = (Vec::new(), Vec::new());
    for entry in entries {
        let entry = entry?.file_name();
        let rest = entry
            .to_str()
            .zip(name.to_str())
            .and_then(|(entry, name)| entry.strip_prefix(name)?.strip_prefix('.'));
        let Some(rest) = rest else { continue };
        if let Some(stamp) = rest.strip_suffix(".idx").and_then(Stamp::parse) {
            indexes.push(stamp);
        } else if let Some(stamp) = rest.strip_suffix(".gz").and_then(Stamp::parse) {
            files.push((stamp, true));
        } else if let Some(stamp) = Stamp::parse(rest) {
            files.push((stamp, false));
        }
    }
    files.sort_unstable();
    // Somebody has compressed or unpacked one by hand and kept both.
    files.dedup_by_key(|(stamp, _)| *stamp);
    indexes.retain(|stamp| !files.iter().any(|(of, _)| of == stamp));
    let mut found = Vec::with_capacity(files.len());
    for (stamp, packed) in files {
        let path = stamp.path(log, packed)?;
        let told = told(log, stamp)?;
        found.push((Rotated { stamp, path, packed, start: 0, end: 0 }, told));
    }
    let mut files = match base {
        Some(base) => before(found, base)?,
        None => one_after_the_other(found)?,
    };
    files.retain(|file| base.is_none_or(|base| file.end <= base));
    Ok(Found { files, orphans: indexes })
}

/// Which logs of a folder have rotated files, as it was a moment ago. Where thousands of logs get their
/// indexes at one time, looking through the folder for each would take the square of their number. A log
/// without an index is not rotated meanwhile.
#[derive(Debug, Default)]
pub(super) struct Listing {
    folder: PathBuf,
    made: Option<Instant>,
    logs: HashSet<OsString>,
}

impl Listing {
    /// Whether anything that was rotated lies beside the log.
    pub(super) fn has_rotated(&mut self, log: &Path) -> io::Result<bool> {
        let (Some(folder), Some(name)) = (log.parent(), log.file_name()) else { return Ok(false) };
        let is_fresh = self.made.is_some_and(|made| made.elapsed() < LISTED);
        if self.folder != folder || !is_fresh {
            self.logs.clear();
            for entry in fs::read_dir(folder)? {
                self.logs.extend(entry?.file_name().to_str().and_then(log_of));
            }
            folder.clone_into(&mut self.folder);
            self.made = Some(Instant::now());
        }
        Ok(self.logs.contains(name))
    }
}

/// The log that a file was rotated from, by its name.
fn log_of(name: &str) -> Option<OsString> {
    let plain = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".idx")).unwrap_or(name);
    let dots = plain.match_indices('.');
    let mut parts = dots.map(|(dot, _)| (&plain[..dot], &plain[dot + 1..]));
    parts.find(|(_, stamp)| Stamp::parse(stamp).is_some()).map(|(log, _)| log.into())
}

/// A file, and the positions that its index tells.
type Told = (Rotated, Option<(u64, u64)>);

/// A file without an index lies right before the next one, and the last one right before the log.
fn before(files: Vec<Told>, base: u64) -> io::Result<Vec<Rotated>> {
    let mut next = base;
    let mut found = Vec::with_capacity(files.len());
    for (file, told) in files.into_iter().rev() {
        let (start, end) = match told {
            Some(span) => span,
            None => match next.checked_sub(length(&file)?) {
                Some(start) => (start, next),
                None => continue,
            },
        };
        if end <= base {
            next = start;
        }
        found.push(Rotated { start, end, ..file });
    }
    found.reverse();
    Ok(found)
}

/// Where nothing is known of the log itself, a file without an index lies right behind the one before.
fn one_after_the_other(files: Vec<Told>) -> io::Result<Vec<Rotated>> {
    let mut last = 0;
    let mut found = Vec::with_capacity(files.len());
    for (file, told) in files {
        let (start, end) = match told {
            Some(span) => span,
            None => (last, last + length(&file)?),
        };
        last = end;
        found.push(Rotated { start, end, ..file });
    }
    Ok(found)
}

/// Which positions a file holds, as its index tells.
fn told(log: &Path, stamp: Stamp) -> io::Result<Option<(u64, u64)>> {
    match File::open(stamp.index(log)?) {
        Ok(index) => Ok(Header::load(&index)?.map(|header| (header.base, header.next_base))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// How much a file holds; nothing if it is damaged or gone.
fn length(rotated: &Rotated) -> io::Result<u64> {
    match open(&rotated.path) {
        Ok(file) if rotated.packed => Ok(Table::read(&file, 0).map_or(0, |table| table.length)),
        Ok(file) => Ok(file.metadata()?.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Opens a rotated file. Not anything else in its place: a FIFO would block for ever.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other("it is not a regular file"))
}

/// The rotated files of a log for reading: listed once, and again when that is out of date.
#[derive(Debug)]
pub(super) struct Shelf {
    log: PathBuf,
    listed: Option<Vec<Rotated>>,
    /// Where the blocks of the file lie that was read last.
    table: Option<(Stamp, Table)>,
    /// Files that cannot be read; that was said once.
    damaged: Vec<Stamp>,
}

impl Shelf {
    pub(super) fn new(log: &Path) -> Self {
        Self { log: log.to_owned(), listed: None, table: None, damaged: Vec::new() }
    }

    /// The files as they were listed last, for a log that begins at `base`.
    pub(super) fn files(&mut self, base: u64) -> io::Result<&[Rotated]> {
        if self.listed.is_none() {
            self.list(base)?;
        }
        Ok(self.listed.as_deref().unwrap_or_default())
    }

    fn list(&mut self, base: u64) -> io::Result<()> {
        let mut files = find(&self.log, Some(base))?.files;
        files.retain(|file| !self.damaged.contains(&file.stamp));
        self.listed = Some(files);
        Ok(())
    }

    /// The file that holds a position, or the next one behind it.
    pub(super) fn holding(&mut self, position: u64, base: u64) -> io::Result<Option<Rotated>> {
        let was_listed = self.listed.is_some();
        let candidate = |files: &[Rotated]| {
            files.iter().find(|file| file.end > position && file.start < file.end).cloned()
        };
        let found = candidate(self.files(base)?);
        if found.as_ref().is_some_and(|file| file.start <= position) || !was_listed {
            return Ok(found);
        }
        // Rotated since, or removed.
        self.list(base)?;
        Ok(candidate(self.files(base)?))
    }

    /// Reads from a position that lies before the log itself. `None`: nothing is kept from there on.
    ///
    /// # Errors
    /// A file cannot be read. It is passed over from then on.
    pub(super) fn read_at(
        &mut self,
        position: u64,
        base: u64,
        buffer: &mut [u8],
    ) -> io::Result<Option<(u64, usize)>> {
        loop {
            let Some(file) = self.holding(position, base)? else { return Ok(None) };
            let from = position.max(file.start);
            match self.read_file(&file, from, buffer) {
                Ok(read) => return Ok(Some((from, read))),
                // Removed a moment ago: the oldest go when there are too many.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.list(base)?,
                Err(error) => {
                    self.damaged.push(file.stamp);
                    self.list(base)?;
                    let name = file.path.file_name().unwrap_or_default().to_string_lossy();
                    // The kind by which it is told from an error of the log itself.
                    let kind = io::ErrorKind::InvalidData;
                    return Err(io::Error::new(kind, format!("{name}: {error}")));
                }
            }
        }
    }

    fn read_file(&mut self, rotated: &Rotated, from: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let file = open(&rotated.path)?;
        let (offset, left) = (from - rotated.start, rotated.end - from);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..wanted];
        let read = if rotated.packed {
            if self.table.as_ref().is_none_or(|(stamp, _)| *stamp != rotated.stamp) {
                self.table = Some((rotated.stamp, Table::read(&file, 0)?));
            }
            match &self.table {
                Some((_, table)) => table.read_at(&file, buffer, offset)?,
                None => 0,
            }
        } else {
            file.read_at(buffer, offset)?
        };
        if read == 0 && wanted > 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is shorter than it was"));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_up_and_tell_the_time() {
        let at = |millis| Timestamp::from_millisecond(millis).unwrap();
        let stamp = Stamp::after(0, at(1_777_627_800_123));
        assert_eq!(stamp.text().unwrap(), "20260501-093000-123");
        assert_eq!(Stamp::parse("20260501-093000-123"), Some(stamp));
        let next = Stamp::after(stamp.0, at(5));
        assert_eq!(next.text().unwrap(), "20260501-093000-124", "the clock was set back");
        for wrong in ["", "1", "20260501-093000-12", "20260501-093000-1234", "2026+501-093000-123"]
        {
            assert_eq!(Stamp::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Stamp::parse("20261301-093000-123"), None);
        let log = Path::new("/x/api.log");
        assert_eq!(stamp.path(log, true).unwrap(), Path::new("/x/api.log.20260501-093000-123.gz"));
        assert_eq!(stamp.index(log).unwrap(), Path::new("/x/api.log.20260501-093000-123.idx"));
    }

    #[test]
    fn a_listing_knows_which_logs_have_rotated_files() {
        let folder = tempfile::tempdir().unwrap();
        let names =
            ["a.log", "b.log.20260501-093000-123.gz", "c.d.log.20260501-093000-123", "e.log.idx"];
        for name in names {
            fs::write(folder.path().join(name), b"").unwrap();
        }
        fs::write(folder.path().join("f.log.20260501-093000-123.idx"), b"").unwrap();
        let mut listing = Listing::default();
        let mut has = |name: &str| listing.has_rotated(&folder.path().join(name)).unwrap();
        let found = ["a.log", "b.log", "c.d.log", "d.log", "e.log", "f.log"].map(&mut has);
        assert_eq!(found, [false, true, true, false, false, true]);
        let other = tempfile::tempdir().unwrap();
        assert!(!listing.has_rotated(&other.path().join("b.log")).unwrap());
    }

    #[test]
    fn others_files_are_left_alone_and_lost_indexes_are_made_up_for() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("api.log");
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        write("api.log", b"live");
        write("api.log.idx", b"");
        write("api.log.1", b"another program's");
        write("api.1.log.20260501-093000-123", b"another instance's");
        write("api.log.20260501-093000-123", b"0123");
        write("api.log.20260501-093000-124", b"45");
        write("api.log.20260501-093000-100.idx", b"");
        let found = find(&log, Some(6)).unwrap();
        let spans: Vec<_> = found.files.iter().map(|file| (file.start, file.end)).collect();
        assert_eq!(spans, [(0, 4), (4, 6)]);
        assert_eq!(found.orphans.len(), 1);
        let mut shelf = Shelf::new(&log);
        let mut buffer = [0; 10];
        assert_eq!(shelf.read_at(1, 6, &mut buffer).unwrap(), Some((1, 3)));
        assert_eq!(&buffer[..3], b"123");
        fs::remove_file(&found.files[0].path).unwrap();
        assert_eq!(shelf.read_at(1, 6, &mut buffer).unwrap(), Some((4, 2)), "a gap is passed over");
        fs::remove_file(&found.files[1].path).unwrap();
        assert_eq!(shelf.read_at(1, 6, &mut buffer).unwrap(), None);
    }
}
