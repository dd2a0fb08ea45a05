//! Probes as they are written. A kind is a key; a probe has exactly one.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::OneOrMany;
use super::component::Command;
use super::scalars::{Duration, FilePath, HttpStatus, Pattern, Port, Text};
use super::shape::shaped;

/// The probes of a component; each may be left out.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Probes {
    /// Has it started? Until this passes, the other two do not run. Every 1s, timeout 5s, 30 failures.
    pub(in crate::manifest) startup: Option<StartupProbe>,
    /// Is it alive? Its failure restarts. Every 10s, timeout 3s, 3 failures.
    pub(in crate::manifest) liveness: Option<Probe>,
    /// May it be used? Its failure holds what depends on it. Every 5s, timeout 2s, 3 failures, 2 successes.
    pub(in crate::manifest) readiness: Option<Probe>,
}

macro_rules! with_kinds {
    ($(
        $(#[$meta:meta])*
        struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }
    )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub(in crate::manifest) struct $name {
            /// Alive and not a zombie.
            pub(in crate::manifest) process: Option<Nothing>,
            /// Alive for at least this long.
            pub(in crate::manifest) min_uptime: Option<Duration>,
            /// A command that exits with 0, with the component's environment and directory.
            pub(in crate::manifest) exec: Option<Command>,
            /// An HTTP request; a status from 200 to 399 passes.
            pub(in crate::manifest) http: Option<Http>,
            /// The same over TLS; the certificate is not verified.
            pub(in crate::manifest) https: Option<Http>,
            /// A TCP connection is accepted; a number alone is the port.
            pub(in crate::manifest) tcp: Option<TcpOrPort>,
            /// A connection to this Unix socket is accepted.
            pub(in crate::manifest) unix: Option<UnixOrPath>,
            /// The standard gRPC health check answers SERVING.
            pub(in crate::manifest) grpc: Option<Grpc>,
            /// A line of the present run's log matches this regular expression.
            pub(in crate::manifest) log: Option<LogOrPattern>,
            /// This file is there and meets the conditions.
            pub(in crate::manifest) file: Option<FileOrPath>,
            /// The container runs, and its engine's health check does not say otherwise.
            pub(in crate::manifest) container: Option<Nothing>,
            /// A kind of its own, served by the program `stigmer-probe-KIND` on the PATH or in `probe_path`.
            pub(in crate::manifest) plugin: Option<Plugin>,
            /// All of these, in this order; fails with its first failure.
            #[schemars(length(min = 1))]
            pub(in crate::manifest) all: Option<Vec<Kinds>>,
            $($(#[$field_meta])* pub(in crate::manifest) $field: Option<$type>,)*
        }
    )* };
}

with_kinds! {
    /// A check without times of its own.
    struct Kinds {}

    /// A check, and how often it is made.
    struct Probe {
        /// From the start of one run to the start of the next; the second may come earlier, so that probes are
        /// spread. Default: 10s (liveness), 5s (readiness).
        interval: Duration,
        /// A run that takes longer counts as failed. Default: 3s (liveness), 2s (readiness).
        timeout: Duration,
        /// So many failures in a row, and the probe fails. Default: 3.
        #[schemars(range(min = 1, max = 1_000_000))]
        failure_threshold: u32,
        /// So many successes in a row, and the probe passes. Default: 1 (liveness), 2 (readiness).
        #[schemars(range(min = 1, max = 1_000_000))]
        success_threshold: u32,
        /// Before the first run. Default: 0s.
        initial_delay: Duration,
    }

    /// A check, and how often it is made.
    struct StartupProbe {
        /// From the start of one run to the start of the next. Default: 1s.
        interval: Duration,
        /// A run that takes longer counts as failed. Default: 5s.
        timeout: Duration,
        /// So many failures in a row, and it is restarted. Default: 30.
        #[schemars(range(min = 1, max = 1_000_000))]
        failure_threshold: u32,
        /// So many successes in a row, and it has started. Default: 1.
        #[schemars(range(min = 1, max = 1_000_000))]
        success_threshold: u32,
        /// From the launch to the first run. Default: 0s.
        initial_delay: Duration,
        /// The longest that starting may take, however many attempts. Default: no limit.
        deadline: Duration,
    }
}

/// The names of the kinds.
pub(in crate::manifest) const KINDS: [&str; 13] = [
    "process",
    "min_uptime",
    "exec",
    "http",
    "https",
    "tcp",
    "unix",
    "grpc",
    "log",
    "file",
    "container",
    "plugin",
    "all",
];

/// The other keys of a probe.
pub(in crate::manifest) const TIMING: [&str; 6] =
    ["interval", "timeout", "failure_threshold", "success_threshold", "initial_delay", "deadline"];

impl Kinds {
    /// How many kinds are given.
    pub(in crate::manifest) fn count(&self) -> usize {
        [
            self.process.is_some(),
            self.min_uptime.is_some(),
            self.exec.is_some(),
            self.http.is_some(),
            self.https.is_some(),
            self.tcp.is_some(),
            self.unix.is_some(),
            self.grpc.is_some(),
            self.log.is_some(),
            self.file.is_some(),
            self.container.is_some(),
            self.plugin.is_some(),
            self.all.is_some(),
        ]
        .into_iter()
        .filter(|given| *given)
        .count()
    }
}

/// The times of a probe.
pub(in crate::manifest) struct Timing {
    pub(in crate::manifest) interval: Option<Duration>,
    pub(in crate::manifest) timeout: Option<Duration>,
    pub(in crate::manifest) failure_threshold: Option<u32>,
    pub(in crate::manifest) success_threshold: Option<u32>,
    pub(in crate::manifest) initial_delay: Option<Duration>,
}

macro_rules! divided {
    ($name:ident) => {
        impl $name {
            /// What is checked, and how often.
            pub(in crate::manifest) fn divide(self) -> (Kinds, Timing) {
                let kinds = Kinds {
                    process: self.process,
                    min_uptime: self.min_uptime,
                    exec: self.exec,
                    http: self.http,
                    https: self.https,
                    tcp: self.tcp,
                    unix: self.unix,
                    grpc: self.grpc,
                    log: self.log,
                    file: self.file,
                    container: self.container,
                    plugin: self.plugin,
                    all: self.all,
                };
                let timing = Timing {
                    interval: self.interval,
                    timeout: self.timeout,
                    failure_threshold: self.failure_threshold,
                    success_threshold: self.success_threshold,
                    initial_delay: self.initial_delay,
                };
                (kinds, timing)
            }
        }
    };
}
divided!(Probe);
divided!(StartupProbe);

/// Nothing to say: `{}`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Nothing {}

/// An HTTP request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Http {
    /// The port.
    pub(in crate::manifest) port: Port,
    /// Path and query. Default: /.
    #[schemars(regex(pattern = "^/"), extend("x-expected" = "a path that begins with `/`"))]
    pub(in crate::manifest) path: Option<String>,
    /// Name or address. Default: 127.0.0.1; of a container where it listens.
    #[schemars(length(min = 1))]
    pub(in crate::manifest) host: Option<String>,
    /// Default: GET.
    #[schemars(regex(pattern = "^[A-Za-z]+$"), extend("x-expected" = "a method such as GET or HEAD"))]
    pub(in crate::manifest) method: Option<String>,
    /// Header lines.
    pub(in crate::manifest) headers: Option<BTreeMap<String, Text>>,
    /// The statuses that pass. Default: 200 to 399.
    pub(in crate::manifest) status: Option<OneOrMany<HttpStatus>>,
    /// The first 64 KiB of the answer's body match this regular expression.
    pub(in crate::manifest) body: Option<Pattern>,
}

/// A TCP connection, or just the port.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::manifest) enum TcpOrPort {
    /// All of it.
    Full(Tcp),
    /// Just the port.
    Port(Port),
}

shaped!(TcpOrPort { map => Full(Tcp), scalar => Port(Port) });

/// A TCP connection.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Tcp {
    /// The port.
    pub(in crate::manifest) port: Port,
    /// Name or address. Default: 127.0.0.1; of a container where it listens.
    #[schemars(length(min = 1))]
    pub(in crate::manifest) host: Option<String>,
}

/// A Unix socket, or just its path.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::manifest) enum UnixOrPath {
    /// All of it.
    Full(Unix),
    /// Just the path.
    Path(FilePath),
}

shaped!(UnixOrPath { map => Full(Unix), scalar => Path(FilePath) });

/// A Unix socket.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Unix {
    /// Its path.
    pub(in crate::manifest) path: FilePath,
}

/// A gRPC health check.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Grpc {
    /// The port.
    pub(in crate::manifest) port: Port,
    /// Name or address. Default: 127.0.0.1; of a container where it listens.
    #[schemars(length(min = 1))]
    pub(in crate::manifest) host: Option<String>,
    /// The service asked for. Default: the server as a whole.
    pub(in crate::manifest) service: Option<String>,
    /// Speak TLS; the certificate is not verified. Default: false.
    pub(in crate::manifest) tls: Option<bool>,
}

/// A line of the log, or just the expression.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::manifest) enum LogOrPattern {
    /// All of it.
    Full(LogLine),
    /// Just the expression.
    Pattern(Pattern),
}

shaped!(LogOrPattern { map => Full(LogLine), scalar => Pattern(Pattern) });

/// A line of the log.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct LogLine {
    /// What a line must match.
    pub(in crate::manifest) pattern: Pattern,
}

/// A file, or just its path.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::manifest) enum FileOrPath {
    /// All of it.
    Full(FileCheck),
    /// Just the path: it is there.
    Path(FilePath),
}

shaped!(FileOrPath { map => Full(FileCheck), scalar => Path(FilePath) });

/// A file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct FileCheck {
    /// Its path.
    pub(in crate::manifest) path: FilePath,
    /// Its content matches this regular expression.
    pub(in crate::manifest) contains: Option<Pattern>,
    /// It was modified at most this long ago, as with a heartbeat.
    pub(in crate::manifest) max_age: Option<Duration>,
}

/// A kind of probe that is a program of its own.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct Plugin {
    /// The kind: the program is `stigmer-probe-KIND`.
    #[schemars(regex(pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]*$"), extend("x-expected" = "letters, digits, `-`, `_` and `.`"))]
    pub(in crate::manifest) kind: String,
    /// Handed to the program as JSON.
    pub(in crate::manifest) config: Option<serde_json::Value>,
    /// The program itself. Default: looked for in `probe_path`, then on the PATH.
    pub(in crate::manifest) program: Option<FilePath>,
}
