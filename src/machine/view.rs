//! How a component looks from outside: the six public states and what stands beside them (S11, S42).

use std::time::Duration;

use super::component::Component;
use super::phase::{
    Alive, Charge, EndStep, EndingFrom, ExitRecord, Health, LastError, Phase, Stability, Wish,
};
use super::probe::{ProbeRun, Verdict};
use crate::model::spec::Condition;
use crate::model::{Body, ProbeRole, State, StopReason, Time, Wanted};

/// A component at one moment.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// What the user wants.
    pub wanted: Wanted,
    /// The public state.
    pub state: State,
    /// What is going on inside the state, where there is more to say.
    pub reason: Option<String>,
    /// Whether it may be used.
    pub ready: bool,
    /// How far the present run has come: launched, started or stable (S54).
    pub stage: Option<&'static str>,
    /// What the run is made of.
    pub body: Option<&'a Body>,
    /// Why nobody can vouch for any of this.
    pub doubt: Option<&'a str>,
    /// When the present run was launched.
    pub launched_at: Option<Time>,
    /// Dependencies whose condition does not hold, while it waits for them.
    pub waiting_for: &'a [String],
    /// Restarts within the window.
    pub restarts_in_window: u32,
    /// Automatic restarts since it was applied.
    pub restarts_total: u64,
    /// The last automatic restart.
    pub last_restart: Option<(Time, &'a str)>,
    /// When the pending restart will be made.
    pub next_restart: Option<Time>,
    /// Whether the pending restart will be charged to the component.
    pub is_next_counted: bool,
    /// The latest mishap.
    pub last_error: Option<&'a LastError>,
    /// How often it failed.
    pub failures: u64,
    /// How long it has run, over all its runs.
    pub uptime_total: Duration,
}

impl Component {
    /// The public state.
    pub const fn state(&self) -> State {
        match &self.phase {
            Phase::Stopped { .. } => State::Stopped,
            Phase::Waiting | Phase::Launching { .. } => State::Starting,
            Phase::Alive(alive) => match alive.health {
                Health::Starting { .. } => State::Starting,
                Health::Running => State::Running,
                Health::Unhealthy { .. } => State::Unhealthy,
            },
            Phase::Ending(ending) => match ending.from {
                EndingFrom::Starting => State::Starting,
                EndingFrom::Running => State::Running,
                EndingFrom::Unhealthy => State::Unhealthy,
                EndingFrom::Restarting => State::Restarting,
            },
            Phase::Backoff { .. } => State::Restarting,
            Phase::Failed { .. } => State::Failed,
        }
    }

    /// The program, where there is one.
    fn alive(&self) -> Option<&Alive> {
        match &self.phase {
            Phase::Alive(alive) => Some(alive),
            Phase::Stopped { .. }
            | Phase::Waiting
            | Phase::Launching { .. }
            | Phase::Ending(_)
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => None,
        }
    }

    /// The program, if it has started and no probe has condemned it.
    fn sound(&self) -> Option<&Alive> {
        self.alive().filter(|alive| alive.health == Health::Running && !alive.is_over)
    }

    /// Whether it may be used: started, and passing its readiness probe where it has one.
    pub fn is_ready(&self) -> bool {
        self.doubt.is_none()
            && self.sound().is_some_and(|alive| passes(alive.probes.readiness.as_ref()))
    }

    /// Whether a dependent that asks for this condition may start.
    pub fn satisfies(&self, condition: Condition) -> bool {
        let completed = matches!(self.phase, Phase::Stopped { reason: StopReason::Completed });
        match condition {
            // What has run to its end with success has been started, too.
            Condition::Started => self.is_started() || completed,
            Condition::Healthy => {
                self.doubt.is_none()
                    && self.sound().is_some_and(|alive| passes(alive.probes.liveness.as_ref()))
            }
            Condition::Ready => self.is_ready(),
            Condition::Completed => completed,
        }
    }

    fn is_started(&self) -> bool {
        self.alive().is_some_and(|alive| match alive.health {
            Health::Running
            | Health::Unhealthy { probe: ProbeRole::Liveness | ProbeRole::Readiness } => true,
            Health::Starting { .. } | Health::Unhealthy { probe: ProbeRole::Startup } => false,
        })
    }

    /// Whether it is being ended, and something of it takes no SIGKILL.
    pub fn is_stuck(&self) -> bool {
        matches!(&self.phase, Phase::Ending(ending) if ending.step == EndStep::Stuck)
    }

    /// The main process of the present run, also if it has ended before what it left behind.
    pub fn main_pid(&self) -> Option<u32> {
        match &self.phase {
            Phase::Alive(alive) => alive.run.body.pid(),
            Phase::Ending(ending) => ending.run.body.pid(),
            Phase::Stopped { .. }
            | Phase::Waiting
            | Phase::Launching { .. }
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => None,
        }
    }

    /// A probe of the present run.
    pub fn probe(&self, role: ProbeRole) -> Option<&ProbeRun> {
        self.alive().and_then(|alive| alive.probes.get(role))
    }

    /// Restarts by its policy since it was applied.
    pub const fn restarts_total(&self) -> u64 {
        self.ledger.total()
    }

    /// How often it was tried in vain: restarts, and launches that wait for what others provide.
    pub fn attempts(&self) -> u64 {
        self.ledger.total() + u64::from(self.ledger.wants())
    }

    /// The last exits, newest first.
    pub fn exits(&self) -> impl Iterator<Item = &ExitRecord> {
        self.exits.iter().rev()
    }

    /// How it looks.
    pub fn view(&self, now: Time) -> View<'_> {
        let run = match &self.phase {
            Phase::Alive(alive) => Some(&alive.run),
            Phase::Ending(ending) => Some(&ending.run),
            Phase::Stopped { .. }
            | Phase::Waiting
            | Phase::Launching { .. }
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => None,
        };
        let ended = matches!(&self.phase, Phase::Ending(ending) if ending.exit.is_some());
        let run = run.filter(|_| !ended);
        let present = run.map_or(Duration::ZERO, |run| now.since(run.launched_at));
        View {
            wanted: self.wish.wanted(),
            state: self.state(),
            reason: self.reason(),
            ready: self.is_ready(),
            stage: self.stage(),
            body: run.map(|run| &run.body),
            doubt: self.doubt.as_deref(),
            launched_at: run.map(|run| run.launched_at),
            waiting_for: match &self.phase {
                Phase::Waiting => &self.gate,
                Phase::Stopped { .. }
                | Phase::Launching { .. }
                | Phase::Alive(_)
                | Phase::Ending(_)
                | Phase::Backoff { .. }
                | Phase::Failed { .. } => &[],
            },
            restarts_in_window: self.ledger.in_window(now, &self.spec.restart),
            restarts_total: self.ledger.total(),
            last_restart: self.ledger.last(),
            next_restart: match &self.phase {
                Phase::Backoff { until, .. } => Some(*until),
                Phase::Stopped { .. }
                | Phase::Waiting
                | Phase::Launching { .. }
                | Phase::Alive(_)
                | Phase::Ending(_)
                | Phase::Failed { .. } => None,
            },
            is_next_counted: matches!(&self.phase, Phase::Backoff { charge: Charge::Counted, .. }),
            last_error: self.alive().and(self.probe_error.as_ref()).or(self.last_error.as_ref()),
            failures: self.failures,
            uptime_total: self.uptime_total.saturating_add(present),
        }
    }

    fn reason(&self) -> Option<String> {
        if let Some(doubt) = &self.doubt {
            return Some(format!("unknown ({doubt})"));
        }
        match &self.phase {
            Phase::Stopped { reason: StopReason::Completed } => Some("completed".into()),
            Phase::Stopped { .. } => None,
            Phase::Waiting => Some(format!("waiting ({})", self.gate_names().join(", "))),
            Phase::Launching { note, .. } => {
                Some(note.clone().unwrap_or_else(|| "launching".into()))
            }
            Phase::Alive(alive) if alive.is_over => Some("it has ended".into()),
            Phase::Alive(alive) => match (&alive.health, self.wish) {
                (_, Wish::Stop | Wish::Pause) => Some("stopping after its dependents".into()),
                (Health::Starting { .. }, Wish::Run) => Some("probing".into()),
                (Health::Running | Health::Unhealthy { .. }, Wish::Run) => None,
            },
            Phase::Ending(ending) => Some(match ending.step {
                EndStep::Asked { .. } | EndStep::Killing => "stopping".into(),
                EndStep::Stuck => format!("cannot be killed ({})", ending.remnant()),
            }),
            Phase::Backoff { .. } => Some("backoff".into()),
            Phase::Failed { message } => Some(message.clone()),
        }
    }

    /// The names of the gate, without their conditions.
    fn gate_names(&self) -> Vec<&str> {
        self.gate.iter().map(|unmet| unmet.split(' ').next().unwrap_or_default()).collect()
    }

    fn stage(&self) -> Option<&'static str> {
        let alive = self.alive()?;
        if !self.is_started() {
            return Some("launched");
        }
        match alive.run.stability {
            Stability::Pending(_) => Some("started"),
            Stability::Stable => Some("stable"),
        }
    }
}

/// A probe that is not declared always passes.
fn passes(probe: Option<&ProbeRun>) -> bool {
    probe.is_none_or(|probe| probe.verdict == Verdict::Passing)
}
