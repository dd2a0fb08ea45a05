//! What the next launch needs, made while there is nothing else to do.
//!
//! ```text
//!   run 17 is launched ── calm ─► group 18, and 18.run, which is empty ── 18 is launched ─► used
//!                                                    ├─ 19 is launched instead ─► removed
//!                                                    └─ no run is left ─────────► removed
//! ```
//!
//! A crash is answered by a launch, and a folder in the tree of groups and a file on a disk take a quarter
//! of the time that the keeper adds to it. The engine counts its runs up, so that the next number is known.
//! Storms find one of them ready, and make the others as they go.
//!
//! Invariant: to whoever comes after this keeper, both look like a launch that was broken off: an empty
//! record is of a program that never ran, and an empty group goes with the next sweep. An engine that begins
//! may remove that record while this keeper lives; what has no name any more is not used.
//!
//! Failure paths: what cannot be made ahead is made when it is needed, and that says what is wrong.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Access, AtFlags, Mode, OFlags};

use super::cgroup::{self, Groups};
use super::event_loop::Keeper;
use super::record;
use super::spawn::{Ground, MAX_RUN};
use crate::crash;
use crate::model::RunId;

/// The launch that is expected, and what there is for it.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// It was not looked at yet what can be made for this one.
    wanted: Option<RunId>,
    made: Option<Made>,
}

/// What is there for a launch.
#[derive(Debug)]
pub(super) struct Made {
    run: RunId,
    /// Its group, and that as a descriptor.
    pub(super) group: Option<(PathBuf, OwnedFd)>,
    /// Its record, which is empty.
    pub(super) record: Option<OwnedFd>,
}

impl Made {
    fn make(run: RunId, groups: Option<&Groups>, ground: &Ground) -> Self {
        let group = groups.and_then(|groups| groups.create(run).ok());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let record = rustix::fs::openat(&ground.records, record::file_name(run), flags, mode);
        Self { run, group, record: record.ok() }
    }

    /// What of it is still there: others may have removed it.
    fn what_is_left(mut self) -> Self {
        self.record
            .take_if(|record| !rustix::fs::fstat(record).is_ok_and(|found| found.st_nlink > 0));
        self.group.take_if(|(_, folder)| {
            rustix::fs::accessat(folder, c"cgroup.procs", Access::EXISTS, AtFlags::empty()).is_err()
        });
        self
    }
}

impl Ahead {
    /// Whether there is something to do once it is calm.
    pub(super) const fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }
}

impl Keeper {
    /// What there is for a launch. What there is for another one is removed when it is calm.
    pub(super) fn take_ahead(&mut self, run: RunId) -> Option<Made> {
        self.ahead.wanted = Some(RunId(run.0 + 1)).filter(|next| next.0 < MAX_RUN);
        let made = self.ahead.made.take()?;
        if made.run == run {
            return Some(made.what_is_left());
        }
        match made {
            Made { run, group, record: Some(_) } => {
                self.leave_behind(run, group.map(|(path, _)| path.into()));
            }
            unwritten => self.discard(unwritten),
        }
        None
    }

    /// It is calm: makes what the next launch needs, as long as there is something that may need one.
    pub(super) fn prepare(&mut self) {
        let wanted = self.ahead.wanted.take();
        if self.table.is_empty() {
            return self.remove_ahead();
        }
        let Some(run) = wanted else { return };
        self.remove_ahead();
        self.ahead.made = Some(Made::make(run, self.groups.as_ref(), &self.ground));
        crash::point("something is made ahead");
    }

    /// Nothing more will be launched by this program.
    pub(super) fn remove_ahead(&mut self) {
        self.ahead.wanted = None;
        if let Some(made) = self.ahead.made.take() {
            self.discard(made);
        }
    }

    /// A record of that name which was not made here is somebody else's.
    fn discard(&self, made: Made) {
        let group = made.group.as_ref().map(|(path, _)| &**path);
        match made.record {
            Some(_) => self.remove(made.run, group),
            None => group.into_iter().for_each(cgroup::remove),
        }
    }
}
