//! What people, the daemon and the manifest want of a component.

use std::sync::Arc;

use super::{Component, Effect, Turning};
use crate::machine::phase::{AfterLaunch, Phase, Then, Wish};
use crate::model::EventKind;
use crate::model::container::ResourceSpec;
use crate::model::spec::{ComponentSpec, Workload};

impl Component {
    pub(super) fn start(&mut self, turn: &mut Turning<'_>) {
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

    pub(super) fn retire(&mut self, wish: Wish, turn: &mut Turning<'_>) {
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

    pub(super) fn stop(&mut self, turn: &mut Turning<'_>) {
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

    pub(super) fn restart(&mut self, turn: &mut Turning<'_>) {
        self.wish = Wish::Run;
        self.ledger.clear();
        self.relaunch("asked to restart", turn);
    }

    pub(super) fn reset(&mut self, turn: &mut Turning<'_>) {
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

    pub(super) fn gate(&mut self, unmet: Vec<String>, turn: &mut Turning<'_>) {
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

    pub(super) fn update(&mut self, spec: Arc<ComponentSpec>, turn: &mut Turning<'_>) {
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
                    alive.has_new_limits = true;
                    self.limit_again(turn);
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

    /// Tells what runs its limits, if it has not taken them yet.
    pub(super) fn limit_again(&self, turn: &mut Turning<'_>) {
        if let Phase::Alive(alive) = &self.phase
            && alive.has_new_limits
        {
            turn.ask(Effect::Reconfigure { run: alive.run.id, spec: self.spec.clone() });
        }
    }

    pub(super) fn reconfigured(&mut self) {
        if let Phase::Alive(alive) = &mut self.phase {
            alive.has_new_limits = false;
        }
    }

    pub(super) fn replace(&mut self, spec: Arc<ComponentSpec>, turn: &mut Turning<'_>) {
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
    pub(super) fn relaunch(&mut self, reason: &str, turn: &mut Turning<'_>) {
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

    pub(super) fn unchanged(&mut self, message: &str, turn: &mut Turning<'_>) {
        match self.wish {
            Wish::Run => self.relaunch(&format!("it cannot be changed in place: {message}"), turn),
            Wish::Stop | Wish::Pause => {}
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
