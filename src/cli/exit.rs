//! How a command ends.

use std::process::ExitCode;

/// The exit codes, the same for every command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exit {
    /// Done; also: stopping what is stopped.
    Done,
    /// Failed.
    Failed,
    /// Wrong usage.
    Usage,
    /// A wanted component is not running and healthy.
    NotHealthy,
    /// An unknown component or project, or no daemon.
    Unknown,
    /// The manifest is invalid, or there is none.
    Invalid,
    /// Waiting timed out.
    TimedOut,
    /// `apply --dry-run --detailed-exitcode`: there is something to do.
    Changes,
    /// `exec`: the command cannot be executed.
    NotExecutable,
    /// `exec`: there is no such command.
    NotFound,
    /// `exec`: that of the command.
    Command(u8),
    /// Ctrl-C.
    Interrupted,
    /// SIGTERM.
    Terminated,
}

impl Exit {
    /// How a shell shows a death by this signal.
    pub(super) fn by_signal(signal: i32) -> Self {
        Self::Command(u8::try_from(signal).map_or(u8::MAX, |signal| signal.saturating_add(128)))
    }

    const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotHealthy => 3,
            Self::Unknown => 4,
            Self::Invalid => 5,
            Self::TimedOut => 6,
            Self::Changes => 10,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
            Self::Command(code) => code,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
