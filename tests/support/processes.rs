//! Finding and ending processes without ever meaning the wrong one.
//!
//! A pidfd is opened first and the process looked at afterwards; if it still lives then, what was
//! seen is about the process that the pidfd stands for, and that one alone is signalled.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// One live process.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// The process `pid`, or `None` if there is none or only its zombie is left.
    pub(crate) fn open(pid: u32) -> Option<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        let process = Self { pid, pidfd: pidfd_open(raw, PidfdFlags::empty()).ok()? };
        process.is_alive().then_some(process)
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it runs; a zombie does not.
    pub(crate) fn is_alive(&self) -> bool {
        !self.wait_gone(Duration::ZERO)
    }

    /// Signals it. A process that has ended by now is none of our business.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Waits until it has ended; false if it has not within `at_most`.
    pub(crate) fn wait_gone(&self, at_most: Duration) -> bool {
        let timeout = Timespec::try_from(at_most).ok();
        let mut polled = [PollFd::new(&self.pidfd, PollFlags::IN)];
        loop {
            match poll(&mut polled, timeout.as_ref()) {
                Ok(count) => return count > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("cannot wait for process {}: {error}", self.pid),
            }
        }
    }
}

/// A process that belongs to a home.
#[derive(Debug)]
pub(crate) struct Found {
    /// The process itself.
    pub(crate) process: Process,
    /// The file that it executes.
    pub(crate) program: PathBuf,
    /// Its command line.
    pub(crate) command: String,
    environment: Vec<u8>,
}

impl Found {
    fn read(process: Process) -> Option<Self> {
        let folder = folder(&process);
        let command = fs::read(folder.join("cmdline")).ok()?;
        let found = Self {
            program: fs::read_link(folder.join("exe")).unwrap_or_default(),
            command: String::from_utf8_lossy(&command).replace('\0', " ").trim_end().to_owned(),
            environment: fs::read(folder.join("environ")).unwrap_or_default(),
            process,
        };
        found.process.is_alive().then_some(found)
    }

    fn touches(&self, root: &Path) -> bool {
        let root_bytes = root.as_os_str().as_bytes();
        let folder = folder(&self.process);
        self.environment.windows(root_bytes.len()).any(|window| window == root_bytes)
            || fs::read_link(folder.join("cwd")).is_ok_and(|path| path.starts_with(root))
            || fs::read_dir(folder.join("fd")).is_ok_and(|entries| {
                entries
                    .flatten()
                    .filter_map(|entry| fs::read_link(entry.path()).ok())
                    .any(|path| path.starts_with(root))
            })
    }

    /// The home's part of the tag that stigmer gives to what it starts: `STIGMER_RUN=HOME:RUN`.
    fn tag(&self) -> Option<&[u8]> {
        let variable = self
            .environment
            .split(|byte| *byte == 0)
            .find_map(|variable| variable.strip_prefix(b"STIGMER_RUN="))?;
        let colon = variable.iter().position(|byte| *byte == b':')?;
        Some(&variable[..colon])
    }
}

fn folder(process: &Process) -> PathBuf {
    Path::new("/proc").join(process.pid().to_string())
}

/// All live processes but this one that belong to the home in `root`: by their environment, their
/// folder, their open files, or by the tag that one of these has.
pub(crate) fn belonging_to(root: &Path) -> Vec<Found> {
    let own = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else { panic!("cannot read /proc") };
    let (mut belonging, others): (Vec<Found>, Vec<Found>) = entries
        .flatten()
        .filter_map(|entry| pid_of(&entry.file_name()))
        .filter(|pid| *pid != own)
        .filter_map(Process::open)
        .filter_map(Found::read)
        .partition(|found| found.touches(root));
    let tags: Vec<Vec<u8>> = belonging.iter().filter_map(Found::tag).map(<[u8]>::to_vec).collect();
    belonging.extend(
        others
            .into_iter()
            .filter(|found| found.tag().is_some_and(|tag| tags.iter().any(|known| known == tag))),
    );
    belonging
}

/// All live processes in cgroups whose paths hold one of these words.
pub(crate) fn in_cgroups_named(words: &[String]) -> Vec<Found> {
    let Ok(entries) = fs::read_dir("/proc") else { panic!("cannot read /proc") };
    entries
        .flatten()
        .filter_map(|entry| pid_of(&entry.file_name()))
        .filter_map(Process::open)
        .filter(|process| {
            let groups = fs::read_to_string(folder(process).join("cgroup")).unwrap_or_default();
            words.iter().any(|word| groups.contains(word.as_str()))
        })
        .filter_map(Found::read)
        .collect()
}

fn pid_of(name: &OsStr) -> Option<u32> {
    name.to_str()?.parse().ok()
}
