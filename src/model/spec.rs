//! What is wanted: the resolved form of a manifest.
//!
//! `manifest` makes these values; every default is filled in, every path absolute, every variable
//! replaced. They are stored, compared by `plan`, and carried out by `machine` and `runner`. Secrets
//! stay references here (S39).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::container::ContainerSpec;
use super::socket::SocketSpec;

/// One project: everything that one manifest declares.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ProjectSpec {
    /// Unique within a daemon.
    pub name: String,
    /// The manifest's absolute path.
    pub manifest: PathBuf,
    /// Lines for the status, in the order of the file (S46).
    pub info: Vec<(String, String)>,
    /// The enabled components by name.
    pub components: BTreeMap<String, Arc<ComponentSpec>>,
}

/// One component with every default filled in.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ComponentSpec {
    /// What runs.
    pub workload: Workload,
    /// How many instances of it.
    pub replicas: u32,
    /// It runs to completion once, rather than for ever.
    pub oneshot: bool,
    /// Its failure is a warning: no command fails because of it.
    #[serde(default)]
    pub optional: bool,
    /// Names of other components, each with the condition that must hold before this one starts.
    pub depends_on: BTreeMap<String, Condition>,
    /// Its probes.
    pub probes: ProbesSpec,
    /// When and how it is restarted.
    pub restart: RestartSpec,
    /// How it is ended.
    pub stop: StopSpec,
    /// Its log file.
    pub logs: LogSpec,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// The profiles that it belongs to; empty means always enabled.
    pub profiles: BTreeSet<String>,
    /// Ports that it says it listens on; shown by status, and checked for duplicates.
    pub ports: Vec<u16>,
}

impl ComponentSpec {
    /// Something that is only watched, with no probes and all defaults: the smallest spec there is.
    #[must_use]
    pub fn external() -> Self {
        Self {
            workload: Workload::External,
            replicas: 1,
            oneshot: false,
            optional: false,
            depends_on: BTreeMap::new(),
            probes: ProbesSpec::default(),
            restart: RestartSpec::default(),
            stop: StopSpec::default(),
            logs: LogSpec::default(),
            labels: BTreeMap::new(),
            profiles: BTreeSet::new(),
            ports: Vec::new(),
        }
    }
}

impl Default for RestartSpec {
    /// S16: always; at most 10 restarts in 10 minutes; `min_uptime` 10 s.
    fn default() -> Self {
        Self {
            policy: RestartPolicy::Always,
            max_restarts: Some(10),
            window: Duration::from_secs(600),
            min_uptime: Duration::from_secs(10),
            backoff: BackoffSpec::default(),
            success_exit_status: BTreeSet::new(),
            prevent_exit_status: BTreeSet::new(),
        }
    }
}

impl Default for BackoffSpec {
    /// S16: 1 s, doubled, at most 60 s, no jitter.
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            multiplier: 2.0,
            max: Duration::from_secs(60),
            jitter: 0.0,
        }
    }
}

impl Default for StopSpec {
    /// SIGTERM, then SIGKILL after 10 s.
    fn default() -> Self {
        Self { signal: libc::SIGTERM, timeout: Duration::from_secs(10), command: None }
    }
}

impl Default for LogSpec {
    /// Five files of 50 MB, compressed, of any age.
    fn default() -> Self {
        Self { max_size: 50_000_000, max_files: 5, max_age: None, compress: true }
    }
}

/// What a component runs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// A program on this machine.
    Process(ProcessSpec),
    /// A container of an engine.
    Container(#[serde(with = "super::embedded")] Box<ContainerSpec>),
    /// Something that others start and stop; only probed and shown (S57).
    External,
}

/// How to execute a program.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// The program and its arguments.
    pub command: CommandSpec,
    /// Absolute.
    pub working_dir: PathBuf,
    /// Declared variables (`env` over `env_file`); the documented base is added at launch.
    pub env: BTreeMap<String, EnvValue>,
    /// A name or a number; root only.
    pub user: Option<String>,
    /// A name or a number; the user's own group if absent.
    pub group: Option<String>,
    /// File mode mask.
    pub umask: Option<u32>,
    /// -20 to 19.
    pub nice: Option<i32>,
    /// By the names of `setrlimit(2)` in lower case without the prefix: `nofile`, `nproc`.
    pub rlimits: BTreeMap<Rlimit, LimitSpec>,
    /// Sockets that are opened for it and handed down, by the names of `LISTEN_FDNAMES`. What an older
    /// version has stored has none.
    #[serde(default)]
    pub sockets: BTreeMap<String, SocketSpec>,
}

impl ProcessSpec {
    /// A command and a folder, and nothing else declared.
    #[must_use]
    pub fn new(command: CommandSpec, working_dir: impl Into<PathBuf>) -> Self {
        Self {
            command,
            working_dir: working_dir.into(),
            env: BTreeMap::new(),
            user: None,
            group: None,
            umask: None,
            nice: None,
            rlimits: BTreeMap::new(),
            sockets: BTreeMap::new(),
        }
    }
}

/// A command as in a Dockerfile: a list is executed directly, a string by `/bin/sh -c`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandSpec {
    /// The program and its arguments; never empty.
    Exec(Vec<String>),
    /// A line for `/bin/sh -c`.
    Shell(String),
}

impl CommandSpec {
    /// The argument vector to execute.
    #[must_use]
    pub fn argv(&self) -> Vec<String> {
        match self {
            Self::Exec(argv) => argv.clone(),
            Self::Shell(line) => vec!["/bin/sh".into(), "-c".into(), line.clone()],
        }
    }
}

/// The value of an environment variable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvValue {
    /// As it stands.
    Plain(String),
    /// Resolved at launch, never stored, never shown.
    Secret(SecretRef),
}

/// Where a secret comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretRef {
    /// The content of a file, without its last newline. Absolute.
    File(PathBuf),
    /// A variable of the daemon's environment.
    Env(String),
    /// What a command prints, without its last newline.
    Command(Vec<String>),
}

/// A resource of `setrlimit(2)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of setrlimit(2)")]
pub enum Rlimit {
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

/// Soft and hard limit; `None` is unlimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LimitSpec {
    /// The limit that is enforced.
    pub soft: Option<u64>,
    /// The ceiling up to which the program may raise it.
    pub hard: Option<u64>,
}

/// What must hold of a dependency before its dependents start (S56).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Its startup probe has passed.
    Started,
    /// Started, and its liveness probe has passed and is not failing.
    Healthy,
    /// Its readiness probe passes.
    Ready,
    /// It has run to its end with success.
    Completed,
}

impl Condition {
    /// The word in the manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Healthy => "healthy",
            Self::Ready => "ready",
            Self::Completed => "completed",
        }
    }
}

/// The probes of a component; each may be absent.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ProbesSpec {
    /// Gates the other two.
    pub startup: Option<Box<ProbeSpec>>,
    /// Its failure restarts.
    pub liveness: Option<Box<ProbeSpec>>,
    /// Its failure makes the component not ready.
    pub readiness: Option<Box<ProbeSpec>>,
    /// Bounds start-up by wall clock, from spawn to the passing of the startup probe (S3).
    pub startup_deadline: Option<Duration>,
}

/// One probe: what is checked, and how often.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ProbeSpec {
    /// What is checked.
    pub check: Check,
    /// From the start of one run of the probe to the start of the next.
    pub interval: Duration,
    /// A run that takes longer counts as one failure and is ended (S10).
    pub timeout: Duration,
    /// Consecutive failures until the probe counts as failing.
    pub failure_threshold: u32,
    /// Consecutive successes until it counts as passing.
    pub success_threshold: u32,
    /// From spawn (startup) or from the passing of the startup probe to the first run.
    pub initial_delay: Duration,
}

/// The kinds of check (S32).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Alive and not a zombie (S31).
    Process,
    /// Alive for at least this long.
    MinUptime(Duration),
    /// A command that exits with 0, run with the component's environment and directory.
    Exec(CommandSpec),
    /// An HTTP request.
    Http(HttpCheck),
    /// A TCP connection is accepted.
    Tcp {
        /// Name or address; `None` is where the component itself listens.
        host: Option<String>,
        /// Port.
        port: u16,
    },
    /// A connection to a Unix stream socket is accepted.
    Unix {
        /// Absolute path of the socket.
        path: PathBuf,
    },
    /// `grpc.health.v1.Health/Check` answers SERVING.
    Grpc {
        /// Name or address; `None` is where the component itself listens.
        host: Option<String>,
        /// Port.
        port: u16,
        /// Service name; empty asks for the server as a whole.
        service: String,
        /// Speak TLS; the certificate is not verified, as with Kubernetes' probes.
        tls: bool,
    },
    /// A line of the present run's log matches this regular expression.
    Log {
        /// Syntax of the `regex` crate.
        pattern: String,
    },
    /// The file exists and meets the conditions.
    File {
        /// Absolute path.
        path: PathBuf,
        /// Its content matches this regular expression.
        contains: Option<String>,
        /// It was modified at most this long ago (a heartbeat file).
        max_age: Option<Duration>,
    },
    /// The container runs, and the engine's own health check does not say otherwise (S34).
    Container,
    /// A program that serves a kind of its own (S37).
    Plugin {
        /// Absolute path of `stigmer-probe-KIND`.
        program: PathBuf,
        /// The kind.
        kind: String,
        /// What the manifest says below the kind; handed to the program.
        #[serde(with = "super::embedded")]
        config: serde_json::Value,
    },
    /// All of these, in order; fails with its first failure.
    All(Vec<Check>),
}

/// An HTTP check. Statuses from 200 to 399 pass unless `status` says otherwise, as with Kubernetes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HttpCheck {
    /// Speak TLS (`https:` in the manifest); the certificate is not verified.
    pub tls: bool,
    /// Name or address; `None` is where the component itself listens.
    pub host: Option<String>,
    /// Port.
    pub port: u16,
    /// Path and query, beginning with a slash.
    pub path: String,
    /// Upper case.
    pub method: String,
    /// Sent as they are; `Host` may be among them.
    pub headers: BTreeMap<String, String>,
    /// The statuses that pass; empty means 200 to 399.
    pub status: Vec<u16>,
    /// The first 64 KiB of the body match this regular expression.
    pub body: Option<String>,
}

/// Restart policy (S23).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// After every end.
    Always,
    /// After a non-zero exit, a signal or a probe failure.
    OnFailure,
    /// Not at all; an unhealthy component is shown as such and left alone.
    Never,
}

/// A code or a signal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitMatch {
    /// This exit code.
    Code(i32),
    /// This signal number.
    Signal(i32),
}

/// When and how a component is restarted (S16 to S23).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RestartSpec {
    /// After which ends.
    pub policy: RestartPolicy,
    /// Restarts that are made within `window`; `None` is unlimited.
    pub max_restarts: Option<u32>,
    /// The sliding window in which restarts are counted.
    pub window: Duration,
    /// A run of this length resets the backoff.
    pub min_uptime: Duration,
    /// The delays.
    pub backoff: BackoffSpec,
    /// Ends that count as success, besides code 0.
    pub success_exit_status: BTreeSet<ExitMatch>,
    /// Ends after which it is never tried again: it fails at once.
    pub prevent_exit_status: BTreeSet<ExitMatch>,
}

/// The delays before consecutive restarts.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BackoffSpec {
    /// The first delay; zero restarts at once.
    pub initial: Duration,
    /// Each delay is the one before times this; at least 1.
    pub multiplier: f64,
    /// The longest delay.
    pub max: Duration,
    /// A share of the delay, 0 to 1, by which it is varied at random, up or down.
    pub jitter: f64,
}

/// How a component is ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StopSpec {
    /// The first signal.
    pub signal: i32,
    /// How long after it SIGKILL follows.
    pub timeout: Duration,
    /// Run instead of sending `signal`; the timeout covers both.
    pub command: Option<CommandSpec>,
}

/// The log file of a component. What an older version has stored lacks the newer fields.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct LogSpec {
    /// Bytes after which it is rotated.
    pub max_size: u64,
    /// Rotated files that are kept.
    pub max_files: u32,
    /// It is rotated when its oldest line is that old, and a rotated file is kept for that long.
    pub max_age: Option<Duration>,
    /// Rotated files are compressed.
    pub compress: bool,
}
