//! A keeper in a home of its own, and the test as its engine.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use rustix::process::{Pid, Signal, kill_process};
use stigmer::home::Home;
use stigmer::keeper::KeeperConfig;
use stigmer::keeper::record::{self, Record};
use stigmer::keeper::socket::{self, Packet, Received, Sent};
use stigmer::keeper::wire::{
    self, Adopt, Exited, FromKeeper, LaunchFailure, LogTarget, RunPhase, RunState, Spawn, Spawned,
    ToKeeper, Welcome,
};
use stigmer::model::{ExitStatus as Status, RunId};

/// Names the socket on which the test waits for engines.
pub(crate) const RELAY: &str = "STIGMER_TEST_RELAY";

/// Far longer than anything takes; only a broken keeper lets it pass.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) config: KeeperConfig,
    pub(crate) keeper: Child,
    pub(crate) engine: Engine,
    pub(crate) welcome: Welcome,
    listener: UnixListener,
    next_run: u64,
}

/// One engine: the connection that its process handed over, and a line to that process.
pub(crate) struct Engine {
    pub(crate) socket: OwnedFd,
    /// What came in one packet with what was received last.
    heard: RefCell<VecDeque<FromKeeper>>,
    control: UnixStream,
    pub(crate) pid: u32,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn best_effort() -> Self {
        Self::with(|config| config.best_effort = true)
    }

    pub(crate) fn with(change: impl FnOnce(&mut KeeperConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        home.prepare().unwrap();
        let listener = UnixListener::bind(folder.path().join("relay")).unwrap();
        let mut config = KeeperConfig::for_home(&home);
        config.engine = ["--exact", "engine_relay", "--nocapture"].map(Into::into).to_vec();
        config.engine.insert(0, std::env::current_exe().unwrap().into());
        change(&mut config);
        let keeper = start_keeper(folder.path(), &config);
        let engine = Engine::accept(&listener);
        let welcome = engine.greet();
        Self { folder, config, keeper, engine, welcome, listener, next_run: 1 }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// A request to run a line of shell, with its log in `log`.
    pub(crate) fn shell(&mut self, line: &str) -> Spawn {
        self.program(&["/bin/sh", "-c", line])
    }

    pub(crate) fn program(&mut self, argv: &[&str]) -> Spawn {
        let run = RunId(self.next_run);
        self.next_run += 1;
        Spawn {
            run,
            key: format!("test/component.{run}"),
            argv: argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
            env: vec![b"PATH=/usr/local/bin:/usr/bin:/bin".to_vec()],
            working_dir: self.folder.path().as_os_str().as_encoded_bytes().to_vec(),
            user: None,
            umask: None,
            nice: None,
            rlimits: Vec::new(),
            log: LogTarget::Path(self.path("log").into_os_string().into_encoded_bytes()),
            own_group: true,
            aux: false,
            sockets: Vec::new(),
        }
    }

    pub(crate) fn send(&self, message: &ToKeeper) {
        self.engine.send(message, Vec::new());
    }

    pub(crate) fn spawn(&mut self, spawn: Spawn) -> Spawned {
        let run = spawn.run;
        self.send(&ToKeeper::Spawn(Box::new(spawn)));
        self.engine.wait(|message| match message {
            FromKeeper::Spawned(spawned) if spawned.run == run => Some(spawned),
            FromKeeper::SpawnFailed(failure) if failure.run == run => panic!("{failure:?}"),
            _ => None,
        })
    }

    pub(crate) fn spawn_shell(&mut self, line: &str) -> Spawned {
        let spawn = self.shell(line);
        self.spawn(spawn)
    }

    pub(crate) fn fail(&mut self, spawn: Spawn) -> LaunchFailure {
        let run = spawn.run;
        self.send(&ToKeeper::Spawn(Box::new(spawn)));
        self.engine.wait(|message| match message {
            FromKeeper::SpawnFailed(failure) if failure.run == run => Some(failure),
            FromKeeper::Spawned(spawned) if spawned.run == run => panic!("{spawned:?}"),
            _ => None,
        })
    }

    pub(crate) fn exited(&self, run: RunId) -> Exited {
        self.engine.wait(|message| match message {
            FromKeeper::Exited(exited) if exited.run == run => Some(exited),
            _ => None,
        })
    }

    pub(crate) fn gone(&self, run: RunId) {
        self.engine.wait(|message| (message == FromKeeper::Gone { run }).then_some(()));
    }

    /// Kills the tree of a run and waits until nothing is left of it.
    pub(crate) fn kill_tree(&self, run: RunId) -> Exited {
        self.send(&ToKeeper::KillTree { run });
        let exited = self.exited(run);
        if !exited.empty {
            self.gone(run);
        }
        exited
    }

    /// Everything that the keeper tells about its runs.
    pub(crate) fn list(&self) -> Vec<RunState> {
        self.send(&ToKeeper::List);
        let mut states = Vec::new();
        self.engine.wait(|message| match message {
            FromKeeper::RunState(state) => {
                states.push(*state);
                None
            }
            FromKeeper::ListEnd => Some(()),
            _ => None,
        });
        states
    }

    pub(crate) fn state(&self, run: RunId) -> RunState {
        self.list().into_iter().find(|state| state.run == run).unwrap()
    }

    pub(crate) fn record(&self, run: RunId) -> Option<Record> {
        let records = record::read_all(&self.config.records).unwrap();
        records.complete.into_iter().find(|record| record.run == run)
    }

    /// Kills the engine and becomes the next one.
    pub(crate) fn replace_engine(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.engine.pid).unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        self.next_engine();
    }

    /// Becomes the engine that the keeper starts next.
    pub(crate) fn next_engine(&mut self) {
        let next = Engine::accept(&self.listener);
        assert_ne!(next.pid, self.engine.pid);
        self.engine = next;
        self.engine.greet();
    }

    /// Kills the keeper and starts another one for the same home.
    pub(crate) fn replace_keeper(&mut self) {
        self.keeper.kill().unwrap();
        self.keeper.wait().unwrap();
        self.start_another_keeper();
    }

    pub(crate) fn start_another_keeper(&mut self) {
        self.config.adopt = true;
        self.keeper = start_keeper(self.folder.path(), &self.config);
        self.engine = Engine::accept(&self.listener);
        self.welcome = self.engine.greet();
    }

    /// Asks for a survivor to be watched, as an engine does that reads the records.
    pub(crate) fn adopt(&self, record: &Record) -> RunState {
        let run = record.run;
        self.send(&ToKeeper::Adopt(Adopt {
            run,
            key: record.key.clone(),
            pid: record.identity.pid,
            inode: record.identity.inode,
            start_ticks: record.identity.start_ticks,
        }));
        self.engine.wait(|message| match message {
            FromKeeper::RunState(state) if state.run == run => Some(*state),
            _ => None,
        })
    }

    pub(crate) fn wait_for_keeper(&mut self) -> ExitStatus {
        until("the keeper ends", || self.keeper.try_wait().unwrap())
    }

    /// A named pipe by which a component can be held and let go.
    pub(crate) fn gate(&self, name: &str) -> Gate {
        let path = self.path(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        Gate { path }
    }
}

/// A component reads a line from it (`read x < gate`), which comes when the test opens it.
pub(crate) struct Gate {
    path: PathBuf,
}

impl Gate {
    pub(crate) fn open(&self) {
        File::options()
            .read(true)
            .write(true)
            .open(&self.path)
            .and_then(|mut pipe| {
                pipe.write_all(b"go\n")?;
                // Kept open until the reader has taken the line.
                until("the gate is passed", || {
                    (rustix::io::ioctl_fionread(&pipe).unwrap() == 0).then_some(())
                });
                Ok(())
            })
            .unwrap();
    }
}

impl Drop for Bench {
    /// Leaves nothing behind, also after a failed test: first the keeper, then everything in its
    /// groups, then whatever carries the home's tag.
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        let base = group_base(&self.config.tag);
        if let Some(base) = &base {
            let _ = fs::write(base.join("cgroup.kill"), "1");
        }
        let tag = format!("STIGMER_RUN={}:", self.config.tag);
        until("everything of the test has ended", || {
            let left = tagged_processes(&tag);
            for pid in &left {
                let pid = Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap();
                let _ = kill_process(pid, Signal::KILL);
            }
            left.is_empty().then_some(())
        });
        if let Some(base) = &base {
            until("its groups are empty", || {
                for entry in fs::read_dir(base).into_iter().flatten().flatten() {
                    let _ = fs::remove_dir(entry.path());
                }
                let _ = fs::remove_dir(base);
                (!base.exists()).then_some(())
            });
        }
    }
}

/// Where a keeper that was started by this process has its groups.
pub(crate) fn group_base(tag: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let base = Path::new(mount).join(own).join(format!("stigmer-{tag}"));
    base.exists().then_some(base)
}

fn start_keeper(folder: &Path, config: &KeeperConfig) -> Child {
    Command::new(env!("CARGO_BIN_EXE_stigmer"))
        .args(config.to_arguments())
        .env(RELAY, folder.join("relay"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::options().create(true).append(true).open(folder.join("keeper.err")).unwrap())
        .spawn()
        .unwrap()
}

impl Engine {
    fn accept(listener: &UnixListener) -> Self {
        wait_readable(listener.as_fd(), "an engine comes");
        let (mut control, _) = listener.accept().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut pid = [0; 4];
        wait_readable(control.as_fd(), "the engine hands its connection over");
        let message = rustix::net::recvmsg(
            &control,
            &mut [std::io::IoSliceMut::new(&mut pid)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
        .unwrap();
        if message.bytes < 4 {
            control.read_exact(&mut pid[message.bytes..]).unwrap();
        }
        let socket = ancillary.drain().find_map(|part| match part {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let (socket, pid) = (socket.unwrap(), u32::from_le_bytes(pid));
        Self { socket, heard: RefCell::default(), control, pid }
    }

    pub(crate) fn greet(&self) -> Welcome {
        self.send(&ToKeeper::Hello { version: stigmer::keeper::wire::VERSION }, Vec::new());
        self.wait(|message| match message {
            FromKeeper::Welcome(welcome) => Some(welcome),
            _ => None,
        })
    }

    pub(crate) fn send(&self, message: &ToKeeper, descriptors: Vec<OwnedFd>) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let packet = Packet::new(bytes, descriptors).unwrap();
        until("the keeper takes a message", || {
            (packet.send(self.socket.as_fd()).unwrap() == Sent::Done).then_some(())
        });
    }

    /// The next message.
    pub(crate) fn receive(&self) -> (FromKeeper, Option<OwnedFd>) {
        if let Some(message) = self.heard.borrow_mut().pop_front() {
            return (message, None);
        }
        let mut buffer = vec![0; 64 * 1024];
        let mut descriptors = Vec::new();
        wait_readable(self.socket.as_fd(), "the keeper says something");
        match socket::receive(self.socket.as_fd(), &mut buffer, &mut descriptors).unwrap() {
            Received::Short(length) => {
                let mut messages =
                    wire::messages(&buffer[..length], FromKeeper::decode).map(Result::unwrap);
                let first = messages.next().unwrap();
                self.heard.borrow_mut().extend(messages);
                (first, descriptors.pop())
            }
            other => panic!("{other:?}"),
        }
    }

    /// Receives until `pick` finds what it waits for.
    pub(crate) fn wait<T>(&self, mut pick: impl FnMut(FromKeeper) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.receive().0) {
                return found;
            }
        }
    }

    /// Tells the process to exit with this code.
    pub(crate) fn exit(&mut self, code: u8) {
        self.control.write_all(&[code]).unwrap();
    }
}

/// The engine's process: hands its connection over and exits when it is told to, or when the test that
/// has the connection is gone.
pub(crate) fn relay(path: &Path) {
    let mut control = UnixStream::connect(path).unwrap();
    // SAFETY: the keeper starts every engine with its connection as descriptor 3.
    #[expect(unsafe_code, reason = "an inherited descriptor is only known by its number")]
    let socket = unsafe { BorrowedFd::borrow_raw(3) };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [socket];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let pid = std::process::id().to_le_bytes();
    let parts = [std::io::IoSlice::new(&pid)];
    rustix::net::sendmsg(&control, &parts, &mut ancillary, SendFlags::empty()).unwrap();
    let mut code = [0];
    let result = control.read_exact(&mut code);
    std::process::exit(result.map_or(1, |()| code[0].into()));
}

pub(crate) fn wait_readable(descriptor: BorrowedFd<'_>, what: &str) {
    let mut polled = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
    let patience = Timespec { tv_sec: PATIENCE.as_secs().try_into().unwrap(), tv_nsec: 0 };
    let ready = rustix::event::poll(&mut polled, Some(&patience)).unwrap();
    assert!(ready > 0, "waited in vain until {what}");
}

/// Looks again and again, for what nothing else announces.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        let pause = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        rustix::event::poll(&mut [], Some(&pause)).unwrap();
    }
}

/// The state letter of a process; `None` if there is none of this number.
pub(crate) fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

pub(crate) fn is_alive(pid: u32) -> bool {
    state_of(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

pub(crate) fn wait_dead(pid: u32) {
    until("a process ends", || (!is_alive(pid)).then_some(()));
}

/// A number that a component wrote into a file.
pub(crate) fn wait_number(path: &Path) -> u32 {
    until("a component writes its number", || {
        fs::read_to_string(path).ok()?.strip_suffix('\n')?.trim().parse().ok()
    })
}

/// Living processes with a variable that begins like this.
pub(crate) fn tagged_processes(prefix: &str) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        is_alive(*pid)
            && environment.split(|byte| *byte == 0).any(|v| v.starts_with(prefix.as_bytes()))
    })
    .collect()
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

pub(crate) fn code(exited: &Exited) -> Status {
    exited.exit.status
}

pub(crate) fn ended(state: &RunState) -> Exited {
    match &state.phase {
        RunPhase::Ended(exited) => *exited,
        other => panic!("{other:?}"),
    }
}
