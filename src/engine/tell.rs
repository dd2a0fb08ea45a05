//! What the daemon itself has to say: lines on its standard error, which is `daemon.log` when it runs
//! detached.
//!
//! Failure paths: a line that cannot be written, because the disk is full or the terminal is gone, is
//! lost. Nobody is left to be told of it, and the supervision must not end by it.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::daemon_log::{DaemonLog, Lines};

/// How much is told: `STIGMER_LOG=debug`, or per module as `tracing` has it.
const LEVEL_VARIABLE: &str = "STIGMER_LOG";

/// RFC 3339 in UTC, to the millisecond.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        write!(out, "{:.3}", jiff::Timestamp::now())
    }
}

/// Sets it up for this process. `log` is where `daemon.log` would be.
pub(super) fn set_up(log: PathBuf) {
    let filter = EnvFilter::try_from_env(LEVEL_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = DaemonLog::new(log);
    let set = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Lines(log.clone()))
        .with_ansi(io::stderr().is_terminal())
        .with_timer(Utc)
        .with_target(false)
        // It would be told on the same standard error, by a macro that panics where that fails.
        .log_internal_errors(false)
        .try_init();
    // Only a second call could fail, and then it is set up.
    drop(set);
}
