//! What a component waits for before it is launched: the conditions of its dependencies.

use std::sync::Arc;

use super::{Fleet, Work};
use crate::machine::component::Input;
use crate::model::spec::{ComponentSpec, Condition};
use crate::model::{InstanceId, Time};

impl Fleet {
    /// Dependencies of an instance whose condition does not hold.
    #[must_use]
    pub fn unmet(&self, instance: &InstanceId) -> Vec<(String, Condition)> {
        self.members
            .get(instance)
            .map_or_else(Vec::new, |component| self.unmet_by(instance, component.spec()))
    }

    pub(super) fn unmet_by(
        &self,
        instance: &InstanceId,
        spec: &ComponentSpec,
    ) -> Vec<(String, Condition)> {
        spec.depends_on
            .iter()
            .filter(|(name, condition)| !self.holds(&instance.project, name, **condition))
            .map(|(name, condition)| (name.clone(), *condition))
            .collect()
    }

    /// Computes the gate of an instance anew.
    pub(super) fn regate(&mut self, instance: &InstanceId, now: Time, work: &mut Work) {
        let unmet = in_words(self.unmet(instance));
        let changed = self.members.get(instance).is_some_and(|member| *member.gate != *unmet);
        if changed {
            self.tell(instance, now, Input::Gate(unmet), work);
        }
    }

    /// Whether all replicas of a component meet a condition. One that is not declared never does.
    pub(super) fn holds(&self, project: &Arc<str>, name: &str, condition: Condition) -> bool {
        let instances = self.instances(project, name);
        !instances.is_empty()
            && instances.iter().all(|instance| {
                self.members.get(instance).is_some_and(|member| member.satisfies(condition))
            })
    }

    pub(super) fn instances(&self, project: &Arc<str>, name: &str) -> Vec<InstanceId> {
        let first = InstanceId { project: project.clone(), component: name.into(), replica: 0 };
        self.members
            .range(first..)
            .take_while(|(id, _)| id.project == *project && *id.component == *name)
            .map(|(id, _)| id.clone())
            .collect()
    }
}

/// `db (ready)`, `migrate (completed)`.
pub(super) fn in_words(unmet: Vec<(String, Condition)>) -> Vec<String> {
    unmet.into_iter().map(|(name, condition)| format!("{name} ({})", condition.as_str())).collect()
}
