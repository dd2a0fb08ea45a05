//! Taking the head of a log away once it is copied, in steps between which anybody may die.
//!
//! ```text
//!   Announce   the journal says what is about to happen      died before: the copy is discarded
//!   NameIndex  NAME.log.part.idx gets its name
//!   NameCopy   NAME.log.part gets its name
//!   Mark       the log's first bytes are overwritten         died before: undone
//!   Confirm    the journal says that they are
//!   Remove     collapse, or truncate                         died before: undone
//!   Finish     a fresh index takes the place of the old one  died before: finished
//! ```
//! At each moment every position is in exactly one place for those who read by position: before Mark in
//! the log, after it in the rotated file.
//!
//! Failure paths: a step that fails is undone as a death before it would be (see `recover`). Where that
//! fails as well, the log stays as it is, readers know what is where, and the next one tries again.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation};

use super::copy::{Copy, draft, draft_index};
use crate::crash;
use crate::logs::header::MARKER;
use crate::logs::index::{Header, Measure, Step, Writer};

/// How the head is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// The file is shortened from its front, while it is written to.
    Collapse,
    /// The file is emptied; nobody may write to it meanwhile.
    Truncate,
}

/// One step; the order is that of the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Announce,
    NameIndex,
    NameCopy,
    Mark,
    Confirm,
    Remove,
    Finish,
}

impl Stage {
    /// What must be done while nobody writes, where the log is emptied.
    pub(super) const URGENT: [Self; 6] =
        [Self::Announce, Self::NameIndex, Self::NameCopy, Self::Mark, Self::Confirm, Self::Remove];
}

/// A removal that is under way.
#[derive(Debug)]
pub(super) struct Removal {
    log: PathBuf,
    file: File,
    way: Way,
    /// How many bytes.
    bytes: u64,
    copy: Option<Copy>,
    token: u64,
}

impl Removal {
    /// Prepares to remove the bytes before the position `end`, which are in `copy` unless they are not
    /// to be kept. `token` is a number that nobody can guess.
    pub(super) fn new(
        log: &Path,
        file: File,
        writer: &Writer,
        way: Way,
        end: u64,
        copy: Option<Copy>,
        token: u64,
    ) -> io::Result<Self> {
        let header = writer.header();
        let measure = Measure::take(&file, Some(&header))?;
        let view = writer.view(measure);
        if header.step != Step::Rest || view.base != header.base {
            return Err(changed());
        }
        let bytes = end.checked_sub(view.base).ok_or_else(changed)?;
        let fits = match way {
            Way::Collapse => bytes < measure.length,
            Way::Truncate => bytes == measure.length,
        };
        if !fits || bytes < MARKER as u64 || copy.is_some_and(|copy| copy.end != end) {
            return Err(changed());
        }
        Ok(Self { log: log.to_owned(), file, way, bytes, copy, token })
    }

    /// Takes one step.
    pub(super) fn take(&self, stage: Stage, writer: &mut Writer) -> io::Result<()> {
        crash::point(match stage {
            Stage::Announce => "a rotation has copied",
            Stage::NameIndex => "a rotation is announced",
            Stage::NameCopy => "an index of a rotation has its name",
            Stage::Mark => "a copy of a rotation has its name",
            Stage::Confirm => "a log is marked",
            Stage::Remove => "the mark of a log is confirmed",
            Stage::Finish => "the head of a log is removed",
        });
        let header = writer.header();
        match stage {
            Stage::Announce => {
                let mut head = [0; MARKER];
                self.file.read_exact_at(&mut head, 0)?;
                writer.save_durably(Header {
                    step: Step::Copied,
                    next_base: header.base + self.bytes,
                    token: self.token,
                    head,
                    making: self.copy.map_or(0, |copy| copy.stamp.0),
                    ..header
                })
            }
            Stage::NameIndex => match self.copy {
                Some(copy) => fs::rename(draft_index(&self.log), copy.stamp.index(&self.log)?),
                None => Ok(()),
            },
            Stage::NameCopy => match self.copy {
                Some(copy) => {
                    fs::rename(draft(&self.log), copy.stamp.path(&self.log, copy.packed)?)?;
                    sync_folder(&self.log)
                }
                None => Ok(()),
            },
            Stage::Mark => self.file.write_all_at(&header.marker(), 0),
            Stage::Confirm => writer.save_durably(Header { step: Step::Marked, ..header }),
            Stage::Remove => match self.way {
                Way::Collapse => {
                    let flags = FallocateFlags::COLLAPSE_RANGE;
                    Ok(rustix::fs::fallocate(&self.file, flags, 0, self.bytes)?)
                }
                // Somebody who has escaped from what holds the component together may have written.
                Way::Truncate if self.file.metadata()?.len() != self.bytes => Err(changed()),
                Way::Truncate => self.file.set_len(0),
            },
            Stage::Finish => writer.begin_after_head(),
        }
    }
}

fn changed() -> io::Error {
    io::Error::other("the log was changed by somebody else")
}

/// What was renamed in the folder of a log is on the disk afterwards.
fn sync_folder(log: &Path) -> io::Result<()> {
    File::open(log.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Opens a log for changing it, and locks it: an engine that was killed may still be in the middle of a
/// step, if the disk keeps it waiting. The lock ends with that step.
pub(super) fn open(log: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(log)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(io::Error::new(io::ErrorKind::WouldBlock, "the log is locked by another process"))
        }
        Err(error) => Err(error.into()),
    }
}
