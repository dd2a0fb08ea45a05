//! What a container sees of the host, of volumes and of memory; and its devices.
//!
//! Invariant: every mount has its own place in the container, an absolute path without `.` and `..`.

use std::collections::BTreeMap;

use super::limits::positive;
use super::{Owner, text};
use crate::manifest::resolve::at::At;
use crate::manifest::resolve::context::Context;
use crate::manifest::schema::OneOrMany;
use crate::manifest::schema::container::Container;
use crate::manifest::schema::container::mounts::{
    DeviceEntry, Mount, MountKind, Propagation, Selinux, VolumeEntry,
};
use crate::manifest::tree::short;
use crate::manifest::units;
use crate::manifest::words::nearest;
use crate::model::container::{DeviceSpec, MountSource, MountSpec};

/// `at` is the container.
pub(super) fn mounts(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: &Container,
    owner: &mut Owner<'_>,
) -> BTreeMap<String, MountSpec> {
    let mut found = BTreeMap::new();
    let at_volumes = at.key("volumes");
    for (index, entry) in raw.volumes.iter().flatten().enumerate() {
        let at = at_volumes.item(index);
        let (at_target, mount) = match entry {
            VolumeEntry::Short(word) => (at, short_form(context, at, &word.0.0, owner)),
            VolumeEntry::Full(mount) => (at.key("target"), long_form(context, at, mount, owner)),
        };
        if let Some((target, mount)) = mount {
            add(context, at_target, &target, mount, &mut found);
        }
    }
    let at_tmpfs = at.key("tmpfs");
    for (index, word) in raw.tmpfs.iter().flat_map(OneOrMany::as_slice).enumerate() {
        let at = at_tmpfs.item(index);
        let (target, mount) = tmpfs(context, at, &word.0.0);
        add(context, at, &target, mount, &mut found);
    }
    found
}

fn add(
    context: &mut Context<'_>,
    at: At<'_>,
    target: &str,
    mount: MountSpec,
    found: &mut BTreeMap<String, MountSpec>,
) {
    let parts: Vec<&str> = target.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let clean = format!("/{}", parts.join("/"));
    if !target.starts_with('/') || parts.is_empty() || parts.contains(&"..") {
        let message = format!("`{}` is no place in the container", short(target));
        let expected = "a path that begins with `/`, and is not `/` itself";
        context.error(at.place(), message, expected, "");
    } else if found.insert(clean.clone(), mount).is_some() {
        let message = format!("two mounts have the place `{}`", short(&clean));
        context.error(at.place(), message, "a place of its own for each", "");
    }
}

/// Whether the source of a short form is a path of the host, and not the name of a volume.
fn is_path(source: &str) -> bool {
    source.starts_with(['.', '/', '~'])
}

/// `[SOURCE:]TARGET[:OPTIONS]`.
fn short_form(
    context: &mut Context<'_>,
    at: At<'_>,
    word: &str,
    owner: &mut Owner<'_>,
) -> Option<(String, MountSpec)> {
    let parts: Vec<&str> = word.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => (Some(""), "", ""),
    };
    if source == Some("") || target.is_empty() || (parts.len() == 3 && options.is_empty()) {
        let message = format!("`{}` is no mount", short(word));
        let expected = "[SOURCE:]TARGET[:OPTIONS], such as `./data:/data:ro`";
        let help = "a path with a colon in it needs the long form: `type`, `source`, `target`";
        context.error(at.place(), message, expected, help);
        return None;
    }
    let options = options_of(context, at, options, source.is_some_and(is_path));
    let source = match source {
        None => MountSource::Anonymous { nocopy: options.nocopy },
        Some(path) if is_path(path) => MountSource::Bind {
            path: context.path_from_home(at, path),
            create_host_path: true,
            propagation: options.propagation.map(|one| one.as_str().to_owned()),
            selinux: options.selinux,
        },
        Some(name) => MountSource::Volume {
            volume: owner.declared.volume(context, at, name)?,
            nocopy: options.nocopy,
            subpath: None,
        },
    };
    Some((target.to_owned(), MountSpec { source, read_only: options.read_only }))
}

/// What stands behind the second colon.
#[derive(Default)]
struct Options {
    read_only: bool,
    nocopy: bool,
    selinux: Option<char>,
    propagation: Option<Propagation>,
}

const OPTIONS: [&str; 11] =
    ["ro", "rw", "nocopy", "z", "Z", "private", "rprivate", "shared", "rshared", "slave", "rslave"];

fn options_of(context: &mut Context<'_>, at: At<'_>, list: &str, is_bind: bool) -> Options {
    let mut options = Options::default();
    for option in list.split(',').filter(|_| !list.is_empty()) {
        let propagation = Propagation::ALL.into_iter().find(|one| one.as_str() == option);
        match option {
            "ro" => options.read_only = true,
            "rw" => options.read_only = false,
            "nocopy" if !is_bind => options.nocopy = true,
            "z" | "Z" if is_bind => options.selinux = option.chars().next(),
            _ if propagation.is_some() && is_bind => options.propagation = propagation,
            // Old files have them for another system, and Fedora's for volumes that need no label.
            "cached" | "delegated" | "consistent" | "z" | "Z" => {
                let message = format!("`{option}` has no effect here");
                context.warning(at.place(), message, "take it out");
            }
            _ if OPTIONS.contains(&option) => {
                let (kind, other) = if is_bind { ("path", "volume") } else { ("volume", "path") };
                let message = format!("`{option}` is for a {other}, and this is a {kind}");
                context.error(at.place(), message, "", "take it out");
            }
            _ => {
                let help = nearest(option, OPTIONS.into_iter())
                    .map(|near| format!("did you mean `{near}`?"))
                    .unwrap_or_default();
                let message = format!("`{}` is no option of a mount", short(option));
                let expected = "ro, rw, nocopy, z, Z or a propagation";
                context.error(at.place(), message, expected, help);
            }
        }
    }
    options
}

fn long_form(
    context: &mut Context<'_>,
    at: At<'_>,
    raw: &Mount,
    owner: &mut Owner<'_>,
) -> Option<(String, MountSpec)> {
    for (key, given, kind) in [
        ("bind", raw.bind.is_some(), MountKind::Bind),
        ("volume", raw.volume.is_some(), MountKind::Volume),
        ("tmpfs", raw.tmpfs.is_some(), MountKind::Tmpfs),
    ] {
        if given && raw.kind != kind {
            let message = format!("`{key}` is for mounts of the type `{key}`");
            context.error(at.key(key).key_place(), message, "", "take it out, or change `type`");
        }
    }
    let at_source = at.key("source");
    let source = match raw.kind {
        MountKind::Bind => {
            let options = raw.bind.clone().unwrap_or_default();
            let Some(source) = &raw.source else {
                let help = "add `source: ./folder`";
                context.error(at.key_place(), "a bind without a `source`", "a path", help);
                return None;
            };
            let path = context.path_from_home(at_source, &source.0.0);
            let create_host_path = options.create_host_path.unwrap_or(true);
            if !create_host_path && !path.exists() {
                let message = format!("{} is not there", path.display());
                let help = "make it before the container starts: `create_host_path` is false";
                context.warning(at_source.place(), message, help);
            }
            MountSource::Bind {
                path,
                create_host_path,
                propagation: options.propagation.map(|one| one.as_str().to_owned()),
                selinux: options.selinux.map(|one| match one {
                    Selinux::Shared => 'z',
                    Selinux::Private => 'Z',
                }),
            }
        }
        MountKind::Volume => {
            let options = raw.volume.clone().unwrap_or_default();
            let nocopy = options.nocopy.unwrap_or_default();
            match &raw.source {
                Some(name) => MountSource::Volume {
                    volume: owner.declared.volume(context, at_source, &name.0.0)?,
                    nocopy,
                    subpath: options.subpath.as_ref().map(text),
                },
                None if options.subpath.is_some() => {
                    let place = at.key("volume").key("subpath").place();
                    let message = "a part of a volume that is new and empty";
                    context.error(place, message, "a `source`", "name a volume");
                    return None;
                }
                None => MountSource::Anonymous { nocopy },
            }
        }
        MountKind::Tmpfs => {
            if raw.source.is_some() {
                let message = "memory has no `source`";
                context.error(at_source.key_place(), message, "", "take it out");
            }
            let options = raw.tmpfs.clone().unwrap_or_default();
            let at = at.key("tmpfs");
            MountSource::Tmpfs {
                size: positive(context, at.key("size"), options.size.as_ref()),
                mode: options
                    .mode
                    .as_ref()
                    .and_then(|mode| mode_of(context, at.key("mode"), &mode.0.0)),
                options: Vec::new(),
            }
        }
    };
    let read_only = raw.read_only.unwrap_or_default();
    Some((text(&raw.target), MountSpec { source, read_only }))
}

/// Options of memory that the kernel or the engine knows, with and without a value.
const FLAGS: [&str; 19] = [
    "defaults",
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "sync",
    "async",
    "dirsync",
    "mand",
    "nomand",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
];
const SETTINGS: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];

/// `TARGET[:OPTIONS]`.
fn tmpfs(context: &mut Context<'_>, at: At<'_>, word: &str) -> (String, MountSpec) {
    let (target, list) = word.split_once(':').unwrap_or((word, ""));
    let (mut size_of, mut mode, mut read_only, mut options) = (None, None, false, Vec::new());
    for option in list.split(',').filter(|_| !list.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "ro" | "rw" if value.is_empty() => read_only = name == "ro",
            // A share of the memory is the kernel's to count.
            "size" if value.ends_with('%') => options.push(option.to_owned()),
            "size" => {
                size_of = units::byte_size(value).filter(|size| *size > 0);
                if size_of.is_none() {
                    let message = format!("`{}` is no size", short(value));
                    context.error(at.place(), message, "a size such as size=64m", "");
                }
            }
            "mode" => mode = mode_of(context, at, value),
            _ if SETTINGS.contains(&name) && !value.is_empty() => options.push(option.to_owned()),
            _ if FLAGS.contains(&option) => options.push(option.to_owned()),
            _ => {
                let help = nearest(name, FLAGS.into_iter().chain(SETTINGS))
                    .map(|near| format!("did you mean `{near}`?"))
                    .unwrap_or_default();
                let message = format!("`{}` is no option of a tmpfs", short(option));
                let expected = "options such as size=64m,mode=1777,noexec";
                context.error(at.place(), message, expected, help);
            }
        }
    }
    let source = MountSource::Tmpfs { size: size_of, mode, options };
    (target.to_owned(), MountSpec { source, read_only })
}

/// A file mode in octal digits.
pub(in crate::manifest::resolve) fn mode_of(
    context: &mut Context<'_>,
    at: At<'_>,
    text: &str,
) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777);
    if mode.is_none() {
        let message = format!("`{}` is no file mode", short(text));
        context.error(at.place(), message, "octal digits such as 1777", "");
    }
    mode
}

pub(super) fn devices(context: &mut Context<'_>, at: At<'_>, raw: &Container) -> Vec<DeviceSpec> {
    let mut found = Vec::new();
    for (index, entry) in raw.devices.iter().flatten().enumerate() {
        let at = at.item(index);
        let (at_source, at_rights, device) = match entry {
            DeviceEntry::Full(raw) => {
                let source = text(&raw.source);
                let target = raw.target.as_ref().map_or_else(|| source.clone(), text);
                let permissions = raw.permissions.as_ref().map_or_else(|| "rwm".into(), text);
                let device = DeviceSpec { source, target, permissions };
                (at.key("source"), at.key("permissions"), device)
            }
            DeviceEntry::Short(word) => (at, at, short_device(&word.0.0)),
        };
        let rights = device.permissions.as_str();
        let once = |one: char| "rwm".contains(one) && rights.matches(one).count() == 1;
        let known = (1..=3).contains(&rights.len()) && rights.chars().all(once);
        if !device.source.starts_with('/') || !device.target.starts_with('/') {
            let shown = short(&device.source);
            let help = if shown.contains('=') {
                "devices by the name of their maker (CDI) are not supported"
            } else {
                ""
            };
            let message = format!("`{shown}` is no device");
            let expected = "HOST[:CONTAINER[:PERMISSIONS]], such as /dev/ttyUSB0";
            context.error(at_source.place(), message, expected, help);
        } else if !known {
            let message = format!("`{}` are no permissions", short(rights));
            context.error(at_rights.place(), message, "some of r, w and m", "");
        }
        found.push(device);
    }
    found
}

/// `HOST[:CONTAINER[:PERMISSIONS]]`; as with Docker, what follows the first colon may be the permissions.
fn short_device(word: &str) -> DeviceSpec {
    let (source, rest) = word.split_once(':').unwrap_or((word, ""));
    let (target, permissions) = match rest.split_once(':') {
        Some((target, permissions)) => (target, permissions),
        None if rest.is_empty() => (source, "rwm"),
        None if rest.starts_with('/') => (rest, "rwm"),
        None => (source, rest),
    };
    DeviceSpec { source: source.into(), target: target.into(), permissions: permissions.into() }
}
