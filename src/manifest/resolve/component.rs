//! One component.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::at::At;
use super::container::Owner;
use super::context::Context;
use super::declared::Declared;
use super::graph::Join;
use super::listening::Listening;
use super::sockets::{self, Sockets};
use super::{container, probe, process, rules, unfit};
use crate::manifest::report::Place;
use crate::manifest::schema::component::{
    Component, ConditionName, DependsOn, Policy, Restart, RestartOrPolicy,
};
use crate::manifest::tree::{Entry, Node, short};
use crate::manifest::validate::Mistake;
use crate::manifest::{de, merge};
use crate::model::container::Protocol;
use crate::model::socket::SocketSpec;
use crate::model::spec::{ComponentSpec, Condition, Workload};

/// A component with what the checks between components need.
pub(super) struct Sketch {
    pub(super) name: String,
    /// Of its name.
    pub(super) place: Place,
    /// None of its profiles is missing.
    pub(super) enabled: bool,
    pub(super) oneshot: bool,
    pub(super) dependencies: Vec<Dependency>,
    /// Ports of this machine.
    pub(super) listening: Vec<Listening>,
    /// Unix sockets that are opened for it.
    pub(super) files: Vec<(PathBuf, Place)>,
    /// Components whose namespaces it shares.
    pub(super) joins: Vec<Join>,
    /// The default name of the image that is built for it.
    pub(super) built: Option<(String, Place)>,
    /// None if it cannot be used.
    pub(super) spec: Option<ComponentSpec>,
}

pub(super) struct Dependency {
    pub(super) name: String,
    pub(super) condition: Condition,
    pub(super) place: Place,
}

/// What was taken out because of mistakes, so that what is missing may have been meant.
#[derive(Clone, Copy)]
pub(super) struct Damage {
    /// Keys of the component itself.
    component: bool,
    /// What says which image.
    image: bool,
    /// Something of its sockets.
    sockets: bool,
}

impl Damage {
    pub(super) fn of(mistakes: &[Mistake]) -> Self {
        Self {
            component: mistakes.iter().any(|mistake| mistake.path.len() < 2),
            image: mistakes.iter().any(|mistake| {
                mistake.path.first().is_some_and(|first| first == "container")
                    && mistake.path.len() < 3
            }),
            sockets: mistakes
                .iter()
                .any(|mistake| mistake.path.first().is_some_and(|first| first == "sockets")),
        }
    }
}

/// What a component is resolved in.
pub(super) struct Surroundings<'a> {
    pub(super) defaults: Option<&'a Node>,
    pub(super) profiles: &'a [String],
    pub(super) declared: &'a mut Declared,
}

pub(super) fn component(
    context: &mut Context<'_>,
    entry: &Entry,
    mut node: Node,
    damage: Damage,
    surroundings: &mut Surroundings<'_>,
) -> Sketch {
    merge::lengthen(&mut node);
    let own_policy = node.get("restart").is_some_and(|restart| restart.get("policy").is_some());
    if let Some(defaults) = surroundings.defaults {
        merge::merge(&mut node, defaults);
    }
    let mut sketch = Sketch {
        name: entry.key.to_string(),
        place: entry.place,
        enabled: true,
        oneshot: false,
        dependencies: Vec::new(),
        listening: Vec::new(),
        files: Vec::new(),
        joins: Vec::new(),
        built: None,
        spec: None,
    };
    let raw: Component = match de::read(&node) {
        Ok(raw) => raw,
        Err(error) => {
            if !damage.component {
                let error = unfit(context, error, entry.place);
                context.push(error);
            }
            return sketch;
        }
    };
    let at = At::new(&node, entry.place);
    let own_profiles: BTreeSet<String> =
        raw.profiles.iter().flatten().map(|profile| profile.0.0.clone()).collect();
    sketch.enabled = own_profiles.is_empty()
        || surroundings.profiles.iter().any(|profile| own_profiles.contains(profile));
    sketch.oneshot = raw.oneshot.unwrap_or_default();
    sketch.dependencies = dependencies(at.key("depends_on"), raw.depends_on.as_ref());
    sketch.listening = ports(context, at.key("ports"), &raw);
    let Sockets { specs: sockets, listening, files } =
        sockets::sockets(context, at.key("sockets"), &raw, damage.sockets);
    sketch.listening.extend(listening);
    sketch.files = files;
    let mut resolving = Resolving { declared: surroundings.declared, own_policy, damage, sockets };
    sketch.spec = spec(context, at, raw, &mut sketch, &mut resolving, own_profiles);
    sketch
}

struct Resolving<'a> {
    declared: &'a mut Declared,
    /// The component itself names the policy, rather than the defaults.
    own_policy: bool,
    damage: Damage,
    sockets: BTreeMap<String, SocketSpec>,
}

fn spec(
    context: &mut Context<'_>,
    at: At<'_>,
    mut raw: Component,
    sketch: &mut Sketch,
    resolving: &mut Resolving<'_>,
    profiles: BTreeSet<String>,
) -> Option<ComponentSpec> {
    let restart = match raw.restart.take() {
        None => Restart::default(),
        Some(RestartOrPolicy::Policy(policy)) => {
            Restart { policy: Some(policy), ..Restart::default() }
        }
        Some(RestartOrPolicy::Full(full)) => *full,
    };
    let oneshot = sketch.oneshot;
    let restart_spec =
        rules::restart(context, at.key("restart"), &restart, oneshot, resolving.own_policy);
    let is_container = raw.container.is_some();
    let probes = raw.probes.take().unwrap_or_default();
    let probes = probe::probes(context, at.key("probes"), probes, is_container);
    let (stop, stop_signal) = rules::stop(context, at, &raw);
    let logs = raw.logs.take().map(|raw| rules::logs(context, at.key("logs"), &raw));
    let replicas = raw.replicas.unwrap_or(1);
    let optional = raw.optional.unwrap_or_default();
    let labels: BTreeMap<String, String> = raw
        .labels
        .take()
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| (key, value.0))
        .collect();
    let mut workload = workload(context, at, &raw, sketch, &restart, resolving)?;
    let mut ports: Vec<u16> = sketch.listening.iter().map(|one| one.port).collect();
    match &mut workload {
        Workload::Container(container) => {
            container.stop_signal = stop_signal;
            // Those of the host, by which it is reached.
            let tcp = |one: &&Listening| one.protocol == Protocol::Tcp;
            ports = sketch.listening.iter().filter(tcp).map(|one| one.port).collect();
            let mut seen = BTreeSet::new();
            ports.retain(|port| seen.insert(*port));
        }
        Workload::Process(process) => {
            if replicas > 1 && raw.ports.as_ref().is_some_and(|ports| !ports.is_empty()) {
                context.warning(
                    at.key("ports").key_place(),
                    format!(
                        "{replicas} replicas of one program listen on the same port only with SO_REUSEPORT"
                    ),
                    "let them share one of `sockets`, or take `ports` out if each replica finds a port of its own, by STIGMER_REPLICA",
                );
            }
            process.sockets = std::mem::take(&mut resolving.sockets);
            // On several addresses a port is one all the same.
            let mut seen = BTreeSet::new();
            ports.retain(|port| seen.insert(*port));
        }
        Workload::External => {}
    }
    Some(ComponentSpec {
        workload,
        replicas,
        oneshot,
        optional,
        depends_on: sketch
            .dependencies
            .iter()
            .map(|dependency| (dependency.name.clone(), dependency.condition))
            .collect(),
        probes,
        restart: restart_spec,
        stop,
        logs: logs.unwrap_or_default(),
        labels,
        profiles,
        ports,
    })
}

fn workload(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: &Component,
    sketch: &mut Sketch,
    restart: &Restart,
    resolving: &mut Resolving<'_>,
) -> Option<Workload> {
    let name = short(&sketch.name);
    if raw.external.unwrap_or_default() {
        for (key, given, why) in [
            ("command", raw.command.is_some(), "others start it"),
            ("container", raw.container.is_some(), "others start it"),
            ("oneshot", sketch.oneshot, "nothing runs to its end"),
            ("replicas", raw.replicas.unwrap_or(1) > 1, "there is one of it"),
            ("sockets", raw.sockets.is_some(), "others open them"),
        ] {
            if given {
                let message = format!("`{name}` is external and has `{key}`");
                let help = format!("take out `{key}` or `external`: {why}");
                context.error(at.key(key).key_place(), message, "one of the two", help);
            }
        }
        return Some(Workload::External);
    }
    if restart.policy == Some(Policy::Never) && restart.max_restarts.is_some() {
        context.warning(
            at.key("restart").key("max_restarts").place(),
            "`max_restarts` has no effect with the policy `never`",
            "",
        );
    }
    if let Some(inner) = &raw.container {
        misplaced(context, at, raw, &name);
        let mut owner = Owner {
            sketch,
            declared: resolving.declared,
            replicas: raw.replicas.unwrap_or(1),
            without_image: resolving.damage.image,
        };
        let container = container::container(context, at, raw, inner, &mut owner);
        if raw.ports.is_some() && !container::is_on_host(&container) {
            context.error(
                at.key("ports").key_place(),
                format!("`{name}` is a container in a network of its own"),
                "`ports` below `container:`",
                "a port is published there, as `ports: [\"8080:80\"]`",
            );
        }
        return Some(Workload::Container(Box::new(container)));
    }
    let missing = raw.command.is_none();
    if missing && !resolving.damage.component {
        let message = format!("`{name}` has no command");
        let help = "add `command: [program, argument]`, or `container: { image: ... }`";
        let expected = "`command`, `container`, or `external: true`";
        context.error(sketch.place, message, expected, help);
    }
    let command =
        raw.command.as_ref().and_then(|raw| process::command(context, at.key("command"), raw));
    // Without a command too, so that the other mistakes are found.
    let missing = command.is_none();
    let command = command.unwrap_or(crate::model::spec::CommandSpec::Shell(String::new()));
    let process = process::process(context, at, raw, command);
    (!missing).then_some(Workload::Process(process))
}

/// Keys of a process beside `container:`. Those of the defaults do not come here.
fn misplaced(context: &mut Context<'_>, at: At<'_>, raw: &Component, name: &str) {
    let below = "write it below `container:`";
    for (key, given, help) in [
        (
            "command",
            raw.command.is_some(),
            "to replace the image's command, write it below `container:`",
        ),
        ("working_dir", raw.working_dir.is_some(), below),
        ("user", raw.user.is_some(), below),
        ("group", raw.group.is_some(), "write `user: \"USER:GROUP\"` below `container:`"),
        ("umask", raw.umask.is_some(), "take it out: what runs in the image sets its own"),
        ("nice", raw.nice.is_some(), "take it out; `cpu_shares` below `container:` gives a weight"),
        ("rlimits", raw.rlimits.is_some(), "write `ulimits` below `container:`"),
        (
            "sockets",
            raw.sockets.is_some(),
            "publish a port instead: `ports: [\"8080:80\"]` below `container:`",
        ),
    ] {
        if given {
            let message = format!("`{name}` is a container, and `{key}` here is for processes");
            context.error(at.key(key).key_place(), message, "one of the two", help);
        }
    }
}

fn dependencies(at: At<'_>, raw: Option<&DependsOn>) -> Vec<Dependency> {
    let places = at.children();
    match raw {
        None => Vec::new(),
        Some(DependsOn::List(names)) => names
            .iter()
            .enumerate()
            .map(|(index, name)| Dependency {
                name: name.0.0.clone(),
                condition: Condition::Started,
                place: at.item(index).place(),
            })
            .collect(),
        Some(DependsOn::Map(map)) => map
            .iter()
            .map(|(name, condition)| Dependency {
                name: name.clone(),
                condition: match condition {
                    ConditionName::Started => Condition::Started,
                    ConditionName::Healthy => Condition::Healthy,
                    ConditionName::Ready => Condition::Ready,
                    ConditionName::Completed => Condition::Completed,
                },
                place: places.get(name.as_str()).map_or(at.key_place(), |at| at.key_place()),
            })
            .collect(),
    }
}

fn ports(context: &mut Context<'_>, at: At<'_>, raw: &Component) -> Vec<Listening> {
    let mut found: Vec<Listening> = Vec::new();
    for (index, raw) in raw.ports.iter().flatten().enumerate() {
        let at = at.item(index);
        let port = context.port(at, raw);
        if found.iter().any(|known| known.port == port) {
            context.error(at.place(), format!("port {port} is in this list twice"), "", "");
        } else {
            let protocol = Protocol::Tcp;
            found.push(Listening { port, host_ip: None, protocol, place: at.place() });
        }
    }
    found
}
