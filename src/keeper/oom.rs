//! How many processes the kernel has killed for want of memory, where a run has no count of its own.
//!
//! ```text
//!   a run's own group ── memory.events ── exact; needs the memory controller of cgroup2 (see `cgroup`)
//!   the keeper's group ─ memory.events, or memory.oom_control of the older hierarchy ── this module
//! ```
//!
//! What the keeper starts without a memory group of its own lives in the keeper's, which counts for all
//! of them together. A main process that a SIGKILL has ended which nobody here sent, and the count has
//! risen since children were last reaped: that is what was counted.
//!
//! Invariant: the count is looked at again whenever children have been reaped, so that a rise is put down
//! to those that ended with it.
//!
//! Failure paths: without such a group, or a kernel that counts (4.13), nothing is ever called out of
//! memory.
//!
//! Deliberately absent: the kernel's log, which tells pids, but which only root may read.

use std::fs;
use std::os::unix::fs::FileExt;

use super::cgroup::{self, Hierarchy};

/// The line of both files.
const COUNT: &str = "oom_kill ";

/// The count of the group that the keeper is in.
#[derive(Debug)]
pub(super) struct OomKills {
    file: Option<fs::File>,
    seen: u64,
}

impl OomKills {
    /// The count as it is now; what was killed before is of no interest.
    pub(super) fn of_this_process() -> Self {
        let mut kills = Self { file: open(), seen: 0 };
        kills.look();
        kills
    }

    /// Whether somebody was killed since the last look.
    pub(super) fn have_risen(&self) -> bool {
        self.count().is_some_and(|count| count > self.seen)
    }

    /// Whoever was killed until now has been told of.
    pub(super) fn look(&mut self) {
        self.seen = self.count().unwrap_or(self.seen);
    }

    fn count(&self) -> Option<u64> {
        // The file is a few lines long.
        let mut buffer = [0; 1024];
        let length = self.file.as_ref()?.read_at(&mut buffer, 0).ok()?;
        parse(std::str::from_utf8(buffer.get(..length)?).ok()?)
    }
}

fn open() -> Option<fs::File> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let kinds =
        [(Hierarchy::Unified, "memory.events"), (Hierarchy::Older("memory"), "memory.oom_control")];
    kinds.into_iter().find_map(|(hierarchy, name)| {
        let folder = cgroup::own_folder(&mounts, &own, hierarchy)?;
        fs::File::open(folder.join(name)).ok()
    })
}

/// The count in `memory.events` or `memory.oom_control`.
pub(super) fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(COUNT))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_understood() {
        assert_eq!(parse("low 0\nhigh 0\nmax 12\noom 2\noom_kill 3\noom_group_kill 0\n"), Some(3));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), Some(7));
        // Kernels before 4.13.
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    #[test]
    fn without_a_count_nothing_rises() {
        let mut kills = OomKills { file: None, seen: 0 };
        kills.look();
        assert!(!kills.have_risen());
    }

    #[test]
    fn fault_17_a_rise_is_told_until_it_was_looked_at() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let write = |text: &str| fs::write(path.path(), text).unwrap();
        write("oom_kill 4\n");
        let mut kills = OomKills { file: fs::File::open(path.path()).ok(), seen: 0 };
        kills.look();
        assert!(!kills.have_risen());
        write("oom_kill 5\n");
        assert!(kills.have_risen());
        kills.look();
        assert!(!kills.have_risen());
    }
}
