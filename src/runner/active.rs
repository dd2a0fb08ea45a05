//! What is held for a run: what its processes have in common, and its probes.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::AbortHandle;

use super::container::probe::Probed;
use super::context::{Commands, Context};
use super::needs::needs;
use super::probe::{Prober, Reach, Target};
use crate::clock::{instant_of, wall_of};
use crate::logs;
use crate::machine::phase::probe_spec;
use crate::model::spec::{ComponentSpec, ProbeSpec};
use crate::model::{ProbeRole, Time};

/// What is held for a run.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) context: Arc<Context>,
    pub(super) log: PathBuf,
    /// Where in the log the run begins, if a probe reads it; of one that was taken over, or is declared
    /// otherwise since its launch, it is found out when it is needed.
    pub(super) log_start: Option<u64>,
    /// One a role. Exactly as long as it is: most have one.
    pub(super) probes: Vec<Slot>,
    /// Launching, or running the stop command.
    pub(super) task: Option<AbortHandle>,
}

/// A probe of a run, ready for its next turn.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) role: ProbeRole,
    /// Where the probe is declared as it was made.
    pub(super) spec: Arc<ComponentSpec>,
    pub(super) prober: Arc<Mutex<Prober>>,
    /// The turn that is under way, by its number. A handle keeps the memory of a task that is done.
    pub(super) turn: Option<(u64, AbortHandle)>,
}

impl Active {
    /// The slot of a probe, made anew where its declaration has changed.
    pub(super) fn slot(
        &mut self,
        role: ProbeRole,
        spec: &Arc<ComponentSpec>,
        declared: &ProbeSpec,
        pid: Option<u32>,
        launched_at: Time,
        container: Option<Probed>,
    ) -> Result<&mut Slot, String> {
        let known = self.probes.iter().position(|slot| slot.role == role);
        let is_same = |slot: &Slot| {
            Arc::ptr_eq(&slot.spec, spec) || probe_spec(&slot.spec.probes, role) == Some(declared)
        };
        let place = match known {
            Some(place) if is_same(&self.probes[place]) => {
                // The old one is not kept for it.
                self.probes[place].spec.clone_from(spec);
                place
            }
            Some(_) | None => {
                self.remove_slot(role);
                let log_start = if needs(&declared.check).log {
                    *self.log_start.get_or_insert_with(|| {
                        logs::position_before(&self.log, wall_of(launched_at))
                    })
                } else {
                    0
                };
                let target = Target {
                    pid,
                    launched: instant_of(launched_at),
                    log: self.log.clone(),
                    log_start,
                    commands: match &container {
                        Some(probed) => Arc::new(probed.clone()),
                        None => Arc::new(Commands(self.context.clone())),
                    },
                    reach: container.as_ref().map_or(Reach::Local, |probed| probed.shared.reach()),
                    container: container.map(|probed| Arc::new(probed) as _),
                };
                let prober = Arc::new(Mutex::new(Prober::new(&declared.check, target)?));
                self.probes.reserve_exact(1);
                self.probes.push(Slot { role, spec: spec.clone(), prober, turn: None });
                self.probes.len() - 1
            }
        };
        Ok(&mut self.probes[place])
    }

    pub(super) fn remove_slot(&mut self, role: ProbeRole) {
        if let Some(place) = self.probes.iter().position(|slot| slot.role == role) {
            self.probes.swap_remove(place).abort();
        }
    }

    /// Ends whatever is under way for the run.
    pub(super) fn quiet(&self) {
        for slot in &self.probes {
            slot.abort();
        }
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Slot {
    pub(super) fn abort(&self) {
        if let Some((_, turn)) = &self.turn {
            turn.abort();
        }
    }
}
