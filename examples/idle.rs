//! Does nothing for ever, cheaply: the program that the benchmarks supervise.
//!
//! With a file as its argument it first appends one line to it, `PID NANOSECONDS`, the time on
//! `CLOCK_MONOTONIC` at which its own code began to run. That is what "replaced" means in the
//! benchmarks: not that somebody says so, but that the new process has run.

use std::fs::OpenOptions;
use std::io::{self, Write};

use nix::time::{ClockId, clock_gettime};

fn main() -> io::Result<()> {
    if let Some(file) = std::env::args_os().nth(1) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
        let line = format!("{} {}{:09}\n", std::process::id(), now.tv_sec(), now.tv_nsec());
        OpenOptions::new().append(true).create(true).open(file)?.write_all(line.as_bytes())?;
    }
    loop {
        nix::unistd::pause();
    }
}
