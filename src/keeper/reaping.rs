//! Children that have ended: finding them, and taking them out of the process table.
//!
//! ```text
//!   SIGCHLD ─► the child that it names
//!         └──► all others: a sweep, once that one is told of; put off where it takes long
//!   a helper's pidfd ─► that helper
//! ```
//!
//! Signals of one kind are merged, so that of the end of a child no signal may tell. To find any child that
//! has ended, the kernel goes through them, from the oldest to the newest: 0.1 µs for each, in which no
//! other process can begin or end. One that is asked for by its number is found at once. Hence a sweep that
//! took long is not done again for nineteen times as long, 20 ms at most.
//!
//! Helpers have a pidfd each. They end in masses (a thousand exec probes a second), so that many signals are
//! merged, and they are the last to be found.
//!
//! Deliberately absent: a pidfd of each component. The kernel copies and closes all descriptors of the keeper
//! in every child that it starts: with thousands that would take longer than the sweeps.

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::epoll::EventFlags;

use super::event_loop::Keeper;
use super::poller::Source;
use super::sys::{self, Reaped};
use super::{clock, identity};
use crate::crash;
use crate::model::{RunId, Time};

/// Going through all children may take this long at every end: one or two thousand take so long.
const SHORT: Duration = Duration::from_micros(200);

/// So many times as long as a longer one took, the next one is put off: a twentieth of the time is spent on it.
const PAUSE: u32 = 19;

/// At most so long, also if something else had the processor in the middle of it.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// After so long a sweep stops, whatever there may be to find.
const LONGEST_SWEEP: Duration = Duration::from_millis(20);

/// When all children are gone through.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    /// Children may have ended that no signal tells of.
    are_wanted: bool,
    not_before: Time,
    /// Whatever has ended is to be found, however long that takes.
    are_to_find_all: bool,
}

/// What going through the children up to the first that has ended has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    Nothing,
    /// A helper that has a pidfd, by which others like it are found as well, and a group, without which all
    /// would have to be found.
    Helper,
    /// Anything else.
    Other,
}

/// What is to be done next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// The same once more.
    Again,
    /// The next sweep goes on with it.
    Later,
    /// Nothing is left.
    Over,
}

impl Sweeps {
    /// When the next one is due, if there is a reason for one.
    pub(super) fn due(&self) -> Option<Time> {
        self.are_wanted.then_some(self.not_before)
    }

    /// The next one is not put off, and finds all that have ended.
    pub(super) fn hurry(&mut self) {
        self.not_before = Time::ZERO;
        self.are_to_find_all = true;
    }

    fn are_put_off(&self, now: Time) -> bool {
        self.not_before > now
    }

    /// Children were gone through from `begun` to `now`, in a sweep that ends at `stop_at`.
    fn looked(&mut self, begun: Time, now: Time, stop_at: Time, found: Found) -> Next {
        let taken = now.since(begun);
        let not_before = now + pause_after(taken);
        if found == Found::Nothing {
            *self = Self { not_before, ..Self::default() };
            return Next::Over;
        }
        self.are_wanted = true;
        if now >= stop_at {
            // It goes on as soon as what was found is told.
            self.not_before = now;
            return Next::Later;
        }
        if found == Found::Helper && taken > SHORT && !self.are_to_find_all {
            // Where helpers end all the time, there would always be another one.
            self.not_before = not_before;
            return Next::Later;
        }
        Next::Again
    }
}

fn pause_after(taken: Duration) -> Duration {
    if taken <= SHORT { Duration::ZERO } else { (taken * PAUSE).min(LONGEST_PAUSE) }
}

/// What is done about children that have ended.
#[derive(Default)]
struct Outcome {
    /// The runs whose main process they were.
    ended: Vec<RunId>,
    /// The daemon ends.
    code: Option<ExitCode>,
}

impl Keeper {
    /// Reaps the children that are said to have ended, and acts on that. Some code if the daemon ends.
    ///
    /// Others may have ended as well, but whoever waits for the ends that are known need not wait until
    /// they are found.
    pub(super) fn reap_known(&mut self, pids: &[u32]) -> Option<ExitCode> {
        self.sweeps.are_wanted = true;
        let mut outcome = Outcome::default();
        self.ask(pids, &mut outcome);
        self.sweep_for_orphans(&mut outcome);
        if self.sweeps.are_put_off(clock::now()) {
            self.ask_urgent(&mut outcome);
        }
        self.settle_all(outcome)
    }

    /// Reaps every child that has ended. Some code if the daemon ends.
    pub(super) fn reap_children(&mut self) -> Option<ExitCode> {
        let mut outcome = Outcome::default();
        self.sweep(&mut outcome);
        self.settle_all(outcome)
    }

    /// Without a group, orphans that have ended as well must be gone before the look at the tree: with them
    /// it takes far longer.
    fn sweep_for_orphans(&mut self, outcome: &mut Outcome) {
        let is_grouped = |run: &RunId| self.table.get(*run).is_some_and(|run| run.group.is_some());
        if !outcome.ended.iter().all(is_grouped) {
            self.sweeps.hurry();
            self.sweep(outcome);
        }
    }

    /// Whatever has ended, and was not known to have. It stops early where helpers end all the time: who is
    /// younger than the one that was found is left to the next sweep. And after a while in any case: who was
    /// found is to be told of, and others have something to say as well.
    fn sweep(&mut self, outcome: &mut Outcome) {
        let stop_at = clock::now() + LONGEST_SWEEP;
        loop {
            let begun = clock::now();
            let reaped = sys::reap(None);
            let now = clock::now();
            let found = reaped.map_or(Found::Nothing, |reaped| self.reaped(&reaped, outcome));
            match self.sweeps.looked(begun, now, stop_at, found) {
                Next::Again => {}
                Next::Later => return self.ask_urgent(outcome),
                // Only now: several may have been killed for want of memory at one time.
                Next::Over => return self.oom_kills.look(),
            }
        }
    }

    /// Reaps those of these children that have ended.
    fn ask(&mut self, pids: &[u32], outcome: &mut Outcome) {
        for pid in pids {
            if let Some(reaped) = sys::reap(Some(*pid)) {
                self.reaped(&reaped, outcome);
            }
        }
    }

    /// The engine and freezers, without which nothing goes on. And who was killed for want of memory is to be
    /// found while the count still tells of it.
    fn ask_urgent(&mut self, outcome: &mut Outcome) {
        let freezers = self.freezers.keys().copied();
        let urgent: Vec<u32> = self.engine.pid().into_iter().chain(freezers).collect();
        self.ask(&urgent, outcome);
        if self.oom_kills.have_risen() {
            self.sweeps.hurry();
        }
    }

    /// Waits for the end of a helper that was launched just now. Without a descriptor for it, a signal or a
    /// sweep will tell.
    pub(super) fn watch_end(&self, id: RunId, pid: u32) -> Option<OwnedFd> {
        let pidfd = identity::open(pid)?;
        // Edge-triggered: of one that a debugger holds nothing can be taken yet.
        let flags = EventFlags::IN | EventFlags::ET;
        self.poller.watch(&pidfd, Source::Helper(id), flags).ok().map(|()| pidfd)
    }

    /// The pidfd of a helper is ready. Some code if the daemon ends.
    pub(super) fn helper_ended(&mut self, id: RunId) -> Option<ExitCode> {
        let pid = self.table.get(id)?.pid;
        if !self.table.has_child(pid) {
            return None;
        }
        let mut outcome = Outcome::default();
        self.ask(&[pid], &mut outcome);
        self.sweep_for_orphans(&mut outcome);
        self.settle_all(outcome)
    }

    fn reaped(&mut self, reaped: &Reaped, outcome: &mut Outcome) -> Found {
        crash::point("reaped");
        if self.engine.pid() == Some(reaped.pid) {
            outcome.code = outcome.code.or(self.engine_ended(reaped.status));
        } else if let Some(run) = self.table.child_is_gone(reaped.pid) {
            let is_told_otherwise =
                self.table.get(run).is_some_and(|run| run.end.is_some() && run.group.is_some());
            self.main_reaped(run, reaped);
            outcome.ended.push(run);
            if is_told_otherwise {
                return Found::Helper;
            }
        } else if let Some(freezer) = self.freezers.remove(&reaped.pid) {
            self.freezer_ended(freezer);
        }
        // Anything else is an orphan that some run left to us: its end is noticed by whoever
        // waits for the tree.
        Found::Other
    }

    /// Looks at the trees of runs whose main process was reaped.
    fn settle_all(&mut self, outcome: Outcome) -> Option<ExitCode> {
        for run in outcome.ended {
            self.settle(run);
        }
        if self.blind_look.is_some() {
            self.settle_blind();
        }
        outcome.code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: Time = Time::from_secs(9);
    const LONG: Duration = Duration::from_micros(300);

    /// One look of so long, at the begin of a sweep.
    fn look(sweeps: &mut Sweeps, taken: Duration, found: Found) -> Next {
        sweeps.looked(BEGUN, BEGUN + taken, BEGUN + LONGEST_SWEEP, found)
    }

    #[test]
    fn going_through_all_children_takes_at_most_a_twentieth_of_the_time() {
        for (taken, pause) in [(0, 0), (200, 0), (201, 3_819), (300, 5_700), (90_000, 20_000)] {
            let mut sweeps = Sweeps { are_wanted: true, ..Sweeps::default() };
            let (taken, pause) = (Duration::from_micros(taken), Duration::from_micros(pause));
            assert_eq!(look(&mut sweeps, taken, Found::Nothing), Next::Over);
            assert_eq!(sweeps.not_before, BEGUN + taken + pause, "after {taken:?}");
            assert_eq!(sweeps.due(), None);
            assert_eq!(sweeps.are_put_off(BEGUN + taken), !pause.is_zero());
        }
    }

    #[test]
    fn only_helpers_that_end_all_the_time_are_not_waited_for() {
        let mut sweeps = Sweeps::default();
        assert_eq!(look(&mut sweeps, SHORT, Found::Helper), Next::Again);
        assert_eq!(look(&mut sweeps, LONG, Found::Other), Next::Again);
        assert_eq!(look(&mut sweeps, LONG, Found::Helper), Next::Later);
        assert_eq!(sweeps.due(), Some(BEGUN + LONG + LONG * PAUSE));
        assert_eq!(look(&mut sweeps, LONG, Found::Nothing), Next::Over);
        assert_eq!(sweeps.due(), None);
    }

    #[test]
    fn a_sweep_ends_in_time_and_the_next_one_goes_on_at_once() {
        for find_all in [false, true] {
            let mut sweeps = Sweeps { are_to_find_all: find_all, ..Sweeps::default() };
            assert_eq!(look(&mut sweeps, LONGEST_SWEEP, Found::Other), Next::Later);
            assert_eq!(sweeps.due(), Some(BEGUN + LONGEST_SWEEP));
            assert_eq!(sweeps.are_to_find_all, find_all);
        }
    }

    #[test]
    fn fault_17_who_was_killed_for_want_of_memory_is_found_at_once() {
        let mut sweeps = Sweeps::default();
        assert_eq!(look(&mut sweeps, LONG, Found::Helper), Next::Later);
        assert!(sweeps.are_put_off(BEGUN + LONG));
        sweeps.hurry();
        assert!(!sweeps.are_put_off(BEGUN + LONG));
        assert_eq!(look(&mut sweeps, LONG, Found::Helper), Next::Again);
        assert_eq!(look(&mut sweeps, LONG, Found::Nothing), Next::Over);
        assert_eq!(look(&mut sweeps, LONG, Found::Helper), Next::Later);
    }
}
