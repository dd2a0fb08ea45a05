//! The stamps that the idle program leaves: who ran, and since when.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::processes::Process;
use crate::support::wait::{patience, poll};

/// One start of the program.
#[derive(Clone, Copy)]
pub(crate) struct Stamp {
    /// The process.
    pub(crate) pid: u32,
    /// Nanoseconds on `CLOCK_MONOTONIC` at which its own code began.
    nanos: u64,
}

/// A file of stamps.
pub(crate) struct Stamps {
    _folder: Option<TempDir>,
    path: PathBuf,
}

impl Stamps {
    /// An empty file in a folder of its own.
    pub(crate) fn new() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("stamps");
        Ok(Self { _folder: Some(folder), path })
    }

    /// A file in somebody else's folder.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { _folder: None, path }
    }

    /// Where the program shall leave its stamps.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until there are `count` stamps; gives them all, oldest first.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Stamp> {
        poll(patience(), || {
            let text = fs::read_to_string(&self.path).unwrap_or_default();
            // What is behind the last newline is still being written.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let stamps: Vec<Stamp> = whole.lines().filter_map(parse).collect();
            (stamps.len() >= count).then_some(stamps)
        })
        .unwrap_or_else(|| panic!("fewer than {count} stamps in {}", self.path.display()))
    }

    /// Kills the process of the newest stamp and waits for its replacement, `kills` times. Gives the
    /// times from kill to stamp.
    pub(crate) fn kill_one_after_the_other(&self, kills: usize) -> Vec<Duration> {
        let mut alive = self.newest(1);
        (1..=kills)
            .map(|round| {
                let killed_at = alive.kill();
                alive = self.newest(round + 1);
                Duration::from_nanos(alive.nanos.saturating_sub(killed_at))
            })
            .collect()
    }

    /// Kills the process of the newest stamp.
    pub(crate) fn kill_the_last(&self) {
        self.newest(1).kill();
    }

    /// Kills the processes of the first `count` stamps. Gives the time from the first kill until
    /// as many others have stamped.
    pub(crate) fn kill_all_at_once(&self, count: usize) -> Duration {
        let victims = self.wait_for(count);
        assert_eq!(victims.len(), count, "more processes than there should be");
        let first = victims.iter().map(Stamp::kill).min().unwrap_or_default();
        let stamps = self.wait_for(2 * count);
        let last = stamps.iter().map(|stamp| stamp.nanos).max().unwrap_or_default();
        Duration::from_nanos(last.saturating_sub(first))
    }

    fn newest(&self, at_least: usize) -> Stamp {
        let stamps = self.wait_for(at_least);
        stamps[stamps.len() - 1]
    }
}

impl Stamp {
    /// Kills this process. Gives the time just before.
    fn kill(&self) -> u64 {
        let Some(process) = Process::open(self.pid) else {
            panic!("process {} ended by itself", self.pid)
        };
        let at = now();
        process.signal(Signal::KILL);
        at
    }
}

fn parse(line: &str) -> Option<Stamp> {
    let (pid, nanos) = line.split_once(' ')?;
    Some(Stamp { pid: pid.parse().ok()?, nanos: nanos.parse().ok()? })
}

/// Nanoseconds on the clock of the stamps.
fn now() -> u64 {
    match clock_gettime(ClockId::CLOCK_MONOTONIC) {
        Ok(time) => u64::try_from(Duration::from(time).as_nanos()).unwrap_or(u64::MAX),
        Err(error) => panic!("no monotonic clock: {error}"),
    }
}
