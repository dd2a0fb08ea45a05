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
    pub const fn launch() {}

    /// The process may die here.
    pub const fn point(_: &'static str) {}
}

#[cfg(not(feature = "crash-points"))]
pub use unarmed::{begin, launch, point};

#[cfg(feature = "crash-points")]
pub use armed::{begin, launch, point};

#[cfg(feature = "crash-points")]
mod armed {
    use std::fs;
    use std::io::Write;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

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
        let passed = if role == Role::Child { LAUNCHES.load(Ordering::Relaxed) * 100 } else { 0 };
        PASSED.store(passed, Ordering::Relaxed);
        TARGET.store(target(role).unwrap_or(0), Ordering::Relaxed);
    }

    fn target(role: Role) -> Option<u64> {
        let text = fs::read_to_string(file()?).ok()?;
        if text.trim() == "count" {
            ROLE.store(role as u8, Ordering::Relaxed);
            return Some(COUNT);
        }
        let (wanted, number) = text.trim().split_once(' ')?;
        if wanted == WORDS[usize::from(role as u8)] { number.parse().ok() } else { None }
    }

    fn count() {
        let Some(mut path) = file().map(PathBuf::into_os_string) else { return };
        path.push(".");
        path.push(WORDS[usize::from(ROLE.load(Ordering::Relaxed))]);
        let file = fs::OpenOptions::new().append(true).create(true).open(path);
        // The test sees that nothing was counted.
        let _ = file.and_then(|mut file| file.write_all(b"."));
    }

    fn file() -> Option<PathBuf> {
        std::env::var_os(VARIABLE).map(PathBuf::from)
    }

    /// One more launch: the next child is this one's.
    pub fn launch() {
        LAUNCHES.fetch_add(1, Ordering::Relaxed);
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
        let mut hit = path.into_os_string();
        hit.push(".hit");
        let _ = fs::write(hit, name);
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
