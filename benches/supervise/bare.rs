//! The yardstick: the least that any supervisor must do, in one process and without deciding
//! anything. `posix_spawn` to start, `waitpid` to hear of the end, and again.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::stamps::Stamps;

/// Starting and stopping the same number of processes.
pub(crate) struct StartAndStop {
    pub(crate) start: Duration,
    pub(crate) stop: Duration,
}

/// A program with its arguments, ready to be executed again and again.
struct Program {
    path: CString,
    arguments: Vec<CString>,
}

impl Program {
    fn new(path: &Path, stamps: Option<&Path>) -> io::Result<Self> {
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes());
        let path = text(path)?;
        let mut arguments = vec![path.clone()];
        if let Some(stamps) = stamps {
            arguments.push(text(stamps)?);
        }
        Ok(Self { path, arguments })
    }

    #[expect(unsafe_code, reason = "posix_spawn has no safe binding among the dependencies")]
    fn spawn(&self) -> io::Result<Pid> {
        let mut arguments: Vec<*mut libc::c_char> =
            self.arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
        arguments.push(ptr::null_mut());
        let environment = [ptr::null_mut()];
        let mut pid: libc::pid_t = 0;
        // SAFETY: path and arguments are strings that end in NUL and outlive the call; both arrays
        // end in a null pointer; posix_spawn writes to none of them, and null is allowed for the
        // file actions and the attributes.
        let error = unsafe {
            libc::posix_spawn(
                &raw mut pid,
                self.path.as_ptr(),
                ptr::null(),
                ptr::null(),
                arguments.as_ptr(),
                environment.as_ptr(),
            )
        };
        if error == 0 { Ok(Pid::from_raw(pid)) } else { Err(io::Error::from_raw_os_error(error)) }
    }
}

/// From each kill of a process to the start of the next, as that one stamped it.
pub(crate) fn replacements(idle: &Path, kills: usize) -> io::Result<Vec<Duration>> {
    let stamps = Stamps::new()?;
    let program = Program::new(idle, Some(stamps.path()))?;
    let ending = AtomicBool::new(false);
    thread::scope(|scope| {
        // The killer is another thread than the loop, as it is another process with a daemon.
        let supervisor = scope.spawn(|| -> io::Result<()> {
            while !ending.load(Ordering::SeqCst) {
                waitpid(program.spawn()?, None)?;
            }
            Ok(())
        });
        let delays = stamps.kill_one_after_the_other(kills);
        // The loop looks at this only after the death of the last one.
        ending.store(true, Ordering::SeqCst);
        stamps.kill_the_last();
        supervisor.join().map_err(|_| io::Error::other("the loop panicked"))??;
        Ok(delays)
    })
}

/// From the first of `count` kills at once until all have been replaced.
pub(crate) fn storm(idle: &Path, count: usize) -> io::Result<Duration> {
    let stamps = Stamps::new()?;
    let program = Program::new(idle, Some(stamps.path()))?;
    for _process in 0..count {
        program.spawn()?;
    }
    stamps.wait_for(count);
    thread::scope(|scope| {
        let supervisor = scope.spawn(|| -> io::Result<()> {
            for _death in 0..count {
                waitpid(None, None)?;
                program.spawn()?;
            }
            Ok(())
        });
        let took = stamps.kill_all_at_once(count);
        supervisor.join().map_err(|_| io::Error::other("the loop panicked"))??;
        for stamp in stamps.wait_for(2 * count).split_off(count) {
            end(stamp.pid, Signal::SIGKILL)?;
        }
        Ok(took)
    })
}

/// Starts `count` processes one after the other, then ends them.
pub(crate) fn start_and_stop(idle: &Path, count: usize) -> io::Result<StartAndStop> {
    let program = Program::new(idle, None)?;
    let began = Instant::now();
    let pids = (0..count).map(|_| program.spawn()).collect::<io::Result<Vec<Pid>>>()?;
    let start = began.elapsed();
    let began = Instant::now();
    for pid in &pids {
        kill(*pid, Signal::SIGTERM)?;
    }
    for pid in pids {
        waitpid(pid, None)?;
    }
    Ok(StartAndStop { start, stop: began.elapsed() })
}

fn end(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
    kill(pid, signal)?;
    waitpid(pid, None)?;
    Ok(())
}
