//! The command line: one file for each command; what they share is beside them.
//!
//! ```text
//!   main ─► arguments ─► command::run(Context) ─► Exit, or CliError, printed once here
//!                           │ client ── the daemon (control socket)
//!                           │ target ── which components are meant
//!                           │ progress, live ── waiting for what the daemon does
//!                           │ words, table, status_table, detail, log_line ── rendering, pure
//!                           └ output ── the only place that prints
//! ```
//!
//! Invariants
//! - stdout carries what was asked for, and nothing but JSON with `-o json`; everything said about it
//!   goes to stderr.
//! - Only `apply` and `daemon` start a daemon.
//! - A reader that goes away, Ctrl-C and SIGTERM end a command quietly; what the daemon has accepted goes
//!   on.
//!
//! Deliberately absent: any decision about components. The daemon decides; this asks and shows.

mod apply;
mod client;
mod config;
mod context;
mod control;
mod daemon;
mod detail;
mod error;
mod events;
mod exec;
mod exit;
mod init;
mod interrupt;
mod live;
mod log_line;
mod logs;
mod manifests;
mod output;
mod ping;
mod progress;
mod progress_text;
mod reload;
mod resume;
mod status;
mod status_table;
mod table;
mod target;
mod upgrade;
mod validate;
mod watch;
mod why;
mod words;

use std::cell::Cell;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser, Subcommand};

use crate::api::v1::control_request::Action;
use context::Context;
use error::CliError;
use exit::Exit;
use output::{ColorChoice, Output};

pub use daemon::become_daemon;

/// Declare it, apply it, trust it: a process manager for any program.
///
/// A manifest, stigmer.yaml, declares components; `stigmer apply` makes it so, and a daemon keeps it so.
#[derive(Parser, Debug)]
#[command(name = "stigmer", version, arg_required_else_help = true)]
#[command(after_help = "\
A first minute:
  stigmer init      write a stigmer.yaml
  stigmer apply     make it so
  stigmer status    look at it

Which components a command means: the project of the manifest given with --file, or found in the
folder or above it; with neither, all projects. --project names one, --all means all.

Exit codes: 0 done; 1 failed; 2 usage; 3 a wanted component is not running and healthy; 4 unknown
component, or no daemon; 5 the manifest is invalid; 6 waiting timed out; 130 and 143 interrupted.")]
struct Arguments {
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        help = "When to use colour; also NO_COLOR, CLICOLOR_FORCE and FORCE_COLOR are obeyed"
    )]
    color: ColorChoice,
    #[arg(
        long,
        global = true,
        value_name = "FOLDER",
        help = "The folder of the daemon; otherwise STIGMER_HOME, or ~/.stigmer"
    )]
    home: Option<PathBuf>,
    #[command(subcommand)]
    command: Asked,
}

/// What is asked for, by who hears of Ctrl-C.
#[derive(Subcommand, Debug)]
enum Asked {
    /// It ends the command.
    #[command(flatten)]
    Usual(Command),
    // Among those that look.
    #[command(display_order = 11)]
    Exec(exec::Exec),
}

#[derive(Subcommand, Debug)]
enum Command {
    Apply(apply::Apply),
    Status(status::Status),
    /// Start components, also those that were stopped by hand or have failed.
    Start(control::Named),
    /// Stop components; those that depend on them are stopped first.
    Stop(control::Named),
    /// Stop components and start them again.
    Restart(control::Named),
    /// Clear the counters of components, and start those that were given up.
    Reset(control::Named),
    /// Send a signal to the main processes of components.
    Signal(control::Signal),
    Reload(reload::Reload),
    /// Stop whole projects, in reverse order, and forget them.
    ///
    /// Their logs stay. A daemon that was started by `apply` ends with its last project.
    Down(control::Down),
    Logs(logs::Logs),
    Events(events::Events),
    Why(why::Why),
    Init(init::Init),
    Validate(validate::Validate),
    Config(config::Config),
    Schema(config::Schema),
    Ping(ping::Ping),
    Upgrade(upgrade::Upgrade),
    Daemon(daemon::Daemon),
}

/// The command line: everything that is not an internal argument.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors: 0 and stdout. That nobody reads them is no matter.
            if std::env::args_os().len() <= 1 {
                drop(Arguments::command().print_help());
                return Exit::Done.into();
            }
            let error = with_hint(error);
            drop(error.print());
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            return exit.into();
        }
    };
    let output = Output::new(arguments.color);
    run(arguments, output).into()
}

/// Says what to type in the place of an option that other programs have.
fn with_hint(mut error: clap::Error) -> clap::Error {
    let is_json = matches!(
        error.get(ContextKind::InvalidArg),
        Some(ContextValue::String(argument)) if argument == "--json"
    );
    if is_json {
        let hint = "JSON is asked for by `-o json`".into();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint]));
    }
    error
}

fn run(arguments: Arguments, output: Output) -> Exit {
    let place = std::env::current_dir()
        .map_err(|source| CliError::Io { what: "this folder cannot be used".into(), source })
        .and_then(|folder| Ok((folder, daemon::home_to_hand_on(arguments.home)?)));
    let (folder, (home, home_folder)) = match place {
        Ok(place) => place,
        Err(error) => return fail(&error, &output),
    };
    let context = Context { home, home_folder, folder, output, under_way: Cell::new(false) };
    match execute(arguments.command, &context) {
        Ok(exit) => exit,
        Err(error @ CliError::Signal(_)) => {
            if context.under_way.get() {
                context.output.say(
                    "interrupted; the daemon goes on with it, `stigmer status` shows how far it is",
                );
            }
            error.exit()
        }
        Err(error) => fail(&error, &context.output),
    }
}

/// Says what went wrong; gives the exit code.
fn fail(error: &CliError, output: &Output) -> Exit {
    match error {
        CliError::NobodyReads => {}
        CliError::Manifest(report) => manifests::say_report(report, output),
        error => output.say_error(&error.to_string()),
    }
    error.exit()
}

/// Runs a command in a runtime of one thread, until it ends or is interrupted.
fn execute(command: Asked, context: &Context) -> Result<Exit, CliError> {
    let cannot = |source| CliError::Io { what: "cannot set up the runtime".into(), source };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
    runtime.block_on(async {
        let mut interrupt = interrupt::Interrupt::listen().map_err(cannot)?;
        match command {
            Asked::Usual(command) => tokio::select! {
                biased;
                exit = interrupt.wait() => Err(CliError::Signal(exit)),
                result = dispatch(command, context) => result,
            },
            // Signals are for the command that it runs.
            Asked::Exec(command) => command.run(context, &mut interrupt).await,
        }
    })
}

async fn dispatch(command: Command, context: &Context) -> Result<Exit, CliError> {
    match command {
        Command::Apply(command) => command.run(context).await,
        Command::Status(command) => command.run(context).await,
        Command::Start(command) => command.run(Action::Start, context).await,
        Command::Stop(command) => command.run(Action::Stop, context).await,
        Command::Restart(command) => command.run(Action::Restart, context).await,
        Command::Reset(command) => command.run(Action::Reset, context).await,
        Command::Signal(command) => command.run(context).await,
        Command::Reload(command) => command.run(context).await,
        Command::Down(command) => command.run(context).await,
        Command::Logs(command) => command.run(context).await,
        Command::Events(command) => command.run(context).await,
        Command::Why(command) => command.run(context).await,
        Command::Init(command) => command.run(context),
        Command::Validate(command) => command.run(context),
        Command::Config(command) => command.run(context).await,
        Command::Schema(command) => command.run(context),
        Command::Ping(command) => command.run(context).await,
        Command::Upgrade(command) => command.run(context).await,
        Command::Daemon(command) => command.run(context).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_of_other_programs_leads_to_that_of_this_one() {
        let asked = ["stigmer", "status", "--json"];
        let error = with_hint(Arguments::try_parse_from(asked).unwrap_err()).to_string();
        assert!(error.contains("`-o json`"), "{error}");
        assert!(!error.contains("-- --json"), "{error}");
    }
}
