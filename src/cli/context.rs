//! What every command is given: where the daemon lives, where we are, and how to print.

use std::cell::Cell;
use std::io::Write;
use std::path::PathBuf;

use super::client::Client;
use super::error::CliError;
use super::output::Output;
use crate::home::Home;

/// The surroundings of a command.
#[derive(Debug)]
pub(super) struct Context {
    /// The folders of the daemon.
    pub(super) home: Home,
    /// The home folder, if one was named; handed on to a daemon that is started.
    pub(super) home_folder: Option<PathBuf>,
    /// The folder that the command is given in.
    pub(super) folder: PathBuf,
    /// The outputs.
    pub(super) output: Output,
    /// The daemon has accepted something and goes on with it if this command is interrupted.
    pub(super) under_way: Cell<bool>,
}

impl Context {
    /// Connects to the daemon.
    pub(super) async fn client(&self) -> Result<Client<'_>, CliError> {
        Client::connect(&self.home, &self.output).await
    }

    /// The time now.
    #[expect(clippy::unused_self, reason = "the clock is a part of the surroundings")]
    pub(super) fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    /// Says something on stderr before there is a context.
    pub(super) fn say_plainly(text: &str) {
        drop(writeln!(std::io::stderr().lock(), "{text}"));
    }
}
