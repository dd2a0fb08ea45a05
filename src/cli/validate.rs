//! `stigmer validate`: looks for mistakes in a manifest. Needs no daemon.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::progress::Format;
use super::{manifests, target};
use crate::api::v1;
use crate::api::view::SCHEMA_VERSION;

/// Look for mistakes in the manifest.
///
/// All mistakes are told at once, with their place and what was expected. Needs no daemon.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  stigmer validate
  stigmer validate -f examples/shop.yaml -o json

Exit codes: 0 no mistakes; 5 mistakes, or no manifest.")]
pub(super) struct Validate {
    /// The manifest; otherwise stigmer.yaml in this folder or above it.
    #[arg(short, long, value_name = "MANIFEST")]
    file: Option<PathBuf>,
    /// Enable the components of this profile, too; may be repeated.
    #[arg(long = "profile", value_name = "PROFILE")]
    profiles: Vec<String>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Serialize)]
struct Document {
    schema_version: u32,
    file: String,
    valid: bool,
    project: Option<String>,
    components: Option<usize>,
    diagnostics: Vec<v1::Diagnostic>,
}

impl Validate {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, CliError> {
        let path = target::manifest(&context.folder, self.file.as_deref())?;
        let loaded = manifests::load(&path, &self.profiles, None);
        if self.output == Format::Json {
            let (loaded, report) = match &loaded {
                Ok(loaded) => (Some(loaded), None),
                Err(CliError::Manifest(report)) => (None, Some(report)),
                Err(_) => (None, None),
            };
            let found =
                loaded.map(|loaded| &loaded.warnings).or(report.map(|one| &one.diagnostics));
            context.output.json(&Document {
                schema_version: SCHEMA_VERSION,
                file: path.display().to_string(),
                valid: loaded.is_some(),
                project: loaded.map(|loaded| loaded.project.name.clone()),
                components: loaded.map(|loaded| loaded.project.components.len()),
                diagnostics: found.into_iter().flatten().map(manifests::message).collect(),
            })?;
            return Ok(if loaded.is_some() { Exit::Done } else { Exit::Invalid });
        }
        let loaded = loaded?;
        manifests::say_warnings(&loaded, &path, &context.output);
        let count = loaded.project.components.len();
        let noun = if count == 1 { "component" } else { "components" };
        let shown = path.strip_prefix(&context.folder).unwrap_or(&path).display();
        context.output.line(&format!("{shown}: {count} {noun}, no mistakes"))?;
        Ok(Exit::Done)
    }
}
