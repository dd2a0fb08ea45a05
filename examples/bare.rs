//! The least that any supervisor must do: `posix_spawn` to start, `waitpid` to hear of the end, and
//! again. The yardstick of `benches/peers`, where it is one supervisor among others.
//!
//! ```text
//! bare COUNT PROGRAM [ARGUMENT...]
//!
//!   main thread   ── posix_spawn × COUNT ──> waitpid ──> posix_spawn in its place ──> waitpid ...
//!   other thread  ── read stdin ──> its end: SIGTERM to all; the main thread reaps them and ends
//! ```
//!
//! It is told by the end of its standard input to stop, because a signal would have to be blocked,
//! and the processes that it starts would inherit that. So it also ends, and everything with it,
//! when whoever started it is gone.
//!
//! It deliberately decides nothing: no delay, no limit, no log, no record, no session of its own.

use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid;

use crate::spawn::Program;

#[path = "../benches/supervise/spawn.rs"]
mod spawn;

/// What both threads know.
#[derive(Default)]
struct Processes {
    /// Those that live, each with its number.
    alive: HashMap<Pid, usize>,
    /// Nothing is started any more.
    stopping: bool,
}

fn main() -> io::Result<()> {
    let mut arguments = env::args_os().skip(1);
    let usage = || io::Error::other("usage: bare COUNT PROGRAM [ARGUMENT...]");
    let count: usize =
        arguments.next().and_then(|count| count.to_str()?.parse().ok()).ok_or_else(usage)?;
    let path = PathBuf::from(arguments.next().ok_or_else(usage)?);
    let arguments: Vec<OsString> = arguments.collect();
    let program = Program::new(&path, arguments.iter().map(OsString::as_os_str))?;

    let processes = Arc::new(Mutex::new(Processes::default()));
    for number in 0..count {
        lock(&processes).alive.insert(program.spawn()?, number);
    }
    let to_stop = Arc::clone(&processes);
    thread::spawn(move || stop_at_the_end_of_stdin(&to_stop));
    supervise(&program, &processes)
}

/// Replaces whatever ends, until it is told to stop and nothing is left.
fn supervise(program: &Program, processes: &Mutex<Processes>) -> io::Result<()> {
    loop {
        // Left as a zombie until the lock is held, so that no number in the table is another's.
        waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
        let mut processes = lock(processes);
        let ended = waitpid(None, None)?.pid();
        let Some(number) = ended.and_then(|pid| processes.alive.remove(&pid)) else { continue };
        if !processes.stopping {
            processes.alive.insert(program.spawn()?, number);
        } else if processes.alive.is_empty() {
            return Ok(());
        }
    }
}

fn stop_at_the_end_of_stdin(processes: &Mutex<Processes>) {
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let mut processes = lock(processes);
    processes.stopping = true;
    for pid in processes.alive.keys() {
        // What is in the table has not been reaped.
        let _ = kill(*pid, Signal::SIGTERM);
    }
}

/// A thread that panicked has left nothing half done here.
fn lock(processes: &Mutex<Processes>) -> MutexGuard<'_, Processes> {
    processes.lock().unwrap_or_else(PoisonError::into_inner)
}
