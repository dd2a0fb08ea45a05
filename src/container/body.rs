//! From a spec to what the engine is asked to make. Pure.
//!
//! What an engine of this version cannot do is an error that says which version it takes, before anything
//! is made.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, DeviceMapping, EndpointIpamConfig, EndpointSettings,
    HealthConfig, HostConfig, Mount, MountBindOptions, MountBindOptionsPropagationEnum,
    MountTmpfsOptions, MountType, MountVolumeOptions, NetworkingConfig, PortBinding,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};

use super::engine::Version;
use super::error::EngineError;
use super::identity::{Identity, volume_name};
use crate::model::InstanceId;
use crate::model::container::{
    AttachmentSpec, ContainerSpec, HealthTest, HealthcheckSpec, MountSource, NetworkSpec,
    ResourceSpec,
};
use crate::model::exit::signal_word;

/// A share of a processor in the engine's unit, for a thousandth.
const NANO_CPUS: i64 = 1_000_000;

/// How long somebody's own `docker stop` waits, in seconds: what Docker takes by itself. Podman takes 0, which
/// would be a `docker kill`. What stigmer stops has its own patience.
const STOP_SECONDS: i64 = 10;

/// What is asked of the engine to make a container.
#[derive(Clone, Debug)]
pub struct Order {
    /// The container.
    pub body: ContainerCreateBody,
    /// Networks that it is connected to once it is made: older engines take just one at its making.
    pub further: Vec<(String, EndpointSettings)>,
}

/// The order for one run. `environment` is what is declared, with secrets resolved; `volumes` are the
/// places at which the image itself wants volumes.
///
/// # Errors
/// [`EngineError::TooOld`].
pub fn order(
    spec: &ContainerSpec,
    identity: &Identity,
    environment: Vec<String>,
    volumes: &[String],
    version: &Version,
) -> Result<Order, EngineError> {
    check(spec, version)?;
    let (network_mode, networking, further) = network(&spec.network);
    let mut labels: HashMap<String, String> = spec.labels.clone().into_iter().collect();
    labels.extend(identity.labels());
    let mut host = HostConfig {
        network_mode: Some(network_mode),
        // There is exactly one that restarts (S36).
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        auto_remove: Some(false),
        port_bindings: Some(bindings(spec)),
        cap_add: list(spec.cap_add.iter()),
        cap_drop: list(spec.cap_drop.iter()),
        privileged: Some(spec.privileged),
        security_opt: list(spec.security_opt.iter()),
        readonly_rootfs: Some(spec.read_only),
        shm_size: spec.shm_size.map(signed),
        init: spec.init,
        sysctls: map(&spec.sysctls),
        ipc_mode: spec.ipc.clone(),
        pid_mode: spec.pid.clone(),
        group_add: list(spec.group_add.iter()),
        dns: list(spec.dns.iter()),
        dns_search: list(spec.dns_search.iter()),
        dns_options: list(spec.dns_opt.iter()),
        extra_hosts: list(
            spec.extra_hosts.iter().map(|(name, address)| format!("{name}:{address}")),
        ),
        devices: list(spec.devices.iter().map(|device| DeviceMapping {
            path_on_host: Some(device.source.clone()),
            path_in_container: Some(device.target.clone()),
            cgroup_permissions: Some(device.permissions.clone()),
        })),
        ulimits: list(spec.ulimits.iter().map(|(name, limit)| ResourcesUlimits {
            name: Some(name.clone()),
            soft: Some(limit.soft.map_or(-1, signed)),
            hard: Some(limit.hard.map_or(-1, signed)),
        })),
        ..HostConfig::default()
    };
    limits(&spec.resources, &mut host);
    mount(spec, &identity.instance, volumes, &mut host);
    let body = ContainerCreateBody {
        image: Some(spec.image.clone()),
        hostname: spec.hostname.clone(),
        domainname: spec.domainname.clone(),
        user: spec.user.clone(),
        working_dir: spec.working_dir.clone(),
        env: Some(environment),
        // An empty list would be taken for none: one empty word clears the image's.
        entrypoint: spec
            .entrypoint
            .clone()
            .map(|words| if words.is_empty() { vec![String::new()] } else { words }),
        cmd: spec.command.clone(),
        labels: Some(labels),
        tty: Some(spec.tty),
        open_stdin: Some(spec.stdin_open),
        exposed_ports: list(
            spec.ports.iter().map(|port| format!("{}/{}", port.target, port.protocol.as_str())),
        ),
        healthcheck: spec.healthcheck.as_ref().map(healthcheck),
        stop_signal: spec.stop_signal.map(signal_word),
        stop_timeout: Some(STOP_SECONDS),
        host_config: Some(host),
        networking_config: networking,
        ..ContainerCreateBody::default()
    };
    Ok(Order { body, further })
}

/// What an engine is told of changed limits. What is no longer limited is set to the engine's "unlimited".
#[must_use]
pub fn update(resources: &ResourceSpec) -> ContainerUpdateBody {
    let mut host = HostConfig::default();
    limits(resources, &mut host);
    ContainerUpdateBody {
        nano_cpus: Some(host.nano_cpus.unwrap_or(0)),
        cpu_shares: host.cpu_shares,
        cpuset_cpus: host.cpuset_cpus,
        memory: host.memory,
        memory_reservation: host.memory_reservation,
        // An engine refuses a memory limit above the swap limit that is in force.
        memory_swap: host.memory_swap.or(host.memory.map(|_| -1)),
        pids_limit: host.pids_limit,
        ..ContainerUpdateBody::default()
    }
}

fn limits(resources: &ResourceSpec, host: &mut HostConfig) {
    host.nano_cpus = resources.cpus.map(|cpus| signed(cpus).saturating_mul(NANO_CPUS));
    host.cpu_shares = resources.cpu_shares.map(signed);
    host.cpuset_cpus.clone_from(&resources.cpuset);
    host.memory = resources.mem_limit.map(signed);
    host.memory_reservation = resources.mem_reservation.map(signed);
    host.memory_swap = resources.memswap_limit;
    host.pids_limit = resources.pids_limit;
}

/// What this engine's version cannot do.
fn check(spec: &ContainerSpec, version: &Version) -> Result<(), EngineError> {
    let needs = |what: &str, minor: usize| {
        if version.minor >= minor {
            return Ok(());
        }
        let message = format!(
            "{what} needs version 1.{minor} of the container engine's interface, and this engine \
             ({}) speaks 1.{}; take it out of the manifest, or upgrade the engine",
            version.name, version.minor
        );
        Err(EngineError::TooOld { message })
    };
    if spec.healthcheck.as_ref().is_some_and(|check| check.start_interval.is_some()) {
        needs("healthcheck.start_interval", 44)?;
    }
    for mount in spec.volumes.values() {
        match &mount.source {
            MountSource::Volume { subpath: Some(_), .. } => needs("volume.subpath", 45)?,
            MountSource::Tmpfs { options, .. } if !options.is_empty() => {
                // The short form of the engine takes them at any version.
            }
            MountSource::Volume { .. }
            | MountSource::Bind { .. }
            | MountSource::Anonymous { .. }
            | MountSource::Tmpfs { .. } => {}
        }
    }
    Ok(())
}

fn network(
    spec: &NetworkSpec,
) -> (String, Option<NetworkingConfig>, Vec<(String, EndpointSettings)>) {
    match spec {
        NetworkSpec::Mode(mode) => (mode.clone(), None, Vec::new()),
        NetworkSpec::Networks(attachments) => {
            let mut all = attachments.iter().map(|one| (one.network.name.clone(), endpoint(one)));
            let Some((name, first)) = all.next() else {
                return ("bridge".into(), None, Vec::new());
            };
            let endpoints_config = Some(HashMap::from([(name.clone(), first)]));
            (name, Some(NetworkingConfig { endpoints_config }), all.collect())
        }
    }
}

fn endpoint(attachment: &AttachmentSpec) -> EndpointSettings {
    let (ipv4, ipv6) = (attachment.ipv4_address.clone(), attachment.ipv6_address.clone());
    let is_fixed = ipv4.is_some() || ipv6.is_some();
    EndpointSettings {
        aliases: list(attachment.aliases.iter()),
        ipam_config: is_fixed.then_some(EndpointIpamConfig {
            ipv4_address: ipv4,
            ipv6_address: ipv6,
            link_local_ips: None,
        }),
        ..EndpointSettings::default()
    }
}

fn bindings(spec: &ContainerSpec) -> HashMap<String, Option<Vec<PortBinding>>> {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &spec.ports {
        let inside = format!("{}/{}", port.target, port.protocol.as_str());
        bindings.entry(inside).or_default().get_or_insert_default().push(PortBinding {
            host_ip: port.host_ip.clone(),
            host_port: port.published.map(|first| match port.published_end {
                Some(last) => format!("{first}-{last}"),
                None => first.to_string(),
            }),
        });
    }
    bindings
}

/// What is mounted, and at the places where the image wants volumes, volumes that outlive the container.
fn mount(spec: &ContainerSpec, instance: &InstanceId, wanted: &[String], host: &mut HostConfig) {
    let mut mounts = Vec::new();
    let mut binds = Vec::new();
    let mut tmpfs = HashMap::new();
    for (target, declared) in &spec.volumes {
        match &declared.source {
            MountSource::Bind { path, create_host_path, propagation, selinux } => {
                let source = path.to_string_lossy().into_owned();
                // Only the engine's short form makes a folder that is not there, and only it relabels.
                if (*create_host_path || selinux.is_some()) && !source.contains(':') {
                    let mut options = vec![if declared.read_only { "ro" } else { "rw" }.to_owned()];
                    options.extend(selinux.map(String::from));
                    options.extend(propagation.clone());
                    binds.push(format!("{source}:{target}:{}", options.join(",")));
                } else {
                    let options = propagation.as_deref().and_then(|word| {
                        let propagation = propagation_of(word)?;
                        Some(MountBindOptions {
                            propagation: Some(propagation),
                            ..MountBindOptions::default()
                        })
                    });
                    let typ = MountType::BIND;
                    let mount = mount_of(target, Some(source), typ, declared.read_only);
                    mounts.push(Mount { bind_options: options, ..mount });
                }
            }
            MountSource::Volume { volume, nocopy, subpath } => {
                let options = MountVolumeOptions {
                    no_copy: Some(*nocopy),
                    subpath: subpath.clone(),
                    ..MountVolumeOptions::default()
                };
                let source = Some(volume.name.clone());
                let mount = mount_of(target, source, MountType::VOLUME, declared.read_only);
                mounts.push(Mount { volume_options: Some(options), ..mount });
            }
            MountSource::Anonymous { nocopy } => {
                let options =
                    MountVolumeOptions { no_copy: Some(*nocopy), ..MountVolumeOptions::default() };
                let source = Some(volume_name(instance, target));
                let mount = mount_of(target, source, MountType::VOLUME, declared.read_only);
                mounts.push(Mount { volume_options: Some(options), ..mount });
            }
            MountSource::Tmpfs { size, mode, options } => {
                if options.is_empty() {
                    let options = MountTmpfsOptions {
                        size_bytes: size.map(signed),
                        mode: mode.map(i64::from),
                        options: None,
                    };
                    let mount = mount_of(target, None, MountType::TMPFS, declared.read_only);
                    mounts.push(Mount { tmpfs_options: Some(options), ..mount });
                } else {
                    let mut words = options.clone();
                    words.extend(size.map(|size| format!("size={size}")));
                    words.extend(mode.map(|mode| format!("mode={mode:o}")));
                    words.extend(declared.read_only.then(|| "ro".to_owned()));
                    tmpfs.insert(target.clone(), words.join(","));
                }
            }
        }
    }
    for target in wanted.iter().filter(|target| !spec.volumes.contains_key(target.as_str())) {
        let source = Some(volume_name(instance, target));
        mounts.push(mount_of(target, source, MountType::VOLUME, false));
    }
    host.mounts = (!mounts.is_empty()).then_some(mounts);
    host.binds = (!binds.is_empty()).then_some(binds);
    host.tmpfs = (!tmpfs.is_empty()).then_some(tmpfs);
}

fn mount_of(target: &str, source: Option<String>, typ: MountType, read_only: bool) -> Mount {
    Mount {
        target: Some(target.to_owned()),
        source,
        typ: Some(typ),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

fn propagation_of(word: &str) -> Option<MountBindOptionsPropagationEnum> {
    use MountBindOptionsPropagationEnum as Propagation;
    match word {
        "private" => Some(Propagation::PRIVATE),
        "rprivate" => Some(Propagation::RPRIVATE),
        "shared" => Some(Propagation::SHARED),
        "rshared" => Some(Propagation::RSHARED),
        "slave" => Some(Propagation::SLAVE),
        "rslave" => Some(Propagation::RSLAVE),
        _ => None,
    }
}

fn healthcheck(spec: &HealthcheckSpec) -> HealthConfig {
    let test = match &spec.test {
        HealthTest::Inherit => None,
        HealthTest::Disabled => Some(vec!["NONE".to_owned()]),
        HealthTest::Exec(argv) => {
            Some(std::iter::once("CMD".to_owned()).chain(argv.iter().cloned()).collect())
        }
        HealthTest::Shell(line) => Some(vec!["CMD-SHELL".to_owned(), line.clone()]),
    };
    let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    HealthConfig {
        test,
        interval: spec.interval.map(nanos),
        timeout: spec.timeout.map(nanos),
        retries: spec.retries.map(i64::from),
        start_period: spec.start_period.map(nanos),
        start_interval: spec.start_interval.map(nanos),
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn list<T: Clone, I: IntoIterator<Item = impl Into<T>>>(items: I) -> Option<Vec<T>> {
    let items: Vec<T> = items.into_iter().map(Into::into).collect();
    (!items.is_empty()).then_some(items)
}

fn map(pairs: &std::collections::BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!pairs.is_empty()).then(|| pairs.clone().into_iter().collect())
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
