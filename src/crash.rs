//! Crash points: places at which a process of the daemon dies on demand, in a build for tests.
//!
//! ```text
//!   $STIGMER_CRASH_POINT ── a file: "engine 17" ─► the 17th point that an engine comes to: SIGKILL
//!                                   "count"     ─► nobody dies; FILE.engine grows by a byte a point
//! ```
//!
//! The file is removed just before, so that nobody dies twice; `FILE.hit` tells where it was. Points are
//! counted from the start of each process: of an `engine`, a `keeper`, a `successor` (a keeper that has
//! taken over in place) and a `child` between fork and exec, whose number is 100 times that of its
//! launch, and its own point.
//!
//! Invariant: without the feature `crash-points` nothing of this is compiled, and a point is no code at
//! all. A released program has not even the name of the variable in it.

/// Which process this is, as far as its death is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Role {
    /// The one that decides.
    Engine,
    /// The parent of everything.
    Keeper,
    /// A keeper that has taken over in place.
    Successor,
    /// Between fork and exec.
    Child,
}

#[cfg(not(feature = "crash-points"))]
mod unarmed {
    /// This process begins.
    pub const fn begin(_: super::Role) {}

    /// One more launch.
    pub const fn launch() -> Child {
        Child
    }

    /// The child of a launch.
    #[derive(Debug)]
    pub struct Child;

    impl Child {
        /// The child may die here.
        pub const fn point(&self, _: &'static str) {}
    }

    /// The process may die here.
    pub const fn point(_: &'static str) {}
}

#[cfg(not(feature = "crash-points"))]
pub use unarmed::{Child, begin, launch, point};

#[cfg(feature = "crash-points")]
pub use armed::{Child, begin, launch, point};

#[cfg(feature = "crash-points")]
mod armed {
    use std::cell::Cell;
    use std::ffi::{CStr, CString};
    use std::fs;
    use std::io::Write;
    use std::os::unix::ffi::OsStrExt;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

    use rustix::fs::{Mode, OFlags};

    use super::Role;

    /// As a target: to count, and to live.
    const COUNT: u64 = u64::MAX;

    /// Names the file.
    const VARIABLE: &str = "STIGMER_CRASH_POINT";

    /// The point at which this process dies; 0 if at none.
    /// In the order of the roles.
    const WORDS: [&str; 4] = ["engine", "keeper", "successor", "child"];

    static ROLE: AtomicU8 = AtomicU8::new(0);
    static TARGET: AtomicU64 = AtomicU64::new(0);
    static PASSED: AtomicU64 = AtomicU64::new(0);
    static LAUNCHES: AtomicU64 = AtomicU64::new(0);

    /// This process begins: learns where it is to die.
    pub fn begin(role: Role) {
        ROLE.store(role as u8, Ordering::Relaxed);
        PASSED.store(0, Ordering::Relaxed);
        TARGET.store(target(role).unwrap_or(0), Ordering::Relaxed);
    }

    fn target(role: Role) -> Option<u64> {
        let text = fs::read_to_string(file()?).ok()?;
        if text.trim() == "count" {
            return Some(COUNT);
        }
        let (wanted, number) = text.trim().split_once(' ')?;
        if wanted == WORDS[usize::from(role as u8)] { number.parse().ok() } else { None }
    }

    fn beside(path: &Path, ending: &str) -> PathBuf {
        let mut path = path.as_os_str().to_owned();
        path.push(".");
        path.push(ending);
        path.into()
    }

    fn count() {
        let Some(path) = file() else { return };
        let path = beside(&path, WORDS[usize::from(ROLE.load(Ordering::Relaxed))]);
        let file = fs::OpenOptions::new().append(true).create(true).open(path);
        // The test sees that nothing was counted.
        let _ = file.and_then(|mut file| file.write_all(b"."));
    }

    fn file() -> Option<PathBuf> {
        std::env::var_os(VARIABLE).map(PathBuf::from)
    }

    /// One more launch: the next child is this one's.
    pub fn launch() -> Child {
        let launches = LAUNCHES.fetch_add(1, Ordering::Relaxed) + 1;
        let target = target(Role::Child).unwrap_or(0);
        let path = file().unwrap_or_default();
        let text = |path: PathBuf| CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
        Child {
            passed: Cell::new(launches * 100),
            target,
            hit: text(beside(&path, "hit")),
            counted: text(beside(&path, WORDS[usize::from(Role::Child as u8)])),
            path: text(path),
        }
    }

    /// The child of a launch. It may share the memory of its parent, so that all it needs is made before.
    #[derive(Debug)]
    pub struct Child {
        passed: Cell<u64>,
        target: u64,
        path: CString,
        hit: CString,
        counted: CString,
    }

    impl Child {
        /// The child may die here.
        pub fn point(&self, name: &'static str) {
            let number = self.passed.get() + 1;
            self.passed.set(number);
            if self.target == COUNT {
                append(&self.counted, ".");
            } else if number == self.target && rustix::fs::unlink(&self.path).is_ok() {
                append(&self.hit, name);
                die();
            }
        }
    }

    /// The test sees what could not be written.
    fn append(path: &CStr, text: &str) {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR) {
            let _ = rustix::io::write(&file, text.as_bytes());
        }
    }

    fn die() {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }

    /// The process may die here.
    pub fn point(name: &'static str) {
        let number = PASSED.fetch_add(1, Ordering::Relaxed) + 1;
        let target = TARGET.load(Ordering::Relaxed);
        if target == COUNT {
            return count();
        }
        if number != target {
            return;
        }
        let Some(path) = file() else { return };
        // Once and for all: the next process of this kind lives.
        if fs::remove_file(&path).is_err() {
            return;
        }
        let _ = fs::write(beside(&path, "hit"), name);
        die();
    }
}
