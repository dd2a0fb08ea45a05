//! Containment by best effort, where there are no cgroups.
//!
//! A process belongs to a run if one of these holds:
//!
//! * its session is the one that the main process made,
//! * its environment carries the tag of the run, or
//! * its parent belongs to the run.
//!
//! ```text
//!   keeper (subreaper)
//!     ├─ main ─ child            by descent, by session
//!     ├─ orphan (double fork)    by session
//!     └─ daemon (setsid)         by tag
//! ```
//!
//! What changes its session, clears its environment and outlives its parent escapes; only a cgroup
//! holds that. The kernel does not reuse a number while it names a session; once a session has been seen
//! to be empty, it is not looked for again.
//!
//! While a process executes a program its environment reads as empty: it is looked at again, and where it stays
//! so, nobody says that nothing is left.
//!
//! Zombies do not count. The keeper and the engine never belong to a run, whatever their environment
//! says: they may have been started by a component.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::identity::{self, Stat};
use super::sys;

/// What a run is recognised by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks<'a> {
    /// The pid of the main process, unless it has been reaped: then the number may be another's.
    pub(super) main: Option<u32>,
    /// The number of the session that the main process made, as long as it is certain that somebody
    /// has been in it without a gap: then the number may be another's as well.
    pub(super) session: Option<u32>,
    /// The variable `STIGMER_RUN=...` of the run.
    pub(super) tag: &'a [u8],
    /// Processes that never belong to a run.
    pub(super) never: &'a [u32],
}

impl Marks<'_> {
    fn recognise(&self, stat: &Stat) -> Tagged {
        if self.main == Some(stat.pid) || self.session == Some(stat.session) {
            return Tagged::Yes;
        }
        tagged(*stat, self.tag)
    }
}

/// The processes that belong to a run: numbers that were right when /proc was read.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Whether each is in the session of the main process, whose number it reserves while it lives.
    pids: BTreeMap<u32, bool>,
    /// Whether all others are known not to be.
    is_certain: bool,
}

/// Looks through all of /proc. Fails where that cannot be read (no descriptor left), which must not be
/// taken for an empty tree.
pub(super) fn members(marks: &Marks<'_>) -> io::Result<Members> {
    let mut processes = all_processes()?;
    processes.retain(|stat| !stat.is_dead() && stat.pid > 1 && !marks.never.contains(&stat.pid));
    let in_session = |stat: &Stat| marks.session == Some(stat.session);
    let (mut pids, mut unknown) = (BTreeMap::new(), Vec::new());
    for stat in &processes {
        match marks.recognise(stat) {
            Tagged::Yes => drop(pids.insert(stat.pid, in_session(stat))),
            // What has another parent is found by descent, or belongs to somebody else.
            Tagged::Unknown if stat.parent == 1 || marks.never.contains(&stat.parent) => {
                unknown.push(stat.pid);
            }
            Tagged::Unknown | Tagged::No => {}
        }
    }
    // Descent, to any depth and in any order of numbers.
    loop {
        let children = processes
            .iter()
            .filter(|stat| pids.contains_key(&stat.parent) && !pids.contains_key(&stat.pid));
        let found: Vec<_> = children.map(|stat| (stat.pid, in_session(stat))).collect();
        if found.is_empty() {
            let is_certain = unknown.iter().all(|pid| pids.contains_key(pid));
            return Ok(Members { pids, is_certain });
        }
        pids.extend(found);
    }
}

impl Members {
    /// Whether nothing is left; false also where that is not certain.
    pub(super) fn is_empty(&self) -> bool {
        self.pids.is_empty() && self.is_certain
    }

    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        self.pids.keys().copied()
    }

    /// Opens a pidfd of a member, and then looks once more whether that process belongs to the run:
    /// since the look at /proc its number may have gone to somebody else. If the process is still alive
    /// after the second look, that look was at this very process.
    pub(super) fn hold(&self, pid: u32, marks: &Marks<'_>) -> Option<OwnedFd> {
        let pidfd = identity::open(pid)?;
        let stat = Stat::read(pid).filter(|stat| !stat.is_dead())?;
        let belongs = self.pids.contains_key(&stat.parent) || marks.recognise(&stat) == Tagged::Yes;
        (belongs && identity::is_alive(pidfd.as_fd())).then_some(pidfd)
    }

    /// One of the members to wait for, and whether it reserves the number of the session; such a one
    /// is preferred.
    pub(super) fn witness(&self, marks: &Marks<'_>) -> Option<(OwnedFd, bool)> {
        let hold = |in_session: bool| {
            let mut pids = self.pids.iter().filter(move |(_, inside)| **inside == in_session);
            pids.find_map(|(pid, _)| self.hold(*pid, marks))
        };
        let inside = hold(true).map(|pidfd| (pidfd, true));
        inside.or_else(|| hold(false).map(|pidfd| (pidfd, false)))
    }
}

/// Whether all of these processes, which have been told to stop, have done so.
pub(super) fn are_still(pids: &[u32]) -> bool {
    let looks: Vec<Option<usize>> = pids.iter().map(|pid| unstopped(*pid)).collect();
    pids.iter().zip(&looks).all(|(pid, look)| {
        let waiting = match look {
            None => return false,
            Some(0) => return true,
            Some(waiting) => *waiting,
        };
        // Who waits in vfork cannot stop, and cannot move either before its child has executed a program or
        // has ended, which one that is stopped does not.
        let holds_it = |(child, look): &(&u32, &Option<usize>)| {
            **look == Some(0)
                && Stat::read(**child).is_some_and(|stat| stat.parent == *pid)
                && sys::share_memory(*pid, **child)
        };
        waiting <= pids.iter().zip(&looks).filter(holds_it).count()
    })
}

/// How many threads of a process are not stopped, but wait in the kernel; `None` if one may move. Neither one
/// that has ended moves, nor a process that is gone.
fn unstopped(pid: u32) -> Option<usize> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Some(0) };
    let mut waiting = 0;
    for thread in threads.flatten() {
        let stat = fs::read(thread.path().join("stat")).ok();
        let Some(stat) = stat.and_then(|stat| Stat::parse(&stat)) else { continue };
        match stat.state {
            b'T' | b't' => {}
            b'D' => waiting += 1,
            _ if stat.is_dead() => {}
            _ => return None,
        }
    }
    Some(waiting)
}

fn all_processes() -> io::Result<Vec<Stat>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        found.extend(pid.and_then(Stat::read));
    }
    Ok(found)
}

/// Whether a process carries a tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tagged {
    Yes,
    No,
    /// It is executing a program, and has no environment yet.
    Unknown,
}

/// How often a process is looked at that is executing a program, and the pause between two looks. The kernel
/// needs microseconds, unless it waits for a disk.
const LOOKS: u32 = 10;
const PAUSE: Duration = Duration::from_micros(100);

/// Whether the environment that a process was started with holds exactly this variable.
pub(super) fn is_tagged(pid: u32, tag: &[u8]) -> bool {
    Stat::read(pid).is_some_and(|stat| tagged(stat, tag) == Tagged::Yes)
}

/// A process that executes a program has no environment for a moment, and what is read of it meanwhile ends
/// early. Then it is looked at again; where that goes on although it has one, somebody has hidden it.
#[expect(clippy::disallowed_methods, reason = "nothing tells when an execution is over")]
fn tagged(mut stat: Stat, tag: &[u8]) -> Tagged {
    for _ in 0..LOOKS {
        let Ok(file) = File::open(format!("/proc/{}/environ", stat.pid)) else { return Tagged::No };
        let found = look_for(file, tag);
        if found.is_there {
            return Tagged::Yes;
        }
        if stat.environment == Some(found.length) {
            return Tagged::No;
        }
        std::thread::sleep(PAUSE);
        let Some(now) = Stat::read(stat.pid) else { return Tagged::No };
        stat = now;
    }
    stat.environment.map_or(Tagged::Unknown, |_| Tagged::No)
}

/// What was found in an environment.
#[derive(PartialEq, Eq, Debug)]
struct Found {
    is_there: bool,
    /// How many bytes were read until then.
    length: u64,
}

/// Reads in pieces: an environment may be megabytes long, and the tag stands anywhere in it. A
/// variable longer than the tag is skipped to its end.
fn look_for(mut input: impl Read, wanted: &[u8]) -> Found {
    let mut buffer = [0; 4096];
    let mut found = Found { is_there: false, length: 0 };
    // How much of the present variable equals the tag so far; `None` once it differs.
    let mut matched = Some(0);
    loop {
        let length = match input.read(&mut buffer) {
            Ok(0) => {
                found.is_there = matched == Some(wanted.len());
                return found;
            }
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return found,
        };
        found.length += length as u64;
        for byte in buffer.iter().take(length) {
            if *byte == 0 {
                if matched == Some(wanted.len()) {
                    found.is_there = true;
                    return found;
                }
                matched = Some(0);
            } else {
                matched = matched.filter(|at| wanted.get(*at) == Some(byte)).map(|at| at + 1);
            }
        }
    }
}

/// The children of this process, zombies among them; `None` where the kernel does not list them.
pub(super) fn own_children() -> Option<Vec<u32>> {
    let pid = std::process::id();
    let listed = fs::read_to_string(format!("/proc/self/task/{pid}/children")).ok()?;
    Some(listed.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_whole_or_not_at_all() {
        let tag = b"STIGMER_RUN=abc:1";
        let long = [b"X=".as_slice(), &[b'y'; 10_000], b"\0STIGMER_RUN=abc:1\0Z=1\0"].concat();
        for (environment, expected) in [
            (b"A=1\0STIGMER_RUN=abc:1\0".as_slice(), true),
            (b"STIGMER_RUN=abc:1", true),
            (b"STIGMER_RUN=abc:12\0", false),
            (b"XSTIGMER_RUN=abc:1\0", false),
            (b"STIGMER_RUN=abc:\0", false),
            (b"", false),
            (&long, true),
        ] {
            let found = look_for(environment, tag);
            assert_eq!(found.is_there, expected, "{environment:?}");
            assert!(expected || found.length == environment.len() as u64);
        }
    }

    #[test]
    fn nobody_carries_a_tag_that_was_never_given() {
        let marks =
            Marks { main: None, session: None, tag: b"STIGMER_RUN=never-given:0", never: &[] };
        assert!(members(&marks).unwrap().is_empty());
    }

    /// A process that executes one program after the other has no environment most of the time.
    #[test]
    fn what_is_executing_a_program_is_not_overlooked() {
        let again = r#"exec /bin/sh -c "$0" "$0""#;
        let tag = format!("STIGMER_RUN=again-and-again:{}", std::process::id());
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", again, again]).env("STIGMER_RUN", tag.split_once('=').unwrap().1);
        let mut restless = command.spawn().unwrap();
        // As an orphan of the keeper's.
        let never = [std::process::id()];
        let marks = Marks { main: None, session: None, tag: tag.as_bytes(), never: &never };
        while members(&marks).unwrap().pids.is_empty() {}
        let overlooked: Vec<usize> =
            (0..500).filter(|_| members(&marks).unwrap().is_empty()).collect();
        restless.kill().unwrap();
        restless.wait().unwrap();
        assert_eq!(overlooked, [0; 0]);
        assert!(members(&marks).unwrap().pids.is_empty());
    }

    #[test]
    fn who_has_no_environment_is_known_not_to_belong() {
        let mut bare = std::process::Command::new("/bin/sleep");
        let mut bare = bare.arg("1000").env_clear().spawn().unwrap();
        let pid = bare.id();
        // Until it has executed its program it has the environment of this process.
        let known = || Stat::read(pid).unwrap();
        while known().environment != Some(0) {
            std::thread::yield_now();
        }
        assert_eq!(tagged(known(), b"STIGMER_RUN=x:1"), Tagged::No);
        // A thread of the kernel.
        assert_eq!(tagged(Stat::read(2).unwrap(), b"STIGMER_RUN=x:1"), Tagged::No);
        bare.kill().unwrap();
        bare.wait().unwrap();
    }
}
