//! A place in the tree while it is resolved.

use std::collections::HashMap;

use crate::manifest::report::Place;
use crate::manifest::tree::Node;

/// A value, or where it would be.
#[derive(Clone, Copy)]
pub(in crate::manifest) struct At<'a> {
    node: Option<&'a Node>,
    /// Of the key; of the nearest value above if the value is not there.
    key: Place,
}

impl<'a> At<'a> {
    pub(in crate::manifest) fn new(node: &'a Node, key: Place) -> Self {
        Self { node: Some(node), key }
    }

    /// Below this key.
    pub(in crate::manifest) fn key(self, key: &str) -> Self {
        match self.node.and_then(|node| node.entry(key)) {
            Some(entry) => Self { node: Some(&entry.node), key: entry.place },
            None => Self { node: None, key: self.key },
        }
    }

    /// All that is below this map, by key.
    pub(in crate::manifest) fn children(self) -> HashMap<&'a str, Self> {
        let entries = self.node.map(Node::entries).unwrap_or_default();
        entries.iter().map(|entry| (&*entry.key, Self::new(&entry.node, entry.place))).collect()
    }

    /// An item of this list; of something that is no list, the thing itself.
    pub(in crate::manifest) fn item(self, index: usize) -> Self {
        match self.node.and_then(|node| node.items().get(index)) {
            Some(item) => Self { node: Some(item), key: item.place },
            None => self,
        }
    }

    /// Of the value if it is a scalar, of the key otherwise.
    pub(in crate::manifest) fn place(self) -> Place {
        match self.node {
            Some(node) if node.text().is_some() => node.place,
            _ => self.key,
        }
    }

    /// Of the key.
    pub(in crate::manifest) fn key_place(self) -> Place {
        self.key
    }

    pub(in crate::manifest) fn node(self) -> Option<&'a Node> {
        self.node
    }
}
