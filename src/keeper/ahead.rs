//! What the next launch needs, made while there is nothing else to do.
//!
//! ```text
//!   run 17 is launched ── calm ─► group 18, and 18.run, which is empty ── 18 is launched ─► used
//!                                            │ 19 is launched instead ─► stays for 18 until it is calm,
//!                                            │                           then removed: 20 is next
//!                                            └ no run is left ─► removed
//! ```
//!
//! A crash is answered by a launch, and a folder in the tree of groups and a file on a disk take a quarter
//! of the time that the keeper adds to it. The engine counts the runs of components up, so that the next number
//! is known, if not when it comes: a launch that has something to fetch first may be overtaken. Helpers have
//! numbers of their own, and nothing is made for them. Storms find one of them ready, and make the others
//! as they go.
//!
//! Invariant: to whoever comes after this keeper, both look like a launch that was broken off: an empty
//! record is of a program that never ran, and an empty group goes with the next sweep. An engine that begins
//! may remove that record while this keeper lives; what has no name any more is not used.
//!
//! Failure paths: what cannot be made ahead is made when it is needed, and that says what is wrong.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Access, AtFlags, Stat, fstat, statat};

use super::cgroup::{self, Groups};
use super::event_loop::Keeper;
use super::record;
use super::spawn::{Ground, MAX_RUN};
use crate::crash;
use crate::model::RunId;

/// The launch that is expected, and what there is for it.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// The highest number that was launched.
    last: RunId,
    /// Something was launched since it was looked at what can be made.
    is_wanted: bool,
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
        let record = record::create(&ground.records, &record::file_c_name(run)).ok();
        Self { run, group, record }
    }

    /// What of it is still there: others may have removed it.
    fn what_is_left(mut self, ground: &Ground) -> Self {
        let name = record::file_name(self.run);
        self.record.take_if(|record| {
            let found = statat(&ground.records, &name, AtFlags::SYMLINK_NOFOLLOW);
            let which = |stat: Stat| (stat.st_dev, stat.st_ino);
            // Not by the number of its names: on a file server one that was removed and is open has one.
            found.map(which) != fstat(record).map(which)
        });
        self.group.take_if(|(_, folder)| {
            rustix::fs::accessat(folder, c"cgroup.procs", Access::EXISTS, AtFlags::empty()).is_err()
        });
        self
    }
}

impl Ahead {
    /// Whether there is something to do once it is calm.
    pub(super) const fn is_wanted(&self) -> bool {
        self.is_wanted
    }
}

impl Keeper {
    /// What there is for a launch.
    pub(super) fn take_ahead(&mut self, run: RunId, aux: bool) -> Option<Made> {
        let ahead = &mut self.ahead;
        if !aux {
            ahead.last = ahead.last.max(run);
            ahead.is_wanted = true;
        }
        let made = ahead.made.take_if(|made| made.run == run)?;
        Some(made.what_is_left(&self.ground))
    }

    /// It is calm: makes what the next launch needs, as long as there is something that may need one.
    pub(super) fn prepare(&mut self) {
        self.ahead.is_wanted = false;
        if self.table.is_empty() {
            return self.remove_ahead();
        }
        let run = RunId(self.ahead.last.0 + 1);
        if self.ahead.made.as_ref().is_some_and(|made| made.run == run) {
            return;
        }
        self.remove_ahead();
        if run.0 < MAX_RUN && self.table.get(run).is_none() {
            self.ahead.made = Some(Made::make(run, self.groups.as_ref(), &self.ground));
            crash::point("something is made ahead");
        }
    }

    /// Removes what was made for the next launch.
    pub(super) fn remove_ahead(&mut self) {
        if let Some(made) = self.ahead.made.take() {
            self.discard(&made);
        }
    }

    /// A record of that name which was not made here is somebody else's.
    fn discard(&self, made: &Made) {
        let group = made.group.as_ref().map(|(path, _)| &**path);
        match made.record {
            Some(_) => self.remove(made.run, group),
            None => group.into_iter().for_each(cgroup::remove),
        }
    }
}
