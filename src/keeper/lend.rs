//! A child that borrows the keeper's memory until it executes its program.
//!
//! ```text
//!   keeper ── lend: what the child works with, a stack ─► child ── exec, or its end
//!      │                                                    │
//!      └── goes on at once                 end of file of the barrier: both are the keeper's again
//! ```
//!
//! A fork copies the tables of the keeper's memory, and then keeper and child copy each page that either
//! of them writes to: a third of what a launch costs. Neither is needed by a child that only makes system
//! calls. It is what `posix_spawn` does with vfork, except that the keeper does not stand still meanwhile:
//! a working directory on a file server that is down must hold up nobody else.
//!
//! The rules of such a child, which `child` keeps:
//! * It writes to what was lent to it and to its own stack, to nothing else; it reads besides only what
//!   nobody changes. It neither takes nor gives back memory of the heap.
//! * Its system calls go past the C library where that notes something (see [`super::raw`]).
//! * What was lent is taken back when the barrier says that the child has executed its program, by which
//!   it has memory of its own, or has ended. If that is never said, it is never taken back.
//!
//! Failure paths: where the kernel or a filter of system calls refuses it, this child and all others are forked.
//!
//! Deliberately absent: children that are to be somebody else. Until it executes its program, such a one
//! would be a process of that user with the memory of the keeper's. They are forked.

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use super::child::{self, Brief};
use super::sys::CloneArguments;

/// Of one stack. What is not used of it is no memory; debug builds use much.
const STACK: usize = 256 * 1024;
/// At its lower end, where nothing may be written.
const GUARD: usize = 16 * 1024;

/// Stacks that are kept for the next child: one crash after the other needs one.
const KEPT: usize = 1;

/// The stack of one child.
#[derive(Debug)]
pub(super) struct Stack(NonNull<c_void>);

impl Stack {
    #[expect(unsafe_code, reason = "memory that is nobody's yet")]
    fn new() -> Result<Self, Errno> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), STACK, protection, flags)? };
        let stack = Self(NonNull::new(start).ok_or(Errno::NOMEM)?);
        // SAFETY: a part of the mapping that nobody uses yet.
        unsafe { rustix::mm::mprotect(start, GUARD, MprotectFlags::empty())? };
        Ok(stack)
    }
}

impl Drop for Stack {
    #[expect(unsafe_code, reason = "the end of a mapping")]
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this size, and nobody uses it any more: while it is
        // lent it is not dropped.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr(), STACK) };
    }
}

/// The stacks that are not lent.
#[derive(Debug)]
pub(super) struct Stacks {
    kept: Vec<Stack>,
    /// Whether there is any use in them.
    are_of_use: bool,
}

impl Default for Stacks {
    fn default() -> Self {
        Self { kept: Vec::new(), are_of_use: cfg!(target_arch = "x86_64") }
    }
}

impl Stacks {
    /// Whether children can borrow memory, as far as is known.
    pub(super) const fn are_of_use(&self) -> bool {
        self.are_of_use
    }

    /// From now on all children are forked.
    pub(super) fn are_of_no_use(&mut self) {
        self.are_of_use = false;
        self.clear();
    }

    /// One for a child.
    pub(super) fn take(&mut self) -> Result<Stack, Errno> {
        self.kept.pop().map_or_else(Stack::new, Ok)
    }

    /// One that was taken back.
    pub(super) fn give(&mut self, stack: Stack) {
        if self.kept.len() < KEPT {
            self.kept.push(stack);
        }
    }

    /// Gives back their memory.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }
}

/// What is lent to a child. Dropping it takes nothing back.
#[derive(Debug)]
pub(super) struct Loan {
    brief: NonNull<Brief>,
    stack: ManuallyDrop<Stack>,
}

impl Loan {
    /// Takes back what was lent.
    ///
    /// # Safety
    /// The child has executed its program or has ended.
    #[expect(unsafe_code, reason = "only the caller knows of the child")]
    pub(super) unsafe fn take_back(self) -> Stack {
        // SAFETY: it was made of a box in `lend`, and the child was the only one to have it.
        drop(unsafe { Box::from_raw(self.brief.as_ptr()) });
        ManuallyDrop::into_inner(self.stack)
    }
}

/// There is no child.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) errno: Errno,
    /// As it was given.
    pub(super) brief: Box<Brief>,
}

impl Refused {
    /// The kernel, or a filter of system calls as container engines have them, does not let anybody do it.
    pub(super) fn is_final(&self) -> bool {
        matches!(self.errno, Errno::NOSYS | Errno::PERM | Errno::INVAL)
    }
}

/// Makes a child in this memory that becomes the program of `brief`, inside `group` where one is given.
/// Gives its pid.
pub(super) fn lend(
    brief: Box<Brief>,
    stack: Stack,
    group: Option<BorrowedFd<'_>>,
) -> Result<(u32, Loan), Refused> {
    let brief = NonNull::from(Box::leak(brief));
    let mut arguments = CloneArguments::child_in(group);
    arguments.share_memory(stack.0, STACK);
    match clone(&arguments, brief) {
        Ok(pid) => Ok((pid, Loan { brief, stack: ManuallyDrop::new(stack) })),
        Err(errno) => {
            #[expect(unsafe_code, reason = "there is no child")]
            // SAFETY: it was leaked just now, and nobody else has it.
            let brief = unsafe { Box::from_raw(brief.as_ptr()) };
            Err(Refused { errno, brief })
        }
    }
}

/// Where the child begins.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "what was lent comes as a bare pointer")]
extern "C" fn begin(brief: *mut Brief) -> ! {
    // SAFETY: it was leaked for this child alone, and is taken back only when the child is gone from this
    // memory.
    child::become_program(unsafe { &mut *brief })
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the child begins on another stack, which no wrapper knows of")]
fn clone(arguments: &CloneArguments, brief: NonNull<Brief>) -> Result<u32, Errno> {
    let result: libc::c_long;
    // SAFETY: the parent comes back from the call as from any other; it changes `rcx`, `r11` and `rax`. The
    // child begins on its own stack, whose upper end is aligned as the convention of calls wants it, and
    // never leaves `begin`, so that nothing of the parent's frame is used by it.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r8",
            "xor ebp, ebp",
            "call r9",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") std::ptr::from_ref(arguments),
            in("rsi") std::mem::size_of::<CloneArguments>(),
            // Named, because the compiler might choose rbp, which ends the chain of frames above.
            in("r8") brief.as_ptr(),
            in("r9") begin as extern "C" fn(*mut Brief) -> !,
            out("rcx") _,
            out("r11") _,
        );
    }
    u32::try_from(result).map_err(|_| super::raw::error(result))
}

#[cfg(not(target_arch = "x86_64"))]
fn clone(_: &CloneArguments, _: NonNull<Brief>) -> Result<u32, Errno> {
    Err(Errno::NOSYS)
}
