use std::time::Duration;

use super::*;
use crate::model::container::{HealthTest, HealthcheckSpec};
use crate::model::spec::{CommandSpec, EnvValue, ProcessSpec, SecretRef};

fn process(port: &str) -> ComponentSpec {
    ComponentSpec {
        workload: Workload::Process(ProcessSpec {
            env: BTreeMap::from([("PORT".into(), EnvValue::Plain(port.into()))]),
            ..ProcessSpec::new(CommandSpec::Exec(vec!["./api".into()]), "/srv")
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
            .map(|(name, spec)| ((*name).to_owned(), Arc::new(spec.clone())))
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
    changed.optional = true;
    changed.labels.insert("tier".into(), "front".into());
    let plan =
        plan(&running(&[("api", process("80"))]), &project(&[("api", changed)]), Intent::Reload);
    assert_eq!(
        told(&plan),
        ["update api: changed, without a restart: labels.tier, optional, restart.min_uptime, \
          stop.timeout"]
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

fn container(change: impl FnOnce(&mut ContainerSpec)) -> ComponentSpec {
    let mut spec = ContainerSpec {
        directory: "/srv".into(),
        image: "postgres:16".into(),
        environment: BTreeMap::from([("PORT".into(), EnvValue::Plain("80".into()))]),
        ..ContainerSpec::default()
    };
    change(&mut spec);
    ComponentSpec { workload: Workload::Container(Box::new(spec)), ..ComponentSpec::external() }
}

/// What a change of a running container leads to.
fn changed(after: &ComponentSpec) -> String {
    let before = [("db", container(|_| {}))];
    let plan = plan(&running(&before), &project(&[("db", after.clone())]), Intent::Reload);
    told(&plan).join("\n")
}

#[test]
fn limits_of_a_container_are_changed_while_it_runs() {
    let limited = container(|spec| {
        spec.resources.cpus = Some(500);
        spec.resources.cpu_shares = Some(512);
        spec.resources.cpuset = Some("0".into());
        spec.resources.mem_limit = Some(1 << 30);
        spec.resources.mem_reservation = Some(1 << 20);
        spec.resources.memswap_limit = Some(-1);
        spec.resources.pids_limit = Some(100);
    });
    assert_eq!(
        changed(&limited),
        "update db: changed, without a restart: container.cpu_shares, container.cpus, container.cpuset, container.mem_limit, container.mem_reservation, container.memswap_limit, container.pids_limit"
    );
    let moved = container(|spec| spec.directory = "/elsewhere".into());
    assert_eq!(changed(&moved), "update db: changed, without a restart: container.directory");
}

#[test]
fn anything_else_of_a_container_makes_another_one() {
    let secret = |file: &str| EnvValue::Secret(SecretRef::File(file.into()));
    for (spec, paths) in [
        (container(|spec| spec.image = "postgres:17".into()), "container.image"),
        (
            container(|spec| {
                spec.environment.insert("PORT".into(), EnvValue::Plain("81".into()));
                spec.environment.insert("TOKEN".into(), secret("token"));
            }),
            "container.environment.PORT, container.environment.TOKEN",
        ),
        (
            container(|spec| {
                spec.labels.insert("com.example.tier".into(), "front".into());
                spec.resources.mem_limit = Some(1 << 30);
            }),
            "container.labels.com.example.tier, container.mem_limit",
        ),
        (
            container(|spec| {
                spec.healthcheck = Some(HealthcheckSpec {
                    test: HealthTest::Disabled,
                    interval: None,
                    timeout: None,
                    retries: None,
                    start_period: None,
                    start_interval: None,
                });
            }),
            "container.healthcheck",
        ),
        (
            container(|spec| spec.network = NetworkSpec::Mode("host".into())),
            "container.network_mode",
        ),
        (
            container(|spec| spec.network = NetworkSpec::Networks(Vec::new())),
            "container.network_mode, container.networks",
        ),
        (container(|spec| spec.stop_signal = Some(2)), "container.stop_signal"),
    ] {
        assert_eq!(changed(&spec), format!("restart db: changed: {paths}"));
    }
    // The signal is one of the container's keys; the time to stop is of the component.
    let mut stopped = container(|_| {});
    stopped.stop.timeout = Duration::from_secs(1);
    assert_eq!(changed(&stopped), "update db: changed, without a restart: stop.timeout");
}
