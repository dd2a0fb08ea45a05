//! Which rotated files are kept.
//!
//! The oldest go when there are more than `max_files`, those without which `max_files` times `max_size`
//! bytes are kept nevertheless (some are larger, see `decide`), and those that were rotated longer ago
//! than `max_age`. A log that is no longer declared is left alone: taking a component out of a manifest, or
//! a project down, deletes nothing.
//!
//! Failure paths: a file that cannot be removed is an error, and it stays counted.

use std::io;
use std::path::Path;

use jiff::Timestamp;

use super::copy::remove;
use super::decide::ALIGN;
use crate::logs::index::{Header, Writer};
use crate::logs::rotated::{self, Rotated, Stamp};
use crate::model::spec::LogSpec;

/// Removes what is not to be kept. Answers until when the oldest file is to be kept; `None` if it does
/// not get too old.
pub(super) fn retain(
    log: &Path,
    writer: &mut Writer,
    spec: &LogSpec,
    now: Timestamp,
) -> io::Result<Option<Timestamp>> {
    let base = writer.header().base;
    let found = rotated::find(log, Some(base))?;
    for orphan in found.orphans {
        // That of a file which is about to get its name has it already.
        if orphan.0 != writer.header().making {
            remove(&orphan.index(log)?)?;
        }
    }
    let superfluous = found.files.len().saturating_sub(spec.max_files as usize);
    let enough = spec.max_size.max(ALIGN).saturating_mul(u64::from(spec.max_files));
    let mut kept = Vec::new();
    for (place, file) in found.files.into_iter().enumerate() {
        let is_too_much = place < superfluous || base - file.end >= enough;
        let is_old = expiry(file.stamp, spec).is_some_and(|expiry| expiry <= now);
        if is_too_much || is_old {
            delete(log, &file)?;
        } else {
            kept.push(file);
        }
    }
    let first = kept.first().map_or(base, |file| file.start);
    if first != writer.header().first {
        writer.save(Header { first, ..writer.header() })?;
    }
    Ok(kept.first().and_then(|file| expiry(file.stamp, spec)))
}

/// Removes the oldest file of those that the next one would displace; false if there is none.
pub(super) fn make_room(log: &Path, base: u64, spec: &LogSpec) -> io::Result<bool> {
    let files = rotated::find(log, Some(base))?.files;
    match files.first() {
        Some(oldest) if files.len() >= spec.max_files as usize => {
            delete(log, oldest)?;
            Ok(true)
        }
        Some(_) | None => Ok(false),
    }
}

fn delete(log: &Path, file: &Rotated) -> io::Result<()> {
    remove(&file.path)?;
    remove(&file.stamp.index(log)?)
}

/// Until when a file is to be kept.
fn expiry(stamp: Stamp, spec: &LogSpec) -> Option<Timestamp> {
    let made = Timestamp::from_millisecond(i64::try_from(stamp.0).ok()?).ok()?;
    made.checked_add(spec.max_age?).ok()
}
