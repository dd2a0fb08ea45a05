//! YAML text to validated specs: every mistake at once, with its place and a hint (ADR 0003).
//!
//! ```text
//!   file ─ read ─▶ text ─ parse ─▶ tree ─ variables ─▶ tree ─ validate ─▶ tree without what is wrong
//!                                                                │                    │ merge, de
//!                                                                ▼                    ▼
//!                                                           diagnostics ◀─ resolve ─ raw types ─▶ specs
//! ```
//!
//! Invariants: a manifest is read once, and every value knows its place from then on. It is either used
//! as a whole or refused as a whole. Its size in memory is bounded before anything is built from it.
//!
//! Failure paths: a file that cannot be read, a syntax error and a broken bound end the loading at once;
//! every other mistake is noted, and the loading goes on to find the next.
//!
//! Deliberately absent: looking at programs, ports or folders beyond what can be said without running
//! anything; asking an engine about containers.

mod de;
#[cfg(test)]
mod differential;
mod dotenv;
mod init;
mod merge;
mod parse;
mod placeholder;
mod plugins;
mod read;
mod report;
mod resolve;
mod schema;
mod syntax;
mod tree;
mod units;
mod validate;
mod variables;
mod words;
mod write;

use plugins::Search;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use report::Place;
use resolve::context::{Context, EnvFiles, absolute};
use tree::{Node, Value};

pub use init::template;
pub use report::{Diagnostic, Report, Severity};
pub use write::{component_to_yaml, to_yaml};

use serde::{Deserialize, Serialize};

use crate::model::spec::ProjectSpec;

/// What decides besides the manifest.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LoadOptions {
    /// Values of variables; they outrank the env files.
    pub variables: BTreeMap<String, String>,
    /// The chosen profiles.
    pub profiles: Vec<String>,
    /// The project's name; outranks the manifest's.
    pub project: Option<String>,
    /// The PATH on which programs of probe kinds are looked for.
    pub search_path: Option<String>,
}

/// A manifest without errors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Loaded {
    /// What it declares.
    pub project: ProjectSpec,
    /// What probably is not meant as it stands.
    pub warnings: Vec<Diagnostic>,
    /// The names of the variables that it uses.
    pub variables: BTreeSet<String>,
    /// The manifest and its env files, absolute: a change of these is a change of the project.
    pub watched: Vec<PathBuf>,
    /// Over the contents of `watched`.
    pub sha256: String,
}

/// Reads a manifest. The report of a failure has at least one error.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Loaded, Box<Report>> {
    let path = &std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match read::bytes(path) {
        Ok(bytes) => load_bytes(path, &bytes, options),
        Err(error) => {
            let error = if path.exists() {
                error
            } else {
                error.help("`stigmer init` writes one to begin with; `-f` names another file")
            };
            Err(Box::new(Report::new(vec![error], BTreeMap::new())))
        }
    }
}

/// The same for a manifest that is in memory; `path` says where it would be.
pub fn load_bytes(path: &Path, bytes: &[u8], options: &LoadOptions) -> Result<Loaded, Box<Report>> {
    let path = &std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().unwrap_or(Path::new("/"));
    let text = read::text(path, bytes).map_err(|error| {
        let source = String::from_utf8_lossy(bytes).into_owned();
        let sources = if bytes.len() as u64 > read::LARGEST || error.line == 0 {
            BTreeMap::new()
        } else {
            BTreeMap::from([(path.clone(), source)])
        };
        Box::new(Report::new(vec![error], sources))
    })?;
    let mut found = Vec::new();
    let mut files = EnvFiles::default();
    let project = project(path, folder, text, options, &mut files, &mut found);

    let mut sources = BTreeMap::from([(path.clone(), text.to_owned())]);
    for (file, content) in &files.contents {
        if found.iter().any(|one| one.file == *file) {
            sources.insert(file.clone(), String::from_utf8_lossy(content).into_owned());
        }
    }
    let Some((project, variables)) = project else {
        return Err(Box::new(Report::new(found, sources)));
    };
    if found.iter().any(|one| one.severity == Severity::Error) {
        return Err(Box::new(Report::new(found, sources)));
    }
    let contents = files.contents.iter().map(|(_, content)| content.as_slice());
    Ok(Loaded {
        project,
        warnings: report::tidy(found, &sources),
        variables,
        watched: std::iter::once(path.clone())
            .chain(files.contents.iter().map(|(file, _)| file.clone()))
            .collect(),
        sha256: read::digest(std::iter::once(bytes).chain(contents)),
    })
}

fn project(
    path: &Path,
    folder: &Path,
    text: &str,
    options: &LoadOptions,
    files: &mut EnvFiles,
    found: &mut Vec<Diagnostic>,
) -> Option<(ProjectSpec, BTreeSet<String>)> {
    let root = parse::parse(path, text, found);
    let Some(mut root) = root.filter(|root| !root.is_null()) else {
        if found.is_empty() {
            let start = Place { line: 1, column: 1, length: 1 };
            found.push(
                Diagnostic::error(path, start, "the manifest is empty: `components:` is missing")
                    .help("`stigmer init` writes one to begin with"),
            );
        }
        return None;
    };
    if !matches!(root.value, Value::Mapping(_)) {
        let message = format!("the manifest is {}", root.found());
        found.push(
            Diagnostic::error(path, root.place, message)
                .expected("a map with the key `components`"),
        );
        return None;
    }
    without_extensions(&mut root);
    let components = root.get("components").map_or(0, Node::size);
    if root.size() - components > resolve::MOST_IN_ONE {
        let message = "there are too many values outside of `components`";
        found.push(
            Diagnostic::error(path, root.place, message)
                .expected(format!("at most {}", resolve::MOST_IN_ONE)),
        );
        return None;
    }
    let names = names(&root);
    let mut values = BTreeMap::new();
    for (file, place) in env_files(&mut root, options, path, text) {
        match files.get(&absolute(folder, &file)) {
            Ok(more) => values.extend(more.clone()),
            Err(error) => found.push(resolve::process::at_mention(path, error, place)),
        }
    }
    values.extend(options.variables.clone());
    let filled = variables::interpolate(&mut root, &values, path, text, found);

    let search = Search::new(&root, folder, options.search_path.as_deref());
    plugins::expand(&mut root, &search);
    validate::retype(&mut root, false, &filled);
    let mistakes = validate::whole(&root, path);
    validate::prune(&mut root, &mistakes);
    let damaged: BTreeSet<String> =
        mistakes.iter().filter_map(|mistake| mistake.path.first().cloned()).collect();
    let mut later: Vec<Diagnostic> =
        mistakes.into_iter().map(|mistake| mistake.diagnostic).collect();
    let mut context = Context::new(path, folder, &values, files, &search);
    let choice = resolve::Choice {
        project: options.project.as_deref(),
        profiles: &options.profiles,
        damaged: &damaged,
    };
    let project = resolve::project(&mut context, &root, &filled, &choice);
    later.append(&mut context.found);
    found.extend(later.into_iter().filter_map(|mut one| filled.tidy(&mut one).then_some(one)));
    Some((project, names))
}

/// The names of the top-level env files, with the variables of the apply in them replaced.
fn env_files(
    root: &mut Node,
    options: &LoadOptions,
    path: &Path,
    text: &str,
) -> Vec<(String, Place)> {
    if let Some(node) = root.get_mut("env_file") {
        // A variable that is not set here is reported when the whole is interpolated.
        let mut own = node.clone();
        let mut problems = Vec::new();
        variables::interpolate(&mut own, &options.variables, path, text, &mut problems);
        if problems.is_empty() {
            *node = own;
        } else {
            return Vec::new();
        }
    }
    resolve::env_files(root)
}

/// `x-*` keys hold anchors and notes; nothing looks at them.
fn without_extensions(root: &mut Node) {
    let keep = |key: &str| !key.starts_with("x-");
    root.retain(keep);
    for key in ["defaults", "components"] {
        let Some(node) = root.get_mut(key) else { continue };
        if key == "defaults" {
            without_extensions_below(node);
        } else if let Value::Mapping(components) = &mut node.value {
            for component in components {
                without_extensions_below(&mut component.node);
            }
        }
    }
}

fn without_extensions_below(component: &mut Node) {
    let keep = |key: &str| !key.starts_with("x-");
    component.retain(keep);
    if let Some(container) = component.get_mut("container") {
        container.retain(keep);
    }
}

/// All variables that a tree names.
fn names(root: &Node) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    variables::names(root, &mut names);
    let components = root.get("components").map(Node::entries).unwrap_or_default();
    let components = components.iter().map(|entry| &entry.node);
    for component in components.chain(root.get("defaults")) {
        resolve::names_without_value(component, &mut names);
    }
    names
}

/// The names of the variables that a manifest uses, as far as it can be read: what the CLI sends of its
/// environment, and nothing else.
#[must_use]
pub fn variables_named(path: &Path) -> BTreeSet<String> {
    let Ok(bytes) = read::bytes(path) else { return BTreeSet::new() };
    let Ok(text) = read::text(path, &bytes) else { return BTreeSet::new() };
    let Some(mut root) = parse::parse(path, text, &mut Vec::new()) else { return BTreeSet::new() };
    without_extensions(&mut root);
    names(&root)
}

/// The digest of files, as in [`Loaded::sha256`], without parsing them. None if one cannot be read.
#[must_use]
pub fn digest(path: &Path, watched: &[PathBuf]) -> Option<String> {
    let path = std::path::absolute(path).ok()?;
    let others = watched.iter().filter(|file| **file != path);
    let contents: Option<Vec<Vec<u8>>> =
        std::iter::once(&path).chain(others).map(|file| read::bytes(file).ok()).collect();
    Some(read::digest(contents?.iter().map(Vec::as_slice)))
}

/// `stigmer.yaml` (or `stigmer.yml`) in this folder or above it.
#[must_use]
pub fn find(start: &Path) -> Option<PathBuf> {
    read::find(start)
}

/// The JSON schema of the manifest, as it is kept in `schemas/`.
#[must_use]
pub fn schema_json() -> &'static str {
    schema::TEXT
}

/// What the types of the manifest make of it: how the file in `schemas/` is written, and nothing that a
/// release does, so that the linker leaves it out of there.
#[must_use]
pub fn schema_json_of_types() -> String {
    // A map of strings and numbers can always be written.
    let mut text = serde_json::to_string_pretty(&schema::of_types()).unwrap_or_default();
    text.push('\n');
    text
}
