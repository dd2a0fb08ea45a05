//! Why a command could not do what it was asked: one variant for each kind, each with its exit code.
//! Printed once, by `cli::main`.

use std::io;
use std::path::PathBuf;

use super::exit::Exit;
use crate::home::HomeError;
use crate::manifest::Report;

/// A command that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// Nobody answers on the socket.
    #[error("no daemon is running; start one with `stigmer apply`")]
    NoDaemon,
    /// The socket is there and cannot be used.
    #[error("cannot reach the daemon by {socket}: {source}")]
    Socket {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The daemon did not answer in time.
    #[error("the daemon does not answer; `stigmer ping` tries again, and {log} may say why")]
    Silent {
        /// The daemon's log.
        log: String,
    },
    /// The connection broke.
    #[error("the connection to the daemon broke: {0}; `stigmer status` shows what is")]
    Broken(String),
    /// The daemon refused.
    #[error("{}", .0.message())]
    Refused(Box<tonic::Status>),
    /// The daemon does not know this call.
    #[error(
        "the daemon{} is older and does not know this; `stigmer upgrade` replaces it",
        .version.as_ref().map_or_else(String::new, |version| format!(" ({version})"))
    )]
    Older {
        /// The daemon's version.
        version: Option<String>,
    },
    /// The manifest that was found is not applied.
    #[error("{} is not applied; apply it with `stigmer apply`, or give --all to mean every project", .0.display())]
    NotApplied(PathBuf),
    /// No manifest anywhere.
    #[error(
        "no stigmer.yaml in {} or above it; write one with `stigmer init`, or name one with --file",
        .0.display()
    )]
    NoManifest(PathBuf),
    /// The manifest has mistakes; the report is printed instead of this.
    #[error("the manifest is invalid")]
    Manifest(Box<Report>),
    /// A daemon could not be started.
    #[error("{0}")]
    Daemon(String),
    /// Folders that cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// `exec`: the command was not run.
    #[error("{message}")]
    NotRun {
        /// What a shell would end with.
        exit: Exit,
        /// Why.
        message: String,
    },
    /// Arguments that make no sense together.
    #[error("{0}")]
    Usage(String),
    /// A file that cannot be read or written.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Who read our output has gone: no failure, and nothing to say.
    #[error("nobody reads the output")]
    NobodyReads,
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Signal(Exit),
}

impl CliError {
    /// The exit code.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::NoDaemon | Self::NotApplied(_) => Exit::Unknown,
            Self::Refused(status) => match status.code() {
                tonic::Code::NotFound => Exit::Unknown,
                tonic::Code::InvalidArgument => Exit::Usage,
                _ => Exit::Failed,
            },
            Self::NoManifest(_) | Self::Manifest(_) => Exit::Invalid,
            Self::Usage(_) => Exit::Usage,
            Self::NobodyReads => Exit::Done,
            Self::Signal(exit) | Self::NotRun { exit, .. } => *exit,
            Self::Socket { .. }
            | Self::Silent { .. }
            | Self::Broken(_)
            | Self::Older { .. }
            | Self::Daemon(_)
            | Self::Home(_)
            | Self::Io { .. } => Exit::Failed,
        }
    }
}
