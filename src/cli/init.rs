//! `stigmer init`: writes a first manifest, and never over another one by accident.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::progress::Format;
use crate::api::view::SCHEMA_VERSION;
use crate::manifest;

/// Write a stigmer.yaml to begin with.
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 written; 1 there is one already, or it cannot be written.")]
pub(super) struct Init {
    /// Write it also over one that is there.
    #[arg(long)]
    force: bool,
    /// Where to write it.
    #[arg(short, long, value_name = "MANIFEST", default_value = "stigmer.yaml")]
    file: PathBuf,
    /// The name of the project; otherwise the folder's.
    #[arg(short, long)]
    project: Option<String>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Serialize)]
struct Document {
    schema_version: u32,
    file: String,
}

impl Init {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, CliError> {
        let path = context.folder.join(&self.file);
        let folder = path.parent().unwrap_or(&context.folder);
        let project = self.project.clone().unwrap_or_else(|| project_name(folder));
        let mut options = OpenOptions::new();
        options.write(true);
        if self.force {
            options.create(true).truncate(true);
        } else {
            options.create_new(true);
        }
        let what = match options.open(&path) {
            Ok(mut file) => match file.write_all(manifest::template(&project).as_bytes()) {
                Ok(()) => return self.written(&path, context),
                Err(source) => source,
            },
            Err(source) if source.kind() == ErrorKind::AlreadyExists => {
                return Err(CliError::Daemon(format!(
                    "{} is there already; give --force to write over it",
                    path.display()
                )));
            }
            Err(source) => source,
        };
        Err(CliError::Io { what: format!("cannot write {}", path.display()), source: what })
    }

    fn written(&self, path: &std::path::Path, context: &Context) -> Result<Exit, CliError> {
        let file = path.display().to_string();
        if self.output == Format::Json {
            context.output.json(&Document { schema_version: SCHEMA_VERSION, file })?;
        } else {
            context.output.line(&format!("wrote {file}; now type `stigmer apply`"))?;
        }
        Ok(Exit::Done)
    }
}

/// The folder's name in the letters of a project's name.
fn project_name(folder: &std::path::Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let letters: String = name
        .chars()
        .map(|one| if one.is_ascii_alphanumeric() || one == '-' || one == '_' { one } else { '-' })
        .collect();
    let trimmed = letters.trim_matches(['-', '_']);
    if trimmed.is_empty() { "project".into() } else { trimmed.to_owned() }
}
