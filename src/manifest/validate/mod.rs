//! The tree against the JSON schema, each mistake in plain words.
//!
//! Components are validated one by one, so that the JSON form of a large manifest is never in memory as
//! a whole. Every mistake comes with its path, so that `prune` can take out what is wrong and the
//! checks that no schema can make go on with the rest.
mod compose;
mod describe;
mod explain;
mod prune;

use std::collections::HashSet;
use std::path::Path;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Value as Json, json};

use explain::Explainer;
pub(super) use prune::prune;

use super::report::{Diagnostic, MOST_DIAGNOSTICS, Place};
use super::schema;
use super::tree::{Node, Scalar, Value};
use super::variables::Filled;

/// The schema and what is compiled of it.
struct Schemas {
    root: Json,
    whole: Option<Validator>,
    component: Option<Validator>,
}

static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| {
    let root = schema::schema();
    let component = json!({ "$defs": root.get("$defs"), "$ref": "#/$defs/Component" });
    Schemas {
        whole: jsonschema::draft202012::new(&root).ok(),
        component: jsonschema::draft202012::new(&component).ok(),
        root,
    }
});

/// Keys and indexes from the value that was validated.
pub(super) type Steps = Vec<String>;

/// A mistake, and what has to be taken out before the rest can be used.
pub(super) struct Mistake {
    pub(super) path: Steps,
    pub(super) diagnostic: Diagnostic,
}

/// Inside of brackets `${PORT}` needs quotes, and with them it is a text. Where the schema wants a number
/// or a boolean, and a variable made the text, it is one.
pub(super) fn retype(node: &mut Node, is_component: bool, filled: &Filled) {
    if filled.is_empty() {
        return;
    }
    let (validator, json) = if is_component {
        (SCHEMAS.component.as_ref(), node.to_json())
    } else {
        (SCHEMAS.whole.as_ref(), shallow(node))
    };
    let Some(validator) = validator else { return };
    if validator.is_valid(&json) {
        return;
    }
    let mut explainer = Explainer::new(node, ("", node.place), Path::new(""));
    let places: HashSet<Place> = validator
        .iter_errors(&json)
        .take(MOST_DIAGNOSTICS)
        .map(|error| explainer.target(&error).node)
        .filter(|found| {
            let Value::Scalar { text, plain: false } = &found.value else { return false };
            let typed = Node::scalar(text.clone(), true, found.place);
            let is_text = matches!(typed.typed(), Some(Scalar::Text(_) | Scalar::Null));
            filled.has(found.place) && !is_text
        })
        .map(|found| found.place)
        .collect();
    if !places.is_empty() {
        unquote(node, &places);
    }
}

fn unquote(node: &mut Node, places: &HashSet<Place>) {
    match &mut node.value {
        Value::Scalar { plain, .. } => *plain = *plain || places.contains(&node.place),
        Value::Sequence(items) => {
            for item in items {
                unquote(item, places);
            }
        }
        Value::Mapping(entries) => {
            for entry in entries {
                unquote(&mut entry.node, places);
            }
        }
    }
}

/// Everything but the components.
pub(super) fn whole(node: &Node, file: &Path) -> Vec<Mistake> {
    collect(SCHEMAS.whole.as_ref(), &shallow(node), node, ("", node.place), file)
}

/// The JSON form of a manifest, with `components` empty if they are a map.
fn shallow(node: &Node) -> Json {
    let mut json = Node {
        value: Value::Mapping(
            node.entries().iter().filter(|entry| &*entry.key != "components").cloned().collect(),
        ),
        place: node.place,
    }
    .to_json();
    if let (Some(components), Json::Object(object)) = (node.get("components"), &mut json) {
        let shallow = match components.value {
            Value::Mapping(_) => json!({}),
            Value::Sequence(_) => json!([]),
            Value::Scalar { .. } => components.to_json(),
        };
        object.insert("components".into(), shallow);
    }
    json
}

/// One component.
pub(super) fn component(name: &str, node: &Node, place: Place, file: &Path) -> Vec<Mistake> {
    collect(SCHEMAS.component.as_ref(), &node.to_json(), node, (name, place), file)
}

/// Whether components have such a key.
pub(super) fn is_component_key(key: &str) -> bool {
    let properties = SCHEMAS.root.pointer("/$defs/Component/properties");
    properties.is_some_and(|properties| properties.get(key).is_some())
}

/// Whether containers have such a key.
fn is_container_key(key: &str) -> bool {
    let properties = SCHEMAS.root.pointer("/$defs/Container/properties");
    properties.is_some_and(|properties| properties.get(key).is_some())
}

fn collect(
    validator: Option<&Validator>,
    json: &Json,
    node: &Node,
    (name, place): (&str, Place),
    file: &Path,
) -> Vec<Mistake> {
    let Some(validator) = validator else {
        let broken = Diagnostic::error(file, node.place, "the schema of this version is broken");
        return vec![Mistake { path: Vec::new(), diagnostic: broken }];
    };
    if validator.is_valid(json) {
        return Vec::new();
    }
    let mut explainer = Explainer::new(node, (name, place), file);
    for error in validator.iter_errors(json) {
        explainer.explain(&error);
        if explainer.found.len() >= MOST_DIAGNOSTICS {
            break;
        }
    }
    explainer.found
}
