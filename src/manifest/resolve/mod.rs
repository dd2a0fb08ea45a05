//! From the tree to the specs, with the checks that no schema can make.
//!
//! Failure paths: whatever is wrong is noted, and the rest goes on; what a value would have been is
//! replaced by its default, so that one mistake does not look like two. Nothing of it is used: one
//! error, and the manifest is refused as a whole.

mod at;
mod component;
mod container;
pub(super) mod context;
mod declared;
mod graph;
mod listening;
mod probe;
pub(super) mod process;
pub(super) mod rules;
mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use component::Sketch;
use context::{Context, is_name};
use declared::Declared;

use super::merge;
use super::report::{Diagnostic, Place};
use super::tree::{Node, short};
use super::validate;
use super::variables::Filled;
use crate::model::spec::{ComponentSpec, ProjectSpec};

/// Values that `defaults:` may add to all components together.
const MOST_DEFAULTS: usize = 5_000_000;

/// Components of one project.
const MOST_COMPONENTS: usize = 50_000;
/// Components with a container, each of which takes more memory than a process.
const MOST_CONTAINERS: usize = 20_000;
/// Values of one component, or of everything but the components.
pub(super) const MOST_IN_ONE: usize = 100_000;

/// What decides about a project besides its manifest.
pub(super) struct Choice<'a> {
    /// Outranks what the manifest says.
    pub(super) project: Option<&'a str>,
    pub(super) profiles: &'a [String],
    /// The top-level keys of which something was taken out.
    pub(super) damaged: &'a BTreeSet<String>,
}

/// The project of a validated tree; `root` is without `x-*` keys, and pruned.
pub(super) fn project(
    context: &mut Context<'_>,
    root: &Node,
    filled: &Filled,
    choice: &Choice<'_>,
) -> ProjectSpec {
    let name = project_name(context, root, choice.project);
    let info = root
        .get("info")
        .map(|info| {
            info.entries()
                .iter()
                .map(|entry| {
                    (entry.key.to_string(), entry.node.text().unwrap_or_default().to_owned())
                })
                .collect()
        })
        .unwrap_or_default();
    let mut declared = Declared::new(context, root, &name, |key| choice.damaged.contains(key));
    let components = components(context, root, filled, choice.profiles, &mut declared);
    let components = components.into_iter().map(|(name, spec)| (name, Arc::new(spec))).collect();
    ProjectSpec { name, manifest: context.file.to_owned(), info, components }
}

fn project_name(context: &mut Context<'_>, root: &Node, chosen: Option<&str>) -> String {
    if let Some(chosen) = chosen {
        if !is_name(chosen) {
            let expected =
                "letters, digits, `-` and `_`, at most 63, the first a letter or a digit";
            let message = format!("`{}` cannot be the name of a project", short(chosen));
            context.error(Place::default(), message, expected, "");
        }
        return chosen.to_owned();
    }
    if let Some(name) = root.get("project").and_then(Node::text) {
        return name.to_owned();
    }
    cleaned(&context.folder.file_name().unwrap_or_default().to_string_lossy())
}

/// A folder's name in the alphabet of projects.
fn cleaned(folder: &str) -> String {
    let cleaned: String = folder
        .chars()
        .map(|one| if one.is_ascii_alphanumeric() || matches!(one, '-' | '_') { one } else { '-' })
        .skip_while(|one| !one.is_ascii_alphanumeric())
        .take(63)
        .collect();
    if cleaned.is_empty() { "project".into() } else { cleaned }
}

fn components(
    context: &mut Context<'_>,
    root: &Node,
    filled: &Filled,
    profiles: &[String],
    declared: &mut Declared,
) -> BTreeMap<String, ComponentSpec> {
    let mut defaults = root.get("defaults").cloned();
    if let Some(defaults) = &mut defaults {
        merge::lengthen(defaults);
    }
    let entries = root.get("components").map(Node::entries).unwrap_or_default();
    if let Some(empty) = root.entry("components")
        && entries.is_empty()
        && matches!(empty.node.value, super::tree::Value::Mapping(_))
    {
        let help = "add one: a name, and below it `command:` or `container:`";
        context.error(empty.place, "`components` is empty", "at least one component", help);
    }
    let containers = entries.iter().filter(|entry| entry.node.get("container").is_some()).count();
    for (count, what, most) in [
        (entries.len(), "components", MOST_COMPONENTS),
        (containers, "containers", MOST_CONTAINERS),
    ] {
        if count > most {
            let place = root.entry("components").map_or(Place::default(), |entry| entry.place);
            let message = format!("{count} {what} are too many");
            let expected = format!("at most {most}");
            context.error(place, message, expected, "divide them into several projects");
            return BTreeMap::new();
        }
    }
    let added = defaults.as_ref().map_or(0, Node::size).saturating_mul(entries.len());
    if added > MOST_DEFAULTS {
        let place = root.entry("defaults").map_or(Place::default(), |entry| entry.place);
        let message = "these defaults, under so many components, are too much";
        context.error(place, message, format!("at most {MOST_DEFAULTS} values"), "");
        return BTreeMap::new();
    }
    let mut sketches: Vec<Sketch> = Vec::with_capacity(entries.len());
    for entry in entries {
        if !is_name(&entry.key) {
            let expected =
                "letters, digits, `-` and `_`, at most 63, the first a letter or a digit";
            let message = format!("`{}` cannot be the name of a component", short(&entry.key));
            context.error(entry.place, message, expected, "");
        }
        if entry.node.size() > MOST_IN_ONE {
            let message = format!("`{}` has too many values", short(&entry.key));
            context.error(entry.place, message, format!("at most {MOST_IN_ONE}"), "");
            continue;
        }
        let mut node = entry.node.clone();
        validate::retype(&mut node, true, filled);
        let mistakes = validate::component(&entry.key, &node, entry.place, context.file);
        validate::prune(&mut node, &mistakes);
        let damage = component::Damage::of(&mistakes);
        for mistake in mistakes {
            context.push(mistake.diagnostic);
        }
        let mut surroundings =
            component::Surroundings { defaults: defaults.as_ref(), profiles, declared };
        sketches.push(component::component(context, entry, node, damage, &mut surroundings));
    }
    graph::check(context, &sketches);
    if let Some(entry) = root.entry("components")
        && !sketches.is_empty()
        && sketches.iter().all(|sketch| !sketch.enabled)
    {
        let specs = sketches.iter().filter_map(|sketch| sketch.spec.as_ref());
        let known: BTreeSet<&str> =
            specs.flat_map(|spec| &spec.profiles).map(String::as_str).collect();
        let known: Vec<&str> = known.into_iter().collect();
        context.warning(
            entry.place,
            "no component is there: each belongs to a profile, and none of these is chosen",
            format!("choose with --profile: {}", known.join(", ")),
        );
    }
    sockets::check(context, &sketches);
    sketches
        .into_iter()
        .filter(|sketch| sketch.enabled)
        .filter_map(|sketch| Some((sketch.name, sketch.spec?)))
        .collect()
}

/// The env files for interpolation.
pub(super) fn env_files(node: &Node) -> Vec<(String, Place)> {
    let one = |node: &Node| node.text().map(|text| (text.to_owned(), node.place));
    match node.get("env_file") {
        None => Vec::new(),
        Some(node) if node.items().is_empty() => one(node).into_iter().collect(),
        Some(node) => node.items().iter().filter_map(one).collect(),
    }
}

/// Names of variables that components take from the shell of the apply: those without a value.
pub(super) fn names_without_value(component: &Node, found: &mut BTreeSet<String>) {
    let container = component.get("container");
    let in_container = |key: &str| container.and_then(|container| container.get(key));
    for env in [
        component.get("env"),
        in_container("environment"),
        in_container("env"),
        in_container("build").and_then(|build| build.get("args")),
    ]
    .into_iter()
    .flatten()
    {
        let unset = env.entries().iter().filter(|entry| entry.node.is_null());
        found.extend(unset.map(|entry| entry.key.to_string()));
        let bare = env.items().iter().filter_map(Node::text).filter(|text| !text.contains('='));
        found.extend(bare.map(ToOwned::to_owned));
    }
}

/// A diagnostic for a value that the schema lets through and the types do not.
fn unfit(context: &Context<'_>, error: super::de::Unfit, at: Place) -> Diagnostic {
    Diagnostic::error(context.file, error.place.unwrap_or(at), error.message)
}
