//! One instance's state machine: inputs in, effects and events out.
//!
//! ```text
//!   exchange   what is said: Input, Answer ─▶ Component ─▶ Effect, EventKind
//!   wishes     start, stop, restart, changed specs       launching   gate ─▶ launch ─▶ alive
//!   probing    probes, deadlines, unhealthy              ending      asked ─▶ killed ─▶ gone
//!   judging    exit ─▶ completed, restart or failed
//! ```
//!
//! Every input has a method of its own that answers it in every phase; no match over phases or
//! inputs has a `_` arm. See the diagram in [`super`].

mod ending;
mod exchange;
mod judging;
mod launching;
mod probing;
mod wishes;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::phase::{
    AfterLaunch, Alive, EndStep, ExitRecord, Health, LastError, Means, Phase, Stability, Then,
    Wish, is_default, probe_spec,
};
use super::probe::{ProbeRun, Turn};
use super::restart::Ledger;
use crate::model::spec::ComponentSpec;
use crate::model::{Body, EventKind, ProbeRole, RunId, State, StopReason, Time};

pub use exchange::{Answer, Effect, Input, Step};

/// One instance. Serialised without its spec, which is stored beside it, and without what is as in a new
/// component: a state is written with everything that happens.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Component {
    #[serde(skip, default = "no_spec")]
    pub(super) spec: Arc<ComponentSpec>,
    pub(super) wish: Wish,
    pub(super) phase: Phase,
    /// Dependencies whose condition does not hold.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) gate: Vec<String>,
    pub(super) ledger: Ledger,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) last_error: Option<LastError>,
    /// The last failure of a probe of the present run, until that probe passes (S13). Apart from the
    /// mishap before it, which the first failure of a program that is still starting must not hide.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) probe_error: Option<LastError>,
    /// Why nobody can vouch for what the present run is doing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) doubt: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) exits: VecDeque<ExitRecord>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) failures: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) uptime_total: Duration,
    #[serde(default, skip_serializing_if = "is_default")]
    sequence: u64,
    /// The state that was told last, so that each change is told once, also those inside one step.
    shown: State,
    /// Whether the last thing told about readiness was "ready"; derived data, kept to tell changes.
    pub(super) readiness: Readiness,
}

/// Whether a component may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// It may.
    Ready,
    /// It may not.
    NotReady,
}

/// Restored components get their spec before they are used; see [`Component::restored`].
fn no_spec() -> Arc<ComponentSpec> {
    static NONE: std::sync::LazyLock<Arc<ComponentSpec>> =
        std::sync::LazyLock::new(|| Arc::new(ComponentSpec::external()));
    NONE.clone()
}

impl Component {
    /// A declared component that nobody has asked to run yet. `seed` feeds the jitter of its backoff.
    pub fn new(spec: Arc<ComponentSpec>, seed: u64) -> Self {
        Self {
            spec,
            wish: Wish::Stop,
            phase: Phase::Stopped { reason: StopReason::New },
            gate: Vec::new(),
            ledger: Ledger::new(seed),
            last_error: None,
            probe_error: None,
            doubt: None,
            exits: VecDeque::new(),
            failures: 0,
            uptime_total: Duration::ZERO,
            sequence: 0,
            shown: State::Stopped,
            readiness: Readiness::NotReady,
        }
    }

    /// A component from the store, with its spec, in the hands of a new engine. What the old engine
    /// was waiting for is asked for anew; a pause is over, and a doubt stays until somebody has looked.
    #[must_use]
    pub fn restored(mut self, spec: Arc<ComponentSpec>, now: Time) -> Self {
        self.spec = spec;
        if self.wish == Wish::Pause {
            self.wish = Wish::Run;
            // What was still ending is started again once it has ended.
            match &mut self.phase {
                Phase::Ending(ending) if ending.then == Then::Stop => ending.replace(),
                Phase::Launching { after: AfterLaunch::End(then), .. } if *then == Then::Stop => {
                    *then = Then::Replace;
                }
                Phase::Stopped { .. }
                | Phase::Waiting
                | Phase::Launching { .. }
                | Phase::Alive(_)
                | Phase::Ending(_)
                | Phase::Backoff { .. }
                | Phase::Failed { .. } => {}
            }
        }
        if let Phase::Alive(alive) = &mut self.phase {
            for role in ProbeRole::ALL {
                if let Some(probe) = alive.probes.get_mut(role)
                    && let Some(declared) = probe_spec(&self.spec.probes, role)
                {
                    probe.resume(now, declared.interval);
                }
            }
        }
        self
    }

    /// A component from an older state than that which was lost: this run of it is alive, and nobody
    /// knows more. Where it is not wanted, the run stays a stranger.
    #[must_use]
    pub fn found_alive(mut self, run: RunId) -> Self {
        match self.wish {
            Wish::Run => {
                let (means, after) = (Means::Keeper, AfterLaunch::Keep);
                self.phase = Phase::Launching { run, means, after, note: None };
            }
            Wish::Stop | Wish::Pause => {}
        }
        self
    }

    /// The spec in force.
    pub const fn spec(&self) -> &Arc<ComponentSpec> {
        &self.spec
    }

    /// What is asked of it.
    pub const fn wish(&self) -> Wish {
        self.wish
    }

    /// What it is doing.
    pub const fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The run that is launched, alive or ending.
    pub const fn run(&self) -> Option<RunId> {
        match &self.phase {
            Phase::Launching { run, .. } => Some(*run),
            Phase::Alive(alive) => Some(alive.run.id),
            Phase::Ending(ending) => Some(ending.run.id),
            Phase::Stopped { .. }
            | Phase::Waiting
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => None,
        }
    }

    /// By what means the present run was launched.
    pub const fn means(&self) -> Option<Means> {
        let run = match &self.phase {
            Phase::Launching { means, .. } => return Some(*means),
            Phase::Alive(alive) => &alive.run,
            Phase::Ending(ending) => &ending.run,
            Phase::Stopped { .. }
            | Phase::Waiting
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => return None,
        };
        Some(match run.body {
            Body::Process { .. } | Body::Unseen => Means::Keeper,
            Body::Container { .. } => Means::Engine,
            Body::External => Means::Others,
        })
    }

    /// Whether anything of it is, or may be, running.
    pub const fn is_live(&self) -> bool {
        self.run().is_some()
    }

    /// Whether its run is being ended.
    pub const fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending(_))
    }

    /// Whether its run is being ended, and it rests once that is done: nothing else follows.
    pub fn is_to_rest(&self) -> bool {
        self.wish != Wish::Run
            && matches!(&self.phase, Phase::Ending(ending) if ending.then == Then::Stop && ending.exit.is_none())
    }

    /// The next time at which it wants a tick.
    pub fn next_deadline(&self) -> Option<Time> {
        match &self.phase {
            Phase::Stopped { .. }
            | Phase::Waiting
            | Phase::Launching { .. }
            | Phase::Failed { .. } => None,
            Phase::Backoff { until, .. } => Some(*until),
            Phase::Ending(ending) => match ending.step {
                EndStep::Asked { .. } if !ending.is_told => None,
                EndStep::Asked { kill_at } => Some(kill_at),
                EndStep::Killing => ending.overdue_at,
                EndStep::Stuck => None,
            },
            // What comes next is the answer how it has ended.
            Phase::Alive(alive) if alive.is_over => None,
            Phase::Alive(alive) => {
                let stable = match alive.run.stability {
                    Stability::Pending(at) => Some(at),
                    Stability::Stable => None,
                };
                let deadline = match alive.health {
                    // While nobody can probe, nothing is late.
                    Health::Starting { deadline } => deadline.filter(|_| self.doubt.is_none()),
                    Health::Running | Health::Unhealthy { .. } => None,
                };
                let probes = ProbeRole::ALL
                    .into_iter()
                    .filter_map(|role| alive.probes.get(role).and_then(ProbeRun::deadline));
                stable.into_iter().chain(deadline).chain(probes).min()
            }
        }
    }

    /// Takes an input. `runs` hands out the identifier of a launch, where one is needed.
    pub fn step(&mut self, now: Time, input: Input, runs: &mut dyn FnMut() -> RunId) -> Step {
        let mut turn = Turning { now, runs, step: Step::default() };
        // Another engine may have made something else of it than was told last.
        self.show(&mut turn);
        match input {
            Input::Tick => self.tick(&mut turn),
            Input::Start => self.start(&mut turn),
            Input::Stop => self.stop(&mut turn),
            Input::Retire(wish) => self.retire(wish, &mut turn),
            Input::Restart => self.restart(&mut turn),
            Input::Reset => self.reset(&mut turn),
            Input::Gate(unmet) => self.gate(unmet, &mut turn),
            Input::Update(spec) => self.update(spec, &mut turn),
            Input::Replace(spec) => self.replace(spec, &mut turn),
            Input::Provided => self.provided(&mut turn),
            Input::Answer(run, answer) => self.answer(run, answer, &mut turn),
        }
        self.show(&mut turn);
        self.tell_readiness(&mut turn);
        turn.step
    }

    fn tick(&mut self, turn: &mut Turning<'_>) {
        match &self.phase {
            Phase::Stopped { .. }
            | Phase::Waiting
            | Phase::Launching { .. }
            | Phase::Failed { .. } => {}
            Phase::Backoff { until, .. } => {
                if *until <= turn.now {
                    self.end_backoff(turn);
                }
            }
            Phase::Ending(_) => self.escalate(turn),
            Phase::Alive(alive) if alive.is_over => {}
            Phase::Alive(_) => {
                self.settle(turn);
                self.expire_startup(turn);
                self.begin_probes(turn);
            }
        }
    }

    /// Enters a phase. Every change of phase goes through here, so that no state is passed in silence.
    fn enter(&mut self, phase: Phase, turn: &mut Turning<'_>) {
        match &phase {
            // Of what does not run nothing is doubtful.
            Phase::Stopped { .. }
            | Phase::Waiting
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => self.doubt = None,
            Phase::Launching { .. } | Phase::Alive(_) | Phase::Ending(_) => {}
        }
        self.phase = phase;
        self.show(turn);
    }

    /// Tells a change of the public state.
    fn show(&mut self, turn: &mut Turning<'_>) {
        let (from, to) = (self.shown, self.state());
        if from != to {
            self.shown = to;
            turn.tell(EventKind::StateChanged { from, to });
        }
    }

    fn tell_readiness(&mut self, turn: &mut Turning<'_>) {
        let now = if self.is_ready() { Readiness::Ready } else { Readiness::NotReady };
        if now == self.readiness {
            return;
        }
        self.readiness = now;
        match (now, &self.phase) {
            (Readiness::Ready, _) => turn.tell(EventKind::Ready),
            // How it ended is told in a moment.
            (Readiness::NotReady, Phase::Alive(alive)) if alive.is_over => {}
            (Readiness::NotReady, Phase::Alive(alive)) => {
                let message = alive
                    .probes
                    .readiness
                    .as_ref()
                    .zip(self.spec.probes.readiness.as_ref())
                    .and_then(|(probe, spec)| probe.failure_message(spec))
                    .or_else(|| self.doubt.clone())
                    .unwrap_or_else(|| match alive.health {
                        Health::Unhealthy { .. } => State::Unhealthy.as_str().to_owned(),
                        Health::Starting { .. } | Health::Running => {
                            "its readiness probe has not passed yet".to_owned()
                        }
                    });
                turn.tell(EventKind::NotReady { message });
            }
            // That a component which ends is no longer ready needs no telling.
            (
                Readiness::NotReady,
                Phase::Stopped { .. }
                | Phase::Waiting
                | Phase::Launching { .. }
                | Phase::Ending(_)
                | Phase::Backoff { .. }
                | Phase::Failed { .. },
            ) => {}
        }
    }

    fn answer(&mut self, run: RunId, answer: Answer, turn: &mut Turning<'_>) {
        if self.run() != Some(run) {
            return;
        }
        match answer {
            Answer::Launched { body, at } => self.launched(body, at, turn),
            Answer::Preparing { message, event } => self.preparing(message, event, turn),
            Answer::LaunchFailed(error) => self.launch_failed(&error, turn),
            Answer::Exited { exit, at, empty } => self.exited(exit, at, empty, turn),
            Answer::Told => self.told(turn),
            Answer::Reconfigured => self.reconfigured(),
            Answer::Over => self.over(),
            Answer::Gone => self.gone(turn),
            Answer::Lost => self.lost(turn),
            Answer::Doubt(doubt) => self.doubted(doubt, turn),
            Answer::Unchanged { message } => self.unchanged(&message, turn),
            Answer::Probed { role, sequence, outcome } => {
                self.probed(role, sequence, outcome, turn);
            }
            Answer::Unprobed { role, sequence } => self.unprobed(role, sequence, turn),
        }
    }

    /// The engine of a container has gone, or is back. While it is gone, what is shown is what was known
    /// last, and nobody may rely on it.
    fn doubted(&mut self, doubt: Option<String>, turn: &mut Turning<'_>) {
        match &self.phase {
            Phase::Alive(_) | Phase::Ending(_) | Phase::Launching { .. } => {}
            Phase::Stopped { .. }
            | Phase::Waiting
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => return,
        }
        match (&self.doubt, &doubt) {
            (None, Some(message)) => turn.tell(EventKind::Doubtful { message: message.clone() }),
            (Some(_), None) => {
                turn.tell(EventKind::Vouched);
                self.renew_deadline(turn);
                self.make_up_probes(turn);
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
        self.doubt = doubt;
    }
}

/// The input that is being answered: the time, the source of run identifiers, and what came of it.
struct Turning<'a> {
    now: Time,
    runs: &'a mut dyn FnMut() -> RunId,
    step: Step,
}

impl Turning<'_> {
    fn tell(&mut self, event: EventKind) {
        self.step.events.push(event);
    }

    fn ask(&mut self, effect: Effect) {
        self.step.effects.push(effect);
    }

    /// Ends the turn of a probe, if it is being performed.
    fn cancel(&mut self, alive: &Alive, role: ProbeRole) {
        if let Some(ProbeRun { turn: Turn::Running { .. }, .. }) = alive.probes.get(role) {
            self.ask(Effect::CancelProbe { run: alive.run.id, role });
        }
    }
}
