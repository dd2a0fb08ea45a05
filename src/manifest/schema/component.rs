//! A component as it is written.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::OneOrMany;
use super::container::Container;
use super::probe::Probes;
use super::scalars::{
    Account, CountOrUnlimited, Duration, ExitStatus, FileMode, FilePath, LimitValue, ListenText,
    Name, Port, Signal, Size, Text, Umask,
};
use super::shape::shaped;
use crate::model::spec::Rlimit;

/// One thing that is kept running: a `command`, a `container`, or with `external: true` something that is only
/// watched.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("patternProperties" = {"^x-": true}))]
pub(in crate::manifest) struct Component {
    /// What runs. A list is executed as it is; a string is a line for `/bin/sh -c`.
    pub(in crate::manifest) command: Option<Command>,
    /// A container instead of a program of this machine, in the words of the Compose specification.
    pub(in crate::manifest) container: Option<Box<Container>>,
    /// Something that others start and stop; it is probed and shown.
    pub(in crate::manifest) external: Option<bool>,
    /// Where it starts, and where a relative program is looked for. Default: the folder of the manifest.
    pub(in crate::manifest) working_dir: Option<FilePath>,
    /// Its environment. A name without a value takes the value that it has in the shell of the apply.
    pub(in crate::manifest) env: Option<Env>,
    /// Files with lines `NAME=value` for its environment; `env` outranks them, a later file an earlier one.
    pub(in crate::manifest) env_file: Option<OneOrMany<FilePath>>,
    /// The user that it runs as; only root can give another one.
    pub(in crate::manifest) user: Option<Account>,
    /// The group that it runs as. Default: the user's own.
    pub(in crate::manifest) group: Option<Account>,
    /// The mask of the modes of new files. Default: the daemon's.
    pub(in crate::manifest) umask: Option<Umask>,
    /// How much it stands back for others, -20 to 19. Default: the daemon's.
    #[schemars(range(min = -20, max = 19))]
    pub(in crate::manifest) nice: Option<i32>,
    /// Limits by the names of `setrlimit(2)` in lower case, such as `nofile`.
    pub(in crate::manifest) rlimits: Option<BTreeMap<RlimitName, Limit>>,
    /// How it is seen whether it has started, is alive, is ready.
    pub(in crate::manifest) probes: Option<Probes>,
    /// When it is restarted, how soon, and when it is given up. A word alone is the policy.
    pub(in crate::manifest) restart: Option<RestartOrPolicy>,
    /// How it is ended.
    pub(in crate::manifest) stop: Option<Stop>,
    /// What must hold before it starts: a map from component to condition. A list means `started`.
    pub(in crate::manifest) depends_on: Option<DependsOn>,
    /// It runs to its end once. Default: false.
    pub(in crate::manifest) oneshot: Option<bool>,
    /// Its failure is a warning: `apply`, `status` and the like do not fail because of it. Default: false.
    pub(in crate::manifest) optional: Option<bool>,
    /// How many copies of it. Default: 1.
    #[schemars(range(min = 1, max = 1000))]
    pub(in crate::manifest) replicas: Option<u32>,
    /// It is there only if one of these is chosen with `--profile`. Default: always.
    pub(in crate::manifest) profiles: Option<Vec<Name>>,
    /// Labels of your own.
    pub(in crate::manifest) labels: Option<BTreeMap<String, Text>>,
    /// The ports that it listens on; shown, and checked for duplicates.
    pub(in crate::manifest) ports: Option<Vec<Port>>,
    /// Sockets that are opened for it, stay open while it is restarted, and are handed down to it by these
    /// names, as systemd does (`sd_listen_fds(3)`).
    pub(in crate::manifest) sockets: Option<BTreeMap<String, Socket>>,
    /// Its log file.
    pub(in crate::manifest) logs: Option<Logs>,
}

/// A socket: a TCP port or address, or a map.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::manifest) enum Socket {
    /// All of it.
    Full(Box<SocketEntry>),
    /// Where it listens on TCP.
    Tcp(ListenText),
}

shaped!(Socket { map => Full(Box<SocketEntry>), scalar => Tcp(ListenText) });

/// A socket: exactly one of `tcp` and `unix`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct SocketEntry {
    /// Where it listens on TCP.
    pub(in crate::manifest) tcp: Option<ListenText>,
    /// The file of a Unix stream socket.
    pub(in crate::manifest) unix: Option<FilePath>,
    /// The mode of that file. Default: 0600.
    pub(in crate::manifest) mode: Option<FileMode>,
    /// So many connections wait at most to be accepted; the kernel has a limit of its own
    /// (net.core.somaxconn). Default: 4096.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub(in crate::manifest) backlog: Option<u32>,
}

/// A command: a list is executed as it is, a string is a line for `/bin/sh -c`.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged, extend("x-expected" = "a list such as [program, argument], or a line for the shell"))]
pub(in crate::manifest) enum Command {
    /// The program and its arguments.
    Exec(#[schemars(length(min = 1))] Vec<Text>),
    /// A line for `/bin/sh -c`.
    Shell(#[schemars(length(min = 1))] String),
}

shaped!(Command { list => Exec(Vec<Text>), scalar => Shell(String) });

/// Variables. A list of `NAME=value` has become a map before it is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(in crate::manifest) struct Env(pub(in crate::manifest) BTreeMap<String, EnvEntry>);

impl JsonSchema for Env {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Env".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let entry = generator.subschema_for::<EnvEntry>();
        let text = generator.subschema_for::<Text>();
        json_schema!({
            "description": "Variables: a map, or a list of `NAME=value`.",
            "anyOf": [
                { "type": "object", "additionalProperties": entry },
                { "type": "array", "items": text },
            ],
        })
    }
}

/// The value of a variable.
#[derive(Clone, Debug)]
pub(in crate::manifest) enum EnvEntry {
    /// Read at each launch, never stored, never shown.
    Secret(SecretEntry),
    /// As it is written.
    Plain(Text),
    /// That of the same variable in the shell of the apply.
    FromApply(()),
}

shaped!(EnvEntry { map => Secret(SecretEntry), scalar => Plain(Text), null => FromApply(()) });

impl JsonSchema for EnvEntry {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "EnvEntry".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let secret = generator.subschema_for::<SecretEntry>();
        json_schema!({
            "description": "The value of a variable: a text, a secret, or nothing, which takes the value that the variable has in the shell of the apply.",
            "x-expected": "a text, a number, true or false, or `{ secret: ... }`",
            "anyOf": [
                { "type": ["string", "number", "boolean"] },
                secret,
                { "const": null },
            ],
        })
    }
}

/// A value that is read at each launch, never stored and never shown.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct SecretEntry {
    /// Where it comes from: exactly one of `file`, `env` and `command`.
    pub(in crate::manifest) secret: Secret,
}

/// Where a secret comes from: exactly one of these.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Secret {
    /// The content of this file, without its last newline.
    pub(in crate::manifest) file: Option<FilePath>,
    /// This variable of the daemon's environment.
    #[schemars(length(min = 1))]
    pub(in crate::manifest) env: Option<String>,
    /// What this command prints, without its last newline.
    #[schemars(length(min = 1))]
    pub(in crate::manifest) command: Option<Vec<Text>>,
}

/// A resource of `setrlimit(2)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename_all = "snake_case")]
pub(in crate::manifest) enum RlimitName {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

impl From<RlimitName> for Rlimit {
    fn from(name: RlimitName) -> Self {
        match name {
            RlimitName::As => Self::As,
            RlimitName::Core => Self::Core,
            RlimitName::Cpu => Self::Cpu,
            RlimitName::Data => Self::Data,
            RlimitName::Fsize => Self::Fsize,
            RlimitName::Memlock => Self::Memlock,
            RlimitName::Msgqueue => Self::Msgqueue,
            RlimitName::Nice => Self::Nice,
            RlimitName::Nofile => Self::Nofile,
            RlimitName::Nproc => Self::Nproc,
            RlimitName::Rss => Self::Rss,
            RlimitName::Rtprio => Self::Rtprio,
            RlimitName::Rttime => Self::Rttime,
            RlimitName::Sigpending => Self::Sigpending,
            RlimitName::Stack => Self::Stack,
        }
    }
}

/// A limit for both, or soft and hard.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::manifest) enum Limit {
    /// Soft and hard.
    Pair(LimitPair),
    /// The same for both.
    Both(LimitValue),
}

shaped!(Limit { map => Pair(LimitPair), scalar => Both(LimitValue) });

/// A soft and a hard limit; one that is left out is as the other.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct LimitPair {
    /// The limit that is enforced.
    pub(in crate::manifest) soft: Option<LimitValue>,
    /// Up to which the program may raise it.
    pub(in crate::manifest) hard: Option<LimitValue>,
}

/// When it is restarted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename_all = "kebab-case")]
pub(in crate::manifest) enum Policy {
    /// After every end.
    Always,
    /// After an exit code that is not 0, a signal or a failed probe.
    OnFailure,
    /// Not at all.
    Never,
}

/// The restart rules, or just the policy.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::manifest) enum RestartOrPolicy {
    /// All of it.
    Full(Box<Restart>),
    /// Just the policy.
    Policy(Policy),
}

shaped!(RestartOrPolicy { map => Full(Box<Restart>), scalar => Policy(Policy) });

/// When it is restarted, how soon, and when it is given up.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Restart {
    /// Default: always; for a oneshot: on-failure.
    pub(in crate::manifest) policy: Option<Policy>,
    /// After so many restarts within `window` it is given up. Default: 10.
    pub(in crate::manifest) max_restarts: Option<CountOrUnlimited>,
    /// The time in which restarts are counted. Default: 10m.
    pub(in crate::manifest) window: Option<Duration>,
    /// A run of this length sets the delays back. Default: 10s.
    pub(in crate::manifest) min_uptime: Option<Duration>,
    /// The delays between restarts.
    pub(in crate::manifest) backoff: Option<Backoff>,
    /// Exit codes and signals that count as success, besides code 0.
    pub(in crate::manifest) success_exit_status: Option<Vec<ExitStatus>>,
    /// Exit codes and signals after which it is not tried again.
    pub(in crate::manifest) prevent_exit_status: Option<Vec<ExitStatus>>,
}

/// The delays between restarts.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Backoff {
    /// The first; 0 restarts at once. Default: 1s.
    pub(in crate::manifest) initial: Option<Duration>,
    /// Each is the one before times this. Default: 2.
    #[schemars(range(min = 1, max = 1000))]
    pub(in crate::manifest) multiplier: Option<f64>,
    /// The longest. Default: 60s.
    pub(in crate::manifest) max: Option<Duration>,
    /// The share by which each is varied at random, up or down, 0 to 1. Default: 0.
    #[schemars(range(min = 0, max = 1))]
    pub(in crate::manifest) jitter: Option<f64>,
}

/// How it is ended.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Stop {
    /// The first signal. Default: SIGTERM.
    pub(in crate::manifest) signal: Option<Signal>,
    /// After this time SIGKILL follows. Default: 10s.
    pub(in crate::manifest) timeout: Option<Duration>,
    /// Run instead of sending the signal.
    pub(in crate::manifest) command: Option<Command>,
}

/// Its log file.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Logs {
    /// It is rotated at this size, at least 64KiB. Default: 50MB.
    pub(in crate::manifest) max_size: Option<Size>,
    /// So many rotated files are kept. Default: 5.
    #[schemars(range(min = 0, max = 1000))]
    pub(in crate::manifest) max_files: Option<u32>,
    /// It is rotated when its first line is that old, and a rotated file is removed when it is. Default:
    /// no limit.
    pub(in crate::manifest) max_age: Option<Duration>,
    /// Rotated files are compressed with gzip. Default: true.
    pub(in crate::manifest) compress: Option<bool>,
}

/// Dependencies: a map from component to condition, or a list of components.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::manifest) enum DependsOn {
    /// Each with its condition.
    Map(BTreeMap<String, ConditionName>),
    /// All `started`.
    List(Vec<Name>),
}

shaped!(DependsOn { map => Map(BTreeMap<String, ConditionName>), list => List(Vec<Name>) });

/// What must hold of a dependency.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename_all = "snake_case")]
pub(in crate::manifest) enum ConditionName {
    /// Its startup probe has passed.
    Started,
    /// Started, and its liveness probe passes.
    Healthy,
    /// Its readiness probe passes.
    Ready,
    /// It has run to its end with success.
    Completed,
}
