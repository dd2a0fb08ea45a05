//! The yardstick: the least that any supervisor must do, in one process and without deciding
//! anything. `posix_spawn` to start, `waitpid` to hear of the end, and again.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::spawn::Program;
use crate::stamps::Stamps;

/// Starting and stopping the same number of processes.
pub(crate) struct StartAndStop {
    pub(crate) start: Duration,
    pub(crate) stop: Duration,
}

/// From each kill of a process to the start of the next, as that one stamped it.
pub(crate) fn replacements(idle: &Path, kills: usize) -> io::Result<Vec<Duration>> {
    let stamps = Stamps::new()?;
    let program = Program::new(idle, [stamps.path().as_os_str()])?;
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
    let program = Program::new(idle, [stamps.path().as_os_str()])?;
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
    let program = Program::new(idle, [])?;
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
