//! The life of a running program: its probes, its deadlines, and what they make of it.

use super::{Component, Effect, Readiness, Turning};
use crate::machine::phase::{Health, LastError, Phase, Stability, Then, Wish, probe_spec};
use crate::machine::probe::{ProbeRun, Turn, Verdict};
use crate::model::spec::{ComponentSpec, ProbeSpec, RestartPolicy};
use crate::model::{EventKind, ProbeRole, RunId};

impl Component {
    /// Notices that `min_uptime` was reached.
    pub(super) fn settle(&mut self, turn: &mut Turning<'_>) {
        if let Phase::Alive(alive) = &mut self.phase
            && let Stability::Pending(at) = alive.run.stability
            && at <= turn.now
            && !alive.is_over
        {
            alive.run.stability = Stability::Stable;
            self.ledger.stable();
            turn.tell(EventKind::Stable);
        }
    }

    /// The startup deadline (S3) counts as the startup probe's last failure.
    pub(super) fn expire_startup(&mut self, turn: &mut Turning<'_>) {
        if let Phase::Alive(alive) = &self.phase
            && let Health::Starting { deadline: Some(deadline) } = alive.health
            && deadline <= turn.now
            && self.doubt.is_none()
        {
            let limit = crate::model::event::human_duration(deadline.since(alive.run.launched_at));
            self.sicken(ProbeRole::Startup, &format!("not started within {limit}"), turn);
        }
    }

    pub(super) fn begin_probes(&mut self, turn: &mut Turning<'_>) {
        let Phase::Alive(alive) = &mut self.phase else { return };
        if alive.is_over {
            return;
        }
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

    /// Whether the answer to this turn of a probe would count.
    #[must_use]
    pub fn awaits(&self, run: RunId, role: ProbeRole, sequence: u64) -> bool {
        let Phase::Alive(alive) = &self.phase else { return false };
        let turn = alive.probes.get(role).map(|probe| probe.turn);
        let is_current =
            matches!(turn, Some(Turn::Running { sequence: now, .. }) if now == sequence);
        alive.run.id == run && !alive.is_over && is_current
    }

    /// What is starting has its whole time again: nobody could see how far it has come.
    pub(super) fn renew_deadline(&mut self, turn: &Turning<'_>) {
        if let Phase::Alive(alive) = &mut self.phase
            && let Health::Starting { deadline } = &mut alive.health
        {
            *deadline = self.spec.probes.startup_deadline.map(|limit| turn.now + limit);
        }
    }

    /// The component can be probed again.
    pub(super) fn make_up_probes(&mut self, turn: &mut Turning<'_>) {
        let Phase::Alive(alive) = &mut self.phase else { return };
        for role in ProbeRole::ALL {
            if let Some(probe) = alive.probes.get_mut(role) {
                probe.make_up(turn.now);
            }
        }
        self.begin_probes(turn);
    }

    /// The startup probe has passed, or there is none: the other two begin (S6).
    pub(super) fn started(&mut self, turn: &mut Turning<'_>) {
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

    pub(super) fn probed(
        &mut self,
        role: ProbeRole,
        sequence: u64,
        outcome: Result<(), String>,
        turn: &mut Turning<'_>,
    ) {
        self.settle(turn);
        let Phase::Alive(alive) = &mut self.phase else { return };
        // Of what has ended every probe fails.
        if alive.is_over {
            return;
        }
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
    pub(super) fn unprobed(&mut self, role: ProbeRole, sequence: u64, turn: &mut Turning<'_>) {
        self.settle(turn);
        let Phase::Alive(alive) = &mut self.phase else { return };
        if let (Some(probe), Some(spec)) =
            (alive.probes.get_mut(role), probe_spec(&self.spec.probes, role))
        {
            probe.void(turn.now, sequence, spec);
        }
    }

    /// A probe reached its threshold.
    pub(super) fn sicken(&mut self, probe: ProbeRole, message: &str, turn: &mut Turning<'_>) {
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

    /// Brings the timers of a running component in line with a spec that was changed in place. A
    /// probe that is not changed goes on with its counts; a changed one begins anew.
    pub(super) fn retime(&mut self, old: &ComponentSpec, turn: &mut Turning<'_>) {
        let Phase::Alive(alive) = &mut self.phase else { return };
        let launched_at = alive.run.launched_at;
        if let Stability::Pending(at) = &mut alive.run.stability {
            *at = launched_at + self.spec.restart.min_uptime;
        }
        let changed = |role| probe_spec(&old.probes, role) != probe_spec(&self.spec.probes, role);
        match &mut alive.health {
            Health::Starting { deadline } => {
                let limit = self.spec.probes.startup_deadline;
                if limit != old.probes.startup_deadline {
                    *deadline = limit.map(|limit| launched_at + limit);
                }
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
    pub(super) fn renew_startup(&mut self, old: &ComponentSpec, turn: &mut Turning<'_>) {
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
}
