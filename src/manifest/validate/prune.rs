//! The tree without what is wrong.

use std::collections::HashMap;

use super::Mistake;
use crate::manifest::tree::{Node, Value};

/// Takes out what is wrong, so that the rest can be used. Of a probe nothing is kept, because a probe
/// that lacks a part is another probe.
pub(in crate::manifest) fn prune(node: &mut Node, mistakes: &[Mistake]) {
    let mut wrong = Wrong::default();
    for mistake in mistakes {
        let mut path = mistake.path.as_slice();
        if path.first().is_some_and(|first| first == "probes") {
            path = &path[..path.len().min(2)];
        }
        wrong.add(path);
    }
    wrong.remove_from(node);
}

/// Paths of what is wrong, as a tree; one without branches is wrong as a whole.
#[derive(Default)]
struct Wrong<'a>(HashMap<&'a str, Wrong<'a>>);

impl<'a> Wrong<'a> {
    fn add(&mut self, path: &'a [String]) {
        let Some((first, rest)) = path.split_first() else { return };
        match self.0.get_mut(first.as_str()) {
            // Wrong as a whole already.
            Some(below) if below.0.is_empty() => {}
            Some(below) if rest.is_empty() => below.0.clear(),
            Some(below) => below.add(rest),
            None => self.0.entry(first).or_default().add(rest),
        }
    }

    fn remove_from(&self, node: &mut Node) {
        let Value::Mapping(entries) = &mut node.value else { return };
        entries.retain_mut(|entry| {
            let Some(below) = self.0.get(&*entry.key) else { return true };
            // An item of a list makes the list unusable.
            if below.0.is_empty() || !matches!(entry.node.value, Value::Mapping(_)) {
                return false;
            }
            below.remove_from(&mut entry.node);
            true
        });
    }
}
