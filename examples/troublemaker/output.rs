//! What the troublemaker writes: floods, endless lines, garbage, and lines without an end.

use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use crate::options::Options;

const MIB: u64 = 1024 * 1024;
/// The length of a line of the flood, its newline included.
const LINE: u64 = 100;

/// Writes everything that the flags ask for, in the order of the help.
pub(crate) fn write(options: &Options) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    for line in &options.say {
        writeln!(out, "{line}")?;
    }
    flood(&mut out, options.flood * MIB / LINE)?;
    noise(&mut out, options.noise * 1024)?;
    out.flush()?;
    lines(options.lines, options.pace)?;
    long_line(&mut out, options.long_line)?;
    if options.garbage {
        out.write_all(b"garbage: \0 \x1b[31mred\x1b[0m \x07 \xff\xfe \xc3( end\n")?;
    }
    if let Some(text) = &options.unterminated {
        out.write_all(text.as_bytes())?;
    }
    out.flush()?;
    drop(out);
    let mut err = io::stderr().lock();
    for line in &options.complain {
        writeln!(err, "{line}")?;
    }
    drop(err);
    if let Some(every) = options.tick {
        thread::Builder::new().name("ticks".into()).spawn(move || tick(every))?;
    }
    Ok(())
}

/// `line 000000000000 xxxx...`, from 0: a gap, a double or a tear shows.
fn flood(out: &mut impl Write, lines: u64) -> io::Result<()> {
    let filler = "x".repeat(usize::try_from(LINE).unwrap_or(0).saturating_sub(19));
    for number in 0..lines {
        writeln!(out, "line {number:012} {filler}")?;
    }
    Ok(())
}

/// `000000004711 000000000000 xxxx...`: whose line, and which one, from 0.
fn lines(count: u64, pace: Option<Duration>) -> io::Result<()> {
    let (_keeps_it_open, nothing) = channel::<()>();
    let mut out = io::stdout().lock();
    let filler = "x".repeat(usize::try_from(LINE).unwrap_or(0).saturating_sub(27));
    let me = std::process::id();
    for number in 0..count {
        let line = format!("{me:012} {number:012} {filler}\n");
        // Rust's own standard output writes at each newline; this is one write.
        out.write_all(line.as_bytes())?;
        if let Some(pace) = pace
            && number % 100 == 99
        {
            let _ = nothing.recv_timeout(pace);
        }
    }
    Ok(())
}

fn noise(out: &mut impl Write, bytes: u64) -> io::Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for place in 1..=bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let byte = state.to_le_bytes()[3];
        let byte = if place % LINE == 0 { b'\n' } else { byte | u8::from(byte == b'\n') };
        out.write_all(&[byte])?;
    }
    Ok(())
}

fn long_line(out: &mut impl Write, mebibytes: u64) -> io::Result<()> {
    let block = vec![b'y'; 1024 * 1024];
    for _block in 0..mebibytes {
        out.write_all(&block)?;
    }
    Ok(())
}

/// Prints `tick N` for ever. A standard output that is gone ends the ticks, not the program.
fn tick(every: Duration) {
    let (_keeps_it_open, nothing) = channel::<()>();
    for number in 0_u64.. {
        if writeln!(io::stdout(), "tick {number}").is_err() {
            return;
        }
        if nothing.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// Puts /dev/null in the place of both outputs: whoever reads their other end sees it close, and
/// no file that is opened later gets their numbers.
pub(crate) fn close() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}
