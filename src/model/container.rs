//! How to run a container, in the words of the Compose specification
//! (<https://github.com/compose-spec/compose-spec/blob/main/spec.md>), with everything resolved: short
//! forms are long ones, names of volumes and networks are those that the engine knows, paths are absolute.
//!
//! A spec is complete in itself: what the manifest declares beside the components (networks, volumes) is in
//! each component that uses it, so that a change there is a change of these components.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::spec::{EnvValue, LimitSpec};

/// The engine's identifier of a container: 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerId(Arc<str>);

impl ContainerId {
    /// The identifier as the engine gave it.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// All of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 characters, which is how people see it.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// A container with every default filled in. Where a field is `None`, the image or the engine decides.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the Compose specification")]
pub struct ContainerSpec {
    /// The folder of the manifest: where the commands of its secrets run. Absolute.
    pub directory: PathBuf,
    /// The image: its name, with a tag or a digest. For a `build` without a name, `PROJECT-COMPONENT`.
    pub image: String,
    /// How the image is made, if it is not fetched.
    pub build: Option<BuildSpec>,
    /// When the image is fetched or built.
    pub pull_policy: PullPolicy,
    /// `os/arch`, such as `linux/arm64`.
    pub platform: Option<String>,
    /// Replaces the image's entrypoint; empty clears it.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command; empty clears it.
    pub command: Option<Vec<String>>,
    /// Declared variables: `environment` over `env_file`.
    pub environment: BTreeMap<String, EnvValue>,
    /// Published ports.
    pub ports: Vec<PortMapping>,
    /// What is mounted, by its place in the container.
    pub volumes: BTreeMap<String, MountSpec>,
    /// How it is connected.
    pub network: NetworkSpec,
    /// `user`, `uid`, `user:group`, `uid:gid`.
    pub user: Option<String>,
    /// Additional groups.
    pub group_add: Vec<String>,
    /// Inside the container.
    pub working_dir: Option<String>,
    /// Its host name.
    pub hostname: Option<String>,
    /// Its domain name.
    pub domainname: Option<String>,
    /// Lines for its `/etc/hosts`: name to address, or `host-gateway`.
    pub extra_hosts: Vec<(String, String)>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// Resolver options.
    pub dns_opt: Vec<String>,
    /// Labels of the container.
    pub labels: BTreeMap<String, String>,
    /// Added capabilities.
    pub cap_add: BTreeSet<String>,
    /// Dropped capabilities.
    pub cap_drop: BTreeSet<String>,
    /// Every capability and device of the host.
    pub privileged: bool,
    /// Options such as `no-new-privileges:true`. A `seccomp=` that names a file names it absolutely; the
    /// engine wants its content.
    pub security_opt: Vec<String>,
    /// Its root file system cannot be written.
    pub read_only: bool,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: Option<u64>,
    /// Run a small init as process 1, which reaps and forwards signals.
    pub init: Option<bool>,
    /// Give it a terminal.
    pub tty: bool,
    /// Keep its standard input open.
    pub stdin_open: bool,
    /// Kernel parameters of its namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// `host`, `shareable`, `private`, `none` or `container:NAME`.
    pub ipc: Option<String>,
    /// `host` or `container:NAME`.
    pub pid: Option<String>,
    /// Devices of the host.
    pub devices: Vec<DeviceSpec>,
    /// Limits of its processes by the names of the engine: `nofile`.
    pub ulimits: BTreeMap<String, LimitSpec>,
    /// What it may use. A running container can be told of a change of these.
    #[serde(flatten)]
    pub resources: ResourceSpec,
    /// The check that the engine runs. `None`: the image's own, if it has one.
    pub healthcheck: Option<HealthcheckSpec>,
    /// The first signal of a stop. `None`: the image's own, or SIGTERM.
    pub stop_signal: Option<i32>,
}

/// What a container may use.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ResourceSpec {
    /// Thousandths of a processor.
    pub cpus: Option<u64>,
    /// Relative weight for processors.
    pub cpu_shares: Option<u64>,
    /// The processors that it may run on: `0-2,4`.
    pub cpuset: Option<String>,
    /// Bytes of memory.
    pub mem_limit: Option<u64>,
    /// Bytes of memory that it is pushed back to when memory is short.
    pub mem_reservation: Option<u64>,
    /// Bytes of memory and swap together; -1 is unlimited swap.
    pub memswap_limit: Option<i64>,
    /// Processes and threads; -1 is unlimited.
    pub pids_limit: Option<i64>,
}

/// When an image is fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    /// If it is not there.
    #[default]
    Missing,
    /// At every launch.
    Always,
    /// Not at all; it must be there.
    Never,
    /// Built at every launch, with the engine's cache.
    Build,
}

impl PullPolicy {
    /// The word in the manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Always => "always",
            Self::Never => "never",
            Self::Build => "build",
        }
    }
}

/// How an image is built.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct BuildSpec {
    /// The folder that is sent to the engine.
    pub context: PathBuf,
    /// The Dockerfile as seen from the context. `None`: `Dockerfile`. It may lie outside of the context.
    pub dockerfile: Option<String>,
    /// The text of the Dockerfile itself.
    pub dockerfile_inline: Option<String>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// The stage to build.
    pub target: Option<String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// The network of the build's steps.
    pub network: Option<String>,
    /// Do not use the engine's cache.
    pub no_cache: bool,
    /// Fetch the images that it is built upon, also where they are there.
    pub pull: bool,
}

/// One published port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct PortMapping {
    /// The port inside of the container.
    pub target: u16,
    /// The port of the host. `None`: one that the engine chooses.
    pub published: Option<u16>,
    /// The last port of a range that begins with `published`: the engine takes a free one of it.
    pub published_end: Option<u16>,
    /// The address of the host. `None`: all.
    pub host_ip: Option<String>,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the protocols")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The word in the manifest and in the engine's interface.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// Something that is mounted into a container.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MountSpec {
    /// What is mounted.
    pub source: MountSource,
    /// It cannot be written through this mount.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A folder or file of the host.
    Bind {
        /// Absolute.
        path: PathBuf,
        /// Make the folder if it is not there.
        create_host_path: bool,
        /// `private`, `rprivate`, `shared`, `rshared`, `slave` or `rslave`.
        propagation: Option<String>,
        /// `z` or `Z`: relabel for `SELinux`.
        selinux: Option<char>,
    },
    /// A volume of the engine.
    Volume {
        /// The engine's name of it.
        volume: VolumeSpec,
        /// Do not copy what the image has at this place into a new volume.
        nocopy: bool,
        /// The part of the volume that is mounted.
        subpath: Option<String>,
    },
    /// A volume without a name in the manifest; it belongs to the instance and outlives its containers.
    Anonymous {
        /// Do not copy what the image has at this place into a new volume.
        nocopy: bool,
    },
    /// Memory.
    Tmpfs {
        /// Bytes.
        size: Option<u64>,
        /// File mode.
        mode: Option<u32>,
        /// Further options as they are written, such as `noexec`.
        options: Vec<String>,
    },
}

/// A volume that components name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// The engine's name: `PROJECT_NAME`, or what `name:` says.
    pub name: String,
    /// Others make it; it must be there.
    pub external: bool,
    /// What makes it. `None`: the engine's default.
    pub driver: Option<String>,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Labels of the volume.
    pub labels: BTreeMap<String, String>,
}

/// How a container is connected.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkSpec {
    /// `host`, `none`, `bridge` or `container:NAME`.
    Mode(String),
    /// These networks; the first is that of the default route. Never empty.
    Networks(Vec<AttachmentSpec>),
}

impl Default for NetworkSpec {
    /// The engine's own default network.
    fn default() -> Self {
        Self::Mode("bridge".into())
    }
}

/// A connection to one network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttachmentSpec {
    /// The network.
    pub network: NetworkDeclaration,
    /// Names by which the others on this network find the container; the component's own is among them.
    pub aliases: Vec<String>,
    /// A fixed address.
    pub ipv4_address: Option<String>,
    /// A fixed address.
    pub ipv6_address: Option<String>,
}

/// A network that components name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the Compose specification")]
pub struct NetworkDeclaration {
    /// The engine's name: `PROJECT_NAME`, or what `name:` says.
    pub name: String,
    /// Others make it; it must be there.
    pub external: bool,
    /// What makes it. `None`: `bridge`.
    pub driver: Option<String>,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Without a way out of the machine.
    pub internal: bool,
    /// Containers of others may be connected by hand.
    pub attachable: bool,
    /// IPv6 beside IPv4.
    pub enable_ipv6: bool,
    /// The subnets that addresses are taken from, each with its gateway.
    pub subnets: Vec<(String, Option<String>)>,
    /// Labels of the network.
    pub labels: BTreeMap<String, String>,
}

/// A device of the host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// Its path on the host.
    pub source: String,
    /// Its path in the container.
    pub target: String,
    /// Some of `r`, `w` and `m`.
    pub permissions: String,
}

/// A check that the engine runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HealthcheckSpec {
    /// What is run.
    pub test: HealthTest,
    /// From the end of one run to the start of the next. `None`: the engine's default, as below.
    pub interval: Option<Duration>,
    /// A run that takes longer has failed.
    pub timeout: Option<Duration>,
    /// Failures in a row until it is unhealthy.
    pub retries: Option<u32>,
    /// Failures do not count within this time, until the first success.
    pub start_period: Option<Duration>,
    /// The interval within the start period; needs version 1.44 of the engine's interface.
    pub start_interval: Option<Duration>,
}

/// What a health check runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthTest {
    /// The image's own, with other times.
    Inherit,
    /// None, also where the image has one.
    Disabled,
    /// A program and its arguments.
    Exec(Vec<String>),
    /// A line for the container's shell.
    Shell(String),
}
