//! Current and desired specs to an ordered, explained plan. Pure.
//!
//! ```text
//!   current: instance ─▶ spec, is it wanted ─┐
//!                                            ├─▶ Plan { steps: create, update, restart, start, remove }
//!   desired: ProjectSpec ────────────────────┘
//! ```
//!
//! What a running program cannot see (probes, restart policy, stop, logs, labels, dependencies, whether it
//! is optional, the number of replicas) is updated in place, and so is what an engine can change of a running container
//! (its resources); everything else needs another run of just that component.
//! An unchanged component is left alone, whatever state it is in (S22); a component that somebody
//! stopped by hand is started again by `apply`, which says "make it so", and not by a reload.
//!
//! Deliberately absent: the carrying out. A plan is shown by `apply --dry-run` exactly as it is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::machine::Change;
use crate::model::container::{ContainerSpec, NetworkSpec};
use crate::model::spec::{ComponentSpec, ProjectSpec, Workload};
use crate::model::{InstanceId, Wanted};

/// An instance as it is.
#[derive(Clone, Debug)]
pub struct Current {
    /// The spec in force.
    pub spec: Arc<ComponentSpec>,
    /// What is asked of it.
    pub wanted: Wanted,
}

/// Whether components that were stopped by hand are started again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intent {
    /// `apply`: make it as declared.
    Apply,
    /// A reload, by hand or because a file has changed.
    Reload,
}

/// What is to be done, in order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Plan {
    /// One step for each component that is touched.
    pub steps: Vec<PlanStep>,
    /// Components that stay as they are.
    pub unchanged: u32,
}

/// One component's part of a plan.
#[derive(Clone, PartialEq, Debug)]
pub struct PlanStep {
    /// What is done.
    pub kind: StepKind,
    /// The component's name.
    pub component: String,
    /// Why, in plain words.
    pub reason: String,
    /// Paths of the keys that differ, such as `env.PORT`; never their values.
    pub changed: Vec<String>,
    /// For the fleet.
    pub changes: Vec<Change>,
}

/// What is done to a component.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum StepKind {
    /// It is new.
    Create,
    /// Changed without a restart.
    Update,
    /// Changed, and started anew.
    Restart,
    /// Unchanged, and started again.
    Start,
    /// Another number of replicas.
    Scale,
    /// It is no longer declared.
    Remove,
}

impl StepKind {
    /// The word in the interface.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Restart => "restart",
            Self::Start => "start",
            Self::Scale => "scale",
            Self::Remove => "remove",
        }
    }
}

impl Plan {
    /// Nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// What the fleet is told.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.steps.iter().flat_map(|step| step.changes.iter().cloned()).collect()
    }
}

/// Compares what is with what is declared.
#[must_use]
pub fn plan(
    current: &BTreeMap<InstanceId, Current>,
    desired: &ProjectSpec,
    intent: Intent,
) -> Plan {
    let mut by_name: BTreeMap<&str, Vec<(&InstanceId, &Current)>> = BTreeMap::new();
    for (instance, known) in current {
        if *instance.project == *desired.name {
            by_name.entry(&instance.component).or_default().push((instance, known));
        }
    }
    let mut plan = Plan::default();
    // What goes, goes first: its ports may be wanted by what comes.
    for (name, instances) in &by_name {
        if !desired.components.contains_key(*name) {
            plan.steps.push(PlanStep {
                kind: StepKind::Remove,
                component: (*name).to_owned(),
                reason: "no longer declared".into(),
                changed: Vec::new(),
                changes: instances.iter().map(|(id, _)| Change::Remove((*id).clone())).collect(),
            });
        }
    }
    for (name, spec) in &desired.components {
        let known = by_name.get(name.as_str()).map_or(&[][..], Vec::as_slice);
        match component_step(&desired.name, name, spec, known, intent) {
            Some(step) => plan.steps.push(step),
            None => plan.unchanged += 1,
        }
    }
    plan
}

fn component_step(
    project: &str,
    name: &str,
    spec: &Arc<ComponentSpec>,
    known: &[(&InstanceId, &Current)],
    intent: Intent,
) -> Option<PlanStep> {
    let missing = (0..spec.replicas)
        .map(|replica| InstanceId::new(project, name, replica))
        .filter(|wanted| !known.iter().any(|(id, _)| *id == wanted))
        .map(|instance| Change::Create(instance, spec.clone()));
    let mut step = PlanStep {
        kind: StepKind::Create,
        component: name.to_owned(),
        reason: "new".into(),
        changed: Vec::new(),
        changes: missing.collect(),
    };
    let Some((_, first)) = known.first() else { return Some(step) };

    let surplus = known.iter().filter(|(id, _)| id.replica >= spec.replicas);
    step.changes.extend(surplus.map(|(id, _)| Change::Remove((*id).clone())));
    let scaled = !step.changes.is_empty();

    // While replicas are replaced one by one their specs differ; each is compared by itself.
    let mut paths = BTreeSet::new();
    let mut needs_run = false;
    for (instance, current) in known.iter().filter(|(id, _)| id.replica < spec.replicas) {
        let differing = differences(&current.spec, spec);
        if !differing.is_empty() {
            let run = differing.iter().any(|path| !is_in_place(path));
            needs_run |= run;
            let make = if run { Change::Replace } else { Change::Update };
            step.changes.push(make((*instance).clone(), spec.clone()));
            paths.extend(differing);
        }
        if intent == Intent::Apply && current.wanted == Wanted::Stopped {
            step.changes.push(Change::Start((*instance).clone()));
        }
    }
    if step.changes.is_empty() {
        return None;
    }
    step.changed = paths.into_iter().collect();
    (step.kind, step.reason) = if needs_run {
        (StepKind::Restart, format!("changed: {}", step.changed.join(", ")))
    } else if scaled {
        let from = first.spec.replicas;
        (StepKind::Scale, format!("replicas: {from} to {}", spec.replicas))
    } else if step.changed.is_empty() {
        (StepKind::Start, "it was stopped by hand".into())
    } else {
        (StepKind::Update, format!("changed, without a restart: {}", step.changed.join(", ")))
    };
    Some(step)
}

/// Keys that a running program cannot see.
const IN_PLACE: [&str; 11] = [
    "depends_on",
    "labels",
    "logs",
    "oneshot",
    "optional",
    "ports",
    "probes",
    "profiles",
    "replicas",
    "restart",
    "stop",
];

/// Keys below `container` that an engine changes while the container runs; and where the manifest lies,
/// which only the next launch asks.
const IN_PLACE_OF_CONTAINERS: [&str; 8] = [
    "cpu_shares",
    "cpus",
    "cpuset",
    "directory",
    "mem_limit",
    "mem_reservation",
    "memswap_limit",
    "pids_limit",
];

fn is_in_place(path: &str) -> bool {
    let mut keys = path.split('.');
    match (keys.next(), keys.next()) {
        (Some("container"), Some(key)) => IN_PLACE_OF_CONTAINERS.contains(&key),
        (Some(top), _) => IN_PLACE.contains(&top),
        (None, _) => false,
    }
}

/// The paths, in the words of the manifest, at which two specs differ.
fn differences(old: &ComponentSpec, new: &ComponentSpec) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    if *old == *new {
        return paths;
    }
    compare("", &as_written(old), &as_written(new), &mut paths);
    if paths.is_empty() {
        // They differ in a way that the words do not show; better one restart too many than none.
        let what = match new.workload {
            Workload::Container(_) => "container",
            Workload::Process(_) | Workload::External => "command",
        };
        paths.insert(what.into());
    }
    paths
}

/// A spec as nested mappings whose keys are those of the manifest.
fn as_written(spec: &ComponentSpec) -> Value {
    let mut written = serde_json::to_value(spec).unwrap_or_default();
    if let Value::Object(map) = &mut written {
        map.remove("workload");
        match &spec.workload {
            Workload::Process(process) => {
                let process = serde_json::to_value(process).unwrap_or_default();
                if let Value::Object(process) = process {
                    map.extend(process);
                }
            }
            Workload::Container(container) => {
                map.insert("container".into(), container_as_written(container));
                // Said among the container's own keys, if it is said at all.
                if let Some(Value::Object(stop)) = map.get_mut("stop") {
                    stop.remove("signal");
                }
            }
            Workload::External => {
                map.insert("external".into(), Value::Bool(true));
            }
        }
    }
    written
}

/// A connection is `network_mode` or `networks` by their names; everything else is called as it is.
fn container_as_written(container: &ContainerSpec) -> Value {
    let mut written = serde_json::to_value(container).unwrap_or_default();
    if let Value::Object(map) = &mut written {
        map.remove("network");
        match &container.network {
            NetworkSpec::Mode(mode) => {
                map.insert("network_mode".into(), Value::String(mode.clone()));
            }
            NetworkSpec::Networks(all) => {
                let value = serde_json::to_value(all).unwrap_or_default();
                map.insert("networks".into(), value);
            }
        }
    }
    written
}

fn compare(path: &str, old: &Value, new: &Value, paths: &mut BTreeSet<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) if depth(path) < deepest(path) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let (before, after) = (old.get(key), new.get(key));
                compare(
                    &below,
                    before.unwrap_or(&Value::Null),
                    after.unwrap_or(&Value::Null),
                    paths,
                );
            }
        }
        (old, new) if old != new => {
            paths.insert(path.to_owned());
        }
        _ => {}
    }
}

/// How many keys a path has at the most.
fn deepest(path: &str) -> usize {
    if path == "container" || path.starts_with("container.") { 3 } else { 2 }
}

fn depth(path: &str) -> usize {
    if path.is_empty() { 0 } else { path.split('.').count() }
}

#[cfg(test)]
mod tests;
