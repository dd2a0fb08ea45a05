//! `defaults:` under a component. Maps are merged key by key; lists and scalars of the component replace.
//!
//! Short forms are made long first, so that `restart: never` and `restart: { window: 5m }` merge, as do
//! the two forms of `env`. Of a probe's kinds, the component's own replaces the default's; so it is with
//! other keys that exclude each other. What is for containers never lies under a process, and the reverse.

use super::schema::probe::KINDS;
use super::tree::{Entry, Node, Value};

/// Short forms to long ones.
pub(super) fn lengthen(component: &mut Node) {
    if let Some(restart) = component.get_mut("restart")
        && restart.text().is_some()
    {
        let place = restart.place;
        let policy = std::mem::replace(restart, Node::mapping(place));
        if let Value::Mapping(entries) = &mut restart.value {
            entries.push(Entry { key: "policy".into(), place, node: policy });
        }
    }
    if let Some(env) = component.get_mut("env") {
        map_of_list(env);
    }
    if let Some(container) = component.get_mut("container") {
        lengthen_container(container);
    }
}

fn lengthen_container(container: &mut Node) {
    for key in ["environment", "env", "labels", "sysctls"] {
        if let Some(pairs) = container.get_mut(key) {
            map_of_list(pairs);
        }
    }
    // Both are told apart until here, where somebody could have written both.
    if container.get("environment").is_none()
        && let Value::Mapping(entries) = &mut container.value
        && let Some(env) = entries.iter_mut().find(|entry| &*entry.key == "env")
    {
        env.key = "environment".into();
    }
    let Some(build) = container.get_mut("build") else { return };
    if build.text().is_some() {
        let place = build.place;
        let context = std::mem::replace(build, Node::mapping(place));
        if let Value::Mapping(entries) = &mut build.value {
            entries.push(Entry { key: "context".into(), place, node: context });
        }
    }
    for key in ["args", "labels"] {
        if let Some(pairs) = build.get_mut(key) {
            map_of_list(pairs);
        }
    }
}

/// `[NAME=value, NAME]` to a map; nothing else is touched.
pub(super) fn map_of_list(node: &mut Node) {
    let Value::Sequence(items) = &node.value else { return };
    let entries = items.iter().filter_map(|item| {
        let text = item.text()?;
        Some(match text.split_once('=') {
            Some((name, value)) => Entry {
                key: name.into(),
                place: item.place,
                node: Node::scalar(value, false, item.place),
            },
            None => Entry {
                key: text.into(),
                place: item.place,
                node: Node::scalar("", true, item.place),
            },
        })
    });
    // As with Compose, of two with the same name the later wins.
    let mut unique: Vec<Entry> = Vec::with_capacity(items.len());
    let mut known = std::collections::HashMap::new();
    for entry in entries {
        if let Some(at) = known.get(&entry.key) {
            unique[*at] = entry;
        } else {
            known.insert(entry.key.clone(), unique.len());
            unique.push(entry);
        }
    }
    node.value = Value::Mapping(unique);
}

/// Keys of a process that say nothing about a container. (`command` is not among the defaults.)
pub(super) const OF_PROCESSES: [&str; 7] =
    ["command", "working_dir", "user", "group", "umask", "nice", "rlimits"];

/// Keys of which each says the same as the other, or the contrary: what a component says by one of them
/// outranks what the defaults say by the other.
const RIVALS: [[&str; 2]; 9] = [
    ["stop.signal", "container.stop_signal"],
    ["stop.timeout", "container.stop_grace_period"],
    ["container.network_mode", "container.networks"],
    ["container.healthcheck.test", "container.healthcheck.disable"],
    ["container.build.dockerfile", "container.build.dockerfile_inline"],
    ["container.cpus", "container.deploy.resources.limits.cpus"],
    ["container.mem_limit", "container.deploy.resources.limits.memory"],
    ["container.pids_limit", "container.deploy.resources.limits.pids"],
    ["container.mem_reservation", "container.deploy.resources.reservations.memory"],
];

/// The defaults as they lie under this component, where they are not all of them.
fn fitting(defaults: &Node, component: &Node) -> Node {
    let mut fitting = defaults.clone();
    if component.get("container").is_none() {
        fitting.retain(|key| key != "container");
        return fitting;
    }
    fitting.retain(|key| !OF_PROCESSES.contains(&key));
    for [one, other] in RIVALS {
        if at(component, one).is_some() {
            take_out(&mut fitting, other);
        } else if at(component, other).is_some()
            // What is said of containers alone outranks what is said of all.
            || (one.starts_with("stop.") && at(&fitting, other).is_some())
        {
            take_out(&mut fitting, one);
        }
    }
    fitting
}

fn at<'a>(node: &'a Node, path: &str) -> Option<&'a Node> {
    path.split('.').try_fold(node, |node, key| node.get(key))
}

fn take_out(node: &mut Node, path: &str) {
    match path.split_once('.') {
        Some((first, rest)) => {
            if let Some(below) = node.get_mut(first) {
                take_out(below, rest);
            }
        }
        None => node.retain(|key| key != path),
    }
}

/// The component with the defaults under it.
pub(super) fn merge(component: &mut Node, defaults: &Node) {
    let fitted;
    let defaults = if defaults.get("container").is_some() || component.get("container").is_some() {
        fitted = fitting(defaults, component);
        &fitted
    } else {
        defaults
    };
    under(component, defaults, Level::Component);
}

/// Which map this is, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Component,
    Probes,
    Probe,
    Container,
    /// Its values are not merged further.
    Last,
    Other,
}

fn under(own: &mut Node, defaults: &Node, level: Level) {
    let Value::Mapping(entries) = &mut own.value else { return };
    let known: std::collections::HashMap<Box<str>, usize> =
        entries.iter().enumerate().map(|(at, entry)| (entry.key.clone(), at)).collect();
    let has_kind = entries.iter().any(|entry| KINDS.contains(&&*entry.key));
    for default in defaults.entries() {
        if level == Level::Probe && has_kind && KINDS.contains(&&*default.key) {
            continue;
        }
        match known.get(&default.key) {
            None => entries.push(default.clone()),
            Some(at) => {
                let next = match (level, &*default.key) {
                    (Level::Component, "probes") => Level::Probes,
                    (Level::Probes, _) => Level::Probe,
                    // A variable is replaced as a whole: two sources of one secret would contradict.
                    (Level::Component, "env") | (Level::Container, "environment") => Level::Last,
                    (Level::Component, "container") => Level::Container,
                    (Level::Last, _) => continue,
                    (Level::Component | Level::Probe | Level::Container | Level::Other, _) => {
                        Level::Other
                    }
                };
                under(&mut entries[*at].node, &default.node, next);
            }
        }
    }
}
