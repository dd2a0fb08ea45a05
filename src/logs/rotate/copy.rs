//! Copying the head of a log away, beside it, while the log is written to.
//!
//! ```text
//!   NAME.log ─────> NAME.log.part        compressed or not
//!   NAME.log.idx ─> NAME.log.part.idx    the records about the same positions, always compressed
//! ```
//! Nothing else changes: a copy that is not used any more is removed, by whoever finds it.
//!
//! Failure paths: no room for the copy; it is removed, and the log is as it was.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::crash;
use crate::home::beside;
use crate::logs::gzip::{Effort, Packer};
use crate::logs::index::{HEADER, Header, RECORD, Record, View, count, first_behind, index_path};
use crate::logs::rotated::Stamp;

/// How much is read at once.
const PIECE: usize = 64 * 1024;

/// The path of a copy that is being made.
pub(super) fn draft(log: &Path) -> PathBuf {
    beside(log, ".part")
}

/// The path of its index.
pub(super) fn draft_index(log: &Path) -> PathBuf {
    beside(log, ".part.idx")
}

/// Removes a copy that came to nothing.
pub(super) fn discard(log: &Path) -> io::Result<()> {
    remove(&draft(log))?;
    remove(&draft_index(log))
}

/// Removes a file that may be gone already.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A copy that is complete and on the disk, but has no name of its own yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Copy {
    /// Its name to be.
    pub(super) stamp: Stamp,
    pub(super) packed: bool,
    /// The positions that it holds.
    pub(super) start: u64,
    pub(super) end: u64,
}

enum Out {
    Packed(Packer<File>),
    Plain(File),
}

/// A copy that is being made.
pub(super) struct Copier {
    log: PathBuf,
    source: File,
    view: View,
    start: u64,
    /// Up to which position it is copied.
    at: u64,
    out: Out,
    /// The index as it is, and how many of its records are copied or passed over.
    records: u64,
    header: Header,
    times: Packer<File>,
}

impl Copier {
    /// Begins to copy from a position on. `header` is that of the log's index.
    pub(super) fn begin(
        log: &Path,
        source: File,
        view: View,
        header: Header,
        start: u64,
        packed: bool,
    ) -> io::Result<Self> {
        discard(log)?;
        let file = create(&draft(log))?;
        let out = if packed { Out::Packed(Packer::new(file)) } else { Out::Plain(file) };
        let index = File::open(index_path(log))?;
        let records = first_behind(&index, count(&index)?, start)?;
        let mut times = create(&draft_index(log))?;
        times.seek(SeekFrom::Start(HEADER))?;
        let times = Packer::new(times);
        let header = Header { dropped: header.dropped + records, ..header };
        let log = log.to_owned();
        Ok(Self { log, source, view, start, at: start, out, records, header, times })
    }

    /// Up to which position it is copied.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// From now on time is dear: what follows is not compressed.
    pub(super) fn hurry(&mut self) -> io::Result<()> {
        match &mut self.out {
            Out::Packed(packer) => packer.set_effort(Effort::None),
            Out::Plain(_) => Ok(()),
        }
    }

    /// Copies up to a position that the log has reached.
    pub(super) fn copy_to(&mut self, end: u64) -> io::Result<()> {
        crash::point("a rotation copies");
        let mut buffer = vec![0; PIECE];
        while self.at < end {
            let wanted = usize::try_from(end - self.at).unwrap_or(PIECE).min(PIECE);
            let offset = self.at - self.view.base + self.view.skip;
            let read = self.source.read_at(&mut buffer[..wanted], offset)?;
            if read == 0 {
                return Err(io::Error::other("the log was shortened by somebody else"));
            }
            match &mut self.out {
                Out::Packed(packer) => packer.write(&buffer[..read])?,
                Out::Plain(file) => file.write_all(&buffer[..read])?,
            }
            self.at += read as u64;
        }
        self.copy_times(|record| record.end <= end)
    }

    /// Copies the records of the index that are wanted, up to the first that is not.
    fn copy_times(&mut self, is_wanted: impl Fn(Record) -> bool) -> io::Result<()> {
        let index = File::open(index_path(&self.log))?;
        let mut buffer = vec![0; PIECE];
        loop {
            let read = index.read_at(&mut buffer, HEADER + self.records * RECORD)?;
            let (mut bytes, mut wanted) = (0, true);
            for record in buffer[..read].chunks_exact(16) {
                wanted = Record::decode(record).is_some_and(&is_wanted);
                if !wanted {
                    break;
                }
                bytes += record.len();
            }
            self.times.write(&buffer[..bytes])?;
            self.records += bytes as u64 / RECORD;
            if !wanted || bytes == 0 {
                return Ok(());
            }
        }
    }

    /// Completes the copy with what it holds by now, and brings it to the disk.
    pub(super) fn finish(mut self, now: Timestamp) -> io::Result<Copy> {
        let (start, end) = (self.start, self.at);
        let stamp = Stamp::after(self.header.stamp, now);
        let index = File::open(index_path(&self.log))?;
        let mut last = [0; 16];
        // The record that reaches beyond the end tells the time of the last lines; where there is none
        // yet, they are as old as now.
        match index.read_exact_at(&mut last, HEADER + self.records * RECORD) {
            Ok(()) => self.times.write(&last)?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let nanos = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX).max(1);
                self.times.write(&Record { end, nanos }.encode())?;
            }
            Err(error) => return Err(error),
        }
        let times = self.times.finish()?;
        let header = Header {
            base: start,
            next_base: end,
            first: start,
            stamp: stamp.0,
            sealed: true,
            ..self.header.at_rest(start)
        };
        times.write_all_at(&header.encode(), 0)?;
        times.sync_data()?;
        let packed = matches!(self.out, Out::Packed(_));
        let file = match self.out {
            Out::Packed(packed) => packed.finish()?,
            Out::Plain(file) => file,
        };
        file.sync_data()?;
        Ok(Copy { stamp, packed, start, end })
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}
