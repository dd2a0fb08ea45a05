//! Networks and volumes: by which names containers mention them, and their declarations.
//!
//! Invariant: the names by which components mention networks and volumes are those by which `declare` writes
//! them. A network `PROJECT_x` is called `x` again, unless another one has just this name.

use std::collections::BTreeMap;

use serde_yaml::Value;

use super::yaml::{Map, put_pairs, put_some, text};
use crate::model::container::{
    ContainerSpec, MountSource, NetworkDeclaration, NetworkSpec, VolumeSpec,
};
use crate::model::spec::{ProjectSpec, Workload};

/// From the engine's names to those of the manifest.
#[derive(Default)]
pub(super) struct Names {
    networks: BTreeMap<String, String>,
    volumes: BTreeMap<String, String>,
}

impl Names {
    pub(super) fn of(project: &ProjectSpec) -> Self {
        let networks = networks(project).map(|one| (one.name.as_str(), one.external)).collect();
        let volumes = volumes(project).map(|one| (one.name.as_str(), one.external)).collect();
        Self {
            networks: shortened(&project.name, &networks),
            volumes: shortened(&project.name, &volumes),
        }
    }

    pub(super) fn network<'a>(&'a self, name: &'a str) -> &'a str {
        self.networks.get(name).map_or(name, String::as_str)
    }

    pub(super) fn volume<'a>(&'a self, name: &'a str) -> &'a str {
        self.volumes.get(name).map_or(name, String::as_str)
    }

    /// The top-level keys.
    pub(super) fn declare(&self, project: &ProjectSpec, root: &mut Map) {
        let mut declared = Map::default();
        for network in networks(project) {
            declared.put(self.network(&network.name), self.declared_network(network));
        }
        if !declared.is_empty() {
            root.put("networks", declared);
        }
        let mut declared = Map::default();
        for volume in volumes(project) {
            declared.put(self.volume(&volume.name), self.declared_volume(volume));
        }
        if !declared.is_empty() {
            root.put("volumes", declared);
        }
    }

    fn declared_network(&self, spec: &NetworkDeclaration) -> Map {
        let name = self.network(&spec.name);
        let mut map = identity(&spec.name, name, spec.external);
        put_some(&mut map, "driver", spec.driver.as_deref());
        put_pairs(&mut map, "driver_opts", &spec.driver_opts);
        for (key, given) in [
            ("internal", spec.internal),
            ("attachable", spec.attachable),
            ("enable_ipv6", spec.enable_ipv6),
        ] {
            if given {
                map.put(key, true);
            }
        }
        if !spec.subnets.is_empty() {
            let subnets = spec.subnets.iter().map(|(subnet, gateway)| {
                let mut map = Map::of([("subnet", text(subnet))]);
                put_some(&mut map, "gateway", gateway.as_deref());
                Value::from(map)
            });
            let config = Value::Sequence(subnets.collect());
            map.put("ipam", Map::of([("config", config)]));
        }
        put_pairs(&mut map, "labels", &spec.labels);
        map
    }

    fn declared_volume(&self, spec: &VolumeSpec) -> Map {
        let mut map = identity(&spec.name, self.volume(&spec.name), spec.external);
        put_some(&mut map, "driver", spec.driver.as_deref());
        put_pairs(&mut map, "driver_opts", &spec.driver_opts);
        put_pairs(&mut map, "labels", &spec.labels);
        map
    }
}

fn containers(project: &ProjectSpec) -> impl Iterator<Item = &ContainerSpec> {
    project.components.values().filter_map(|spec| match &spec.workload {
        Workload::Container(container) => Some(&**container),
        Workload::Process(_) | Workload::External => None,
    })
}

/// Each as often as it is used.
fn networks(project: &ProjectSpec) -> impl Iterator<Item = &NetworkDeclaration> {
    containers(project)
        .flat_map(|container| match &container.network {
            NetworkSpec::Mode(_) => &[],
            NetworkSpec::Networks(all) => all.as_slice(),
        })
        .map(|attachment| &attachment.network)
}

/// Each as often as it is used.
fn volumes(project: &ProjectSpec) -> impl Iterator<Item = &VolumeSpec> {
    containers(project).flat_map(|container| container.volumes.values()).filter_map(|mount| {
        match &mount.source {
            MountSource::Volume { volume, .. } => Some(volume),
            MountSource::Bind { .. }
            | MountSource::Anonymous { .. }
            | MountSource::Tmpfs { .. } => None,
        }
    })
}

fn shortened(project: &str, all: &BTreeMap<&str, bool>) -> BTreeMap<String, String> {
    let prefix = format!("{project}_");
    all.iter()
        .map(|(name, external)| {
            let short = name
                .strip_prefix(&prefix)
                .filter(|short| !external && !short.is_empty() && !all.contains_key(*short));
            ((*name).to_owned(), short.unwrap_or(name).to_owned())
        })
        .collect()
}

/// Its real name, where it does not follow from the key.
fn identity(real: &str, key: &str, external: bool) -> Map {
    let mut map = Map::default();
    if external {
        map.put("external", true);
    } else if real == key {
        map.put("name", text(real));
    }
    map
}
