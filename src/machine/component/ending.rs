//! The end of a run: asked for or not, until nothing of it is left.

use std::time::Duration;

use super::judging::Sentence;
use super::{Component, Effect, Turning};
use crate::machine::phase::{
    AfterLaunch, EndStep, Ending, EndingFrom, ExitRecord, Health, LastError, Phase, Run, Stability,
    Then, Wish,
};
use crate::model::{Body, EventKind, Exit, RunId, StopReason, Time};

/// How many exits the detail of a component shows.
const EXITS_KEPT: usize = 10;

/// How long SIGKILL may take. The kernel needs milliseconds, and seconds for much memory.
const KILL_TAKES: Duration = Duration::from_secs(5);

impl Component {
    /// Begins to end the run.
    pub(super) fn end(&mut self, then: Then, reason: String, turn: &mut Turning<'_>) {
        let Some((run, from)) = self.take_run() else { return };
        let (id, external) = (run.id, run.is_external());
        let from = match then {
            Then::Replace => EndingFrom::Restarting,
            Then::Stop | Then::Judge | Then::Unhealthy => from,
        };
        if !external {
            turn.tell(EventKind::Stopping { reason: reason.clone() });
        }
        let time = (turn.now, self.spec.stop.timeout);
        let ending = Ending::begin(run, then, reason, from, None, time);
        self.enter(Phase::Ending(Box::new(ending)), turn);
        if external {
            // Nothing is ended that others started: it is only no longer watched (S57).
            self.gone(turn);
        } else {
            turn.ask(Effect::Terminate { run: id, spec: self.spec.clone() });
        }
    }

    /// Takes the run out of a living component, and how it stood.
    pub(super) fn take_run(&mut self) -> Option<(Run, EndingFrom)> {
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

    /// An end that takes too long: SIGKILL once its time is over, and where that does not help either, it is
    /// said.
    pub(super) fn escalate(&mut self, turn: &mut Turning<'_>) {
        let Phase::Ending(ending) = &mut self.phase else { return };
        match ending.step {
            EndStep::Asked { kill_at } if ending.is_told && kill_at <= turn.now => {
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
        }
    }

    /// The container has heard that it is to end: its time begins.
    pub(super) fn told(&mut self, turn: &Turning<'_>) {
        if let Phase::Ending(ending) = &mut self.phase {
            ending.hear(turn.now, self.spec.stop.timeout);
        }
    }

    /// What no signal ends waits inside of the kernel. It is shown and goes on being waited for: while it
    /// is there, nothing is started in its place.
    pub(super) fn stick(&mut self, turn: &mut Turning<'_>) {
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

    /// What the engine or the keeper before may not have passed on is ordered again.
    pub(super) fn end_again(&self, turn: &mut Turning<'_>) {
        if let Phase::Ending(ending) = &self.phase
            && !ending.is_told
            && ending.exit.is_none()
        {
            turn.ask(Effect::Terminate { run: ending.run.id, spec: self.spec.clone() });
        }
        self.kill_again(turn);
    }

    /// The order to kill is written down before it is given: an engine or a keeper that was killed
    /// between the two has taken it along. Killing twice does no harm.
    pub(super) fn kill_again(&self, turn: &mut Turning<'_>) {
        if let Phase::Ending(ending) = &self.phase
            && matches!(ending.step, EndStep::Killing | EndStep::Stuck)
        {
            turn.ask(Effect::Kill { run: ending.run.id });
        }
    }

    pub(super) fn exited(&mut self, exit: Exit, at: Time, empty: bool, turn: &mut Turning<'_>) {
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
                    // It needs no telling any more; what it has left behind has its time.
                    ending.hear(turn.now, self.spec.stop.timeout);
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

    /// The program has ended; how is told next. Until then it is not used, and not probed.
    pub(super) fn over(&mut self) {
        if let Phase::Alive(alive) = &mut self.phase {
            alive.is_over = true;
        }
    }

    /// The main process of a living component ended by itself. What it has left behind is ended
    /// before anything else happens, so that no grandchild holds the port of the next run.
    pub(super) fn after_main(
        &mut self,
        then: Then,
        exit: Exit,
        empty: bool,
        turn: &mut Turning<'_>,
    ) {
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
        let reason = format!("{exit}; ending what it left behind");
        let time = (turn.now, self.spec.stop.timeout);
        let ending = Ending::begin(run, then, reason, from, Some(exit), time);
        self.enter(Phase::Ending(Box::new(ending)), turn);
        turn.ask(Effect::TerminateRest { run: id, signal: self.spec.stop.signal });
    }

    /// The keeper knows nothing of the run: it was never launched, or ended with nobody there to hear.
    pub(super) fn lost(&mut self, turn: &mut Turning<'_>) {
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

    pub(super) fn gone(&mut self, turn: &mut Turning<'_>) {
        let Phase::Ending(ending) = &self.phase else { return };
        let (run, then) = (ending.run.id, ending.then);
        let exit = ending.exit.unwrap_or(Exit::unknown());
        let reason = ending.reason.clone();
        self.ended(run, then, exit, reason, turn);
    }

    /// Nothing of the run is left.
    pub(super) fn ended(
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

    /// Stopped, because nobody wants it to run.
    pub(super) fn rest(&mut self, turn: &mut Turning<'_>) {
        let reason = match self.wish {
            Wish::Run | Wish::Stop => StopReason::Requested,
            Wish::Pause => StopReason::Daemon,
        };
        self.enter(Phase::Stopped { reason }, turn);
        turn.tell(EventKind::Stopped { reason });
    }

    pub(super) fn remember(&mut self, exit: Exit, at: Time, uptime: Duration, cause: &str) {
        self.uptime_total = self.uptime_total.saturating_add(uptime);
        if self.exits.len() == EXITS_KEPT {
            self.exits.pop_front();
        }
        self.exits.push_back(ExitRecord { exit, at, uptime, cause: cause.to_owned() });
    }
}
