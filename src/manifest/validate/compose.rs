//! Keys of the Compose specification that stigmer has elsewhere, or not at all: what to write instead.
//!
//! A file that was written for Compose is the usual beginning of a manifest. What it says elsewhere must not
//! look like a spelling mistake.

use super::{is_component_key, is_container_key};

/// Where a key stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Level {
    Manifest,
    Component { has_container: bool },
}

/// What is wrong with a key, and what to do about it. `path` is that of the map that it stands in.
pub(super) fn hint(level: Level, path: &[String], key: &str) -> Option<(String, String)> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let (level, path) = match (level, path.as_slice()) {
        (Level::Manifest, ["defaults", rest @ ..]) => {
            (Level::Component { has_container: true }, rest)
        }
        (_, path) => (level, path),
    };
    let (message, help) = match (level, path) {
        (Level::Manifest, []) => (format!("unknown key `{key}`"), of_manifest(key)?.to_owned()),
        (Level::Component { has_container }, []) => of_component(key, has_container)?,
        (Level::Component { .. }, ["container"]) => match of_container(key) {
            Some(help) => (format!("`{key}` is not written below `container`"), help.to_owned()),
            None if NOT_SUPPORTED.contains(&key) => unsupported(key),
            None => return None,
        },
        (_, ["container", "build"]) if key == "tags" => {
            (format!("unknown key `{key}`"), "`image` of the container names what is built".into())
        }
        (_, ["container", "build"]) if BUILD.contains(&key) => unsupported(key),
        (_, ["container", "deploy"]) => match key {
            "replicas" => elsewhere("deploy", key, "replicas"),
            "restart_policy" => elsewhere("deploy", key, "restart"),
            "labels" => elsewhere("deploy", key, "labels"),
            "mode" | "endpoint_mode" | "placement" | "update_config" | "rollback_config" => {
                (format!("`{key}` is for clusters"), "take it out".into())
            }
            _ => return None,
        },
        (_, ["container", "deploy", "resources", _]) if DEPLOYED.contains(&key) => unsupported(key),
        (_, ["container", "networks", _]) => match key {
            "priority" | "gw_priority" => (
                format!("unknown key `{key}`"),
                "the first network of the container is that of the default route".into(),
            ),
            _ if ATTACHED.contains(&key) => unsupported(key),
            _ => return None,
        },
        (_, ["container", "volumes", _]) if key == "consistency" => {
            (format!("`{key}` has no effect here"), "take it out".into())
        }
        (_, ["container", "env_file", _]) if key == "format" => unsupported(key),
        (_, ["networks", _, ..]) if NETWORK.contains(&key) => unsupported(key),
        _ => return None,
    };
    Some((message, help))
}

fn unsupported(key: &str) -> (String, String) {
    (format!("`{key}` of Compose is not supported"), "take it out".into())
}

fn elsewhere(below: &str, key: &str, ours: &str) -> (String, String) {
    let message = format!("`{key}` is not written below `{below}`");
    (message, format!("write `{ours}` in the component, beside `container:`"))
}

fn of_manifest(key: &str) -> Option<&'static str> {
    Some(match key {
        "version" => "take it out: a manifest has no version",
        "secrets" => {
            "a secret is named where it is used: `env: { NAME: { secret: { file: path } } }`"
        }
        "configs" => "mount a file: `volumes: [./file:/path/file:ro]` below `container:`",
        "include" => {
            "each project has one manifest; anchors, `defaults` and `env_file` save repetition"
        }
        _ => return None,
    })
}

fn of_component(key: &str, has_container: bool) -> Option<(String, String)> {
    if is_container_key(key) && (has_container || matches!(key, "image" | "volumes" | "build")) {
        let message = format!("`{key}` is a key of containers");
        return Some((message, "put it below `container:`".into()));
    }
    let help = of_container(key).filter(|_| has_container)?;
    Some((format!("unknown key `{key}`"), help.to_owned()))
}

/// Keys that a component has beside its container, or that have no place.
fn of_container(key: &str) -> Option<&'static str> {
    Some(match key {
        "restart" => {
            "write it in the component, beside `container:`: `restart: always`, on-failure or never"
        }
        "depends_on" => {
            "write it in the component, beside `container:`: `depends_on: { db: ready }`; the conditions are started, healthy, ready and completed"
        }
        "container_name" => {
            "take it out: the container is named PROJECT.COMPONENT, and others find it by its component's name"
        }
        "scale" => "write `replicas` in the component, beside `container:`",
        "expose" => "take it out: containers of one network reach all ports of each other",
        "links" | "external_links" => {
            "take it out: containers of one network find each other by the names of their components"
        }
        "logging" => {
            "write `logs` in the component, beside `container:`; stigmer keeps the log itself"
        }
        "secrets" => {
            "name it where it is used: `environment: { NAME: { secret: { file: path } } }`, or mount a file"
        }
        "configs" => "mount a file: `volumes: [./file:/path/file:ro]`",
        "extends" => "write an anchor and `<<: *anchor`, or put what is common into `defaults`",
        "label_file" => "write the labels below `labels`",
        "volumes_from" => "declare the volumes at the top level, and name them in both",
        "cpu_quota" | "cpu_period" | "cpu_count" | "cpu_percent" => {
            "write `cpus`: a number of processors such as 0.5"
        }
        "group" => "write `user: \"USER:GROUP\"`",
        "rlimits" => "write `ulimits`",
        "umask" | "nice" => "take it out: it is for processes",
        "external" => "a component has a `container`, or it is `external`",
        _ if is_component_key(key) => "write it in the component, beside `container:`",
        _ => return None,
    })
}

const NOT_SUPPORTED: [&str; 26] = [
    "annotations",
    "attach",
    "blkio_config",
    "cgroup",
    "cgroup_parent",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "credential_spec",
    "develop",
    "device_cgroup_rules",
    "gpus",
    "isolation",
    "mac_address",
    "mem_swappiness",
    "models",
    "oom_kill_disable",
    "oom_score_adj",
    "post_start",
    "pre_stop",
    "provider",
    "pull_refresh_after",
    "runtime",
    "storage_opt",
    "use_api_socket",
    "userns_mode",
    "uts",
];
const BUILD: [&str; 14] = [
    "additional_contexts",
    "cache_from",
    "cache_to",
    "entitlements",
    "extra_hosts",
    "isolation",
    "no_cache_filter",
    "platforms",
    "privileged",
    "provenance",
    "sbom",
    "secrets",
    "shm_size",
    "ssh",
];
const DEPLOYED: [&str; 2] = ["devices", "generic_resources"];
const ATTACHED: [&str; 4] = ["driver_opts", "interface_name", "link_local_ips", "mac_address"];
const NETWORK: [&str; 4] = ["aux_addresses", "enable_ipv4", "ip_range", "options"];
