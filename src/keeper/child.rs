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
//! The process has one thread, so plain code, allocation included, is safe here.
//!
//! Invariants: the program inherits the descriptors 0, 1 and 2, from 3 on the sockets that are handed
//! down to it, an empty signal mask and default dispositions, and nothing else. This module never returns into the keeper.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::sys::signal::SigSet;
use nix::unistd::{Gid, Uid};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Signal};

use super::clock;
use super::identity::Identity;
use super::record::{self, Record};
use super::spawn::{FAILED, Ground, Launch, Log, READY};
use super::sys;
use super::wire::{Credentials, Detail, MAX_NAME, detail_code, stage_code};
use crate::crash;
use crate::model::LaunchStage;
use crate::model::spec::{LimitSpec, Rlimit};

/// How often an executable that is being written is tried again, and how long after.
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE_NANOS: i64 = 20_000_000;

/// Why the program was not executed.
pub(super) struct Failure {
    pub(super) stage: LaunchStage,
    pub(super) errno: Errno,
    pub(super) detail: Detail,
    pub(super) subject: Vec<u8>,
}

impl Failure {
    /// For `map_err`: a failure of this stage with nothing to add.
    pub(super) fn at<E: IntoErrno>(stage: LaunchStage) -> impl FnOnce(E) -> Self {
        move |error| Self {
            stage,
            errno: error.into_errno(),
            detail: Detail::None,
            subject: Vec::new(),
        }
    }
}

/// The error types of the two crates that wrap system calls.
pub(super) trait IntoErrno {
    fn into_errno(self) -> Errno;
}

impl IntoErrno for Errno {
    fn into_errno(self) -> Errno {
        self
    }
}

impl IntoErrno for nix::errno::Errno {
    fn into_errno(self) -> Errno {
        Errno::from_raw_os_error(self as i32)
    }
}

impl IntoErrno for std::io::Error {
    fn into_errno(self) -> Errno {
        Errno::from_io_error(&self).unwrap_or(Errno::IO)
    }
}

/// Becomes the program, or reports through the barrier why not.
pub(super) fn become_program(launch: &Launch, ground: &Ground, barrier: BorrowedFd<'_>) -> ! {
    crash::begin(crash::Role::Child);
    crash::point("a child begins");
    // Made now, because afterwards a limit on memory may apply.
    let argv = pointers(&launch.argv);
    let mut env = pointers(&launch.env);
    // The number of this process, which it keeps when it becomes the program.
    let listener = CString::new(format!("LISTEN_PID={}", std::process::id())).unwrap_or_default();
    if !launch.sockets.is_empty() {
        env.insert(0, listener.as_ptr());
    }
    // What stands where a socket is to be goes out of the way, this one with its name.
    let moved = if launch.sockets.is_empty() {
        None
    } else {
        sys::duplicate_from(barrier.as_raw_fd(), behind(launch)).ok()
    };
    let barrier = moved.as_ref().map_or(barrier, AsFd::as_fd);
    let failure = match set_up(launch, ground) {
        Ok(identity) => {
            let mut ready = [READY; 9];
            ready[1..].copy_from_slice(&identity.inode.to_le_bytes());
            let told = rustix::io::write(barrier, &ready).map_err(Failure::at(LaunchStage::Fork));
            told.map_or_else(|failure| failure, |_| leave(launch, ground, &argv, &env))
        }
        Err(failure) => failure,
    };
    let mut report = vec![FAILED, stage_code(failure.stage), detail_code(failure.detail)];
    report.extend_from_slice(&failure.errno.raw_os_error().to_le_bytes());
    report.extend(failure.subject.iter().take(MAX_NAME));
    // Nobody is left to tell if this fails: the keeper sees a child that died.
    let _ = rustix::io::write(barrier, &report);
    sys::exit_now(127)
}

fn set_up(launch: &Launch, ground: &Ground) -> Result<Identity, Failure> {
    use LaunchStage as Stage;
    nix::unistd::setsid().map_err(Failure::at(Stage::Fork))?;
    die_with_keeper(ground)?;
    sys::reset_signals(ground.ignored);
    SigSet::empty().thread_set_mask().map_err(Failure::at(Stage::Fork))?;
    let identity = write_record(launch, ground)?;
    crash::point("a child has written its record");
    set_up_stdio(launch, ground)?;
    sys::close_on_exec_from(3);
    if !launch.sockets.is_empty() {
        sys::hand_down(&launch.sockets, behind(launch)).map_err(Failure::at(Stage::Fork))?;
    }
    set_priority_and_mask(launch.nice, launch.umask)?;
    // The number of open files goes back to what it was before the keeper raised its own.
    rustix::process::setrlimit(Resource::Nofile, ground.nofile)
        .map_err(Failure::at(Stage::Limits))?;
    set_limits(&launch.rlimits)?;
    if let Some(user) = &launch.user {
        become_user(user)?;
    }
    die_with_keeper(ground)?;
    enter(&launch.working_dir)?;
    Ok(identity)
}

/// The first number behind the sockets.
fn behind(launch: &Launch) -> RawFd {
    RawFd::try_from(launch.sockets.len()).unwrap_or(RawFd::MAX).saturating_add(3)
}

/// Asks to be killed when the keeper ends, and makes sure that it has not ended already.
fn die_with_keeper(ground: &Ground) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(Failure::at(LaunchStage::Fork))?;
    end_if_orphaned(ground);
    Ok(())
}

fn end_if_orphaned(ground: &Ground) {
    if std::os::unix::process::parent_id() != ground.keeper {
        sys::exit_now(127);
    }
}

/// Writes the record with one call, so that it is there or is torn, and never overwrites one.
fn write_record(launch: &Launch, ground: &Ground) -> Result<Identity, Failure> {
    let fail = |errno| Failure::at(LaunchStage::Record)(errno);
    let identity = Identity::own();
    let record = Record {
        run: launch.run,
        key: launch.key.clone(),
        identity,
        boot_id: ground.boot_id.clone(),
        cgroup: launch.cgroup.clone(),
        aux: launch.aux,
        started: clock::now(),
    };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let name = record::file_name(launch.run);
    let file = rustix::fs::openat(&ground.records, name, flags, mode).map_err(fail)?;
    File::from(file)
        .write_all(record.to_text().as_bytes())
        .map_err(Failure::at(LaunchStage::Record))?;
    Ok(identity)
}

fn set_up_stdio(launch: &Launch, ground: &Ground) -> Result<(), Failure> {
    let fail = |errno: nix::errno::Errno| Failure::at(LaunchStage::Log)(errno);
    nix::unistd::dup2_stdin(&ground.null).map_err(fail)?;
    let opened;
    let log = match &launch.log {
        Log::Passed(descriptor) => descriptor,
        Log::Path(path) => {
            let fail = |errno: Errno| Failure {
                subject: path.as_bytes().to_vec(),
                ..Failure::at(LaunchStage::Log)(errno)
            };
            let flags =
                OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOCTTY | OFlags::CLOEXEC;
            // A symlink in its place would have something else written.
            let flags = flags | OFlags::NOFOLLOW;
            let mode = Mode::RUSR | Mode::WUSR;
            // A FIFO in its place would be waited for until somebody reads it.
            opened =
                rustix::fs::open(path.as_c_str(), flags | OFlags::NONBLOCK, mode).map_err(fail)?;
            rustix::fs::fcntl_setfl(&opened, OFlags::APPEND).map_err(fail)?;
            &opened
        }
    };
    nix::unistd::dup2_stdout(log).map_err(fail)?;
    nix::unistd::dup2_stderr(log).map_err(fail)
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

pub(super) fn become_user(user: &Credentials) -> Result<(), Failure> {
    let fail = |errno: nix::errno::Errno| Failure::at(LaunchStage::User)(errno);
    let groups: Vec<Gid> = user.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    nix::unistd::setgroups(&groups).map_err(fail)?;
    let group = Gid::from_raw(user.gid);
    nix::unistd::setresgid(group, group, group).map_err(fail)?;
    let user = Uid::from_raw(user.uid);
    nix::unistd::setresuid(user, user, user).map_err(fail)
}

pub(super) fn enter(folder: &CStr) -> Result<(), Failure> {
    rustix::process::chdir(folder).map_err(|errno| Failure {
        subject: folder.to_bytes().to_vec(),
        ..Failure::at(LaunchStage::WorkingDir)(errno)
    })
}

/// Withdraws the wish to die with the keeper, and executes the program.
fn leave(
    launch: &Launch,
    ground: &Ground,
    argv: &[*const libc::c_char],
    env: &[*const libc::c_char],
) -> Failure {
    if let Err(errno) = rustix::process::set_parent_process_death_signal(None) {
        return Failure::at(LaunchStage::Exec)(errno);
    }
    end_if_orphaned(ground);
    crash::point("a child is about to execute its program");
    execute(&launch.candidates, argv, env, || end_if_orphaned(ground)).unwrap_or_else(|| Failure {
        subject: launch.argv.first().map_or_else(Vec::new, |name| name.as_bytes().to_vec()),
        ..Failure::at(LaunchStage::Exec)(Errno::NOENT)
    })
}

/// Executes the first candidate that can be; comes back only with the reason why none can, `None` if
/// none is there. `look` is called before anything is tried again. The arrays are those of `pointers`.
pub(super) fn execute(
    candidates: &[CString],
    argv: &[*const libc::c_char],
    env: &[*const libc::c_char],
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

pub(super) fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

#[expect(unsafe_code, reason = "the safe wrapper makes new arrays at each try")]
fn execve(path: &CStr, argv: &[*const libc::c_char], env: &[*const libc::c_char]) -> Errno {
    // SAFETY: both arrays were made by `pointers`: they end with a null pointer, and the texts that
    // they point to live as long as the launch.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    sys::last_errno()
}

/// Finds out what the error number does not say: ENOENT may be about the interpreter, EACCES about a
/// folder or a missing permission.
fn inspect(candidate: &CStr, errno: Errno) -> (Detail, Vec<u8>) {
    let subject = candidate.to_bytes().to_vec();
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
fn interpreter(path: &CStr) -> Option<(Detail, Vec<u8>)> {
    let file = File::open(Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()))).ok()?;
    let mut head = Vec::new();
    (&file).take(256).read_to_end(&mut head).ok()?;
    if let Some(line) = head.strip_prefix(b"#!") {
        // A carriage return is part of the name, as it is to the kernel: the explanation of the
        // failure looks for it.
        let line = line.split(|byte| *byte == b'\n').next()?.trim_ascii_start();
        let name = line.split(|byte| matches!(byte, b' ' | b'\t')).next()?;
        return Some((Detail::InterpreterMissing, name.to_vec()));
    }
    loader(&file, &head).map(|name| (Detail::LoaderMissing, name))
}

/// The `PT_INTERP` entry of a 64-bit little-endian ELF file.
fn loader(file: &File, head: &[u8]) -> Option<Vec<u8>> {
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let number =
        |bytes: &[u8], at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let count = u16::from_le_bytes(head.get(56..58)?.try_into().ok()?);
    let table = number(head, 32)?;
    for index in 0..u64::from(count.min(64)) {
        let mut entry = [0; 56];
        file.read_exact_at(&mut entry, table.checked_add(index * 56)?).ok()?;
        if entry.starts_with(&3_u32.to_le_bytes()) {
            let length = usize::try_from(number(&entry, 32)?).ok()?.min(MAX_NAME);
            let mut name = vec![0; length];
            file.read_exact_at(&mut name, number(&entry, 8)?).ok()?;
            name.retain(|byte| *byte != 0);
            return Some(name);
        }
    }
    None
}
