//! One rotation: what is done beside the writers, and what is done with the log in hand.
//!
//! ```text
//!   prepare (takes its time)          carry out (short)
//!   look ── decide ── copy ─────────> mark, remove, finish ── retain
//! ```
//! Blocking, all of it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::FallocateFlags;

use super::Held;
use super::copy::{Copier, Copy, discard, draft};
use super::decide::{ALIGN, Head, by_collapsing, is_due, superfluous};
use super::recover::recover;
use super::removal::{self, Removal, Stage, Way};
use super::retain::{make_room, retain};
use crate::logs::WallClock;
use crate::logs::index::{Measure, Step, Summary, View, Writer, index_path, record};
use crate::model::spec::LogSpec;

/// A rest of this length is copied while nobody writes; a longer one is caught up with before.
const REST: u64 = 256 * 1024;

/// A rest of this length is compressed while nobody writes.
const QUICK: u64 = 1024 * 1024;

/// How often it is tried to catch up with a writer that is faster.
const PASSES: usize = 3;

/// What is prepared.
pub(super) enum Prepared {
    /// There is nothing to remove.
    Nothing,
    /// Everything before this position is to be cut off.
    Cut { file: File, end: u64, copy: Option<Copy> },
    /// The log is to be emptied; almost all of it is copied, unless nothing is to be kept.
    Empty { file: File, copier: Option<Box<Copier>> },
}

impl Prepared {
    /// It comes to nothing.
    pub(super) fn discard(self, log: &Path) -> io::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            // Its lock is held until then.
            Self::Cut { .. } | Self::Empty { .. } => discard(log),
        }
    }
}

/// Which folders' and which files' heads cannot be removed by collapsing.
#[derive(Debug, Default)]
pub(super) struct Ways {
    devices: Mutex<HashMap<u64, bool>>,
    odd_ones: Mutex<Vec<PathBuf>>,
}

impl Ways {
    fn can_collapse(&self, log: &Path, file: &File) -> io::Result<bool> {
        if lock(&self.odd_ones).iter().any(|odd| odd == log) {
            return Ok(false);
        }
        let device = file.metadata()?.dev();
        let known = lock(&self.devices).get(&device).copied();
        if let Some(known) = known {
            return Ok(known);
        }
        // Only a file system itself knows: overlayfs passes it on to whatever lies below.
        discard(log)?;
        let trial = File::create_new(draft(log))?;
        let tried = trial.set_len(2 * ALIGN).and_then(|()| {
            Ok(rustix::fs::fallocate(&trial, FallocateFlags::COLLAPSE_RANGE, 0, ALIGN)?)
        });
        discard(log)?;
        let can = tried.is_ok();
        lock(&self.devices).insert(device, can);
        Ok(can)
    }

    fn cannot(&self, log: &Path) {
        lock(&self.odd_ones).push(log.to_owned());
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Decides, and copies what is to be kept.
pub(super) fn prepare(
    log: &Path,
    spec: &LogSpec,
    clock: &WallClock,
    ways: &Ways,
) -> io::Result<Prepared> {
    let file = match removal::open(log) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Prepared::Nothing),
        Err(error) => return Err(error),
    };
    let summary = Summary::load(log)?;
    let Some(header) = summary.header.filter(|header| header.step == Step::Rest) else {
        return Ok(Prepared::Nothing);
    };
    let measure = Measure::take(&file, Some(&header))?;
    let view = summary.view(measure);
    let age = age(log, clock())?;
    if !is_due(spec, measure.length, age) {
        return Ok(Prepared::Nothing);
    }
    loop {
        let source = file.try_clone()?;
        let copier = |start| Copier::begin(log, source, view, header, start, spec.compress);
        let prepared = if ways.can_collapse(log, &file)? {
            let block = rustix::fs::fstatfs(&file)?.f_bsize;
            let block = u64::try_from(block).unwrap_or(ALIGN);
            match by_collapsing(spec, measure.length, age, block) {
                None => return Ok(Prepared::Nothing),
                Some(Head::Drop(bytes)) => {
                    let end = view.base + bytes;
                    return Ok(Prepared::Cut { file, end, copy: None });
                }
                Some(Head::Keep(bytes)) => copier(view.base).and_then(|mut copier| {
                    copier.copy_to(view.base + bytes)?;
                    Ok(Ready::Cut(copier.finish(clock())?))
                }),
            }
        } else if spec.max_files == 0 {
            return Ok(Prepared::Empty { file, copier: None });
        } else {
            copier(view.base + superfluous(spec, measure.length)).and_then(|mut copier| {
                catch_up(&mut copier, &file, view)?;
                Ok(Ready::Empty(Box::new(copier)))
            })
        };
        match prepared {
            Ok(Ready::Cut(copy)) => {
                return Ok(Prepared::Cut { file, end: copy.end, copy: Some(copy) });
            }
            Ok(Ready::Empty(copier)) => {
                return Ok(Prepared::Empty { file, copier: Some(copier) });
            }
            Err(error) => {
                discard(log)?;
                let is_full = error.kind() == io::ErrorKind::StorageFull;
                // What this file would displace anyway makes room for it.
                if !is_full || !make_room(log, view.base, spec)? {
                    return Err(error);
                }
            }
        }
    }
}

enum Ready {
    Cut(Copy),
    Empty(Box<Copier>),
}

/// How long ago the oldest line of the log was seen.
fn age(log: &Path, now: Timestamp) -> io::Result<Option<Duration>> {
    let index = File::open(index_path(log))?;
    let oldest = match record(&index, 0) {
        Ok(oldest) => oldest,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
        Err(error) => return Err(error),
    };
    Ok(oldest.and_then(|oldest| age_of(oldest.nanos, now)))
}

/// How long ago that was.
pub(in crate::logs) fn age_of(nanos: i64, now: Timestamp) -> Option<Duration> {
    let at = Timestamp::from_nanosecond(i128::from(nanos)).ok()?;
    Duration::try_from(now.duration_since(at)).ok()
}

/// Copies until there is little left to copy, or the writer turns out to be faster.
fn catch_up(copier: &mut Copier, file: &File, view: View) -> io::Result<()> {
    for _ in 0..PASSES {
        let end = view.end(file.metadata()?.len());
        if end.saturating_sub(copier.position()) <= REST {
            break;
        }
        copier.copy_to(end)?;
    }
    Ok(())
}

/// Cuts off a head that is prepared.
pub(super) fn cut(
    log: &Path,
    file: File,
    writer: &mut Writer,
    end: u64,
    copy: Option<Copy>,
    ways: &Ways,
) -> io::Result<()> {
    let removal = Removal::new(log, file, writer, Way::Collapse, end, copy, token()?);
    let done = removal.and_then(|removal| {
        Stage::URGENT.iter().try_for_each(|stage| {
            let taken = removal.take(*stage, writer);
            if *stage == Stage::Remove
                && let Err(error) = &taken
                && matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
            {
                ways.cannot(log);
            }
            taken
        })?;
        removal.take(Stage::Finish, writer)
    });
    settle(log, writer, done)
}

/// Empties a log that nobody writes to for as long as `held` lives.
pub(super) fn empty(
    log: &Path,
    file: File,
    writer: &mut Writer,
    copier: Option<Box<Copier>>,
    clock: &WallClock,
    held: Held,
) -> io::Result<()> {
    let done = empty_held(log, file, writer, copier, clock);
    drop(held);
    let done = done.and_then(|removal| removal.take(Stage::Finish, writer));
    settle(log, writer, done)
}

fn empty_held(
    log: &Path,
    file: File,
    writer: &mut Writer,
    copier: Option<Box<Copier>>,
    clock: &WallClock,
) -> io::Result<Removal> {
    let measure = Measure::take(&file, Some(&writer.header()))?;
    let end = writer.view(measure).end(measure.length);
    let copy = match copier {
        Some(mut copier) => {
            if end.saturating_sub(copier.position()) > QUICK {
                copier.hurry()?;
            }
            copier.copy_to(end)?;
            Some(copier.finish(clock())?)
        }
        None => None,
    };
    let removal = Removal::new(log, file, writer, Way::Truncate, end, copy, token()?)?;
    Stage::URGENT.iter().try_for_each(|stage| removal.take(*stage, writer))?;
    Ok(removal)
}

/// What failed is undone, or finished, as far as it had come.
fn settle(log: &Path, writer: &mut Writer, done: io::Result<()>) -> io::Result<()> {
    if done.is_ok() {
        return Ok(());
    }
    recover(log, writer)?;
    done
}

/// Everything that comes after the removal, or without one.
pub(super) fn tidy(
    log: &Path,
    writer: &mut Writer,
    spec: &LogSpec,
    now: Timestamp,
) -> io::Result<Option<Timestamp>> {
    if writer.header().step != Step::Rest {
        recover(log, writer)?;
    }
    retain(log, writer, spec, now)
}

/// A number that nobody can guess.
fn token() -> io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_le_bytes(bytes))
}
