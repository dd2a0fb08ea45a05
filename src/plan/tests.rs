use std::time::Duration;

use super::*;
use crate::model::spec::{CommandSpec, EnvValue, ProcessSpec};

fn process(port: &str) -> ComponentSpec {
    ComponentSpec {
        workload: Workload::Process(ProcessSpec {
            command: CommandSpec::Exec(vec!["./api".into()]),
            working_dir: "/srv".into(),
            env: BTreeMap::from([("PORT".into(), EnvValue::Plain(port.into()))]),
            user: None,
            group: None,
            umask: None,
            nice: None,
            rlimits: BTreeMap::new(),
        }),
        ..ComponentSpec::external()
    }
}

fn project(components: &[(&str, ComponentSpec)]) -> ProjectSpec {
    ProjectSpec {
        name: "shop".into(),
        manifest: "/srv/stigmer.yaml".into(),
        info: Vec::new(),
        components: components
            .iter()
            .map(|(name, spec)| ((*name).to_owned(), spec.clone()))
            .collect(),
    }
}

fn running(components: &[(&str, ComponentSpec)]) -> BTreeMap<InstanceId, Current> {
    let mut current = BTreeMap::new();
    for (name, spec) in components {
        for replica in 0..spec.replicas {
            let spec = Arc::new(spec.clone());
            current.insert(
                InstanceId::new("shop", name, replica),
                Current { spec, wanted: Wanted::Running },
            );
        }
    }
    current
}

/// `kind component: reason`, a line a step.
fn told(plan: &Plan) -> Vec<String> {
    plan.steps
        .iter()
        .map(|step| format!("{} {}: {}", step.kind.as_str(), step.component, step.reason))
        .collect()
}

#[test]
fn an_unchanged_manifest_is_an_empty_plan() {
    let components = [("api", process("80")), ("db", ComponentSpec::external())];
    let plan = plan(&running(&components), &project(&components), Intent::Apply);
    assert!(plan.is_empty());
    assert_eq!(plan.unchanged, 2);
}

#[test]
fn what_a_program_cannot_see_is_updated_in_place() {
    let mut changed = process("80");
    changed.restart.min_uptime = Duration::from_secs(3);
    changed.stop.timeout = Duration::from_secs(1);
    changed.labels.insert("tier".into(), "front".into());
    let plan =
        plan(&running(&[("api", process("80"))]), &project(&[("api", changed)]), Intent::Reload);
    assert_eq!(
        told(&plan),
        ["update api: changed, without a restart: labels.tier, restart.min_uptime, stop.timeout"]
    );
    assert!(matches!(&*plan.changes(), [Change::Update(..)]));
}

#[test]
fn anything_else_restarts_just_that_component() {
    let before = [("api", process("80")), ("web", process("90"))];
    let after = [("api", process("81")), ("web", process("90"))];
    let plan = plan(&running(&before), &project(&after), Intent::Reload);
    assert_eq!(told(&plan), ["restart api: changed: env.PORT"]);
    assert_eq!(plan.unchanged, 1);
    // The key is named, its value is not: it may be a secret that was pasted.
    assert!(!told(&plan)[0].contains("81"));
}

#[test]
fn new_removed_and_scaled() {
    let mut two = process("80");
    two.replicas = 2;
    let before = [("api", process("80")), ("old", process("1"))];
    let after = [("api", two.clone()), ("new", process("2"))];
    let up = plan(&running(&before), &project(&after), Intent::Reload);
    assert_eq!(
        told(&up),
        ["remove old: no longer declared", "scale api: replicas: 1 to 2", "create new: new"]
    );
    let down = plan(&running(&[("api", two)]), &project(&[("api", process("80"))]), Intent::Reload);
    assert_eq!(told(&down), ["scale api: replicas: 2 to 1"]);
    assert!(down.changes().contains(&Change::Remove(InstanceId::new("shop", "api", 1))));
}

#[test]
fn what_was_stopped_by_hand_is_started_by_apply_and_not_by_reload() {
    let components = [("api", process("80"))];
    let mut current = running(&components);
    for known in current.values_mut() {
        known.wanted = Wanted::Stopped;
    }
    let applied = plan(&current, &project(&components), Intent::Apply);
    assert_eq!(told(&applied), ["start api: it was stopped by hand"]);
    assert!(plan(&current, &project(&components), Intent::Reload).is_empty());
}

#[test]
fn other_projects_are_not_touched() {
    let mut current = running(&[("api", process("80"))]);
    let stranger = Current { spec: Arc::new(process("1")), wanted: Wanted::Running };
    current.insert(InstanceId::new("other", "api", 0), stranger);
    assert!(plan(&current, &project(&[("api", process("80"))]), Intent::Apply).is_empty());
}

#[test]
fn an_external_that_becomes_a_process_is_started_anew() {
    let before = [("db", ComponentSpec::external())];
    let plan = plan(&running(&before), &project(&[("db", process("80"))]), Intent::Reload);
    assert_eq!(plan.steps[0].kind, StepKind::Restart);
}
