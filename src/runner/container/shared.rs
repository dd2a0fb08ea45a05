//! What is known of a run's container, for whoever probes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::container::look::{Doing, Halt, Health, Look};
use crate::model::ContainerId;
use crate::runner::probe::Reach;

/// Shared between the task of a run and its probes.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    id: Option<ContainerId>,
    /// `None`: it was not looked at yet, or has ended.
    doing: Option<Doing>,
    reach: Reach,
}

impl Shared {
    /// Takes what a look has found.
    pub(super) fn note(&self, look: &Look) {
        let mut known = self.lock();
        known.id = Some(look.id.clone());
        known.doing = Some(look.state.clone());
        known.reach = look.reach.clone();
    }

    /// It was frozen, or goes on.
    pub(super) fn freeze(&self, frozen: bool, health: Health) {
        let doing = if frozen { Doing::Halted(Halt::Paused) } else { Doing::Running(health) };
        self.lock().doing = Some(doing);
    }

    /// Its health has changed.
    pub(super) fn health(&self, health: Health) {
        let mut known = self.lock();
        if let Some(Doing::Running(_)) = known.doing {
            known.doing = Some(Doing::Running(health));
        }
    }

    /// It has ended; how is not known yet.
    pub(super) fn end(&self) {
        self.lock().doing = None;
    }

    /// Whether it is known to be there, so that it can be probed.
    pub(in crate::runner) fn can_be_probed(&self) -> bool {
        match self.lock().doing {
            Some(Doing::Running(_) | Doing::Halted(_)) => true,
            Some(Doing::Created | Doing::Exited { .. }) | None => false,
        }
    }

    /// Its container.
    pub(super) fn id(&self) -> Option<ContainerId> {
        self.lock().id.clone()
    }

    /// What it is doing.
    pub(super) fn doing(&self) -> Option<Doing> {
        self.lock().doing.clone()
    }

    /// Where it is reached.
    pub(in crate::runner) fn reach(&self) -> Reach {
        self.lock().reach.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
