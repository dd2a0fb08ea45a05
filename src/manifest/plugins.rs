//! Kinds of probe that are programs of their own (S37): `stigmer-probe-KIND`, in a folder of `probe_path`
//! or on the PATH of the apply.
//!
//! `redis: { port: 6379 }` is short for `plugin: { kind: redis, config: { port: 6379 } }`, wherever a program
//! of that name is found. A kind of stigmer's own is never looked for.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::resolve::context::absolute;
use super::schema::probe::{KINDS, TIMING};
use super::tree::{Entry, Node, Value};

/// Where programs are looked for, in this order.
#[derive(Debug, Default)]
pub(super) struct Search(Vec<PathBuf>);

impl Search {
    /// The folders that the manifest declares, then those of the PATH.
    pub(super) fn new(root: &Node, folder: &Path, path: Option<&str>) -> Self {
        let declared = root.get("probe_path").map_or(&[][..], |node| match &node.value {
            Value::Sequence(items) => items.as_slice(),
            Value::Scalar { .. } | Value::Mapping(_) => std::slice::from_ref(node),
        });
        let declared = declared.iter().filter_map(Node::text).map(|text| absolute(folder, text));
        let path = path.into_iter().flat_map(|path| path.split(':').map(PathBuf::from));
        Self(declared.chain(path.filter(|folder| folder.is_absolute())).collect())
    }

    /// The program of a kind.
    pub(super) fn find(&self, kind: &str) -> Option<PathBuf> {
        if kind.is_empty() || kind.contains('/') {
            return None;
        }
        let programs = self.0.iter().map(|folder| folder.join(format!("stigmer-probe-{kind}")));
        programs.into_iter().find(|program| {
            program
                .metadata()
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
    }
}

/// Writes out the short form in all probes.
pub(super) fn expand(root: &mut Node, search: &Search) {
    if let Some(defaults) = root.get_mut("defaults") {
        expand_component(defaults, search);
    }
    if let Some(Value::Mapping(components)) = root.get_mut("components").map(|node| &mut node.value)
    {
        for component in components {
            expand_component(&mut component.node, search);
        }
    }
}

fn expand_component(component: &mut Node, search: &Search) {
    let Some(probes) = component.get_mut("probes") else { return };
    for role in ["startup", "liveness", "readiness"] {
        if let Some(probe) = probes.get_mut(role) {
            expand_probe(probe, search);
        }
    }
}

fn expand_probe(probe: &mut Node, search: &Search) {
    if let Some(Value::Sequence(all)) = probe.get_mut("all").map(|node| &mut node.value) {
        for part in all {
            expand_probe(part, search);
        }
    }
    let Value::Mapping(entries) = &mut probe.value else { return };
    for entry in entries {
        let is_known = KINDS.contains(&&*entry.key) || TIMING.contains(&&*entry.key);
        if is_known || search.find(&entry.key).is_none() {
            continue;
        }
        let kind = std::mem::replace(&mut entry.key, "plugin".into());
        let place = entry.node.place;
        let config = std::mem::replace(&mut entry.node, Node::mapping(place));
        let part = |key: &str, node: Node| Entry { key: key.into(), place: entry.place, node };
        let kind = part("kind", Node::scalar(kind, false, entry.place));
        let mut parts = vec![kind];
        if !config.is_null() {
            parts.push(part("config", config));
        }
        entry.node.value = Value::Mapping(parts);
    }
}
