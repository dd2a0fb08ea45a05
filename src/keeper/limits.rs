//! How many processes and descriptors a daemon may have, and who says so.
//!
//! ```text
//!   processes ── RLIMIT_NPROC (not of root's), kernel.pid_max, kernel.threads-max,
//!                pids.max of the own group and of every group above it
//!   descriptors  RLIMIT_NOFILE, the hard one: the keeper raises its own to it
//! ```
//!
//! Failure paths: a limit that cannot be read is none.
//!
//! Deliberately absent: how much of it others use already. That changes at any moment; a shortage that
//! comes with time is met when it comes (a launch that fails for it is tried again).

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

use super::cgroup::{self, Hierarchy};

/// One limit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limit {
    /// So many at most.
    pub most: u64,
    /// Who says so: `kernel.pid_max`.
    pub whose: String,
    /// What to type for more.
    pub hint: String,
}

/// What limits the number of processes of this process's user and group, the narrowest first.
#[must_use]
pub fn processes() -> Vec<Limit> {
    let mut limits = Vec::new();
    // The kernel does not hold root to it.
    if !rustix::process::geteuid().is_root()
        && let Some(most) = getrlimit(Resource::Nproc).current
    {
        let hint = "raise it before the daemon is started: `ulimit -u`, or LimitNPROC= in its unit";
        limits.push(Limit { most, whose: "RLIMIT_NPROC".into(), hint: hint.into() });
    }
    for name in ["pid_max", "threads-max"] {
        if let Some(most) = number(&Path::new("/proc/sys/kernel").join(name)) {
            let hint = format!("as root: sysctl kernel.{name}=NUMBER");
            limits.push(Limit { most, whose: format!("kernel.{name}"), hint });
        }
    }
    limits.extend(groups().into_iter().filter_map(|group| {
        let file = group.join("pids.max");
        let most = number(&file)?;
        let whose = file.display().to_string();
        let hint =
            format!("as root: echo max > {whose}, or TasksMax=infinity in the daemon's unit");
        Some(Limit { most, whose, hint })
    }));
    limits.sort_by_key(|limit| limit.most);
    limits
}

/// What limits the number of descriptors that one process may have open.
#[must_use]
pub fn descriptors() -> Option<Limit> {
    let most = getrlimit(Resource::Nofile).maximum?;
    let hint = "raise it before the daemon is started: `ulimit -n`, or LimitNOFILE= in its unit";
    Some(Limit { most, whose: "the hard RLIMIT_NOFILE".into(), hint: hint.into() })
}

/// The groups that this process is in, its own first, in both kinds of trees.
fn groups() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let trees = [Hierarchy::Unified, Hierarchy::Older("pids")];
    let folders = trees.into_iter().filter_map(|tree| cgroup::own_folder(&mounts, &own, tree));
    folders.flat_map(|folder| folder.ancestors().map(Path::to_owned).collect::<Vec<_>>()).collect()
}

/// A number in a file; `max` is none.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_limits_and_the_narrowest_comes_first() {
        let limits = processes();
        assert!(limits.iter().any(|limit| limit.whose == "kernel.pid_max"), "{limits:?}");
        assert!(limits.is_sorted_by_key(|limit| limit.most), "{limits:?}");
        assert!(limits.iter().all(|limit| limit.most > 0), "{limits:?}");
    }
}
