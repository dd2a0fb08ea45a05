//! Commands inside of a container: exec probes, stop commands.
//!
//! ```text
//!   create ─▶ start (attached) ─▶ output ... ─┬─▶ exec_die, from the event stream ─▶ code
//!                                             ├─▶ exec_died of no known command ─▶ inspect ─▶ code
//!                                             └─▶ end of the output ─▶ inspect ─▶ code
//!   dropped on the way ─▶ its processes are killed
//! ```
//!
//! The end is the end of the command, not of its output: what it leaves running may hold that open. Podman tells
//! that a command has ended, and not which: whoever waits for one then looks.
//!
//! How a command is ended is in `processes`.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use futures_util::StreamExt;
use rustix::process::Signal;
use tokio::sync::{Notify, oneshot};

use super::engine::{Engine, QUICK};
use super::error::EngineError;
use super::processes::Processes;
use crate::model::{ContainerId, ExitStatus};
use crate::runner::probe::CommandOutput;

/// How much of the output is kept, in bytes.
const KEPT: usize = 4096;

/// How long the output may take to end after the command has.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Commands whose end somebody waits for, by the engine's identifier of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Commands {
    waiting: Arc<Mutex<HashMap<String, oneshot::Sender<i64>>>>,
    /// One of them may have ended: who waits is to look.
    some: Arc<Notify>,
}

impl Commands {
    /// The event stream says that a command has ended.
    pub(super) fn ended(&self, id: &str, code: i64) {
        if let Some(waiting) = self.lock().remove(id) {
            // Nobody may be waiting any more.
            let _ = waiting.send(code);
        }
    }

    /// The event stream says that a command has ended, and not which.
    pub(super) fn some_ended(&self) {
        self.some.notify_waiters();
    }

    fn wait(&self, id: &str) -> oneshot::Receiver<i64> {
        let (sender, receiver) = oneshot::channel();
        self.lock().insert(id.to_owned(), sender);
        receiver
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, oneshot::Sender<i64>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Runs a command in a container to its end.
    ///
    /// # Errors
    /// The engine is not there, or refuses.
    pub async fn run(
        &self,
        id: &ContainerId,
        argv: Vec<String>,
    ) -> Result<CommandOutput, EngineError> {
        self.run_telling(id, argv, || ()).await
    }

    /// The same, and says when it begins: an error after that leaves open whether it has run.
    ///
    /// # Errors
    /// The engine is not there, or refuses.
    pub async fn run_telling(
        &self,
        id: &ContainerId,
        argv: Vec<String>,
        begins: impl FnOnce() + Send,
    ) -> Result<CommandOutput, EngineError> {
        let config = ExecConfig {
            cmd: Some(argv),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..ExecConfig::default()
        };
        let made = self
            .ask("exec", QUICK, async |client| client.create_exec(id.as_str(), config).await)
            .await?;
        let mut ended = self.commands().wait(&made.id);
        let guard = Guard { engine: self, container: id, exec: &made.id };
        begins();
        let started = self
            .ask("start exec", QUICK, async |client| client.start_exec(&made.id, None).await)
            .await?;
        let StartExecResults::Attached { mut output, .. } = started else {
            return Err(EngineError::Nonsense { what: "exec", message: "it is detached".into() });
        };
        let mut kept = Vec::new();
        let mut keep = |bytes: &[u8]| {
            let room = KEPT.saturating_sub(kept.len());
            kept.extend(bytes.iter().take(room));
        };
        let code = {
            let mut end = pin!(self.end_of(&made.id, &mut ended, Known::Running));
            loop {
                tokio::select! {
                    piece = output.next() => match piece {
                        Some(Ok(piece)) => keep(&piece.into_bytes()),
                        Some(Err(_)) | None => break None,
                    },
                    code = &mut end => break code?,
                }
            }
        };
        if code.is_some() {
            let rest = async {
                while let Some(Ok(piece)) = output.next().await {
                    keep(&piece.into_bytes());
                }
            };
            // What it has left running may hold the output open.
            let _ = tokio::time::timeout(LAST_WORDS, rest).await;
        }
        let code = match code {
            Some(code) => Some(code),
            // The output has ended: the command has, or has closed it.
            None => self.end_of(&made.id, &mut ended, Known::Nothing).await?,
        };
        guard.disarm();
        let status = code.and_then(|code| i32::try_from(code).ok());
        let status = status.map_or(ExitStatus::Unknown, |code| match code {
            129..=192 => ExitStatus::Signal(code - 128),
            code => ExitStatus::Code(code),
        });
        Ok(CommandOutput { status, output: kept })
    }

    /// Waits for the end of a command; its code, if anybody knows it.
    async fn end_of(
        &self,
        exec: &str,
        ended: &mut oneshot::Receiver<i64>,
        mut known: Known,
    ) -> Result<Option<i64>, EngineError> {
        loop {
            // Before the look, so that no end falls between the two.
            let mut some = pin!(self.commands().some.notified());
            some.as_mut().enable();
            if known == Known::Nothing {
                let looked = self
                    .ask("inspect exec", QUICK, async |client| client.inspect_exec(exec).await)
                    .await?;
                if looked.running == Some(false) {
                    return Ok(looked.exit_code);
                }
            }
            tokio::select! {
                code = &mut *ended => return Ok(code.ok()),
                () = some => known = Known::Nothing,
            }
        }
    }

    /// Ends a command that nobody waits for any more.
    async fn end_command(&self, container: &ContainerId, exec: &str) {
        if let Some(processes) = Processes::of(self, container, exec).await {
            processes.signal(Signal::KILL).await;
        }
    }
}

/// What is known of a command that was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    /// It has not ended.
    Running,
    /// It may have.
    Nothing,
}

/// Ends the command when whoever waits for it stops waiting (S10).
struct Guard<'a> {
    engine: &'a Engine,
    container: &'a ContainerId,
    exec: &'a str,
}

impl Guard<'_> {
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let (engine, container) = (self.engine.clone(), self.container.clone());
        let exec = self.exec.to_owned();
        engine.commands().lock().remove(&exec);
        // A daemon that is ending has no runtime any more, and leaves it to the container's end.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { engine.end_command(&container, &exec).await });
        }
    }
}
