//! `stigmer daemon`: becomes the keeper, in the foreground or detached.
//!
//! ```text
//!   stigmer apply, stigmer daemon --detach
//!     └─ spawn: stigmer __daemon ARGUMENTS    stdin /dev/null, stdout and stderr daemon.log, cwd /
//!          setsid, exec: stigmer __keeper ARGUMENTS ──► engine
//!                                                          │ "ready\n", or a line that says why not
//!     ◄───────────────── pipe, --ready-fd ─────────────────┘
//! ```
//!
//! Nothing is forked by hand: the child is spawned by the standard library, leaves the session by itself
//! while it has one thread, and executes the keeper. If everyone who holds the pipe ends without a word,
//! the start has failed, and the end of daemon.log says why.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::client::Client;
use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use crate::engine::{LIFETIME_PROJECTS, LIFETIME_VARIABLE};
use crate::home::Home;
use crate::keeper::KeeperConfig;
use crate::keeper::lock::is_held;
use crate::supervisor::Lifetime;

/// Below this, descriptors have fixed meanings in the daemon's processes.
const LOWEST_FD: i32 = 64;
/// How long a daemon may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a daemon that somebody else is starting may take.
const OTHERS_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked for; a daemon tells only who started it that it is ready.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Lines of daemon.log that are shown when it could not be started.
const LOG_LINES: usize = 10;

/// Run the daemon.
///
/// In the foreground by default, as systemd and containers want it; logs go to stderr. `stigmer apply`
/// starts a detached one by itself where there is none.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  stigmer daemon             stay in the foreground; Ctrl-C ends it and all components in order
  stigmer daemon --detach    go to the background, and return once it is ready

Exit codes: 0 it ended in order, or is ready; 1 it could not be started or one is running already.")]
pub(super) struct Daemon {
    /// Go to the background and return once it is ready.
    #[arg(long)]
    detach: bool,
}

impl Daemon {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let running = match Client::connect(&context.home, &context.output).await {
            Ok(client) => Some(client.ping().await?.pid),
            Err(CliError::NoDaemon) => None,
            Err(error) => return Err(error),
        };
        if let Some(pid) = running {
            context.output.line(&format!("a daemon is running already (process {pid})"))?;
            return Ok(if self.detach { Exit::Done } else { Exit::Failed });
        }
        if self.detach {
            start(context, Lifetime::Unlimited).await?;
            context.output.line("the daemon is ready")?;
            return Ok(Exit::Done);
        }
        context.home.prepare()?;
        let mut config = KeeperConfig::for_home(&context.home);
        config.foreground = io::stdin().is_terminal();
        let mut command = Command::new("/proc/self/exe");
        command.arg0("stigmer").args(config.to_arguments()).env_remove(LIFETIME_VARIABLE);
        with_home(&mut command, context);
        Err(CliError::Io { what: "cannot execute the keeper".into(), source: command.exec() })
    }
}

/// Starts a detached daemon and waits until it is ready.
pub(super) async fn start(context: &Context, lifetime: Lifetime) -> Result<(), CliError> {
    context.home.prepare()?;
    let log = context.home.daemon_log();
    let failed = |what: &str, source| CliError::Io { what: what.to_owned(), source };
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&log)
        .map_err(|source| failed(&format!("cannot open {}", log.display()), source))?;
    let before = file.metadata().map_or(0, |metadata| metadata.len());
    let again = file.try_clone().map_err(|source| failed("cannot share daemon.log", source))?;
    let (receiver, write) = ready_pipe().map_err(|source| failed("cannot make a pipe", source))?;

    let mut config = KeeperConfig::for_home(&context.home);
    config.ready_fd = Some(write.as_raw_fd());
    let mut arguments = config.to_arguments();
    arguments.splice(..1, [OsString::from("__daemon")]);
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("stigmer")
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(again);
    with_home(&mut command, context);
    match lifetime {
        Lifetime::Projects => command.env(LIFETIME_VARIABLE, LIFETIME_PROJECTS),
        Lifetime::Unlimited => command.env_remove(LIFETIME_VARIABLE),
    };
    let mut child = command.spawn().map_err(|source| failed("cannot start the daemon", source))?;
    // Only the daemon holds it now: when it ends, so does the pipe.
    drop(write);
    let said = tokio::time::timeout(PATIENCE, first_line(receiver)).await;
    let problem = match said {
        Ok(line) if line == "ready" => return Ok(()),
        // It says itself what is wrong.
        Ok(line) if !line.is_empty() => {
            return Err(CliError::Daemon(format!("the daemon could not be started: {line}")));
        }
        Ok(_) => {
            // Nobody holds the pipe, so the daemon has ended or is about to.
            drop(child.try_wait());
            if another_is_ready(context).await {
                return Ok(());
            }
            "the daemon could not be started".to_owned()
        }
        Err(_) => format!("the daemon was not ready within {} s", PATIENCE.as_secs()),
    };
    Err(CliError::Daemon(with_log(&problem, context, before)))
}

/// Somebody else may have started a daemon at the same moment: that one will do.
async fn another_is_ready(context: &Context) -> bool {
    let lock = context.home.lock();
    let waiting = async {
        while is_held(&lock) {
            match Client::connect(&context.home, &context.output).await {
                Ok(_) => return true,
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
        false
    };
    tokio::time::timeout(OTHERS_PATIENCE, waiting).await.unwrap_or(false)
}

/// Commands that we start look into the same home, whatever folder they are in.
fn with_home(command: &mut Command, context: &Context) {
    if let Some(home) = &context.home_folder {
        command.env("STIGMER_HOME", home);
    }
}

/// A pipe whose write end is inherited by what is executed.
fn ready_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(
        rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK,
    )?;
    let write = rustix::io::fcntl_dupfd_cloexec(write, LOWEST_FD)?;
    rustix::io::fcntl_setfd(write.as_fd(), rustix::io::FdFlags::empty())?;
    Ok((pipe::Receiver::from_owned_fd(read)?, write))
}

/// What the daemon says; empty if it ended without a word.
async fn first_line(mut receiver: pipe::Receiver) -> String {
    let mut said = Vec::new();
    let mut buffer = [0; 512];
    while !said.contains(&b'\n') {
        match receiver.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => said.extend_from_slice(&buffer[..count]),
        }
    }
    String::from_utf8_lossy(&said).lines().next().unwrap_or_default().trim().to_owned()
}

/// The problem, and what the daemon wrote since `before`.
fn with_log(problem: &str, context: &Context, before: u64) -> String {
    let log = context.home.daemon_log();
    let text = std::fs::read(&log).unwrap_or_default();
    let new = usize::try_from(before).ok().and_then(|start| text.get(start..)).unwrap_or(&text);
    let text = String::from_utf8_lossy(new);
    let lines: Vec<&str> = text.lines().collect();
    let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
    if tail.is_empty() {
        return format!("{problem}; {} says nothing", log.display());
    }
    format!("{problem}\nThe end of {}:\n  {}", log.display(), tail.join("\n  "))
}

/// `stigmer __daemon ARGUMENTS`: leaves the session and executes the keeper with these arguments.
#[must_use]
pub fn become_daemon() -> ExitCode {
    // The spawned child leads no process group, so that this cannot fail.
    let _ = rustix::process::setsid();
    let error = Command::new("/proc/self/exe")
        .arg0("stigmer")
        .arg("__keeper")
        .args(std::env::args_os().skip(2))
        .exec();
    Context::say_plainly(&format!("stigmer: cannot execute the keeper: {error}"));
    Exit::Failed.into()
}

/// The home folder that must be handed on, absolute: the one of `--home` or `STIGMER_HOME`.
pub(super) fn home_to_hand_on(
    option: Option<PathBuf>,
) -> Result<(Home, Option<PathBuf>), CliError> {
    let variable = std::env::var_os("STIGMER_HOME").filter(|home| !home.is_empty());
    let Some(folder) = option.or_else(|| variable.map(PathBuf::from)) else {
        return Ok((Home::from_environment()?, None));
    };
    let folder = std::path::absolute(&folder).map_err(|source| CliError::Io {
        what: format!("cannot use the folder {}", folder.display()),
        source,
    })?;
    Ok((Home::at(&folder), Some(folder)))
}
