//! A container: every key of Compose's words to what the engine is told.
//!
//! ```text
//!   image, build ── build      ports ──────── ports      networks, hosts, namespaces ── network
//!   volumes, tmpfs, devices ── mounts         resources, ulimits ── limits
//!   healthcheck ── health      what is left, and what contradicts ── here
//! ```
//!
//! Invariants: names of networks and volumes are those of the engine, paths of the host are absolute, and
//! what the engine would refuse for its form is refused here, with its place.

mod build;
mod health;
mod limits;
mod mounts;
mod network;
mod ports;

pub(super) use mounts::mode_of;

use std::collections::{BTreeMap, BTreeSet};

use super::at::At;
use super::component::Sketch;
use super::context::Context;
use super::declared::Declared;
use super::process;
use crate::manifest::schema::OneOrMany;
use crate::manifest::schema::component::Component;
use crate::manifest::schema::container::{Container, EnvFileEntry, EnvFiles, Words};
use crate::manifest::schema::pairs::{PairValue, Pairs};
use crate::manifest::schema::scalars::Word;
use crate::manifest::tree::short;
use crate::manifest::words::nearest;
use crate::model::container::{ContainerSpec, NetworkSpec};
use crate::model::spec::EnvValue;

/// What a container needs to know of its component.
pub(super) struct Owner<'a> {
    pub(super) sketch: &'a mut Sketch,
    pub(super) declared: &'a mut Declared,
    pub(super) replicas: u32,
    /// The image, or how it is built, was taken out because of a mistake.
    pub(super) without_image: bool,
}

/// `at` is the component.
pub(super) fn container(
    context: &mut Context<'_>,
    at: At<'_>,
    component: &Component,
    raw: &Container,
    owner: &mut Owner<'_>,
) -> ContainerSpec {
    let inner = at.key("container");
    let (image, build) = build::image(context, inner, raw, owner);
    let network = network::network(context, inner, raw, owner);
    let ports = ports::ports(context, inner.key("ports"), raw, owner);
    network::contradictions(context, inner, raw, &network);
    let hostname = host_name(context, inner.key("hostname"), raw.hostname.as_ref());
    ContainerSpec {
        directory: super::context::absolute(context.folder, "."),
        image,
        build,
        pull_policy: build::pull_policy(context, inner, raw),
        platform: raw.platform.as_ref().map(|platform| platform.0.0.clone()),
        entrypoint: words(context, inner.key("entrypoint"), raw.entrypoint.as_ref()),
        command: words(context, inner.key("command"), raw.command.as_ref()),
        environment: environment(context, at, component, raw),
        ports,
        volumes: mounts::mounts(context, inner, raw, owner),
        network,
        user: raw.user.as_ref().map(text),
        group_add: raw.group_add.iter().flatten().map(|group| group.0.0.clone()).collect(),
        working_dir: working_dir(context, inner.key("working_dir"), raw.working_dir.as_ref()),
        hostname,
        domainname: host_name(context, inner.key("domainname"), raw.domainname.as_ref()),
        extra_hosts: network::extra_hosts(context, inner.key("extra_hosts"), raw),
        dns: network::name_servers(context, inner.key("dns"), raw.dns.as_ref()),
        dns_search: texts(raw.dns_search.iter().flat_map(OneOrMany::as_slice)),
        dns_opt: texts(raw.dns_opt.iter().flatten()),
        labels: labels(context, inner.key("labels"), raw.labels.as_ref()),
        cap_add: capabilities(context, inner.key("cap_add"), raw.cap_add.as_ref()),
        cap_drop: capabilities(context, inner.key("cap_drop"), raw.cap_drop.as_ref()),
        privileged: raw.privileged.unwrap_or_default(),
        security_opt: security(context, inner.key("security_opt"), raw),
        read_only: raw.read_only.unwrap_or_default(),
        shm_size: limits::positive(context, inner.key("shm_size"), raw.shm_size.as_ref()),
        init: raw.init,
        tty: raw.tty.unwrap_or_default(),
        stdin_open: raw.stdin_open.unwrap_or_default(),
        sysctls: pairs(raw.sysctls.as_ref()),
        ipc: network::namespace(context, inner.key("ipc"), raw.ipc.as_ref(), &IPC, owner),
        pid: network::namespace(context, inner.key("pid"), raw.pid.as_ref(), &["host"], owner),
        devices: mounts::devices(context, inner.key("devices"), raw),
        ulimits: limits::ulimits(context, inner.key("ulimits"), raw),
        resources: limits::resources(context, inner, raw),
        healthcheck: health::healthcheck(context, inner.key("healthcheck"), raw),
        stop_signal: None,
    }
}

const IPC: [&str; 4] = ["shareable", "private", "host", "none"];

fn text(word: &Word) -> String {
    word.0.0.clone()
}

fn texts<'a>(words: impl Iterator<Item = &'a Word>) -> Vec<String> {
    words.map(text).collect()
}

/// Names with texts; a name without one has an empty text.
pub(super) fn pairs(raw: Option<&Pairs>) -> BTreeMap<String, String> {
    let value = |value: &PairValue| match value {
        PairValue::Text(text) => text.0.clone(),
        PairValue::Nothing(()) => String::new(),
    };
    let pairs = raw.into_iter().flat_map(|Pairs(pairs)| pairs);
    pairs.map(|(name, one)| (name.clone(), value(one))).collect()
}

/// Labels of a container, a network or a volume.
pub(super) fn labels(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: Option<&Pairs>,
) -> BTreeMap<String, String> {
    let labels = pairs(raw);
    let places = at.children();
    for key in labels.keys() {
        let place = places.get(key.as_str()).copied().unwrap_or(at).key_place();
        if key.is_empty() {
            context.error(place, "a label without a name", "a name", "");
        }
        let reserved = ["stigmer.", "com.docker.compose."];
        if let Some(prefix) = reserved.iter().find(|prefix| key.starts_with(**prefix)) {
            let message = format!("labels that begin with `{prefix}` say whose a container is");
            context.error(place, message, "another name", "");
        }
    }
    labels
}

/// Arguments; a line is divided as by a shell.
fn words(context: &mut Context<'_>, at: At<'_>, raw: Option<&Words>) -> Option<Vec<String>> {
    match raw? {
        Words::OfImage(()) => None,
        Words::List(list) => Some(list.iter().map(|one| one.0.clone()).collect()),
        Words::Line(line) => {
            let Ok(words) = shell_words::split(line) else {
                let help = "close it, or write a list: [program, argument]";
                context.error(at.place(), "a quote is opened and never closed", "", help);
                return None;
            };
            let operators = ["&&", "||", "|", ";", "&", ">", ">>", "<", "2>&1"];
            // Not those in quotes, which are meant as they stand.
            let bare: BTreeSet<&str> =
                line.split_whitespace().filter(|part| operators.contains(part)).collect();
            let meant = words.iter().find(|word| bare.contains(word.as_str()));
            if let Some(operator) = meant {
                context.warning(
                    at.place(),
                    format!("`{operator}` is an argument here: no shell reads this line"),
                    "for a shell, write a list: [sh, -c, \"...\"]",
                );
            }
            Some(words)
        }
    }
}

/// What is explicit outranks what is in a file; what is said of the container, what is said of the component.
fn environment(
    context: &mut Context<'_>,
    at: At<'_>,
    component: &Component,
    raw: &Container,
) -> BTreeMap<String, EnvValue> {
    let mut env = BTreeMap::new();
    let files = component.env_file.iter().flat_map(OneOrMany::as_slice);
    process::env_files(context, at.key("env_file"), files, &mut env);
    let inner = at.key("container");
    let at_files = inner.key("env_file");
    let files: &[EnvFileEntry] = match &raw.env_file {
        None => &[],
        Some(EnvFiles::One(file)) => {
            let path = context.path_from_home(at_files, &file.0.0);
            process::env_file(context, &path, at_files.place(), &mut env);
            &[]
        }
        Some(EnvFiles::Many(files)) => files,
    };
    for (index, file) in files.iter().enumerate() {
        let at = at_files.item(index);
        let (at, file, required) = match file {
            EnvFileEntry::Path(path) => (at, path, true),
            EnvFileEntry::Full(map) => (at.key("path"), &map.path, map.required.unwrap_or(true)),
        };
        let path = context.path_from_home(at, &file.0.0);
        if required || path.exists() {
            process::env_file(context, &path, at.place(), &mut env);
        }
    }
    if let Some(declared) = &component.env {
        process::variables(context, at.key("env"), declared, &mut env);
    }
    if raw.env.is_some() && raw.environment.is_some() {
        context.error(
            inner.key("env").key_place(),
            "`env` and `environment` are two names of one key",
            "one of the two",
            "put all variables below `environment`",
        );
    }
    if let Some(declared) = raw.environment.as_ref().or(raw.env.as_ref()) {
        process::variables(context, inner.key("environment"), declared, &mut env);
    }
    env
}

fn working_dir(context: &mut Context<'_>, at: At<'_>, raw: Option<&Word>) -> Option<String> {
    let path = text(raw?);
    if !path.starts_with('/') {
        let message = format!("`{}` is no folder of the container", short(&path));
        let help = format!("write the whole path, such as `/{}`", short(&path));
        context.error(at.place(), message, "a path that begins with `/`", help);
    }
    Some(path)
}

/// RFC 1123.
fn host_name(context: &mut Context<'_>, at: At<'_>, raw: Option<&Word>) -> Option<String> {
    let name = text(raw?);
    let fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|one| one.is_ascii_alphanumeric() || one == b'-' || one == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(fits) {
        let message = format!("`{}` is no name of a host", short(&name));
        context.error(at.place(), message, "letters, digits, `-` and `.`, such as db.local", "");
    }
    Some(name)
}

/// Those of `capabilities(7)`.
const CAPABILITIES: [&str; 42] = [
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// With or without `CAP_`, in any case.
fn capabilities(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: Option<&Vec<Word>>,
) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (index, word) in raw.into_iter().flatten().enumerate() {
        let upper = word.0.0.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if !CAPABILITIES.contains(&name) {
            let help = nearest(name, CAPABILITIES.into_iter())
                .map(|near| format!("did you mean `{near}`?"))
                .unwrap_or_default();
            let message = format!("`{}` is no capability", short(&word.0.0));
            let expected = "a name of capabilities(7), such as NET_ADMIN, or ALL";
            context.error(at.item(index).place(), message, expected, help);
        }
        found.insert(name.to_owned());
    }
    found
}

/// A file of a seccomp profile is seen from the folder of the manifest, as every path.
fn security(context: &mut Context<'_>, at: At<'_>, raw: &Container) -> Vec<String> {
    let options = raw.security_opt.iter().flatten().enumerate();
    let options: Vec<(usize, &str)> = options.map(|(at, word)| (at, word.0.0.as_str())).collect();
    let mut found = Vec::with_capacity(options.len());
    for (index, option) in options {
        let profile = option.strip_prefix("seccomp=").or(option.strip_prefix("seccomp:"));
        found.push(match profile {
            Some(profile) if !matches!(profile, "unconfined" | "builtin") => {
                let at = at.item(index);
                let path = context.path_from_home(at, profile);
                if !path.is_file() {
                    let message = format!("there is no file {}", path.display());
                    let expected = "a profile, unconfined or builtin";
                    context.error(at.place(), message, expected, "");
                }
                format!("seccomp={}", path.display())
            }
            Some(word) => format!("seccomp={word}"),
            None => option.to_owned(),
        });
    }
    found
}

/// Whether it shares the network of the host.
pub(super) fn is_on_host(spec: &ContainerSpec) -> bool {
    matches!(&spec.network, NetworkSpec::Mode(mode) if mode == "host")
}
