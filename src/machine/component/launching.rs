//! The way to a running program: the gate, the launch, and what comes of it.

use std::time::Duration;

use super::{Component, Effect, Turning};
use crate::machine::phase::{
    AfterLaunch, Alive, Charge, Health, LastError, Means, Phase, ProbeSet, Run, Stability, Then,
};
use crate::machine::probe::ProbeRun;
use crate::model::spec::{RestartPolicy, Workload};
use crate::model::{Body, EventKind, LaunchError, Retry, RunId, Time};

/// The wait before a launch is tried again that failed for want of something of the machine's.
const TRANSIENT_DELAY: Duration = Duration::from_secs(1);

impl Component {
    /// Starts, or waits for what must be there first.
    pub(super) fn begin(&mut self, turn: &mut Turning<'_>) {
        if self.gate.is_empty() {
            self.launch(turn);
        } else {
            self.enter(Phase::Waiting, turn);
            turn.tell(EventKind::Waiting { for_: self.gate.clone() });
        }
    }

    pub(super) fn launch(&mut self, turn: &mut Turning<'_>) {
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

    pub(super) fn launched(&mut self, body: Body, at: Time, turn: &mut Turning<'_>) {
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
            Phase::Ending(_) => self.end_again(turn),
            Phase::Alive(_) => {
                self.limit_again(turn);
                self.make_up_probes(turn);
            }
            Phase::Stopped { .. }
            | Phase::Waiting
            | Phase::Backoff { .. }
            | Phase::Failed { .. } => {}
        }
    }

    /// The program runs.
    pub(super) fn live(&mut self, run: RunId, body: Body, at: Time, turn: &mut Turning<'_>) {
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
            is_over: false,
            has_new_limits: false,
        };
        self.enter(Phase::Alive(Box::new(alive)), turn);
        if unstarted {
            self.started(turn);
        }
        self.begin_probes(turn);
    }

    pub(super) fn preparing(&mut self, message: String, event: bool, turn: &mut Turning<'_>) {
        if event {
            turn.tell(EventKind::Preparing { message: message.clone() });
        }
        if let Phase::Launching { note, .. } = &mut self.phase {
            *note = Some(message);
        }
    }

    pub(super) fn launch_failed(&mut self, error: &LaunchError, turn: &mut Turning<'_>) {
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

    /// A launch that waits for something that was wanting need not wait any longer.
    pub(super) fn provided(&mut self, turn: &mut Turning<'_>) {
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
}
