//! What a component is doing. Each variant owns the data that only it needs, so that a timer or a
//! process id cannot outlive the phase that it belongs to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::probe::ProbeRun;
use crate::model::spec::ProbesSpec;
use crate::model::{Body, Exit, LaunchError, ProbeRole, RunId, StopReason, Time, Wanted};

/// What is asked of the component; separate from its phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// It should run.
    Run,
    /// A person does not want it to run.
    Stop,
    /// The daemon is ending in order; the next one starts it again.
    Pause,
}

impl Wish {
    /// The public word: a pause does not change what the user wants.
    pub const fn wanted(self) -> Wanted {
        match self {
            Self::Run | Self::Pause => Wanted::Running,
            Self::Stop => Wanted::Stopped,
        }
    }
}

/// What a component is doing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not running, and not about to.
    Stopped {
        /// Why.
        reason: StopReason,
    },
    /// Wanted, but the condition of a dependency does not hold.
    Waiting,
    /// The runner was asked to launch it and has not answered.
    Launching {
        /// The run that was asked for.
        run: RunId,
        /// By what means, whatever the spec says by now.
        means: Means,
        /// What to do once the answer is there.
        after: AfterLaunch,
        /// What is being made ready for it, in plain words: an image is fetched.
        #[serde(default)]
        note: Option<String>,
    },
    /// Its program runs (or, for an external component, it is being watched).
    Alive(Box<Alive>),
    /// It is being ended; over when nothing of it is left.
    Ending(Box<Ending>),
    /// It waits before its next restart.
    Backoff {
        /// When the restart is made.
        until: Time,
        /// Why it is restarted.
        reason: String,
        /// Whether the restart counts against the limit.
        charge: Charge,
    },
    /// Given up.
    Failed {
        /// Why.
        message: String,
    },
}

/// By what means a run is launched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Means {
    /// The keeper starts a process.
    Keeper,
    /// A container engine starts a container.
    Engine,
    /// Others have started it.
    Others,
}

/// What follows a launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterLaunch {
    /// Let it run.
    Keep,
    /// It was superseded while it was launched: end it, then do this.
    End(Then),
}

/// Whether a restart counts against `max_restarts`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Charge {
    /// The component's own doing.
    Counted,
    /// Something that others provide was not there.
    Free,
}

/// One run of a program.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Its identifier; a new one for each launch.
    pub id: RunId,
    /// What it is made of.
    pub body: Body,
    /// When its program was executed.
    pub launched_at: Time,
    /// Whether `min_uptime` was reached (S18).
    pub stability: Stability,
}

impl Run {
    /// Whether others started what runs: a spec may change its kind while the run is still the old one.
    pub const fn is_external(&self) -> bool {
        matches!(self.body, Body::External)
    }
}

/// Whether a run has lasted for `min_uptime`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stability {
    /// It becomes stable at this time.
    Pending(Time),
    /// It is.
    Stable,
}

/// A program that runs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Alive {
    /// The run.
    pub run: Run,
    /// How far it has come.
    pub health: Health,
    /// The probes, as far as they have run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub probes: ProbeSet,
    /// Whether the program has ended, and only how is not known yet. The next engine asks anew.
    #[serde(skip)]
    pub is_over: bool,
    /// Whether its limits have changed, and its engine has not said that it has taken them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub has_new_limits: bool,
}

/// How far a running program has come.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// The startup probe has not passed yet.
    Starting {
        /// The latest time at which it may (S3).
        deadline: Option<Time>,
    },
    /// Started.
    Running,
    /// A probe failed for good, and nothing may restart the component.
    Unhealthy {
        /// Which probe.
        probe: ProbeRole,
    },
}

/// The probes of one run. Made anew with each run, so that no count survives a restart (S14).
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ProbeSet {
    /// Present while the component is starting, and afterwards with its last result.
    #[serde(default, skip_serializing_if = "is_default")]
    pub startup: Option<ProbeRun>,
    /// Present once the component has started.
    #[serde(default, skip_serializing_if = "is_default")]
    pub liveness: Option<ProbeRun>,
    /// Present once the component has started.
    #[serde(default, skip_serializing_if = "is_default")]
    pub readiness: Option<ProbeRun>,
}

impl ProbeSet {
    /// The run of a probe.
    pub const fn get(&self, role: ProbeRole) -> Option<&ProbeRun> {
        match role {
            ProbeRole::Startup => self.startup.as_ref(),
            ProbeRole::Liveness => self.liveness.as_ref(),
            ProbeRole::Readiness => self.readiness.as_ref(),
        }
    }

    /// The run of a probe, to change.
    pub const fn get_mut(&mut self, role: ProbeRole) -> &mut Option<ProbeRun> {
        match role {
            ProbeRole::Startup => &mut self.startup,
            ProbeRole::Liveness => &mut self.liveness,
            ProbeRole::Readiness => &mut self.readiness,
        }
    }
}

/// The spec of a probe.
pub fn probe_spec(probes: &ProbesSpec, role: ProbeRole) -> Option<&crate::model::spec::ProbeSpec> {
    match role {
        ProbeRole::Startup => probes.startup.as_deref(),
        ProbeRole::Liveness => probes.liveness.as_deref(),
        ProbeRole::Readiness => probes.readiness.as_deref(),
    }
}

/// A run that is being ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Ending {
    /// The run.
    pub run: Run,
    /// What was done to end it.
    pub step: EndStep,
    /// When that was.
    pub asked_at: Time,
    /// What comes after.
    pub then: Then,
    /// Why, in plain words.
    pub reason: String,
    /// How the main process ended, once it has.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exit: Option<Exit>,
    /// When what SIGKILL was sent to should have ended by.
    #[serde(default, skip_serializing_if = "is_default")]
    pub overdue_at: Option<Time>,
    /// How the component stood when it was told to end; what the status goes on to show.
    pub from: EndingFrom,
    /// Whether the run has heard that it is to end: from then on its time counts. Of a container it is known
    /// when its engine says so.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub is_told: bool,
}

impl Ending {
    /// The end of a run, which begins now and has so much time. What has exited needs no telling.
    pub(super) fn begin(
        run: Run,
        then: Then,
        reason: String,
        from: EndingFrom,
        exit: Option<Exit>,
        (now, time): (Time, Duration),
    ) -> Self {
        let is_told = exit.is_some() || !matches!(run.body, Body::Container { .. });
        let step = EndStep::Asked { kill_at: now + time };
        Self { run, step, asked_at: now, then, reason, exit, overdue_at: None, from, is_told }
    }

    /// It has heard of it: its time begins, unless it has begun before.
    pub(super) fn hear(&mut self, now: Time, time: Duration) {
        if let EndStep::Asked { kill_at } = &mut self.step
            && !self.is_told
        {
            *kill_at = now + time;
        }
        self.is_told = true;
    }
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_yes(value: &bool) -> bool {
    *value
}

/// Whether a value is the usual one, which a state is written without.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What a component was before it was told to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndingFrom {
    /// Not started yet.
    Starting,
    /// Started.
    Running,
    /// Unhealthy.
    Unhealthy,
    /// It is to be started again: a person, a changed spec or its own end asked for it.
    Restarting,
}

impl Ending {
    /// What does not end of it, in plain words.
    pub fn remnant(&self) -> String {
        match (self.exit, self.run.body.pid()) {
            (None, Some(pid)) => format!("process {pid}"),
            (None, None) => "its main process".to_owned(),
            (Some(_), _) => "something that it has left behind".to_owned(),
        }
    }

    /// Start it again once it is gone.
    pub const fn replace(&mut self) {
        self.then = Then::Replace;
        self.from = EndingFrom::Restarting;
    }
}

/// The steps of ending a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndStep {
    /// The stop signal or command is at work until then.
    Asked {
        /// SIGKILL follows at this time.
        kill_at: Time,
    },
    /// SIGKILL was sent to everything that is left.
    Killing,
    /// The same, and long ago: something does not end of it, which has been told.
    Stuck,
}

/// What follows the end of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// It stays stopped.
    Stop,
    /// The policy decides, by the exit: the program ended by itself.
    Judge,
    /// A probe failed: restarted, and counted as a failure.
    Unhealthy,
    /// Started again without being counted: a person or a changed spec asked for it.
    Replace,
}

/// What is remembered of the latest mishap.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LastError {
    /// A stable word: exit, signal, oom, launch, startup, liveness, readiness, limit, unkillable.
    pub reason: String,
    /// In plain words.
    pub message: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
    /// When.
    pub at: Time,
}

impl LastError {
    /// What an exit leaves behind.
    pub fn from_exit(exit: Exit, at: Time) -> Self {
        let reason = match exit.status {
            _ if exit.oom => "oom",
            crate::model::ExitStatus::Signal(_) => "signal",
            crate::model::ExitStatus::Code(_) | crate::model::ExitStatus::Unknown => "exit",
        };
        Self { reason: reason.into(), message: exit.to_string(), hint: None, at }
    }

    /// What a failed launch leaves behind.
    pub fn from_launch(error: &LaunchError, at: Time) -> Self {
        let (message, hint) = (error.message.clone(), error.hint.clone());
        Self { reason: "launch".into(), message, hint, at }
    }
}

/// One of the last exits.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ExitRecord {
    /// How it ended.
    pub exit: Exit,
    /// When.
    pub at: Time,
    /// How long the run had lasted.
    pub uptime: Duration,
    /// What stigmer made of it.
    pub cause: String,
}
