//! How a run ended, or why it never began.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the kernel said about the end of a process. A death by signal is never an exit code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// `_exit(code)`.
    Code(i32),
    /// Ended by this signal number.
    Signal(i32),
    /// It has ended, and nobody was there to hear how. Never shown as code 0.
    Unknown,
}

/// The end of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Exit {
    /// Code, signal, or unknown.
    pub status: ExitStatus,
    /// The kernel's out-of-memory killer ended it.
    pub oom: bool,
}

impl Exit {
    /// An exit with this code.
    #[must_use]
    pub const fn code(code: i32) -> Self {
        Self { status: ExitStatus::Code(code), oom: false }
    }

    /// A death by this signal.
    #[must_use]
    pub const fn signal(signal: i32) -> Self {
        Self { status: ExitStatus::Signal(signal), oom: false }
    }

    /// An end of which nothing is known.
    #[must_use]
    pub const fn unknown() -> Self {
        Self { status: ExitStatus::Unknown, oom: false }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            ExitStatus::Code(code) => write!(f, "exit {code}")?,
            ExitStatus::Signal(signal) => f.write_str(&signal_name(signal))?,
            ExitStatus::Unknown => f.write_str("exit status unknown")?,
        }
        if self.oom {
            f.write_str(" (out of memory)")?;
        }
        Ok(())
    }
}

/// `SIGTERM` for 15; `signal 64` for a number without a name.
#[must_use]
pub fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |known| known.as_str().to_owned())
}

/// The step of a launch that failed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaunchStage {
    /// Resolving what the spec names: a secret, a user, an env file.
    Prepare,
    /// Opening the log file.
    Log,
    /// Making or entering the cgroup.
    Cgroup,
    /// Making the process.
    Fork,
    /// Setting a resource limit, the nice value or the umask.
    Limits,
    /// Taking the user and group.
    User,
    /// Entering the working directory.
    WorkingDir,
    /// Writing the record of the run, which must be on disk before the program starts.
    Record,
    /// Executing the program.
    Exec,
    /// The container engine (absent, hanging, or refusing).
    Container,
}

/// A launch that came to nothing. Counts as a failed start (S26) unless it is `transient`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LaunchError {
    /// Where it stopped.
    pub stage: LaunchStage,
    /// The kernel's error number, where there is one.
    pub errno: Option<i32>,
    /// In plain words: what was tried, what came back.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The machine is short of something for the moment (EAGAIN of fork, ETXTBSY): tried again
    /// shortly, without being charged to the component's restart budget.
    pub transient: bool,
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
