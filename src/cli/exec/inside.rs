//! A command in the container of a component, with our terminal or our standard streams.
//!
//! ```text
//!   stdin ─▶ thread ─▶ input of the command        SIGWINCH ─▶ size of its terminal
//!   stdout, stderr ◀─ thread ◀─ its output         SIGINT, SIGTERM, SIGHUP, SIGQUIT, nobody reads
//!                       │ ends                        └─▶ end: the same signal, SIGKILL after 10 s or the
//!                       ▼                                 next one ─▶ its exit code
//!                  its exit code
//! ```
//!
//! With a terminal, Ctrl-C is a key like any other; a signal that comes nevertheless is meant for us. The
//! command does not outlive us, because nobody would know of it: where it runs on this machine it is ended,
//! and where it does not, that is said.
//!
//! Failure paths: the engine's words. The terminal's mode is restored on every way out.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncWriteExt as _, WriteHalf};
use tokio::sync::mpsc;

use super::stdio::{Writer, read_stdin};
use super::{Wish, terminal};
use crate::api::v1;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::interrupt::Interrupt;
use crate::container::EngineError;
use crate::container::attach::{self, Command, Order, Pieces, StartError};
use crate::model::ContainerId;

/// How long a command may take to end by a signal.
const GRACE: Duration = Duration::from_secs(10);

/// How long the engine may take to tell of the end of a command that was killed.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The shell of the container's environment, found out by the only one that images can be relied on to
/// have.
const SHELL: [&str; 3] = ["/bin/sh", "-c", "exec \"${SHELL:-/bin/sh}\""];

/// Runs the command to its end.
pub(super) async fn run(
    place: v1::ContainerPlace,
    wish: Wish,
    context: &Context,
    interrupt: &mut Interrupt,
) -> Result<Exit, CliError> {
    let has_terminal = !wish.no_tty && terminal::is_there();
    let name = wish.name.clone();
    let order = order(wish, has_terminal)?;
    let cannot = |source| CliError::Io { what: "cannot listen to signals".into(), source };
    interrupt.listen_also(&[Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGWINCH]).map_err(cannot)?;
    let made = tokio::select! {
        biased;
        signal = ending(interrupt) => return Ok(Exit::by_signal(signal as i32)),
        made = make(&place, order) => made.map_err(|error| of_engine(&name, &error))?,
    };
    let mut session = Session { name, command: made, context, interrupt };
    let exit = session.run(has_terminal).await;
    drop(session);
    exit
}

async fn make(place: &v1::ContainerPlace, order: Order) -> Result<Command, EngineError> {
    let engine = attach::reach(&place.engine, Path::new(&place.certificates)).await?;
    Command::make(&engine, &ContainerId::new(&place.id), order).await
}

/// What the engine is asked.
fn order(wish: Wish, has_terminal: bool) -> Result<Order, CliError> {
    let text = |word: std::ffi::OsString| {
        word.into_string().map_err(|word| {
            CliError::Usage(format!("{} is no UTF-8, which the engine asks for", word.display()))
        })
    };
    let working_dir = wish.working_dir.map(text).transpose()?;
    if let Some(folder) = working_dir.as_ref().filter(|folder| !folder.starts_with('/')) {
        return Err(CliError::Usage(format!(
            "--working-dir {folder}: a folder in a container is named from its root: /{folder}"
        )));
    }
    let argv = if wish.command.is_empty() {
        SHELL.map(str::to_owned).into()
    } else {
        wish.command.into_iter().map(text).collect::<Result<_, _>>()?
    };
    Ok(Order {
        argv,
        env: wish.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        user: wish.user,
        working_dir,
        terminal: has_terminal.then(terminal::size),
    })
}

/// Waits for a signal that means the end.
async fn ending(interrupt: &mut Interrupt) -> Signal {
    loop {
        match interrupt.next().await {
            Signal::SIGWINCH => {}
            signal => return signal,
        }
    }
}

/// A command that the engine knows of.
struct Session<'a> {
    name: String,
    command: Command,
    context: &'a Context,
    interrupt: &'a mut Interrupt,
}

/// Its output, on its way to ours.
struct Flow {
    pieces: Pieces,
    /// Absent once nobody reads ours.
    writer: Option<Writer>,
}

/// Why the output does not flow any more.
enum Stop {
    /// It has ended.
    Over,
    /// Nobody reads it.
    NobodyReads,
    /// We were signalled.
    Signal(Signal),
}

impl Session<'_> {
    async fn run(&mut self, has_terminal: bool) -> Result<Exit, CliError> {
        let command = self.command.clone();
        let mut starting = pin!(command.start());
        let started = tokio::select! {
            biased;
            signal = ending(self.interrupt) => Err(signal),
            started = &mut starting => Ok(started),
        };
        let started = match started {
            Ok(started) => started.map_err(|error| self.not_started(error))?,
            Err(signal) => {
                // What is being started can be ended once it has been.
                drop(tokio::time::timeout(LAST_WORDS, starting).await);
                return Ok(self.end(signal, None).await.unwrap_or(Exit::by_signal(signal as i32)));
            }
        };
        let cannot = |source| CliError::Io { what: "cannot use the terminal".into(), source };
        // Restores the mode when it is dropped, on every way out.
        let raw = has_terminal.then(terminal::RawMode::enter).transpose().map_err(cannot)?;
        if has_terminal {
            self.resize().await;
        }
        tokio::spawn(feed(read_stdin(), started.input));
        let mut flow = Flow { pieces: started.output, writer: Some(Writer::start()) };
        let exit = self.follow(&mut flow).await;
        if let Some(writer) = flow.writer {
            // A reader that does not read must not keep us from ending.
            tokio::select! {
                biased;
                _ = ending(self.interrupt) => {}
                () = writer.finish() => {}
            }
        }
        drop(raw);
        exit
    }

    /// Passes the output on until the command ends.
    async fn follow(&mut self, flow: &mut Flow) -> Result<Exit, CliError> {
        let stop = loop {
            tokio::select! {
                biased;
                signal = self.interrupt.next() => match signal {
                    Signal::SIGWINCH => self.resize().await,
                    signal => break Stop::Signal(signal),
                },
                stop = flow.run() => break stop?,
            }
        };
        let signal = match stop {
            Stop::Signal(signal) => signal,
            Stop::NobodyReads => Signal::SIGPIPE,
            Stop::Over => {
                let code = tokio::select! {
                    biased;
                    signal = ending(self.interrupt) => Err(signal),
                    code = self.command.code() => Ok(code),
                };
                match code {
                    Ok(code) => return self.exit(code),
                    Err(signal) => signal,
                }
            }
        };
        match self.end(signal, Some(flow)).await {
            Some(exit) => Ok(exit),
            None => Ok(Exit::by_signal(signal as i32)),
        }
    }

    /// Ends the command; gives its exit code, if that is heard of.
    async fn end(&mut self, signal: Signal, mut flow: Option<&mut Flow>) -> Option<Exit> {
        let Some(processes) = self.command.processes().await else {
            if !self.command.is_local() {
                self.context.output.say(&format!(
                    "the command goes on in the container of {}: its engine is on another machine, \
                     where its processes cannot be signalled",
                    self.name
                ));
                return None;
            }
            return self.heard(flow).await;
        };
        if let Some(signal) = rustix::process::Signal::from_named_raw(signal as i32) {
            processes.signal(signal).await;
        }
        let ended = tokio::select! {
            biased;
            _ = ending(self.interrupt) => None,
            ended = over(&self.command, flow.as_deref_mut()) => Some(ended),
            () = tokio::time::sleep(GRACE) => None,
        };
        // Also what it has left running, which nobody would know of.
        processes.signal(rustix::process::Signal::KILL).await;
        if ended.is_none()
            && let Some(more) = self.command.processes().await
        {
            more.signal(rustix::process::Signal::KILL).await;
        }
        self.heard(flow).await
    }

    /// The exit code of a command that is about to end.
    async fn heard(&self, flow: Option<&mut Flow>) -> Option<Exit> {
        let ended = async {
            over(&self.command, flow).await;
            self.command.code().await
        };
        let code = tokio::time::timeout(LAST_WORDS, ended).await.ok()?;
        self.exit(code).ok()
    }

    fn exit(&self, code: Result<Option<i64>, EngineError>) -> Result<Exit, CliError> {
        match code {
            Ok(Some(code)) => Ok(Exit::Command(u8::try_from(code).unwrap_or(u8::MAX))),
            Ok(None) => Err(CliError::NotRun {
                exit: Exit::by_signal(libc::SIGKILL),
                message: format!(
                    "the container of {} has ended, and the command with it",
                    self.name
                ),
            }),
            Err(error) => Err(of_engine(&self.name, &error)),
        }
    }

    /// Tells the command of the size of our terminal. One that has ended need not know.
    async fn resize(&self) {
        drop(self.command.resize(terminal::size()).await);
    }

    fn not_started(&self, error: StartError) -> CliError {
        let in_words = |words: &str| format!("in the container of {}: {words}", self.name);
        match error {
            StartError::Engine(error) => of_engine(&self.name, &error),
            StartError::NotFound(words) => {
                CliError::NotRun { exit: Exit::NotFound, message: in_words(&words) }
            }
            StartError::NotExecutable(words) => {
                CliError::NotRun { exit: Exit::NotExecutable, message: in_words(&words) }
            }
        }
    }
}

impl Flow {
    /// Runs until something stops it. Nothing is lost when it is cancelled.
    async fn run(&mut self) -> Result<Stop, CliError> {
        let broken = |source| CliError::Io {
            what: "the connection to the container engine broke".into(),
            source,
        };
        loop {
            let Some(writer) = &self.writer else {
                match self.pieces.next().await.map_err(broken)? {
                    Some(_) => continue,
                    None => return Ok(Stop::Over),
                }
            };
            // Room first: a piece that has been taken can always be handed on.
            let Some(room) = writer.room().await else {
                self.writer = None;
                return Ok(Stop::NobodyReads);
            };
            match self.pieces.next().await.map_err(broken)? {
                Some(piece) => room.send(piece),
                None => return Ok(Stop::Over),
            }
        }
    }
}

/// Waits for the end of the output, passing on what still comes.
async fn over(command: &Command, flow: Option<&mut Flow>) {
    let Some(flow) = flow else {
        drop(command.code().await);
        return;
    };
    // That nobody reads it is said once, and then it flows into the void.
    while let Ok(Stop::NobodyReads) = pin!(flow.run()).await {}
}

/// Passes our standard input on, and its end. A command that has closed its own wants no more of it.
async fn feed(
    mut pieces: mpsc::Receiver<Vec<u8>>,
    mut input: WriteHalf<impl tokio::io::AsyncWrite>,
) {
    while let Some(piece) = pieces.recv().await {
        if input.write_all(&piece).await.is_err() {
            return;
        }
    }
    drop(input.shutdown().await);
}

/// What the engine says, and what to do about it.
fn of_engine(name: &str, error: &EngineError) -> CliError {
    let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    // It has ended since the daemon was asked, or it is paused.
    let is_state = error.is_absence() || error.is_conflict();
    let exit = if is_state { Exit::NotHealthy } else { Exit::Failed };
    CliError::NotRun { exit, message: format!("the container of {name}: {error}{hint}") }
}
