//! Replicas are replaced one at a time, the next when all others are ready (S9).

use std::sync::Arc;

use super::dependents::key_of;
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
            self.enqueue(instance, Some(spec));
        } else {
            self.forget_turn(instance);
            self.tell(instance, now, Input::Replace(spec), work);
        }
    }

    pub(super) fn enqueue(&mut self, instance: &InstanceId, spec: Option<Arc<ComponentSpec>>) {
        let queue = self.rolling.entry(key_of(instance)).or_default();
        match queue.iter_mut().find(|turn| turn.instance == *instance) {
            Some(turn) => turn.spec = spec.or(turn.spec.take()),
            None => queue.push_back(Turn { instance: instance.clone(), spec }),
        }
    }

    pub(super) fn forget_turn(&mut self, instance: &InstanceId) {
        if let Some(queue) = self.rolling.get_mut(&key_of(instance)) {
            queue.retain(|turn| turn.instance != *instance);
        }
    }

    /// Replaces the next replica of each component whose other replicas are all ready.
    pub(super) fn roll(&mut self, now: Time, work: &mut Work) {
        let mut next = Vec::new();
        for (key, queue) in &mut self.rolling {
            let Some(Turn { instance: candidate, .. }) = queue.front() else { continue };
            let others_ready = self
                .members
                .range(
                    InstanceId { project: key.0.clone(), component: key.1.clone(), replica: 0 }..,
                )
                .take_while(|(id, _)| id.project == key.0 && id.component == key.1)
                .filter(|(id, component)| *id != candidate && component.wish() == Wish::Run)
                .all(|(_, component)| component.is_ready() || component.state() == State::Failed);
            if others_ready && let Some(turn) = queue.pop_front() {
                next.push(turn);
            }
        }
        self.rolling.retain(|_, queue| !queue.is_empty());
        for Turn { instance, spec } in next {
            match spec {
                Some(spec) => self.tell(&instance, now, Input::Replace(spec), work),
                None => self.tell(&instance, now, Input::Restart, work),
            }
        }
    }
}
