//! A container, in long forms.

use std::collections::BTreeMap;

use serde_yaml::Value;

use super::names::Names;
use super::yaml::{Map, duration, path, put_pairs, put_some, put_texts, text, texts};
use super::{environment, limits};
use crate::manifest::units::{signal_text, thousandths_text};
use crate::model::container::{
    AttachmentSpec, BuildSpec, ContainerSpec, HealthTest, HealthcheckSpec, MountSource, MountSpec,
    NetworkSpec, PortMapping, ResourceSpec,
};

pub(super) fn container(spec: &ContainerSpec, names: &Names) -> Map {
    let mut map = Map::of([("image", text(&spec.image))]);
    if let Some(spec) = &spec.build {
        map.put("build", build(spec));
    }
    map.put("pull_policy", spec.pull_policy.as_str());
    put_some(&mut map, "platform", spec.platform.as_deref());
    for (key, words) in [("entrypoint", &spec.entrypoint), ("command", &spec.command)] {
        if let Some(words) = words {
            map.put(key, texts(words));
        }
    }
    if !spec.environment.is_empty() {
        map.put("environment", environment(&spec.environment));
    }
    if !spec.ports.is_empty() {
        map.put("ports", Value::Sequence(spec.ports.iter().map(port).collect()));
    }
    mounts(&mut map, &spec.volumes, names);
    match &spec.network {
        NetworkSpec::Mode(mode) => map.put("network_mode", text(mode)),
        NetworkSpec::Networks(all) => {
            let mut networks = Map::default();
            for one in all {
                networks.put(names.network(&one.network.name), attachment(one));
            }
            map.put("networks", networks);
        }
    }
    put_some(&mut map, "user", spec.user.as_deref());
    put_texts(&mut map, "group_add", &spec.group_add);
    put_some(&mut map, "working_dir", spec.working_dir.as_deref());
    put_some(&mut map, "hostname", spec.hostname.as_deref());
    put_some(&mut map, "domainname", spec.domainname.as_deref());
    let hosts: Vec<String> =
        spec.extra_hosts.iter().map(|(name, address)| format!("{name}={address}")).collect();
    put_texts(&mut map, "extra_hosts", &hosts);
    put_texts(&mut map, "dns", &spec.dns);
    put_texts(&mut map, "dns_search", &spec.dns_search);
    put_texts(&mut map, "dns_opt", &spec.dns_opt);
    put_pairs(&mut map, "labels", &spec.labels);
    put_texts(&mut map, "cap_add", &spec.cap_add);
    put_texts(&mut map, "cap_drop", &spec.cap_drop);
    put_texts(&mut map, "security_opt", &spec.security_opt);
    for (key, given) in [
        ("privileged", spec.privileged),
        ("read_only", spec.read_only),
        ("tty", spec.tty),
        ("stdin_open", spec.stdin_open),
    ] {
        if given {
            map.put(key, true);
        }
    }
    if let Some(init) = spec.init {
        map.put("init", init);
    }
    if let Some(size) = spec.shm_size {
        map.put("shm_size", size);
    }
    put_pairs(&mut map, "sysctls", &spec.sysctls);
    put_some(&mut map, "ipc", spec.ipc.as_deref());
    put_some(&mut map, "pid", spec.pid.as_deref());
    if !spec.devices.is_empty() {
        let devices = spec.devices.iter().map(|device| {
            Value::from(Map::of([
                ("source", text(&device.source)),
                ("target", text(&device.target)),
                ("permissions", text(&device.permissions)),
            ]))
        });
        map.put("devices", Value::Sequence(devices.collect()));
    }
    if !spec.ulimits.is_empty() {
        map.put("ulimits", limits(spec.ulimits.iter().map(|(name, one)| (name.clone(), one))));
    }
    resources(&mut map, &spec.resources);
    if let Some(spec) = &spec.healthcheck {
        map.put("healthcheck", healthcheck(spec));
    }
    if let Some(signal) = spec.stop_signal {
        map.put("stop_signal", signal_text(signal));
    }
    map
}

fn build(spec: &BuildSpec) -> Map {
    let mut map = Map::of([("context", path(&spec.context))]);
    put_some(&mut map, "dockerfile", spec.dockerfile.as_deref());
    put_some(&mut map, "dockerfile_inline", spec.dockerfile_inline.as_deref());
    put_pairs(&mut map, "args", &spec.args);
    put_some(&mut map, "target", spec.target.as_deref());
    put_pairs(&mut map, "labels", &spec.labels);
    put_some(&mut map, "network", spec.network.as_deref());
    if spec.no_cache {
        map.put("no_cache", true);
    }
    if spec.pull {
        map.put("pull", true);
    }
    map
}

fn port(mapping: &PortMapping) -> Value {
    let mut map = Map::of([("target", mapping.target.into())]);
    match (mapping.published, mapping.published_end) {
        (Some(first), Some(last)) => map.put("published", format!("{first}-{last}")),
        (Some(port), None) => map.put("published", port),
        (None, _) => {}
    }
    put_some(&mut map, "host_ip", mapping.host_ip.as_deref());
    map.put("protocol", mapping.protocol.as_str());
    map.into()
}

fn attachment(spec: &AttachmentSpec) -> Map {
    let mut map = Map::of([("aliases", texts(&spec.aliases))]);
    put_some(&mut map, "ipv4_address", spec.ipv4_address.as_deref());
    put_some(&mut map, "ipv6_address", spec.ipv6_address.as_deref());
    map
}

/// Memory with options that only the short form has is below `tmpfs`, everything else below `volumes`.
fn mounts(map: &mut Map, all: &BTreeMap<String, MountSpec>, names: &Names) {
    let (mut volumes, mut memory) = (Vec::new(), Vec::new());
    for (target, spec) in all {
        match &spec.source {
            MountSource::Tmpfs { size, mode, options } if !options.is_empty() => {
                memory.push(tmpfs(target, spec.read_only, *size, *mode, options));
            }
            source => volumes.push(mount(target, spec.read_only, source, names)),
        }
    }
    if !volumes.is_empty() {
        map.put("volumes", Value::Sequence(volumes));
    }
    put_texts(map, "tmpfs", &memory);
}

fn tmpfs(
    target: &str,
    read_only: bool,
    size: Option<u64>,
    mode: Option<u32>,
    options: &[String],
) -> String {
    let size = size.map(|size| format!("size={size}"));
    let mode = mode.map(|mode| format!("mode={mode:o}"));
    let read_only = read_only.then(|| "ro".to_owned());
    let all = [read_only, size, mode].into_iter().flatten().chain(options.iter().cloned());
    format!("{target}:{}", all.collect::<Vec<_>>().join(","))
}

fn mount(target: &str, read_only: bool, source: &MountSource, names: &Names) -> Value {
    let mut map = Map::default();
    match source {
        MountSource::Bind { path: source, create_host_path, propagation, selinux } => {
            map.put("type", "bind");
            map.put("source", path(source));
            let mut options = Map::of([("create_host_path", (*create_host_path).into())]);
            put_some(&mut options, "propagation", propagation.as_deref());
            if let Some(label) = selinux {
                options.put("selinux", label.to_string());
            }
            map.put("bind", options);
        }
        MountSource::Volume { volume, nocopy, subpath } => {
            map.put("type", "volume");
            map.put("source", text(names.volume(&volume.name)));
            let mut options = Map::of([("nocopy", (*nocopy).into())]);
            put_some(&mut options, "subpath", subpath.as_deref());
            map.put("volume", options);
        }
        MountSource::Anonymous { nocopy } => {
            map.put("type", "volume");
            map.put("volume", Map::of([("nocopy", (*nocopy).into())]));
        }
        MountSource::Tmpfs { size, mode, options: _ } => {
            map.put("type", "tmpfs");
            let mut options = Map::default();
            if let Some(size) = size {
                options.put("size", *size);
            }
            if let Some(mode) = mode {
                options.put("mode", format!("{mode:04o}"));
            }
            if !options.is_empty() {
                map.put("tmpfs", options);
            }
        }
    }
    map.put("target", text(target));
    if read_only {
        map.put("read_only", true);
    }
    map.into()
}

fn resources(map: &mut Map, spec: &ResourceSpec) {
    if let Some(cpus) = spec.cpus {
        map.put("cpus", thousandths_text(cpus));
    }
    if let Some(shares) = spec.cpu_shares {
        map.put("cpu_shares", shares);
    }
    put_some(map, "cpuset", spec.cpuset.as_deref());
    for (key, bytes) in [("mem_limit", spec.mem_limit), ("mem_reservation", spec.mem_reservation)] {
        if let Some(bytes) = bytes {
            map.put(key, bytes);
        }
    }
    for (key, limit) in [("memswap_limit", spec.memswap_limit), ("pids_limit", spec.pids_limit)] {
        if let Some(limit) = limit {
            map.put(key, limit);
        }
    }
}

fn healthcheck(spec: &HealthcheckSpec) -> Map {
    let mut map = Map::default();
    match &spec.test {
        HealthTest::Inherit => {}
        HealthTest::Disabled => map.put("disable", true),
        HealthTest::Shell(line) => map.put("test", text(line)),
        HealthTest::Exec(argv) => {
            let all = std::iter::once("CMD").chain(argv.iter().map(String::as_str));
            map.put("test", Value::Sequence(all.map(text).collect()));
        }
    }
    for (key, time) in [
        ("interval", spec.interval),
        ("timeout", spec.timeout),
        ("start_period", spec.start_period),
        ("start_interval", spec.start_interval),
    ] {
        if let Some(time) = time {
            map.put(key, duration(time));
        }
    }
    if let Some(retries) = spec.retries {
        map.put("retries", retries);
    }
    map
}
