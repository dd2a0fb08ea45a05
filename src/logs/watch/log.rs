//! One log that is watched.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Next, WallClock};
use crate::logs::Extent;
use crate::logs::index::{Measure, Step, Writer, identity};
use crate::logs::rotate::{self, Keep, age_of, is_due};
use crate::logs::rotated::Listing;

/// How much a log must grow until it is considered again, where there was nothing to rotate.
const GROWTH: u64 = 64 * 1024;

/// What a log waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waiting {
    /// An event of this watch.
    Armed(i32),
    /// The end of its rest, or of its polling interval.
    Until(Instant),
    /// A file of its name in its folder.
    Missing,
}

/// Whether a log may be rotated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rotation {
    /// As soon as it is due and has reached this position.
    From(u64),
    /// It failed, and somebody will remind of it.
    Later,
}

pub(super) struct Log {
    pub(super) path: PathBuf,
    pub(super) waiting: Waiting,
    /// Opened once the log is there; away while a rotation has it.
    pub(super) index: Option<Writer>,
    /// How it is kept; never rotated without.
    pub(super) keep: Option<Keep>,
    /// It grew during its last rest.
    pub(super) is_flowing: bool,
    rotation: Rotation,
    /// When the oldest rotated file gets too old.
    expires: Option<Timestamp>,
}

type Observed = (Extent, io::Result<()>);

/// Files have the time of the kernel's last tick, which is so long before the write at most (`CONFIG_HZ` of
/// 100): without it, lines of a run could be older than the run.
const TICK: Duration = Duration::from_millis(10);

impl Log {
    pub(super) fn new(path: PathBuf, keep: Option<Keep>) -> Self {
        let waiting = Waiting::Until(Instant::now());
        let rotation = Rotation::From(0);
        Self { path, waiting, index: None, keep, is_flowing: false, rotation, expires: None }
    }

    /// Looks at the file and takes note of it in the index. `None`: it is not there, or not a file.
    ///
    /// What was written before the index was opened is as old as the file says; what comes while it is
    /// watched is as old as now. The time is taken after the length: by the time before it, the log had not
    /// yet grown so far, and on a busy machine lines of a run would be older than the run.
    pub(super) fn observe(
        &mut self,
        clock: &WallClock,
        listing: &mut Listing,
    ) -> io::Result<Option<Observed>> {
        let Ok(metadata) = std::fs::metadata(&self.path) else { return Ok(None) };
        if !metadata.is_file() {
            return Ok(None);
        }
        if let Some(index) = &mut self.index {
            let header = index.header();
            let measure = if header.step == Step::Rest {
                let (identity, length) = (identity(&metadata), metadata.len());
                Measure { identity, length, is_marked: false }
            } else {
                Measure::take(&std::fs::File::open(&self.path)?, Some(&header))?
            };
            return Ok(Some(index.observe(measure, nanos(clock()))));
        }
        let mut index = rotate::open(&self.path, |log| listing.has_rotated(log))?;
        // After that nothing is under way.
        let metadata = std::fs::metadata(&self.path)?;
        let measure =
            Measure { identity: identity(&metadata), length: metadata.len(), is_marked: false };
        let now = clock();
        let at = match metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok()) {
            Some(modified) if index.is_behind(measure) => (modified + TICK).min(now),
            _ => now,
        };
        let observed = index.observe(measure, nanos(at));
        self.index = Some(index);
        Ok(Some(observed))
    }

    /// Whether it is to be rotated now.
    pub(super) fn is_due(&self, extent: Extent, now: Timestamp) -> bool {
        let Rotation::From(position) = self.rotation else { return false };
        if self.expires.is_some_and(|expires| expires <= now) {
            return true;
        }
        let (Some(keep), Some(index)) = (&self.keep, &self.index) else { return false };
        let age = index.oldest().and_then(|oldest| age_of(oldest, now));
        extent.end >= position && is_due(&keep.spec, extent.end - extent.base, age)
    }

    /// Whether something was rotated that can get too old.
    pub(super) fn has_old_files(&self) -> bool {
        let has_limit = self.keep.as_ref().is_some_and(|keep| keep.spec.max_age.is_some());
        has_limit && self.index.as_ref().is_some_and(|index| index.header().stamp != 0)
    }

    /// A rotation is over.
    pub(super) fn end_rotation(&mut self, next: Next, expires: Option<Timestamp>) {
        self.expires = expires;
        let known = self.index.as_ref().map(Writer::known_end);
        self.rotation = match next {
            Next::Look => Rotation::From(0),
            Next::Growth => Rotation::From(known.map_or(0, |end| end.saturating_add(GROWTH))),
            Next::Reminder => Rotation::Later,
        };
    }
}

/// Times that do not fit (after 2262, before 1970) are those of the nearest that do.
fn nanos(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX).max(1)
}
