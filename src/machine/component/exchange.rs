//! What a component and its surroundings say to each other: inputs and answers in, effects and events out.

use std::sync::Arc;

use crate::machine::phase::Wish;
use crate::model::spec::ComponentSpec;
use crate::model::{Body, EventKind, Exit, LaunchError, ProbeRole, RunId, Time};

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
    /// The container has heard that it is to end.
    Told,
    /// What runs has its new limits.
    Reconfigured,
    /// The main process has ended, and how it did is being found out: `Exited` follows.
    Over,
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
    /// Tell what runs that its limits have changed; answer with `Reconfigured`, or with `Unchanged` if that is
    /// impossible.
    Reconfigure {
        /// The run.
        run: RunId,
        /// Its new spec.
        spec: Arc<ComponentSpec>,
    },
    /// Begin the end of a run: the stop command, or the stop signal to the main process. Where it is a
    /// container, answer with `Told`.
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
    /// Perform a probe once, within its timeout; answer with `Probed`. It may be passed over once
    /// [`Component::awaits`](super::Component::awaits) says that no answer would count.
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
