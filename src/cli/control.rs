//! `start`, `stop`, `restart`, `reset`, `signal`, `down`: one call of the daemon, with six names.

use clap::Args;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::progress::{Format, Goal, Progress, Waiting};
use super::target::Target;
use crate::api::v1::{self, control_request::Action};

/// Components and how to wait for them.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit codes: 0 done, also if nothing was to be done; 3 something is not as it should be; 4 unknown
component, or no daemon; 6 timed out.")]
pub(super) struct Named {
    /// Components: NAME, NAME.REPLICA, or a pattern such as 'api*'; without names all of the project.
    names: Vec<String>,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    target: Target,
}

/// A signal and its receivers.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  stigmer signal HUP api     SIGHUP to the main process of api
  stigmer signal USR1 'w*'   to every component whose name begins with w

Exit codes: 0 sent; 2 no such signal; 4 unknown component, or no daemon.")]
pub(super) struct Signal {
    /// The signal, such as SIGHUP, HUP or 1.
    #[arg(value_name = "SIGNAL")]
    which: String,
    /// Components: NAME, NAME.REPLICA, or a pattern such as 'api*'.
    #[arg(required = true)]
    names: Vec<String>,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    target: Target,
}

/// Whole projects.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  stigmer down               the project of this folder
  stigmer down --all         everything
  stigmer down --volumes     also the data in the volumes of its containers

Exit codes: 0 done; 4 no daemon, or the manifest is not applied; 6 timed out.")]
pub(super) struct Down {
    /// Also remove the volumes that were made for containers of these projects, with what they hold.
    #[arg(short, long)]
    volumes: bool,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    target: Target,
}

impl Named {
    pub(super) async fn run(self, action: Action, context: &Context) -> Result<Exit, CliError> {
        let Self { names, waiting, target } = self;
        let request = v1::ControlRequest { action: action.into(), ..Default::default() };
        control(context, request, &names, &waiting, &target).await
    }
}

impl Signal {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let signal = signal_name(&self.which)?;
        let action = Action::Signal.into();
        let request = v1::ControlRequest { action, signal, ..Default::default() };
        control(context, request, &self.names, &self.waiting, &self.target).await
    }
}

impl Down {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let (action, volumes) = (Action::Down.into(), self.volumes);
        let request = v1::ControlRequest { action, volumes, ..Default::default() };
        control(context, request, &[], &self.waiting, &self.target).await
    }
}

async fn control(
    context: &Context,
    request: v1::ControlRequest,
    names: &[String],
    waiting: &Waiting,
    target: &Target,
) -> Result<Exit, CliError> {
    let client = context.client().await?;
    let chosen = target.choose(&context.folder, names)?;
    let action = request.action();
    let request = v1::ControlRequest {
        selector: Some(chosen.selector.clone()),
        no_wait: waiting.no_wait,
        brief: waiting.output == Format::Text,
        ..request
    };
    let goal = match action {
        Action::Stop => Goal::Stopped,
        Action::Down => Goal::Gone,
        Action::Unspecified | Action::Start | Action::Restart | Action::Reset | Action::Signal => {
            Goal::Ready
        }
    };
    let repeatable = matches!(action, Action::Start | Action::Stop | Action::Down);
    let progress = Progress::new(context, waiting, goal);
    let open = || client.control(request.clone());
    let ended = progress.run(&client, waiting.timeout, repeatable, open).await;
    ended.map_err(|error| chosen.explain(error))
}

/// `SIGHUP` for SIGHUP, HUP, hup or 1.
fn signal_name(text: &str) -> Result<String, CliError> {
    use nix::sys::signal::Signal;
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let by_number = text.parse::<i32>().ok().and_then(|number| Signal::try_from(number).ok());
    by_number.or_else(|| name.parse().ok()).map(|signal| signal.as_str().to_owned()).ok_or_else(
        || CliError::Usage(format!("{text:?} is no signal; write a name such as SIGHUP or HUP")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for text in ["SIGHUP", "HUP", "hup", "1"] {
            assert_eq!(signal_name(text).unwrap(), "SIGHUP", "{text}");
        }
        assert!(matches!(signal_name("NOPE"), Err(CliError::Usage(_))));
        assert!(matches!(signal_name("0"), Err(CliError::Usage(_))));
    }
}
