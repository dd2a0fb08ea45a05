//! Looking things up in a time index: the time of a position, the position of a time.
//!
//! Reads blocks of records as needed and holds no descriptor. Times may go down where somebody has
//! set the clock back; positions never do. So a position is found by halving, and a time by walking
//! back from the end, which gives what came after the clock last passed it.
//!
//! Failure paths: no index, a damaged one, or records that vanish while reading give no time.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::index::{HEADER, Header, RECORD, Record, count, index_path};

/// Records in a block: 4 KiB.
const BLOCK: u64 = 256;
const BLOCK_BYTES: usize = 4096;

/// The lookups of one log.
#[derive(Debug)]
pub(super) struct Times {
    index: PathBuf,
    /// The number of the first record of `block`.
    first: u64,
    block: Vec<Record>,
    /// The stretch of positions that was answered last, and its time.
    answered: Option<(u64, Record)>,
}

impl Times {
    pub(super) fn new(log: &Path) -> Self {
        Self { index: index_path(log), first: 0, block: Vec::new(), answered: None }
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

    /// The position behind the last record from before a time; `None` if there is none.
    pub(super) fn before(&mut self, limit: Timestamp) -> Option<u64> {
        self.last(|nanos| i128::from(nanos) < limit.as_nanosecond()).map(|(record, _)| record.end)
    }

    /// The position up to which the log had grown at a time; `None` if all of it is from before.
    pub(super) fn until(&mut self, limit: Timestamp) -> Option<u64> {
        let numbers = self.numbers()?;
        if numbers.is_empty() {
            return None;
        }
        match self.last(|nanos| i128::from(nanos) <= limit.as_nanosecond()) {
            Some((_, number)) if number + 1 >= numbers.end => None,
            Some((record, _)) => Some(record.end),
            None => Some(0),
        }
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
        // Mostly lines come one after the other: the next record is in the block already.
        let next = self.block.partition_point(|record| record.end <= position);
        if next > 0 && next < self.block.len() {
            return Some((self.block[next - 1].end, self.block[next]));
        }
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
            _ => 0,
        };
        Some((from, self.record(low)?))
    }

    /// The numbers of the records that are there.
    fn numbers(&self) -> Option<std::ops::Range<u64>> {
        let file = File::open(&self.index).ok()?;
        let header = Header::load(&file).ok()??;
        let count = count(&file).ok()?;
        Some(header.dropped..header.dropped + count)
    }

    fn record(&mut self, number: u64) -> Option<Record> {
        let held = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some(record) = held.and_then(|place| self.block.get(place)) {
            return Some(*record);
        }
        self.load(number - number % BLOCK).ok()?;
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.block.get(place).copied()
    }

    fn load(&mut self, first: u64) -> std::io::Result<()> {
        self.block.clear();
        let file = File::open(&self.index)?;
        let Some(header) = Header::load(&file)? else { return Ok(()) };
        self.first = first.max(header.dropped);
        let mut bytes = [0; BLOCK_BYTES];
        let from = HEADER + (self.first - header.dropped) * RECORD;
        let mut held = 0;
        loop {
            match file.read_at(&mut bytes[held..], from + held as u64)? {
                0 => break,
                read => held += read,
            }
        }
        self.block.extend(bytes[..held].chunks_exact(16).filter_map(Record::decode));
        Ok(())
    }
}

fn time(record: Record) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(record.nanos)).ok()
}
