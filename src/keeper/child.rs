//! Between fork and exec: the child becomes the program.
//!
//! ```text
//!   new session ─ die with the keeper ─ signals ─ RECORD ─ stdio, sockets ─ nice, umask, limits
//!     ─ groups, group, user ─ working directory ─ report "ready" ─ exec
//!                                              any failure: report it, _exit(127)
//! ```
//!
//! The order matters. The record is written while the child still is the keeper's user and has its
//! descriptors, and before any limit applies. Groups go before the group, the group before the user,
//! because each step needs the rights that the next one gives away. The working directory is entered as
//! the component's user, who must be allowed to.
//!
//! Until it executes the program the child dies with the keeper: a keeper that is killed here leaves
//! nothing that could become a second copy later. The kernel forgets that wish when the user changes, so
//! it is made again. Just before the program is executed the wish is withdrawn and the child looks
//! whether the keeper is still its parent; from there on its record is complete and a later daemon will
//! find it. The lock of the home folder is inherited until the program is executed, so that a new
//! keeper cannot look at the records before this child has gone one way or the other.
//!
//! Where the child borrows the keeper's memory (see [`super::lend`]) it keeps to the rules that stand there: it
//! writes to its [`Brief`] and its own stack, takes no memory, and makes its system calls past the C library
//! where that notes their errors. Of the C library it uses `close` alone, which notes nothing when it succeeds.
//!
//! Invariants: the program inherits the descriptors 0, 1 and 2, from 3 on the sockets that are handed
//! down to it, an empty signal mask and default dispositions, and nothing else. This module never returns
//! into the keeper.
#![expect(
    clippy::result_large_err,
    reason = "a failure holds its text, for which no memory may be taken"
)]

use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::io::{Cursor, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Resource, Signal, Uid};

use super::identity::Identity;
use super::record::{self, Draft, Record};
use super::spawn::{FAILED, Ground, Launch, Log, READY};
use super::wire::{Credentials, Detail, MAX_NAME, detail_code, stage_code};
use super::{raw, sys};
use crate::crash;
use crate::model::spec::{LimitSpec, Rlimit};
use crate::model::{LaunchStage, Time};

/// How often an executable that is being written is tried again, and how long after.
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE_NANOS: i64 = 20_000_000;

/// All that a child works with. It is the child's alone until it executes its program; the keeper may have
/// lent it (see [`super::lend`]), so that everything that needs memory is made before.
#[derive(Debug)]
pub(super) struct Brief {
    argv: Strings,
    env: Strings,
    /// The variable that names this process, where sockets are handed down.
    listener: [u8; 32],
    candidates: Vec<CString>,
    working_dir: CString,
    user: Option<Credentials>,
    umask: Option<u32>,
    nice: Option<i32>,
    rlimits: Vec<(Rlimit, LimitSpec)>,
    log: Destination,
    sockets: Vec<RawFd>,
    record: Draft,
    record_name: CString,
    /// The file for it, if that is there already.
    record_file: Option<RawFd>,
    barrier: RawFd,
    ground: Arc<Ground>,
    points: crash::Child,
}

/// Where stdout and stderr go.
#[derive(Debug)]
enum Destination {
    Path(CString),
    /// A descriptor of this process's.
    Number(RawFd),
}

impl Brief {
    /// Everything for a launch that reports through `barrier`. The descriptors that it names must stay open
    /// until the child is there.
    pub(super) fn new(
        launch: Launch,
        started: Time,
        barrier: &OwnedFd,
        ground: &Arc<Ground>,
    ) -> (Self, [Option<OwnedFd>; 2]) {
        let record = Record {
            run: launch.run,
            key: launch.key,
            identity: Identity { pid: 0, inode: 0, start_ticks: 0 },
            boot_id: ground.boot_id.clone(),
            cgroup: launch.cgroup,
            aux: launch.aux,
            started,
        };
        let mut env = launch.env;
        if !launch.sockets.is_empty() {
            // Its place; what it is, is known when the process is there.
            env.insert(0, CString::default());
        }
        let (log, passed) = match launch.log {
            Log::Path(path) => (Destination::Path(path), None),
            Log::Passed(descriptor) => {
                (Destination::Number(descriptor.as_raw_fd()), Some(descriptor))
            }
        };
        let brief = Self {
            argv: Strings::new(launch.argv),
            env: Strings::new(env),
            listener: [0; 32],
            candidates: launch.candidates,
            working_dir: launch.working_dir,
            user: launch.user,
            umask: launch.umask,
            nice: launch.nice,
            rlimits: launch.rlimits,
            log,
            sockets: launch.sockets,
            record: record.draft(),
            record_name: record::file_c_name(launch.run),
            record_file: launch.record.as_ref().map(AsRawFd::as_raw_fd),
            barrier: barrier.as_raw_fd(),
            ground: ground.clone(),
            points: crash::launch(),
        };
        (brief, [passed, launch.record])
    }

    /// The first number behind the sockets.
    fn behind(&self) -> RawFd {
        RawFd::try_from(self.sockets.len()).unwrap_or(RawFd::MAX).saturating_add(3)
    }

    /// Tells the program who it is that the sockets are meant for: a process keeps its number when it
    /// becomes the program.
    fn name_listener(&mut self) {
        let Some(place) = self.env.pointers.first_mut().filter(|_| !self.sockets.is_empty()) else {
            return;
        };
        // The last byte stays zero.
        let mut text = Cursor::new(&mut self.listener[..31]);
        let pid = rustix::process::getpid().as_raw_nonzero();
        // It has room for every number.
        let _ = write!(text, "LISTEN_PID={pid}");
        *place = self.listener.as_ptr().cast();
    }
}

/// Texts, and the array of them that the kernel takes.
#[derive(Debug)]
pub(super) struct Strings {
    texts: Vec<CString>,
    /// To each text, and a null pointer.
    pointers: Vec<*const c_char>,
}

impl Strings {
    pub(super) fn new(texts: Vec<CString>) -> Self {
        let pointers = texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        Self { texts, pointers }
    }
}

/// What a failure is about: a path, as far as there is room for it. No memory is taken for it.
#[derive(Clone)]
pub(super) struct Subject {
    bytes: [u8; MAX_NAME],
    length: usize,
}

impl Subject {
    pub(super) fn new(text: &[u8]) -> Self {
        let mut subject = Self { bytes: [0; MAX_NAME], length: text.len().min(MAX_NAME) };
        for (place, byte) in subject.bytes.iter_mut().zip(text) {
            *place = *byte;
        }
        subject
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(self.bytes()).fmt(f)
    }
}

/// Why the program was not executed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) stage: LaunchStage,
    pub(super) errno: Errno,
    pub(super) detail: Detail,
    pub(super) subject: Subject,
}

impl Failure {
    /// For `map_err`: a failure of this stage with nothing to add.
    pub(super) fn at(stage: LaunchStage) -> impl FnOnce(Errno) -> Self {
        Self::of(stage, &[])
    }

    /// For `map_err`: a failure of this stage with this.
    fn of(stage: LaunchStage, subject: &[u8]) -> impl FnOnce(Errno) -> Self {
        move |errno| Self { stage, errno, detail: Detail::None, subject: Subject::new(subject) }
    }
}

/// Becomes the program, or reports through the barrier why not.
pub(super) fn become_program(brief: &mut Brief) -> ! {
    brief.points.point("a child begins");
    brief.name_listener();
    // What stands where a socket is to be goes out of the way, this one with its name.
    if !brief.sockets.is_empty()
        && let Ok(moved) = sys::duplicate_from(brief.barrier, brief.behind())
    {
        brief.barrier = moved;
    }
    let failure = match set_up(brief) {
        Ok(identity) => {
            let mut ready = [READY; 9];
            ready[1..].copy_from_slice(&identity.inode.to_le_bytes());
            tell(brief, &[&ready]).map_or_else(Failure::at(LaunchStage::Fork), |()| leave(brief))
        }
        Err(failure) => failure,
    };
    let kind = [FAILED, stage_code(failure.stage), detail_code(failure.detail)];
    let errno = failure.errno.raw_os_error().to_le_bytes();
    // Nobody is left to tell if this fails: the keeper sees a child that died.
    let _ = tell(brief, &[&kind, &errno, failure.subject.bytes()]);
    raw::exit_now(127)
}

/// Says something through the barrier.
#[expect(unsafe_code, reason = "the descriptor is known by its number")]
fn tell(brief: &Brief, parts: &[&[u8]]) -> Result<(), Errno> {
    let mut slices = [IoSlice::new(&[]); 3];
    for (slice, part) in slices.iter_mut().zip(parts) {
        *slice = IoSlice::new(part);
    }
    // SAFETY: this process has it, by the number that it had when the brief was made, or a duplicate.
    let barrier = unsafe { BorrowedFd::borrow_raw(brief.barrier) };
    rustix::io::writev(barrier, &slices).map(|_| ())
}

fn set_up(brief: &mut Brief) -> Result<Identity, Failure> {
    use LaunchStage as Stage;
    rustix::process::setsid().map_err(Failure::at(Stage::Fork))?;
    die_with_keeper(&brief.ground)?;
    raw::reset_signals(brief.ground.ignored);
    raw::unblock_signals().map_err(Failure::at(Stage::Fork))?;
    let identity = write_record(brief)?;
    brief.points.point("a child has written its record");
    set_up_stdio(brief)?;
    raw::close_on_exec_from(3);
    if !brief.sockets.is_empty() {
        let behind = brief.behind();
        sys::hand_down(&mut brief.sockets, behind).map_err(Failure::at(Stage::Fork))?;
    }
    set_priority_and_mask(brief.nice, brief.umask)?;
    // The number of open files goes back to what it was before the keeper raised its own.
    rustix::process::setrlimit(Resource::Nofile, brief.ground.nofile)
        .map_err(Failure::at(Stage::Limits))?;
    set_limits(&brief.rlimits)?;
    if let Some(user) = &brief.user {
        become_user(user)?;
    }
    die_with_keeper(&brief.ground)?;
    enter(&brief.working_dir)?;
    Ok(identity)
}

/// Asks to be killed when the keeper ends, and makes sure that it has not ended already.
fn die_with_keeper(ground: &Ground) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(Failure::at(LaunchStage::Fork))?;
    end_if_orphaned(ground);
    Ok(())
}

fn end_if_orphaned(ground: &Ground) {
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if parent != Some(ground.keeper) {
        raw::exit_now(127);
    }
}

/// Writes the record with one call, so that it is there or is torn, and never overwrites one: the file is new,
/// whether it was made here or ahead.
#[expect(unsafe_code, reason = "the file for it may be there already, as a number")]
fn write_record(brief: &Brief) -> Result<Identity, Failure> {
    let fail = |errno| Failure::at(LaunchStage::Record)(errno);
    let identity = Identity::own();
    let made;
    let file = if let Some(number) = brief.record_file {
        // SAFETY: this process has it, by the number that it had when the brief was made.
        unsafe { BorrowedFd::borrow_raw(number) }
    } else {
        made = record::create(&brief.ground.records, &brief.record_name).map_err(fail)?;
        made.as_fd()
    };
    brief.record.write(&identity, file).map_err(fail)?;
    Ok(identity)
}

fn set_up_stdio(brief: &Brief) -> Result<(), Failure> {
    let fail = |errno| Failure::at(LaunchStage::Log)(errno);
    rustix::stdio::dup2_stdin(&brief.ground.null).map_err(fail)?;
    match &brief.log {
        Destination::Number(number) => become_output(*number),
        // Opened for each: the kernel locks a description that several descriptors share at every write,
        // which costs one who writes short lines a twentieth of its speed.
        Destination::Path(path) => {
            rustix::stdio::dup2_stdout(open_log(path)?).map_err(fail)?;
            rustix::stdio::dup2_stderr(open_log(path)?).map_err(fail)
        }
    }
}

fn open_log(path: &CStr) -> Result<OwnedFd, Failure> {
    let fail = |errno| Failure::of(LaunchStage::Log, path.to_bytes())(errno);
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOCTTY | OFlags::CLOEXEC;
    // A symlink in its place would have something else written.
    let flags = flags | OFlags::NOFOLLOW;
    let mode = Mode::RUSR | Mode::WUSR;
    // A FIFO in its place would be waited for until somebody reads it.
    let opened = rustix::fs::open(path, flags | OFlags::NONBLOCK, mode).map_err(fail)?;
    rustix::fs::fcntl_setfl(&opened, OFlags::APPEND).map_err(fail)?;
    Ok(opened)
}

#[expect(unsafe_code, reason = "the descriptor is known by its number")]
fn become_output(number: RawFd) -> Result<(), Failure> {
    // SAFETY: it is open, for it was passed for this launch.
    let log = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::stdio::dup2_stdout(log).map_err(Failure::at(LaunchStage::Log))?;
    rustix::stdio::dup2_stderr(log).map_err(Failure::at(LaunchStage::Log))
}

/// Both stay as they are where nothing is declared.
pub(super) fn set_priority_and_mask(nice: Option<i32>, umask: Option<u32>) -> Result<(), Failure> {
    if let Some(nice) = nice {
        rustix::process::setpriority_process(None, nice)
            .map_err(Failure::at(LaunchStage::Limits))?;
    }
    if let Some(umask) = umask {
        rustix::process::umask(Mode::from_raw_mode(umask & 0o777));
    }
    Ok(())
}

pub(super) fn set_limits(limits: &[(Rlimit, LimitSpec)]) -> Result<(), Failure> {
    for (limit, values) in limits {
        let values = rustix::process::Rlimit { current: values.soft, maximum: values.hard };
        rustix::process::setrlimit(resource(*limit), values)
            .map_err(Failure::at(LaunchStage::Limits))?;
    }
    Ok(())
}

fn resource(limit: Rlimit) -> Resource {
    match limit {
        Rlimit::As => Resource::As,
        Rlimit::Core => Resource::Core,
        Rlimit::Cpu => Resource::Cpu,
        Rlimit::Data => Resource::Data,
        Rlimit::Fsize => Resource::Fsize,
        Rlimit::Memlock => Resource::Memlock,
        Rlimit::Msgqueue => Resource::Msgqueue,
        Rlimit::Nice => Resource::Nice,
        Rlimit::Nofile => Resource::Nofile,
        Rlimit::Nproc => Resource::Nproc,
        Rlimit::Rss => Resource::Rss,
        Rlimit::Rtprio => Resource::Rtprio,
        Rlimit::Rttime => Resource::Rttime,
        Rlimit::Sigpending => Resource::Sigpending,
        Rlimit::Stack => Resource::Stack,
    }
}

/// Of this thread, which is the only one, or becomes it when it executes a program. Takes memory: who is to
/// be somebody else has memory of its own.
pub(super) fn become_user(user: &Credentials) -> Result<(), Failure> {
    let fail = |errno| Failure::at(LaunchStage::User)(errno);
    let groups: Vec<Gid> = user.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    rustix::thread::set_thread_groups(&groups).map_err(fail)?;
    let group = Gid::from_raw(user.gid);
    rustix::thread::set_thread_res_gid(group, group, group).map_err(fail)?;
    let user = Uid::from_raw(user.uid);
    rustix::thread::set_thread_res_uid(user, user, user).map_err(fail)
}

pub(super) fn enter(folder: &CStr) -> Result<(), Failure> {
    rustix::process::chdir(folder).map_err(Failure::of(LaunchStage::WorkingDir, folder.to_bytes()))
}

/// Withdraws the wish to die with the keeper, and executes the program.
fn leave(brief: &Brief) -> Failure {
    if let Err(errno) = rustix::process::set_parent_process_death_signal(None) {
        return Failure::at(LaunchStage::Exec)(errno);
    }
    end_if_orphaned(&brief.ground);
    brief.points.point("a child is about to execute its program");
    let look = || end_if_orphaned(&brief.ground);
    execute(&brief.candidates, &brief.argv, &brief.env, look).unwrap_or_else(|| {
        let program = brief.argv.texts.first().map_or(&[][..], |name| name.as_bytes());
        Failure::of(LaunchStage::Exec, program)(Errno::NOENT)
    })
}

/// Executes the first candidate that can be; comes back only with the reason why none can, `None` if
/// none is there. `look` is called before anything is tried again.
pub(super) fn execute(
    candidates: &[CString],
    argv: &Strings,
    env: &Strings,
    look: impl Fn(),
) -> Option<Failure> {
    // As with a shell: a folder that lacks the program is passed over, and a file that may not be
    // executed is only complained of if no other is found.
    let mut first: Option<Failure> = None;
    for candidate in candidates {
        let mut errno = execve(candidate, argv, env);
        for _ in 0..BUSY_TRIES {
            if errno != Errno::TXTBSY {
                break;
            }
            let pause = rustix::thread::Timespec { tv_sec: 0, tv_nsec: BUSY_PAUSE_NANOS };
            let _ = rustix::thread::nanosleep(&pause);
            look();
            errno = execve(candidate, argv, env);
        }
        let (detail, subject) = inspect(candidate, errno);
        let failure = Failure { stage: LaunchStage::Exec, errno, detail, subject };
        match errno {
            Errno::NOENT | Errno::NOTDIR if failure.detail == Detail::None => {}
            Errno::NOENT | Errno::ACCESS => first = first.or(Some(failure)),
            _ => return Some(failure),
        }
    }
    first
}

#[expect(unsafe_code, reason = "the safe wrapper makes new arrays at each try")]
fn execve(path: &CStr, argv: &Strings, env: &Strings) -> Errno {
    // SAFETY: both arrays end with a null pointer, and the texts that they point to live as long as they
    // do; the one that is not among them lies in the brief.
    unsafe { raw::execute(path, &argv.pointers, &env.pointers) }
}

/// Finds out what the error number does not say: ENOENT may be about the interpreter, EACCES about a
/// folder or a missing permission.
fn inspect(candidate: &CStr, errno: Errno) -> (Detail, Subject) {
    let subject = Subject::new(candidate.to_bytes());
    let Ok(found) = rustix::fs::stat(candidate) else { return (Detail::None, subject) };
    match errno {
        Errno::NOENT => interpreter(candidate).unwrap_or((Detail::LoaderMissing, subject)),
        Errno::ACCESS if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
            (Detail::Directory, subject)
        }
        Errno::ACCESS if found.st_mode & 0o111 == 0 => (Detail::NotExecutable, subject),
        _ => (Detail::None, subject),
    }
}

/// The program that the kernel needs to run this file: the one after `#!`, or the loader that an ELF
/// file names.
fn interpreter(path: &CStr) -> Option<(Detail, Subject)> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut head = [0; 256];
    let length = rustix::io::pread(&file, &mut head, 0).ok()?;
    let head = head.get(..length)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        // A carriage return is part of the name, as it is to the kernel: the explanation of the
        // failure looks for it.
        let line = line.split(|byte| *byte == b'\n').next()?.trim_ascii_start();
        let name = line.split(|byte| matches!(byte, b' ' | b'\t')).next()?;
        return Some((Detail::InterpreterMissing, Subject::new(name)));
    }
    loader(&file, head).map(|name| (Detail::LoaderMissing, name))
}

/// The `PT_INTERP` entry of a 64-bit little-endian ELF file.
fn loader(file: &OwnedFd, head: &[u8]) -> Option<Subject> {
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let number =
        |bytes: &[u8], at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let count = u16::from_le_bytes(head.get(56..58)?.try_into().ok()?);
    let table = number(head, 32)?;
    for index in 0..u64::from(count.min(64)) {
        let mut entry = [0; 56];
        let length = rustix::io::pread(file, &mut entry, table.checked_add(index * 56)?).ok()?;
        if length == entry.len() && entry.starts_with(&3_u32.to_le_bytes()) {
            let mut name = [0; MAX_NAME];
            let length = usize::try_from(number(&entry, 32)?).ok()?.min(MAX_NAME);
            let length =
                rustix::io::pread(file, name.get_mut(..length)?, number(&entry, 8)?).ok()?;
            let name = name.get(..length)?.split(|byte| *byte == 0).next()?;
            return Some(Subject::new(name));
        }
    }
    None
}
