//! Becoming another program in place: an upgrade under running components.
//!
//! ```text
//!   engine ── Replace{program} ─► keeper: write the estate ── exec ──► the new program, same process
//!                                                 │ fails                 │ read the estate
//!                 ◄── NotReplaced ────────────────┘      cannot be read ──┤
//!                                     exec of the program before ◄────────┘ else: the old engine is
//!                                                                           killed, a new one started
//! ```
//!
//! An exec keeps the process: its number, its children, whose parent it stays, signals that are
//! pending, and every descriptor that is not marked. So nobody else notices: not the components, not
//! who waits in the queue of a held socket, not systemd.
//!
//! Failure paths
//! * The program cannot be executed: nothing has happened, and it is said.
//! * It cannot take over: it executes the program before it, which gets the same estate.
//! * It dies: the old engine, which still has its connection, becomes a keeper (see `engine`).
//! * Three of its engines end before one is at work: the program before it is executed.
//!
//! Deliberately absent: any judgement of the program. Whoever asks has tried it out (see `upgrade`).

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::FdFlags;

use super::config::KeeperConfig;
use super::console::say;
use super::estate::{self, Contents, Estate, EstateError};
use super::event_loop::{Ending, Keeper, Matter};
use super::poller::Source;
use super::sys;
use super::table::{Handle, Phase, Run, Tree, Watch};
use crate::crash;
use crate::model::{Exit, ExitStatus, RunId};

/// How many engines in a row may end before one is at work until the program before is taken again. The
/// engine that was replaced is one of them.
const TRIES: u32 = 4;

impl Keeper {
    /// Shows the engine what would be handed over.
    pub(super) fn rehearse(&mut self) {
        let (bytes, _) = estate::write(&self.contents());
        match sealed(&bytes, MemfdFlags::CLOEXEC) {
            Ok(memory) => {
                self.outbox.estate = Some(memory);
                self.outbox.matters.insert(Matter::Estate);
            }
            Err(error) => self.not_replaced(format!("no memory to write the estate to: {error}")),
        }
    }

    /// Hands over to another program, or tells why not.
    pub(super) fn replace(&mut self, program: Vec<u8>) {
        let why = match CString::new(program) {
            Ok(_) if self.ending != Ending::NotAsked => "the daemon is ending".to_owned(),
            Ok(program) => {
                let error = self.hand_over(&program, true);
                format!("cannot execute {}: {error}", program.to_string_lossy())
            }
            Err(_) => "the path of the program has a NUL in it".to_owned(),
        };
        say(format_args!("not replaced: {why}"));
        self.not_replaced(why);
    }

    fn not_replaced(&mut self, why: String) {
        self.outbox.refusal = Some(why);
        self.outbox.matters.insert(Matter::NotReplaced);
    }

    /// The engine is at work, so the program is good.
    pub(super) fn settle_in(&mut self) {
        self.previous = None;
    }

    /// An engine has ended. Where none of this program has ever been at work, the program before it is
    /// taken again.
    pub(super) fn consider_going_back(&mut self) {
        if self.engine.short_lives() < TRIES {
            return;
        }
        let Some(previous) = self.previous.take() else { return };
        say(format_args!(
            "no engine of this program gets to work: going back to the program before it"
        ));
        if let Ok(program) = CString::new(link_of(previous.as_raw_fd())) {
            let error = self.hand_over(&program, false);
            say(format_args!("cannot go back: {error}"));
        }
    }

    fn contents(&self) -> Contents<'_> {
        let ending = match self.ending {
            Ending::NotAsked => None,
            Ending::Asked(signal) => Some(signal),
            Ending::Done(asked) => asked,
        };
        let engine = self.engine.pid().zip(self.engine.socket().map(AsFd::as_fd));
        Contents {
            started_at: self.started_at,
            nofile: self.ground.nofile,
            ending,
            reload: self.outbox.matters.contains(&Matter::Reload),
            lock: self.lock.as_fd(),
            engine,
            held: &self.held,
            table: &self.table,
        }
    }

    /// Executes a program that takes over. Comes back only with the reason why that cannot be; then
    /// everything is as before.
    fn hand_over(&mut self, program: &CString, may_go_back: bool) -> io::Error {
        // It is not a part of the estate.
        self.clean_up(usize::MAX);
        self.remove_ahead();
        let (bytes, mut passed) = estate::write(&self.contents());
        let memory = match sealed(&bytes, MemfdFlags::empty()) {
            Ok(memory) => memory,
            Err(error) => return error,
        };
        let myself = match myself() {
            Ok(myself) => myself,
            Err(error) => return error,
        };
        let config = KeeperConfig {
            lock_fd: None,
            ready_fd: None,
            // They are in the estate.
            held: Vec::new(),
            adopt: false,
            estate_fd: Some(memory.as_raw_fd()),
            previous_fd: may_go_back.then_some(myself.as_raw_fd()),
            ..self.config.clone()
        };
        if may_go_back {
            passed.push(myself.as_raw_fd());
        }
        crash::point("about to hand over");
        let marked = mark(&passed, FdFlags::empty());
        let error = marked.map_or_else(|error| error, |()| execute(program, &config));
        // Each of them is ours, and open.
        let _ = mark(&passed, FdFlags::CLOEXEC);
        error
    }

    /// Takes over what another program of this process has handed over.
    pub(super) fn inherit(&mut self, estate: Estate) {
        crash::point("the estate is read");
        self.started_at = estate.started_at;
        self.held.extend(estate.held);
        self.ending = estate.ending.map_or(Ending::NotAsked, Ending::Asked);
        if estate.reload {
            self.outbox.matters.insert(Matter::Reload);
        }
        for (id, mut run) in estate.runs {
            self.watch_inherited(id, &mut run);
            if is_child(&run) {
                self.table.insert_child(id, run);
            } else {
                self.table.insert(id, run);
            }
        }
        if let Some((pid, socket)) = estate.engine {
            // Its connection is kept, so that it does not take this keeper for dead; it is told nothing.
            self.engine.inherit(pid, socket);
            crash::point("about to end the old engine");
            self.kill_engine();
        }
        say(format_args!(
            "version {} has taken over in place; {} runs go on",
            env!("CARGO_PKG_VERSION"),
            self.table.iter().count()
        ));
    }

    fn watch_inherited(&self, id: RunId, run: &mut Run) {
        let watched = match &run.phase {
            Phase::Launching(barrier) => {
                self.poller.watch(barrier, Source::Barrier(id), EventFlags::IN)
            }
            Phase::Running(Handle::Survivor(pidfd)) => {
                let flags = EventFlags::IN | EventFlags::ET;
                self.poller.watch(pidfd, Source::Survivor(id), flags)
            }
            Phase::Refused(_)
            | Phase::Running(Handle::Child)
            | Phase::Failed(_)
            | Phase::Ended { .. } => Ok(()),
        };
        if let Err(errno) = watched {
            say(format_args!("cannot watch {}: {errno}", run.key));
            // Nobody would hear of its end. The one whose launch cannot be watched is a child, and
            // heard of when it is reaped.
            if matches!(run.phase, Phase::Running(_)) {
                let (at, cpu) = (super::clock::now(), Duration::ZERO);
                run.phase = Phase::Ended { exit: Exit::unknown(), at, cpu };
            }
        }
        let watched = match &run.tree {
            Tree::Lingering(Watch::Events(events)) => {
                self.poller.watch(events, Source::Tree(id), EventFlags::PRI)
            }
            Tree::Lingering(Watch::Witness { pidfd, .. }) => {
                let flags = EventFlags::IN | EventFlags::ONESHOT;
                self.poller.watch(pidfd, Source::Tree(id), flags)
            }
            Tree::Lingering(Watch::Nothing) | Tree::WithMain | Tree::Empty => Ok(()),
        };
        if watched.is_err() {
            run.tree = Tree::Lingering(Watch::Nothing);
        }
    }

    /// After taking over: looks at what may have happened while nobody waited for it.
    pub(super) fn catch_up(&mut self) -> Option<std::process::ExitCode> {
        // The program before may have handed over between an end and the look at what it left.
        let is_unsettled = |run: &Run| match run.tree {
            Tree::Lingering(_) => true,
            Tree::WithMain => matches!(run.phase, Phase::Ended { .. } | Phase::Failed(_)),
            Tree::Empty => false,
        };
        for run in self.table.select(is_unsettled) {
            self.settle(run);
        }
        let survivor = |run: &Run| matches!(run.phase, Phase::Running(Handle::Survivor(_)));
        for run in self.table.select(survivor) {
            self.handle_survivor(run);
        }
        // A script in between, waiting for a command of its own, may have taken the end of a child.
        let child = |run: &Run| matches!(run.phase, Phase::Running(Handle::Child));
        for id in self.table.select(child) {
            let Some(pid) = self.table.get(id).map(|run| run.pid) else { continue };
            if !sys::is_child(pid) {
                self.table.child_is_gone(pid);
                self.main_ended(id, ExitStatus::Unknown, Duration::ZERO);
                self.settle(id);
            }
        }
        self.reap_children()
    }
}

/// Whether the main process is a child that has not been reaped.
fn is_child(run: &Run) -> bool {
    match run.phase {
        Phase::Launching(_) | Phase::Refused(_) | Phase::Running(Handle::Child) => true,
        Phase::Running(Handle::Survivor(_)) | Phase::Failed(_) | Phase::Ended { .. } => false,
    }
}

/// Reads the estate that this process was started with. First a rehearsal, so that a program that
/// cannot take over leaves all descriptors as they are, for the one before it.
pub(super) fn read_estate(number: RawFd) -> Result<Estate, EstateError> {
    let bytes = fs::read(link_of(number))?;
    estate::rehearse(&bytes, io::stderr().as_fd())?;
    let estate = estate::read(&bytes, &mut sys::adopt_descriptor)?;
    drop(sys::adopt_descriptor(number));
    Ok(estate)
}

/// Whether this program can read an estate that is shown to it.
pub(super) fn can_read(bytes: &[u8], stand_in: BorrowedFd<'_>) -> Result<(), EstateError> {
    estate::rehearse(bytes, stand_in)
}

/// This program cannot take over: executes the one before it. Comes back only if that fails as well.
pub(super) fn go_back(config: &KeeperConfig) {
    let (Some(_), Some(previous)) = (config.estate_fd, config.previous_fd) else { return };
    let Ok(program) = CString::new(link_of(previous)) else { return };
    let config = KeeperConfig { previous_fd: None, ..config.clone() };
    let error = execute(&program, &config);
    say(format_args!("cannot go back to the program before: {error}"));
}

fn link_of(number: RawFd) -> String {
    format!("/proc/self/fd/{number}")
}

/// The file that this process executes, whatever its name leads to by now.
fn myself() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/proc/self/exe", flags, Mode::empty())?)
}

fn sealed(bytes: &[u8], flags: MemfdFlags) -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create(c"stigmer-estate", flags | MemfdFlags::ALLOW_SEALING)?;
    let file = fs::File::from(memory);
    io::Write::write_all(&mut &file, bytes)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

fn mark(descriptors: &[RawFd], flags: FdFlags) -> io::Result<()> {
    descriptors.iter().try_for_each(|number| sys::set_descriptor_flags(*number, flags))
}

fn execute(program: &CString, config: &KeeperConfig) -> io::Error {
    let mut argv = vec![OsString::from("stigmer")];
    argv.extend(config.to_arguments());
    let argv: Result<Vec<CString>, _> =
        argv.into_iter().map(|argument| CString::new(argument.into_vec())).collect();
    let Ok(argv) = argv else { return io::ErrorKind::InvalidInput.into() };
    match nix::unistd::execv(program, &argv) {
        Err(errno) => errno.into(),
        Ok(never) => match never {},
    }
}
