//! One instance's state machine: inputs in, effects and events out.
//!
//! Every input has a method of its own that answers it in every phase; no match over phases or
//! inputs has a `_` arm. See the diagram in [`super`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::phase::{
    AfterLaunch, Alive, Charge, EndStep, Ending, EndingFrom, ExitRecord, Health, LastError, Means,
    Phase, ProbeSet, Run, Stability, Then, Wish, probe_spec,
};
use super::probe::{ProbeRun, Turn, Verdict};
use super::restart::Ledger;
use crate::model::container::ResourceSpec;
use crate::model::spec::{
    ComponentSpec, ExitMatch, ProbeSpec, RestartPolicy, RestartSpec, Workload,
};
use crate::model::{
    Body, EventKind, Exit, ExitStatus, LaunchError, ProbeRole, Retry, RunId, State, StopReason,
    Time,
};

/// How many exits the detail of a component shows.
const EXITS_KEPT: usize = 10;

/// The wait before a launch is tried again that failed for want of something of the machine's.
const TRANSIENT_DELAY: Duration = Duration::from_secs(1);

/// How long SIGKILL may take. The kernel needs milliseconds, and seconds for much memory.
const KILL_TAKES: Duration = Duration::from_secs(5);

/// What a component may be told.
#[derive(Clone, PartialEq, Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A person wants it to run; clears the counters of a failed one.
    Start,
    /// A person, or the end of the daemon, wants it to end, and it may begin to now.
    Stop,
    /// It will be told to stop once its dependents are gone; until then it is not restarted.
    Retire(Wish),
    /// End it and start it again, with the counters cleared.
    Restart,
    /// Clears the counters; a failed component starts.
    Reset,
    /// The dependencies whose condition does not hold, in words; empty opens the gate.
    Gate(Vec<String>),
    /// A spec that differs only in what a running program cannot see.
    Update(Arc<ComponentSpec>),
    /// A spec that needs another run to take effect.
    Replace(Arc<ComponentSpec>),
    /// What others provide, and was wanting, is back: a launch that waits for it is tried at once.
    Provided,
    /// An answer of the runner about a run.
    Answer(RunId, Answer),
}

/// What the runner reports about a run.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// The program was executed.
    Launched {
        /// What it is made of.
        body: Body,
        /// When.
        at: Time,
    },
    /// What the launch needs is being made ready.
    Preparing {
        /// What, in plain words.
        message: String,
        /// Whether it is worth an event, rather than just to be shown.
        event: bool,
    },
    /// It could not be executed.
    LaunchFailed(LaunchError),
    /// The main process ended; `empty` if nothing else of the run is left.
    Exited {
        /// How.
        exit: Exit,
        /// When.
        at: Time,
        /// Whether all of it is gone.
        empty: bool,
    },
    /// Nothing of the run is left.
    Gone,
    /// Nobody can vouch for what the run is doing, and why; `None` ends the doubt.
    Doubt(Option<String>),
    /// A changed spec could not be told to what runs: it needs another run after all.
    Unchanged {
        /// Why.
        message: String,
    },
    /// The runner knows nothing of the run (after a new engine has taken over).
    Lost,
    /// A probe has a result.
    Probed {
        /// Which.
        role: ProbeRole,
        /// The turn that it answers.
        sequence: u64,
        /// The failure in plain words.
        outcome: Result<(), String>,
    },
    /// A probe could not be performed, which says nothing of the component.
    Unprobed {
        /// Which.
        role: ProbeRole,
        /// The turn that it answers.
        sequence: u64,
    },
}

/// What a component wants done.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Launch the spec as this run; answer with `Launched` or `LaunchFailed`, later `Exited`.
    Launch {
        /// The run.
        run: RunId,
        /// What to launch.
        spec: Arc<ComponentSpec>,
    },
    /// The launch is not wanted any more: if the program was not asked for yet, because a secret is
    /// waited for, answer with `LaunchFailed`; else the launch is answered as ever.
    Withdraw {
        /// The run.
        run: RunId,
    },
    /// Tell what runs that its limits have changed; answer with `Unchanged` if that is impossible.
    Reconfigure {
        /// The run.
        run: RunId,
        /// Its new spec.
        spec: Arc<ComponentSpec>,
    },
    /// Begin the end of a run: the stop command, or the stop signal to the main process.
    Terminate {
        /// The run.
        run: RunId,
        /// Its stop section counts.
        spec: Arc<ComponentSpec>,
    },
    /// The stop signal to whatever the main process has left behind.
    TerminateRest {
        /// The run.
        run: RunId,
        /// The signal.
        signal: i32,
    },
    /// SIGKILL to everything of the run, until nothing is left; answer with `Gone`.
    Kill {
        /// The run.
        run: RunId,
    },
    /// Nothing of the run matters any more: its probes end, its record goes.
    Forget {
        /// The run.
        run: RunId,
    },
    /// The probe that is being performed is not wanted any more.
    CancelProbe {
        /// The run.
        run: RunId,
        /// Which probe.
        role: ProbeRole,
    },
    /// Perform a probe once, within its timeout; answer with `Probed`.
    Probe {
        /// The run.
        run: RunId,
        /// What the run is made of.
        body: Body,
        /// When it was launched.
        launched_at: Time,
        /// Which probe.
        role: ProbeRole,
        /// To be repeated in the answer.
        sequence: u64,
        /// Its check and timeout.
        spec: Arc<ComponentSpec>,
    },
}

/// What came of an input.
#[must_use = "effects that are not performed leave the component waiting for ever"]
#[derive(Default, Debug)]
pub struct Step {
    /// To be performed, in order.
    pub effects: Vec<Effect>,
    /// To be told, in order.
    pub events: Vec<EventKind>,
}

/// One instance. Serialised without its spec, which is stored beside it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Component {
    #[serde(skip, default = "no_spec")]
    pub(super) spec: Arc<ComponentSpec>,
    pub(super) wish: Wish,
    pub(super) phase: Phase,
    /// Dependencies whose condition does not hold.
    pub(super) gate: Vec<String>,
    pub(super) ledger: Ledger,
    pub(super) last_error: Option<LastError>,
    /// The last failure of a probe of the present run, until that probe passes (S13). Apart from the
    /// mishap before it, which the first failure of a program that is still starting must not hide.
    #[serde(default)]
    pub(super) probe_error: Option<LastError>,
    /// Why nobody can vouch for what the present run is doing.
    #[serde(default)]
    pub(super) doubt: Option<String>,
    pub(super) exits: VecDeque<ExitRecord>,
    pub(super) failures: u64,
    pub(super) uptime_total: Duration,
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
    /// was waiting for is asked for anew; a pause is over.
    #[must_use]
    pub fn restored(mut self, spec: Arc<ComponentSpec>, now: Time) -> Self {
        self.spec = spec;
        // Whoever knows of a doubt says so again.
        self.doubt = None;
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

    /// The next time at which it wants a tick.
    pub fn next_deadline(&self) -> Option<Time> {
        match &self.phase {
            Phase::Stopped { .. }
            | Phase::Waiting
            | Phase::Launching { .. }
            | Phase::Failed { .. } => None,
            Phase::Backoff { until, .. } => Some(*until),
            Phase::Ending(ending) => match ending.step {
                EndStep::Asked { kill_at } => Some(kill_at),
                EndStep::Killing => ending.overdue_at,
                EndStep::Stuck => None,
            },
            Phase::Alive(alive) => {
                let stable = match alive.run.stability {
                    Stability::Pending(at) => Some(at),
                    Stability::Stable => None,
                };
                let deadline = match alive.health {
                    Health::Starting { deadline } => deadline,
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

    // ---- time ----------------------------------------------------------------------------------

    fn tick(&mut self, turn: &mut Turning<'_>) {
        match &mut self.phase {
            Phase::Stopped { .. }
            | Phase::Waiting
            | Phase::Launching { .. }
            | Phase::Failed { .. } => {}
            Phase::Backoff { until, .. } => {
                if *until <= turn.now {
                    self.end_backoff(turn);
                }
            }
            Phase::Ending(ending) => match ending.step {
                EndStep::Asked { kill_at } if kill_at <= turn.now => {
                    ending.step = EndStep::Killing;
                    // How a container ends is its engine's business, of which there may be doubt.
                    ending.overdue_at = match ending.run.body {
                        Body::Process { .. } | Body::Unseen => Some(turn.now + KILL_TAKES),
                        Body::Container { .. } | Body::External => None,
                    };
                    let run = ending.run.id;
                    turn.tell(EventKind::Killed { after: kill_at.since(ending.asked_at) });
                    turn.ask(Effect::Kill { run });
                }
                EndStep::Killing if ending.overdue_at.is_some_and(|at| at <= turn.now) => {
                    self.stick(turn);
                }
                EndStep::Asked { .. } | EndStep::Killing | EndStep::Stuck => {}
            },
            Phase::Alive(_) => {
                self.settle(turn);
                self.expire_startup(turn);
                self.begin_probes(turn);
            }
        }
    }

    /// What no signal ends waits inside of the kernel. It is shown and goes on being waited for: while it
    /// is there, nothing is started in its place.
    fn stick(&mut self, turn: &mut Turning<'_>) {
        let Phase::Ending(ending) = &mut self.phase else { return };
        ending.step = EndStep::Stuck;
        ending.overdue_at = None;
        let limit = crate::model::event::human_duration(KILL_TAKES);
        let message = format!(
            "{} cannot be killed: it is still there {limit} after SIGKILL",
            ending.remnant()
        );
        let hint = "it waits inside of the kernel, often for a disk or a file server that does not \
                    answer, and ends once that is back; `stigmer status NAME` shows its processes";
        self.last_error = Some(LastError {
            reason: "unkillable".into(),
            message: message.clone(),
            hint: Some(hint.into()),
            at: turn.now,
        });
        turn.tell(EventKind::Unkillable { message });
        // Once more, in case the order was lost on its way.
        turn.ask(Effect::Kill { run: ending.run.id });
    }

    /// Notices that `min_uptime` was reached.
    fn settle(&mut self, turn: &mut Turning<'_>) {
        if let Phase::Alive(alive) = &mut self.phase
            && let Stability::Pending(at) = alive.run.stability
            && at <= turn.now
        {
            alive.run.stability = Stability::Stable;
            self.ledger.stable();
            turn.tell(EventKind::Stable);
        }
    }

    /// The startup deadline (S3) counts as the startup probe's last failure.
    fn expire_startup(&mut self, turn: &mut Turning<'_>) {
        if let Phase::Alive(alive) = &self.phase
            && let Health::Starting { deadline: Some(deadline) } = alive.health
            && deadline <= turn.now
        {
            let limit = crate::model::event::human_duration(deadline.since(alive.run.launched_at));
            self.sicken(ProbeRole::Startup, &format!("not started within {limit}"), turn);
        }
    }

    fn begin_probes(&mut self, turn: &mut Turning<'_>) {
        let Phase::Alive(alive) = &mut self.phase else { return };
        for role in ProbeRole::ALL {
            let Some(probe) = alive.probes.get_mut(role) else { continue };
            let sequence = self.sequence + 1;
            if probe.begin(turn.now, sequence) {
                self.sequence = sequence;
                turn.ask(Effect::Probe {
                    run: alive.run.id,
                    body: alive.run.body.clone(),
                    launched_at: alive.run.launched_at,
                    role,
                    sequence,
                    spec: self.spec.clone(),
                });
            }
        }
    }

    // ---- wishes --------------------------------------------------------------------------------

    fn start(&mut self, turn: &mut Turning<'_>) {
        self.wish = Wish::Run;
        match &mut self.phase {
            // Somebody who types `start` during a backoff does not want to wait for its end.
            Phase::Stopped { .. } | Phase::Failed { .. } | Phase::Backoff { .. } => {
                self.ledger.clear();
                self.begin(turn);
            }
            Phase::Launching { after, .. } => match after {
                AfterLaunch::Keep => {}
                AfterLaunch::End(then) => *then = Then::Replace,
            },
            Phase::Ending(ending) => match ending.then {
                Then::Stop => ending.replace(),
                Then::Judge | Then::Unhealthy | Then::Replace => {}
            },
            Phase::Waiting | Phase::Alive(_) => {}
        }
    }

    fn retire(&mut self, wish: Wish, turn: &mut Turning<'_>) {
        // What a person has stopped stays so when the daemon ends.
        let is_stopped = wish == Wish::Pause && self.wish == Wish::Stop;
        if !is_stopped {
            self.wish = wish;
        }
        match &mut self.phase {
            Phase::Stopped { .. } | Phase::Alive(_) => {}
            Phase::Waiting | Phase::Backoff { .. } => self.rest(turn),
            // A pause leaves a failed component failed: the next daemon must not revive it (S22).
            Phase::Failed { .. } => match wish {
                Wish::Stop => self.rest(turn),
                Wish::Run | Wish::Pause => {}
            },
            Phase::Launching { run, after, .. } => {
                *after = AfterLaunch::End(Then::Stop);
                turn.ask(Effect::Withdraw { run: *run });
            }
            Phase::Ending(ending) => ending.then = Then::Stop,
        }
    }

    fn stop(&mut self, turn: &mut Turning<'_>) {
        let wish = match self.wish {
            Wish::Run | Wish::Stop => Wish::Stop,
            Wish::Pause => Wish::Pause,
        };
        self.retire(wish, turn);
        if let Phase::Alive(_) = self.phase {
            let reason = match wish {
                Wish::Pause => "the daemon is ending",
                Wish::Run | Wish::Stop => "asked to stop",
            };
            self.end(Then::Stop, reason.into(), turn);
        }
    }

    fn restart(&mut self, turn: &mut Turning<'_>) {
        self.wish = Wish::Run;
        self.ledger.clear();
        self.relaunch("asked to restart", turn);
    }

    fn reset(&mut self, turn: &mut Turning<'_>) {
        self.ledger.clear();
        match &self.phase {
            Phase::Failed { .. } => {
                self.wish = Wish::Run;
                self.begin(turn);
            }
            Phase::Backoff { .. } => self.begin(turn),
            Phase::Stopped { .. }
            | Phase::Waiting
            | Phase::Launching { .. }
            | Phase::Alive(_)
            | Phase::Ending(_) => {}
        }
    }

    fn gate(&mut self, unmet: Vec<String>, turn: &mut Turning<'_>) {
        let opened = unmet.is_empty();
        let changed = self.gate != unmet;
        self.gate = unmet;
        match &self.phase {
            Phase::Waiting => {
                if opened {
                    self.launch(turn);
                } else if changed {
                    turn.tell(EventKind::Waiting { for_: self.gate.clone() });
                }
            }
            Phase::Stopped { .. }
            | Phase::Launching { .. }
            | Phase::Alive(_)
            | Phase::Ending(_)
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => {}
        }
    }

    fn update(&mut self, spec: Arc<ComponentSpec>, turn: &mut Turning<'_>) {
        let old = std::mem::replace(&mut self.spec, spec);
        turn.tell(EventKind::Updated);
        match &mut self.phase {
            // A changed spec is the new chance that S22 speaks of.
            Phase::Failed { .. } => {
                self.ledger.clear();
                match self.wish {
                    Wish::Run => self.begin(turn),
                    Wish::Stop | Wish::Pause => {}
                }
            }
            Phase::Backoff { .. } => {
                self.ledger.clear();
                self.begin(turn);
            }
            Phase::Alive(alive) => {
                if resources_of(&old) != resources_of(&self.spec) {
                    let (run, spec) = (alive.run.id, self.spec.clone());
                    turn.ask(Effect::Reconfigure { run, spec });
                }
                self.retime(&old, turn);
                self.settle(turn);
                self.begin_probes(turn);
            }
            // What is being launched has the old limits, or the new ones, depending on how far it is.
            Phase::Launching { .. } => {
                let is_changed = resources_of(&old) != resources_of(&self.spec);
                match self.wish {
                    Wish::Run if is_changed => {
                        self.relaunch("its declaration has changed", turn);
                    }
                    Wish::Run | Wish::Stop | Wish::Pause => {}
                }
            }
            Phase::Waiting => self.begin(turn),
            Phase::Stopped { .. } | Phase::Ending(_) => {}
        }
    }

    /// Brings the timers of a running component in line with a spec that was changed in place. A
    /// probe that is not changed goes on with its counts; a changed one begins anew.
    fn retime(&mut self, old: &ComponentSpec, turn: &mut Turning<'_>) {
        let Phase::Alive(alive) = &mut self.phase else { return };
        let launched_at = alive.run.launched_at;
        if let Stability::Pending(at) = &mut alive.run.stability {
            *at = launched_at + self.spec.restart.min_uptime;
        }
        let changed = |role| probe_spec(&old.probes, role) != probe_spec(&self.spec.probes, role);
        match &mut alive.health {
            Health::Starting { deadline } => {
                *deadline = self.spec.probes.startup_deadline.map(|limit| launched_at + limit);
                return self.renew_startup(old, turn);
            }
            Health::Unhealthy { probe: ProbeRole::Startup } => {
                return self.renew_startup(old, turn);
            }
            Health::Running | Health::Unhealthy { .. } => {}
        }
        for role in [ProbeRole::Liveness, ProbeRole::Readiness] {
            if changed(role) {
                turn.cancel(alive, role);
                *alive.probes.get_mut(role) = probe_spec(&self.spec.probes, role)
                    .map(|spec| ProbeRun::new(turn.now + spec.initial_delay));
                if let Health::Unhealthy { probe } = alive.health
                    && probe == role
                {
                    alive.health = Health::Running;
                }
            }
        }
    }

    /// The startup probe of a component that has not passed it, if its declaration has changed.
    fn renew_startup(&mut self, old: &ComponentSpec, turn: &mut Turning<'_>) {
        let Phase::Alive(alive) = &mut self.phase else { return };
        if old.probes.startup == self.spec.probes.startup {
            return;
        }
        turn.cancel(alive, ProbeRole::Startup);
        if self.spec.probes.startup.is_some() {
            alive.probes.startup = Some(ProbeRun::new(turn.now));
        } else {
            alive.probes.startup = None;
            self.started(turn);
        }
    }

    fn replace(&mut self, spec: Arc<ComponentSpec>, turn: &mut Turning<'_>) {
        self.spec = spec;
        self.ledger.clear();
        match self.wish {
            Wish::Run => self.relaunch("its declaration has changed", turn),
            // One that waits for its turn to stop ends now: if it were wanted again before its turn
            // came, the old program would live on under the new spec.
            Wish::Stop | Wish::Pause => {
                self.end(Then::Stop, "its declaration has changed".into(), turn);
            }
        }
    }

    /// Whatever it does, it shall run anew, uncounted.
    fn relaunch(&mut self, reason: &str, turn: &mut Turning<'_>) {
        match &mut self.phase {
            Phase::Stopped { .. }
            | Phase::Waiting
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => self.begin(turn),
            Phase::Launching { run, after, .. } => {
                *after = AfterLaunch::End(Then::Replace);
                turn.ask(Effect::Withdraw { run: *run });
            }
            Phase::Ending(ending) => ending.replace(),
            Phase::Alive(_) => self.end(Then::Replace, reason.into(), turn),
        }
    }

    // ---- answers -------------------------------------------------------------------------------

    fn answer(&mut self, run: RunId, answer: Answer, turn: &mut Turning<'_>) {
        if self.run() != Some(run) {
            return;
        }
        match answer {
            Answer::Launched { body, at } => self.launched(body, at, turn),
            Answer::Preparing { message, event } => self.preparing(message, event, turn),
            Answer::LaunchFailed(error) => self.launch_failed(&error, turn),
            Answer::Exited { exit, at, empty } => self.exited(exit, at, empty, turn),
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

    fn launched(&mut self, body: Body, at: Time, turn: &mut Turning<'_>) {
        match self.phase {
            Phase::Launching { run, after, .. } => {
                self.ledger.provided();
                turn.tell(EventKind::Launched { body: body.clone(), at });
                self.live(run, body, at, turn);
                match after {
                    AfterLaunch::Keep => {}
                    AfterLaunch::End(then) => {
                        self.end(then, "superseded while it was launched".into(), turn);
                    }
                }
            }
            // A new engine hears of a run that it already knows of.
            Phase::Ending(_) => self.kill_again(turn),
            Phase::Alive(_)
            | Phase::Stopped { .. }
            | Phase::Waiting
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => {}
        }
    }

    /// The order to kill is written down before it is given: an engine or a keeper that was killed
    /// between the two has taken it along. Killing twice does no harm.
    fn kill_again(&self, turn: &mut Turning<'_>) {
        if let Phase::Ending(ending) = &self.phase
            && matches!(ending.step, EndStep::Killing | EndStep::Stuck)
        {
            turn.ask(Effect::Kill { run: ending.run.id });
        }
    }

    fn preparing(&mut self, message: String, event: bool, turn: &mut Turning<'_>) {
        if event {
            turn.tell(EventKind::Preparing { message: message.clone() });
        }
        if let Phase::Launching { note, .. } = &mut self.phase {
            *note = Some(message);
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
            (Some(_), None) => turn.tell(EventKind::Vouched),
            (None, None) | (Some(_), Some(_)) => {}
        }
        self.doubt = doubt;
    }

    fn unchanged(&mut self, message: &str, turn: &mut Turning<'_>) {
        match self.wish {
            Wish::Run => self.relaunch(&format!("it cannot be changed in place: {message}"), turn),
            Wish::Stop | Wish::Pause => {}
        }
    }

    /// A launch that waits for something that was wanting need not wait any longer.
    fn provided(&mut self, turn: &mut Turning<'_>) {
        self.ledger.provided();
        match &self.phase {
            Phase::Backoff { charge: Charge::Free, .. } => self.end_backoff(turn),
            Phase::Backoff { charge: Charge::Counted, .. }
            | Phase::Stopped { .. }
            | Phase::Waiting
            | Phase::Launching { .. }
            | Phase::Alive(_)
            | Phase::Ending(_)
            | Phase::Failed { .. } => {}
        }
    }

    fn launch_failed(&mut self, error: &LaunchError, turn: &mut Turning<'_>) {
        let Phase::Launching { run, after, .. } = self.phase else { return };
        turn.ask(Effect::Forget { run });
        match after {
            AfterLaunch::End(Then::Replace) => return self.begin(turn),
            AfterLaunch::End(Then::Stop | Then::Judge | Then::Unhealthy) => return self.rest(turn),
            AfterLaunch::Keep => {}
        }
        turn.tell(EventKind::LaunchFailed { error: error.clone() });
        self.last_error = Some(LastError::from_launch(error, turn.now));
        let delay = match error.retry {
            Retry::Counted => None,
            Retry::Soon => Some(TRANSIENT_DELAY),
            Retry::Patient => Some(self.ledger.next_want()),
        };
        if let Some(delay) = delay {
            let reason = error.message.clone();
            let until = turn.now + delay;
            return self.enter(Phase::Backoff { until, reason, charge: Charge::Free }, turn);
        }
        self.failures += 1;
        let message = error
            .hint
            .as_ref()
            .map_or_else(|| error.message.clone(), |hint| format!("{}; {hint}", error.message));
        match self.spec.restart.policy {
            RestartPolicy::Always | RestartPolicy::OnFailure => self.need_restart(message, turn),
            RestartPolicy::Never => self.give_up(message, turn),
        }
    }

    fn exited(&mut self, exit: Exit, at: Time, empty: bool, turn: &mut Turning<'_>) {
        // Whoever knows how it ended has seen it.
        self.doubted(None, turn);
        match &mut self.phase {
            // A new engine learns that the launch that it had asked for was made, and is over.
            Phase::Launching { run, after, .. } => {
                let (run, after) = (*run, *after);
                self.live(run, Body::Unseen, at, turn);
                self.exited(exit, at, empty, turn);
                if let (AfterLaunch::End(wanted), Phase::Ending(ending)) = (after, &mut self.phase)
                {
                    ending.then = wanted;
                }
            }
            Phase::Alive(alive) => {
                let uptime = at.since(alive.run.launched_at);
                // The exit and the timer of `min_uptime` may arrive in either order.
                if let Stability::Pending(stable_at) = alive.run.stability
                    && stable_at <= at
                {
                    alive.run.stability = Stability::Stable;
                    self.ledger.stable();
                    turn.tell(EventKind::Stable);
                }
                turn.tell(EventKind::Exited { exit });
                self.remember(exit, at, uptime, "ended by itself");
                let then = match self.wish {
                    Wish::Run => Then::Judge,
                    Wish::Stop | Wish::Pause => Then::Stop,
                };
                self.after_main(then, exit, empty, turn);
            }
            Phase::Ending(ending) => {
                if ending.exit.is_none() {
                    ending.exit = Some(exit);
                    let uptime = at.since(ending.run.launched_at);
                    let (reason, step, run) = (ending.reason.clone(), ending.step, ending.run.id);
                    turn.tell(EventKind::Exited { exit });
                    self.remember(exit, at, uptime, &reason);
                    match (empty, step) {
                        (true, EndStep::Asked { .. } | EndStep::Killing | EndStep::Stuck) => {
                            self.gone(turn);
                        }
                        (false, EndStep::Asked { .. }) => {
                            let signal = self.spec.stop.signal;
                            turn.ask(Effect::TerminateRest { run, signal });
                        }
                        (false, EndStep::Killing | EndStep::Stuck) => self.kill_again(turn),
                    }
                } else if empty {
                    // A new engine, or a new keeper, tells all of it at once: what the main process
                    // had left behind is gone as well by now.
                    self.gone(turn);
                } else {
                    self.kill_again(turn);
                }
            }
            Phase::Stopped { .. }
            | Phase::Waiting
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => {}
        }
    }

    /// The main process of a living component ended by itself. What it has left behind is ended
    /// before anything else happens, so that no grandchild holds the port of the next run.
    fn after_main(&mut self, then: Then, exit: Exit, empty: bool, turn: &mut Turning<'_>) {
        let Some((run, from)) = self.take_run() else { return };
        let id = run.id;
        if empty {
            return self.ended(id, then, exit, exit.to_string(), turn);
        }
        let from = match (then, self.verdict_on(exit)) {
            (Then::Judge, Sentence::Restart) => EndingFrom::Restarting,
            (Then::Judge, Sentence::Complete | Sentence::GiveUp(_))
            | (Then::Stop | Then::Unhealthy | Then::Replace, _) => from,
        };
        let ending = Ending {
            run,
            step: EndStep::Asked { kill_at: turn.now + self.spec.stop.timeout },
            asked_at: turn.now,
            then,
            reason: format!("{exit}; ending what it left behind"),
            exit: Some(exit),
            overdue_at: None,
            from,
        };
        self.enter(Phase::Ending(Box::new(ending)), turn);
        turn.ask(Effect::TerminateRest { run: id, signal: self.spec.stop.signal });
    }

    fn gone(&mut self, turn: &mut Turning<'_>) {
        let Phase::Ending(ending) = &self.phase else { return };
        let (run, then) = (ending.run.id, ending.then);
        let exit = ending.exit.unwrap_or(Exit::unknown());
        let reason = ending.reason.clone();
        self.ended(run, then, exit, reason, turn);
    }

    /// Nothing of the run is left.
    fn ended(
        &mut self,
        run: RunId,
        then: Then,
        exit: Exit,
        reason: String,
        turn: &mut Turning<'_>,
    ) {
        turn.ask(Effect::Forget { run });
        match then {
            Then::Stop => self.rest(turn),
            Then::Replace => self.begin(turn),
            Then::Unhealthy => self.need_restart(reason, turn),
            Then::Judge => self.judge(exit, turn),
        }
    }

    /// The keeper knows nothing of the run: it was never launched, or ended with nobody there to hear.
    fn lost(&mut self, turn: &mut Turning<'_>) {
        match &mut self.phase {
            Phase::Launching { run, after, .. } => {
                let (run, after) = (*run, *after);
                turn.ask(Effect::Forget { run });
                match after {
                    AfterLaunch::Keep | AfterLaunch::End(Then::Replace) => self.begin(turn),
                    AfterLaunch::End(Then::Stop | Then::Judge | Then::Unhealthy) => self.rest(turn),
                }
            }
            Phase::Alive(alive) => {
                if !alive.run.is_external() {
                    self.exited(Exit::unknown(), turn.now, true, turn);
                }
            }
            Phase::Ending(ending) => {
                if ending.exit.is_none() {
                    self.exited(Exit::unknown(), turn.now, true, turn);
                } else {
                    self.gone(turn);
                }
            }
            Phase::Stopped { .. }
            | Phase::Waiting
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => {}
        }
    }

    fn probed(
        &mut self,
        role: ProbeRole,
        sequence: u64,
        outcome: Result<(), String>,
        turn: &mut Turning<'_>,
    ) {
        self.settle(turn);
        let Phase::Alive(alive) = &mut self.phase else { return };
        let (Some(probe), Some(spec)) =
            (alive.probes.get_mut(role), probe_spec(&self.spec.probes, role))
        else {
            return;
        };
        let before = probe.verdict;
        let place = alive.run.id.place(role as u64);
        let Some(verdict) = probe.answer(turn.now, sequence, outcome, spec, place) else { return };
        let message = probe.failure_message(spec).unwrap_or_default();
        if !message.is_empty() {
            self.probe_error = Some(LastError {
                reason: role.as_str().into(),
                message: format!("{role}: {message}"),
                hint: None,
                at: turn.now,
            });
        } else if self.probe_error.as_ref().is_some_and(|last| last.reason == role.as_str()) {
            self.probe_error = None;
        }
        match (role, verdict) {
            (ProbeRole::Startup, Verdict::Passing) => self.started(turn),
            (ProbeRole::Startup | ProbeRole::Liveness, Verdict::Failing) => {
                self.sicken(role, &message, turn);
            }
            (ProbeRole::Liveness, Verdict::Passing) => {
                if let Health::Unhealthy { probe: ProbeRole::Liveness } = alive.health {
                    alive.health = Health::Running;
                    turn.tell(EventKind::Recovered);
                }
            }
            (ProbeRole::Readiness, Verdict::Failing) => {
                if before != Verdict::Failing && self.readiness == Readiness::NotReady {
                    turn.tell(EventKind::NotReady { message });
                }
            }
            (ProbeRole::Readiness, Verdict::Passing) | (_, Verdict::Unknown) => {}
        }
    }

    /// A probe that was not performed: its next turn comes as ever.
    fn unprobed(&mut self, role: ProbeRole, sequence: u64, turn: &mut Turning<'_>) {
        self.settle(turn);
        let Phase::Alive(alive) = &mut self.phase else { return };
        if let (Some(probe), Some(spec)) =
            (alive.probes.get_mut(role), probe_spec(&self.spec.probes, role))
        {
            probe.void(turn.now, sequence, spec);
        }
    }

    // ---- moves ---------------------------------------------------------------------------------

    /// Starts, or waits for what must be there first.
    fn begin(&mut self, turn: &mut Turning<'_>) {
        if self.gate.is_empty() {
            self.launch(turn);
        } else {
            self.enter(Phase::Waiting, turn);
            turn.tell(EventKind::Waiting { for_: self.gate.clone() });
        }
    }

    fn launch(&mut self, turn: &mut Turning<'_>) {
        let run = (turn.runs)();
        // A doubt is about a run.
        self.doubt = None;
        let means = match self.spec.workload {
            Workload::Process(_) => Means::Keeper,
            Workload::Container(_) => Means::Engine,
            Workload::External => Means::Others,
        };
        self.enter(Phase::Launching { run, means, after: AfterLaunch::Keep, note: None }, turn);
        match self.spec.workload {
            Workload::Process(_) | Workload::Container(_) => {
                turn.ask(Effect::Launch { run, spec: self.spec.clone() });
            }
            Workload::External => self.live(run, Body::External, turn.now, turn),
        }
    }

    /// The program runs.
    fn live(&mut self, run: RunId, body: Body, at: Time, turn: &mut Turning<'_>) {
        self.probe_error = None;
        let probes = &self.spec.probes;
        let startup = probes.startup.as_ref();
        let unstarted = startup.is_none();
        let alive = Alive {
            run: Run {
                id: run,
                body,
                launched_at: at,
                stability: Stability::Pending(at + self.spec.restart.min_uptime),
            },
            health: Health::Starting { deadline: probes.startup_deadline.map(|limit| at + limit) },
            probes: ProbeSet {
                startup: startup.map(|spec| ProbeRun::new(at + spec.initial_delay)),
                ..ProbeSet::default()
            },
        };
        self.enter(Phase::Alive(Box::new(alive)), turn);
        if unstarted {
            self.started(turn);
        }
        self.begin_probes(turn);
    }

    /// The startup probe has passed, or there is none: the other two begin (S6).
    fn started(&mut self, turn: &mut Turning<'_>) {
        let Phase::Alive(alive) = &mut self.phase else { return };
        let first = |spec: &ProbeSpec| ProbeRun::new(turn.now + spec.initial_delay);
        alive.health = Health::Running;
        if let Some(startup) = &mut alive.probes.startup {
            startup.turn = Turn::Done;
        }
        alive.probes.liveness = self.spec.probes.liveness.as_deref().map(first);
        alive.probes.readiness = self.spec.probes.readiness.as_deref().map(first);
        self.show(turn);
        turn.tell(EventKind::Started);
        self.begin_probes(turn);
    }

    /// A probe reached its threshold.
    fn sicken(&mut self, probe: ProbeRole, message: &str, turn: &mut Turning<'_>) {
        let Phase::Alive(alive) = &mut self.phase else { return };
        if let Health::Unhealthy { .. } = alive.health {
            return;
        }
        self.last_error = Some(LastError {
            reason: probe.as_str().into(),
            message: format!("{probe}: {message}"),
            hint: None,
            at: turn.now,
        });
        self.failures += 1;
        alive.health = Health::Unhealthy { probe };
        // One that is about to stop anyway waits for its turn, after its dependents.
        let restartable = match (self.spec.restart.policy, self.wish) {
            (RestartPolicy::Never, _) | (_, Wish::Stop | Wish::Pause) => false,
            (RestartPolicy::Always | RestartPolicy::OnFailure, Wish::Run) => {
                !alive.run.is_external()
            }
        };
        self.show(turn);
        turn.tell(EventKind::Unhealthy { probe, message: message.to_owned() });
        if restartable {
            self.end(Then::Unhealthy, format!("{probe}: {message}"), turn);
        }
    }

    /// Begins to end the run.
    fn end(&mut self, then: Then, reason: String, turn: &mut Turning<'_>) {
        let Some((run, from)) = self.take_run() else { return };
        let (id, external) = (run.id, run.is_external());
        let from = match then {
            Then::Replace => EndingFrom::Restarting,
            Then::Stop | Then::Judge | Then::Unhealthy => from,
        };
        if !external {
            turn.tell(EventKind::Stopping { reason: reason.clone() });
        }
        let ending = Ending {
            run,
            step: EndStep::Asked { kill_at: turn.now + self.spec.stop.timeout },
            asked_at: turn.now,
            then,
            reason,
            exit: None,
            overdue_at: None,
            from,
        };
        self.enter(Phase::Ending(Box::new(ending)), turn);
        if external {
            // Nothing is ended that others started: it is only no longer watched (S57).
            self.gone(turn);
        } else {
            turn.ask(Effect::Terminate { run: id, spec: self.spec.clone() });
        }
    }

    /// Takes the run out of a living component, and how it stood.
    fn take_run(&mut self) -> Option<(Run, EndingFrom)> {
        match &self.phase {
            Phase::Alive(alive) => {
                let from = match alive.health {
                    Health::Starting { .. } => EndingFrom::Starting,
                    Health::Running => EndingFrom::Running,
                    Health::Unhealthy { .. } => EndingFrom::Unhealthy,
                };
                Some((alive.run.clone(), from))
            }
            Phase::Stopped { .. }
            | Phase::Waiting
            | Phase::Launching { .. }
            | Phase::Ending(_)
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => None,
        }
    }

    /// Stopped, because nobody wants it to run.
    fn rest(&mut self, turn: &mut Turning<'_>) {
        let reason = match self.wish {
            Wish::Run | Wish::Stop => StopReason::Requested,
            Wish::Pause => StopReason::Daemon,
        };
        self.enter(Phase::Stopped { reason }, turn);
        turn.tell(EventKind::Stopped { reason });
    }

    /// A program that ended by itself: the policy decides (S23).
    fn judge(&mut self, exit: Exit, turn: &mut Turning<'_>) {
        let sentence = self.verdict_on(exit);
        if !is_success(exit, &self.spec.restart) {
            self.failures += 1;
            self.last_error = Some(LastError::from_exit(exit, turn.now));
        }
        match sentence {
            Sentence::Complete => {
                let reason = StopReason::Completed;
                self.enter(Phase::Stopped { reason }, turn);
                turn.tell(EventKind::Stopped { reason });
            }
            Sentence::Restart => self.need_restart(exit.to_string(), turn),
            Sentence::GiveUp(why) => self.give_up(format!("{exit}, {why}"), turn),
        }
    }

    /// What the policy makes of an exit, before the limit is looked at.
    fn verdict_on(&self, exit: Exit) -> Sentence {
        let restart = &self.spec.restart;
        if is_success(exit, restart) {
            return match restart.policy {
                RestartPolicy::OnFailure | RestartPolicy::Never => Sentence::Complete,
                RestartPolicy::Always => Sentence::Restart,
            };
        }
        if exit_match(exit).is_some_and(|ended| restart.prevent_exit_status.contains(&ended)) {
            return Sentence::GiveUp("after which it is not to be restarted");
        }
        match restart.policy {
            RestartPolicy::Always | RestartPolicy::OnFailure => Sentence::Restart,
            RestartPolicy::Never => Sentence::GiveUp("and its restart policy is never"),
        }
    }

    /// A restart is needed: made after the backoff, or not at all where the limit is reached (S20).
    fn need_restart(&mut self, reason: String, turn: &mut Turning<'_>) {
        let spec = &self.spec.restart;
        self.ledger.prune(turn.now, spec);
        let made = self.ledger.in_window(turn.now, spec);
        let times = if made == 1 { "time" } else { "times" };
        let limit = spec.max_restarts;
        let Some(delay) = self.ledger.next_delay(turn.now, spec) else {
            let window = crate::model::event::human_duration(spec.window);
            let message = format!(
                "restarted {made} {times} within {window}, which is its limit; last error: {reason}"
            );
            return self.give_up(message, turn);
        };
        turn.tell(EventKind::Restarting {
            attempt: made + 1,
            limit,
            delay,
            reason: reason.clone(),
        });
        let until = turn.now + delay;
        self.enter(Phase::Backoff { until, reason, charge: Charge::Counted }, turn);
        if delay.is_zero() {
            self.end_backoff(turn);
        }
    }

    fn end_backoff(&mut self, turn: &mut Turning<'_>) {
        let Phase::Backoff { reason, charge, .. } = &self.phase else { return };
        match charge {
            Charge::Counted => self.ledger.record(turn.now, reason.clone()),
            Charge::Free => {}
        }
        self.begin(turn);
    }

    fn give_up(&mut self, message: String, turn: &mut Turning<'_>) {
        turn.tell(EventKind::Failed {
            message: message.clone(),
            hint: "once its cause is mended, type `stigmer start NAME`".into(),
        });
        self.enter(Phase::Failed { message }, turn);
    }

    fn remember(&mut self, exit: Exit, at: Time, uptime: Duration, cause: &str) {
        self.uptime_total = self.uptime_total.saturating_add(uptime);
        if self.exits.len() == EXITS_KEPT {
            self.exits.pop_front();
        }
        self.exits.push_back(ExitRecord { exit, at, uptime, cause: cause.to_owned() });
    }

    fn tell_readiness(&mut self, turn: &mut Turning<'_>) {
        let now = if self.is_ready() { Readiness::Ready } else { Readiness::NotReady };
        if now == self.readiness {
            return;
        }
        self.readiness = now;
        match (now, &self.phase) {
            (Readiness::Ready, _) => turn.tell(EventKind::Ready),
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
}

/// What a policy makes of an exit.
enum Sentence {
    /// It is done.
    Complete,
    /// It is to be started again.
    Restart,
    /// It is not to be tried again, and why.
    GiveUp(&'static str),
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

/// What a running container can be told of, if it is one.
fn resources_of(spec: &ComponentSpec) -> Option<&ResourceSpec> {
    match &spec.workload {
        Workload::Container(container) => Some(&container.resources),
        Workload::Process(_) | Workload::External => None,
    }
}

fn exit_match(exit: Exit) -> Option<ExitMatch> {
    match exit.status {
        ExitStatus::Code(code) => Some(ExitMatch::Code(code)),
        ExitStatus::Signal(signal) => Some(ExitMatch::Signal(signal)),
        ExitStatus::Unknown => None,
    }
}

/// Code 0, or a status that the manifest calls a success; never an out-of-memory kill.
fn is_success(exit: Exit, restart: &RestartSpec) -> bool {
    !exit.oom
        && exit_match(exit).is_some_and(|ended| {
            ended == ExitMatch::Code(0) || restart.success_exit_status.contains(&ended)
        })
}
