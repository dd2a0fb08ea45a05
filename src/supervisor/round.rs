//! One round of the loop: step, store, act, tell.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::{
    Applied, Ending, Input, Leaving, LoadFailure, LoadedProject, Project, Refusal, Request,
    Supervisor, World,
};
use crate::clock::now;
use crate::crash;
use crate::keeper::wire::FromKeeper;
use crate::logs::Keep;
use crate::machine::phase::Phase;
use crate::machine::{Action, Answer, Effect, FleetInput, FleetStep};
use crate::model::spec::Workload;
use crate::model::{Event, InstanceId, Severity, Time};
use crate::plan::{self, Current, Intent};
use crate::runner::Report;
use crate::runner::launch::BaseEnv;
use crate::runner::sockets::Use;
use crate::store::{NewEvent, ProjectRecord};

/// How many components are told to end before the next are looked at: the first have their signal while
/// what becomes of the others is still worked out and written down.
const PORTION: usize = 100;

/// What a round gathers before anything is acted on.
#[derive(Default)]
pub(super) struct Round {
    effects: Vec<(InstanceId, Effect)>,
    pub(super) events: Vec<NewEvent>,
    /// Instances with a new spec: written whole.
    pub(super) declared: BTreeSet<InstanceId>,
    /// Instances of which something happened that must outlive the engine.
    pub(super) changed: BTreeSet<InstanceId>,
    pub(super) removed: BTreeSet<InstanceId>,
    /// Projects that have another record, or are gone.
    pub(super) projects: BTreeSet<String>,
    /// Something changed that somebody may be looking at.
    pub(super) visible: bool,
    /// A project is new, gone, or has another record or error.
    pub(super) projects_changed: bool,
    /// Sent when everything is done.
    pub(super) replies: Vec<Box<dyn FnOnce() + Send>>,
}

impl Round {
    /// The instance is to be written whole.
    pub(super) fn declare(&mut self, instance: &InstanceId) {
        self.declared.insert(instance.clone());
    }

    /// Takes what came of a step.
    pub(super) fn gather(&mut self, step: FleetStep) {
        self.effects.extend(step.effects);
        self.visible |= !step.changed.is_empty() || !step.removed.is_empty();
        // Results of probes are for the eye; what must outlive the engine makes an event.
        self.changed.extend(step.events.iter().map(|event| event.instance.clone()));
        self.changed.extend(step.decided);
        self.events.extend(step.events.iter().filter_map(record_of));
        for instance in step.removed {
            self.changed.remove(&instance);
            self.declared.remove(&instance);
            self.removed.insert(instance);
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
        while let Some(Ok(Some((message, descriptor)))) =
            futures_util::FutureExt::now_or_never(self.keeper.recv())
        {
            self.take(at, Input::Keeper(message, descriptor), &mut round);
        }
        self.feed(at, FleetInput::Tick, &mut round);
        self.finish(round);
    }

    fn take(&mut self, at: Time, input: Input, round: &mut Round) {
        match input {
            Input::Keeper(message, descriptor) => self.heard(at, &message, descriptor, round),
            Input::Report(Report::Answer(run, answer)) => {
                if let Answer::Probed { role, sequence, .. } | Answer::Unprobed { role, sequence } =
                    answer
                {
                    self.runner.probed(run, role, sequence);
                }
                self.feed(at, FleetInput::Answer(run, answer), round);
            }
            Input::Report(Report::Cleared(project)) => {
                if let Some(leaving @ Leaving::Clearing) = self.leaving.get_mut(&project) {
                    *leaving = Leaving::Plain;
                }
            }
            Input::Report(Report::Provided) => {
                let containers = self.containers();
                self.feed(at, FleetInput::Provided(containers), round);
            }
            Input::Request(request) => self.serve(at, request, round),
            Input::Terminate => self.terminate(at, round),
        }
    }

    fn heard(
        &mut self,
        at: Time,
        message: &FromKeeper,
        descriptor: Option<OwnedFd>,
        round: &mut Round,
    ) {
        match message {
            FromKeeper::Terminate { .. } => self.terminate(at, round),
            // Nobody reads manifests while the engine starts; it reads them all then.
            FromKeeper::ReloadRequested => drop(self.reloads.send(())),
            FromKeeper::Estate => self.succession.shown(descriptor),
            FromKeeper::NotReplaced { why } => self.succession.not_replaced(why),
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
        // Whoever waits for a turn to be replaced forgets it now; the next engine looks at the manifest.
        let names = self.projects.keys().filter(|name| self.fleet.is_in_transit(name));
        self.unfinished.extend(names.cloned());
        let everybody = self.fleet.iter().map(|(instance, _)| instance.clone()).collect();
        self.control(at, Action::Pause, everybody, round);
    }

    fn serve(&mut self, at: Time, request: Request, round: &mut Round) {
        match request {
            Request::Apply { record, loaded, dry_run, reply } => {
                let outcome = self.apply(at, *record, &loaded, dry_run, round);
                round.replies.push(Box::new(move || drop(reply.send(outcome))));
            }
            Request::Reload { project, generation, outcome, reply } => {
                let outcome = self.reload(at, &project, generation, outcome, round);
                round.replies.push(Box::new(move || drop(reply.send(outcome))));
            }
            Request::Control { action, instances, reply } => {
                self.control(at, action, instances, round);
                round.replies.push(Box::new(move || {
                    // Nobody may be waiting any more.
                    let _ = reply.send(());
                }));
            }
            Request::Down { projects, volumes, reply } => {
                let instances: Vec<InstanceId> = self
                    .fleet
                    .iter()
                    .filter(|(instance, _)| projects.iter().any(|name| **name == *instance.project))
                    .map(|(instance, _)| instance.clone())
                    .collect();
                for name in projects {
                    self.leave(name, volumes, round);
                }
                self.control(at, Action::Remove, instances.clone(), round);
                // Nobody may be waiting any more.
                round.replies.push(Box::new(move || drop(reply.send(instances))));
            }
            Request::Signal { signal, instances, reply } => {
                let reached = instances
                    .into_iter()
                    .filter(|instance| self.signal(signal, instance))
                    .collect();
                drop(reply.send(reached));
            }
            Request::Rehearse { reply } => self.rehearse(reply),
            Request::Replace { program, reply } => self.replace(program, reply, round),
            Request::Look(look) => (look.0)(&self.world(at)),
            Request::Events { filter, reply } => drop(reply.send(self.store.events(&filter))),
        }
    }

    /// Does what a person asks of components. Many that are to end are told so in portions, each of which is
    /// written and acted on before the next; if the engine dies in between, whoever asked has no answer yet,
    /// and asks again.
    fn control(&mut self, at: Time, action: Action, instances: Vec<InstanceId>, round: &mut Round) {
        let ends = match action {
            Action::Stop | Action::Remove | Action::Pause => true,
            Action::Start | Action::Restart | Action::Roll | Action::Reset => false,
        };
        if !ends || instances.len() <= PORTION {
            return self.feed(at, FleetInput::Control(action, instances), round);
        }
        for portion in self.fleet.in_order_of_ending(instances).chunks(PORTION) {
            // What happened before comes first.
            self.finish(std::mem::take(round));
            self.feed(at, FleetInput::Control(action, portion.to_vec()), round);
        }
    }

    pub(super) fn world(&self, at: Time) -> World<'_> {
        World {
            fleet: &self.fleet,
            projects: &self.projects,
            now: at,
            keeper: &self.welcome,
            runner: &self.runner,
            store_error: self.store_error.as_deref(),
        }
    }

    fn signal(&self, signal: i32, instance: &InstanceId) -> bool {
        let Some(component) = self.fleet.get(instance) else { return false };
        let has_process = component.view(now()).body.is_some();
        let Some(run) = component.run().filter(|_| has_process) else { return false };
        self.runner.signal(run, signal).is_ok()
    }

    /// All instances that are declared as containers.
    pub(super) fn containers(&self) -> Vec<InstanceId> {
        let is_container = |component: &crate::machine::Component| {
            matches!(component.spec().workload, Workload::Container(_))
        };
        let found = self.fleet.iter().filter(|(_, component)| is_container(component));
        found.map(|(instance, _)| instance.clone()).collect()
    }

    /// Makes a manifest so.
    fn apply(
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
    fn reload(
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

    /// Lets the fleet step and gathers what comes of it.
    pub(super) fn feed(&mut self, at: Time, input: FleetInput, round: &mut Round) {
        let step = self.fleet.step(at, input);
        round.gather(step);
    }

    /// Writes, acts, tells, in this order.
    pub(super) fn finish(&mut self, mut round: Round) {
        self.forget_projects(&mut round);
        let told = self.write(&mut round);
        let launched: Vec<InstanceId> = round
            .effects
            .iter()
            .filter(|(_, effect)| matches!(effect, Effect::Launch { .. }))
            .map(|(instance, _)| instance.clone())
            .collect();
        if !(round.declared.is_empty() && round.changed.is_empty() && round.removed.is_empty()) {
            self.close_sockets();
        }
        let nothing = BaseEnv::default();
        // What takes the place of a run does not wait until the run's traces are removed. A container must:
        // it may have the name.
        let (last, first): (Vec<_>, Vec<_>) = round.effects.into_iter().partition(|(_, effect)| {
            matches!(effect, Effect::Forget { run } if !self.runner.has_container(*run))
        });
        self.keeper.gather();
        for (instance, effect) in first.into_iter().chain(last) {
            crash::point("effect");
            let base_env = self.base_envs.get(&instance.project).unwrap_or(&nothing).clone();
            if let Err(error) = self.runner.perform(&instance, effect, &base_env) {
                tracing::error!(%instance, %error, "the keeper does not take orders");
            }
        }
        if let Err(error) = self.keeper.release() {
            tracing::error!(%error, "the keeper does not take orders");
        }
        crate::daemon_log::together(|| told.iter().for_each(|record| log(&record.event)));
        for record in told {
            self.events.tell(record);
        }
        for instance in &round.declared {
            // A launch tries it once more, and says what is wrong with it.
            drop(self.home.prepare_log(instance));
            self.watch_log(instance);
        }
        // The spec that comes into force may say something else of its log.
        for instance in launched.iter().filter(|launched| !round.declared.contains(*launched)) {
            self.watch_log(instance);
        }
        for instance in round.removed.iter().filter(|gone| self.fleet.get(gone).is_none()) {
            self.logs.unwatch(instance);
        }
        if !round.declared.is_empty() || !round.removed.is_empty() {
            let any = !self.containers().is_empty();
            self.runner.expect_containers(any);
        }
        if round.projects_changed {
            drop(self.projects_out.send_replace(Arc::new(self.projects.clone())));
        }
        if round.visible || round.projects_changed {
            self.changes.send_modify(|count| *count += 1);
        }
        if !round.replies.is_empty() {
            crash::point("before the replies");
        }
        for reply in round.replies {
            reply();
        }
    }

    /// Closes the sockets of whoever is not to run any more: a client is refused rather than kept
    /// waiting for nobody.
    pub(super) fn close_sockets(&self) {
        self.runner.close_sockets(|key| {
            let mut usage = Use::Abandoned;
            for component in self.fleet.replicas(&key.project, &key.component) {
                let is_idle =
                    matches!(component.phase(), Phase::Stopped { .. } | Phase::Failed { .. });
                let is_declared = match &component.spec().workload {
                    Workload::Process(process) => {
                        process.sockets.values().any(|socket| socket.address == key.address)
                    }
                    Workload::Container(_) | Workload::External => false,
                };
                if is_declared && !is_idle {
                    return Use::Needed;
                }
                if component.is_live() {
                    usage = Use::Outdated;
                }
            }
            usage
        });
    }

    /// Times of lines are noted from the first one on.
    pub(super) fn watch_log(&self, instance: &InstanceId) {
        let Some(component) = self.fleet.get(instance) else { return };
        match component.spec().workload {
            Workload::Process(_) | Workload::Container(_) => {
                let spec = component.spec().logs.clone();
                let keep =
                    Keep { spec, writers: self.runner.stillness(&component.spec().workload) };
                self.logs.keep(instance.clone(), self.home.component_log(instance), keep);
            }
            Workload::External => {}
        }
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

/// What is kept of an event. Changes of state are told by the events that caused them.
fn record_of(event: &Event) -> Option<NewEvent> {
    if let crate::model::EventKind::StateChanged { .. } = event.kind {
        return None;
    }
    let name = event.instance.display_name();
    // The machine does not know whose it is; what is told to be typed must work as it stands.
    let message = event.kind.to_string().replace("start NAME", &format!("start {name}"));
    // A program is quicker with its first line than its launch is told here.
    let ago = if let crate::model::EventKind::Launched { at, .. } = event.kind {
        now().since(at)
    } else {
        Duration::ZERO
    };
    Some(NewEvent {
        at: wall_nanos().saturating_sub(i64::try_from(ago.as_nanos()).unwrap_or(0)),
        project: event.instance.project.to_string(),
        component: event.instance.component.to_string(),
        replica: event.instance.replica,
        kind: event.kind.name().to_owned(),
        severity: event.kind.severity(),
        message,
    })
}

/// Tells an event of a component in the log of the daemon. Those of projects are told where they happen.
fn log(event: &NewEvent) {
    if event.component.is_empty() {
        return;
    }
    let (project, message) = (&*event.project, &event.message);
    let instance = InstanceId::new(project, &event.component, event.replica);
    let name = instance.display_name();
    match event.severity {
        Severity::Info => tracing::info!(project, "{name} {message}"),
        Severity::Warning => tracing::warn!(project, "{name} {message}"),
        Severity::Error => tracing::error!(project, "{name} {message}"),
    }
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
