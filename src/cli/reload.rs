//! `stigmer reload`: reads manifests again and converges; with names, also replaces those gracefully.

use clap::Args;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::progress::{Format, Goal, Progress, Waiting};
use super::target::Target;
use crate::api::v1;

/// Read the manifests again and make it so.
///
/// Without names nothing that is unchanged is touched, and what was stopped by hand stays stopped. With
/// names, these components are also replaced, one replica after the other.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  stigmer reload             take up an edited manifest
  stigmer reload api         also replace api, gracefully

Exit codes: 0 everything is ready; 3 something is not; 4 unknown component, or no daemon; 5 the
manifest is invalid, and nothing was touched; 6 timed out.")]
pub(super) struct Reload {
    /// Components to replace: NAME, NAME.REPLICA, or a pattern such as 'api*'.
    names: Vec<String>,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    target: Target,
}

impl Reload {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let client = context.client().await?;
        let chosen = self.target.choose(&context.folder, &self.names)?;
        let request = v1::ReloadRequest {
            selector: Some(chosen.selector.clone()),
            no_wait: self.waiting.no_wait,
            brief: self.waiting.output == Format::Text,
        };
        let progress = Progress::new(context, &self.waiting, Goal::Ready);
        // With names it replaces, and twice is not the same as once.
        let repeatable = self.names.is_empty();
        let open = || client.reload(request.clone());
        let ended = progress.run(&client, self.waiting.timeout, repeatable, open).await;
        ended.map_err(|error| chosen.explain(error))
    }
}
