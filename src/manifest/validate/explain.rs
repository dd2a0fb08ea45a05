//! The validator's errors in plain words, each with its place.

use std::collections::HashMap;
use std::path::Path;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, ValidationError};
use serde_json::Value as Json;

use super::compose::{self, Level};
use super::describe::{describe, schema_of, words_of};
use super::{Mistake, Steps, is_component_key};
use crate::manifest::report::{Diagnostic, MOST_DIAGNOSTICS, Place};
use crate::manifest::tree::{Entry, Node, Scalar, Value, short};
use crate::manifest::words::{list, nearest};

pub(super) struct Explainer<'a> {
    node: &'a Node,
    /// The component's; empty means the manifest.
    name: &'a str,
    /// Of the component's name.
    place: Place,
    file: &'a Path,
    pub(super) found: Vec<Mistake>,
    /// Of large maps, by their address in the tree.
    indexes: HashMap<usize, HashMap<&'a str, usize>>,
}

/// What a path leads to.
pub(super) struct Target<'a> {
    path: Steps,
    pub(super) node: &'a Node,
    /// Of the key if there is one.
    place: Place,
    /// How it is called in a message.
    name: String,
}

impl<'a> Explainer<'a> {
    pub(super) fn new(node: &'a Node, (name, place): (&'a str, Place), file: &'a Path) -> Self {
        Self { node, name, place, file, found: Vec::new(), indexes: HashMap::new() }
    }

    pub(super) fn explain(&mut self, error: &ValidationError<'_>) {
        let target = self.target(error);
        let (parent, _) = schema_of(error);
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let known: Vec<&str> = parent
                    .get("properties")
                    .and_then(Json::as_object)
                    .map(|properties| properties.keys().map(String::as_str).collect())
                    .unwrap_or_default();
                for key in unexpected.iter().take(MOST_DIAGNOSTICS) {
                    self.unknown_key(&target, key, &known);
                }
            }
            ValidationErrorKind::Required { property } => {
                let property = property.as_str().unwrap_or_default();
                let message = format!("{} has no `{property}`", target.name);
                let help = if target.path.is_empty() && property == "components" {
                    "add `components:` with at least one component below it".to_owned()
                } else {
                    format!("add `{property}:`")
                };
                self.add(&target, message, format!("the key `{property}`"), help);
            }
            ValidationErrorKind::AnyOf { context }
            | ValidationErrorKind::OneOfNotValid { context } => {
                self.branches(&target, error, &parent, context);
            }
            ValidationErrorKind::Type { kind } => {
                let help = type_help(target.node, kind);
                let expected = describe(&parent);
                self.unfit(&target, expected, help);
            }
            _ => self.unfit(&target, describe(&parent), String::new()),
        }
    }

    fn unknown_key(&mut self, target: &Target<'a>, key: &str, known: &[&str]) {
        let place = self.entry(target.node, key).map_or(target.place, |entry| entry.place);
        let mut path = target.path.clone();
        path.push(key.to_owned());
        let level = if self.name.is_empty() {
            Level::Manifest
        } else {
            Level::Component { has_container: self.node.get("container").is_some() }
        };
        if let Some((message, help)) = compose::hint(level, &target.path, key) {
            let diagnostic = Diagnostic::error(self.file, place, message).help(help);
            self.found.push(Mistake { path, diagnostic });
            return;
        }
        let diagnostic =
            Diagnostic::error(self.file, place, format!("unknown key `{}`", short(key)));
        let near = elsewhere(key)
            .filter(|ours| known.contains(ours))
            .or_else(|| nearest(key, known.iter().copied()));
        let diagnostic = match near {
            Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
            None if target.path.is_empty()
                && is_component_key(key)
                && known.contains(&"components") =>
            {
                diagnostic
                    .help("this key belongs to a component: put it below `components:` and a name")
            }
            None => diagnostic.help(format!("known are {}", list(known.iter().copied()))),
        };
        self.found.push(Mistake { path, diagnostic });
    }

    /// None of several forms fits: the one that is meant is the one of the value's type.
    fn branches(
        &mut self,
        target: &Target<'a>,
        error: &ValidationError<'_>,
        parent: &Json,
        context: &[Vec<ValidationError<'static>>],
    ) {
        let here = error.instance_path().as_str();
        let fits = |branch: &&Vec<ValidationError<'static>>| !is_misfit(branch, here);
        let meant = context.iter().filter(fits).min_by_key(|branch| branch.len());
        // Of words, the one that is nearest.
        let is_word = |error: &ValidationError<'static>| {
            matches!(error.kind(), ValidationErrorKind::Constant { .. })
        };
        if let Some(branch) = meant
            && !branch.iter().all(is_word)
        {
            for inner in branch {
                self.explain(inner);
            }
            return;
        }
        let words: Vec<String> = words_of(parent);
        let text = target.node.text().unwrap_or_default();
        let help = nearest(text, words.iter().map(String::as_str))
            .map(|near| format!("did you mean `{near}`?"))
            .unwrap_or_default();
        self.unfit(target, describe(parent), help);
    }

    /// The value is not what was expected.
    fn unfit(&mut self, target: &Target<'a>, expected: String, help: String) {
        if target.node.is_null() {
            let help = "give it a value, or take the key out".to_owned();
            self.add(target, format!("{} is empty", target.name), expected, help);
            return;
        }
        let help = match target.node.typed() {
            Some(Scalar::Int(number))
                if help.is_empty() && expected.contains("duration") && number > 0 =>
            {
                format!("write the unit: `{number}s`")
            }
            _ => help,
        };
        let message = match &target.node.value {
            Value::Scalar { text, .. } if text.is_empty() => {
                format!("{} is an empty text", target.name)
            }
            Value::Sequence(items) if items.is_empty() => {
                format!("{} is an empty list", target.name)
            }
            Value::Scalar { .. } | Value::Sequence(_) | Value::Mapping(_) => {
                format!("{} is {}", target.name, target.node.found())
            }
        };
        let value = Target {
            place: target.node.place,
            path: target.path.clone(),
            name: String::new(),
            ..*target
        };
        let target = if target.node.text().is_some() { &value } else { target };
        self.add(target, message, expected, help);
    }

    fn add(&mut self, target: &Target<'a>, message: String, expected: String, help: String) {
        let diagnostic =
            Diagnostic::error(self.file, target.place, message).expected(expected).help(help);
        self.found.push(Mistake { path: target.path.clone(), diagnostic });
    }

    /// An entry of a map; of a large one, by an index.
    fn entry(&mut self, node: &'a Node, key: &str) -> Option<&'a Entry> {
        const LARGE: usize = 64;
        let entries = node.entries();
        if entries.len() < LARGE {
            return node.entry(key);
        }
        let index = self.indexes.entry(entries.as_ptr() as usize).or_insert_with(|| {
            entries.iter().enumerate().map(|(at, entry)| (&*entry.key, at)).collect()
        });
        index.get(key).and_then(|at| entries.get(*at))
    }

    pub(super) fn target(&mut self, error: &ValidationError<'_>) -> Target<'a> {
        let mut target = Target {
            path: Vec::new(),
            node: self.node,
            place: self.place,
            name: if self.name.is_empty() {
                "the manifest".into()
            } else {
                format!("`{}`", short(self.name))
            },
        };
        let pointer = error.instance_path().as_str();
        for segment in pointer.split('/').skip(1) {
            let segment = segment.replace("~1", "/").replace("~0", "~");
            if let Some(entry) = self.entry(target.node, &segment) {
                target.name = format!("`{}`", short(&entry.key));
                target.place = entry.place;
                target.node = &entry.node;
            } else if let Some(item) =
                segment.parse().ok().and_then(|index: usize| target.node.items().get(index))
            {
                if !target.name.starts_with("an item") {
                    target.name = format!("an item of {}", target.name);
                }
                target.place = item.place;
                target.node = item;
            }
            target.path.push(segment);
        }
        target
    }
}

/// What a key of other programs' files is called here.
fn elsewhere(key: &str) -> Option<&'static str> {
    Some(match key {
        "environment" => "env",
        "healthcheck" | "health" | "checks" => "probes",
        "cmd" | "args" | "entrypoint" | "script" | "program" | "exec_start" => "command",
        "cwd" | "directory" | "dir" | "workdir" => "working_dir",
        "instances" | "scale" | "numprocs" => "replicas",
        "requires" | "after" | "needs" => "depends_on",
        "ready" => "readiness",
        "live" | "alive" => "liveness",
        "max_retries" | "retry" => "max_restarts",
        "period" | "period_seconds" | "every" => "interval",
        "retries" => "failure_threshold",
        "start_period" | "delay" => "initial_delay",
        "kill_timeout" | "grace_period" | "stop_grace_period" => "timeout",
        "services" | "processes" | "apps" => "components",
        "name" => "project",
        _ => return None,
    })
}

/// Whether a branch is about values of another type.
fn is_misfit(branch: &[ValidationError<'static>], here: &str) -> bool {
    branch.iter().any(|error| {
        error.instance_path().as_str() == here
            && match error.kind() {
                ValidationErrorKind::Type { .. } => true,
                ValidationErrorKind::Constant { expected_value } => expected_value.is_null(),
                ValidationErrorKind::AnyOf { context }
                | ValidationErrorKind::OneOfNotValid { context } => {
                    context.iter().all(|branch| is_misfit(branch, here))
                }
                _ => false,
            }
    })
}

fn type_help(node: &Node, kind: &TypeKind) -> String {
    let wants = |wanted| match kind {
        TypeKind::Single(single) => *single == wanted,
        TypeKind::Multiple(several) => several.contains(wanted),
    };
    match node.typed() {
        Some(Scalar::Text(text)) if wants(JsonType::Boolean) => {
            match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" => format!("`{text}` is a text in YAML 1.2: write `true`"),
                "no" | "off" | "n" => format!("`{text}` is a text in YAML 1.2: write `false`"),
                "true" | "false" => "write it without quotes".into(),
                _ => String::new(),
            }
        }
        Some(Scalar::Text(text)) if wants(JsonType::Integer) && text.parse::<i64>().is_ok() => {
            "write it without quotes and without leading zeros".into()
        }
        Some(Scalar::Bool(_) | Scalar::Int(_) | Scalar::Float(_) | Scalar::Unsigned(_))
            if wants(JsonType::String) =>
        {
            "put it in quotes if it is meant as a text".into()
        }
        _ => String::new(),
    }
}
