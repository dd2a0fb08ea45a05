//! The flags of the troublemaker.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use nix::sys::signal::Signal;

use crate::duration;

/// What SIGTERM and SIGINT do.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnTerm {
    /// Whatever the kernel does: the process dies of it
    Default,
    /// Nothing but a line in the log
    Ignore,
    /// An exit with --term-exit-code, after --term-takes
    Exit,
}

/// A program that misbehaves as told, for the tests of stigmer.
#[derive(Parser)]
#[command(name = "troublemaker")]
pub(crate) struct Options {
    /// The exit code at the end
    #[arg(long, value_name = "CODE", default_value_t = 0)]
    pub(crate) exit_code: u8,
    /// End this long after the output is written; without it, live until a signal
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) exit_after: Option<Duration>,
    /// End by this signal instead of by an exit code
    #[arg(long, value_name = "SIGNAL", requires = "exit_after", value_parser = parse_signal)]
    pub(crate) die_by: Option<Signal>,

    /// What SIGTERM and SIGINT do
    #[arg(long, value_enum, default_value_t = OnTerm::Default)]
    pub(crate) on_term: OnTerm,
    /// How long the exit that a SIGTERM asked for takes
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration::parse)]
    pub(crate) term_takes: Duration,
    /// The code of that exit
    #[arg(long, value_name = "CODE", default_value_t = 0)]
    pub(crate) term_exit_code: u8,

    /// Append this process to the file and hold a lock on it; exit 99 if another copy holds it
    #[arg(long, value_name = "FILE")]
    pub(crate) births: Option<PathBuf>,
    /// Hold a lock on this file; exit 98 if another process holds it
    #[arg(long, value_name = "FILE")]
    pub(crate) lock: Option<PathBuf>,
    /// Write what this process sees of itself as JSON to a file, or to standard output with "-"
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// Start a child with these flags and never wait for it; may be repeated
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    pub(crate) child: Vec<String>,
    /// Start a grandchild with these flags that is forked twice and leads a session of its own
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    pub(crate) grandchild: Vec<String>,
    /// The middle one of those two forks
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(crate) detach: Option<String>,

    /// Start a child that opens this FIFO before it executes its program; until then this one waits for it
    #[arg(long, value_name = "FIFO")]
    pub(crate) spawn_through: Option<PathBuf>,

    /// Print this line; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) say: Vec<String>,
    /// Print this line to standard error; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) complain: Vec<String>,
    /// Print that many MiB of numbered lines of 100 bytes
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    pub(crate) flood: u64,
    /// Print that many lines "PID NUMBER xxx..." of 100 bytes, each with a write of its own
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(crate) lines: u64,
    /// Pause this long after every 100 of them
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) pace: Option<Duration>,
    /// Print numbered lines for ever, and keep in this file how many
    #[arg(long, value_name = "FILE")]
    pub(crate) ledger: Option<PathBuf>,
    /// How long after one of these lines the next one comes
    #[arg(long, value_name = "DURATION", default_value = "200ms", value_parser = duration::parse)]
    pub(crate) ledger_pace: Duration,
    /// Print that many KiB of bytes that cannot be compressed, with a newline after every 99
    #[arg(long, value_name = "KIB", default_value_t = 0)]
    pub(crate) noise: u64,
    /// Print that many MiB without a newline
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    pub(crate) long_line: u64,
    /// Print a line with NUL, escape sequences and bytes that are no UTF-8
    #[arg(long)]
    pub(crate) garbage: bool,
    /// Print this without a newline after it, as the last thing of the output
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) unterminated: Option<String>,
    /// Print "tick N" this often
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) tick: Option<Duration>,
    /// Close standard output and standard error once ready
    #[arg(long)]
    pub(crate) close_stdout: bool,

    /// Wait this long before opening any port
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) ready_after: Option<Duration>,
    /// Print this line when everything is open
    #[arg(long, value_name = "TEXT")]
    pub(crate) say_ready: Option<String>,
    /// Accept connections on this port of 127.0.0.1; may be repeated
    #[arg(long, value_name = "PORT")]
    pub(crate) tcp: Vec<u16>,
    /// Accept connections on this Unix socket
    #[arg(long, value_name = "FILE")]
    pub(crate) unix: Option<PathBuf>,
    /// Answer HTTP on this port of 127.0.0.1 as --answers says
    #[arg(long, value_name = "PORT")]
    pub(crate) http: Option<u16>,
    /// Answer the gRPC health service on this port of 127.0.0.1 as --answers says
    #[arg(long, value_name = "PORT")]
    pub(crate) grpc: Option<u16>,
    /// What to answer, read anew at each request; without it all is well
    #[arg(long, value_name = "FILE")]
    pub(crate) answers: Option<PathBuf>,

    /// Use a whole core for ever, once ready
    #[arg(long)]
    pub(crate) spin: bool,
}

impl Options {
    /// Whether anything is to be listened on.
    pub(crate) fn listens(&self) -> bool {
        !self.tcp.is_empty() || self.unix.is_some() || self.http.is_some() || self.grpc.is_some()
    }
}

fn parse_signal(text: &str) -> Result<Signal, String> {
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    name.parse().map_err(|_| format!("{text} is no signal; write for example KILL"))
}
