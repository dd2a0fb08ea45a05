//! What happened: the history that `stigmer events`, `why` and the log of the daemon tell.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Body, Exit, InstanceId, LaunchError, ProbeRole, State, StopReason, Time};

/// How loudly an event is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The usual course of things.
    Info,
    /// Something went wrong and is being dealt with.
    Warning,
    /// A person is needed.
    Error,
}

/// One thing that happened to one instance.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Whom it happened to.
    pub instance: InstanceId,
    /// What it was.
    pub kind: EventKind,
}

/// The closed list of what can happen to a component.
///
/// Launched, started and stable are three different things (S54): the program was executed; its
/// startup probe passed; it has run for `min_uptime`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are what the variant's sentence speaks of")]
pub enum EventKind {
    /// It waits for these dependencies, each with the condition that does not hold yet.
    Waiting { for_: Vec<String> },
    /// What its launch needs is being made ready: an image is fetched or built.
    Preparing { message: String },
    /// Its program was executed, at this time: before the first line that it wrote.
    Launched { body: Body, at: Time },
    /// It could not be launched.
    LaunchFailed { error: LaunchError },
    /// Its startup probe passed, or it has none.
    Started,
    /// Its readiness probe passed, or it has none.
    Ready,
    /// It is no longer ready, and why.
    NotReady { message: String },
    /// It has run for `min_uptime`; the backoff begins anew (S18).
    Stable,
    /// A probe reached its failure threshold.
    Unhealthy { probe: ProbeRole, message: String },
    /// It passes its liveness probe again.
    Recovered,
    /// Its main process ended.
    Exited { exit: Exit },
    /// It is being ended; `reason` says on whose behalf.
    Stopping { reason: String },
    /// It did not end within its grace period and was killed.
    Killed { after: Duration },
    /// Something of it is still there long after SIGKILL, and what.
    Unkillable { message: String },
    /// A restart was decided (S27).
    Restarting { attempt: u32, limit: Option<u32>, delay: Duration, reason: String },
    /// It is stopped.
    Stopped { reason: StopReason },
    /// It was given up (S21).
    Failed { message: String, hint: String },
    /// Its spec was changed without a restart.
    Updated,
    /// Nobody can vouch for what it is doing: the container engine does not answer.
    Doubtful { message: String },
    /// It is known again what it is doing.
    Vouched,
    /// It was taken out of the manifest and is gone.
    Removed,
    /// Its public state changed.
    StateChanged { from: State, to: State },
}

impl EventKind {
    /// The stable name of the kind, as in the JSON output.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Preparing { .. } => "preparing",
            Self::Launched { .. } => "launched",
            Self::LaunchFailed { .. } => "launch_failed",
            Self::Started => "started",
            Self::Ready => "ready",
            Self::NotReady { .. } => "not_ready",
            Self::Stable => "stable",
            Self::Unhealthy { .. } => "unhealthy",
            Self::Recovered => "recovered",
            Self::Exited { .. } => "exited",
            Self::Stopping { .. } => "stopping",
            Self::Killed { .. } => "killed",
            Self::Unkillable { .. } => "unkillable",
            Self::Restarting { .. } => "restarting",
            Self::Stopped { .. } => "stopped",
            Self::Failed { .. } => "failed",
            Self::Updated => "updated",
            Self::Doubtful { .. } => "doubtful",
            Self::Vouched => "vouched",
            Self::Removed => "removed",
            Self::StateChanged { .. } => "state_changed",
        }
    }

    /// How loudly to tell it.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::Failed { .. } | Self::Unkillable { .. } => Severity::Error,
            Self::LaunchFailed { .. }
            | Self::NotReady { .. }
            | Self::Unhealthy { .. }
            | Self::Doubtful { .. }
            | Self::Killed { .. }
            | Self::Restarting { .. } => Severity::Warning,
            Self::Waiting { .. }
            | Self::Preparing { .. }
            | Self::Launched { .. }
            | Self::Started
            | Self::Ready
            | Self::Stable
            | Self::Recovered
            | Self::Exited { .. }
            | Self::Stopping { .. }
            | Self::Stopped { .. }
            | Self::Updated
            | Self::Vouched
            | Self::Removed
            | Self::StateChanged { .. } => Severity::Info,
        }
    }
}

impl fmt::Display for EventKind {
    /// The sentence without the component's name: `exited: SIGKILL`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting { for_ } => write!(f, "waiting for {}", for_.join(", ")),
            Self::Preparing { message } => f.write_str(message),
            Self::Launched { body, .. } => write!(f, "launched as {body}"),
            Self::LaunchFailed { error } => {
                write!(f, "could not be launched: {error}")?;
                error.hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
            }
            Self::Started => f.write_str("started"),
            Self::Ready => f.write_str("ready"),
            Self::NotReady { message } => write!(f, "not ready: {message}"),
            Self::Stable => f.write_str("stable"),
            Self::Unhealthy { probe, message } => write!(f, "unhealthy: {probe}: {message}"),
            Self::Recovered => f.write_str("healthy again"),
            Self::Exited { exit } => write!(f, "exited: {exit}"),
            Self::Stopping { reason } => write!(f, "stopping: {reason}"),
            Self::Killed { after } => {
                write!(f, "did not stop within {}, killed", human_duration(*after))
            }
            Self::Unkillable { message } => {
                write!(f, "{message}; nothing is started in its place")
            }
            Self::Restarting { attempt, limit, delay, reason } => {
                let limit = limit.map_or_else(String::new, |limit| format!("/{limit}"));
                let delay = human_duration(*delay);
                write!(f, "restarting (attempt {attempt}{limit}) in {delay}: {reason}")
            }
            Self::Stopped { reason: StopReason::Completed } => f.write_str("completed"),
            Self::Stopped { .. } => f.write_str("stopped"),
            Self::Failed { message, hint } => write!(f, "failed: {message}; {hint}"),
            Self::Updated => f.write_str("updated in place"),
            Self::Doubtful { message } => write!(f, "its state is unknown: {message}"),
            Self::Vouched => f.write_str("its state is known again"),
            Self::Removed => f.write_str("removed"),
            Self::StateChanged { from, to } => write!(f, "{from} -> {to}"),
        }
    }
}

/// `0s`, `250ms`, `1.5s`, `45s`, `3m 5s`, `2h 15m`, `1d 3h`: two units at most (S44).
#[must_use]
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let millis = duration.subsec_millis();
    match seconds {
        0 if millis > 0 => format!("{millis}ms"),
        0..10 if millis > 0 => format!("{:.1}s", duration.as_secs_f64()),
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}
