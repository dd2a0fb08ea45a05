//! `stigmer apply`: makes it as the manifest says; starts a daemon if there is none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;

use super::client::Client;
use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::progress::{Document, Format, Goal, Progress, Waiting};
use super::{daemon, manifests, target};
use crate::api::v1;
use crate::api::view::SCHEMA_VERSION;
use crate::plan::{self, Intent};
use crate::sources::only_trusted;
use crate::supervisor::Lifetime;

/// How often a daemon that ends under us is started again.
const TRIES: u32 = 2;
/// The base of the components' environment.
const BASE: [&str; 3] = ["PATH", "LANG", "TZ"];

/// Make it as the manifest says.
///
/// Only what has changed is touched. Shows what will be done, does it, and waits until everything is
/// ready or has failed. Starts the daemon if there is none.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  stigmer apply                     the stigmer.yaml of this folder, or of one above it
  stigmer apply --dry-run           only show what would be done
  stigmer apply --timeout 60s       give up waiting after a minute
  PORT=8080 stigmer apply           a value for ${PORT} in the manifest

Exit codes: 0 everything is ready, but for what is optional; 3 something failed or is not ready; 5 the
manifest is invalid; 6 timed out; 10 there is something to do (--dry-run --detailed-exitcode).")]
pub(super) struct Apply {
    /// The manifest; otherwise stigmer.yaml in this folder or above it.
    #[arg(short, long, value_name = "MANIFEST")]
    file: Option<PathBuf>,
    /// A name for the project, in place of the manifest's.
    #[arg(short, long)]
    project: Option<String>,
    /// Only show what would be done.
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: exit with 10 if there is something to do.
    #[arg(long, requires = "dry_run")]
    detailed_exitcode: bool,
    /// Enable the components of this profile, too; may be repeated.
    #[arg(long = "profile", value_name = "PROFILE")]
    profiles: Vec<String>,
    #[command(flatten)]
    waiting: Waiting,
}

impl Apply {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let path = target::manifest(&context.folder, self.file.as_deref())?;
        let mut tries = 0;
        loop {
            match self.once(&path, context).await {
                // It was just ending, as a daemon does with its last project.
                Err(CliError::NoDaemon) if tries < TRIES => tries += 1,
                result => return result,
            }
        }
    }

    async fn once(&self, path: &Path, context: &Context) -> Result<Exit, CliError> {
        let client = match context.client().await {
            Ok(client) => client,
            Err(CliError::NoDaemon) => {
                // Before a daemon is started for nothing.
                let Some(loaded) = self.check(path, context)? else { return Ok(Exit::Invalid) };
                if self.dry_run {
                    return self.plan_alone(&loaded, context);
                }
                self.start_daemon(context).await?
            }
            Err(error) => return Err(error),
        };
        self.ask(path, context, &client).await
    }

    /// Loads the manifest here; `None`, and the mistakes are printed, if it is invalid.
    fn check(
        &self,
        path: &Path,
        context: &Context,
    ) -> Result<Option<crate::manifest::Loaded>, CliError> {
        let loaded = manifests::load(path, &self.profiles, self.project.as_deref())
            .and_then(|loaded| only_trusted(loaded).map_err(CliError::Manifest));
        match loaded {
            Ok(loaded) => Ok(Some(loaded)),
            Err(CliError::Manifest(report)) if self.waiting.output == Format::Json => {
                context.output.json(&Document {
                    schema_version: SCHEMA_VERSION,
                    rejected: Some(manifests::rejected(path, &report)),
                    ..Document::default()
                })?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn start_daemon<'a>(&self, context: &'a Context) -> Result<Client<'a>, CliError> {
        daemon::start(context, Lifetime::Projects).await?;
        let client = context.client().await?;
        if self.waiting.output == Format::Text {
            let pid = client.ping().await?.pid;
            context.output.line(&format!("started the daemon (process {pid})"))?;
        }
        Ok(client)
    }

    /// Without a daemon nothing runs, and everything would be created.
    fn plan_alone(
        &self,
        loaded: &crate::manifest::Loaded,
        context: &Context,
    ) -> Result<Exit, CliError> {
        let plan = plan::plan(&BTreeMap::new(), &loaded.project, Intent::Apply);
        let steps = plan.steps.iter().map(|step| v1::PlanStep {
            action: step.kind.as_str().into(),
            component: step.component.clone(),
            reason: step.reason.clone(),
            changed: step.changed.clone(),
        });
        let plan = v1::Plan {
            steps: steps.collect(),
            unchanged: plan.unchanged,
            warnings: loaded.warnings.iter().map(|warning| warning.message.clone()).collect(),
        };
        let mut progress = Progress::new(context, &self.waiting, Goal::Ready).dry_run(true);
        progress.planned(&loaded.project.name, plan)?;
        self.exit_of_plan(progress)
    }

    fn exit_of_plan(&self, progress: Progress<'_>) -> Result<Exit, CliError> {
        let changes = progress.has_changes();
        let exit = progress.finish()?;
        let detailed = self.detailed_exitcode && exit == Exit::Done && changes;
        Ok(if detailed { Exit::Changes } else { exit })
    }

    async fn ask(
        &self,
        path: &Path,
        context: &Context,
        client: &Client<'_>,
    ) -> Result<Exit, CliError> {
        let Some(manifest) = path.to_str() else {
            let path = path.display();
            return Err(CliError::Usage(format!("the path {path} is no UTF-8; move the manifest")));
        };
        let base =
            BASE.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
        let request = v1::ApplyRequest {
            manifest: manifest.to_owned(),
            variables: manifests::variables(path),
            profiles: self.profiles.clone(),
            project: self.project.clone().unwrap_or_default(),
            dry_run: self.dry_run,
            no_wait: self.waiting.no_wait,
            base_env: base.collect(),
            brief: self.waiting.output == Format::Text,
        };
        let mut progress = Progress::new(context, &self.waiting, Goal::Ready).dry_run(self.dry_run);
        let open = || client.apply(request.clone());
        let timeout = self.waiting.timeout;
        match progress.follow(client, timeout, true, open).await? {
            Some(exit) => Ok(exit),
            None => self.exit_of_plan(progress),
        }
    }
}
