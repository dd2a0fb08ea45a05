//! A command inside of a container that somebody sits in front of: its standard streams are passed on, with a
//! terminal or without.
//!
//! ```text
//!   make ─▶ start ─▶ begun? ─┬─ yes ─▶ Started: input, pieces of the output ... ─▶ its end ─▶ code
//!                            └─ no ──▶ StartError: not found, not executable
//!                  resize, processes (to signal them) ── at any time
//! ```
//!
//! Failure paths: a command that the engine could not start is told from one that ended with 126 or 127 by
//! the process that it never had. A code that nobody knows any more, because the container ended, is `None`.
//!
//! Used by the command line alone: the daemon runs commands by `exec`, with nobody in front.

mod output;

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use bollard::exec::{ResizeExecOptions, StartExecOptions};
use bollard::models::{ExecConfig, ExecInspectResponse};
use tokio::io::WriteHalf;
use tokio::net::unix::pipe;
use tokio::time::Instant;

use super::address::Surroundings;
use super::engine::{Engine, QUICK, SLOW};
use super::error::{EngineError, core_of};
use super::processes::{self, Processes};
use super::raw::{self, Raw};
use crate::model::ContainerId;
use output::Output;

pub use output::{Channel, Piece, Pieces};

/// Engines look for these keys and let go of the command when they come; meanwhile they hold back the first
/// one. The default begins with Ctrl-P, which shells know. Nobody types this.
const DETACH_KEYS: &str = "ctrl-@,ctrl-@,ctrl-@,ctrl-@,ctrl-@";

/// The size of a terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Order {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// More variables than those of the container, `NAME=value`.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; otherwise that of the container.
    pub user: Option<String>,
    /// Absolute; otherwise that of the container.
    pub working_dir: Option<String>,
    /// Whether it gets a terminal, and of which size.
    pub terminal: Option<Size>,
}

/// Why a command did not start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    /// The engine, or the container.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// There is no such program.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be executed, or not as this user or in this folder.
    #[error("{0}")]
    NotExecutable(String),
}

/// Connects to the engine at an address as `DOCKER_HOST` has it.
///
/// # Errors
/// It is not there.
pub async fn reach(url: &str, certificates: &Path) -> Result<Engine, EngineError> {
    let surroundings = Surroundings {
        host: Some(url.to_owned()),
        tls: !certificates.as_os_str().is_empty(),
        certificates: Some(certificates.to_owned()),
        ..Surroundings::default()
    };
    // Nothing is made here that would belong to a home folder.
    let engine = Engine::new(String::new(), surroundings);
    engine.connect().await?;
    Ok(engine)
}

/// A command that the engine knows of.
#[derive(Clone, Debug)]
pub struct Command {
    engine: Engine,
    container: ContainerId,
    id: String,
    is_terminal: bool,
}

impl Command {
    /// Tells the engine of a command; nothing runs yet.
    ///
    /// # Errors
    /// The engine is not there, or the container does not run.
    pub async fn make(
        engine: &Engine,
        container: &ContainerId,
        order: Order,
    ) -> Result<Self, EngineError> {
        let is_terminal = order.terminal.is_some();
        let config = ExecConfig {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            // Engines before 1.42 do not know it; they are told again when it runs.
            console_size: order.terminal.map(|size| vec![size.rows.into(), size.columns.into()]),
            detach_keys: is_terminal.then(|| DETACH_KEYS.to_owned()),
            tty: Some(is_terminal),
            env: Some(order.env),
            cmd: Some(order.argv),
            privileged: None,
            user: order.user,
            working_dir: order.working_dir,
        };
        let made = engine
            .ask("exec", QUICK, async |client| client.create_exec(container.as_str(), config).await)
            .await?;
        let (engine, container) = (engine.clone(), container.clone());
        Ok(Self { engine, container, id: made.id, is_terminal })
    }

    /// Starts it.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(&self) -> Result<Started, StartError> {
        let stream = self.open().await.map_err(|error| match error {
            EngineError::Refused { status, message } if !matches!(status, 404 | 409) => {
                excuse(&message, None)
            }
            error => error.into(),
        })?;
        let (reader, input) = tokio::io::split(stream);
        let mut output = Output::new(reader, self.is_terminal);
        let looked = self.begun().await?;
        let mut early = VecDeque::new();
        if let (Some(code @ (126 | 127)), None | Some(0)) = (looked.exit_code, looked.pid) {
            let said = output.rest().await;
            let text: Vec<u8> = said.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
            let text = String::from_utf8_lossy(&text);
            // Some engines forget the number of a process that has ended: it may be the command that
            // spoke. An engine says one line, with an end that programs without a terminal do not use.
            if text.ends_with("\r\n") && text.lines().count() == 1 {
                return Err(excuse(&text, Some(code)));
            }
            early.extend(said);
        }
        let process = processes::number_of(&self.engine, looked.pid)
            .and_then(|pid| processes::open(&self.container, pid))
            // No pipe, but waited for like one.
            .and_then(|process| pipe::Receiver::from_owned_fd_unchecked(process).ok());
        Ok(Started { input, output: Pieces::new(early, output, process) })
    }

    async fn open(&self) -> Result<Raw, EngineError> {
        let what = "start exec";
        let version = self.engine.version().await?;
        let Some(place) = self.engine.place() else {
            return Err(EngineError::unreachable("nobody has connected to it yet"));
        };
        let path = format!("/v1.{}/exec/{}/start", version.minor, self.id);
        let options = StartExecOptions { tty: self.is_terminal, ..StartExecOptions::default() };
        let document = serde_json::to_vec(&options)
            .map_err(|error| EngineError::Nonsense { what, message: error.to_string() })?;
        let opened = raw::post(&place.address, &path, document);
        let limit = QUICK;
        tokio::time::timeout(limit, opened)
            .await
            .unwrap_or(Err(EngineError::Silent { what, limit }))
    }

    /// Waits until it runs, or has run, or could not be started. That it runs is said before it does; that it
    /// has a process is not.
    async fn begun(&self) -> Result<ExecInspectResponse, EngineError> {
        let began = Instant::now();
        let mut pause = Duration::from_millis(2);
        loop {
            let looked = self.look().await?;
            let has_pid = looked.pid.is_some_and(|pid| pid != 0);
            if has_pid || looked.exit_code.is_some() {
                return Ok(looked);
            }
            if looked.running == Some(true) && began.elapsed() > QUICK {
                // An engine that does not tell numbers of processes.
                return Ok(looked);
            }
            if began.elapsed() > SLOW {
                return Err(EngineError::Silent { what: "start exec", limit: SLOW });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// Waits until it has ended, and gives its exit code: that of a death by signal is 128 and the signal's
    /// number. `None` if nobody knows, because the container has ended.
    ///
    /// # Errors
    /// The engine is not there any more.
    pub async fn code(&self) -> Result<Option<i64>, EngineError> {
        let mut pause = Duration::from_millis(5);
        loop {
            match self.look().await {
                Ok(looked) if looked.running != Some(true) => return Ok(looked.exit_code),
                Ok(_) => {}
                Err(error) if error.is_absence() || error.is_conflict() => return Ok(None),
                Err(error) => return Err(error),
            }
            // It has closed its outputs and goes on.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(250));
        }
    }

    /// Tells it the size of its terminal.
    ///
    /// # Errors
    /// It has ended, or the engine is not there.
    pub async fn resize(&self, size: Size) -> Result<(), EngineError> {
        let options = ResizeExecOptions { height: size.rows, width: size.columns };
        self.engine
            .ask("resize exec", QUICK, async |client| client.resize_exec(&self.id, options).await)
            .await
    }

    /// Its processes, to be signalled; `None` if it does not run, or runs on another machine.
    pub async fn processes(&self) -> Option<Processes> {
        Processes::of(&self.engine, &self.container, &self.id).await
    }

    /// Whether it runs on this machine, so that its processes are seen here.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.engine.is_local()
    }

    async fn look(&self) -> Result<ExecInspectResponse, EngineError> {
        self.engine
            .ask("inspect exec", QUICK, async |client| client.inspect_exec(&self.id).await)
            .await
    }
}

/// What an engine says of a command that it could not start, sorted by what a shell would make of it.
fn excuse(message: &str, code: Option<i64>) -> StartError {
    let words = core_of(message).to_owned();
    let lower = words.to_lowercase();
    let is_absent = lower.contains("executable file not found")
        || lower.contains("no such file or directory")
        || code == Some(127);
    // A folder that is not there is no program that is not there.
    if is_absent && !lower.contains("chdir") {
        StartError::NotFound(words)
    } else {
        StartError::NotExecutable(words)
    }
}

/// A command that was started.
#[derive(Debug)]
pub struct Started {
    /// Its standard input; shut down, it ends.
    pub input: WriteHalf<Raw>,
    /// Its output.
    pub output: Pieces,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excuse_is_sorted_as_a_shell_would() {
        let is_absent = |message: &str, code| match excuse(message, code) {
            StartError::NotFound(_) => true,
            StartError::NotExecutable(_) => false,
            StartError::Engine(error) => panic!("{error}"),
        };
        let of = |core: &str| {
            format!(
                "OCI runtime exec failed: exec failed: unable to start container process: {core}: \
                 unknown\r\n"
            )
        };
        let absent = of("exec: \"nosuch\": executable file not found in $PATH");
        assert!(is_absent(&absent, Some(126)));
        assert!(is_absent(&of("exec: \"/x\": stat /x: no such file or directory"), None));
        assert!(!is_absent(&of("exec: \"/etc\": permission denied"), Some(126)));
        let folder =
            of("chdir to cwd (\"/x\") set in config.json failed: no such file or directory");
        assert!(!is_absent(&folder, Some(127)));
        assert!(!is_absent("unable to find user x: no matching entries in passwd file", Some(126)));
        let StartError::NotFound(words) = excuse(&absent, None) else { panic!("{absent}") };
        assert_eq!(words, "exec: \"nosuch\": executable file not found in $PATH");
    }
}
