//! The words for what is wanted of a component and what it is doing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the user asked for; separate from what is happening.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// It should run.
    Running,
    /// It should not.
    Stopped,
}

impl Wanted {
    /// `running` or `stopped`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// The six public states (S11). `ready` is a flag beside the state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waiting for dependencies, being launched, or launched with its startup probe not yet passed.
    Starting,
    /// Started: the startup probe, where there is one, has passed.
    Running,
    /// Alive, and a probe has failed as often as its threshold allows.
    Unhealthy,
    /// Between two runs: being ended for a restart, or in its backoff.
    Restarting,
    /// Not running because nobody wants it to, or because it is done.
    Stopped,
    /// Given up: only a person, or a changed spec, brings it back (S22).
    Failed,
}

impl State {
    /// All of them, in the order of the table in the documentation.
    pub const ALL: [Self; 6] = [
        Self::Starting,
        Self::Running,
        Self::Unhealthy,
        Self::Restarting,
        Self::Stopped,
        Self::Failed,
    ];

    /// The word that is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Unhealthy => "unhealthy",
            Self::Restarting => "restarting",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// Whether a component may go straight from this state to `next`. Everything else is a bug, and
    /// the simulation treats it as one.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        use State::{Failed, Restarting, Running, Starting, Stopped, Unhealthy};
        match self {
            Starting => matches!(next, Running | Unhealthy | Restarting | Stopped | Failed),
            Running => matches!(next, Unhealthy | Restarting | Stopped | Failed),
            Unhealthy => matches!(next, Running | Restarting | Stopped | Failed),
            Restarting => matches!(next, Starting | Stopped | Failed),
            Stopped => matches!(next, Starting),
            Failed => matches!(next, Starting | Stopped),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a stopped component is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Declared, and never asked to run yet.
    New,
    /// A person, or the end of the daemon, asked for it.
    Requested,
    /// It ended by itself with success, and its policy does not start it again.
    Completed,
    /// The daemon ended in order; the next one starts it again.
    Daemon,
}

/// The three probes of a component (S2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeRole {
    /// Has it started? Gates the other two (S6).
    Startup,
    /// Is it still alive? Its failure restarts (S8).
    Liveness,
    /// May it be used? Its failure never restarts (S9).
    Readiness,
}

impl ProbeRole {
    /// All of them, in the order in which they matter.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// The key in the manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }
}

impl fmt::Display for ProbeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
