//! Looking things up in the time indexes of a log: the time of a position, the position of a time.
//!
//! ```text
//!   api.log.20260501-093000-123.idx | api.log.20260502-101500-000.idx | api.log.idx
//!       (a rotated file)                 (another one)                   (the log)      each with its records
//! ```
//! Reads blocks of records as needed and holds no descriptor. Times may go down where somebody has
//! set the clock back; positions never do. So a position is found by halving, and a time by walking
//! back from the end, which gives what came after the clock last passed it.
//!
//! A rotation moves records from one index into another. So where the log begins is determined before
//! and after looking something up, and what was looked up between two different answers is looked up again.
//!
//! Failure paths: no index, a damaged one, or records that vanish while reading give no time.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::gzip::{self, Table};
use super::index::{HEADER, Header, RECORD, Record, count, index_path};
use super::rotated::{Rotated, Shelf, Stamp};

/// Records in a block: 4 KiB. Compressed, they come in blocks of their own.
const BLOCK: u64 = 256;
const BLOCK_BYTES: usize = 4096;

/// How often something is looked up while rotations interfere; each takes far longer than that.
const TRIES: usize = 16;

/// The position behind everything that was written before a time; 0 if nothing is known of it.
#[must_use]
pub fn position_before(log: &Path, at: Timestamp) -> u64 {
    Times::new(log).before(at).unwrap_or(0)
}

/// The lookups of one log.
#[derive(Debug)]
pub(super) struct Times {
    log: PathBuf,
    live: Index,
    shelf: Shelf,
    /// The rotated file that was asked about last.
    old: Option<(Stamp, Index)>,
    /// The stretch of positions that was answered last, and its time.
    answered: Option<(u64, Record)>,
}

impl Times {
    pub(super) fn new(log: &Path) -> Self {
        Self {
            log: log.to_owned(),
            live: Index::new(index_path(log)),
            shelf: Shelf::new(log),
            old: None,
            answered: None,
        }
    }

    /// When the byte at a position was seen; `None` if it is not known (yet).
    pub(super) fn at(&mut self, position: u64) -> Option<Timestamp> {
        if let Some((from, record)) = self.answered
            && (from..record.end).contains(&position)
        {
            return time(record);
        }
        let (from, record) = self.covering(position)?;
        self.answered = Some((from, record));
        time(record)
    }

    fn covering(&mut self, position: u64) -> Option<(u64, Record)> {
        if let Some(next) = self.live.following(position) {
            return Some(next);
        }
        if let Some((_, index)) = &mut self.old
            && let Some(next) = index.following(position)
        {
            return Some(next);
        }
        self.undisturbed(|times| times.searched(position))
    }

    fn searched(&mut self, position: u64) -> Option<(u64, Record)> {
        let base = self.live.header()?.base;
        if position >= base {
            return self.live.covering(position);
        }
        let file = self.shelf.holding(position, base).ok()??;
        if position < file.start {
            return None;
        }
        self.old(&file)?.covering(position)
    }

    /// The position behind the last record from before a time; `None` if there is none.
    pub(super) fn before(&mut self, limit: Timestamp) -> Option<u64> {
        let passes = |nanos| i128::from(nanos) < limit.as_nanosecond();
        self.undisturbed(|times| times.last(passes)).map(|(end, _)| end)
    }

    /// The position up to which the log had grown at a time; `None` if all of it is from before.
    pub(super) fn until(&mut self, limit: Timestamp) -> Option<u64> {
        let passes = |nanos| i128::from(nanos) <= limit.as_nanosecond();
        self.undisturbed(|times| match times.last(passes) {
            Some((_, true)) => None,
            Some((end, false)) => Some(end),
            // Without a single record nothing is known.
            None => times.live.header().filter(|_| times.has_records()).map(|_| 0),
        })
    }

    /// What is looked up while the log is not rotated.
    fn undisturbed<T>(&mut self, look_up: impl Fn(&mut Self) -> T) -> T {
        let mut before = self.live.place();
        for _ in 0..TRIES {
            let found = look_up(self);
            let after = self.live.place();
            if after == before {
                return found;
            }
            self.live = Index::new(index_path(&self.log));
            self.shelf = Shelf::new(&self.log);
            before = after;
        }
        look_up(self)
    }

    fn has_records(&mut self) -> bool {
        let base = self.live.header().map_or(0, |header| header.base);
        self.live.numbers().is_some_and(|numbers| !numbers.is_empty())
            || self.shelf.files(base).is_ok_and(|files| !files.is_empty())
    }

    /// The end of the last record whose time passes, and whether it is the very last one.
    fn last(&mut self, passes: impl Fn(i64) -> bool) -> Option<(u64, bool)> {
        let header = self.live.header()?;
        let numbers = self.live.numbers()?;
        if let Some((record, number)) = self.live.last(&passes) {
            return Some((record.end, number + 1 >= numbers.end));
        }
        let mut is_newest = numbers.is_empty();
        if header.first == header.base {
            return None;
        }
        let files = self.shelf.files(header.base).ok()?.to_vec();
        for file in files.iter().rev() {
            let Some(index) = self.old(file) else { continue };
            let count = index.numbers().map_or(0, |numbers| numbers.end);
            if let Some((record, number)) = index.last(&passes) {
                // The last record of a part reaches into the next one.
                return Some((record.end.min(file.end), is_newest && number + 1 >= count));
            }
            is_newest = false;
        }
        None
    }

    /// The index of a rotated file.
    fn old(&mut self, file: &Rotated) -> Option<&mut Index> {
        if self.old.as_ref().is_none_or(|(stamp, _)| *stamp != file.stamp) {
            self.old = Some((file.stamp, Index::new(file.stamp.index(&self.log).ok()?)));
        }
        self.old.as_mut().map(|(_, index)| index)
    }
}

/// One index.
#[derive(Debug)]
struct Index {
    path: PathBuf,
    /// The number of the first record of `block`.
    first: u64,
    block: Vec<Record>,
    /// Where the blocks lie, if the records are compressed.
    table: Option<Table>,
}

impl Index {
    fn new(path: PathBuf) -> Self {
        Self { path, first: 0, block: Vec::new(), table: None }
    }

    fn header(&self) -> Option<Header> {
        Header::load(&File::open(&self.path).ok()?).ok()?
    }

    /// Where its log begins, of the oldest and of the first that is not rotated, and which records it has.
    fn place(&self) -> Option<(u64, u64, u64, u64)> {
        let header = self.header()?;
        Some((header.identity, header.first, header.base, header.dropped))
    }

    /// Mostly lines come one after the other: the next record is in the block already.
    fn following(&self, position: u64) -> Option<(u64, Record)> {
        let next = self.block.partition_point(|record| record.end <= position);
        let before = next.checked_sub(1).and_then(|before| self.block.get(before))?;
        self.block.get(next).map(|record| (before.end, *record))
    }

    /// The last record whose time passes, and its number.
    fn last(&mut self, passes: impl Fn(i64) -> bool) -> Option<(Record, u64)> {
        let numbers = self.numbers()?;
        let mut number = numbers.end;
        while number > numbers.start {
            number -= 1;
            let record = self.record(number)?;
            if passes(record.nanos) {
                return Some((record, number));
            }
        }
        None
    }

    /// The first record that ends behind a position, and where it begins.
    fn covering(&mut self, position: u64) -> Option<(u64, Record)> {
        let header = self.header()?;
        let numbers = self.numbers()?;
        let (mut low, mut high) = (numbers.start, numbers.end);
        while low < high {
            let middle = low.midpoint(high);
            // A record that is gone by now was about positions further ahead in the log's head.
            if self.record(middle).is_some_and(|record| record.end > position) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        if low >= numbers.end {
            return None;
        }
        let from = match low.checked_sub(1) {
            Some(before) if before >= numbers.start => self.record(before)?.end,
            _ => header.base,
        };
        Some((from, self.record(low)?))
    }

    /// The numbers of the records that are there.
    fn numbers(&mut self) -> Option<Range<u64>> {
        let file = File::open(&self.path).ok()?;
        let header = Header::load(&file).ok()??;
        let count = self.count(&file, &header).ok()?;
        Some(header.dropped..header.dropped + count)
    }

    fn count(&mut self, file: &File, header: &Header) -> io::Result<u64> {
        if !header.sealed {
            return count(file);
        }
        if self.table.is_none() {
            self.table = Some(Table::read(file, HEADER)?);
        }
        Ok(self.table.as_ref().map_or(0, |table| table.length / RECORD))
    }

    fn record(&mut self, number: u64) -> Option<Record> {
        if let Some(record) = self.held(number) {
            return Some(record);
        }
        self.load(number).ok()?;
        self.held(number)
    }

    fn held(&self, number: u64) -> Option<Record> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.block.get(place).copied()
    }

    /// Loads the block that holds a record.
    fn load(&mut self, number: u64) -> io::Result<()> {
        self.block.clear();
        let file = File::open(&self.path)?;
        let Some(header) = Header::load(&file)? else { return Ok(()) };
        let mut bytes = vec![0; if header.sealed { gzip::BLOCK } else { BLOCK_BYTES }];
        let block = if header.sealed { gzip::BLOCK as u64 / RECORD } else { BLOCK };
        self.first = (number - number % block).max(header.dropped);
        let offset = (self.first - header.dropped) * RECORD;
        let mut held = 0;
        while held < bytes.len() {
            let (free, at) = (&mut bytes[held..], offset + held as u64);
            let read = match &self.table {
                Some(table) if header.sealed => table.read_at(&file, free, at)?,
                Some(_) | None => file.read_at(free, HEADER + at)?,
            };
            if read == 0 {
                break;
            }
            held += read;
        }
        self.block.extend(bytes[..held].chunks_exact(16).filter_map(Record::decode));
        Ok(())
    }
}

fn time(record: Record) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(record.nanos)).ok()
}
