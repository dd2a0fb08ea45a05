//! From specs back to a manifest that says the same, with every default written out.
//!
//! Invariant: loading what is written gives the spec that it was written from. A `$` is doubled, so that
//! nothing is replaced again. Secrets stay references.

mod container;
mod names;
mod probe;
mod yaml;

use std::collections::BTreeMap;

use serde_yaml::Value;

use super::resolve::rules::exit_text;
use super::units::signal_text;
use crate::model::socket::{ListenAddress, SocketSpec};
use crate::model::spec::{
    CommandSpec, ComponentSpec, EnvValue, LimitSpec, LogSpec, ProcessSpec, ProjectSpec,
    RestartPolicy, RestartSpec, SecretRef, StopSpec, Workload,
};
use names::Names;
use yaml::{Map, duration, pairs, path, print, text, texts};

/// The resolved manifest of a project.
#[must_use]
pub fn to_yaml(project: &ProjectSpec) -> String {
    let mut root = Map::default();
    root.put("project", text(&project.name));
    if !project.info.is_empty() {
        let mut info = Map::default();
        for (key, value) in &project.info {
            info.put(key, text(value));
        }
        root.put("info", info);
    }
    let names = Names::of(project);
    names.declare(project, &mut root);
    let mut components = Map::default();
    for (name, spec) in &project.components {
        components.put(name, component(spec, &names));
    }
    root.put("components", components);
    print(root)
}

/// One component of it, below its name. Networks and volumes have the names that the engine knows.
#[must_use]
pub fn component_to_yaml(name: &str, spec: &ComponentSpec) -> String {
    let mut root = Map::default();
    root.put(name, component(spec, &Names::default()));
    print(root)
}

fn command(command: &CommandSpec) -> Value {
    match command {
        CommandSpec::Exec(argv) => texts(argv),
        CommandSpec::Shell(line) => text(line),
    }
}

fn component(spec: &ComponentSpec, names: &Names) -> Map {
    let mut map = Map::default();
    // The ports of a container are told by what it publishes, if it has a network of its own.
    let mut ports = spec.ports.clone();
    // Its signal is among its own keys: without one the image decides.
    let mut stop = stop(&spec.stop);
    match &spec.workload {
        Workload::External => map.put("external", true),
        Workload::Process(spec) => {
            process(&mut map, spec);
            let of_sockets = |port: &u16| {
                spec.sockets.values().any(|socket| socket.address.port() == Some(*port))
            };
            ports.retain(|port| !of_sockets(port));
        }
        Workload::Container(container) => {
            map.put("container", container::container(container, names));
            stop.take_out("signal");
            if !container.ports.is_empty() {
                ports.clear();
            }
        }
    }
    if spec.replicas != 1 {
        map.put("replicas", spec.replicas);
    }
    if spec.oneshot {
        map.put("oneshot", true);
    }
    if spec.optional {
        map.put("optional", true);
    }
    if !spec.depends_on.is_empty() {
        let mut on = Map::default();
        for (name, condition) in &spec.depends_on {
            on.put(name, condition.as_str());
        }
        map.put("depends_on", on);
    }
    probe::probes(&mut map, spec);
    map.put("restart", restart(&spec.restart));
    map.put("stop", stop);
    map.put("logs", logs(&spec.logs));
    if !spec.labels.is_empty() {
        map.put("labels", pairs(&spec.labels));
    }
    if !spec.profiles.is_empty() {
        map.put("profiles", texts(&spec.profiles));
    }
    if !ports.is_empty() {
        map.put("ports", ports.iter().map(|port| Value::from(*port)).collect::<Vec<_>>());
    }
    map
}

/// Variables; secrets stay references.
fn environment(variables: &BTreeMap<String, EnvValue>) -> Map {
    let mut env = Map::default();
    for (name, value) in variables {
        match value {
            EnvValue::Plain(plain) => env.put(name, text(plain)),
            EnvValue::Secret(secret) => {
                let source = match secret {
                    SecretRef::File(file) => ("file", path(file)),
                    SecretRef::Env(name) => ("env", text(name)),
                    SecretRef::Command(argv) => ("command", texts(argv)),
                };
                env.put(name, Map::of([("secret", Map::of([source]).into())]));
            }
        }
    }
    env
}

/// Soft and hard limits by their names.
fn limits<'a>(all: impl IntoIterator<Item = (String, &'a LimitSpec)>) -> Map {
    let mut limits = Map::default();
    for (name, LimitSpec { soft, hard }) in all {
        let value = |limit: Option<u64>| limit.map_or(Value::from("unlimited"), Value::from);
        limits.put(&name, Map::of([("soft", value(*soft)), ("hard", value(*hard))]));
    }
    limits
}

fn logs(spec: &LogSpec) -> Map {
    let mut map = Map::of([
        ("max_size", spec.max_size.into()),
        ("max_files", spec.max_files.into()),
        ("compress", spec.compress.into()),
    ]);
    if let Some(age) = spec.max_age {
        map.put("max_age", duration(age));
    }
    map
}

fn process(map: &mut Map, spec: &ProcessSpec) {
    map.put("command", command(&spec.command));
    map.put("working_dir", path(&spec.working_dir));
    if !spec.env.is_empty() {
        map.put("env", environment(&spec.env));
    }
    if let Some(user) = &spec.user {
        map.put("user", text(user));
    }
    if let Some(group) = &spec.group {
        map.put("group", text(group));
    }
    if let Some(umask) = spec.umask {
        map.put("umask", format!("{umask:04o}"));
    }
    if let Some(nice) = spec.nice {
        map.put("nice", nice);
    }
    if !spec.rlimits.is_empty() {
        let named = |(name, limit)| (format!("{name:?}").to_ascii_lowercase(), limit);
        map.put("rlimits", limits(spec.rlimits.iter().map(named)));
    }
    if !spec.sockets.is_empty() {
        let mut sockets = Map::default();
        for (name, spec) in &spec.sockets {
            sockets.put(name, socket(spec));
        }
        map.put("sockets", sockets);
    }
}

fn socket(spec: &SocketSpec) -> Map {
    let mut map = match &spec.address {
        ListenAddress::Tcp(address) => Map::of([("tcp", address.to_string().into())]),
        ListenAddress::Unix(file) => Map::of([("unix", path(file))]),
    };
    if let Some(mode) = spec.mode {
        map.put("mode", format!("{mode:04o}"));
    }
    map.put("backlog", spec.backlog);
    map
}

fn restart(spec: &RestartSpec) -> Map {
    let policy = match spec.policy {
        RestartPolicy::Always => "always",
        RestartPolicy::OnFailure => "on-failure",
        RestartPolicy::Never => "never",
    };
    let most = spec.max_restarts.map_or(Value::from("unlimited"), Value::from);
    let mut map = Map::of([("policy", policy.into())]);
    // With `never` a limit would only earn a warning.
    if spec.policy != RestartPolicy::Never
        || spec.max_restarts != RestartSpec::default().max_restarts
    {
        map.put("max_restarts", most);
    }
    map.put("window", duration(spec.window));
    map.put("min_uptime", duration(spec.min_uptime));
    map.put(
        "backoff",
        Map::of([
            ("initial", duration(spec.backoff.initial)),
            ("multiplier", spec.backoff.multiplier.into()),
            ("max", duration(spec.backoff.max)),
            ("jitter", spec.backoff.jitter.into()),
        ]),
    );
    for (key, statuses) in [
        ("success_exit_status", &spec.success_exit_status),
        ("prevent_exit_status", &spec.prevent_exit_status),
    ] {
        if !statuses.is_empty() {
            let all: Vec<Value> = statuses
                .iter()
                .map(|status| {
                    let text = exit_text(*status);
                    text.parse::<i32>().map_or(Value::String(text), Value::from)
                })
                .collect();
            map.put(key, all);
        }
    }
    map
}

fn stop(spec: &StopSpec) -> Map {
    let mut map = Map::default();
    match &spec.command {
        // The signal would have no effect; it is written only if it is not the default.
        Some(line) => {
            if spec.signal != StopSpec::default().signal {
                map.put("signal", signal_text(spec.signal));
            }
            map.put("command", command(line));
        }
        None => map.put("signal", signal_text(spec.signal)),
    }
    map.put("timeout", duration(spec.timeout));
    map
}
