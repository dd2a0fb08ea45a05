//! The few system calls that have no safe wrapper in the crates we use.
//!
//! What is `unsafe` in the keeper is in this file, in [`super::raw`] (calls past the C library), in
//! [`super::lend`] (memory that a child borrows), and, where a descriptor is known by its number, in
//! [`super::child`]. Each function here is a thin shell: no policy, no state.
//!
//! Deliberately absent: anything that a crate wraps already, and any use of a bare pid to signal a
//! process that may have been reaped by somebody else.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions};

use super::raw;

/// Which side of a fork this is.
pub(super) enum Forked {
    /// The keeper; the child has this pid.
    Parent(u32),
    /// The child.
    Child,
}

/// The argument of `clone3(2)` up to the `cgroup` field (kernel 5.7).
#[repr(C)]
#[derive(Default)]
pub(super) struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

impl CloneArguments {
    /// A child that starts its life inside `group` where one is given.
    pub(super) fn child_in(group: Option<BorrowedFd<'_>>) -> Self {
        Self {
            flags: if group.is_some() { CLONE_INTO_CGROUP } else { 0 },
            exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
            cgroup: group.map_or(0, |group| u64::from(group.as_raw_fd().unsigned_abs())),
            ..Self::default()
        }
    }

    /// It shares the memory of its parent and runs on this stack, given by its lower end.
    pub(super) fn share_memory(&mut self, stack: NonNull<c_void>, size: usize) {
        self.flags |= u64::from(libc::CLONE_VM.unsigned_abs());
        self.stack = u64::try_from(stack.as_ptr().expose_provenance()).unwrap_or(0);
        self.stack_size = u64::try_from(size).unwrap_or(0);
    }
}

/// Forks; the child starts its life inside `group` where one is given.
///
/// The keeper has one thread, so the child may run plain code: no lock can be held by a thread that
/// the fork left behind.
#[expect(unsafe_code, reason = "clone3 has no wrapper")]
pub(super) fn fork_into(group: Option<BorrowedFd<'_>>) -> Result<Forked, Errno> {
    if group.is_none() {
        // SAFETY: plain fork of a process with a single thread; see above.
        return forked(i64::from(unsafe { libc::fork() }));
    }
    let arguments = CloneArguments::child_in(group);
    // SAFETY: without CLONE_VM and with no stack this is a fork; the structure outlives the call and
    // its size is told. The C library keeps nothing in the child that depends on its own wrapper:
    // the process has one thread, and no pid is cached.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            std::ptr::from_ref(&arguments),
            std::mem::size_of::<CloneArguments>(),
        )
    };
    forked(result)
}

fn forked(result: i64) -> Result<Forked, Errno> {
    match result {
        0 => Ok(Forked::Child),
        pid if pid > 0 => Ok(Forked::Parent(u32::try_from(pid).unwrap_or(0))),
        _ => Err(last_errno()),
    }
}

/// The error of the last call of the C library.
pub(super) fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// A child that has ended and is no longer in the process table.
pub(super) struct Reaped {
    /// Its pid, free for reuse from now on.
    pub(super) pid: u32,
    /// The wait status as the kernel gave it.
    pub(super) status: i32,
    /// User and system time of it and of the descendants that it waited for.
    pub(super) cpu: Duration,
}

/// Takes one ended child, if there is one: the first that is found among all, or the one with this pid.
/// The kernel looks through all children for the first, and knows where the other is.
#[expect(unsafe_code, reason = "wait4 has no wrapper that returns the usage")]
pub(super) fn reap(pid: Option<u32>) -> Option<Reaped> {
    let wanted = match pid {
        Some(pid) => i32::try_from(pid).ok().filter(|pid| *pid > 0)?,
        None => -1,
    };
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are valid for writes for the length of the call.
    let pid = unsafe { libc::wait4(wanted, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    // SAFETY: zeroed is a valid value of this plain structure, and the kernel has filled it.
    let usage = unsafe { usage.assume_init() };
    Some(Reaped { pid, status, cpu: duration(usage.ru_utime) + duration(usage.ru_stime) })
}

fn duration(time: libc::timeval) -> Duration {
    let micros = u32::try_from(time.tv_usec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), micros.saturating_mul(1_000))
}

/// Whether this number is that of a child of ours that has not been reaped, alive or not.
pub(super) fn is_child(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    loop {
        match rustix::process::waitid(WaitId::Pid(pid), options) {
            Err(Errno::INTR) => {}
            outcome => return !matches!(outcome, Err(Errno::CHILD)),
        }
    }
}

/// Sends `signal` to a child of ours that is not reaped yet, whose pid therefore is still its own.
#[expect(unsafe_code, reason = "signal numbers without a name have no wrapper")]
pub(super) fn signal_child(pid: u32, signal: i32) -> Result<(), Errno> {
    let Ok(pid) = i32::try_from(pid) else { return Err(Errno::SRCH) };
    if pid <= 1 {
        return Err(Errno::SRCH);
    }
    // SAFETY: the call takes plain numbers.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Sends `signal` to exactly the process that `pidfd` stands for.
#[expect(unsafe_code, reason = "signal numbers without a name have no wrapper")]
pub(super) fn signal_pidfd(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: plain numbers and a null pointer, which the call documents as allowed.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0)
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// The first version of the kernel's structure of this name (6.13).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 0x0B, struct pidfd_info)`.
const PIDFD_GET_INFO: u64 = (3 << 30) | (64 << 16) | (0xFF << 8) | 0x0B;

/// What `PIDFD_GET_INFO` says about the end of a process that is not a child of ours.
pub(super) enum PidfdExit {
    /// It has been reaped by its parent; this was its wait status.
    Status(i32),
    /// It has not been reaped yet, or the status is not kept.
    NotYet,
    /// This kernel cannot tell.
    Unsupported,
}

/// Asks for the exit status of the process behind `pidfd`.
#[expect(unsafe_code, reason = "the request has no wrapper")]
pub(super) fn pidfd_exit(pidfd: BorrowedFd<'_>) -> PidfdExit {
    const { assert!(std::mem::size_of::<PidfdInfo>() == 64) };
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // The C libraries differ in the type of the request, hence the inferred conversion.
    // SAFETY: the request reads and writes exactly the 64 bytes of the structure.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) };
    if result != 0 {
        return match last_errno() {
            Errno::SRCH => PidfdExit::NotYet,
            _ => PidfdExit::Unsupported,
        };
    }
    if info.mask & PIDFD_INFO_EXIT == 0 {
        return PidfdExit::NotYet;
    }
    PidfdExit::Status(info.exit_code)
}

/// Takes over a descriptor that this process was started with. Refuses one that is not open.
#[expect(unsafe_code, reason = "an inherited descriptor is only known by its number")]
pub(super) fn adopt_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    if number < 3 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: F_GETFD takes no argument and changes nothing.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and at start-up nothing else in this process owns an inherited number.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(owned.as_fd(), rustix::io::FdFlags::CLOEXEC)?;
    Ok(owned)
}

/// Sets the flags of a descriptor that is known by its number.
#[expect(unsafe_code, reason = "the safe wrapper wants an owner, and there are thousands")]
pub(super) fn set_descriptor_flags(number: RawFd, flags: rustix::io::FdFlags) -> io::Result<()> {
    let flags = i32::try_from(flags.bits()).unwrap_or(libc::FD_CLOEXEC);
    // SAFETY: F_SETFD takes a plain number; on a descriptor that is not open it fails.
    match unsafe { libc::fcntl(number, libc::F_SETFD, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// In a child that never executes a program: closes everything from 3 on but these. Whatever owns the
/// others in the parent is never used, nor dropped, in this child.
#[expect(unsafe_code, reason = "closes what others own")]
pub(super) fn close_all_but(kept: impl Iterator<Item = RawFd>) {
    let mut kept: Vec<u32> = kept.filter_map(|number| u32::try_from(number).ok()).collect();
    kept.sort_unstable();
    kept.push(u32::MAX);
    let mut first = 3_u32;
    for number in kept {
        if number > first {
            // SAFETY: see above. On kernels before 5.9 nothing is closed before the child ends.
            unsafe { libc::syscall(libc::SYS_close_range, first, number - 1, 0) };
        }
        first = first.max(number.saturating_add(1));
    }
}

/// Sets the disposition of a signal to ignored or to its default.
#[expect(unsafe_code, reason = "sigaction is unsafe because of handlers, of which there are none")]
pub(super) fn set_signal(signal: i32, ignore: bool) {
    let handler = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: no handler is installed, only one of the two fixed dispositions. Failure (SIGKILL,
    // SIGSTOP, numbers that the C library keeps for itself) changes nothing.
    unsafe {
        libc::signal(signal, handler);
    }
}

/// The signals that this process ignores, as a set of bits: bit 0 is signal 1. Whoever started it may
/// have ignored any of them, also the two that the C library keeps for itself.
pub(super) fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Without an answer all of them are reset.
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(u64::MAX)
}

/// In a child before exec: makes `descriptor` number 3, to be inherited.
#[expect(unsafe_code, reason = "dup2 onto a bare number")]
pub(super) fn place_at_three(descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
    if descriptor.as_raw_fd() == 3 {
        return rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty());
    }
    // SAFETY: whatever had number 3 in the parent is not used in this child any more, and is never
    // dropped here: the child ends by exec or `_exit`.
    if unsafe { libc::dup2(descriptor.as_raw_fd(), 3) } == 3 { Ok(()) } else { Err(last_errno()) }
}

/// Whether two processes have the same memory: one is the child of the other's vfork. False also if that cannot
/// be known.
#[expect(unsafe_code, reason = "kcmp has no wrapper")]
pub(super) fn share_memory(one: u32, other: u32) -> bool {
    /// From the kernel's `kcmp_type`.
    const KCMP_VM: usize = 1;
    let pid = |pid| usize::try_from(pid).unwrap_or(usize::MAX);
    // SAFETY: plain numbers.
    unsafe { raw::call(libc::SYS_kcmp, [pid(one), pid(other), KCMP_VM, 0]) == 0 }
}

/// A duplicate of a descriptor that is known by its number, with a number of at least `least`, close-on-exec.
/// Nobody owns it: it lives until this process executes a program or ends.
#[expect(unsafe_code, reason = "the descriptor is known by its number")]
pub(super) fn duplicate_from(number: RawFd, least: RawFd) -> Result<RawFd, Errno> {
    let arguments = [number, libc::F_DUPFD_CLOEXEC, least, 0].map(unsigned);
    // SAFETY: plain numbers; on a descriptor that is not open it fails.
    let result = unsafe { raw::call(libc::SYS_fcntl, arguments) };
    RawFd::try_from(result).ok().filter(|made| *made >= 0).ok_or_else(|| raw::error(result))
}

/// In a child before exec: makes these descriptors the numbers from 3 to `behind`, to be inherited. What
/// had such a number stays open under another one until exec: it may be the lock of the home. The list is
/// used up.
#[expect(unsafe_code, reason = "dup2 onto bare numbers")]
pub(super) fn hand_down(descriptors: &mut [RawFd], behind: RawFd) -> Result<(), Errno> {
    for number in descriptors.iter_mut() {
        *number = duplicate_from(*number, behind)?;
    }
    for target in 3..behind {
        // A number that is free has nothing to be kept.
        let _ = duplicate_from(target, behind);
    }
    for (source, target) in descriptors.iter().zip(3..) {
        let arguments = [*source, target, 0, 0].map(unsigned);
        // SAFETY: whatever had the second number is not used in this child any more, and is never dropped
        // here: the child ends by exec or by its exit.
        let result = unsafe { raw::call(libc::SYS_dup3, arguments) };
        if result < 0 {
            return Err(raw::error(result));
        }
    }
    Ok(())
}

/// A number that is not negative as the kernel takes it.
fn unsigned(number: i32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
