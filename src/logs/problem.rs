//! What is wrong with logs, for the status.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::InstanceId;

/// What has failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Trouble {
    /// Writing the index.
    Index,
    /// Rotating.
    Rotation,
}

/// The problems that there are now, shared by those who meet them and those who show them.
#[derive(Clone, Debug, Default)]
pub(super) struct Problems(Arc<Mutex<BTreeMap<(InstanceId, Trouble), String>>>);

impl Problems {
    /// Remembers a problem. True: it was not known.
    pub(super) fn note(&self, instance: &InstanceId, trouble: Trouble, problem: &str) -> bool {
        let known = self.lock().insert((instance.clone(), trouble), problem.to_owned());
        known.is_none_or(|known| known != problem)
    }

    /// Forgets a problem. True: there was one.
    pub(super) fn solve(&self, instance: &InstanceId, trouble: Trouble) -> bool {
        self.lock().remove(&(instance.clone(), trouble)).is_some()
    }

    /// Forgets all problems of an instance.
    pub(super) fn forget(&self, instance: &InstanceId) {
        self.solve(instance, Trouble::Index);
        self.solve(instance, Trouble::Rotation);
    }

    /// Whether nothing is wrong with any log.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// What is wrong with the log of an instance, in words.
    pub(super) fn of(&self, instance: &InstanceId) -> Option<String> {
        let known = self.lock();
        let words: Vec<&str> = [Trouble::Index, Trouble::Rotation]
            .into_iter()
            .filter_map(|trouble| known.get(&(instance.clone(), trouble)))
            .map(String::as_str)
            .collect();
        (!words.is_empty()).then(|| words.join("; "))
    }

    /// A panic elsewhere leaves the map as it was.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(InstanceId, Trouble), String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
