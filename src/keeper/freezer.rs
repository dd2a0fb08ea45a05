//! Holding everything of a component still for a moment, so that its log can be emptied.
//!
//! ```text
//!   engine ── Freeze{key}, a socket ─► keeper ── fork ─► freezer: freeze ── "F" ─► engine
//!                                                           │                        │ its work
//!                                                           └─ thaw ◄── end of file ─┘
//! ```
//! The freezer is a process of its own, which waits for the end of that socket and for nothing else.
//! The kernel closes it when the engine lets go of it, and also when the engine dies or executes another
//! program, but not before the last of its threads has come out of the kernel. So nothing stays frozen
//! whoever dies, the keeper among them, and nothing is thawed while a file is still being emptied.
//!
//! With a cgroup its freezer is used. Without one all processes are stopped, again and again until no
//! other turns up; those that were stopped already stay so afterwards. A signal that is sent meanwhile
//! is held back by the keeper then, for SIGCONT would set them going.
//!
//! Failure paths
//! * Something cannot be frozen in time (it waits for a disk): everything is thawed, and the socket
//!   closed without a word.
//! * The engine stands still with the socket in its hand: after `LONGEST` it is killed.
//! * The freezer is killed: the keeper thaws when it reaps it. If the keeper is gone as well, a file
//!   beside the record of the run, `17.still`, tells the next one. While a freezer lives it holds a lock
//!   on that file.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFlags, Timespec};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::console::say;
use super::event_loop::Keeper;
use super::identity::{self, Stat};
use super::poller::poll_one;
use super::sys::{self, Forked};
use super::table::{Phase, Run, Tree};
use super::wire::Scope;
use super::{cgroup, clock, raw, tree};
use crate::model::{RunId, Time};

/// What the freezer says once nothing moves.
pub const FROZEN: u8 = b'F';

/// How long it may take until nothing moves.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest time for which anything is frozen.
const LONGEST: Duration = Duration::from_secs(5);

/// How often processes are looked at that have been told to stop.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// How often a tree is looked through while new processes turn up in it.
const PASSES: u32 = 32;

/// A freezer that is at work.
#[derive(Debug)]
pub(super) struct Freezer {
    runs: Vec<RunId>,
    /// Signals that are sent once it is over.
    held_back: Vec<Message>,
}

/// A signal, to whom, and whether SIGCONT follows.
type Message = (RunId, i32, Scope, bool);

impl Keeper {
    /// Holds everything that belongs to an instance still until the other end of `channel` is closed.
    pub(super) fn freeze(&mut self, key: &str, channel: &OwnedFd) {
        let moves = |run: &Run| {
            !run.aux
                && *run.key == *key
                && !matches!(run.phase, Phase::Failed(_))
                && !matches!(run.tree, Tree::Empty)
        };
        let runs = self.table.select(moves);
        if runs.is_empty() {
            // An engine that is gone by now needs no answer.
            let _ = rustix::io::write(channel, &[FROZEN]);
            return;
        }
        let engine = self.engine.pid().and_then(identity::open);
        match sys::fork_into(None) {
            Ok(Forked::Child) => self.be_freezer(&runs, channel, engine.as_ref()),
            Ok(Forked::Parent(pid)) => {
                self.freezers.insert(pid, Freezer { runs, held_back: Vec::new() });
            }
            Err(errno) => say(format_args!("cannot hold {key} still: {errno}")),
        }
    }

    /// Whether a signal has to wait because its receiver is stopped for the moment; it is kept then.
    pub(super) fn hold_back(
        &mut self,
        run: RunId,
        signal: i32,
        scope: Scope,
        resume: bool,
    ) -> bool {
        // A frozen cgroup keeps signals itself.
        if self.table.get(run).is_none_or(|run| run.group.is_some()) {
            return false;
        }
        let freezer = self.freezers.values_mut().find(|freezer| freezer.runs.contains(&run));
        let Some(freezer) = freezer else { return false };
        freezer.held_back.push((run, signal, scope, resume));
        true
    }

    /// A freezer has been reaped.
    pub(super) fn freezer_ended(&mut self, freezer: Freezer) {
        for run in freezer.runs {
            self.thaw_abandoned(run);
        }
        for (run, signal, scope, resume) in freezer.held_back {
            self.signal(run, signal, scope, resume);
        }
    }

    /// Thaws a run whose freezer was killed before it could.
    pub(super) fn thaw_abandoned(&mut self, id: RunId) {
        let name = mark_of(id);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let Ok(mark) = rustix::fs::openat(&self.ground.records, &name, flags, Mode::empty()) else {
            return;
        };
        if rustix::fs::flock(&mark, FlockOperation::NonBlockingLockExclusive).is_err() {
            // It lives, and does so itself.
            return;
        }
        say(format_args!("run {id} was left frozen; it is thawed"));
        match self.table.get(id).and_then(|run| run.group.as_deref()) {
            Some(group) => {
                cgroup::set_frozen(group, false);
            }
            None => self.signal_tree(id, libc::SIGCONT),
        }
        let _ = rustix::fs::unlinkat(&self.ground.records, &name, AtFlags::empty());
    }

    /// In the child: lives as a freezer.
    fn be_freezer(&self, runs: &[RunId], channel: &OwnedFd, engine: Option<&OwnedFd>) -> ! {
        let _ = nix::unistd::setsid();
        let _ = rustix::thread::set_name(c"stigmer-freezer");
        // Above all the lock of the home, and the keeper's end of the connection.
        let needed = [Some(channel), Some(&self.ground.records), engine];
        sys::close_all_but(needed.into_iter().flatten().map(AsRawFd::as_raw_fd));
        let deadline = clock::now() + PATIENCE;
        let mut frozen = Vec::new();
        let mut all_still = true;
        for id in runs {
            let (run, still) = self.freeze_run(*id, deadline);
            frozen.push(run);
            all_still &= still;
            if !still {
                break;
            }
        }
        if all_still && rustix::io::write(channel, &[FROZEN]).is_ok() {
            wait_for_end(channel, engine);
        }
        for run in frozen.into_iter().rev() {
            run.thaw(self);
        }
        raw::exit_now(0)
    }

    fn freeze_run(&self, id: RunId, deadline: Time) -> (Frozen<'_>, bool) {
        let Some(mark) = self.make_mark(id, deadline) else {
            // Without a mark nobody would know; so nothing is frozen.
            return (Frozen { id, group: None, stopped: Vec::new(), mark: None }, false);
        };
        let group = self.table.get(id).and_then(|run| run.group.as_deref());
        let group = group.filter(|group| cgroup::set_frozen(group, true));
        let mut frozen = Frozen { id, group, stopped: Vec::new(), mark: Some(mark) };
        let still = match group {
            Some(group) => cgroup::wait_frozen(group, deadline),
            None => self.stop_tree(id, &mut frozen.stopped, deadline),
        };
        (frozen, still)
    }

    /// Makes the mark of a run and locks it. A freezer before this one may still be about to end.
    fn make_mark(&self, id: RunId, deadline: Time) -> Option<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        loop {
            let mark = rustix::fs::openat(&self.ground.records, mark_of(id), flags, mode).ok()?;
            let locked = rustix::fs::flock(&mark, FlockOperation::NonBlockingLockExclusive);
            // One that was removed meanwhile marks nothing.
            if locked.is_ok() && rustix::fs::fstat(&mark).is_ok_and(|stat| stat.st_nlink > 0) {
                return Some(mark);
            }
            if clock::now() >= deadline {
                return None;
            }
            pause(LOOK_AGAIN);
        }
    }

    /// Stops all processes of a run. True: nothing of it moves.
    fn stop_tree(&self, id: RunId, stopped: &mut Vec<OwnedFd>, deadline: Time) -> bool {
        let mut seen = BTreeSet::new();
        for _ in 0..PASSES {
            let mut is_new = false;
            let told = self.for_each_process(id, |pid, pidfd| {
                if !seen.insert((pid, identity::inode(pidfd))) {
                    return;
                }
                is_new = true;
                // Stopped by somebody else, and to stay so.
                let was_stopped = Stat::read(pid).is_some_and(|stat| stat.state == b'T');
                if !was_stopped
                    && sys::signal_pidfd(pidfd, libc::SIGSTOP).is_ok()
                    && let Ok(pidfd) = pidfd.try_clone_to_owned()
                {
                    stopped.push(pidfd);
                }
            });
            if !told {
                return false;
            }
            if !is_new {
                return true;
            }
            let pids: Vec<u32> = seen.iter().map(|(pid, _)| *pid).collect();
            while !tree::are_still(&pids) {
                if clock::now() >= deadline {
                    return false;
                }
                pause(LOOK_AGAIN);
            }
        }
        false
    }
}

/// What was done to a run.
struct Frozen<'a> {
    id: RunId,
    /// Frozen as a whole; otherwise process by process.
    group: Option<&'a Path>,
    stopped: Vec<OwnedFd>,
    mark: Option<OwnedFd>,
}

impl Frozen<'_> {
    fn thaw(self, keeper: &Keeper) {
        if let Some(group) = self.group {
            cgroup::set_frozen(group, false);
        }
        for pidfd in &self.stopped {
            // One that was killed meanwhile needs nothing more.
            let _ = sys::signal_pidfd(pidfd.as_fd(), libc::SIGCONT);
        }
        if self.mark.is_some() {
            let records = &keeper.ground.records;
            let _ = rustix::fs::unlinkat(records, mark_of(self.id), AtFlags::empty());
        }
    }
}

/// The file that says that a run is held still.
fn mark_of(run: RunId) -> String {
    format!("{run}.still")
}

/// Waits until nobody holds the other end of the channel any more.
fn wait_for_end(channel: &OwnedFd, engine: Option<&OwnedFd>) {
    if has_ended(channel, Some(LONGEST)) {
        return;
    }
    if let Some(engine) = engine {
        say(format_args!("the engine holds a component still for too long; it is replaced"));
        let _ = sys::signal_pidfd(engine.as_fd(), libc::SIGKILL);
    }
    has_ended(channel, None);
}

fn has_ended(channel: &OwnedFd, timeout: Option<Duration>) -> bool {
    let deadline = timeout.map(|timeout| clock::now() + timeout);
    loop {
        let left = deadline.map(|deadline| deadline.since(clock::now()));
        match poll_one(channel.as_fd(), PollFlags::IN, left) {
            Ok(0) => return false,
            Ok(_) => match rustix::io::read(channel, &mut [0; 16]) {
                Ok(0) => return true,
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return true,
            },
            Err(Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}

/// In the freezer alone, which has nothing else to do.
fn pause(duration: Duration) {
    let timeout = Timespec::try_from(duration).ok();
    let _ = rustix::event::poll(&mut [], timeout.as_ref());
}
