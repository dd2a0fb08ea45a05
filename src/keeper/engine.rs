//! The engine as a child of the keeper: started, watched, started again.
//!
//! ```text
//!         start                      ended, lived 10 s: at once
//!   Down ───────► Up ──────────────► Down(until: at once, then 100 ms doubling to 5 s)
//!                  └─ said Shutdown and ended with 0: the daemon is over
//! ```
//!
//! The engine gets one end of a socket pair as descriptor 3 and nothing else. It does not die with the
//! keeper: it sees the end of file and starts a new keeper.
//!
//! Which program: the keeper's own executable, which stays there under /proc whatever is done to the
//! file. An engine that dies is replaced by one of the same program; another one comes only by
//! `stigmer upgrade`, which tries it out first. The file that the keeper was started from is there for
//! a machine without /proc.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use super::console::say;
use super::spawn::Ground;
use super::sys::{self, Forked};
use super::{clock, raw, socket};
use crate::model::Time;

/// An engine that lived this long was a good one: the backoff begins anew.
const GOOD_LIFE: Duration = Duration::from_secs(10);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// The engine's process and connection.
#[derive(Debug)]
pub(super) struct Engine {
    /// Files to execute, in order.
    candidates: Vec<CString>,
    argv: Vec<CString>,
    state: State,
    /// Lives in a row that were not good.
    short_lives: u32,
}

#[derive(Debug)]
enum State {
    /// `pid` is `None` once it is reaped, `socket` once the connection is closed.
    Up {
        pid: Option<u32>,
        socket: Option<OwnedFd>,
        since: Time,
    },
    Down {
        until: Time,
    },
}

impl Engine {
    /// Prepares an engine that is to be started at once. An empty command means this program with the
    /// argument `__engine`. A command with a NUL in it is refused.
    pub(super) fn new(command: &[OsString]) -> Option<Self> {
        let text = |part: OsString| CString::new(part.into_vec()).ok();
        let myself = c"/proc/self/exe".to_owned();
        let (argv, candidates) = if command.is_empty() {
            let installed = std::env::current_exe().ok().map(OsString::from).and_then(text);
            (vec![c"stigmer".to_owned(), c"__engine".to_owned()], [Some(myself), installed])
        } else {
            let argv: Option<Vec<_>> = command.iter().cloned().map(text).collect();
            let argv = argv?;
            let program = argv.first().cloned();
            (argv, [program, None])
        };
        let candidates = candidates.into_iter().flatten().collect();
        let state = State::Down { until: Time::ZERO };
        Some(Self { candidates, argv, state, short_lives: 0 })
    }

    /// An engine that another program of this keeper has started.
    pub(super) fn inherit(&mut self, pid: u32, socket: OwnedFd) {
        let since = clock::now();
        self.state = State::Up { pid: Some(pid), socket: Some(socket), since };
    }

    /// The keeper's end of the connection, while there is one.
    pub(super) fn socket(&self) -> Option<&OwnedFd> {
        match &self.state {
            State::Up { socket, .. } => socket.as_ref(),
            State::Down { .. } => None,
        }
    }

    /// The engine's pid, until it is reaped.
    pub(super) fn pid(&self) -> Option<u32> {
        match self.state {
            State::Up { pid, .. } => pid,
            State::Down { .. } => None,
        }
    }

    /// When the engine is to be started, if it is not running.
    pub(super) fn due(&self) -> Option<Time> {
        match self.state {
            State::Up { .. } => None,
            State::Down { until } => Some(until),
        }
    }

    /// Starts the engine now, whatever the backoff says.
    pub(super) fn hurry(&mut self) {
        if let State::Down { until } = &mut self.state {
            *until = Time::ZERO;
        }
    }

    /// Closes the connection.
    pub(super) fn disconnect(&mut self) {
        if let State::Up { socket, .. } = &mut self.state {
            *socket = None;
        }
    }

    /// Notes that the engine has been reaped: its number may be another's from now on. What it said
    /// last may still be read.
    pub(super) fn reaped(&mut self) {
        if let State::Up { pid, .. } = &mut self.state {
            *pid = None;
        }
    }

    /// How many engines in a row have ended soon after their start.
    pub(super) fn short_lives(&self) -> u32 {
        self.short_lives
    }

    /// Notes that the engine has ended; says how long to wait until the next start.
    pub(super) fn ended(&mut self, now: Time) -> Duration {
        let since = if let State::Up { since, .. } = self.state { since } else { now };
        self.back_off(now, now.since(since))
    }

    fn back_off(&mut self, now: Time, life: Duration) -> Duration {
        self.short_lives = if life >= GOOD_LIFE { 1 } else { self.short_lives.saturating_add(1) };
        let delay = match self.short_lives {
            0 | 1 => Duration::ZERO,
            lives => (FIRST_DELAY * (1 << (lives - 2).min(16))).min(LONGEST_DELAY),
        };
        self.state = State::Down { until: now + delay };
        delay
    }

    /// Starts the engine. A failure counts as an engine that ended at once.
    pub(super) fn start(&mut self, ground: &Ground) {
        let now = clock::now();
        let result = socket::pair().and_then(|(mine, its)| match sys::fork_into(None)? {
            Forked::Child => become_engine(&self.candidates, &self.argv, ground, &its),
            Forked::Parent(pid) => Ok((pid, mine)),
        });
        match result {
            Ok((pid, socket)) => {
                self.state = State::Up { pid: Some(pid), socket: Some(socket), since: now }
            }
            Err(error) => {
                let delay = self.back_off(now, Duration::ZERO);
                say(format_args!("cannot start the engine: {error}; trying again in {delay:?}"));
            }
        }
    }
}

/// In the child: becomes the engine. Its process group is its own, so that Ctrl-C reaches the keeper
/// alone, which passes it on in order.
fn become_engine(candidates: &[CString], argv: &[CString], ground: &Ground, socket: &OwnedFd) -> ! {
    let _ = rustix::process::setpgid(None, None);
    raw::reset_signals(ground.ignored);
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    let _ = nix::unistd::dup2_stdin(&ground.null);
    raw::close_on_exec_from(3);
    if sys::place_at_three(socket.as_fd()).is_ok() {
        for candidate in candidates {
            let _ = nix::unistd::execv(candidate, argv);
        }
    }
    let error = std::io::Error::last_os_error();
    let program = candidates.first().map_or("".into(), |program| program.to_string_lossy());
    say(format_args!(
        "cannot execute the engine {program}: {error} (descriptor {})",
        socket.as_raw_fd()
    ));
    raw::exit_now(127)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_at_once_then_it_backs_off() {
        let mut engine = Engine::new(&["/bin/true".into()]).unwrap();
        let mut now = Time::from_secs(100);
        let mut delays = Vec::new();
        for _ in 0..9 {
            engine.state = State::Up { pid: Some(2), socket: None, since: now };
            now = now + Duration::from_secs(1);
            delays.push(engine.ended(now).as_millis());
        }
        assert_eq!(delays, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        engine.state = State::Up { pid: Some(2), socket: None, since: now };
        now = now + GOOD_LIFE;
        assert_eq!(engine.ended(now), Duration::ZERO);
        assert_eq!(engine.due(), Some(now));
    }

    #[test]
    fn a_command_with_a_nul_is_refused() {
        assert!(Engine::new(&["a\0b".into()]).is_none());
        assert_eq!(Engine::new(&[]).unwrap().argv.len(), 2);
    }
}
