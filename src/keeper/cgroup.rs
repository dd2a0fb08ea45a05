//! Containment by cgroups: one group a run, from which nothing escapes.
//!
//! ```text
//!   <mount of cgroup2>/<own group>/stigmer-<tag>/       the base, shared by all keepers of a home
//!                                    ├─ 17/            run 17 and all its descendants
//!                                    └─ 18/
//! ```
//!
//! The mount is looked up, never assumed. Whether processes can really be put into groups is tried out
//! once with a process that does nothing, because permission to make folders does not mean that. No
//! controller is needed: `cgroup.events` and `cgroup.kill` exist in every group. Where the memory
//! controller is there for the asking, it is switched on below the base, for the count of kills by the
//! kernel's out-of-memory killer.
//!
//! Invariants: a group is only killed or removed if its path has the shape above. Of the groups that
//! another keeper has left, only those are removed in which nothing lives.
//!
//! Failure paths: where anything of this does not work, the keeper goes on by best effort (see
//! [`super::tree`]).
//!
//! Deliberately absent: limits. They belong to the manifest, not to the keeper.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, WaitOptions};

use super::clock;
use super::oom;
use super::poller::poll_one;
use super::raw;
use super::sys::{self, Forked};
use crate::model::{RunId, Time};

/// `CGROUP2_SUPER_MAGIC`.
const CGROUP2: u64 = 0x6367_7270;

/// The base under which every run has its group.
#[derive(Debug)]
pub(super) struct Groups {
    base: PathBuf,
    /// The memory controller is switched on below the base.
    pub(super) counts_memory: bool,
}

impl Groups {
    /// Finds or makes the base and tries it out. An error says why there are no groups.
    pub(super) fn set_up(tag: &str) -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own_folder(&mounts, &own, Hierarchy::Unified)
            .ok_or_else(|| io::Error::other("no cgroup2 file system that shows this process"))?;
        let name = base_name(tag);
        let outer = outside_of(&own, &name);
        if outer != own {
            // This keeper was started by one of its own components. Were it to stay in the group of
            // that run, it would be killed with it.
            fs::write(outer.join("cgroup.procs"), "0")?;
        }
        let base = outer.join(name);
        make_folder(&base)?;
        // Refused where the controller is not there for us; nothing depends on it.
        let counts_memory = fs::write(base.join("cgroup.subtree_control"), "+memory").is_ok();
        let groups = Self { base, counts_memory };
        groups.try_out()?;
        Ok(groups)
    }

    /// Removes the groups of runs in which nothing lives: a keeper that was killed in the middle of a
    /// launch leaves one that no record tells of.
    pub(super) fn sweep(&self) {
        for group in subgroups(&self.base) {
            // A living one may have empty groups of its own below it.
            if matches!(watch(&group), Population::Empty) {
                remove(&group);
            }
        }
    }

    fn try_out(&self) -> io::Result<()> {
        let path = self.base.join(format!("trial-{}", std::process::id()));
        make_folder(&path)?;
        let result = open_folder(&path).map_err(io::Error::from).and_then(|folder| {
            match sys::fork_into(Some(folder.as_fd()))? {
                Forked::Child => raw::exit_now(0),
                Forked::Parent(pid) => {
                    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
                    rustix::process::waitpid(pid, WaitOptions::empty())?;
                    Ok(())
                }
            }
        });
        remove(&path);
        result
    }

    /// Makes the group of a run. One that a failed launch of the same number left empty is used again.
    pub(super) fn create(&self, run: RunId) -> io::Result<(PathBuf, OwnedFd)> {
        let path = self.base.join(run.to_string());
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !matches!(watch(&path), Population::Empty) {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        let folder = open_folder(&path).inspect_err(|_| remove(&path))?;
        Ok((path, folder))
    }

    /// Removes the base if nothing is left in it.
    pub(super) fn tidy(&self) {
        let _ = fs::remove_dir(&self.base);
    }
}

/// The name of the base of a home.
fn base_name(tag: &str) -> String {
    format!("stigmer-{tag}")
}

/// Whether this path, found in a record, is the group of a run of the home with this tag.
pub(super) fn is_group_of(path: &Path, tag: &str, run: RunId) -> bool {
    let has_shape = path.is_absolute()
        && path.file_name().and_then(|name| name.to_str()) == Some(&run.to_string())
        && path.parent().and_then(Path::file_name).and_then(|name| name.to_str())
            == Some(&base_name(tag));
    has_shape && rustix::fs::statfs(path).is_ok_and(|found| found.f_type.unsigned_abs() == CGROUP2)
}

fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn open_folder(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Which tree of groups is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hierarchy {
    /// The one of cgroup2.
    Unified,
    /// That of this controller, where controllers have trees of their own.
    Older(&'static str),
}

impl Hierarchy {
    /// The path in a line of /proc/self/cgroup, if it is of this tree: `4:cpu,memory:/path`, `0::/path`.
    fn path(self, line: &str) -> Option<&str> {
        match self {
            Self::Unified => line.strip_prefix("0::"),
            Self::Older(wanted) => {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                controllers.split(',').any(|one| one == wanted).then_some(path)
            }
        }
    }

    /// Whether a mount shows this tree, by what mountinfo says after the dash.
    fn is_shown(self, file_system: &str) -> bool {
        let mut fields = file_system.split(' ');
        match (self, fields.next(), fields.nth(1)) {
            (Self::Unified, Some("cgroup2"), _) => true,
            (Self::Older(wanted), Some("cgroup"), Some(options)) => {
                options.split(',').any(|one| one == wanted)
            }
            (Self::Unified | Self::Older(_), _, _) => false,
        }
    }
}

/// The folder of this process's own group: the mount of the file system and the path inside of it,
/// less what the mount leaves out.
pub(super) fn own_folder(mounts: &str, own: &str, hierarchy: Hierarchy) -> Option<PathBuf> {
    let own = own.lines().find_map(|line| hierarchy.path(line))?;
    mounts.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        if !hierarchy.is_shown(file_system) {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let root = unescape(fields.next()?);
        let point = unescape(fields.next()?);
        let inside = Path::new(own).strip_prefix(&root).ok()?;
        let is_plain = !inside.components().any(|part| part == std::path::Component::ParentDir);
        let folder = Path::new(&point).join(inside);
        // The path ends up in a line of the record.
        (is_plain && !folder.to_string_lossy().contains('\n')).then_some(folder)
    })
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    let mut plain = field.to_owned();
    for (escaped, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
    {
        plain = plain.replace(escaped, character);
    }
    plain
}

/// The path up to a folder of this name, or all of it.
fn outside_of(own: &Path, name: &str) -> PathBuf {
    own.components().take_while(|part| part.as_os_str() != name).collect()
}

/// Whether anything lives in a group.
#[derive(Debug)]
pub(super) enum Population {
    /// No process that is not a zombie. Also of a group that is gone.
    Empty,
    /// Some. The descriptor becomes ready (`EPOLLPRI`) when that may have changed.
    Some(OwnedFd),
    /// It cannot be looked at: no descriptor is left.
    Unknown,
}

/// Looks whether anything lives in the group, and if so begins to watch. The look is at the descriptor
/// that is watched afterwards, so that no change is lost in between.
pub(super) fn watch(group: &Path) -> Population {
    match events_of(group) {
        Ok((file, events)) if is_populated(&events) => Population::Some(file),
        Ok(_) => Population::Empty,
        Err(error) if is_absence(&error) => Population::Empty,
        Err(_) => Population::Unknown,
    }
}

/// What `cgroup.events` says, and the descriptor by which it is watched from then on. The kernel gives
/// all of it, a few lines, at the first read.
fn events_of(group: &Path) -> io::Result<(OwnedFd, String)> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(group.join("cgroup.events"), flags, Mode::empty())?;
    let mut buffer = [0; 256];
    let length = rustix::io::read(&file, &mut buffer)?;
    let events = String::from_utf8_lossy(buffer.get(..length).unwrap_or(&[])).into_owned();
    Ok((file, events))
}

fn is_populated(events: &str) -> bool {
    events.lines().any(|line| line == "populated 1")
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// Whether a process is in the group or below it, by its own account. The number of a run is unique
/// within a home, so that the end of the path says enough.
pub(super) fn holds(group: &Path, pid: u32) -> bool {
    let listed = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let own = listed.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    let name = (group.parent().and_then(Path::file_name), group.file_name());
    let parts: Vec<_> = Path::new(own).iter().collect();
    parts.windows(2).any(|pair| (pair.first().copied(), pair.last().copied()) == name)
}

/// Kills everything in the group and below it, frozen or not. False where the kernel (before 5.14)
/// cannot do that at once.
pub(super) fn kill(group: &Path) -> bool {
    fs::write(group.join("cgroup.kill"), "1").is_ok()
}

/// Freezes the group and what is below it, or thaws it. False where the kernel (before 5.2) or the
/// permissions do not allow it.
pub(super) fn set_frozen(group: &Path, frozen: bool) -> bool {
    fs::write(group.join("cgroup.freeze"), if frozen { "1" } else { "0" }).is_ok()
}

/// Waits until nothing in the group moves any more; false if that takes too long. A group that is gone
/// does not move.
pub(super) fn wait_frozen(group: &Path, deadline: Time) -> bool {
    loop {
        let file = match events_of(group) {
            Ok((_, events)) if events.lines().any(|line| line == "frozen 1") => return true,
            Ok((file, _)) => file,
            Err(error) => return is_absence(&error),
        };
        let left = deadline.since(clock::now());
        let polled = poll_one(file.as_fd(), PollFlags::PRI, Some(left));
        if matches!(polled, Ok(0)) {
            return false;
        }
    }
}

/// How many processes of the group the out-of-memory killer has ended; `None` without the controller.
pub(super) fn oom_kills(group: &Path) -> Option<u64> {
    oom::parse(&fs::read_to_string(group.join("memory.events")).ok()?)
}

/// The pids in the group and below it.
pub(super) fn members(group: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    collect_members(group, &mut found);
    found
}

fn collect_members(group: &Path, found: &mut Vec<u32>) {
    let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    found.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
    for folder in subgroups(group) {
        collect_members(&folder, found);
    }
}

/// Removes the group and the groups that its processes made below it. What still holds a process stays.
pub(super) fn remove(group: &Path) {
    if fs::remove_dir(group).is_ok() {
        return;
    }
    for folder in subgroups(group) {
        remove(&folder);
    }
    let _ = fs::remove_dir(group);
}

fn subgroups(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:4 - cgroup2 cgroup2 rw
";

    #[test]
    fn the_mount_is_looked_up_and_not_assumed() {
        let own = "9:name=systemd:/x\n0::/user.slice/a\n";
        let expected = Path::new("/sys/fs/cgroup/uni fied/user.slice/a");
        assert_eq!(own_folder(MOUNTS, own, Hierarchy::Unified).as_deref(), Some(expected));
        assert_eq!(own_folder("", own, Hierarchy::Unified), None);
        assert_eq!(own_folder(MOUNTS, "9:name=systemd:/x\n", Hierarchy::Unified), None);
    }

    #[test]
    fn a_controller_may_have_a_tree_of_its_own() {
        let own = "4:cpu,memory:/x\n0::/user.slice/a\n";
        let found = own_folder(MOUNTS, own, Hierarchy::Older("memory"));
        assert_eq!(found.as_deref(), Some(Path::new("/sys/fs/cgroup/memory/x")));
        assert_eq!(own_folder(MOUNTS, own, Hierarchy::Older("cpu")), None);
        assert_eq!(own_folder(MOUNTS, "0::/a\n", Hierarchy::Older("memory")), None);
    }

    #[test]
    fn a_mount_of_a_part_shows_only_what_lies_in_it() {
        let mounts = "41 31 0:38 /pod/x /cg rw - cgroup2 cgroup2 rw\n";
        let folder = own_folder(mounts, "0::/pod/x/y\n", Hierarchy::Unified);
        assert_eq!(folder.as_deref(), Some(Path::new("/cg/y")));
        assert_eq!(own_folder(mounts, "0::/elsewhere\n", Hierarchy::Unified), None);
        let above = "41 31 0:38 / /cg rw - cgroup2 cgroup2 rw\n";
        assert_eq!(own_folder(above, "0::/../sibling\n", Hierarchy::Unified), None);
    }

    #[test]
    fn a_keeper_inside_of_a_run_goes_outside() {
        let name = base_name("abc");
        let own = Path::new("/cg/user/stigmer-abc/17");
        assert_eq!(outside_of(own, &name), Path::new("/cg/user"));
        assert_eq!(outside_of(Path::new("/cg/user"), &name), Path::new("/cg/user"));
    }

    #[test]
    fn only_paths_of_the_right_shape_are_groups() {
        for path in ["/sys/fs/cgroup", "/tmp/stigmer-abc/17", "stigmer-abc/17", "/", ""] {
            assert!(!is_group_of(Path::new(path), "abc", RunId(17)), "{path}");
        }
    }
}
