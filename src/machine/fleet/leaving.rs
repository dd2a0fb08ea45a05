//! Ends, in reverse order of the dependencies (S56), and being forgotten after them.

use std::collections::BTreeSet;

use super::dependents::{key_of, replicas_of};
use super::{Fleet, Work};
use crate::machine::component::Input;
use crate::machine::phase::Wish;
use crate::model::{Event, EventKind, InstanceId, RunId, Time};

impl Fleet {
    /// The same instances so that dependents come before what they depend on, and otherwise as they were:
    /// what comes first may be told to end before the rest is.
    #[must_use]
    pub fn in_order_of_ending(&self, instances: Vec<InstanceId>) -> Vec<InstanceId> {
        if self.dependents.is_empty() {
            return instances;
        }
        let mut waiting: BTreeSet<InstanceId> = instances.iter().cloned().collect();
        let mut ordered = Vec::with_capacity(instances.len());
        for instance in instances {
            self.dependents_first(instance, &mut waiting, &mut ordered);
        }
        ordered
    }

    /// Moves an instance from those that wait to those that are ordered, after its dependents. Nothing
    /// depends on itself; chains are as long as people make them.
    pub(super) fn dependents_first(
        &self,
        instance: InstanceId,
        waiting: &mut BTreeSet<InstanceId>,
        ordered: &mut Vec<InstanceId>,
    ) {
        // On the path: each with its dependents that were not looked at yet.
        let mut path = Vec::new();
        let mut next = Some(instance);
        loop {
            if let Some(instance) = next.filter(|instance| waiting.remove(instance)) {
                let dependents = self.dependents.of(&instance);
                path.push((instance, dependents));
            }
            let Some((_, dependents)) = path.last_mut() else { return };
            next = dependents.next().cloned();
            if next.is_none()
                && let Some((instance, _)) = path.pop()
            {
                ordered.push(instance);
            }
        }
    }

    /// How many components are being ended.
    #[must_use]
    pub const fn ending(&self) -> usize {
        self.ending
    }

    /// Whether nothing follows from the end of this run: it was asked for, and nobody waits for it but those
    /// who look.
    #[must_use]
    pub fn nothing_follows(&self, run: RunId) -> bool {
        let Some(instance) = self.runs.get(&run) else { return false };
        // Those that remain of a component may be ready without one that is forgotten.
        let is_missed =
            || self.leaving.contains(instance) && self.dependents.of(instance).next().is_some();
        self.held.is_empty()
            && self.rolling.is_empty()
            && self.members.get(instance).is_some_and(|member| member.is_to_rest())
            && !is_missed()
    }

    /// Whether one that is being ended wants to be told the time.
    #[must_use]
    pub fn has_late_end(&self, now: Time) -> bool {
        let mut late = self.deadlines.0.iter().take_while(|(at, _)| *at <= now);
        late.any(|(_, instance)| self.members.get(instance).is_some_and(|one| one.is_ending()))
    }

    pub(super) fn leave(&mut self, now: Time, instance: InstanceId, work: &mut Work) {
        self.leaving.insert(instance.clone());
        work.removable.insert(instance.clone());
        self.hold(now, instance, Wish::Stop, work);
    }

    /// Tells a component to retire and holds its end until its dependents are gone.
    pub(super) fn hold(&mut self, now: Time, instance: InstanceId, wish: Wish, work: &mut Work) {
        self.forget_turn(&instance, work);
        self.tell(&instance, now, Input::Retire(wish), work);
        work.releasable.insert(key_of(&instance));
        self.held.insert(instance);
    }

    /// Lets those end whose dependents are gone.
    pub(super) fn release(&mut self, now: Time, work: &mut Work) {
        let candidates = std::mem::take(&mut work.releasable);
        let free: Vec<InstanceId> = candidates
            .into_iter()
            .flat_map(|key| self.held.range(replicas_of(key)))
            .filter(|instance| !self.has_retiring_dependent(instance))
            .cloned()
            .collect();
        for instance in free {
            self.held.remove(&instance);
            let idle = self.members.get(&instance).is_none_or(|component| !component.is_live());
            if !idle {
                self.tell(&instance, now, Input::Stop, work);
            }
        }
    }

    pub(super) fn has_retiring_dependent(&self, instance: &InstanceId) -> bool {
        self.dependents.of(instance).any(|dependent| {
            self.members
                .get(dependent)
                .is_some_and(|member| member.is_live() && member.wish() != Wish::Run)
        })
    }

    /// Whether nothing of an instance runs, and nobody wants it to.
    pub(super) fn has_ended(&self, instance: &InstanceId) -> bool {
        self.members
            .get(instance)
            .is_none_or(|component| !component.is_live() && component.wish() != Wish::Run)
    }

    pub(super) fn remove_gone(&mut self, work: &mut Work) {
        let mut gone = std::mem::take(&mut work.removable);
        gone.retain(|instance| self.leaving.contains(instance) && self.has_ended(instance));
        for instance in gone {
            self.leaving.remove(&instance);
            self.held.remove(&instance);
            let Some(mut member) = self.members.remove(&instance) else { continue };
            self.deadlines.forget(&instance, &mut member);
            work.releasable.extend(self.dependents.dependencies(&instance).iter().cloned());
            self.dependents.forget(&instance);
            work.moved.push(instance.clone());
            work.step.events.push(Event { instance: instance.clone(), kind: EventKind::Removed });
            work.step.removed.push(instance);
        }
    }
}
