//! Streams that go on until what was asked for is reached: a plan, events, states, an outcome.
//!
//! ```text
//!   subscribe ─▶ request ─▶ plan ─▶ ( events | status )* ─▶ status ─▶ outcome
//! ```
//!
//! One is subscribed to events before the request is made, so that none of its events is missed. A
//! status is sent when a state has changed, and at most as often as making it costs little.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::Status;

use super::ask::{Chosen, projects};
use super::goal::{Aim, Goal};
use super::pace::Pace;
use super::reply::{ending, refused};
use super::{Messages, Sender, Service, events, stream};
use crate::api::v1::control_request::Action as Asked;
use crate::api::v1::{self, Progress};
use crate::api::view::{self, Extent};
use crate::clock::instant_of;
use crate::logs;
use crate::machine::{Action, Component, Phase};
use crate::model::{InstanceId, StopReason, Wanted};
use crate::plan::Plan;
use crate::sources;
use crate::store::{EventRecord, ProjectRecord};
use crate::supervisor::{Applied, Events, Refusal, Request};

/// A status of `--watch` is not sent more often than this: nobody reads faster.
const LEAST_PAUSE: Duration = Duration::from_millis(40);

/// How many times longer than making a status the pause after it is.
const SHARE: u32 = 15;

/// The longest pause between two statuses, which take much longer to make: with thousands of components, as
/// long as a hundred milliseconds.
const LONGEST_STATUS_PAUSE: Duration = Duration::from_secs(5);

/// Events in one message, at most: each takes some hundred bytes, and what a client takes has its limit.
const TOGETHER: usize = 1000;

/// The first status is not made at once: where thousands of components are to be started or stopped, their
/// supervisor has better things to do, and a few may be done by then.
const FIRST_STATUS: Duration = Duration::from_millis(50);

/// Last lines of the log of a component that failed.
const TAIL: usize = 10;

/// `apply`.
pub(super) fn apply(
    service: &Service,
    request: v1::ApplyRequest,
) -> Result<Messages<Progress>, Status> {
    let manifest = PathBuf::from(&request.manifest);
    if !manifest.is_absolute() {
        return Err(Status::invalid_argument("the path of the manifest must be absolute"));
    }
    let record = ProjectRecord {
        manifest,
        variables: request.variables,
        base_env: request.base_env,
        profiles: request.profiles,
        name_override: Some(request.project).filter(|name| !name.is_empty()),
        ..ProjectRecord::default()
    };
    let extent = Extent::of(request.brief);
    let service = service.clone();
    Ok(stream(move |sender| async move {
        let events = service.handle.events.subscribe();
        let outcome = service.apply(record, request.dry_run).await;
        let Some(applied) = accepted(&sender, outcome).await else { return };
        if request.dry_run || request.no_wait {
            return;
        }
        let all = service.look({
            let project = applied.project.clone();
            move |world, _| instances_of(world, &project, |_| true)
        });
        let Ok(instances) = all.await else { return };
        // What is being removed is waited for, too: it is still there.
        let told = Told { events, projects: vec![applied.project], extent };
        service.follow(sender, Goal::new(Aim::Up, instances), told).await;
    }))
}

/// `reload`.
pub(super) fn reload(
    service: &Service,
    request: v1::ReloadRequest,
) -> Result<Messages<Progress>, Status> {
    let selector = request.selector.unwrap_or_default();
    let known = service.handle.projects.borrow().clone();
    let chosen: Vec<String> =
        projects(&selector, known.iter())?.into_iter().map(str::to_owned).collect();
    let service = service.clone();
    let extent = Extent::of(request.brief);
    Ok(stream(move |sender| async move {
        let events = service.handle.events.subscribe();
        for project in &chosen {
            let outcome = sources::reload(&service.handle, project).await;
            if accepted(&sender, outcome).await.is_none() {
                return;
            }
        }
        let instances = match service.replace_named(&selector).await {
            Ok(instances) => instances,
            Err(status) => return drop(sender.send(Err(status)).await),
        };
        if !request.no_wait {
            let told = Told { events, projects: chosen, extent };
            service.follow(sender, Goal::new(Aim::Up, instances), told).await;
        }
    }))
}

/// `start`, `stop`, `restart`, `reset`, `signal`, `down`.
pub(super) async fn control(
    service: &Service,
    request: v1::ControlRequest,
) -> Result<Messages<Progress>, Status> {
    let events = service.handle.events.subscribe();
    let extent = Extent::of(request.brief);
    let selector = request.selector.clone().unwrap_or_default();
    // A one-shot that is done is done; it runs again where somebody names it.
    let leaves_completed = request.action() == Asked::Start && selector.names.is_empty();
    let chosen = service
        .look(move |world, _| {
            let mut chosen = Chosen::new(&selector, world)?;
            chosen.instances.retain(|instance| {
                let component = world.fleet.get(instance);
                !leaves_completed || !component.is_some_and(has_completed)
            });
            Ok::<_, Status>((chosen.projects, chosen.instances))
        })
        .await??;
    let (chosen_projects, instances) = chosen;
    let (action, aim) = match request.action() {
        Asked::Start => (Action::Start, Aim::Up),
        Asked::Stop => (Action::Stop, Aim::Down),
        Asked::Restart => (Action::Restart, Aim::Up),
        Asked::Reset => (Action::Reset, Aim::Up),
        Asked::Signal => return service.signal(&request.signal, instances).await,
        Asked::Down => {
            if request.selector.is_some_and(|selector| !selector.names.is_empty()) {
                return Err(Status::invalid_argument(
                    "down ends whole projects; to end single components, take them out of the \
                     manifest, or `stigmer stop` them",
                ));
            }
            let (reply, answer) = oneshot::channel();
            let (projects, volumes) = (chosen_projects.clone(), request.volumes);
            let request_down = Request::Down { projects, volumes, reply };
            let instances = service.ask(request_down, answer).await?;
            let goal = Goal::end_of(chosen_projects.clone(), instances);
            let told = Told { events, projects: chosen_projects, extent };
            return Ok(service.progress(request.no_wait, goal, told));
        }
        Asked::Unspecified => return Err(Status::unimplemented("this daemon is older")),
    };
    let (reply, answer) = oneshot::channel();
    let control = Request::Control { action, instances: instances.clone(), reply };
    service.ask(control, answer).await?;
    let told = Told { events, projects: chosen_projects, extent };
    Ok(service.progress(request.no_wait, Goal::new(aim, instances), told))
}

/// `status --watch`.
pub(super) async fn watch(
    service: &Service,
    request: v1::StatusRequest,
) -> Result<Messages<v1::StatusResponse>, Status> {
    let first = service.status_of(&request).await?;
    let service = service.clone();
    Ok(stream(move |sender| async move {
        let mut changes = service.handle.changes.clone();
        let mut next = Ok(first);
        loop {
            let failed = next.is_err();
            if sender.send(next).await.is_err() || failed {
                return;
            }
            let pause = tokio::time::sleep(LEAST_PAUSE);
            tokio::select! {
                alive = changes.changed() => if alive.is_err() { return },
                () = sender.closed() => return,
            }
            pause.await;
            changes.mark_unchanged();
            next = service.status_of(&request).await;
        }
    }))
}

/// Sends the plan or the diagnostics. `None`: there is nothing to follow.
async fn accepted(sender: &Sender<Progress>, outcome: Result<Applied, Refusal>) -> Option<Applied> {
    let applied = match outcome {
        Ok(applied) => applied,
        Err(refusal) => {
            let message = match &refusal {
                Refusal::Manifest(failure) => {
                    let rejected = Some(failure.report.clone());
                    Ok(Progress { rejected, ..Progress::default() })
                }
                Refusal::Taken { .. }
                | Refusal::Store(_)
                | Refusal::Unknown(_)
                | Refusal::Stale
                | Refusal::Ending => Err(refused(&refusal)),
            };
            // Who asked may be gone.
            drop(sender.send(message).await);
            return None;
        }
    };
    let plan = Some(plan(&applied.plan, applied.warnings.clone()));
    let project = applied.project.clone();
    let message = Progress { project, plan, ..Progress::default() };
    sender.send(Ok(message)).await.ok().map(|()| applied)
}

fn plan(from: &Plan, warnings: Vec<String>) -> v1::Plan {
    let step = |step: &crate::plan::PlanStep| v1::PlanStep {
        action: step.kind.as_str().to_owned(),
        component: step.component.clone(),
        reason: step.reason.clone(),
        changed: step.changed.clone(),
    };
    v1::Plan { steps: from.steps.iter().map(step).collect(), unchanged: from.unchanged, warnings }
}

fn has_completed(component: &Component) -> bool {
    matches!(component.phase(), Phase::Stopped { reason: StopReason::Completed })
}

fn instances_of(
    world: &crate::supervisor::World<'_>,
    project: &str,
    keep: impl Fn(&InstanceId) -> bool,
) -> Vec<InstanceId> {
    let all = world.fleet.iter().map(|(instance, _)| instance);
    all.filter(|instance| *instance.project == *project && keep(instance)).cloned().collect()
}

impl Service {
    /// Loads a manifest beside the supervisor's loop and hands it over.
    async fn apply(&self, record: ProjectRecord, dry_run: bool) -> Result<Applied, Refusal> {
        let loading = crate::blocking::spawn(move || {
            let loaded = sources::load(&record);
            (record, loaded)
        });
        let (record, loaded) = loading.await.map_err(|_| Refusal::Ending)?;
        let loaded = Box::new(loaded.map_err(Refusal::Manifest)?);
        let (reply, answer) = oneshot::channel();
        let request = Request::Apply { record: Box::new(record), loaded, dry_run, reply };
        self.ask(request, answer).await.map_err(|_| Refusal::Ending)?
    }

    /// With names, a reload also replaces these; without, it has done its work.
    async fn replace_named(&self, selector: &v1::Selector) -> Result<Vec<InstanceId>, Status> {
        let wanted = selector.clone();
        let look = self.look(move |world, _| {
            let chosen = Chosen::new(&wanted, world)?;
            let running = |instance: &InstanceId| {
                let component = world.fleet.get(instance);
                component.is_some_and(|component| component.wish().wanted() == Wanted::Running)
            };
            Ok::<_, Status>(chosen.instances.into_iter().filter(running).collect::<Vec<_>>())
        });
        let instances = look.await??;
        if !selector.names.is_empty() {
            let (reply, answer) = oneshot::channel();
            let (action, instances) = (Action::Restart, instances.clone());
            self.ask(Request::Control { action, instances, reply }, answer).await?;
        }
        Ok(instances)
    }

    async fn signal(
        &self,
        name: &str,
        instances: Vec<InstanceId>,
    ) -> Result<Messages<Progress>, Status> {
        let Some(signal) = crate::model::exit::signal_number(name) else {
            let text = format!("{name} is not a signal; examples: HUP, SIGUSR1, 15");
            return Err(Status::invalid_argument(text));
        };
        let (reply, answer) = oneshot::channel();
        let request = Request::Signal { signal, instances: instances.clone(), reply };
        let reached = self.ask(request, answer).await?;
        let missed = instances.iter().filter(|instance| !reached.contains(instance));
        let failures: Vec<v1::Failure> = missed
            .map(|instance| v1::Failure {
                component: instance.display_name(),
                reason: "has no process to signal, or none that can be reached".into(),
                hint: format!("stigmer why {}", instance.display_name()),
                ..v1::Failure::default()
            })
            .collect();
        let ok = failures.is_empty();
        let outcome = Some(v1::Outcome { ok, failures, ..v1::Outcome::default() });
        Ok(stream(move |sender| async move {
            drop(sender.send(Ok(Progress { outcome, ..Progress::default() })).await);
        }))
    }

    fn progress(&self, no_wait: bool, goal: Goal, told: Told) -> Messages<Progress> {
        let service = self.clone();
        stream(move |sender| async move {
            if !no_wait {
                service.follow(sender, goal, told).await;
            }
        })
    }

    /// Tells what happens until the goal is reached or missed.
    async fn follow(self, sender: Sender<Progress>, goal: Goal, told: Told) {
        let Told { events, projects, extent } = told;
        let of_goal = goal.instances().iter().cloned().collect();
        let mut follower = Follower {
            service: self,
            sender,
            goal,
            projects,
            extent,
            of_goal,
            shown: BTreeMap::new(),
            show_at: Instant::now() + FIRST_STATUS,
            is_behind: false,
        };
        // An error means that nobody is there any more to be told.
        let _ = follower.run(events).await;
    }
}

/// What is told of a goal.
struct Told {
    /// From before it was asked for, so that nothing of it is missed.
    events: Events,
    /// Those of the goal.
    projects: Vec<String>,
    extent: Extent,
}

/// One stream of progress.
struct Follower {
    service: Service,
    sender: Sender<Progress>,
    goal: Goal,
    projects: Vec<String>,
    extent: Extent,
    of_goal: std::collections::BTreeSet<InstanceId>,
    /// The states that were sent last.
    shown: BTreeMap<InstanceId, (String, bool, Option<String>)>,
    /// When the next status may be made.
    show_at: Instant,
    /// A look was too early to make one.
    is_behind: bool,
}

/// The client is gone.
struct Gone;

impl Follower {
    async fn run(&mut self, mut told: Events) -> Result<(), Gone> {
        let mut changes = self.service.handle.changes.clone();
        let mut pace = Pace::new(Instant::now(), self.goal.is_of_ends());
        loop {
            if pace.next_look().is_some_and(|at| at <= Instant::now()) {
                changes.mark_unchanged();
                let (outcome, cost) = self.look(&mut told).await?;
                if let Some(outcome) = outcome {
                    return self.send(Progress { outcome: Some(outcome), ..self.empty() }).await;
                }
                // What it has seen is shown, also if nothing changes any more.
                let show_at = self.is_behind.then_some(self.show_at);
                pace.has_looked(Instant::now(), cost, show_at, self.goal.again().map(instant_of));
            }
            let next_look = pace.next_look();
            tokio::select! {
                alive = changes.changed() => match alive {
                    Ok(()) => pace.something_changed(),
                    Err(_) => return self.fail(ending()).await,
                },
                event = told.recv() => match event {
                    Some(event) => self.tell(Some(event), &mut told).await?,
                    None => return self.fail(ending()).await,
                },
                () = until(next_look) => {}
                () = self.sender.closed() => return Err(Gone),
            }
        }
    }

    /// Looks once, tells what is new, and gives the outcome if there is one; and how long the supervisor
    /// was kept from its work by it, which the time that a client takes to hear of it is no part of.
    async fn look(&mut self, told: &mut Events) -> Result<(Option<v1::Outcome>, Duration), Gone> {
        // Given back by the look.
        let mut goal = std::mem::replace(&mut self.goal, Goal::new(Aim::Up, Vec::new()));
        let home = self.service.home.clone();
        let (projects, extent) = (self.projects.clone(), self.extent);
        let is_due = self.show_at <= Instant::now();
        let look = self.service.look(move |world, clock| {
            let began = Instant::now();
            let outcome = goal.look(world, &home);
            let cost = began.elapsed();
            let status = (is_due || outcome.is_some()).then(|| {
                let projects: Vec<&str> = projects.iter().map(String::as_str).collect();
                view::status(world, &home, clock, &projects, goal.instances(), extent)
            });
            (goal, status, outcome, cost, began.elapsed())
        });
        let (goal, status, outcome, cost, whole_cost) = match look.await {
            Ok(seen) => seen,
            Err(status) => {
                self.fail(status).await?;
                return Err(Gone);
            }
        };
        self.goal = goal;
        // What led to this comes before it.
        self.tell(None, told).await?;
        self.is_behind = status.is_none();
        if let Some(status) = status {
            let pause = whole_cost.saturating_mul(SHARE);
            self.show_at = Instant::now() + pause.min(LONGEST_STATUS_PAUSE);
            let now: BTreeMap<_, _> = status.components.iter().map(state_of).collect();
            if now != self.shown || outcome.is_some() {
                self.shown = now;
                self.send(Progress { status: Some(status), ..self.empty() }).await?;
            }
        }
        let outcome = match outcome {
            Some(outcome) => Some(with_tails(outcome).await),
            None => None,
        };
        Ok((outcome, cost))
    }

    /// Tells an event and whatever else has been told by now: in one message, since each costs both sides
    /// more than what is in it.
    async fn tell(&self, first: Option<Arc<EventRecord>>, told: &mut Events) -> Result<(), Gone> {
        let mut next = first.or_else(|| told.try_recv().ok());
        let mut happened = Vec::new();
        while let Some(record) = next {
            if self.concerns(&record) {
                happened.push(events::event(&record));
            }
            if happened.len() == TOGETHER {
                let events = std::mem::take(&mut happened);
                self.send(Progress { events, ..self.empty() }).await?;
            }
            next = told.try_recv().ok();
        }
        if happened.is_empty() {
            return Ok(());
        }
        self.send(Progress { events: happened, ..self.empty() }).await
    }

    /// Whether an event is about what is followed.
    fn concerns(&self, record: &EventRecord) -> bool {
        let event = &record.event;
        if event.component.is_empty() {
            return self.projects.contains(&event.project);
        }
        self.of_goal.contains(&InstanceId::new(&event.project, &event.component, event.replica))
    }

    fn empty(&self) -> Progress {
        let project = self.projects.first().cloned().unwrap_or_default();
        Progress { project, ..Progress::default() }
    }

    async fn send(&self, message: Progress) -> Result<(), Gone> {
        self.sender.send(Ok(message)).await.map_err(|_| Gone)
    }

    async fn fail(&self, status: Status) -> Result<(), Gone> {
        self.sender.send(Err(status)).await.map_err(|_| Gone)
    }
}

/// For ever, if there is no such moment.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn state_of(component: &v1::Component) -> (InstanceId, (String, bool, Option<String>)) {
    let instance = InstanceId::new(&component.project, &component.name, component.replica);
    (instance, (component.state.clone(), component.ready, component.reason.clone()))
}

/// Adds the last lines of the logs of what failed.
async fn with_tails(outcome: v1::Outcome) -> v1::Outcome {
    let reading = outcome.clone();
    let read = crate::blocking::spawn(move || {
        let mut outcome = reading;
        let told = outcome.failures.iter_mut().chain(&mut outcome.warnings);
        for failure in told.filter(|failure| !failure.log_file.is_empty()) {
            failure.log_tail = logs::tail(std::path::Path::new(&failure.log_file), TAIL);
        }
        outcome
    });
    read.await.unwrap_or(outcome)
}
