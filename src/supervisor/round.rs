//! One round of the loop: step, store, act, tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Applied, Ending, Input, LoadFailure, Project, Refusal, Request, Supervisor, World};
use crate::keeper::wire::{FromKeeper, Scope, ToKeeper};
use crate::machine::{Action, Effect, FleetInput, FleetStep};
use crate::model::{Event, InstanceId, Severity, Time};
use crate::plan::{self, Current, Intent};
use crate::runner::process::{BaseEnv, now};
use crate::store::{Batch, EventRecord, NewEvent, ProjectRecord};

/// What a round gathers before anything is acted on.
#[derive(Default)]
pub(super) struct Round {
    effects: Vec<(InstanceId, Effect)>,
    events: Vec<NewEvent>,
    /// Instances with a new spec: written whole.
    declared: BTreeSet<InstanceId>,
    /// Instances of which something happened that must outlive the engine.
    changed: BTreeSet<InstanceId>,
    removed: Vec<InstanceId>,
    batch: Batch,
    /// Something changed that somebody may be looking at.
    visible: bool,
    /// Sent when everything is done.
    replies: Vec<Box<dyn FnOnce() + Send>>,
}

impl Round {
    /// The states that are written from now on belong to this boot.
    pub(super) fn note_boot(&mut self, boot_id: &str) {
        self.batch.boot_id(boot_id);
    }

    /// Takes what came of a step.
    pub(super) fn gather(&mut self, step: FleetStep) {
        self.effects.extend(step.effects);
        self.visible |= !step.changed.is_empty() || !step.removed.is_empty();
        // Results of probes are for the eye; what must outlive the engine makes an event.
        self.changed.extend(step.events.iter().map(|event| event.instance.clone()));
        self.events.extend(step.events.into_iter().filter_map(|event| tell(&event)));
        for instance in step.removed {
            self.changed.remove(&instance);
            self.declared.remove(&instance);
            self.removed.push(instance);
        }
    }
}

impl Supervisor {
    /// Works off inputs.
    pub(super) fn round(&mut self, inputs: Vec<Input>) {
        let at = now();
        let mut round = Round::default();
        for input in inputs {
            self.take(at, input, &mut round);
        }
        // Exits come in storms: whatever the keeper has to say by now belongs to this round.
        while let Some(Ok(Some((message, _)))) =
            futures_util::FutureExt::now_or_never(self.keeper.recv())
        {
            self.take(at, Input::Keeper(message), &mut round);
        }
        self.feed(at, FleetInput::Tick, &mut round);
        self.finish(round);
    }

    fn take(&mut self, at: Time, input: Input, round: &mut Round) {
        match input {
            Input::Keeper(message) => self.heard(at, &message, round),
            Input::Answer(run, answer) => self.feed(at, FleetInput::Answer(run, answer), round),
            Input::Request(request) => self.serve(at, request, round),
            Input::Reload(project) => {
                let names: Vec<String> = project
                    .map_or_else(|| self.projects.keys().cloned().collect(), |name| vec![name]);
                for name in names {
                    self.reload(at, &name, Trigger::File, round).ok();
                }
            }
            Input::Terminate => self.terminate(at, round),
        }
    }

    fn heard(&mut self, at: Time, message: &FromKeeper, round: &mut Round) {
        match message {
            FromKeeper::Terminate { .. } => self.terminate(at, round),
            FromKeeper::ReloadRequested => {
                let names: Vec<String> = self.projects.keys().cloned().collect();
                for name in names {
                    self.reload(at, &name, Trigger::Person, round).ok();
                }
            }
            FromKeeper::Welcome(_)
            | FromKeeper::Spawned(_)
            | FromKeeper::SpawnFailed(_)
            | FromKeeper::Exited(_)
            | FromKeeper::Gone { .. }
            | FromKeeper::RunState(_)
            | FromKeeper::HeldFd { .. }
            | FromKeeper::ListEnd => {
                if let Some((run, answer)) = self.runner.told(message) {
                    self.feed(at, FleetInput::Answer(run, answer), round);
                }
            }
        }
    }

    /// Ends the daemon in order; what is wanted is kept, so that the next daemon starts it again.
    fn terminate(&mut self, at: Time, round: &mut Round) {
        if self.ending == Ending::Stopping {
            return;
        }
        self.ending = Ending::Stopping;
        tracing::info!("ending: all components are stopped, in reverse order");
        let everybody = self.fleet.iter().map(|(instance, _)| instance.clone()).collect();
        self.feed(at, FleetInput::Control(Action::Pause, everybody), round);
    }

    fn serve(&mut self, at: Time, request: Request, round: &mut Round) {
        match request {
            Request::Apply { record, dry_run, reply } => {
                let outcome = self.apply(at, *record, dry_run, round);
                round.replies.push(Box::new(move || drop(reply.send(outcome))));
            }
            Request::Reload { projects, reply } => {
                let names = if projects.is_empty() {
                    self.projects.keys().cloned().collect()
                } else {
                    projects
                };
                let mut outcomes = Vec::new();
                for name in names {
                    let outcome = self.reload(at, &name, Trigger::Person, round);
                    outcomes.push((name, outcome));
                }
                round.replies.push(Box::new(move || drop(reply.send(outcomes))));
            }
            Request::Control { action, instances, reply } => {
                if action == Action::Remove {
                    let projects: BTreeSet<&str> =
                        instances.iter().map(|id| &*id.project).collect();
                    self.leaving.extend(projects.into_iter().map(str::to_owned));
                }
                self.feed(at, FleetInput::Control(action, instances), round);
                round.replies.push(Box::new(move || {
                    // Nobody may be waiting any more.
                    let _ = reply.send(());
                }));
            }
            Request::Signal { signal, instances, reply } => {
                let reached = instances
                    .into_iter()
                    .filter(|instance| self.signal(signal, instance))
                    .collect();
                drop(reply.send(reached));
            }
            Request::Look(look) => (look.0)(&self.world(at)),
            Request::Events { filter, reply } => drop(reply.send(self.store.events(&filter))),
        }
    }

    pub(super) fn world(&self, at: Time) -> World<'_> {
        World {
            fleet: &self.fleet,
            projects: &self.projects,
            now: at,
            keeper: &self.welcome,
            store_error: self.store_error.as_deref(),
        }
    }

    fn signal(&self, signal: i32, instance: &InstanceId) -> bool {
        let Some(component) = self.fleet.get(instance) else { return false };
        let has_process = component.view(now()).pid.is_some();
        let Some(run) = component.run().filter(|_| has_process) else { return false };
        let message = ToKeeper::Signal { run, signal, scope: Scope::Main, resume: false };
        self.keeper.send(&message, &[]).is_ok()
    }

    /// Loads a manifest and makes it so.
    fn apply(
        &mut self,
        at: Time,
        record: ProjectRecord,
        dry_run: bool,
        round: &mut Round,
    ) -> Result<Applied, Refusal> {
        if let Some(error) = &self.store_error {
            return Err(Refusal::Store(error.clone()));
        }
        let loaded = self.manifests.load(&record).map_err(Refusal::Manifest)?;
        let name = loaded.spec.name.clone();
        if let Some(other) = self.projects.get(&name)
            && other.record.manifest != record.manifest
            && !self.leaving.contains(&name)
        {
            return Err(Refusal::Taken { project: name, by: other.record.manifest.clone() });
        }
        self.converge(at, record, &loaded, Intent::Apply, dry_run, round)
    }

    /// Reads the manifest of a project that is applied again, and converges.
    fn reload(
        &mut self,
        at: Time,
        name: &str,
        trigger: Trigger,
        round: &mut Round,
    ) -> Result<Applied, Refusal> {
        let Some(project) = self.projects.get(name) else {
            return Err(Refusal::Unknown(name.to_owned()));
        };
        // A file that was touched, and reads as before, is no change. A load that failed before is
        // tried again all the same.
        let record = project.record.clone();
        if trigger == Trigger::File
            && project.error.is_none()
            && !self.manifests.has_changed(&record)
        {
            return Ok(Applied {
                project: name.to_owned(),
                plan: plan::Plan::default(),
                warnings: Vec::new(),
            });
        }
        if let Some(error) = &self.store_error {
            return Err(Refusal::Store(error.clone()));
        }
        match self.manifests.load(&record) {
            Ok(loaded) => self.converge(at, record, &loaded, Intent::Reload, false, round),
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
            round.visible = true;
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
        loaded: &super::LoadedProject,
        intent: Intent,
        dry_run: bool,
        round: &mut Round,
    ) -> Result<Applied, Refusal> {
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
            return Ok(applied);
        }
        self.leaving.remove(&name);
        let generation = self.projects.get(&name).map_or(0, |known| known.record.generation);
        // Only what the manifest names is kept of the environment of the apply.
        record.variables.retain(|variable, _| loaded.variables.contains(variable));
        record.watched.clone_from(&loaded.watched);
        record.info.clone_from(&loaded.spec.info);
        record.sha256.clone_from(&loaded.sha256);
        record.loaded_at = wall_nanos();
        record.generation = generation + 1;
        self.base_envs.insert(name.as_str().into(), BaseEnv::new(record.base_env.clone()));
        if let Err(error) = round.batch.put_project(&name, &record) {
            return Err(Refusal::Store(error.to_string()));
        }
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
        round.visible = true;
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
        Ok(applied)
    }

    /// Lets the fleet step and gathers what comes of it.
    pub(super) fn feed(&mut self, at: Time, input: FleetInput, round: &mut Round) {
        let step = self.fleet.step(at, input);
        round.gather(step);
    }

    /// Writes, acts, tells, in this order.
    pub(super) fn finish(&mut self, mut round: Round) {
        self.forget_projects(&mut round);
        self.write(&mut round);
        let nothing = BaseEnv::default();
        for (instance, effect) in round.effects {
            let base_env = self.base_envs.get(&instance.project).unwrap_or(&nothing).clone();
            if let Err(error) = self.runner.perform(&instance, effect, &base_env) {
                tracing::error!(%instance, %error, "the keeper does not take orders");
            }
        }
        if round.visible {
            self.changes.send_modify(|count| *count += 1);
        }
        for reply in round.replies {
            reply();
        }
    }

    fn write(&mut self, round: &mut Round) {
        if round.declared.is_empty()
            && round.changed.is_empty()
            && round.removed.is_empty()
            && round.events.is_empty()
            && round.batch.is_empty()
        {
            return;
        }
        round.batch.next_run(self.fleet.next_run());
        let mut outcome = Ok(());
        for instance in round.declared.iter().chain(round.changed.difference(&round.declared)) {
            let Some(component) = self.fleet.get(instance) else { continue };
            // A spec that was waiting for its turn may come into force at any time.
            let written = round.batch.put_component(instance, component);
            outcome = outcome.and(written);
        }
        for instance in &round.removed {
            if self.fleet.get(instance).is_none() {
                round.batch.remove_component(instance);
            }
        }
        for event in &round.events {
            round.batch.event(event.clone());
        }
        let committed = outcome.and_then(|()| self.store.commit(&round.batch));
        match committed {
            Ok(ids) => {
                if self.store_error.take().is_some() {
                    tracing::info!("the state can be written again");
                }
                for (id, event) in ids.zip(round.events.drain(..)) {
                    drop(self.events.send(Arc::new(EventRecord { id, event })));
                }
            }
            Err(error) => {
                let text = error.to_string();
                if self.store_error.as_ref() != Some(&text) {
                    tracing::error!("{text}; supervision goes on, changes are refused");
                }
                self.store_error = Some(text);
                round.visible = true;
                for event in round.events.drain(..) {
                    drop(self.events.send(Arc::new(EventRecord { id: 0, event })));
                }
            }
        }
    }

    /// A project whose last component is gone is forgotten, if that was asked for.
    fn forget_projects(&mut self, round: &mut Round) {
        let gone: Vec<String> = self
            .leaving
            .iter()
            .filter(|name| !self.fleet.iter().any(|(instance, _)| *instance.project == ***name))
            .cloned()
            .collect();
        for name in gone {
            self.leaving.remove(&name);
            self.projects.remove(&name);
            self.base_envs.remove(name.as_str());
            round.batch.remove_project(&name);
            round.visible = true;
        }
    }
}

/// Who asked for a reload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trigger {
    /// The watch of the files: nothing is done if they read as before.
    File,
    /// A person.
    Person,
}

/// Tells an event in the log of the daemon, and makes the record of it. Changes of state are told by
/// the events that caused them.
fn tell(event: &Event) -> Option<NewEvent> {
    if let crate::model::EventKind::StateChanged { .. } = event.kind {
        return None;
    }
    let message = event.kind.to_string();
    let severity = event.kind.severity();
    let name = event.instance.display_name();
    let project = &*event.instance.project;
    match severity {
        Severity::Info => tracing::info!(project, "{name} {message}"),
        Severity::Warning => tracing::warn!(project, "{name} {message}"),
        Severity::Error => tracing::error!(project, "{name} {message}"),
    }
    Some(NewEvent {
        at: wall_nanos(),
        project: project.to_owned(),
        component: event.instance.component.to_string(),
        replica: event.instance.replica,
        kind: event.kind.name().to_owned(),
        severity,
        message: message.replace("start NAME", &format!("start {name}")),
    })
}

fn of_project(project: &str, kind: &str, severity: Severity, message: String) -> NewEvent {
    NewEvent {
        at: wall_nanos(),
        project: project.to_owned(),
        component: String::new(),
        replica: 0,
        kind: kind.to_owned(),
        severity,
        message,
    }
}

/// Unix nanoseconds; for showing, never for deciding.
fn wall_nanos() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
