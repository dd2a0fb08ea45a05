//! Descriptors kept in reserve, so that a keeper that has none left still sees whether anything lives.
//!
//! A look at a cgroup or at /proc needs a descriptor for a moment. Were there none, a run whose main
//! process has ended could neither be found empty nor be killed, and nothing would be started in its
//! place. Launches have no part in this: a component that cannot be started says so and is tried again.

use std::os::fd::OwnedFd;

/// What the deepest look needs at one time: a folder, a file in it, a pidfd and one to keep.
const ENOUGH: usize = 4;

/// The reserve. They are taken early, so that their numbers are below every limit set later.
#[derive(Debug, Default)]
pub(super) struct Spare {
    kept: Vec<OwnedFd>,
}

impl Spare {
    /// As many as there should be, or as many as can be had.
    pub(super) fn fill(&mut self, null: &OwnedFd) {
        while self.kept.len() < ENOUGH {
            let Ok(one) = null.try_clone() else { return };
            self.kept.push(one);
        }
    }

    /// Closes them, for somebody who needs their places. To be followed by [`Self::fill`].
    pub(super) fn lend(&mut self) {
        self.kept.clear();
    }
}
