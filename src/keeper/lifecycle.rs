//! From fork to the last grandchild: what happens to runs by themselves.
//!
//! ```text
//!   barrier: end of file ─► Running, or Refused until reaped
//!   SIGCHLD, or a survivor's pidfd ─► Ended ─► settle
//!   settle: is anything left? ── no ─► Empty: told, kept until acknowledged
//!              │ yes (kill it, if so ordered)
//!              └─► Lingering: wait for the cgroup's event, or for one of those that are left;
//!                  then settle again
//! ```
//!
//! Failure paths: a child that ends before the barrier said anything died before its program was
//! executed. Where no descriptor is left, those kept in reserve are used for the look; where none is left
//! to wait with either, a tree is looked at again whenever a child ends, and each second. It is never
//! taken for empty because it could not be looked at.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::cgroup::Population;
use super::console::say;
use super::event_loop::{Keeper, LONGEST_STORM};
use super::identity::{self, Fate};
use super::poller::Source;
use super::spawn::Passage;
use super::sys::{self, Reaped};
use super::table::{Handle, News, Order, Origin, Owner, Phase, Run, Tree, Watch};
use super::tree::{self, Marks};
use super::wire::{Detail, LaunchFailure};
use super::{cgroup, clock, record};
use crate::crash;
use crate::model::exit::signal_name;
use crate::model::{Exit, ExitStatus, LaunchStage, RunId};

/// Without cgroups a tree is looked through this often in a row while new processes turn up in it;
/// after that, again when one of those that were seen has ended.
const KILL_PASSES: u32 = 32;

impl Keeper {
    /// The barrier of a launch has something to say.
    pub(super) fn handle_barrier(&mut self, id: RunId) {
        let Some(run) = self.table.get_mut(id) else { return };
        let Phase::Launching(barrier) = &mut run.phase else { return };
        let phase = match barrier.read(id) {
            Passage::Executed { inode } => {
                run.inode = inode;
                Phase::Running(Handle::Child)
            }
            Passage::Failed(failure) => Phase::Refused(failure),
            // An end of file without a word: the child is gone, and SIGCHLD is on its way.
            Passage::Died => Phase::Refused(died(id, ExitStatus::Unknown)),
            Passage::Pending => return,
        };
        self.poller.unwatch(&*barrier);
        if let Some(stack) = barrier.take_stack() {
            self.stacks.give(stack);
        }
        crash::point("a barrier is passed");
        let was_executed = matches!(phase, Phase::Running(_));
        run.phase = phase;
        if was_executed {
            self.table.announce(id, News::Spawned);
        }
    }

    /// A main process that was our child has ended.
    pub(super) fn main_reaped(&mut self, id: RunId, reaped: &Reaped) {
        // What the barrier says outranks how the child ended.
        self.handle_barrier(id);
        let status = identity::exit_status(reaped.status);
        let Some(run) = self.table.get_mut(id) else { return };
        if let Some(end) = run.end.take() {
            self.poller.unwatch(end);
        }
        let failure = match &run.phase {
            Phase::Refused(failure) if failure.detail != Detail::Died => Some(failure.clone()),
            Phase::Refused(_) | Phase::Launching(_) => Some(died(id, status)),
            Phase::Running(_) | Phase::Failed(_) | Phase::Ended { .. } => None,
        };
        match failure {
            Some(failure) => run.phase = Phase::Failed(failure),
            None => self.main_ended(id, status, reaped.cpu),
        }
    }

    /// The pidfd of a survivor is ready.
    pub(super) fn handle_survivor(&mut self, id: RunId) {
        let Some(run) = self.table.get(id) else { return };
        let Phase::Running(Handle::Survivor(pidfd)) = &run.phase else { return };
        if let Fate::Ended(status) = identity::fate(pidfd.as_fd(), run.pid) {
            self.main_ended(id, status, Duration::ZERO);
            self.oom_kills.look();
            self.settle(id);
        }
    }

    pub(super) fn main_ended(&mut self, id: RunId, status: ExitStatus, cpu: Duration) {
        let was_killed = status == ExitStatus::Signal(libc::SIGKILL);
        let own = if was_killed { self.own_oom_kills(id) } else { None };
        let Some(run) = self.table.get_mut(id) else { return };
        let oom = was_killed
            && match own {
                Some(own) => own > 0,
                None => run.order == Order::Live && self.oom_kills.have_risen(),
            };
        if oom {
            // The count is taken for told of after the next sweep. Until then somebody else's kill would be
            // put down to it.
            self.sweeps.hurry();
        }
        if let Phase::Running(Handle::Survivor(pidfd)) = &run.phase {
            self.poller.unwatch(pidfd);
        }
        run.phase = Phase::Ended { exit: Exit { status, oom }, at: clock::now(), cpu };
    }

    /// How many processes of a run the out-of-memory killer has ended, where its group counts them.
    fn own_oom_kills(&self, id: RunId) -> Option<u64> {
        let group = self.table.get(id)?.group.as_deref()?;
        let is_counted = self.groups.as_ref().is_none_or(|groups| groups.counts_memory);
        is_counted.then(|| cgroup::oom_kills(group)).flatten()
    }

    /// Looks what is left of a run whose main process is gone.
    pub(super) fn settle(&mut self, id: RunId) {
        let Some(run) = self.table.get(id) else { return };
        if matches!(run.phase, Phase::Launching(_) | Phase::Refused(_) | Phase::Running(_))
            || matches!(run.tree, Tree::Empty)
        {
            return;
        }
        let is_first_look = matches!(run.tree, Tree::WithMain);
        let never_ran = matches!(run.phase, Phase::Failed(_));
        let mut watch = if never_ran { None } else { self.kill_and_look(id) };
        if matches!(watch, Some(Watch::Nothing)) {
            self.spare.lend();
            watch = self.kill_and_look(id);
            self.spare.fill(&self.ground.null);
        }
        if matches!(watch, Some(Watch::Nothing)) {
            self.plan_blind_look();
        }
        let is_empty = watch.is_none();
        if let Some(run) = self.table.get_mut(id) {
            match &run.tree {
                Tree::Lingering(Watch::Events(watched) | Watch::Witness { pidfd: watched, .. }) => {
                    self.poller.unwatch(watched);
                }
                Tree::Lingering(Watch::Nothing) | Tree::WithMain | Tree::Empty => {}
            }
            run.tree = watch.map_or(Tree::Empty, Tree::Lingering);
        }
        if is_first_look {
            self.table.announce(id, News::Outcome);
        } else if is_empty && !self.table.outcome_is_untold(id) {
            self.table.announce(id, News::Gone);
        }
        if is_empty {
            self.tree_is_empty(id, never_ran);
        }
    }

    fn tree_is_empty(&mut self, id: RunId, never_ran: bool) {
        if never_ran {
            // A program that never ran needs no record, and a daemon to come must not find one.
            self.remove_traces(id);
        }
        if self.table.get(id).is_some_and(|run| run.owner == Owner::Nobody) {
            self.forget(id);
        }
    }

    /// Kills what is left of a run, if so ordered, and looks whether anything is.
    fn kill_and_look(&self, id: RunId) -> Option<Watch> {
        if self.table.get(id)?.order == Order::Die {
            self.kill_processes(id);
        }
        self.look(id)
    }

    /// Whether something is left of a run whose main process is gone: by what its end will be noticed.
    fn look(&self, id: RunId) -> Option<Watch> {
        let run = self.table.get(id)?;
        if let Some(group) = &run.group {
            let watch = |events: &OwnedFd| {
                self.poller.watch(events, Source::Tree(id), EventFlags::PRI).is_ok()
            };
            return match cgroup::watch(group) {
                Population::Empty => None,
                Population::Some(events) if watch(&events) => Some(Watch::Events(events)),
                Population::Some(_) | Population::Unknown => Some(Watch::Nothing),
            };
        }
        if self.has_no_orphans(run) {
            return None;
        }
        let tag = self.ground.variable(id);
        let never = self.never();
        let marks = marks(run, &tag, &never);
        let Ok(members) = tree::members(&marks) else { return Some(Watch::Nothing) };
        if members.is_empty() {
            return None;
        }
        let witness = members.witness(&marks).filter(|(pidfd, _)| {
            let flags = EventFlags::IN | EventFlags::ONESHOT;
            self.poller.watch(pidfd, Source::Tree(id), flags).is_ok()
        });
        match witness {
            Some((pidfd, in_session)) => Some(Watch::Witness { pidfd, in_session }),
            // Either they all ended while we looked, or there is no descriptor to hold one with.
            None if tree::members(&marks).is_ok_and(|members| members.is_empty()) => None,
            None => Some(Watch::Nothing),
        }
    }

    /// The cheap answer of the usual case: what is left of a child of ours has become a child of ours,
    /// so that nothing is left where there are no unknown children.
    fn has_no_orphans(&self, run: &Run) -> bool {
        run.origin == Origin::Child
            && tree::own_children().is_some_and(|children| {
                children.iter().all(|pid| {
                    self.table.has_child(*pid)
                        || self.engine.pid() == Some(*pid)
                        || self.freezers.contains_key(pid)
                })
            })
    }

    /// Processes that belong to no run, whatever their environment says.
    fn never(&self) -> Vec<u32> {
        // A freezer is a fork of the keeper that looks itself.
        let own = [Some(self.ground.keeper), Some(std::process::id()), self.engine.pid()];
        own.into_iter().flatten().chain(self.freezers.keys().copied()).collect()
    }

    /// Orders that nothing of a run may live, and begins with it.
    pub(super) fn kill_tree(&mut self, id: RunId) {
        let Some(run) = self.table.get_mut(id) else { return };
        if matches!(run.tree, Tree::Empty) {
            return;
        }
        run.order = Order::Die;
        let main_is_gone = matches!(run.phase, Phase::Ended { .. });
        self.signal_main(id, libc::SIGKILL);
        if main_is_gone {
            self.settle(id);
        } else {
            self.spare.lend();
            self.kill_processes(id);
            self.spare.fill(&self.ground.null);
        }
    }

    fn kill_processes(&self, id: RunId) {
        let Some(run) = self.table.get(id) else { return };
        if let Some(group) = &run.group {
            if !cgroup::kill(group) {
                for_each_in_group(group, |_, pidfd| {
                    let _ = sys::signal_pidfd(pidfd, libc::SIGKILL);
                });
            }
            return;
        }
        let mut killed = BTreeSet::new();
        for _ in 0..KILL_PASSES {
            let mut is_new = false;
            self.for_each_by_marks(id, |pid, pidfd| {
                let _ = sys::signal_pidfd(pidfd, libc::SIGKILL);
                is_new |= killed.insert((pid, identity::inode(pidfd)));
            });
            if !is_new {
                return;
            }
        }
    }

    /// Sends a signal to all processes of a run.
    pub(super) fn signal_tree(&mut self, id: RunId, signal: i32) {
        self.spare.lend();
        self.for_each_process(id, |_, pidfd| {
            let _ = sys::signal_pidfd(pidfd, signal);
        });
        self.spare.fill(&self.ground.null);
    }

    /// Acts on each process of a run, by whatever it is held together. False: that cannot be known.
    pub(super) fn for_each_process(
        &self,
        id: RunId,
        mut act: impl FnMut(u32, BorrowedFd<'_>),
    ) -> bool {
        match self.table.get(id).and_then(|run| run.group.as_deref()) {
            Some(group) => {
                for_each_in_group(group, &mut act);
                true
            }
            None => self.for_each_by_marks(id, act),
        }
    }

    /// False: /proc cannot be read.
    fn for_each_by_marks(&self, id: RunId, mut act: impl FnMut(u32, BorrowedFd<'_>)) -> bool {
        let Some(run) = self.table.get(id) else { return true };
        let tag = self.ground.variable(id);
        let never = self.never();
        let marks = marks(run, &tag, &never);
        let Ok(members) = tree::members(&marks) else { return false };
        for pid in members.pids() {
            if let Some(pidfd) = members.hold(pid, &marks) {
                act(pid, pidfd.as_fd());
            }
        }
        true
    }

    /// Sends a signal to the main process, if it has not ended.
    pub(super) fn signal_main(&self, id: RunId, signal: i32) {
        let Some(run) = self.table.get(id) else { return };
        let result = match &run.phase {
            Phase::Launching(_) | Phase::Refused(_) | Phase::Running(Handle::Child) => {
                sys::signal_child(run.pid, signal)
            }
            Phase::Running(Handle::Survivor(pidfd)) => sys::signal_pidfd(pidfd.as_fd(), signal),
            Phase::Failed(_) | Phase::Ended { .. } => return,
        };
        match result {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => say(format_args!(
                "cannot send {} to {} (process {}): {errno}",
                signal_name(signal),
                run.key,
                run.pid
            )),
        }
    }

    /// The engine is gone: its helpers have nobody left to help.
    pub(super) fn end_helpers(&mut self) {
        for id in self.table.select(|run| run.aux && run.owner == Owner::Engine) {
            let Some(run) = self.table.get_mut(id) else { continue };
            run.owner = Owner::Nobody;
            if run.is_over() {
                self.forget(id);
            } else {
                self.kill_tree(id);
            }
        }
    }

    /// Forgets a run. Its record and its cgroup are removed once it is calm, or a second later: nobody waits
    /// for that, and a daemon that comes before sees that nothing of the run is left.
    pub(super) fn forget(&mut self, id: RunId) {
        if let Some(run) = self.table.remove(id) {
            self.leftovers.push_back((id, run.group));
            self.clean_by.get_or_insert_with(|| clock::now() + LONGEST_STORM);
        }
    }

    /// Removes some of what is left of runs that are forgotten.
    pub(super) fn clean_up(&mut self, most: usize) {
        for _ in 0..most {
            let Some((id, group)) = self.leftovers.pop_front() else { break };
            self.remove(id, group.as_deref());
        }
        if self.leftovers.is_empty() {
            self.clean_by = None;
            if self.table.is_empty() {
                self.remove_ahead();
            }
        }
    }

    /// Removes the record of a run, and its group.
    pub(super) fn remove(&self, id: RunId, group: Option<&Path>) {
        let name = record::file_name(id);
        let _ = rustix::fs::unlinkat(&self.ground.records, name, AtFlags::empty());
        crash::point("the record is removed");
        if let Some(group) = group {
            cgroup::remove(group);
        }
    }

    fn remove_traces(&self, id: RunId) {
        self.remove(id, self.table.get(id).and_then(|run| run.group.as_deref()));
    }
}

/// Acts on each process of a group. Between the list and the pidfd the number may have gone to somebody
/// else, so the process is asked once more.
fn for_each_in_group(group: &Path, mut act: impl FnMut(u32, BorrowedFd<'_>)) {
    for pid in cgroup::members(group) {
        let Some(pidfd) = identity::open(pid) else { continue };
        if cgroup::holds(group, pid) && identity::is_alive(pidfd.as_fd()) {
            act(pid, pidfd.as_fd());
        }
    }
}

/// A child that ended before its program was executed.
fn died(id: RunId, status: ExitStatus) -> LaunchFailure {
    let subject = Exit { status, oom: false }.to_string().into_bytes();
    // No call failed, so there is no error number; zero is not one that `Errno` can hold.
    LaunchFailure { run: id, stage: LaunchStage::Exec, errno: 0, detail: Detail::Died, subject }
}

/// By what the processes of a run are recognised, given what is known of its main process.
fn marks<'a>(run: &Run, tag: &'a [u8], never: &'a [u32]) -> Marks<'a> {
    let main_lives =
        matches!(run.phase, Phase::Launching(_) | Phase::Refused(_) | Phase::Running(_));
    let session_is_certain = match &run.tree {
        Tree::WithMain => run.origin != Origin::Unseen,
        Tree::Lingering(Watch::Witness { in_session, .. }) => *in_session,
        Tree::Lingering(_) | Tree::Empty => false,
    };
    Marks {
        main: main_lives.then_some(run.pid),
        session: (session_is_certain && run.pid > 0).then_some(run.pid),
        tag,
        never,
    }
}
