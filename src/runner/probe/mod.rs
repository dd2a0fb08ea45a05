//! The kinds of probe (S32): one run of one check, and what it found.
//!
//! ```text
//!   model::spec::Check --build--> Prober { kind, target } --probe().await--> Ok(()) | Err(message)
//!                                   |
//!      process  min_uptime  exec  http  tcp  unix  grpc  log  file  container  plugin  all   (one file each)
//!                                   |
//!      reach (where it listens)  connect (names, addresses)  tls  drive (companion futures)
//!      blocking  text                                                                   (shared)
//! ```
//!
//! The machine decides when a probe runs and what its results mean; this module performs one run.
//! A `Prober` belongs to one run of a component: a restart makes a new one, so that no answer about
//! the old process can count for the new one (S14).
//!
//! Invariants
//! - Cancel-safe. The caller applies the timeout by dropping the future of `probe` (S10). Sockets
//!   close with it, no task is left behind: connections are driven inside the future (`drive`), not
//!   spawned. What the kernel cannot cancel (a name lookup, a look at a dead network file system)
//!   runs on a blocking thread, at most one for each prober (`blocking`).
//! - What a peer sends is bounded in memory by this module and in time by the timeout.
//! - An idle `Prober` holds no descriptor and no buffer, for there may be thousands of them.
//! - A message is one line without control characters, at most `text::MESSAGE` characters.
//!
//! Failure paths. A check that can never work (a bad regular expression, header or host) is refused by
//! `Prober::new`. A run that could not be performed for a reason that says nothing of the component (the
//! container engine does not answer) is void: it counts for nothing. Everything else is a failed run
//! with a message that names what was tried and what came back.
//!
//! A new kind is one file with a type that implements `Kind`, its line in `build` and its line in
//! `describe`; the machine and the engine do not change.
//!
//! It deliberately lacks timers, thresholds, retries and caches of connections: a probe that reuses a
//! connection says nothing about whether a new client would be served.

mod all;
mod blocking;
mod connect;
mod container;
mod drive;
mod exec;
mod file;
mod grpc;
mod http;
mod log;
mod min_uptime;
mod plugin;
mod process;
mod reach;
mod tcp;
mod text;
mod tls;
mod unix;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use tokio::time::Instant;

use crate::model::ExitStatus;
use crate::model::spec::Check;

pub use reach::Reach;

/// How a command of an exec probe ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandOutput {
    /// Code or signal.
    pub status: ExitStatus,
    /// The first 4 KiB of what it wrote to stdout and stderr.
    pub output: Vec<u8>,
}

/// Why a run of a probe did not succeed, in plain words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The component fails the check.
    Failed(String),
    /// The check could not be made, which says nothing of the component.
    Void(String),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Failed(message) | Self::Void(message)) = self;
        f.write_str(message)
    }
}

impl Failure {
    /// The same with other words.
    fn map(self, words: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Failed(message) => Self::Failed(words(message)),
            Self::Void(message) => Self::Void(words(message)),
        }
    }
}

/// The answer of a `CommandRunner`.
pub type CommandFuture = Pin<Box<dyn Future<Output = Result<CommandOutput, Failure>> + Send>>;

/// The answer of a [`ContainerLook`].
pub type LookFuture = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// Looks at the container of a run.
pub trait ContainerLook: Send + Sync {
    /// Whether it runs: not paused, not restarting, not dead (S34). With `health`, the engine's own health
    /// check counts as well.
    fn look(&self, health: bool) -> LookFuture;
}

/// Runs the commands of exec probes with the component's environment and directory.
pub trait CommandRunner: Send + Sync {
    /// Runs `argv` to its end. Dropping the future must end its whole process group.
    fn run(&self, argv: Vec<String>) -> CommandFuture;
}

/// Which run of a component is probed.
#[derive(Clone)]
pub struct Target {
    /// The main process; `None` for what stigmer did not start.
    pub pid: Option<u32>,
    /// When the run began.
    pub launched: Instant,
    /// The component's log file.
    pub log: PathBuf,
    /// The position in the log (see `logs`) at which the present run begins.
    pub log_start: u64,
    /// Runs the commands of exec probes.
    pub commands: Arc<dyn CommandRunner>,
    /// Where it listens.
    pub reach: Reach,
    /// Its container, if it is one.
    pub container: Option<Arc<dyn ContainerLook>>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("pid", &self.pid)
            .field("launched", &self.launched)
            .field("log", &self.log)
            .field("log_start", &self.log_start)
            .finish_non_exhaustive()
    }
}

/// One run of a kind of check.
type Run<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

/// A kind of check, made ready: expressions compiled, requests built.
trait Kind: Send {
    /// One run. Must be cancel-safe; state that a later run needs is kept only once it is whole.
    fn run<'a>(&'a mut self, target: &'a Target) -> Run<'a>;
}

/// One check of one run of a component.
pub struct Prober {
    kind: Box<dyn Kind>,
    target: Target,
}

impl fmt::Debug for Prober {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prober").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Prober {
    /// Makes a check ready for a run of a component.
    ///
    /// # Errors
    /// What is wrong with the check, in plain words: an expression, header or host that cannot be.
    pub fn new(check: &Check, target: Target) -> Result<Self, String> {
        Ok(Self { kind: build(check, &target.reach)?, target })
    }

    /// Performs the check once. Drop the future to end it early; nothing is left behind.
    ///
    /// # Errors
    /// Why it failed: `GET /healthz 503`, `connection refused (127.0.0.1:8080)`.
    pub async fn probe(&mut self) -> Result<(), Failure> {
        let outcome = self.kind.run(&self.target).await;
        outcome.map_err(|failure| failure.map(|message| text::message(&message)))
    }
}

/// The registration of the kinds.
fn build(check: &Check, reach: &Reach) -> Result<Box<dyn Kind>, String> {
    Ok(match check {
        Check::Process => Box::new(process::Process),
        Check::MinUptime(wanted) => Box::new(min_uptime::MinUptime { wanted: *wanted }),
        Check::Exec(command) => Box::new(exec::Exec::new(command)),
        Check::Http(check) => {
            let (host, port) = reach.place(check.host.as_deref(), check.port);
            Box::new(http::Http::new(check, &host, port)?)
        }
        Check::Tcp { host, port } => {
            let (host, port) = reach.place(host.as_deref(), *port);
            Box::new(tcp::Tcp::new(&host, port)?)
        }
        Check::Unix { path } => Box::new(unix::Unix { path: path.clone() }),
        Check::Grpc { host, port, service, tls } => {
            let (host, port) = reach.place(host.as_deref(), *port);
            Box::new(grpc::Grpc::new(&host, port, service, *tls)?)
        }
        Check::Log { pattern } => Box::new(log::Log::new(pattern)?),
        Check::File { path, contains, max_age } => {
            Box::new(file::File::new(path, contains.as_deref(), *max_age)?)
        }
        Check::Plugin { program, kind, config } => {
            Box::new(plugin::Plugin::new(program, kind, config))
        }
        Check::Container => Box::new(container::Container),
        Check::All(checks) => Box::new(all::All::new(checks, reach)?),
    })
}

/// What a check looks at, for the status: `http GET 127.0.0.1:8080/healthz`.
#[must_use]
pub fn describe(check: &Check) -> String {
    let whole = match check {
        Check::Process => "process".to_owned(),
        Check::MinUptime(wanted) => min_uptime::describe(*wanted),
        Check::Exec(command) => exec::describe(command),
        Check::Http(check) => http::describe(check),
        Check::Tcp { host, port } => format!("tcp {}", reach::shown(host.as_deref(), *port)),
        Check::Container => "container".to_owned(),
        Check::Unix { path } => format!("unix {}", path.display()),
        Check::Grpc { host, port, service, tls } => {
            grpc::describe(&reach::shown(host.as_deref(), *port), service, *tls)
        }
        Check::Log { pattern } => format!("log /{pattern}/"),
        Check::File { path, contains, max_age } => {
            file::describe(path, contains.as_deref(), *max_age)
        }
        Check::Plugin { program, kind, .. } => format!("{kind} ({})", program.display()),
        Check::All(checks) => all::describe(checks),
    };
    text::message(&whole)
}
