//! What the supervisor owns, in the words of the interface. Pure but for the wall clock that is given.

use std::path::Path;

use super::v1;
use crate::home::Home;
use crate::machine::phase::{ExitRecord, LastError, probe_spec};
use crate::machine::probe::{ProbeRun, Streak};
use crate::machine::{Component, View};
use crate::model::exit::signal_name;
use crate::model::spec::{ComponentSpec, ProbeSpec, Workload};
use crate::model::{Body, Exit, ExitStatus, InstanceId, ProbeRole, State, Time};
use crate::runner::probe::describe;
use crate::supervisor::{Project, World};

/// The version of the JSON's shape.
pub const SCHEMA_VERSION: u32 = 1;

/// One reading of both clocks, by which points on the monotonic one are shown as times of day.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The monotonic clock.
    pub monotonic: Time,
    /// The wall clock at the same moment.
    pub wall: jiff::Timestamp,
}

impl Clock {
    /// RFC 3339 in UTC.
    #[must_use]
    pub fn show(&self, at: Time) -> String {
        let wall = if at >= self.monotonic {
            self.wall.checked_add(at.since(self.monotonic))
        } else {
            self.wall.checked_sub(self.monotonic.since(at))
        };
        wall.unwrap_or(self.wall).to_string()
    }
}

/// Unix nanoseconds as RFC 3339.
#[must_use]
pub fn show_nanos(nanos: i64) -> String {
    jiff::Timestamp::from_nanosecond(nanos.into()).unwrap_or_default().to_string()
}

/// How much is told of each component.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// Everything.
    Whole,
    /// What a table shows, and a command that waits: of thousands, the rest takes as long again to make, to
    /// carry and to read.
    Brief,
}

impl Extent {
    /// What a request asks for.
    #[must_use]
    pub const fn of(brief: bool) -> Self {
        if brief { Self::Brief } else { Self::Whole }
    }
}

/// The status of the selected instances.
#[must_use]
pub fn status(
    world: &World<'_>,
    home: &Home,
    clock: Clock,
    projects: &[&str],
    instances: &[InstanceId],
    extent: Extent,
) -> v1::StatusResponse {
    v1::StatusResponse {
        schema_version: SCHEMA_VERSION,
        daemon: Some(daemon(world)),
        projects: projects
            .iter()
            .filter_map(|name| Some(project(name, world.projects.get(*name)?)))
            .collect(),
        components: instances
            .iter()
            .filter_map(|instance| {
                let found = world.fleet.get(instance)?;
                Some(match extent {
                    Extent::Whole => component(instance, found, home, clock),
                    Extent::Brief => brief(instance, found, clock),
                })
            })
            .collect(),
    }
}

/// Who answers.
#[must_use]
pub fn daemon(world: &World<'_>) -> v1::Daemon {
    let started = i64::try_from(world.keeper.started_at).unwrap_or(i64::MAX);
    v1::Daemon {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: world.keeper.keeper_pid,
        engine_pid: std::process::id(),
        started_at: show_nanos(started),
    }
}

fn project(name: &str, project: &Project) -> v1::Project {
    let record = &project.record;
    v1::Project {
        name: name.to_owned(),
        manifest: Some(v1::Manifest {
            path: text(&record.manifest),
            sha256: record.sha256.clone(),
            generation: record.generation,
            loaded_at: show_nanos(record.loaded_at),
            error: project.error.as_ref().map(|error| v1::ManifestError {
                message: error.message.clone(),
                file: text(&error.file),
                line: error.line,
                column: error.column,
                at: project.error_at.map(show_nanos).unwrap_or_default(),
            }),
        }),
        info: record
            .info
            .iter()
            .map(|(name, value)| v1::InfoLine { name: name.clone(), value: value.clone() })
            .collect(),
    }
}

/// One component, in full.
#[must_use]
pub fn component(
    instance: &InstanceId,
    component: &Component,
    home: &Home,
    clock: Clock,
) -> v1::Component {
    let view = component.view(clock.monotonic);
    let spec = component.spec();
    v1::Component {
        kind: kind(spec).into(),
        probes: Some(probes(component, spec, clock)),
        started_at: view.launched_at.map(|at| clock.show(at)),
        last_exit: component.exits().next().map(|record| exit(record, clock)),
        log_file: match spec.workload {
            Workload::Process(_) | Workload::Container(_) => text(&home.component_log(instance)),
            Workload::External => String::new(),
        },
        ports: spec.ports.iter().map(|port| u32::from(*port)).collect(),
        labels: spec.labels.clone(),
        mtbf_seconds: mtbf(&view),
        ..common(instance, &view, spec, clock)
    }
}

/// One component, as far as a table shows it, and a command that waits for it.
fn brief(instance: &InstanceId, component: &Component, clock: Clock) -> v1::Component {
    let view = component.view(clock.monotonic);
    let spec = component.spec();
    // Who waits is told what is missing.
    let is_waited_for = view.state == State::Running && !view.ready;
    v1::Component {
        probes: is_waited_for.then(|| probes(component, spec, clock)),
        ..common(instance, &view, spec, clock)
    }
}

/// What everybody is told of a component.
fn common(
    instance: &InstanceId,
    view: &View<'_>,
    spec: &ComponentSpec,
    clock: Clock,
) -> v1::Component {
    v1::Component {
        project: instance.project.to_string(),
        name: instance.component.to_string(),
        replica: instance.replica,
        wanted: view.wanted.as_str().into(),
        state: view.state.as_str().into(),
        reason: view.reason.clone(),
        stage: view.stage.map(str::to_owned),
        ready: view.ready,
        pid: view.body.and_then(Body::pid),
        container_id: view.body.and_then(Body::container).map(|id| id.as_str().to_owned()),
        uptime_seconds: view.launched_at.map(|at| clock.monotonic.since(at).as_secs_f64()),
        restarts: Some(restarts(view, spec, clock)),
        last_error: view.last_error.map(|error| last_error(error, clock)),
        waiting_for: view.waiting_for.to_vec(),
        unknown: view.doubt.map(str::to_owned),
        optional: spec.optional,
        ..v1::Component::default()
    }
}

const fn kind(spec: &ComponentSpec) -> &'static str {
    match spec.workload {
        Workload::Process(_) => "process",
        Workload::Container(_) => "container",
        Workload::External => "external",
    }
}

/// Mean time between failures; unknown before the first one.
fn mtbf(view: &View<'_>) -> Option<f64> {
    let failures = u32::try_from(view.failures).ok().filter(|failures| *failures > 0)?;
    Some(view.uptime_total.as_secs_f64() / f64::from(failures))
}

fn restarts(view: &View<'_>, spec: &ComponentSpec, clock: Clock) -> v1::Restarts {
    v1::Restarts {
        total: view.restarts_total,
        in_window: view.restarts_in_window,
        limit: spec.restart.max_restarts,
        window_seconds: spec.restart.window.as_secs_f64(),
        next_at: view.next_restart.map(|at| clock.show(at)),
        last_at: view.last_restart.map(|(at, _)| clock.show(at)),
        last_reason: view.last_restart.map(|(_, reason)| reason.to_owned()),
        next_counts: view.is_next_counted,
    }
}

fn probes(component: &Component, spec: &ComponentSpec, clock: Clock) -> v1::Probes {
    let show = |role| {
        let declared = probe_spec(&spec.probes, role)?;
        Some(probe(component.probe(role), declared, clock))
    };
    v1::Probes {
        startup: show(ProbeRole::Startup),
        liveness: show(ProbeRole::Liveness),
        readiness: show(ProbeRole::Readiness),
    }
}

fn probe(run: Option<&ProbeRun>, spec: &ProbeSpec, clock: Clock) -> v1::Probe {
    let last = run.and_then(|run| run.last.as_ref());
    v1::Probe {
        result: last.map(|last| if last.outcome.is_ok() { "success" } else { "failure" }.into()),
        message: last.and_then(|last| last.outcome.as_ref().err().cloned()),
        at: last.map(|last| clock.show(last.ended)),
        consecutive: run.map_or(0, |run| match run.streak {
            Streak::Successes(count) | Streak::Failures(count) => count,
        }),
        failure_threshold: spec.failure_threshold,
        check: describe(&spec.check),
        duration_seconds: last.map(|last| last.ended.since(last.started).as_secs_f64()),
    }
}

/// How a run ended.
#[must_use]
pub fn exit(record: &ExitRecord, clock: Clock) -> v1::Exit {
    let Exit { status, oom } = record.exit;
    let (code, signal) = match status {
        ExitStatus::Code(code) => (Some(code), None),
        ExitStatus::Signal(signal) => (None, Some(signal_name(signal))),
        ExitStatus::Unknown => (None, None),
    };
    v1::Exit { code, signal, oom, at: clock.show(record.at) }
}

fn last_error(error: &LastError, clock: Clock) -> v1::LastError {
    v1::LastError {
        reason: error.reason.clone(),
        message: error.message.clone(),
        at: clock.show(error.at),
        hint: error.hint.clone(),
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
