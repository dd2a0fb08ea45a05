//! A control group of the machine with a limit, for a daemon that is to run short: only root can make one.

use std::fs;
use std::path::{Path, PathBuf};

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
        // The kernel takes its time with the last process of a group.
        super::wait::poll(std::time::Duration::from_secs(10), || fs::remove_dir(&self.path).ok());
    }
}
