//! `stigmer exec NAME [--] COMMAND`: a command beside a component, or in its container.
//!
//! ```text
//!   Exec ──▶ daemon: where and how ─┬─ process ───▶ beside: this process becomes the command
//!                                   └─ container ─▶ inside: this process passes its streams on
//! ```
//!
//! The daemon says what a launch of the component would use, and has no part in what follows. The
//! environment that it gives may hold secrets: it goes into the command, and nowhere else.
//!
//! Failure paths: the exit code is that of the command. What a shell would say of a command that is not
//! there or cannot be executed is said in the same way, 127 and 126.

mod beside;
mod inside;
mod stdio;
mod terminal;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::interrupt::Interrupt;
use super::target::Target;
use crate::api::v1;

/// After this, somebody who watches is told what it waits for.
const QUIET: Duration = Duration::from_secs(2);

/// Run a command beside a component, or in its container.
///
/// A process component need not run: the command gets its environment, secrets included, its folder, user,
/// umask and limits, and is a process of this terminal. A container must run: the command runs in it, with a
/// terminal if there is one here.
#[derive(Args, Debug)]
#[command(after_help = "\
Options after the command belong to the command.

Examples:
  stigmer exec api                        a shell with the environment of api, in its folder
  stigmer exec api ./manage migrate       a command that needs its secrets
  stigmer exec db -- psql -U postgres     in the container of db
  stigmer exec -T db pg_dump > dump.sql   without a terminal
  stigmer exec -e DEBUG=1 api.1 env       with one more variable, for the second replica

Exit codes: that of the command, 128 and the number of the signal that ended it; 126 it cannot be
executed; 127 it is not there; 1 failed; 2 usage, or several components are meant; 3 the container
does not run; 4 unknown component, or no daemon.")]
pub(super) struct Exec {
    /// The component: NAME or NAME.REPLICA.
    name: String,
    /// The command and its arguments; without one, the shell of its user.
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
    /// Run it as another user than the component's.
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Run it in another folder; of a process component, as seen from its own.
    #[arg(short, long, value_name = "FOLDER")]
    working_dir: Option<OsString>,
    /// One more variable; without a value, that of this shell. May be repeated.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// No terminal for a command in a container, though there is one here.
    #[arg(short = 'T', long)]
    no_tty: bool,
    #[command(flatten)]
    target: Target,
}

/// What is to be run, but for where.
#[derive(Clone, Debug)]
struct Wish {
    /// Of the component, for messages.
    name: String,
    /// Empty: a shell.
    command: Vec<OsString>,
    user: Option<String>,
    working_dir: Option<OsString>,
    env: Vec<(String, String)>,
    no_tty: bool,
}

impl Exec {
    pub(super) async fn run(
        self,
        context: &Context,
        interrupt: &mut Interrupt,
    ) -> Result<Exit, CliError> {
        let Self { name, command, user, working_dir, env, no_tty, target } = self;
        if user.as_ref().is_some_and(|user| user.is_empty() || user.starts_with(':')) {
            return Err(CliError::Usage("--user needs a user: write --user USER:GROUP".into()));
        }
        let variables = env.into_iter().map(|text| variable(text, |name| std::env::var(name).ok()));
        let env = variables.collect::<Result<_, _>>()?;
        let wish = Wish { name, command, user, working_dir, env, no_tty };
        let place = tokio::select! {
            biased;
            exit = interrupt.wait() => return Err(CliError::Signal(exit)),
            place = ask(&wish, &target, context) => place?,
        };
        match (place.process, place.container) {
            (Some(process), _) => Err(beside::run(process, wish)),
            (None, Some(container)) => inside::run(container, wish, context, interrupt).await,
            (None, None) => Err(CliError::Daemon("the daemon gave no place to run it in".into())),
        }
    }
}

/// Asks the daemon where the command runs.
async fn ask(
    wish: &Wish,
    target: &Target,
    context: &Context,
) -> Result<v1::ExecResponse, CliError> {
    let client = context.client().await?;
    let chosen = target.choose(&context.folder, std::slice::from_ref(&wish.name))?;
    // Secrets may take their time. That there is somebody who resolves them is found out before.
    client.ping().await?;
    let request = v1::ExecRequest {
        selector: Some(chosen.selector.clone()),
        user: wish.user.clone().unwrap_or_default(),
    };
    let mut asking = std::pin::pin!(client.exec(&request));
    let quick = tokio::time::timeout(QUIET, &mut asking).await;
    let place = if let Ok(place) = quick {
        place
    } else {
        if std::io::stderr().is_terminal() {
            context.output.say(&format!("waiting for the secrets of {} ...", wish.name));
        }
        asking.await
    };
    place.map_err(|error| match chosen.explain(error) {
        CliError::Refused(status) if status.code() == tonic::Code::FailedPrecondition => {
            CliError::NotRun { exit: Exit::NotHealthy, message: status.message().to_owned() }
        }
        other => other,
    })
}

/// `NAME=VALUE`, or `NAME` for the value that it has here.
fn variable(
    text: String,
    here: impl Fn(&str) -> Option<String>,
) -> Result<(String, String), CliError> {
    let usage = |why: String| Err(CliError::Usage(why));
    match text.split_once('=') {
        Some(("", _)) => usage(format!("--env {text}: a variable needs a name: NAME=VALUE")),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None if text.is_empty() => usage("--env needs a variable: NAME=VALUE".into()),
        None => match here(&text) {
            Some(value) => Ok((text, value)),
            None => usage(format!("--env {text}: it is not set here; write {text}=VALUE")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_have_a_name_and_a_value() {
        let here = |name: &str| (name == "SET").then(|| "here".to_owned());
        let of = |text: &str| variable(text.into(), here);
        assert_eq!(of("A=b=c").unwrap(), ("A".into(), "b=c".into()));
        assert_eq!(of("A=").unwrap(), ("A".into(), String::new()));
        assert_eq!(of("SET").unwrap(), ("SET".into(), "here".into()));
        for wrong in ["", "=x", "UNSET"] {
            assert!(matches!(of(wrong), Err(CliError::Usage(_))), "{wrong:?}");
        }
    }
}
