//! What a restart policy makes of the end of a run (S17 to S23).

use super::{Component, Turning};
use crate::machine::phase::{Charge, LastError, Phase};
use crate::model::spec::{ExitMatch, RestartPolicy, RestartSpec};
use crate::model::{EventKind, Exit, ExitStatus, StopReason};

/// What a policy makes of an exit.
pub(super) enum Sentence {
    /// It is done.
    Complete,
    /// It is to be started again.
    Restart,
    /// It is not to be tried again, and why.
    GiveUp(&'static str),
}

impl Component {
    /// A program that ended by itself: the policy decides (S23).
    pub(super) fn judge(&mut self, exit: Exit, turn: &mut Turning<'_>) {
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
    pub(super) fn verdict_on(&self, exit: Exit) -> Sentence {
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
    pub(super) fn need_restart(&mut self, reason: String, turn: &mut Turning<'_>) {
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

    pub(super) fn end_backoff(&mut self, turn: &mut Turning<'_>) {
        let Phase::Backoff { reason, charge, .. } = &self.phase else { return };
        match charge {
            Charge::Counted => self.ledger.record(turn.now, reason.clone()),
            Charge::Free => {}
        }
        self.begin(turn);
    }

    pub(super) fn give_up(&mut self, message: String, turn: &mut Turning<'_>) {
        turn.tell(EventKind::Failed {
            message: message.clone(),
            hint: "once its cause is mended, type `stigmer start NAME`".into(),
        });
        self.enter(Phase::Failed { message }, turn);
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
