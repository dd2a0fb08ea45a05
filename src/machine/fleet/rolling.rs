//! Replicas are replaced one at a time, the next when all others are ready (S9).

use std::sync::Arc;

use super::dependents::{key_of, replicas_of};
use super::{Fleet, Work};
use crate::machine::component::Input;
use crate::machine::phase::Wish;
use crate::model::spec::ComponentSpec;
use crate::model::{InstanceId, State, Time};

/// A replica that waits to be replaced. Until then it lives by the spec that it was launched with, so
/// that new probes do not judge an old program.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub(super) instance: InstanceId,
    /// `None`: the same spec again.
    spec: Option<Arc<ComponentSpec>>,
}

impl Fleet {
    /// Whether the instance, a replica, waits for its turn to be replaced: what it shows is of before.
    #[must_use]
    pub fn awaits_turn(&self, instance: &InstanceId) -> bool {
        self.rolling
            .get(&key_of(instance))
            .is_some_and(|queue| queue.iter().any(|turn| turn.instance == *instance))
    }

    /// A changed spec: replicas that serve are replaced one after another.
    pub(super) fn roll_to(
        &mut self,
        instance: &InstanceId,
        spec: Arc<ComponentSpec>,
        now: Time,
        work: &mut Work,
    ) {
        let serves = self
            .members
            .get(instance)
            .is_some_and(|component| component.wish() == Wish::Run && component.is_ready());
        if serves && spec.replicas > 1 {
            self.enqueue(instance, Some(spec), work);
        } else {
            self.forget_turn(instance, work);
            self.tell(instance, now, Input::Replace(spec), work);
        }
    }

    pub(super) fn enqueue(
        &mut self,
        instance: &InstanceId,
        spec: Option<Arc<ComponentSpec>>,
        work: &mut Work,
    ) {
        let key = key_of(instance);
        work.rollable.insert(key.clone());
        let queue = self.rolling.entry(key).or_default();
        match queue.iter_mut().find(|turn| turn.instance == *instance) {
            Some(turn) => turn.spec = spec.or(turn.spec.take()),
            None => queue.push_back(Turn { instance: instance.clone(), spec }),
        }
    }

    pub(super) fn forget_turn(&mut self, instance: &InstanceId, work: &mut Work) {
        let key = key_of(instance);
        let Some(queue) = self.rolling.get_mut(&key) else { return };
        queue.retain(|turn| turn.instance != *instance);
        // The next one may have its turn.
        work.rollable.insert(key);
    }

    /// Replaces the next replica of each component whose other replicas are all ready.
    pub(super) fn roll(&mut self, now: Time, work: &mut Work) {
        let mut next = Vec::new();
        for key in std::mem::take(&mut work.rollable) {
            let Some(queue) = self.rolling.get(&key) else { continue };
            let has_turn = queue.front().is_some_and(|turn| self.others_are_ready(turn));
            let Some(queue) = self.rolling.get_mut(&key) else { continue };
            if has_turn {
                next.extend(queue.pop_front());
            }
            if queue.is_empty() {
                self.rolling.remove(&key);
            } else if has_turn {
                // Where the one before need not be replaced, it is the turn of the next at once.
                work.rollable.insert(key);
            }
        }
        for Turn { instance, spec } in next {
            match spec {
                Some(spec) => self.tell(&instance, now, Input::Replace(spec), work),
                None => self.tell(&instance, now, Input::Restart, work),
            }
        }
    }

    /// Whether all other replicas of the component that are to run are ready, or have failed.
    pub(super) fn others_are_ready(&self, turn: &Turn) -> bool {
        self.members
            .range(replicas_of(key_of(&turn.instance)))
            .filter(|(id, component)| **id != turn.instance && component.wish() == Wish::Run)
            .all(|(_, component)| component.is_ready() || component.state() == State::Failed)
    }
}
