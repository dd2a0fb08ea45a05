//! What the keeper remembers: the truth about what runs.
//!
//! ```text
//!             ┌► Refused ──reaped──► Failed ──────────────────────────┐
//!   Launching ┤                                                       ├─ Ack ─► forgotten
//!             └► Running ──reaped──► Ended ── tree: Lingering ► Empty ┘
//!   (adopted) ──►─┘
//! ```
//!
//! There is no queue of messages. What the engine has yet to be told is a set of flags on each run, and
//! the message is made from the run as it is when it is sent. However slow the engine is, the memory
//! that this takes is bounded by the number of runs; and nothing is lost when it dies, because the next
//! one asks for everything.
//!
//! Invariants: a run whose phase holds a child has its pid in `children`, and the reverse; a run with
//! untold flags is in `dirty` exactly once.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use super::spawn::Barrier;
use super::wire::{Containment, Exited, FromKeeper, LaunchFailure, RunPhase, RunState, Spawned};
use crate::model::{Exit, RunId, Time};

/// One run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) key: Box<str>,
    pub(super) aux: bool,
    /// The main process; 0 if there never was one.
    pub(super) pid: u32,
    /// By which the end of a helper is noticed, also if its signal is merged with another's.
    pub(super) end: Option<OwnedFd>,
    pub(super) inode: u64,
    pub(super) spawned_at: Time,
    pub(super) origin: Origin,
    /// The folder of its cgroup.
    pub(super) group: Option<Box<Path>>,
    pub(super) phase: Phase,
    pub(super) tree: Tree,
    pub(super) order: Order,
    pub(super) owner: Owner,
    untold: u8,
}

/// What this keeper knows the main process from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// It is a child, or was one: what it leaves behind becomes a child as well.
    Child,
    /// It was alive, or a zombie, when it was adopted.
    Survivor,
    /// It never saw it. Its number, and that of its session, may be another's by now.
    Unseen,
}

/// What the main process is doing.
#[derive(Debug)]
pub(super) enum Phase {
    /// Forked, and not yet executed.
    Launching(Barrier),
    /// Executing it failed; the child is about to end.
    Refused(LaunchFailure),
    /// The program was executed.
    Running(Handle),
    /// It was never executed.
    Failed(LaunchFailure),
    /// It has ended.
    Ended { exit: Exit, at: Time, cpu: Duration },
}

/// By what a running main process is held.
#[derive(Debug)]
pub(super) enum Handle {
    /// It is a child: its number is its own until it is reaped.
    Child,
    /// It is the child of a keeper that is gone.
    Survivor(OwnedFd),
}

/// What is left of a run besides its main process.
#[derive(Debug)]
pub(super) enum Tree {
    /// The main process lives: there is no need to know.
    WithMain,
    /// The main process has ended, others have not.
    Lingering(Watch),
    /// Nothing is left.
    Empty,
}

/// By what the end of the last process of a tree is noticed.
#[derive(Debug)]
pub(super) enum Watch {
    /// The events of the cgroup.
    Events(OwnedFd),
    /// A pidfd of one of the processes that are left: before it ends, the tree cannot be empty.
    Witness { pidfd: OwnedFd, in_session: bool },
    /// No descriptor was to be had: looked at again whenever a child ends, and each second.
    Nothing,
}

/// What is to become of a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// It may live.
    Live,
    /// Whatever is found of it is killed.
    Die,
}

/// Who wants to hear of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// The engine, which acknowledges its end.
    Engine,
    /// Nobody: it is forgotten as soon as it is gone.
    Nobody,
}

/// What may have to be told of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum News {
    /// All of it. Makes up for all others.
    State = 1,
    /// It was executed.
    Spawned = 2,
    /// It failed, or its main process ended.
    Outcome = 4,
    /// Nothing of it is left.
    Gone = 8,
}

impl Run {
    pub(super) fn new(key: &str, aux: bool, phase: Phase) -> Self {
        Self {
            key: key.into(),
            aux,
            pid: 0,
            end: None,
            inode: 0,
            spawned_at: Time::ZERO,
            origin: Origin::Unseen,
            group: None,
            phase,
            tree: Tree::WithMain,
            order: Order::Live,
            owner: Owner::Engine,
            untold: 0,
        }
    }

    /// Nothing of it is left, and how it ended is known.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Failed(_) | Phase::Ended { .. })
            && matches!(self.tree, Tree::Empty)
    }

    fn exited(&self, run: RunId) -> Option<Exited> {
        let Phase::Ended { exit, at, cpu } = self.phase else { return None };
        Some(Exited { run, exit, at, empty: matches!(self.tree, Tree::Empty), cpu })
    }

    fn state(&self, run: RunId) -> RunState {
        let phase = match &self.phase {
            Phase::Launching(_) | Phase::Refused(_) => RunPhase::Launching,
            Phase::Running(_) => RunPhase::Running,
            Phase::Failed(failure) => RunPhase::Failed(failure.clone()),
            Phase::Ended { .. } => self.exited(run).map_or(RunPhase::Running, RunPhase::Ended),
        };
        let containment =
            if self.group.is_some() { Containment::Cgroup } else { Containment::BestEffort };
        RunState {
            run,
            key: self.key.to_string(),
            aux: self.aux,
            pid: self.pid,
            inode: self.inode,
            spawned_at: self.spawned_at,
            containment,
            phase,
        }
    }

    /// The next thing to tell, as it is now.
    fn next_news(&self, run: RunId) -> Option<(News, FromKeeper)> {
        let wants = |news: News| self.untold & news as u8 != 0;
        if wants(News::State) {
            return Some((News::State, FromKeeper::RunState(Box::new(self.state(run)))));
        }
        if wants(News::Spawned) {
            let spawned = Spawned { run, pid: self.pid, inode: self.inode, at: self.spawned_at };
            return Some((News::Spawned, FromKeeper::Spawned(spawned)));
        }
        if wants(News::Outcome) {
            let message = match &self.phase {
                Phase::Failed(failure) => Some(FromKeeper::SpawnFailed(failure.clone())),
                _ => self.exited(run).map(FromKeeper::Exited),
            };
            return message.map(|message| (News::Outcome, message));
        }
        wants(News::Gone).then_some((News::Gone, FromKeeper::Gone { run }))
    }
}

/// All runs.
#[derive(Debug, Default)]
pub(super) struct Table {
    runs: BTreeMap<RunId, Run>,
    /// The runs whose main process is a child that has not been reaped.
    children: BTreeMap<u32, RunId>,
    dirty: VecDeque<RunId>,
}

impl Table {
    pub(super) fn get(&self, run: RunId) -> Option<&Run> {
        self.runs.get(&run)
    }

    pub(super) fn get_mut(&mut self, run: RunId) -> Option<&mut Run> {
        self.runs.get_mut(&run)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (RunId, &Run)> {
        self.runs.iter().map(|(id, run)| (*id, run))
    }

    pub(super) fn insert(&mut self, id: RunId, run: Run) {
        self.runs.insert(id, run);
    }

    /// Adds a run whose main process is a child that has not been reaped.
    pub(super) fn insert_child(&mut self, id: RunId, run: Run) {
        self.children.insert(run.pid, id);
        self.insert(id, run);
    }

    /// This child has been reaped, or was by somebody else. The run whose main process it was, if any.
    pub(super) fn child_is_gone(&mut self, pid: u32) -> Option<RunId> {
        self.children.remove(&pid)
    }

    /// Whether this is the main process of a run, and has not been reaped.
    pub(super) fn has_child(&self, pid: u32) -> bool {
        self.children.contains_key(&pid)
    }

    pub(super) fn remove(&mut self, run: RunId) -> Option<Run> {
        self.runs.remove(&run)
    }

    /// The runs that `wanted` picks.
    pub(super) fn select(&self, wanted: impl Fn(&Run) -> bool) -> Vec<RunId> {
        self.runs.iter().filter(|(_, run)| wanted(run)).map(|(id, _)| *id).collect()
    }

    /// Marks something to be told. What nobody wants to hear is not.
    pub(super) fn announce(&mut self, id: RunId, news: News) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if run.owner == Owner::Nobody {
            return;
        }
        if run.untold == 0 {
            self.dirty.push_back(id);
        }
        run.untold |= news as u8;
    }

    /// Forgets what has not been told: a new engine will ask for everything.
    pub(super) fn clear_news(&mut self) {
        self.dirty.clear();
        for run in self.runs.values_mut() {
            run.untold = 0;
        }
    }

    /// Whether the end of this run has been marked and not yet told.
    pub(super) fn outcome_is_untold(&self, id: RunId) -> bool {
        let flags = News::Outcome as u8 | News::State as u8;
        self.runs.get(&id).is_some_and(|run| run.untold & flags != 0)
    }

    /// The next message, made from the run as it is now. Say [`Table::told`] once it is sent.
    pub(super) fn next_news(&mut self) -> Option<(RunId, News, FromKeeper)> {
        while let Some(id) = self.dirty.front().copied() {
            if let Some(run) = self.runs.get_mut(&id) {
                if let Some((news, message)) = run.next_news(id) {
                    return Some((id, news, message));
                }
                run.untold = 0;
            }
            self.dirty.pop_front();
        }
        None
    }

    /// The message that [`Table::next_news`] gave has been sent.
    pub(super) fn told(&mut self, id: RunId, news: News) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.untold = if news == News::State { 0 } else { run.untold & !(news as u8) };
            if run.untold == 0 && self.dirty.front() == Some(&id) {
                self.dirty.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended() -> Phase {
        Phase::Ended { exit: Exit::code(3), at: Time::from_secs(9), cpu: Duration::ZERO }
    }

    #[test]
    fn news_are_told_in_order_and_once() {
        let mut table = Table::default();
        let id = RunId(4);
        table.insert(id, Run::new("p/c.0", false, ended()));
        for news in [News::Gone, News::Outcome, News::Spawned, News::Outcome] {
            table.announce(id, news);
        }
        let mut told = Vec::new();
        while let Some((run, news, _)) = table.next_news() {
            table.told(run, news);
            told.push(news);
        }
        assert_eq!(told, [News::Spawned, News::Outcome, News::Gone]);
        assert!(table.next_news().is_none());
    }

    #[test]
    fn an_untold_message_stays_and_the_whole_state_makes_up_for_it() {
        let mut table = Table::default();
        let id = RunId(4);
        table.insert(id, Run::new("p/c.0", false, ended()));
        table.announce(id, News::Outcome);
        let first = table.next_news().unwrap();
        // Not sent: the socket was full. Meanwhile the tree became empty.
        table.get_mut(id).unwrap().tree = Tree::Empty;
        let FromKeeper::Exited(exited) = table.next_news().unwrap().2 else { panic!() };
        assert!(exited.empty);
        assert_eq!(first.1, News::Outcome);
        table.announce(id, News::State);
        let (run, news, _) = table.next_news().unwrap();
        assert_eq!(news, News::State);
        table.told(run, news);
        assert!(table.next_news().is_none());
    }

    #[test]
    fn a_run_that_is_forgotten_or_of_nobody_is_not_told_of() {
        let mut table = Table::default();
        table.insert(RunId(1), Run::new("p/c.0", false, ended()));
        table.announce(RunId(1), News::Outcome);
        table.remove(RunId(1));
        let mut aux = Run::new("p/c.0", true, ended());
        aux.owner = Owner::Nobody;
        table.insert(RunId(2), aux);
        table.announce(RunId(2), News::Outcome);
        assert!(table.next_news().is_none());
    }
}
