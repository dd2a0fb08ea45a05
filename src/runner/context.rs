//! What all processes of a run have in common: its environment, its user, its secrets.

use std::borrow::Cow;
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::helper::Helpers;
use super::launch::{BaseEnv, Recipe};
use super::needs::any_probe;
use super::probe::{CommandFuture, CommandOutput, CommandRunner, Failure};
use crate::model::spec::{ComponentSpec, ProcessSpec, Workload};
use crate::model::{InstanceId, LaunchError, LaunchStage, Retry};

/// What all processes of a run have in common; prepared when it is first needed.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) instance: InstanceId,
    pub(super) spec: Arc<ComponentSpec>,
    pub(super) base_env: BaseEnv,
    pub(super) helpers: Helpers,
    pub(super) recipe: OnceCell<Box<Recipe>>,
}

impl Context {
    /// What was prepared, or is now. Kept for the run only if more programs will be run for it, which
    /// are to see the same secrets.
    pub(super) async fn recipe(&self) -> Result<Cow<'_, Recipe>, LaunchError> {
        let prepare = || async {
            let process = process_of(&self.spec)?;
            Recipe::prepare(&self.instance, process, &self.base_env, &self.helpers).await
        };
        if runs_commands(&self.spec) {
            let recipe = self.recipe.get_or_try_init(|| async { prepare().await.map(Box::new) });
            recipe.await.map(|recipe| Cow::Borrowed(&**recipe))
        } else {
            prepare().await.map(Cow::Owned)
        }
    }

    pub(super) async fn run(&self, argv: Vec<String>) -> Result<CommandOutput, LaunchError> {
        let recipe = self.recipe().await?;
        self.helpers.run(&recipe, argv).await
    }
}

/// Exec probes of a component run with its environment and in its folder.
pub(super) struct Commands(pub(super) Arc<Context>);

impl CommandRunner for Commands {
    fn run(&self, argv: Vec<String>) -> CommandFuture {
        let context = self.0.clone();
        Box::pin(async move {
            context.run(argv).await.map_err(|error| match error.retry {
                Retry::Counted => Failure::Failed(error.message),
                // A machine without a process to spare says nothing of the component.
                Retry::Soon | Retry::Patient => Failure::Void(error.message),
            })
        })
    }
}

pub(super) fn process_of(spec: &ComponentSpec) -> Result<&ProcessSpec, LaunchError> {
    match &spec.workload {
        Workload::Process(process) => Ok(process),
        Workload::Container(_) | Workload::External => Err(LaunchError {
            stage: LaunchStage::Prepare,
            errno: None,
            message: "it has no program of its own on this machine".into(),
            hint: Some("use a probe that looks from outside: tcp, http, grpc, unix or file".into()),
            retry: Retry::Counted,
        }),
    }
}

/// Whether anything but the component itself is run with its environment.
pub(super) fn runs_commands(spec: &ComponentSpec) -> bool {
    spec.stop.command.is_some() || any_probe(spec, |needs| needs.program)
}
