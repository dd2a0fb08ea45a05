//! The fixture of the end-to-end tests: it misbehaves in exactly the way in which its flags say.
//!
//! Every flag is one trouble, and flags combine. Whatever the order on the command line, it goes
//! through these steps:
//!
//! ```text
//!  report ──> births, lock ──> children ──> output ──> ready after ──> listen ──> live ──> end
//!  (before    (99 if another   (in order)   (flood,    (then prints    (tcp, http,         (exit code
//!   signals    copy lives,                   lines)     --say-ready)    unix, grpc)         or signal)
//!   change)    98 if locked)
//! ```
//!
//! Signals: `--on-term` says what SIGTERM and SIGINT do (the default is to die of them). SIGUSR1
//! closes everything that listens and SIGUSR2 opens it again; both only with something that listens.
//!
//! Exit codes of its own: 97 could not do what a flag says, 98 the lock is held by somebody else,
//! 99 another copy lives. It deliberately has no way to find out what supervises it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is its log")]

use std::io;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, raise};

use crate::options::{OnTerm, Options};

mod answers;
mod births;
#[path = "../common/duration.rs"]
mod duration;
mod family;
mod grpc;
#[path = "../common/http.rs"]
mod http;
mod ledger;
mod listen;
mod options;
mod output;
mod report;
#[path = "../common/signals.rs"]
mod signals;

/// A flag could not be carried out.
const CANNOT: u8 = 97;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("troublemaker: {error}");
            ExitCode::from(CANNOT)
        }
    }
}

fn run(options: &Options) -> Result<u8, String> {
    if let Some(arguments) = &options.detach {
        return family::detach(arguments).map(|()| 0).map_err(|error| error.to_string());
    }
    if let Some(place) = &options.report {
        report::write(place).map_err(|error| format!("--report: {error}"))?;
    }
    // Kept to the end of the process, and with them the locks.
    let mut held = Vec::new();
    if let Some(file) = &options.births {
        match births::register(file).map_err(|error| format!("--births: {error}"))? {
            Some(lock) => held.push(lock),
            None => return Ok(births::ANOTHER_COPY_LIVES),
        }
    }
    if let Some(file) = &options.lock {
        match births::lock(file).map_err(|error| format!("--lock: {error}"))? {
            Some(lock) => held.push(lock),
            None => return Ok(births::LOCKED_BY_ANOTHER),
        }
    }
    let signals = take_signals(options).map_err(|error| format!("signals: {error}"))?;
    family::start(options).map_err(|error| format!("a child: {error}"))?;
    output::write(options).map_err(|error| format!("standard output: {error}"))?;
    if let Some(file) = &options.ledger {
        ledger::start(file, options.ledger_pace).map_err(|error| format!("--ledger: {error}"))?;
    }

    let started = Instant::now();
    let end = options.exit_after.map(|after| started + after);
    if let Some(after) = options.ready_after
        && let Some(end) = live(options, &signals, Some(started + after), end, None)
    {
        return finish(options, end);
    }
    let gate = listen::start(options).map_err(|error| error.to_string())?;
    if let Some(line) = &options.say_ready {
        println!("{line}");
    }
    if options.close_stdout {
        output::close().map_err(|error| format!("--close-stdout: {error}"))?;
    }
    if options.spin {
        thread::spawn(spin);
    }
    let end = live(options, &signals, None, end, gate.as_ref()).unwrap_or(End::Told);
    finish(options, end)
}

/// Why the life of this process ends.
enum End {
    /// `--exit-after` is over.
    Told,
    /// SIGTERM or SIGINT, which `--on-term` answers with an exit.
    Terminated,
}

/// Lives until its end comes, or until `until`, which gives `None`.
fn live(
    options: &Options,
    signals: &Signals,
    until: Option<Instant>,
    end: Option<Instant>,
    gate: Option<&listen::Gate>,
) -> Option<End> {
    loop {
        let deadline = until.into_iter().chain(end).min();
        let signal = match deadline {
            None => signals.incoming.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => {
                signals.incoming.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            }
        };
        match signal {
            Ok(Signal::SIGUSR1) => gate.into_iter().for_each(listen::Gate::close),
            Ok(Signal::SIGUSR2) => gate.into_iter().for_each(listen::Gate::open),
            Ok(signal) => {
                // A log that is compared with its ledger holds nothing else.
                if options.ledger.is_none() {
                    println!("got {signal}");
                }
                match options.on_term {
                    OnTerm::Ignore | OnTerm::Default => {}
                    OnTerm::Exit => {
                        wait(options.term_takes);
                        return Some(End::Terminated);
                    }
                }
            }
            Err(_) if end.is_some_and(|end| Instant::now() >= end) => return Some(End::Told),
            Err(_) => return None,
        }
    }
}

/// A channel on which nothing ever comes serves as a timer.
fn wait(duration: Duration) {
    let (_keeps_it_open, nothing) = channel::<()>();
    let _ = nothing.recv_timeout(duration);
}

/// The signals that this process takes as messages.
struct Signals {
    incoming: Receiver<Signal>,
    /// Keeps the channel open where no signal is taken, so that waiting on it is waiting for time.
    _open: Sender<Signal>,
}

fn take_signals(options: &Options) -> io::Result<Signals> {
    let mut taken = Vec::new();
    if options.on_term != OnTerm::Default {
        taken.extend([Signal::SIGTERM, Signal::SIGINT]);
    }
    if options.listens() {
        taken.extend([Signal::SIGUSR1, Signal::SIGUSR2]);
    }
    let (sender, incoming) = channel();
    let open = sender.clone();
    if !taken.is_empty() {
        signals::deliver_to(&taken, move |signal| sender.send(signal).is_ok())?;
    }
    Ok(Signals { incoming, _open: open })
}

fn finish(options: &Options, end: End) -> Result<u8, String> {
    match (end, options.die_by) {
        (End::Terminated, _) => Ok(options.term_exit_code),
        (End::Told, None) => Ok(options.exit_code),
        (End::Told, Some(signal)) => {
            die_by(signal).map_err(|error| format!("--die-by {signal}: {error}"))
        }
    }
}

fn die_by(signal: Signal) -> io::Result<u8> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    SigSet::from(signal).thread_unblock()?;
    // Rust's handler of SIGSEGV and SIGBUS restores the default the first time and returns.
    for _attempt in 0..2 {
        raise(signal)?;
    }
    Err(io::Error::other("this signal does not end a process"))
}

fn spin() {
    loop {
        std::hint::spin_loop();
    }
}
