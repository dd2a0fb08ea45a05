//! What must hold between components: dependencies that exist and go round in no circle, namespaces that
//! can be shared, images that have one name each, ports that only one of them listens on.

use std::collections::HashMap;

use super::component::Sketch;
use super::context::Context;
use super::listening;
use crate::manifest::report::Place;
use crate::manifest::tree::short;
use crate::model::spec::{Condition, Workload};

pub(super) fn check(context: &mut Context<'_>, sketches: &[Sketch]) {
    let by_name: HashMap<&str, usize> =
        sketches.iter().enumerate().map(|(index, sketch)| (sketch.name.as_str(), index)).collect();
    for sketch in sketches {
        dependencies(context, sketch, sketches, &by_name);
        joins(context, sketch, sketches, &by_name);
    }
    cycles(context, sketches, &by_name);
    images(context, sketches);
    listening::check(context, sketches);
}

fn dependencies(
    context: &mut Context<'_>,
    sketch: &Sketch,
    sketches: &[Sketch],
    by_name: &HashMap<&str, usize>,
) {
    for dependency in &sketch.dependencies {
        let (name, place) = (&dependency.name, dependency.place);
        if *name == sketch.name {
            let message = format!("`{}` depends on itself", short(name));
            context.error(place, message, "another component", "");
            continue;
        }
        let Some(other) = by_name.get(name.as_str()).and_then(|index| sketches.get(*index)) else {
            let names = by_name.keys().copied().filter(|known| *known != sketch.name);
            let help = match context.nearest(name, names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "declare it below `components:`, or take the dependency out".into(),
            };
            let message = format!("there is no component `{}`", short(name));
            context.error(place, message, "a component of this manifest", help);
            continue;
        };
        if sketch.enabled && !other.enabled {
            let help = format!(
                "choose a profile of `{name}` with --profile, or give `{}` the same `profiles`",
                sketch.name
            );
            let message = format!("`{name}` is not there: none of its profiles is chosen");
            context.error(place, message, "a component that is there", help);
        }
        if dependency.condition == Condition::Completed && !other.oneshot {
            let message = format!("`{name}` never completes: it is not a oneshot");
            let expected = "started, healthy or ready";
            let help = format!("write one of these, or give `{name}` the key `oneshot: true`");
            context.error(place, message, expected, help);
        }
        if dependency.condition != Condition::Completed && other.oneshot {
            let message = format!(
                "`{name}` runs to its end, and may be over before it is {}",
                dependency.condition.as_str()
            );
            context.warning(place, message, "to wait for its end, write `completed`");
        }
    }
}

/// Each circle once, spelled out from its first component in the order of the file.
fn cycles(context: &mut Context<'_>, sketches: &[Sketch], by_name: &HashMap<&str, usize>) {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let next_of = |index: usize, edge: usize| -> Option<(usize, usize)> {
        sketches[index].dependencies[edge..].iter().enumerate().find_map(|(skipped, dependency)| {
            let next = by_name.get(dependency.name.as_str()).copied()?;
            (next != index).then_some((next, edge + skipped))
        })
    };
    let mut marks = vec![Mark::New; sketches.len()];
    for start in 0..sketches.len() {
        if marks[start] != Mark::New {
            continue;
        }
        // Without recursion: a chain of ten thousand components is legal.
        let mut path: Vec<(usize, usize)> = vec![(start, 0)];
        marks[start] = Mark::Open;
        while let Some((index, edge)) = path.last().copied() {
            let Some((next, taken)) = next_of(index, edge) else {
                marks[index] = Mark::Done;
                path.pop();
                continue;
            };
            if let Some(top) = path.last_mut() {
                top.1 = taken + 1;
            }
            match marks[next] {
                Mark::Done => {}
                Mark::New => {
                    marks[next] = Mark::Open;
                    path.push((next, 0));
                }
                Mark::Open => {
                    let from = path.iter().position(|(one, _)| *one == next).unwrap_or_default();
                    let mut names: Vec<&str> =
                        path[from..].iter().map(|(one, _)| sketches[*one].name.as_str()).collect();
                    names.push(&sketches[next].name);
                    let place = sketches[index].dependencies[taken].place;
                    let message = format!("the dependencies go in a circle: {}", spelled(&names));
                    let help = "take one of these dependencies out";
                    context.error(place, message, "", help);
                }
            }
        }
    }
}

fn spelled(names: &[&str]) -> String {
    const MOST: usize = 12;
    if names.len() <= MOST {
        return names.join(" -> ");
    }
    let (first, last) = (&names[..MOST - 2], names.last().copied().unwrap_or_default());
    format!("{} -> ({} more) -> {last}", first.join(" -> "), names.len() - MOST + 1)
}

/// A container whose network or another namespace is shared.
pub(super) struct Join {
    pub(super) name: String,
    pub(super) place: Place,
}

/// That it is there at all, `dependencies` looks at: who joins depends on it.
fn joins(
    context: &mut Context<'_>,
    sketch: &Sketch,
    sketches: &[Sketch],
    by_name: &HashMap<&str, usize>,
) {
    for Join { name, place } in &sketch.joins {
        let other = by_name.get(name.as_str()).and_then(|index| sketches.get(*index));
        let Some(spec) = other.and_then(|other| other.spec.as_ref()) else { continue };
        let shown = short(name);
        if !matches!(spec.workload, Workload::Container(_)) {
            let message = format!("`{shown}` is no container, and has nothing that is shared");
            context.error(*place, message, "a component with a `container`", "");
        } else if spec.replicas > 1 {
            let message = format!("`{shown}` has {} replicas: which one is meant?", spec.replicas);
            context.error(*place, message, "a component with one replica", "");
        }
    }
}

/// Two components whose images have one name would get each other's.
fn images(context: &mut Context<'_>, sketches: &[Sketch]) {
    let mut known: HashMap<&str, &str> = HashMap::new();
    for sketch in sketches {
        let Some((image, place)) = &sketch.built else { continue };
        let other = *known.entry(image).or_insert(&sketch.name);
        if other != sketch.name {
            let message = format!("the image would be called {image}, as that of `{other}` is");
            context.error(*place, message, "an `image` of its own", "add `image: name`");
        }
    }
}
