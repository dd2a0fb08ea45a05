//! `stigmer config`: the manifest with every default and variable filled in; `stigmer schema`: what a
//! manifest may say.

use std::path::PathBuf;

use clap::Args;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::progress::Format;
use super::target::Target;
use super::{manifests, target};
use crate::manifest;

/// Show the manifest with every default filled in.
///
/// Secrets stay references. With --applied: what the daemon has, rather than what the file says.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  stigmer config                the manifest of this folder
  stigmer config api            only one component
  stigmer config --applied      what is in force

Exit codes: 0 done; 4 unknown component, or no daemon (--applied); 5 the manifest is invalid.")]
pub(super) struct Config {
    /// Only these components.
    names: Vec<String>,
    /// Ask the daemon for what is in force.
    #[arg(long)]
    applied: bool,
    /// Enable the components of this profile, too; may be repeated.
    #[arg(long = "profile", value_name = "PROFILE", conflicts_with = "applied")]
    profiles: Vec<String>,
    /// YAML for people, or JSON.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// The manifest; otherwise stigmer.yaml in this folder or above it.
    #[arg(short, long, value_name = "MANIFEST")]
    file: Option<PathBuf>,
    /// The name of the project.
    #[arg(short, long)]
    project: Option<String>,
    /// With --applied: all projects.
    #[arg(long, requires = "applied", conflicts_with_all = ["file", "project"])]
    all: bool,
}

impl Config {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let yaml =
            if self.applied { self.of_daemon(context).await? } else { self.of_file(context)? };
        if self.output == Format::Json {
            let cannot = |error: serde_yaml::Error| {
                CliError::Daemon(format!("the manifest cannot be shown as JSON: {error}"))
            };
            let tree: serde_yaml::Value = serde_yaml::from_str(&yaml).map_err(cannot)?;
            context.output.json(&tree)?;
        } else {
            context.output.print(&yaml)?;
        }
        Ok(Exit::Done)
    }

    fn of_file(&self, context: &Context) -> Result<String, CliError> {
        let path = target::manifest(&context.folder, self.file.as_deref())?;
        let mut loaded = manifests::load(&path, &self.profiles, self.project.as_deref())?;
        manifests::say_warnings(&loaded, &path, &context.output);
        let components = &mut loaded.project.components;
        if let Some(name) = self.names.iter().find(|name| !components.contains_key(*name)) {
            let known = components.keys().cloned().collect::<Vec<_>>().join(", ");
            let status = tonic::Status::not_found(format!(
                "no component is named {name}; there are: {known}"
            ));
            return Err(CliError::Refused(Box::new(status)));
        }
        components.retain(|name, _| self.names.is_empty() || self.names.contains(name));
        Ok(manifest::to_yaml(&loaded.project))
    }

    async fn of_daemon(&self, context: &Context) -> Result<String, CliError> {
        let client = context.client().await?;
        let target = Target::new(self.file.clone(), self.project.clone(), self.all);
        let chosen = target.choose(&context.folder, &self.names)?;
        client.config(&chosen.selector).await.map_err(|error| chosen.explain(error))
    }
}

/// Print the JSON schema of manifests.
///
/// Editors check a manifest by it while you type, with this as its first line:
/// # yaml-language-server: $schema=stigmer.schema.json
#[derive(Args, Debug)]
#[command(after_help = "Example: stigmer schema > stigmer.schema.json")]
pub(super) struct Schema {}

impl Schema {
    #[expect(clippy::unused_self, reason = "as every command")]
    pub(super) fn run(&self, context: &Context) -> Result<Exit, CliError> {
        let schema = manifest::schema_json();
        context.output.line(schema.trim_end())?;
        Ok(Exit::Done)
    }
}
