//! One round of the loop: step, store, act, tell.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::telling::{log, record_of};
use super::{Ending, Input, Request, Supervisor, World};
use crate::clock::now;
use crate::crash;
use crate::keeper::wire::FromKeeper;
use crate::logs::Keep;
use crate::machine::phase::Phase;
use crate::machine::{Action, Answer, Effect, FleetInput, FleetStep};
use crate::model::spec::Workload;
use crate::model::{InstanceId, Time};
use crate::runner::Report;
use crate::runner::sockets::Use;
use crate::store::NewEvent;

/// How many components are told to end before the next are looked at: the first have their signal while
/// what becomes of the others is still worked out and written down.
pub(super) const PORTION: usize = 100;

/// The same of the very first ones, before which nothing ends.
const FIRST_PORTION: usize = 20;

/// How many probes are begun at the end of a round. Those that are over at once take half a millisecond.
const PROBES: usize = 10;

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

    /// What was to be done is not: there is nobody any more to do it.
    pub(super) fn act_on_nothing(&mut self) {
        self.effects.clear();
    }

    /// Takes what came of a step.
    pub(super) fn gather(&mut self, step: FleetStep) {
        self.effects.extend(step.effects);
        self.visible |= step.is_visible || !step.removed.is_empty();
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
        let is_told = |input: &Input| matches!(input, Input::Keeper(..));
        let (told, others): (Vec<_>, Vec<_>) = inputs.into_iter().partition(is_told);
        for input in told {
            self.take(at, input, &mut round);
        }
        // Exits come in storms: whatever the keeper has to say by now belongs to this round, and comes before what
        // is asked for.
        while let Some(Ok(Some((message, descriptor)))) =
            futures_util::FutureExt::now_or_never(self.keeper.recv())
        {
            self.take(at, Input::Keeper(message, descriptor), &mut round);
        }
        for input in others {
            self.take(at, input, &mut round);
        }
        // Who is about to be killed for being late may have ended.
        let is_late = !self.ends.is_empty() && self.fleet.has_late_end(at);
        let most = if is_late { usize::MAX } else { self.ends.ripe(at, self.fleet.ending()) };
        self.hear_ends(at, most, &mut round);
        self.feed(at, FleetInput::Tick, &mut round);
        self.finish(round);
    }

    fn take(&mut self, at: Time, input: Input, round: &mut Round) {
        match input {
            Input::Keeper(FromKeeper::Exited(exited), _) if self.can_wait(&exited) => {
                self.ends.put(at, exited);
            }
            Input::Keeper(message, descriptor) => self.heard(at, &message, descriptor, round),
            Input::Report(Report::Answer(run, answer)) => {
                if let Answer::Probed { role, sequence, .. } | Answer::Unprobed { role, sequence } =
                    answer
                {
                    self.runner.probed(run, role, sequence);
                }
                self.feed(at, FleetInput::Answer(run, answer), round);
            }
            Input::Report(Report::Cleared { project, left }) => {
                self.cleared(&project, left, round);
            }
            Input::Report(Report::Provided) => {
                let containers = self.containers();
                self.feed(at, FleetInput::Provided(containers), round);
            }
            Input::Request(request) => {
                // What somebody wants is decided by what is known. Who only looks may be shown a stop as it was
                // a tenth of a second ago.
                if !matches!(request, Request::Look(_) | Request::Events { .. }) {
                    self.hear_ends(at, usize::MAX, round);
                }
                self.serve(at, request, round);
            }
            Input::Terminate => self.terminate(at, round),
        }
    }

    pub(super) fn heard(
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
        self.hear_ends(at, usize::MAX, round);
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
        let ordered = self.fleet.in_order_of_ending(instances);
        let (first, others) = ordered.split_at(FIRST_PORTION.min(ordered.len()));
        for portion in std::iter::once(first).chain(others.chunks(PORTION)) {
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
        let view = component.view(now());
        // What cannot be told must not be said to have been.
        let has_process = view.body.is_some() && view.doubt.is_none();
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
        // What takes the place of a run does not wait until the run's traces are removed. A container must:
        // it may have the name.
        let (last, first): (Vec<_>, Vec<_>) = round.effects.into_iter().partition(|(_, effect)| {
            matches!(effect, Effect::Forget { run } if !self.runner.has_container(*run))
        });
        let (probes, first): (Vec<_>, Vec<_>) =
            first.into_iter().partition(|(_, effect)| matches!(effect, Effect::Probe { .. }));
        self.probes.extend(probes);
        self.keeper.gather();
        for (instance, effect) in first.into_iter().chain(last) {
            self.perform(&instance, effect);
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
        self.begin_probes();
    }

    fn perform(&mut self, instance: &InstanceId, effect: Effect) {
        crash::point("effect");
        let base_env = self.base_envs.get(&instance.project).cloned().unwrap_or_default();
        if let Err(error) = self.runner.perform(instance, effect, &base_env) {
            tracing::error!(%instance, %error, "the keeper does not take orders");
        }
    }

    /// Begins some of the probes whose turn it is. Others follow in the next rounds, with whatever has happened
    /// by then: a crash does not wait for all those that come due together.
    fn begin_probes(&mut self) {
        for _ in 0..PROBES {
            let Some((instance, effect)) = self.probes.pop_front() else { return };
            let Effect::Probe { run, role, sequence, .. } = &effect else { continue };
            // Since it was due, its run may have ended.
            let component = self.fleet.get(&instance);
            if component.is_some_and(|component| component.awaits(*run, *role, *sequence)) {
                self.perform(&instance, effect);
            }
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
