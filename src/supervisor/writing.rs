//! What rounds change, on its way to the store, and what the store could not take.
//!
//! ```text
//!   round ─▶ unwritten ─▶ one commit ─▶ empty again
//!                 ▲            │ no room
//!                 └── a second ┘ later, with what has come meanwhile; as it is by then
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Supervisor;
use super::round::Round;
use crate::clock::now;
use crate::model::{InstanceId, Time};
use crate::store::{Batch, EventRecord, Written};

/// Numbers of runs that are noted as handed out before they are. The next engine passes over those that were
/// not.
const SET_ASIDE: u64 = 64;

/// How long after a failed try the state is written again.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// What the store does not have yet: who has changed, since what is written is how they are by then.
#[derive(Default)]
pub(super) struct Unwritten {
    declared: BTreeSet<InstanceId>,
    changed: BTreeSet<InstanceId>,
    removed: BTreeSet<InstanceId>,
    projects: BTreeSet<String>,
    /// When it is tried again, after a try that failed.
    pub(super) again: Option<Time>,
}

impl Unwritten {
    /// Takes in what a round has changed.
    fn add(&mut self, round: &Round) {
        self.declared.extend(round.declared.iter().cloned());
        self.changed.extend(round.changed.iter().cloned());
        self.removed.extend(round.removed.iter().cloned());
        self.projects.extend(round.projects.iter().cloned());
    }

    fn is_empty(&self) -> bool {
        self.declared.is_empty()
            && self.changed.is_empty()
            && self.removed.is_empty()
            && self.projects.is_empty()
    }
}

impl Supervisor {
    /// Writes what changed. Gives the events, which are told once everything is done.
    pub(super) fn write(&mut self, round: &mut Round) -> Vec<EventRecord> {
        self.note_transits(round);
        self.unwritten.add(round);
        let is_due = match self.unwritten.again {
            // While nothing can be written, that is not tried with every event.
            Some(again) => again <= now(),
            None => !(self.unwritten.is_empty() && round.events.is_empty() && self.boot_is_noted),
        };
        if !is_due {
            return unnumbered(round);
        }
        let mut batch = Batch::default();
        // A try without it may have nothing to write, and then nothing was tried.
        if !self.boot_is_noted || self.unwritten.again.is_some() {
            batch.boot_id(&self.welcome.boot_id);
        }
        // Numbers of runs are set aside, so that not every launch has to note its own.
        let next_run = self.fleet.next_run();
        if self.stored_next_run < next_run {
            batch.next_run(next_run + SET_ASIDE);
        }
        for name in &self.unwritten.projects {
            match self.projects.get(name) {
                Some(project) => batch.put_project(name, &project.record),
                None => batch.remove_project(name),
            }
        }
        let Unwritten { declared, changed, removed, .. } = &self.unwritten;
        let mut specs = Vec::new();
        for instance in declared.iter().chain(changed.difference(declared)) {
            let Some(component) = self.fleet.get(instance) else { continue };
            // A spec that was waiting for its turn may come into force at any time; one that is in the
            // store already is not written again with every exit.
            let spec = component.spec();
            let stored = self.stored.get(instance).filter(|(known, _)| Arc::ptr_eq(known, spec));
            if let Some((_, row)) = stored {
                batch.put_state(instance, *row, component);
            } else {
                specs.push((instance.clone(), spec.clone()));
                batch.put_component(instance, component);
            }
        }
        for instance in removed {
            if self.fleet.get(instance).is_none() {
                self.stored.remove(instance);
                batch.remove_component(instance);
            }
        }
        batch.events(&round.events);
        let committed = self.store.commit(&batch);
        drop(batch);
        match committed {
            Ok(Written { events, rows }) => {
                let stored = specs.into_iter().zip(rows);
                self.stored.extend(stored.map(|((instance, spec), row)| (instance, (spec, row))));
                if self.stored_next_run < next_run {
                    self.stored_next_run = next_run + SET_ASIDE;
                }
                self.boot_is_noted = true;
                self.unwritten = Unwritten::default();
                if self.store_error.take().is_some() {
                    tracing::info!("the state can be written again");
                    round.visible = true;
                }
                let numbered = events.zip(round.events.drain(..));
                numbered.map(|(id, event)| EventRecord { id, event }).collect()
            }
            Err(error) => {
                self.unwritten.again = Some(now() + BETWEEN_TRIES);
                let text = error.to_string();
                if self.store_error.as_ref() != Some(&text) {
                    tracing::error!("{text}; supervision goes on, changes are refused");
                }
                self.store_error = Some(text);
                round.visible = true;
                unnumbered(round)
            }
        }
    }

    /// Writes what could not be written before, whether or not it is time. Whether nothing is left.
    pub(super) fn catch_up_writing(&mut self) -> bool {
        if self.unwritten.again.is_some() {
            self.unwritten.again = Some(now());
            self.finish(Round::default());
        }
        self.unwritten.again.is_none()
    }

    /// The next engine is to know of each project whether something of its plan is still under way.
    fn note_transits(&mut self, round: &mut Round) {
        for (name, project) in &mut self.projects {
            // Few have anything under way, and the fleet is not asked for those that have not.
            if !project.record.in_transit && !round.projects.contains(name) {
                continue;
            }
            let is_now = self.unfinished.contains(name) || self.fleet.is_in_transit(name);
            if project.record.in_transit != is_now {
                project.record.in_transit = is_now;
                round.projects.insert(name.clone());
            }
        }
    }
}

/// Events that are not in the history.
fn unnumbered(round: &mut Round) -> Vec<EventRecord> {
    round.events.drain(..).map(|event| EventRecord { id: 0, event }).collect()
}
