//! The keeper itself: one thread that waits for the next thing to happen and does it.
//!
//! ```text
//!   signalfd ──┐                         ┌─► reaping, lifecycle: ends, trees
//!   engine   ──┤                         ├─► requests:  what the engine asks
//!   barriers ──┼─► epoll_wait ─► one of ─┤
//!   pidfds   ──┤   (no timeout unless    └─► engine:    start it again
//!   cgroups  ──┘    something is due)         then: tell what is untold
//! ```
//!
//! Invariants: nothing here blocks but `epoll_wait`, and the folder of the records where its file system does;
//! with nothing to do the process does not wake up.
//! Whatever the engine sends or does not send, the keeper lives on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::epoll::{Event, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::process::Resource;

use super::ahead::Ahead;
use super::cgroup::Groups;
use super::config::{KeeperConfig, READY};
use super::console::say;
use super::engine::Engine;
use super::estate::EstateError;
use super::freezer::Freezer;
use super::lend::Stacks;
use super::oom::OomKills;
use super::poller::{Poller, Source};
use super::reaping::Sweeps;
use super::spare::Spare;
use super::spawn::Ground;
use super::table::{Table, Tree, Watch};
use super::wire::Containment;
use super::{clock, identity, lock, raw, succession, sys};
use crate::crash;
use crate::home::{HomeError, private_folder};
use crate::model::{RunId, Time};

/// How long a keeper waits for a lock that the children of a killed one may still hold.
const PATIENCE: Duration = Duration::from_millis(200);
const ADOPTING_PATIENCE: Duration = Duration::from_secs(5);

/// How often a tree is looked at for whose end nothing can be waited for.
const BLIND_LOOK: Duration = Duration::from_secs(1);

/// After so many launches in a row, the memory that they needed is given back once it has been quiet.
const MANY: u32 = 64;
const QUIET: Duration = Duration::from_secs(1);

/// Runs are cleaned up after once nothing has happened for so long: ends come in storms, and what follows
/// from them is waited for, their traces are not.
const CALM: Duration = Duration::from_millis(20);
/// And after so long in any case, where something happens all the time.
pub(super) const LONGEST_STORM: Duration = Duration::from_secs(1);
/// How many of them in a row, before it is seen what else has happened.
const LEFTOVERS: usize = 16;

/// The engines in a row that may fail to carry out an asked-for end before the keeper gives up on them.
const TRIES_TO_END: u32 = 3;

/// A keeper could not begin.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The home is in use.
    #[error(transparent)]
    Lock(#[from] lock::LockError),
    /// What another program of this process hands over cannot be taken over. It is untouched.
    #[error("cannot take over: {0}")]
    Estate(#[from] EstateError),
    /// The folder of the records is not to be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Something that every Linux has is missing or forbidden.
    #[error("cannot {what}: {source}")]
    Setup {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The engine's command cannot be executed by any kernel.
    #[error("the command of the engine has a NUL in it")]
    Command,
}

/// For `map_err`: a failed step of the set-up.
fn setup<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> KeeperError {
    move |source| KeeperError::Setup { what, source: source.into() }
}

/// Something to be told besides the news of runs, in the order in which it is told. The news of runs
/// come after the request to reload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Matter {
    Welcome,
    Terminate,
    Reload,
    Held,
    ListEnd,
    Estate,
    NotReplaced,
}

/// What is to be told besides the news of runs.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) matters: BTreeSet<Matter>,
    /// Names of held descriptors that are still to be told, last first.
    pub(super) held: Vec<String>,
    /// What a successor would be handed, to be shown.
    pub(super) estate: Option<OwnedFd>,
    /// Why nothing was handed over.
    pub(super) refusal: Option<String>,
    /// This engine has said Hello. Before that it is told nothing.
    pub(super) greeted: bool,
    /// It understands packets of several messages.
    pub(super) takes_several: bool,
    /// The socket was full; its being writable again is waited for.
    pub(super) blocked: bool,
}

/// How the daemon ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// Nobody asked for it.
    NotAsked,
    /// This signal asked for it, and the engine is to carry it out.
    Asked(i32),
    /// The engine is done: with its exit the daemon ends. The signal that asked for it, if one did.
    Done(Option<i32>),
}

/// All that the keeper has.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) config: KeeperConfig,
    pub(super) ground: Arc<Ground>,
    /// For children that are about to execute their program.
    pub(super) stacks: Stacks,
    pub(super) groups: Option<Groups>,
    pub(super) oom_kills: OomKills,
    pub(super) table: Table,
    pub(super) engine: Engine,
    /// By their pids.
    pub(super) freezers: BTreeMap<u32, Freezer>,
    pub(super) held: BTreeMap<String, OwnedFd>,
    pub(super) spare: Spare,
    pub(super) sweeps: Sweeps,
    /// What is to be removed of runs that are forgotten: their records, and their cgroups.
    pub(super) leftovers: VecDeque<(RunId, Option<Box<Path>>)>,
    /// When that is to be done at the latest, if there is something to remove.
    pub(super) clean_by: Option<Time>,
    pub(super) ahead: Ahead,
    /// When to look again at trees that are watched by nothing.
    pub(super) blind_look: Option<Time>,
    /// Launches since memory was given back, and when that is to be done.
    launches: u32,
    tidy_at: Option<Time>,
    pub(super) outbox: Outbox,
    pub(super) ending: Ending,
    pub(super) started_at: u64,
    /// For receiving.
    pub(super) buffer: Vec<u8>,
    /// For sending.
    pub(super) outgoing: Vec<u8>,
    pub(super) garbage: u32,
    has_terminal: bool,
    pub(super) poller: Poller,
    /// The program before this one, for as long as no engine of this one has been at work.
    pub(super) previous: Option<OwnedFd>,
    signals: SignalFd,
    pub(super) lock: OwnedFd,
}

impl Keeper {
    /// Everything up to the first engine.
    pub(super) fn set_up(config: KeeperConfig) -> Result<Self, KeeperError> {
        keep_standard_streams()?;
        let estate = config.estate_fd.map(succession::read_estate).transpose()?;
        raw::close_on_exec_from(3);
        let previous = config.previous_fd.and_then(|number| sys::adopt_descriptor(number).ok());
        let lock = if let Some(estate) = &estate {
            estate.lock.try_clone().map_err(setup("use the lock"))?
        } else if let Some(number) = config.lock_fd {
            sys::adopt_descriptor(number).map_err(setup("use the inherited lock"))?
        } else {
            let patience = if config.adopt { ADOPTING_PATIENCE } else { PATIENCE };
            lock::acquire(&config.run.join("daemon.lock"), patience)?
        };
        let mut held = BTreeMap::new();
        if let Some(number) = config.ready_fd {
            let ready = sys::adopt_descriptor(number);
            held.insert(READY.to_owned(), ready.map_err(setup("use the inherited descriptor"))?);
        }
        for (number, name) in &config.held {
            // One that cannot be used is opened anew by the engine.
            match sys::adopt_descriptor(*number) {
                Ok(descriptor) => drop(held.insert(name.clone(), descriptor)),
                Err(error) => say(format_args!("cannot hold {name}: {error}")),
            }
        }
        let signals = take_signals()?;
        let myself = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(myself))
            .map_err(setup("become the parent of orphans"))?;
        let _ = rustix::thread::set_name(c"stigmer-keeper");
        rustix::process::chdir("/").map_err(setup("enter the root folder"))?;
        let present = rustix::process::getrlimit(Resource::Nofile);
        let nofile = estate.as_ref().map_or(present, |estate| estate.nofile);
        let raised = rustix::process::Rlimit { current: present.maximum, maximum: present.maximum };
        let _ = rustix::process::setrlimit(Resource::Nofile, raised);
        let has_terminal = config.foreground && rustix::termios::isatty(io::stdin());
        let engine = Engine::new(&config.engine).ok_or(KeeperError::Command)?;
        let groups = choose_containment(&config);
        if let Some(groups) = groups.as_ref().filter(|_| estate.is_none()) {
            groups.sweep();
        }
        let poller = Poller::new().map_err(setup("use epoll"))?;
        poller
            .watch(&signals, Source::Signals, EventFlags::IN)
            .map_err(setup("wait for signals"))?;
        let ground = Arc::new(Ground {
            records: open_records(&config)?,
            null: open_null()?,
            boot_id: identity::boot_id().map_err(setup("read the id of this boot"))?,
            tag: config.tag.clone(),
            nofile,
            ignored: sys::ignored_signals(),
            keeper: std::process::id(),
        });
        let mut keeper = Self {
            config,
            ground,
            stacks: Stacks::default(),
            groups,
            oom_kills: OomKills::of_this_process(),
            table: Table::default(),
            engine,
            freezers: BTreeMap::new(),
            held,
            spare: Spare::default(),
            sweeps: Sweeps::default(),
            leftovers: VecDeque::new(),
            clean_by: None,
            ahead: Ahead::default(),
            blind_look: None,
            launches: 0,
            tidy_at: None,
            outbox: Outbox::default(),
            ending: Ending::NotAsked,
            started_at: clock::realtime(),
            buffer: vec![0; 64 * 1024],
            outgoing: Vec::new(),
            garbage: 0,
            has_terminal,
            poller,
            previous,
            signals,
            lock,
        };
        keeper.spare.fill(&keeper.ground.null);
        if let Some(estate) = estate {
            keeper.inherit(estate);
        }
        Ok(keeper)
    }

    /// Lives until the daemon ends.
    pub(super) fn live(mut self) -> ExitCode {
        let mut events: Vec<Event> = Vec::with_capacity(64);
        if let Some(code) = self.catch_up() {
            return code;
        }
        let mut calm_at = clock::now();
        loop {
            let now = clock::now();
            if !events.is_empty() {
                calm_at = now + CALM;
            }
            if self.engine.due().is_some_and(|due| due <= now) {
                self.start_engine();
                continue;
            }
            if self.blind_look.is_some_and(|due| due <= now) {
                self.settle_blind();
            }
            if self.tidy_at.is_some_and(|due| due <= now) {
                self.tidy_at = None;
                self.stacks.clear();
                crate::memory::give_back();
            }
            self.tell();
            if self.sweeps.due().is_some_and(|due| due <= now) {
                if let Some(code) = self.reap_children() {
                    return code;
                }
                self.tell();
            }
            if self.clean_by.is_some_and(|by| by.min(calm_at) <= now) {
                self.clean_up(LEFTOVERS);
            }
            let cleaning = self.clean_by.map(|by| by.min(calm_at));
            if self.ahead.is_wanted() && cleaning.is_none() && calm_at <= now {
                self.prepare();
            }
            let preparing = self.ahead.is_wanted().then_some(calm_at);
            let due = [
                self.engine.due(),
                self.blind_look,
                self.tidy_at,
                cleaning.or(preparing),
                self.sweeps.due(),
            ];
            let timeout = due.into_iter().flatten().min().map(|due| due.since(clock::now()));
            if let Err(errno) = self.poller.wait(&mut events, timeout) {
                // Only a bug makes epoll fail. Ending is the way that loses nothing: the next daemon
                // adopts what runs.
                say(format_args!("cannot wait for events: {errno}"));
                return ExitCode::FAILURE;
            }
            for event in &events {
                let source = Poller::source(event);
                let Some(code) = source.and_then(|source| self.handle(source)) else { continue };
                return code;
            }
        }
    }

    fn handle(&mut self, source: Source) -> Option<ExitCode> {
        match source {
            Source::Signals => return self.handle_signals(),
            Source::Engine => self.handle_engine(),
            Source::Barrier(run) => self.handle_barrier(run),
            Source::Survivor(run) => self.handle_survivor(run),
            Source::Tree(run) => self.settle(run),
            Source::Helper(run) => return self.helper_ended(run),
        }
        None
    }

    fn handle_signals(&mut self) -> Option<ExitCode> {
        let mut ended = Vec::new();
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match i32::try_from(signal.ssi_signo).unwrap_or(0) {
                libc::SIGCHLD => ended.push(signal.ssi_pid),
                libc::SIGHUP if !self.terminal_is_gone() => {
                    self.outbox.matters.insert(Matter::Reload);
                }
                number => self.ask_to_end(number),
            }
        }
        self.reap_known(&ended)
    }

    /// SIGHUP means two things: read the manifests again, or, to a keeper that belongs to a terminal,
    /// that the terminal is gone. The sender does not tell them apart: shells pass a hang-up on.
    fn terminal_is_gone(&self) -> bool {
        let stdin = io::stdin();
        let mut polled = [PollFd::new(&stdin, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        self.has_terminal
            && matches!(rustix::event::poll(&mut polled, Some(&now)), Ok(ready) if ready > 0)
            && polled.iter().any(|polled| polled.revents().contains(PollFlags::HUP))
    }

    fn ask_to_end(&mut self, signal: i32) {
        if matches!(self.ending, Ending::Done(_)) {
            // The engine said that it is done and is still there.
            self.kill_engine();
            return;
        }
        self.ending = Ending::Asked(signal);
        self.outbox.matters.insert(Matter::Terminate);
        self.engine.hurry();
    }

    pub(super) fn kill_engine(&self) {
        if let Some(pid) = self.engine.pid() {
            let _ = sys::signal_child(pid, libc::SIGKILL);
        }
    }

    fn start_engine(&mut self) {
        // What the daemon was asked for and the last engine did not hear, the next one shall.
        let mut matters = std::mem::take(&mut self.outbox).matters;
        matters.retain(|matter| *matter == Matter::Reload);
        if matches!(self.ending, Ending::Asked(_)) {
            matters.insert(Matter::Terminate);
        }
        self.outbox.matters = matters;
        self.table.clear_news();
        self.garbage = 0;
        self.engine.start(&self.ground);
        crash::point("an engine is started");
        if let Some(socket) = self.engine.socket() {
            let watched = self.poller.watch(socket, Source::Engine, EventFlags::IN);
            if let Err(errno) = watched {
                say(format_args!("cannot watch the engine: {errno}"));
                self.kill_engine();
            }
        }
    }

    /// The engine has been reaped. Some code if the daemon ends with it.
    pub(super) fn engine_ended(&mut self, status: i32) -> Option<ExitCode> {
        self.engine.reaped();
        // Its last words may still be in the socket.
        self.handle_engine();
        self.disconnect_engine();
        self.end_helpers();
        let how = crate::model::Exit { status: identity::exit_status(status), oom: false };
        if matches!(self.ending, Ending::Done(_)) && status == 0 {
            self.tidy();
            return Some(ExitCode::SUCCESS);
        }
        if let Ending::Done(asked) = self.ending {
            self.ending = asked.map_or(Ending::NotAsked, Ending::Asked);
        }
        let delay = self.engine.ended(clock::now());
        self.consider_going_back();
        if matches!(self.ending, Ending::Asked(_)) {
            if self.engine.short_lives() >= TRIES_TO_END {
                say(format_args!(
                    "the engine ended ({how}) instead of ending the daemon in order; \
                     what runs is left alone, the next daemon takes it over"
                ));
                self.tidy();
                return Some(ExitCode::FAILURE);
            }
            self.engine.hurry();
        }
        say(format_args!("the engine ended ({how}); starting it again in {delay:?}"));
        None
    }

    /// Looks at the trees that are watched by nothing.
    pub(super) fn settle_blind(&mut self) {
        self.blind_look = None;
        for run in self.table.select(|run| matches!(run.tree, Tree::Lingering(Watch::Nothing))) {
            self.settle(run);
        }
    }

    /// Something was launched. A few are forgotten; many have needed memory that is not needed again.
    pub(super) fn count_launch(&mut self) {
        self.launches += 1;
        if self.launches >= MANY || self.tidy_at.is_some() {
            self.launches = 0;
            self.tidy_at = Some(clock::now() + QUIET);
        }
    }

    /// A tree is watched by nothing: no descriptor was to be had.
    pub(super) fn plan_blind_look(&mut self) {
        self.blind_look.get_or_insert(clock::now() + BLIND_LOOK);
    }

    fn tidy(&mut self) {
        self.clean_up(usize::MAX);
        self.remove_ahead();
        if let Some(groups) = &self.groups {
            groups.tidy();
        }
    }

    /// Closes the engine's connection.
    pub(super) fn disconnect_engine(&mut self) {
        if let Some(socket) = self.engine.socket() {
            self.poller.unwatch(socket);
        }
        self.engine.disconnect();
        self.outbox.blocked = false;
    }

    /// How well grandchildren are kept together.
    pub(super) fn containment(&self) -> Containment {
        if self.groups.is_some() { Containment::Cgroup } else { Containment::BestEffort }
    }
}

/// A keeper that was started with some of the three standard streams closed would hand other files out
/// under their numbers.
fn keep_standard_streams() -> Result<(), KeeperError> {
    loop {
        let null = open_null()?;
        if std::os::fd::AsRawFd::as_raw_fd(&null) > 2 {
            return Ok(());
        }
        // Kept open on purpose, for as long as the process lives.
        let _ = std::os::fd::IntoRawFd::into_raw_fd(null);
    }
}

fn open_null() -> Result<OwnedFd, KeeperError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open("/dev/null", flags, Mode::empty()).map_err(setup("open /dev/null"))
}

fn open_records(config: &KeeperConfig) -> Result<OwnedFd, KeeperError> {
    private_folder(&config.records)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(&config.records, flags, Mode::empty())
        .map_err(setup("open the folder of records"))
}

/// Signals are read from a descriptor. Those that would end a process that has no use for them are
/// ignored; SIGCHLD gets its default, because an inherited "ignore" would throw exit codes away.
fn take_signals() -> Result<SignalFd, KeeperError> {
    for signal in [libc::SIGPIPE, libc::SIGUSR1, libc::SIGUSR2, libc::SIGALRM] {
        sys::set_signal(signal, true);
    }
    let taken = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    let mut set = SigSet::empty();
    for signal in taken {
        sys::set_signal(signal as i32, false);
        set.add(signal);
    }
    set.thread_set_mask().map_err(setup("block signals"))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(setup("take signals"))
}

fn choose_containment(config: &KeeperConfig) -> Option<Groups> {
    if config.best_effort {
        return None;
    }
    Groups::set_up(&config.tag)
        .inspect_err(|error| {
            say(format_args!(
                "no cgroup of its own for each component ({error}); \
                 grandchildren are kept together by best effort"
            ));
        })
        .ok()
}
