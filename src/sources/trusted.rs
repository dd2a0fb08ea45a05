//! What a daemon of root's reads must be root's alone to write.

use std::collections::BTreeMap;

use crate::manifest::{Diagnostic, Loaded, Report, Severity};
use crate::trust;

/// Refuses a manifest that others may write, or whose env files others may, where this process is
/// root's. Who writes them decides what root executes.
pub fn only_trusted(loaded: Loaded) -> Result<Loaded, Box<Report>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(loaded);
    }
    let mistakes: Vec<Diagnostic> = loaded
        .watched
        .iter()
        .filter_map(|file| {
            let untrusted = trust::only_root_writes(file).err()?;
            Some(Diagnostic {
                severity: Severity::Error,
                file: file.clone(),
                line: 0,
                column: 0,
                length: 0,
                message: untrusted.to_string(),
                expected: "a file that only root may write, in folders that only root may write to"
                    .into(),
                help: untrusted.remedy,
            })
        })
        .collect();
    if mistakes.is_empty() {
        return Ok(loaded);
    }
    Err(Box::new(Report { diagnostics: mistakes, sources: BTreeMap::new() }))
}
