//! Writes numbered lines of 100 bytes to its standard output as fast as it can, then does nothing:
//! the component with which the benchmarks measure what a log costs the one who writes it.
//!
//! ```text
//! flood STAMPS LINES BLOCK
//!
//!   LINES lines, BLOCK of them in each write(2) ──> "PID BEGIN END CPU" to STAMPS ──> pause
//! ```
//!
//! BLOCK 1 is a program that flushes each line, as most do whose log matters; BLOCK 655 is one with
//! a buffer of 64 KiB. BEGIN and END are times on `CLOCK_MONOTONIC`, CPU is what this process used of the
//! processor, all in nanoseconds.
//!
//! The lines are those of the troublemaker's `--flood`: `line 000000000000 xxxx...`, from 0, so that
//! a gap, a double or a tear shows.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::time::{ClockId, clock_gettime};

/// The length of a line, its newline included.
const LINE: usize = 100;
/// Where the twelve digits of its number begin.
const NUMBER: usize = "line ".len();
const DIGITS: usize = 12;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [stamps, lines, block] = arguments.as_slice() else {
        return Err(io::Error::other("usage: flood STAMPS LINES BLOCK"));
    };
    let lines: usize = lines.parse().map_err(io::Error::other)?;
    let block: usize = block.parse().map_err(io::Error::other)?;
    // A program that is started again after its end writes nothing a second time.
    let mut stamps = OpenOptions::new().append(true).create_new(true).open(stamps)?;

    let begin = nanoseconds(ClockId::CLOCK_MONOTONIC)?;
    write_lines(lines, block.max(1))?;
    let end = nanoseconds(ClockId::CLOCK_MONOTONIC)?;
    let cpu = nanoseconds(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
    writeln!(stamps, "{} {begin} {end} {cpu}", std::process::id())?;
    loop {
        nix::unistd::pause();
    }
}

/// Straight to the descriptor: the standard library's own buffer would put every line in two copies.
fn write_lines(lines: usize, block: usize) -> io::Result<()> {
    let out = io::stdout();
    let mut buffer = b"line 000000000000 ".to_vec();
    buffer.resize(LINE - 1, b'x');
    buffer.push(b'\n');
    let mut buffer = buffer.repeat(block);
    let mut number = 0;
    while number < lines {
        let count = block.min(lines - number);
        for line in buffer.chunks_exact_mut(LINE).take(count) {
            put(number, &mut line[NUMBER..NUMBER + DIGITS]);
            number += 1;
        }
        let mut rest = &buffer[..count * LINE];
        while !rest.is_empty() {
            let written = nix::unistd::write(out.as_fd(), rest)?;
            rest = &rest[written..];
        }
    }
    Ok(())
}

/// The number in decimal digits, with zeros before it.
fn put(mut number: usize, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789"[number % 10];
        number /= 10;
    }
}

fn nanoseconds(clock: ClockId) -> io::Result<i64> {
    let time = clock_gettime(clock)?;
    Ok(time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}
