//! When what was asked for is reached, and when it will not be.
//!
//! ```text
//!   Up:    ready, or completed ─▶ reached      failed, unhealthy for good ─▶ missed
//!          anything else ─▶ under way; missed once everything else is settled, and it
//!                           has since been restarted three times, or waits for what is missed
//!   Down:  stopped ─▶ reached                  Gone: not there any more ─▶ reached
//!   any:   something of it takes no SIGKILL ─▶ missed
//! ```
//!
//! What has crashed since is reached once it is stable, and not as soon as it has been launched again
//! (S54). What has no probe to tell is given a moment in which to fail: most programs that cannot work say
//! so at once. A crash loop takes five minutes until it is `failed`; nobody wants to look at a command for so long.
//! Three restarts while everything that it might need is up are enough to say so. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::v1::{Failure, Outcome};
use crate::home::Home;
use crate::machine::phase::{Health, Stability};
use crate::machine::{Component, Phase, Wish};
use crate::model::spec::{RestartPolicy, Workload};
use crate::model::{InstanceId, State, Time};
use crate::supervisor::World;

/// Restarts, with everything else settled, after which a component will not come up soon.
const TOO_OFTEN: u64 = 3;

/// How long a component without a probe must have been alive.
const MOMENT: Duration = Duration::from_millis(250);

/// What a command wants of its components.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Aim {
    /// Ready, or run to the end.
    Up,
    /// Stopped.
    Down,
    /// Not there any more.
    Gone,
}

/// How one component stands towards the aim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Reached,
    Missed,
    /// Waits for another component.
    Held,
    UnderWay,
}

/// What a command waits for.
#[derive(Clone, Debug)]
pub(super) struct Goal {
    aim: Aim,
    instances: Vec<InstanceId>,
    /// Projects that are to be gone as a whole, with what belongs to none of their components.
    projects: Vec<String>,
    /// How often each had been restarted when the command was given.
    restarts_before: Option<BTreeMap<InstanceId, u64>>,
    /// When to look again, though nothing may have happened by then.
    again: Option<Time>,
    /// How often each that is under way had been restarted when everything else was settled.
    restarts_then: Option<BTreeMap<InstanceId, u64>>,
}

impl Goal {
    pub(super) fn new(aim: Aim, instances: Vec<InstanceId>) -> Self {
        let projects = Vec::new();
        Self { aim, instances, projects, restarts_before: None, again: None, restarts_then: None }
    }

    /// The end of whole projects.
    pub(super) fn end_of(projects: Vec<String>, instances: Vec<InstanceId>) -> Self {
        Self { projects, ..Self::new(Aim::Gone, instances) }
    }

    pub(super) fn instances(&self) -> &[InstanceId] {
        &self.instances
    }

    /// Whether it is that something ends.
    pub(super) fn is_of_ends(&self) -> bool {
        self.aim != Aim::Up
    }

    /// When to look again, though nothing may have happened by then.
    pub(super) const fn again(&self) -> Option<Time> {
        self.again
    }

    /// Looks at the components; gives the outcome once there is one.
    pub(super) fn look(&mut self, world: &World<'_>, home: &Home) -> Option<Outcome> {
        self.again = None;
        // Whoever is to end and has not decides alone: with thousands, most looks end here.
        let is_ending = |instance| leaving(self.aim, instance, world) == Standing::UnderWay;
        if self.is_of_ends() && self.instances.iter().any(is_ending) {
            return None;
        }
        let restarts =
            |instance: &InstanceId| world.fleet.get(instance).map_or(0, Component::restarts_total);
        self.restarts_before.get_or_insert_with(|| {
            self.instances.iter().map(|one| (one.clone(), restarts(one))).collect()
        });
        let mut standings = Vec::with_capacity(self.instances.len());
        for instance in self.instances.clone() {
            let standing = self.standing(&instance, world);
            standings.push((instance, standing));
        }
        let is_missed = standings.iter().any(|(_, standing)| *standing == Standing::Missed);
        if !is_missed && self.projects.iter().any(|name| world.projects.contains_key(name)) {
            return None;
        }
        let under_way = |(_, standing): &&(InstanceId, Standing)| *standing == Standing::UnderWay;
        // Where nothing but crash loops moves, they are what everything else waits for.
        let loops = standings.iter().filter(under_way).all(|(instance, _)| {
            self.aim == Aim::Up && world.fleet.get(instance).is_some_and(is_looping)
        });
        if !loops {
            self.restarts_then = None;
            return None;
        }
        let attempts =
            |instance: &InstanceId| world.fleet.get(instance).map_or(0, Component::attempts);
        let then = self.restarts_then.get_or_insert_with(|| {
            let moving = standings.iter().filter(under_way);
            moving.map(|(instance, _)| (instance.clone(), attempts(instance))).collect()
        });
        let tried = standings.iter().filter(under_way).all(|(instance, _)| {
            let since = then.entry(instance.clone()).or_insert_with(|| attempts(instance));
            attempts(instance) >= *since + TOO_OFTEN
        });
        if !tried {
            return None;
        }
        let missed = standings.iter().filter(|(_, standing)| *standing != Standing::Reached);
        let (optional, needed): (Vec<_>, Vec<_>) =
            missed.map(|(instance, _)| instance).partition(|instance| is_optional(instance, world));
        let told = |missed: Vec<&InstanceId>| {
            missed.into_iter().map(|instance| failure(instance, world, home)).collect()
        };
        Some(outcome(told(needed), told(optional)))
    }

    fn standing(&mut self, instance: &InstanceId, world: &World<'_>) -> Standing {
        if self.is_of_ends() {
            return leaving(self.aim, instance, world);
        }
        let Some(component) = world.fleet.get(instance) else { return Standing::Reached };
        if component.is_stuck() {
            return Standing::Missed;
        }
        if world.fleet.awaits_turn(instance) {
            return Standing::UnderWay;
        }
        match up(component) {
            Standing::Held if is_coming(instance, world) => Standing::UnderWay,
            Standing::Reached => self.trusted(instance, component, world.now),
            standing => standing,
        }
    }

    /// Whether what looks as it should may be believed.
    fn trusted(&mut self, instance: &InstanceId, component: &Component, now: Time) -> Standing {
        let Phase::Alive(alive) = component.phase() else { return Standing::Reached };
        let before = self.restarts_before.as_ref().and_then(|before| before.get(instance));
        if component.restarts_total() > before.copied().unwrap_or(0) {
            return match alive.run.stability {
                Stability::Stable => Standing::Reached,
                Stability::Pending(_) => Standing::UnderWay,
            };
        }
        let probes = &component.spec().probes;
        let tells = probes.startup.is_some() || probes.readiness.is_some();
        let settled = alive.run.launched_at + MOMENT;
        if tells || alive.run.is_external() || settled <= now {
            return Standing::Reached;
        }
        self.again = Some(self.again.map_or(settled, |again| again.max(settled)));
        Standing::UnderWay
    }
}

/// How one that is to end stands.
fn leaving(aim: Aim, instance: &InstanceId, world: &World<'_>) -> Standing {
    match world.fleet.get(instance) {
        None => Standing::Reached,
        Some(component) if component.is_stuck() => Standing::Missed,
        Some(_) if aim == Aim::Gone => Standing::UnderWay,
        Some(component) if matches!(component.phase(), Phase::Stopped { .. }) => Standing::Reached,
        Some(component) => down(component),
    }
}

/// What others run cannot be stopped; what has failed does not run.
fn down(component: &Component) -> Standing {
    let is_external = matches!(component.spec().workload, Workload::External);
    if is_external || matches!(component.phase(), Phase::Failed { .. }) {
        Standing::Reached
    } else {
        Standing::UnderWay
    }
}

/// Whether something that it waits for is up, and only has to pass its next probe.
fn is_coming(instance: &InstanceId, world: &World<'_>) -> bool {
    world.fleet.unmet(instance).iter().any(|(name, _)| {
        world
            .fleet
            .iter()
            .filter(|(other, _)| other.project == instance.project && *other.component == **name)
            .any(|(_, component)| component.is_ready() && up(component) == Standing::Reached)
    })
}

fn up(component: &Component) -> Standing {
    if component.wish() == Wish::Stop {
        // Not asked for, or taken out of the manifest: it should be gone.
        return if component.is_live() { Standing::UnderWay } else { Standing::Reached };
    }
    let spec = component.spec();
    match component.phase() {
        Phase::Stopped { .. } => Standing::Reached,
        Phase::Waiting => Standing::Held,
        Phase::Failed { .. } => Standing::Missed,
        Phase::Alive(alive) => match alive.health {
            Health::Running if spec.oneshot => Standing::UnderWay,
            Health::Running if component.is_ready() => Standing::Reached,
            Health::Unhealthy { .. }
                if matches!(spec.workload, Workload::External)
                    || spec.restart.policy == RestartPolicy::Never =>
            {
                Standing::Missed
            }
            Health::Starting { .. } | Health::Running | Health::Unhealthy { .. } => {
                Standing::UnderWay
            }
        },
        Phase::Launching { .. } | Phase::Ending(_) | Phase::Backoff { .. } => Standing::UnderWay,
    }
}

/// Whether it is in the restarting part of a loop, rather than on its way up for the first time.
fn is_looping(component: &Component) -> bool {
    match component.state() {
        State::Restarting => true,
        State::Starting | State::Running => component.attempts() > 0,
        State::Unhealthy | State::Stopped | State::Failed => false,
    }
}

/// What others wait for is waited for; who fails only earns a warning.
fn is_optional(instance: &InstanceId, world: &World<'_>) -> bool {
    world.fleet.get(instance).is_some_and(|component| component.spec().optional)
}

fn outcome(failures: Vec<Failure>, warnings: Vec<Failure>) -> Outcome {
    Outcome { ok: failures.is_empty(), failures, warnings }
}

/// Why a component is not where it should be, and what to type. The last lines of its log are added
/// outside of the supervisor's loop.
fn failure(instance: &InstanceId, world: &World<'_>, home: &Home) -> Failure {
    let name = instance.display_name();
    let Some(component) = world.fleet.get(instance) else {
        return Failure { component: name, ..Failure::default() };
    };
    let view = component.view(world.now);
    let last_error = || view.last_error.map(|error| error.message.clone());
    let is_waiting = matches!(component.phase(), Phase::Waiting);
    let reason = match component.phase() {
        Phase::Waiting => view.reason.clone(),
        Phase::Failed { message } => Some(message.clone()),
        Phase::Backoff { reason, .. } => Some(reason.clone()),
        Phase::Stopped { .. } | Phase::Launching { .. } | Phase::Alive(_) | Phase::Ending(_) => {
            not_passing(component).or_else(last_error).or_else(|| view.reason.clone())
        }
    };
    let hint = match component.phase() {
        Phase::Waiting => format!("stigmer why {name}"),
        Phase::Failed { .. } => {
            format!("stigmer logs {name}, and when it is mended: stigmer reset {name}")
        }
        Phase::Backoff { .. } => view
            .last_error
            .and_then(|error| error.hint.clone())
            .unwrap_or_else(|| format!("stigmer logs {name}")),
        Phase::Ending(_) if component.is_stuck() => format!("stigmer status {name}"),
        Phase::Stopped { .. } | Phase::Launching { .. } | Phase::Alive(_) | Phase::Ending(_) => {
            format!("stigmer logs {name}")
        }
    };
    let is_external = matches!(component.spec().workload, Workload::External);
    let has_log = !is_external && !is_waiting;
    let log_file = has_log.then(|| home.component_log(instance).to_string_lossy().into_owned());
    Failure {
        component: name,
        state: match view.state {
            // Between two crashes it looks better than it is.
            State::Starting | State::Running if is_looping(component) => State::Restarting,
            state => state,
        }
        .as_str()
        .to_owned(),
        reason: reason.unwrap_or_default(),
        hint,
        log_file: log_file.unwrap_or_default(),
        log_tail: Vec::new(),
    }
}

/// The probe that holds a living component up.
fn not_passing(component: &Component) -> Option<String> {
    crate::model::ProbeRole::ALL.iter().find_map(|role| {
        let run = component.probe(*role)?;
        let last = run.last.as_ref()?;
        let message = last.outcome.as_ref().err()?;
        Some(format!("{role} probe: {message}"))
    })
}
