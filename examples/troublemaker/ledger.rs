//! Numbered lines for ever, and beside them a ledger of how many this process has written: what a log
//! must hold, written down by somebody else.
//!
//! ```text
//!  the log      PID START_TICKS NUMBER xxxx...   100 bytes, one write each, from 0
//!  the ledger   [pid][start ticks][lines]        three numbers of 64 bits for each process, in order
//! ```
//!
//! A line that cannot be written, on a full disk say, is tried again until it is whole. It counts once
//! it is written: a process that is killed in between has one line more in the log than in the ledger, or
//! a piece of one.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use crate::births;

/// The length of a line, its newline included.
const LINE: usize = 100;
/// The length of what the ledger says of one process.
const ENTRY: u64 = 24;
/// Before a line is tried again.
const AGAIN: Duration = Duration::from_millis(10);

/// Opens a new entry and begins to write a line every `pace`. One process at a time may do so.
pub(crate) fn start(ledger: &Path, pace: Duration) -> io::Result<()> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(ledger)?;
    // One that was killed while it made its entry may have left a part of it.
    let at = file.metadata()?.len().next_multiple_of(ENTRY);
    let (me, ticks) = (std::process::id(), births::start_ticks()?);
    let entry = [u64::from(me), ticks, 0].map(u64::to_le_bytes).concat();
    file.write_all_at(&entry, at)?;
    let write = move || {
        let (_keeps_it_open, nothing) = channel::<()>();
        for number in 0_u64.. {
            let line = format!("{me} {ticks} {number} ");
            write_whole(format!("{line:x<width$}\n", width = LINE - 1).as_bytes());
            // Only what is written counts; a ledger that cannot be written shows in the sums.
            let _ = file.write_all_at(&(number + 1).to_le_bytes(), at + 16);
            if nothing.recv_timeout(pace) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    };
    thread::Builder::new().name("ledger".into()).spawn(write)?;
    Ok(())
}

fn write_whole(mut line: &[u8]) {
    let (_keeps_it_open, nothing) = channel::<()>();
    while !line.is_empty() {
        match rustix::io::write(io::stdout(), line) {
            Ok(count) => line = &line[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => drop(nothing.recv_timeout(AGAIN)),
        }
    }
}
