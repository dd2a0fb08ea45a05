//! System calls past the C library, for children that have not executed their program yet.
//!
//! The C library notes the error of a call in memory of the thread, and a child that borrows its parent's
//! memory (see [`super::lend`]) shares that with the parent, which would take one error for another. What
//! `rustix` wraps needs none of this; it makes its calls like this itself.

use std::ffi::{CStr, c_char, c_long};

use rustix::io::Errno;

/// Makes a system call. Gives what the kernel gave: a negative number is an error.
///
/// # Safety
/// As for the call itself.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the C library's own wrapper writes to memory of the thread")]
pub(super) unsafe fn call(number: c_long, arguments: [usize; 4]) -> c_long {
    let [first, second, third, fourth] = arguments;
    let result: c_long;
    // SAFETY: the caller's for the call; it changes these registers and no others.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// On other machines children do not borrow memory, so that the C library's way will do.
///
/// # Safety
/// As for the call itself.
#[cfg(not(target_arch = "x86_64"))]
#[expect(unsafe_code, reason = "the calls that are made by it have no wrapper")]
pub(super) unsafe fn call(number: c_long, arguments: [usize; 4]) -> c_long {
    let [first, second, third, fourth] = arguments;
    // SAFETY: the caller's.
    let result = unsafe { libc::syscall(number, first, second, third, fourth) };
    if result >= 0 {
        return result;
    }
    -c_long::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// The error that a result of [`call`] stands for.
pub(super) fn error(result: c_long) -> Errno {
    Errno::from_raw_os_error(
        i32::try_from(-result).ok().filter(|errno| *errno > 0).unwrap_or(libc::EIO),
    )
}

/// Executes a program. Comes back only with the reason why not.
///
/// # Safety
/// Both arrays end with a null pointer, and all others in them point to texts that end with a zero.
#[expect(unsafe_code, reason = "the safe wrapper makes new arrays at each try")]
pub(super) unsafe fn execute(path: &CStr, argv: &[*const c_char], env: &[*const c_char]) -> Errno {
    let arguments = [
        path.as_ptr().expose_provenance(),
        argv.as_ptr().expose_provenance(),
        env.as_ptr().expose_provenance(),
        0,
    ];
    // SAFETY: the caller's for the arrays; the path is a text that ends with a zero.
    error(unsafe { call(libc::SYS_execve, arguments) })
}

/// Marks every descriptor from `first` on as close-on-exec. On kernels before 5.11 it does nothing;
/// everything that the keeper opens itself is marked from the start.
#[expect(unsafe_code, reason = "close_range has no wrapper")]
pub(super) fn close_on_exec_from(first: u32) {
    let last = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
    let flags = usize::try_from(libc::CLOSE_RANGE_CLOEXEC).unwrap_or(0);
    let first = usize::try_from(first).unwrap_or(last);
    // SAFETY: only marks descriptors; none is closed under its owner.
    unsafe { call(libc::SYS_close_range, [first, last, flags, 0]) };
}

/// These signals get their default disposition, also the two that the C library does not let `signal`
/// touch. Exec itself does that to those with a handler, but not to ignored ones.
#[expect(unsafe_code, reason = "the C library's wrapper refuses some signals")]
pub(super) fn reset_signals(ignored: u64) {
    // The kernel's own structure is smaller than this on all machines, and all zeros is the default
    // disposition with no flags and an empty mask.
    let default = [0_u64; 8];
    for signal in (1..=64_usize).filter(|signal| ignored >> (signal - 1) & 1 == 1) {
        let arguments = [signal, default.as_ptr().expose_provenance(), 0, 8];
        // SAFETY: the structure outlives the call; no handler is installed. Failure (SIGKILL and
        // SIGSTOP) changes nothing.
        unsafe { call(libc::SYS_rt_sigaction, arguments) };
    }
}

/// No signal is blocked from now on.
#[expect(unsafe_code, reason = "the C library's wrapper is for threads of its own")]
pub(super) fn unblock_signals() -> Result<(), Errno> {
    let none = 0_u64;
    let how = usize::try_from(libc::SIG_SETMASK).unwrap_or(2);
    let set = std::ptr::from_ref(&none).expose_provenance();
    // SAFETY: the set outlives the call, and has the size that is told.
    match unsafe { call(libc::SYS_rt_sigprocmask, [how, set, 0, 8]) } {
        0 => Ok(()),
        result => Err(error(result)),
    }
}

/// Ends this process at once, without running anything of the parent's.
#[expect(unsafe_code, reason = "_exit has no wrapper")]
pub(super) fn exit_now(code: u8) -> ! {
    loop {
        // SAFETY: does not return and touches no memory.
        unsafe { call(libc::SYS_exit_group, [usize::from(code), 0, 0, 0]) };
    }
}
