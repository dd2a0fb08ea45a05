//! The daemon's own log, kept from growing for ever.
//!
//! ```text
//!   engine ─┐
//!           ├─ append ─▶ daemon.log ── longer than LONGEST ─▶ copied to daemon.log.1, then emptied
//!   keeper ─┘
//! ```
//!
//! It is emptied in place, because both processes have it open. The copy is made beside the engine's work;
//! only its last lines and the emptying keep the engine from writing. The keeper, which writes a line when
//! an engine dies, is not kept: a line of its in that very moment, some microseconds long, is lost.
//!
//! What is told of one round of the supervisor goes in one write, see [`together`]: a thousand components that
//! are stopped are three thousand lines.
//!
//! Failure paths: where the copy cannot be made (disk full) the log stays as it is, and it is tried again
//! after some more lines. What is not `daemon.log`, but a terminal, a pipe or a file of somebody else's, is
//! never touched.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::home::beside;

/// How long it may get, in bytes; as much again is kept as `daemon.log.1`.
const LONGEST: u64 = 10_000_000;

/// After so many bytes its length is looked at.
const LOOK_EVERY: u64 = 256 * 1024;

/// Lines that wait in memory are not more than that by much.
const MOST: usize = 64 * 1024;

thread_local! {
    /// Lines of this thread that will be written together, and where.
    static GATHERED: RefCell<Option<Gathered>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Gathered {
    lines: Vec<u8>,
    log: Option<Arc<DaemonLog>>,
}

impl Gathered {
    fn write(&mut self) {
        if let Some(log) = &self.log {
            log.write(&self.lines);
        }
        self.lines.clear();
    }
}

/// What this thread tells meanwhile is written at the end, and not line by line. It should not take long: who
/// is killed meanwhile has told nothing of it.
pub(crate) fn together<T>(act: impl FnOnce() -> T) -> T {
    GATHERED.set(Some(Gathered::default()));
    let done = act();
    if let Some(mut gathered) = GATHERED.take() {
        gathered.write();
    }
    done
}

/// Standard error, to which writing never fails, and the log that it may be.
#[derive(Debug)]
pub(crate) struct DaemonLog {
    path: PathBuf,
    longest: u64,
    /// Held while a line is written, and while the log is emptied.
    writing: Mutex<()>,
    written: AtomicU64,
    is_rotating: AtomicBool,
}

impl DaemonLog {
    pub(crate) fn new(path: PathBuf) -> Arc<Self> {
        let (written, is_rotating) = (AtomicU64::new(LOOK_EVERY), AtomicBool::new(false));
        let writing = Mutex::new(());
        Arc::new(Self { path, longest: LONGEST, writing, written, is_rotating })
    }

    /// Writes a line, or has it written with others.
    fn line(self: &Arc<Self>, bytes: &[u8]) {
        let is_gathered = GATHERED.with_borrow_mut(|gathered| {
            let Some(gathered) = gathered else { return false };
            gathered.lines.extend_from_slice(bytes);
            gathered.log.get_or_insert_with(|| self.clone());
            if gathered.lines.len() >= MOST {
                gathered.write();
            }
            true
        });
        if !is_gathered {
            self.write(bytes);
        }
    }

    /// Writes lines. What cannot be written is lost: nobody is left to be told of it.
    fn write(self: &Arc<Self>, bytes: &[u8]) {
        {
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            drop(io::stderr().write_all(bytes));
        }
        let written = self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if written < LOOK_EVERY || self.is_rotating.swap(true, Ordering::Acquire) {
            return;
        }
        self.written.store(0, Ordering::Relaxed);
        let log = self.clone();
        let look = move || {
            // Tried again later; there is no other place to say it.
            drop(log.look(io::stderr().as_fd()));
            log.is_rotating.store(false, Ordering::Release);
        };
        if std::thread::Builder::new().name("stigmer-log".into()).spawn(look).is_err() {
            self.is_rotating.store(false, Ordering::Release);
        }
    }

    /// Rotates the log if `output` is the log, and too long. True: it was rotated.
    fn look(&self, output: impl AsFd) -> io::Result<bool> {
        let output = rustix::fs::fstat(output)?;
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let log = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&self.path)?;
        let found = log.metadata()?;
        let is_it = (found.dev(), found.ino()) == (output.st_dev, output.st_ino);
        if !is_it || !found.is_file() || found.len() < self.longest {
            return Ok(false);
        }
        let draft = beside(&self.path, ".draft");
        let rotated = self.copy_and_empty(&log, &draft);
        if rotated.is_err() {
            drop(fs::remove_file(&draft));
        }
        rotated.map(|()| true)
    }

    fn copy_and_empty(&self, log: &File, draft: &Path) -> io::Result<()> {
        // One that is left from before may be anything.
        drop(fs::remove_file(draft));
        let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
        let copied = io::copy(&mut log.take(u64::MAX), &mut copy)?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = vec![0; usize::try_from(log.metadata()?.len() - copied).unwrap_or(0)];
        log.read_exact_at(&mut rest, copied)?;
        copy.write_all(&rest)?;
        fs::rename(draft, beside(&self.path, ".1"))?;
        log.set_len(0)
    }
}

/// What writes the lines of `tracing`.
#[derive(Debug)]
pub(crate) struct Lines(pub(crate) Arc<DaemonLog>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.line(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(folder: &Path) -> DaemonLog {
        let (written, is_rotating) = (AtomicU64::new(0), AtomicBool::new(false));
        let (path, writing) = (folder.join("daemon.log"), Mutex::new(()));
        DaemonLog { path, longest: 100, writing, written, is_rotating }
    }

    fn append(path: &Path, text: &str) -> File {
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn a_log_that_is_too_long_is_copied_and_emptied_for_whoever_has_it_open() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path());
        let mut short = append(&log.path, "short\n");
        assert!(!log.look(&short).unwrap());
        let text = "x".repeat(200);
        append(&log.path, &text);
        assert!(log.look(&short).unwrap());
        assert_eq!(fs::read_to_string(beside(&log.path, ".1")).unwrap(), format!("short\n{text}"));
        short.write_all(b"after\n").unwrap();
        assert_eq!(fs::read_to_string(&log.path).unwrap(), "after\n");
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 2, "no draft is left");
    }

    #[test]
    fn what_goes_together_waits_until_the_end_and_not_longer() {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(log(folder.path()));
        let waiting = || {
            GATHERED.with_borrow(|gathered| gathered.as_ref().map(|gathered| gathered.lines.len()))
        };
        together(|| {
            log.line(b"");
            assert_eq!(waiting(), Some(0));
            log.line(&[b' '; 10]);
            assert_eq!(waiting(), Some(10));
            log.line(&vec![b' '; MOST]);
            assert_eq!(waiting(), Some(0), "memory has its bounds");
        });
        assert_eq!(waiting(), None);
    }

    #[test]
    fn what_is_not_the_log_is_never_touched() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path());
        append(&log.path, &"x".repeat(200));
        let other = append(&folder.path().join("mine.txt"), &"y".repeat(200));
        assert!(!log.look(&other).unwrap());
        assert!(!log.look(File::open("/dev/null").unwrap()).unwrap());
        assert_eq!(fs::metadata(&log.path).unwrap().len(), 200);
        // A copy that cannot be made costs nothing.
        fs::create_dir(beside(&log.path, ".draft")).unwrap();
        fs::write(beside(&log.path, ".draft").join("x"), b"").unwrap();
        let own = File::open(&log.path).unwrap();
        assert!(log.look(&own).is_err());
        assert_eq!(fs::metadata(&log.path).unwrap().len(), 200);
    }
}
