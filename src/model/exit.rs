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
    known(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}

/// A signal as engines of containers take it: `SIGTERM`, and the number of one without a name.
#[must_use]
pub fn signal_word(signal: i32) -> String {
    known(signal).map_or_else(|| signal.to_string(), str::to_owned)
}

fn known(signal: i32) -> Option<&'static str> {
    nix::sys::signal::Signal::try_from(signal).ok().map(nix::sys::signal::Signal::as_str)
}

/// The number of a signal that is given as `SIGHUP`, `HUP` or `1`.
#[must_use]
pub fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=libc::SIGRTMAX()).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    name.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
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
    /// Reaching the container engine: it is absent or does not answer.
    Engine,
    /// Fetching or building an image.
    Image,
    /// Making or starting a container: the engine refuses.
    Container,
}

/// Whether a failed launch is the component's own doing, and when it is tried again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// A failed start of the component's (S26): charged to its restart budget.
    Counted,
    /// The machine is short of something for the moment (EAGAIN of fork, ETXTBSY): tried again a second
    /// later.
    Soon,
    /// Something that others provide is not there (the container engine, an image): tried again with
    /// delays that grow to a minute, and at once when it is known to be back. Never given up.
    Patient,
}

/// A launch that came to nothing.
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
    /// What follows.
    pub retry: Retry,
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
