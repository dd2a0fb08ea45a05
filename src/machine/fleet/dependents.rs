//! Who depends on whom: the index that opens gates and orders the stopping.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;

use crate::model::spec::ComponentSpec;
use crate::model::{ComponentName, InstanceId, ProjectName};

/// A component, as its dependents see it: all its replicas together.
pub(super) type Key = (ProjectName, ComponentName);

/// The component that `instance` is a replica of.
pub(super) fn key_of(instance: &InstanceId) -> Key {
    (instance.project.clone(), instance.component.clone())
}

/// All instances that a component can have.
pub(super) fn replicas_of((project, component): Key) -> RangeInclusive<InstanceId> {
    let number =
        |replica| InstanceId { project: project.clone(), component: component.clone(), replica };
    number(0)..=number(u32::MAX)
}

/// For each component those instances that depend on it. Kept by instance, because while replicas are
/// replaced one after another the old ones still live by the old spec.
#[derive(Clone, Debug, Default)]
pub(super) struct Dependents {
    by_dependency: BTreeMap<Key, BTreeSet<InstanceId>>,
    declared: HashMap<InstanceId, Vec<Key>>,
}

impl Dependents {
    /// Replaces what `instance` is known to depend on.
    pub(super) fn declare(&mut self, instance: &InstanceId, spec: &ComponentSpec) {
        self.forget(instance);
        if spec.depends_on.is_empty() {
            return;
        }
        let dependencies: Vec<Key> = spec
            .depends_on
            .keys()
            .map(|name| (instance.project.clone(), name.as_str().into()))
            .collect();
        for dependency in &dependencies {
            self.by_dependency.entry(dependency.clone()).or_default().insert(instance.clone());
        }
        self.declared.insert(instance.clone(), dependencies);
    }

    /// `instance` depends on nothing any more.
    pub(super) fn forget(&mut self, instance: &InstanceId) {
        for dependency in self.declared.remove(instance).unwrap_or_default() {
            if let Some(dependents) = self.by_dependency.get_mut(&dependency) {
                dependents.remove(instance);
                if dependents.is_empty() {
                    self.by_dependency.remove(&dependency);
                }
            }
        }
    }

    /// The components that `instance` depends on.
    pub(super) fn dependencies(&self, instance: &InstanceId) -> &[Key] {
        self.declared.get(instance).map_or(&[], Vec::as_slice)
    }

    /// Whether nothing depends on anything.
    pub(super) fn is_empty(&self) -> bool {
        self.by_dependency.is_empty()
    }

    /// Those that depend on `instance`'s component.
    pub(super) fn of(&self, instance: &InstanceId) -> impl Iterator<Item = &InstanceId> + use<'_> {
        self.by_dependency.get(&key_of(instance)).into_iter().flatten()
    }
}
