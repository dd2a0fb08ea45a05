//! Which process is meant: identity beyond the pid, and what /proc knows of it.
//!
//! A pid is reused, and with bad luck within one clock tick, so that pid and start time together are
//! no identity. The inode of a pidfd is one, within a boot, on kernels that have pidfs (6.9); the boot
//! is told apart by its id. On older kernels the start time must do, together with the tag that the
//! keeper puts into the environment.
//!
//! Failure paths: whatever cannot be read counts as "not that process". A zombie counts as dead.
//!
//! Deliberately absent: signalling by pid. Who wants to signal opens a pidfd here first.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags};

use super::sys::{self, PidfdExit};
use crate::model::ExitStatus;

/// `PID_FS_MAGIC`.
const PIDFS: u64 = 0x5049_4446;

/// Who a process is, within one boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Its number, which may be reused after its end.
    pub pid: u32,
    /// The inode of its pidfd; 0 where the kernel has no pidfs.
    pub inode: u64,
    /// Its start time in clock ticks since boot; 0 where the inode says enough.
    pub start_ticks: u64,
}

impl Identity {
    /// That of the calling process. Takes no memory.
    pub(super) fn own() -> Self {
        let pid = std::process::id();
        let inode = open(pid).map_or(0, |pidfd| inode(pidfd.as_fd()));
        // A look into /proc is dear: the kernel makes a folder for the process, and removes it with its end.
        let stat = if inode == 0 { Stat::own() } else { None };
        Self { pid, inode, start_ticks: stat.map_or(0, |stat| stat.start_ticks) }
    }
}

/// The kernel's id of this boot.
pub fn boot_id() -> io::Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

/// The fields of `/proc/PID/stat` that supervision needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stat {
    pub(super) pid: u32,
    pub(super) state: u8,
    pub(super) parent: u32,
    pub(super) session: u32,
    pub(super) start_ticks: u64,
    /// How many bytes its environment has; `None` while it executes a program, and 0 of what has no memory of
    /// its own, as threads of the kernel, or may not be looked at.
    pub(super) environment: Option<u64>,
    /// The wait status of a zombie; 0 where it may not be known.
    pub(super) exit_code: i32,
}

impl Stat {
    /// Reads the fields of a process; `None` if there is no such process.
    pub(super) fn read(pid: u32) -> Option<Self> {
        let mut buffer = [0; 1024];
        let mut file = fs::File::open(format!("/proc/{pid}/stat")).ok()?;
        let length = file.read(&mut buffer).ok()?;
        Self::parse(buffer.get(..length)?)
    }

    /// Those of the calling process. Takes no memory.
    fn own() -> Option<Self> {
        let mut buffer = [0; 1024];
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(c"/proc/self/stat", flags, Mode::empty()).ok()?;
        let length = rustix::io::read(&file, &mut buffer).ok()?;
        Self::parse(buffer.get(..length)?)
    }

    /// The name of the program stands in parentheses and may hold anything, also parentheses and
    /// spaces; the fields after it are counted from the last closing one.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let open = text.iter().position(|byte| *byte == b'(')?;
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let pid = std::str::from_utf8(text.get(..open)?).ok()?.trim().parse().ok()?;
        let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        let start_ticks = fields.nth(15)?.parse().ok()?;
        let mut number = |skip| fields.nth(skip).and_then(|field| field.parse().ok()).unwrap_or(0);
        let (memory, code): (u64, u64) = (number(0), number(2));
        let (begin, end): (u64, u64) = (number(23), number(0));
        let exit_code = fields.next().and_then(|field| field.parse().ok()).unwrap_or(0);
        // Where the code of a program is, is noted last of all (`load_elf_binary` in fs/binfmt_elf.c).
        let is_executing = memory != 0 && code == 0;
        let environment = (!is_executing).then_some(end.saturating_sub(begin));
        Some(Self { pid, state, parent, session, start_ticks, environment, exit_code })
    }

    /// It has ended, or is about to be taken out of the table.
    pub(super) const fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Opens a pidfd of whatever process has this pid now.
pub(crate) fn open(pid: u32) -> Option<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// The inode of a pidfd, or 0 where the kernel has no pidfs: there all pidfds share one inode.
pub(crate) fn inode(pidfd: BorrowedFd<'_>) -> u64 {
    let magic = rustix::fs::fstatfs(pidfd).map_or(0, |found| found.f_type.unsigned_abs());
    if magic != PIDFS {
        return 0;
    }
    rustix::fs::fstat(pidfd).map_or(0, |found| found.st_ino)
}

/// Opens a pidfd of exactly this process, alive or a zombie. `is_tagged` is asked on kernels without
/// pidfs, where the start time alone would not do.
pub(super) fn open_exactly(
    identity: &Identity,
    is_tagged: impl FnOnce(u32) -> bool,
) -> Option<OwnedFd> {
    let pidfd = open(identity.pid)?;
    let found = inode(pidfd.as_fd());
    if identity.inode != 0 && found != 0 {
        return (found == identity.inode).then_some(pidfd);
    }
    let stat = Stat::read(identity.pid)?;
    let matches =
        stat.start_ticks == identity.start_ticks && (stat.is_dead() || is_tagged(identity.pid));
    matches.then_some(pidfd)
}

/// Whether the process behind a pidfd has not ended. What was read of its pid while this holds before
/// and after was read of that process.
pub(super) fn is_alive(pidfd: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(rustix::event::poll(&mut polled, Some(&now)), Ok(0))
}

/// How a process that is not a child of ours ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It has not ended.
    Alive,
    /// It has ended, and its parent will bring out how when it reaps it.
    Pending,
    /// It has ended.
    Ended(ExitStatus),
}

/// How the process behind `pidfd`, whose pid is or was `pid`, ended.
pub(super) fn fate(pidfd: BorrowedFd<'_>, pid: u32) -> Fate {
    if is_alive(pidfd) {
        return Fate::Alive;
    }
    let answer = sys::pidfd_exit(pidfd);
    if let PidfdExit::Status(status) = answer {
        return Fate::Ended(exit_status(status));
    }
    // A zombie still has its number, and its line in /proc says how it ended to whom may trace it.
    // To others the kernel shows 0 there, which must not be taken for success.
    let zombie = Stat::read(pid).filter(Stat::is_dead);
    match (zombie, answer) {
        (Some(stat), _) if may_trace(pid) => Fate::Ended(exit_status(stat.exit_code)),
        (Some(_), PidfdExit::NotYet) => Fate::Pending,
        // Reaped between the two questions: ask once more.
        (None, PidfdExit::NotYet) => match sys::pidfd_exit(pidfd) {
            PidfdExit::Status(status) => Fate::Ended(exit_status(status)),
            _ => Fate::Ended(ExitStatus::Unknown),
        },
        (_, PidfdExit::Unsupported | PidfdExit::Status(_)) => Fate::Ended(ExitStatus::Unknown),
    }
}

/// Whether the kernel shows us the guarded fields of this process: it asks the same question before it
/// lets anyone read the links to the namespaces of a process.
fn may_trace(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/ns/user")).is_ok()
}

/// The kernel's wait status in the words of the model.
pub(super) fn exit_status(status: i32) -> ExitStatus {
    if libc::WIFEXITED(status) {
        ExitStatus::Code(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        ExitStatus::Signal(libc::WTERMSIG(status))
    } else {
        ExitStatus::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_program_name_does_not_shift_the_fields() {
        let fields = "S 7 8 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 \
                      17 0 0 0 0 0 0 0 0 0 0 0 0 256";
        let line = format!("12 (a) Z 1 1 (b) {fields}\n");
        let stat = Stat::parse(line.as_bytes()).unwrap();
        let expected = Stat {
            pid: 12,
            state: b'S',
            parent: 7,
            session: 9,
            start_ticks: 4242,
            environment: Some(0),
            exit_code: 256,
        };
        assert_eq!(stat, expected);
        assert_eq!(Stat::parse(b"12 (x"), None);
        assert_eq!(Stat::parse(b""), None);
        assert_eq!(Stat::parse(b")("), None);
    }

    #[test]
    fn this_process_is_itself_and_nobody_else() {
        let pid = std::process::id();
        let stat = Stat::read(pid).unwrap();
        assert_eq!(stat.pid, pid);
        assert_eq!(
            Stat::own().map(|own| (own.pid, own.start_ticks)),
            Some((pid, stat.start_ticks))
        );
        let pidfd = open(pid).unwrap();
        let myself = Identity { pid, inode: inode(pidfd.as_fd()), start_ticks: stat.start_ticks };
        assert!(open_exactly(&myself, |_| true).is_some());
        let another = Identity {
            inode: myself.inode.wrapping_add(u64::from(myself.inode != 0)),
            start_ticks: stat.start_ticks + 1,
            ..myself
        };
        assert!(open_exactly(&another, |_| true).is_none());
        let unknown_kernel = Identity { inode: 0, ..myself };
        assert!(open_exactly(&unknown_kernel, |_| true).is_some());
        assert!(open_exactly(&unknown_kernel, |_| false).is_none());
        assert_eq!(fate(pidfd.as_fd(), pid), Fate::Alive);
    }

    #[test]
    fn wait_statuses_keep_codes_and_signals_apart() {
        assert_eq!(exit_status(0), ExitStatus::Code(0));
        assert_eq!(exit_status(7 << 8), ExitStatus::Code(7));
        assert_eq!(exit_status(9), ExitStatus::Signal(9));
        assert_eq!(exit_status(0x8B), ExitStatus::Signal(11));
    }
}
