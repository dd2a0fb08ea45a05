//! The way from a manifest that was applied, or has changed, to what the fleet is told.

use std::collections::BTreeMap;

use super::round::Round;
use super::telling::{of_project, wall_nanos};
use super::{Applied, LoadFailure, LoadedProject, Project, Refusal, Supervisor};
use crate::machine::FleetInput;
use crate::model::{InstanceId, Severity, Time};
use crate::plan::{self, Current, Intent};
use crate::runner::launch::BaseEnv;
use crate::store::ProjectRecord;

impl Supervisor {
    /// Makes a manifest so.
    pub(super) fn apply(
        &mut self,
        at: Time,
        record: ProjectRecord,
        loaded: &LoadedProject,
        dry_run: bool,
        round: &mut Round,
    ) -> Result<Applied, Refusal> {
        if let Some(error) = &self.store_error {
            return Err(Refusal::Store(error.clone()));
        }
        let name = &loaded.spec.name;
        if let Some(other) = self.projects.get(name)
            && other.record.manifest != record.manifest
            && !self.leaving.contains_key(name)
        {
            let (project, by) = (name.clone(), other.record.manifest.clone());
            return Err(Refusal::Taken { project, by });
        }
        Ok(self.converge(at, record, loaded, Intent::Apply, dry_run, round))
    }

    /// Converges to the manifest of a project that is applied, as it was read again.
    pub(super) fn reload(
        &mut self,
        at: Time,
        name: &str,
        generation: u64,
        outcome: Result<Box<LoadedProject>, Box<LoadFailure>>,
        round: &mut Round,
    ) -> Result<Applied, Refusal> {
        let known = self.projects.get(name).filter(|_| !self.leaving.contains_key(name));
        let Some(project) = known else { return Err(Refusal::Unknown(name.to_owned())) };
        if project.record.generation != generation {
            return Err(Refusal::Stale);
        }
        let record = project.record.clone();
        match outcome {
            // Another name in the file is another project; the old one would be forgotten in silence.
            Ok(loaded) if loaded.spec.name != name => {
                let failure = Box::new(renamed(&record, name, &loaded.spec.name));
                self.reject(name, failure.clone(), round);
                Err(Refusal::Manifest(failure))
            }
            Ok(_) if self.store_error.is_some() => {
                Err(Refusal::Store(self.store_error.clone().unwrap_or_default()))
            }
            Ok(loaded) => Ok(self.converge(at, record, &loaded, Intent::Reload, false, round)),
            Err(failure) => {
                self.reject(name, failure.clone(), round);
                Err(Refusal::Manifest(failure))
            }
        }
    }

    /// What runs goes on; the mistake is in the status, the log and the events.
    fn reject(&mut self, name: &str, failure: Box<LoadFailure>, round: &mut Round) {
        let place = format!("{}:{}:{}", failure.file.display(), failure.line, failure.column);
        let message = format!("{place}: {}; what runs goes on as before", failure.message);
        if let Some(project) = self.projects.get_mut(name) {
            let told = project.error.as_ref().is_some_and(|known| {
                (&known.message, known.line) == (&failure.message, failure.line)
            });
            project.error = Some(failure);
            project.error_at = Some(wall_nanos());
            round.projects_changed = true;
            if told {
                return;
            }
        }
        tracing::error!(project = name, "manifest rejected: {message}");
        round.events.push(of_project(name, "manifest_rejected", Severity::Error, message));
    }

    fn converge(
        &mut self,
        at: Time,
        mut record: ProjectRecord,
        loaded: &LoadedProject,
        intent: Intent,
        dry_run: bool,
        round: &mut Round,
    ) -> Applied {
        let name = loaded.spec.name.clone();
        let current: BTreeMap<InstanceId, Current> = self
            .fleet
            .iter()
            .filter(|(instance, _)| *instance.project == *name)
            .map(|(instance, component)| {
                let (spec, wanted) = (component.spec().clone(), component.wish().wanted());
                (instance.clone(), Current { spec, wanted })
            })
            .collect();
        let plan = plan::plan(&current, &loaded.spec, intent);
        let applied = Applied { project: name.clone(), plan, warnings: loaded.warnings.clone() };
        if dry_run {
            return applied;
        }
        self.leaving.remove(&name);
        self.unfinished.remove(&name);
        let before = self.projects.get(&name).map(|known| &known.record);
        let is_same = before.is_some_and(|before| before.sha256 == loaded.sha256);
        let generation = before.map_or(0, |before| before.generation);
        // Only what the manifest names is kept of the environment of the apply.
        record.variables.retain(|variable, _| loaded.variables.contains(variable));
        record.watched.clone_from(&loaded.watched);
        record.info.clone_from(&loaded.spec.info);
        record.sha256.clone_from(&loaded.sha256);
        record.loaded_at = wall_nanos();
        // The number tells what is wanted, not how often somebody asked.
        let is_news = !is_same || !applied.plan.is_empty();
        record.generation = generation + u64::from(is_news);
        self.base_envs.insert(name.as_str().into(), BaseEnv::new(record.base_env.clone()));
        round.projects.insert(name.clone());
        if !applied.plan.is_empty() {
            let count = applied.plan.steps.len();
            let message = format!(
                "generation {}: {count} changed, {} as before",
                record.generation, applied.plan.unchanged
            );
            tracing::info!(project = name, "applied {message}");
            round.events.push(of_project(&name, "applied", Severity::Info, message));
        }
        self.projects.insert(name, Project { record, error: None, error_at: None });
        round.projects_changed = true;
        for change in applied.plan.changes() {
            use crate::machine::Change::{Create, Remove, Replace, Start, Update};
            match change {
                Create(instance, _) | Update(instance, _) | Replace(instance, _) => {
                    round.declared.insert(instance);
                }
                Start(_) | Remove(_) => {}
            }
        }
        self.feed(at, FleetInput::Apply(applied.plan.changes()), round);
        applied
    }
}

/// A manifest that declares another project than the one that it was applied as.
fn renamed(record: &ProjectRecord, was: &str, is: &str) -> LoadFailure {
    LoadFailure {
        message: format!(
            "the project is now named {is}; type `stigmer apply` to start it under that name, and \
             `stigmer down -p {was}` to end the old one"
        ),
        file: record.manifest.clone(),
        line: 0,
        column: 0,
        report: crate::api::v1::Rejected::default(),
        watched: Vec::new(),
    }
}
