//! A container as it is written, in the words of the Compose specification.
//!
//! Invariant: what a key means is what it means in Compose; keys that stigmer has elsewhere are not known
//! here, and `validate::compose` says where they are.

pub(in crate::manifest) mod build;
pub(in crate::manifest) mod limits;
pub(in crate::manifest) mod mounts;
pub(in crate::manifest) mod network;

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::OneOrMany;
use super::component::Env;
use super::pairs::Pairs;
use super::scalars::{
    Account, ByteSize, ByteSizeOrNone, Cpus, Duration, FilePath, Platform, Signal, Text, Word,
};
use super::shape::shaped;
use build::BuildOrContext;
use limits::{Deploy, Ulimit, UlimitName};
use mounts::{DeviceEntry, VolumeEntry};
use network::{Attachments, ExtraHosts, PortEntry};

/// A container of an engine such as Docker or Podman, in the words of the Compose specification.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("patternProperties" = {"^x-": true}))]
pub(in crate::manifest) struct Container {
    /// The image, such as `postgres:16`. Default with `build`: `PROJECT-COMPONENT`.
    pub(in crate::manifest) image: Option<Word>,
    /// How the image is built: its context, or a map.
    pub(in crate::manifest) build: Option<BuildOrContext>,
    /// When the image is fetched or built. Default: missing.
    pub(in crate::manifest) pull_policy: Option<PullPolicyName>,
    /// `os[/arch[/variant]]`, such as `linux/arm64`. Default: that of the engine.
    pub(in crate::manifest) platform: Option<Platform>,
    /// Replaces the image's entrypoint. An empty list clears it, nothing leaves it.
    pub(in crate::manifest) entrypoint: Option<Words>,
    /// Replaces the image's command. An empty list clears it, nothing leaves it.
    pub(in crate::manifest) command: Option<Words>,
    /// Its environment, over `env` of the component. A name without a value takes that of the shell of the apply.
    pub(in crate::manifest) environment: Option<Env>,
    /// Another name of `environment`.
    pub(in crate::manifest) env: Option<Env>,
    /// Files with lines `NAME=value`; a later file outranks an earlier one.
    pub(in crate::manifest) env_file: Option<EnvFiles>,
    /// Published ports: `[[IP:]HOST:]CONTAINER[/PROTOCOL]`, or maps.
    pub(in crate::manifest) ports: Option<Vec<PortEntry>>,
    /// What is mounted: `[SOURCE:]TARGET[:OPTIONS]`, or maps.
    pub(in crate::manifest) volumes: Option<Vec<VolumeEntry>>,
    /// The networks it is connected to: a list, or a map. Default: the project's own, `default`.
    pub(in crate::manifest) networks: Option<Attachments>,
    /// Instead of networks: `host`, `none`, `bridge`, `service:COMPONENT` or `container:NAME`.
    pub(in crate::manifest) network_mode: Option<Word>,
    /// `user` or `user:group`, names or numbers. Default: that of the image.
    pub(in crate::manifest) user: Option<Word>,
    /// Further groups of its user.
    pub(in crate::manifest) group_add: Option<Vec<Account>>,
    /// Where it starts, in the container. Default: that of the image.
    pub(in crate::manifest) working_dir: Option<Word>,
    /// Its host name.
    pub(in crate::manifest) hostname: Option<Word>,
    /// Its domain name.
    pub(in crate::manifest) domainname: Option<Word>,
    /// Lines for its `/etc/hosts`: a list of `NAME=ADDRESS`, or a map.
    pub(in crate::manifest) extra_hosts: Option<ExtraHosts>,
    /// Name servers.
    pub(in crate::manifest) dns: Option<OneOrMany<Word>>,
    /// Search domains.
    pub(in crate::manifest) dns_search: Option<OneOrMany<Word>>,
    /// Options of the resolver.
    pub(in crate::manifest) dns_opt: Option<Vec<Word>>,
    /// Labels of the container.
    pub(in crate::manifest) labels: Option<Pairs>,
    /// Capabilities that it has besides those of every container.
    pub(in crate::manifest) cap_add: Option<Vec<Word>>,
    /// Capabilities that it does not have.
    pub(in crate::manifest) cap_drop: Option<Vec<Word>>,
    /// It has every capability and every device. Default: false.
    pub(in crate::manifest) privileged: Option<bool>,
    /// Options such as `no-new-privileges:true`.
    pub(in crate::manifest) security_opt: Option<Vec<Word>>,
    /// Its root file system cannot be written. Default: false.
    pub(in crate::manifest) read_only: Option<bool>,
    /// File systems in memory: `TARGET[:OPTIONS]`.
    pub(in crate::manifest) tmpfs: Option<OneOrMany<Word>>,
    /// Size of `/dev/shm`. Default: that of the engine.
    pub(in crate::manifest) shm_size: Option<ByteSize>,
    /// A small init is process 1, which reaps and forwards signals. Default: that of the engine.
    pub(in crate::manifest) init: Option<bool>,
    /// It has a terminal. Default: false.
    pub(in crate::manifest) tty: Option<bool>,
    /// Its standard input stays open. Default: false.
    pub(in crate::manifest) stdin_open: Option<bool>,
    /// Kernel parameters of its namespaces.
    pub(in crate::manifest) sysctls: Option<Pairs>,
    /// `shareable`, `private`, `host`, `none`, `service:COMPONENT` or `container:NAME`.
    pub(in crate::manifest) ipc: Option<Word>,
    /// `host`, `service:COMPONENT` or `container:NAME`.
    pub(in crate::manifest) pid: Option<Word>,
    /// Devices of the host: `HOST[:CONTAINER[:PERMISSIONS]]`, or maps.
    pub(in crate::manifest) devices: Option<Vec<DeviceEntry>>,
    /// Limits of its processes: numbers, or maps of `soft` and `hard`.
    pub(in crate::manifest) ulimits: Option<BTreeMap<UlimitName, Ulimit>>,
    /// So many processors, such as 0.5; 0 is no limit.
    pub(in crate::manifest) cpus: Option<Cpus>,
    /// Its weight beside others when processors are short; 1024 is usual, 0 the engine's own.
    #[schemars(range(min = 0, max = 262_144))]
    pub(in crate::manifest) cpu_shares: Option<u64>,
    /// The processors that it may run on, such as `0-2,4`.
    pub(in crate::manifest) cpuset: Option<Word>,
    /// The most memory that it may use; 0 is no limit.
    pub(in crate::manifest) mem_limit: Option<ByteSize>,
    /// What it is pushed back to when memory is short.
    pub(in crate::manifest) mem_reservation: Option<ByteSize>,
    /// The most memory and swap together; -1 is unlimited swap.
    pub(in crate::manifest) memswap_limit: Option<ByteSizeOrNone>,
    /// The most processes and threads; -1 is no limit.
    #[schemars(range(min = -1, max = 4_194_304))]
    pub(in crate::manifest) pids_limit: Option<i64>,
    /// Resources in the words of Compose's deployments.
    pub(in crate::manifest) deploy: Option<Deploy>,
    /// The check that the engine runs inside of it. Default: that of the image, if it has one.
    pub(in crate::manifest) healthcheck: Option<Healthcheck>,
    /// The first signal of a stop, as `stop.signal` of the component. Default: that of the image.
    pub(in crate::manifest) stop_signal: Option<Signal>,
    /// After this time SIGKILL follows, as `stop.timeout` of the component. Default: 10s.
    pub(in crate::manifest) stop_grace_period: Option<Duration>,
}

/// When the image is fetched or built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename_all = "snake_case")]
pub(in crate::manifest) enum PullPolicyName {
    /// If it is not there.
    Missing,
    /// Another word for `missing`.
    IfNotPresent,
    /// At every launch.
    Always,
    /// Not at all: it must be there.
    Never,
    /// Built at every launch.
    Build,
}

/// Arguments of a program.
#[derive(Clone, Debug)]
pub(in crate::manifest) enum Words {
    /// One by one.
    List(Vec<Text>),
    /// Divided as by a shell, but run without one.
    Line(String),
    /// Those of the image.
    OfImage(()),
}

shaped!(Words { list => List(Vec<Text>), scalar => Line(String), null => OfImage(()) });

impl JsonSchema for Words {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Words".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let text = generator.subschema_for::<Text>();
        json_schema!({
            "description": "A program and its arguments: a list, or a line that is divided as by a shell, but run without one. Nothing: as in the image.",
            "x-expected": "a list such as [program, argument], or a line",
            "anyOf": [
                { "type": "array", "items": text },
                { "type": ["string", "number", "boolean"] },
                { "const": null },
            ],
        })
    }
}

/// Env files: one, or a list.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::manifest) enum EnvFiles {
    /// A list.
    Many(Vec<EnvFileEntry>),
    /// Just one.
    One(FilePath),
}

shaped!(EnvFiles { list => Many(Vec<EnvFileEntry>), scalar => One(FilePath) });

/// An env file, or just its path.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::manifest) enum EnvFileEntry {
    /// All of it.
    Full(EnvFileMap),
    /// Just the path.
    Path(FilePath),
}

shaped!(EnvFileEntry { map => Full(EnvFileMap), scalar => Path(FilePath) });

/// An env file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct EnvFileMap {
    /// Its path.
    pub(in crate::manifest) path: FilePath,
    /// False: it may be absent. Default: true.
    pub(in crate::manifest) required: Option<bool>,
}

/// The check that the engine runs inside of the container.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Healthcheck {
    /// A line for the container's shell, or a list that begins with CMD, CMD-SHELL or NONE. Default: that of the image.
    pub(in crate::manifest) test: Option<HealthTestEntry>,
    /// No check, also where the image has one. Default: false.
    pub(in crate::manifest) disable: Option<bool>,
    /// From the end of one run to the start of the next. Default: 30s.
    pub(in crate::manifest) interval: Option<Duration>,
    /// A run that takes longer has failed. Default: 30s.
    pub(in crate::manifest) timeout: Option<Duration>,
    /// So many failures in a row, and it is unhealthy. Default: 3.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(in crate::manifest) retries: Option<u32>,
    /// Within this time failures do not count. Default: 0s.
    pub(in crate::manifest) start_period: Option<Duration>,
    /// The interval within the start period. Default: 5s.
    pub(in crate::manifest) start_interval: Option<Duration>,
}

/// What a health check runs.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged, extend("x-expected" = "a line for the shell, or a list such as [CMD, program, argument]"))]
pub(in crate::manifest) enum HealthTestEntry {
    /// Begins with CMD, CMD-SHELL or NONE.
    List(#[schemars(length(min = 1))] Vec<Text>),
    /// A line for the container's shell.
    Line(#[schemars(length(min = 1))] String),
}

shaped!(HealthTestEntry { list => List(Vec<Text>), scalar => Line(String) });
