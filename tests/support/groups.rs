//! Control groups of the machine: one with a limit, for a daemon that is to run short, which only root can
//! make; and those that a daemon has made, once it is gone.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stigmer::home::Home;
use stigmer::keeper::KeeperConfig;

use super::wait::poll;

/// How long the kernel may take with the last process of a group.
const EMPTIED_WITHIN: Duration = Duration::from_secs(10);

/// Removes the groups of a home of which no process lives any more: a keeper that was killed leaves them,
/// until the next one of the same home. Gives what cannot be removed.
pub(crate) fn remove_those_of(home: &Path) -> Vec<PathBuf> {
    let name = format!("stigmer-{}", KeeperConfig::for_home(&Home::at(home)).tag);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut left = Vec::new();
    for mount in mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let point = fields.next()?;
        (fields.next() == Some("cgroup2")).then_some(point)
    }) {
        // A keeper stays in the group of whoever started it, which a test may have put into one of its own.
        find(Path::new(mount), OsStr::new(&name), &mut left);
    }
    poll(EMPTIED_WITHIN, || {
        left.retain(|base| !remove(base));
        left.is_empty().then_some(())
    });
    left
}

/// All folders of this name below another one.
fn find(folder: &Path, name: &OsStr, found: &mut Vec<PathBuf>) {
    for path in subfolders(folder) {
        if path.file_name() == Some(name) {
            found.push(path);
        } else {
            find(&path, name, found);
        }
    }
}

/// Whether a group and those below it are gone now.
fn remove(group: &Path) -> bool {
    for below in subfolders(group) {
        remove(&below);
    }
    fs::remove_dir(group).is_ok() || !group.exists()
}

/// None where it is gone: other tests make groups and remove them meanwhile.
fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

/// A group of one controller, removed when dropped: by then nothing may live in it any more.
pub(crate) struct Group {
    path: PathBuf,
    is_unified: bool,
}

impl Group {
    /// A new group of this controller; `None`, said on standard error, where none can be made.
    #[expect(clippy::print_stderr, reason = "who reads the tests' output wants to know")]
    pub(crate) fn new(controller: &str) -> Option<Self> {
        let made = Self::make(controller);
        if made.is_none() {
            eprintln!("no group with a {controller} controller can be made here: only root can");
        }
        made
    }

    fn make(controller: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mount = |is_it: &dyn Fn(&str, &str) -> bool| {
            mounts.lines().find_map(|line| {
                let fields: Vec<&str> = line.split(' ').collect();
                let found = is_it(fields.get(2)?, fields.get(3)?);
                found.then(|| PathBuf::from(fields.get(1).copied().unwrap_or_default()))
            })
        };
        let has = |options: &str| options.split(',').any(|option| option == controller);
        let legacy = mount(&|kind, options| kind == "cgroup" && has(options));
        let unified = || mount(&|kind, _| kind == "cgroup2");
        let (root, is_unified) = match legacy {
            Some(root) => (root, false),
            None => (unified()?, true),
        };
        if is_unified {
            let _ = fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"));
            let there = fs::read_to_string(root.join("cgroup.subtree_control")).ok()?;
            there.split_whitespace().find(|known| *known == controller)?;
        }
        // Folders of their own, also for tests that run at the same time.
        let name = tempfile::Builder::new().prefix("stigmer-test-").tempdir().ok()?;
        let path = root.join(name.path().file_name()?);
        fs::create_dir(&path).ok()?;
        Some(Self { path, is_unified })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A line of shell that puts itself into the group, and with it all that comes of it.
    pub(crate) fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs", self.path.display())
    }

    /// Sets one of its values.
    pub(crate) fn set(&self, name: &str, value: &str) {
        let path = self.path.join(name);
        fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// One of its values.
    pub(crate) fn get(&self, name: &str) -> String {
        let path = self.path.join(name);
        let value = fs::read_to_string(&path);
        let value = value.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        value.trim().to_owned()
    }

    /// Limits the memory of all its processes together.
    pub(crate) fn limit_memory(&self, bytes: u64) {
        let name = if self.is_unified { "memory.max" } else { "memory.limit_in_bytes" };
        self.set(name, &bytes.to_string());
    }

    /// Puts a process into the group.
    pub(crate) fn take(&self, pid: u32) {
        self.set("cgroup.procs", &pid.to_string());
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What a test that failed has left frozen could not be ended.
        if self.path.join("freezer.state").exists() {
            let _ = fs::write(self.path.join("freezer.state"), "THAWED");
        }
        let left = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        for pid in left.lines() {
            let _ = fs::write(self.path.with_file_name("cgroup.procs"), pid);
        }
        poll(EMPTIED_WITHIN, || fs::remove_dir(&self.path).ok());
    }
}
