//! Children that have ended: finding them, and taking them out of the process table.

use std::process::ExitCode;

use super::event_loop::Keeper;
use super::sys::{self, Reaped};
use crate::crash;
use crate::model::RunId;

impl Keeper {
    /// Reaps the children that are said to have ended, and acts on that. Some code if the daemon ends.
    ///
    /// Signals of one kind are merged, so that others may have ended as well. Looking for these takes the
    /// longer the more children there are, and whoever waits for the ends that are known need not wait
    /// for that: it is put off until they are told.
    pub(super) fn reap_known(&mut self, pids: &[u32]) -> Option<ExitCode> {
        self.is_unswept = true;
        let mut code = None;
        let mut ended = Vec::new();
        for pid in pids {
            if let Some(reaped) = sys::reap(Some(*pid)) {
                code = code.or(self.reaped(&reaped, &mut ended));
            }
        }
        // Without a group, orphans that have ended as well must be gone before the look at the tree.
        let is_grouped = |run: &RunId| self.table.get(*run).is_some_and(|run| run.group.is_some());
        if !ended.iter().all(is_grouped) {
            code = code.or(self.sweep(&mut ended));
        }
        self.settle_all(ended);
        code
    }

    /// Reaps every child that has ended. Some code if the daemon ends.
    pub(super) fn reap_children(&mut self) -> Option<ExitCode> {
        let mut ended = Vec::new();
        let code = self.sweep(&mut ended);
        self.settle_all(ended);
        code
    }

    /// Whatever has ended, and was not known to have.
    fn sweep(&mut self, ended: &mut Vec<RunId>) -> Option<ExitCode> {
        self.is_unswept = false;
        let mut code = None;
        while let Some(reaped) = sys::reap(None) {
            code = code.or(self.reaped(&reaped, ended));
        }
        // Only now: several may have been killed for want of memory at one time.
        self.oom_kills.look();
        code
    }

    fn reaped(&mut self, reaped: &Reaped, ended: &mut Vec<RunId>) -> Option<ExitCode> {
        crash::point("reaped");
        if self.engine.pid() == Some(reaped.pid) {
            return self.engine_ended(reaped.status);
        }
        if let Some(run) = self.table.pids.remove(&reaped.pid) {
            self.main_reaped(run, reaped);
            ended.push(run);
        } else if let Some(freezer) = self.freezers.remove(&reaped.pid) {
            self.freezer_ended(freezer);
        }
        // Anything else is an orphan that some run left to us: its end is noticed by whoever
        // waits for the tree.
        None
    }

    /// Looks at the trees of runs whose main process was reaped.
    fn settle_all(&mut self, ended: Vec<RunId>) {
        for run in ended {
            self.settle(run);
        }
        if self.blind_look.is_some() {
            self.settle_blind();
        }
    }
}
