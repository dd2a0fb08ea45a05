//! Starting a process, as the keeper sees it.
//!
//! ```text
//!   prepare ──► start ─────────────► Barrier ──┬─ report "failed", end of file ─► Failed
//!   (checks)     │                             ├─ report "ready",  end of file ─► Executed
//!                └─ child::become_program      └─ end of file alone             ─► Died
//! ```
//!
//! The barrier is a close-on-exec pipe: its end of file says that the program was executed or the
//! child is gone, and what the child wrote before says which. What the barrier says outranks how the
//! child ended: code 127 of a program is not a missing program.
//!
//! The keeper never waits for the child: a working directory on a file server that is down holds up
//! that component and nothing else. So it does not use vfork; but where it can, it lends the child its own
//! memory, see [`super::lend`].
//!
//! Invariant: everything that can be checked is checked before there is a child.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::child::{self, Brief};
use super::lend::{self, Loan, Stack, Stacks};
use super::sys::{self, Forked};
use super::wire::{
    Credentials, Detail, HandedDown, LaunchFailure, LogTarget, MAX_NAME, Spawn, detail_from,
    stage_from,
};
use crate::crash;
use crate::model::spec::{LimitSpec, Rlimit};
use crate::model::{LaunchStage, RunId, Time};

/// Where programs are looked for when the component's environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs carry their number in the upper bits of the epoll token.
pub(super) const MAX_RUN: u64 = 1 << 56;

/// What all launches of this keeper share.
#[derive(Debug)]
pub(super) struct Ground {
    /// The folder of the records.
    pub(super) records: OwnedFd,
    /// `/dev/null`, the standard input of every component.
    pub(super) null: OwnedFd,
    /// The kernel's id of this boot.
    pub(super) boot_id: String,
    /// Tells runs of this home from those of others.
    pub(super) tag: String,
    /// The limit of open files as it was before the keeper raised its own.
    pub(super) nofile: rustix::process::Rlimit,
    /// The signals that the keeper ignores; see [`sys::ignored_signals`].
    pub(super) ignored: u64,
    /// The keeper.
    pub(super) keeper: u32,
}

impl Ground {
    /// The variable by which the processes of a run are known.
    pub(super) fn variable(&self, run: RunId) -> Vec<u8> {
        format!("STIGMER_RUN={}:{run}", self.tag).into_bytes()
    }
}

/// Everything about one launch in the form in which the kernel takes it.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) run: RunId,
    pub(super) key: String,
    pub(super) aux: bool,
    pub(super) argv: Vec<CString>,
    pub(super) env: Vec<CString>,
    /// The files to try, in the order of the search path.
    pub(super) candidates: Vec<CString>,
    pub(super) working_dir: CString,
    pub(super) user: Option<Credentials>,
    pub(super) umask: Option<u32>,
    pub(super) nice: Option<i32>,
    pub(super) rlimits: Vec<(Rlimit, LimitSpec)>,
    pub(super) log: Log,
    pub(super) cgroup: Option<PathBuf>,
    /// The file for its record, if that is there already.
    pub(super) record: Option<OwnedFd>,
    /// Become the numbers from 3 on. The keeper holds them, and does nothing else until the child is there.
    pub(super) sockets: Vec<RawFd>,
}

/// Where stdout and stderr go.
#[derive(Debug)]
pub(super) enum Log {
    Path(CString),
    Passed(OwnedFd),
}

/// A failure of this stage and error, with nothing more known.
pub(super) fn failure(run: RunId, stage: LaunchStage, errno: Errno) -> LaunchFailure {
    let errno = errno.raw_os_error();
    LaunchFailure { run, stage, errno, detail: Detail::None, subject: Vec::new() }
}

impl Launch {
    /// Checks a request and brings it into form.
    pub(super) fn prepare(
        spawn: Spawn,
        passed: Option<OwnedFd>,
        held: &BTreeMap<String, OwnedFd>,
        ground: &Ground,
    ) -> Result<Self, LaunchFailure> {
        let run = spawn.run;
        let refuse = |stage, errno| failure(run, stage, errno);
        let text = |bytes: Vec<u8>| {
            CString::new(bytes).map_err(|_| refuse(LaunchStage::Prepare, Errno::INVAL))
        };
        let texts = |list: Vec<Vec<u8>>| list.into_iter().map(text).collect::<Result<Vec<_>, _>>();
        // The key stands in a line of the record.
        if spawn.key.len() > MAX_NAME || spawn.key.chars().any(char::is_control) {
            return Err(refuse(LaunchStage::Prepare, Errno::INVAL));
        }
        let program = spawn.argv.first().filter(|program| !program.is_empty());
        let program = program.ok_or_else(|| refuse(LaunchStage::Prepare, Errno::INVAL))?;
        if spawn.working_dir.first() != Some(&b'/') {
            return Err(refuse(LaunchStage::WorkingDir, Errno::INVAL));
        }
        let candidates = texts(candidates(program, &spawn.env))?;
        let mut env = spawn.env;
        env.retain(|variable| !variable.starts_with(b"STIGMER_RUN="));
        env.push(ground.variable(run));
        let sockets =
            sockets(&spawn.sockets, held).ok_or_else(|| refuse(LaunchStage::Fork, Errno::MFILE))?;
        announce_sockets(&spawn.sockets, &mut env);
        let log = match (spawn.log, passed) {
            (LogTarget::Path(path), _) => Log::Path(text(path)?),
            (LogTarget::Passed, Some(descriptor)) => Log::Passed(descriptor),
            // Lost on the way because this process has no descriptor left to receive it with.
            (LogTarget::Passed, None) => return Err(refuse(LaunchStage::Log, Errno::MFILE)),
        };
        Ok(Self {
            run,
            key: spawn.key,
            aux: spawn.aux,
            argv: texts(spawn.argv)?,
            env: texts(env)?,
            candidates,
            working_dir: text(spawn.working_dir)?,
            user: spawn.user,
            umask: spawn.umask,
            nice: spawn.nice,
            rlimits: spawn.rlimits,
            log,
            cgroup: None,
            record: None,
            sockets,
        })
    }

    /// Makes a child that becomes the program. The keeper gets its pid and the barrier.
    pub(super) fn start(
        self,
        at: Time,
        group: Option<BorrowedFd<'_>>,
        ground: &Arc<Ground>,
        stacks: &mut Stacks,
    ) -> Result<(u32, Barrier), LaunchFailure> {
        let run = self.run;
        let refuse = |errno| failure(run, LaunchStage::Fork, errno);
        let (reader, writer) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(refuse)?;
        let barrier = |loan| {
            crash::point("forked");
            Barrier { pipe: File::from(reader), received: Vec::new(), loan, stack: None }
        };
        // Who is to be somebody else gets memory of its own.
        let may_borrow = stacks.are_of_use() && self.user.is_none();
        let (brief, _open) = Brief::new(self, at, &writer, ground);
        let mut brief = Box::new(brief);
        if may_borrow {
            let stack = stacks.take().map_err(refuse)?;
            match lend::lend(brief, stack, group) {
                Ok((pid, loan)) => return Ok((pid, barrier(Some(loan)))),
                Err(refused) if refused.is_final() => {
                    stacks.are_of_no_use();
                    brief = refused.brief;
                }
                Err(refused) => return Err(refuse(refused.errno)),
            }
        }
        match sys::fork_into(group).map_err(refuse)? {
            Forked::Child => child::become_program(&mut brief),
            Forked::Parent(pid) => Ok((pid, barrier(None))),
        }
    }
}

/// The descriptors that are to be handed down. `None` if one is not held: it was lost on the way, because
/// this process had no descriptor left to receive it with.
fn sockets(wanted: &[HandedDown], held: &BTreeMap<String, OwnedFd>) -> Option<Vec<RawFd>> {
    wanted.iter().map(|one| held.get(&one.held).map(AsRawFd::as_raw_fd)).collect()
}

/// The variables by which a program knows of the descriptors; `LISTEN_PID` is the child's to add. Nobody
/// else's stay beside them.
fn announce_sockets(sockets: &[HandedDown], env: &mut Vec<Vec<u8>>) {
    if sockets.is_empty() {
        return;
    }
    let own = [b"LISTEN_FDS=".as_slice(), b"LISTEN_FDNAMES=", b"LISTEN_PID="];
    env.retain(|variable| !own.iter().any(|own| variable.starts_with(own)));
    let names: Vec<&str> = sockets.iter().map(|one| one.name.as_str()).collect();
    env.push(format!("LISTEN_FDS={}", sockets.len()).into_bytes());
    env.push(format!("LISTEN_FDNAMES={}", names.join(":")).into_bytes());
}

/// The files that a program's name may mean. One with a slash means itself, from the working
/// directory; else each folder of the component's own `PATH` is tried, where an empty one means the
/// working directory.
pub(super) fn candidates(program: &[u8], env: &[Vec<u8>]) -> Vec<Vec<u8>> {
    if program.contains(&b'/') {
        return vec![program.to_vec()];
    }
    let path = env.iter().find_map(|variable| variable.strip_prefix(b"PATH="));
    let folders = path.unwrap_or(DEFAULT_PATH).split(|byte| *byte == b':');
    let file = |folder: &[u8]| {
        let folder = if folder.is_empty() { b".".as_slice() } else { folder };
        [folder, program].join(&b'/')
    };
    folders.map(file).collect()
}

/// The pipe between a child that has not yet executed its program and the keeper.
#[derive(Debug)]
pub(super) struct Barrier {
    pipe: File,
    received: Vec<u8>,
    /// What the child has borrowed.
    loan: Option<Loan>,
    /// Taken back from it.
    stack: Option<Stack>,
}

/// What came through the barrier.
#[derive(Debug)]
pub(super) enum Passage {
    /// The child is still at work.
    Pending,
    /// The program was executed.
    Executed {
        /// The inode of the process's pidfd.
        inode: u64,
    },
    /// The program was not executed.
    Failed(LaunchFailure),
    /// The child ended before it came to executing anything.
    Died,
}

impl Barrier {
    /// The barrier of a launch that a former program of this keeper began.
    pub(super) fn restored(pipe: OwnedFd, received: Vec<u8>) -> Self {
        // What it has borrowed is its own since the keeper executed another program.
        Self { pipe: File::from(pipe), received, loan: None, stack: None }
    }

    /// The stack that the child had, once it does not need it any more.
    pub(super) fn take_stack(&mut self) -> Option<Stack> {
        self.stack.take()
    }

    /// What has come through it so far.
    pub(super) fn received(&self) -> &[u8] {
        &self.received
    }

    /// Reads what is there. Never waits.
    pub(super) fn read(&mut self, run: RunId) -> Passage {
        let mut buffer = [0; 2048];
        loop {
            match self.pipe.read(&mut buffer) {
                Ok(0) => {
                    self.take_back();
                    return parse_report(&self.received, run);
                }
                Ok(length) => self.received.extend(buffer.iter().take(length)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Passage::Pending,
            }
        }
    }

    #[expect(unsafe_code, reason = "the end of a loan is known by the end of the file")]
    fn take_back(&mut self) {
        if let Some(loan) = self.loan.take() {
            // SAFETY: the other end is closed. The child alone had it, which never closes it; so it has
            // executed its program, for which the kernel takes the old memory away before it closes what
            // is marked, or has ended.
            self.stack = Some(unsafe { loan.take_back() });
        }
    }
}

impl AsFd for Barrier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// The child's reports: `R inode`, then, if executing fails, `F stage detail errno subject`.
/// The subject takes the rest, so that nothing may follow a failure.
pub(super) const READY: u8 = b'R';
/// See [`READY`].
pub(super) const FAILED: u8 = b'F';

fn parse_report(mut bytes: &[u8], run: RunId) -> Passage {
    let mut passage = Passage::Died;
    if let Some((&[READY, ref inode @ ..], rest)) = bytes.split_first_chunk::<9>() {
        passage = Passage::Executed { inode: u64::from_le_bytes(*inode) };
        bytes = rest;
    }
    if let Some((&[FAILED, stage, detail, ref errno @ ..], subject)) =
        bytes.split_first_chunk::<7>()
    {
        passage = Passage::Failed(LaunchFailure {
            run,
            stage: stage_from(stage).unwrap_or(LaunchStage::Exec),
            errno: i32::from_le_bytes(*errno),
            detail: detail_from(detail).unwrap_or(Detail::None),
            subject: subject.to_vec(),
        });
    }
    passage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_up_on_the_components_own_path() {
        let env = [b"HOME=/".to_vec(), b"PATH=/a::/b/".to_vec()];
        let found = candidates(b"api", &env);
        assert_eq!(found, [b"/a/api".to_vec(), b"./api".to_vec(), b"/b//api".to_vec()]);
        assert_eq!(candidates(b"./bin/api", &env), [b"./bin/api".to_vec()]);
        assert_eq!(candidates(b"api", &[]).len(), 6);
    }

    #[test]
    fn sockets_are_announced_and_a_lost_one_is_noticed() {
        let one = HandedDown { name: "http".into(), held: "a".into() };
        let two = HandedDown { name: "admin".into(), held: "b".into() };
        let mut env = vec![b"LISTEN_FDS=9".to_vec(), b"A=1".to_vec()];
        announce_sockets(&[], &mut env);
        assert_eq!(env.len(), 2);
        announce_sockets(&[one.clone(), two.clone()], &mut env);
        let expected = ["A=1", "LISTEN_FDS=2", "LISTEN_FDNAMES=http:admin"];
        assert_eq!(env, expected.map(|text| text.as_bytes().to_vec()));
        let held = BTreeMap::from([("a".to_owned(), File::open("/dev/null").unwrap().into())]);
        assert_eq!(sockets(std::slice::from_ref(&one), &held).map(|all| all.len()), Some(1));
        assert_eq!(sockets(&[one, two], &held), None);
    }

    #[test]
    fn the_barrier_tells_its_three_outcomes_apart() {
        let run = RunId(1);
        let ready = [&[READY][..], &7_u64.to_le_bytes()].concat();
        let failed = [&[FAILED, 8, 3][..], &13_i32.to_le_bytes(), b"/bin"].concat();
        assert!(matches!(parse_report(&ready, run), Passage::Executed { inode: 7 }));
        let both = [ready.clone(), failed.clone()].concat();
        for report in [failed, both] {
            let Passage::Failed(failure) = parse_report(&report, run) else { panic!() };
            assert_eq!(failure.stage, LaunchStage::Exec);
            assert_eq!(failure.detail, Detail::Directory);
            assert_eq!(failure.errno, 13);
            assert_eq!(failure.subject, b"/bin");
        }
        assert!(matches!(parse_report(&[], run), Passage::Died));
        assert!(matches!(parse_report(&ready[..8], run), Passage::Died));
    }
}
