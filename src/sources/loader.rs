//! Manifests in the words of the supervisor.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::{apart, room};
use crate::api::v1;
use crate::manifest::{Diagnostic, LoadOptions, Loaded, Report, Severity};
use crate::store::ProjectRecord;
use crate::supervisor::{Applied, Handle, Input, LoadFailure, LoadedProject, Refusal, Request};

/// How often a reload is begun anew because the project was applied in the meantime.
const ATTEMPTS: usize = 5;

/// Loads the manifest of a record with the record's variables and profiles. Blocks.
pub fn load(record: &ProjectRecord) -> Result<LoadedProject, Box<LoadFailure>> {
    let options = LoadOptions {
        variables: record.variables.clone(),
        profiles: record.profiles.clone(),
        project: record.name_override.clone(),
        search_path: record.base_env.get("PATH").cloned(),
    };
    let fits = |loaded: Loaded| room::check(&record.manifest, &loaded.project).map(|()| loaded);
    match apart::load(&record.manifest, options).and_then(fits) {
        Ok(loaded) => Ok(LoadedProject {
            spec: loaded.project,
            warnings: loaded.warnings.iter().map(in_one_line).collect(),
            variables: loaded.variables,
            watched: loaded.watched,
            sha256: loaded.sha256,
        }),
        Err(report) => Err(Box::new(failure(record, &report))),
    }
}

/// Reads the manifest of an applied project again, and converges.
pub async fn reload(handle: &Handle, project: &str) -> Result<Applied, Refusal> {
    for _ in 0..ATTEMPTS {
        let record = handle.projects.borrow().get(project).map(|known| known.record.clone());
        let Some(record) = record else { return Err(Refusal::Unknown(project.to_owned())) };
        let generation = record.generation;
        let outcome = crate::blocking::spawn(move || load(&record)).await;
        let outcome = outcome.map_err(|_| Refusal::Ending)?.map(Box::new);
        let (reply, answer) = oneshot::channel();
        let project = project.to_owned();
        let request = Request::Reload { project, generation, outcome, reply };
        handle.inputs.send(Input::Request(request)).map_err(|_| Refusal::Ending)?;
        match answer.await.map_err(|_| Refusal::Ending)? {
            Err(Refusal::Stale) => {}
            outcome => return outcome,
        }
    }
    Err(Refusal::Stale)
}

fn failure(record: &ProjectRecord, report: &Report) -> LoadFailure {
    let first = report.first();
    LoadFailure {
        message: first.message.clone(),
        file: first.file.clone(),
        line: first.line,
        column: first.column,
        report: rejected(report),
        watched: std::iter::once(&record.manifest)
            .chain(&record.watched)
            .chain(report.sources.keys())
            .chain(report.diagnostics.iter().map(|diagnostic| &diagnostic.file))
            .cloned()
            .collect(),
    }
}

/// A report as the interface carries it.
#[must_use]
pub fn rejected(report: &Report) -> v1::Rejected {
    let sources: BTreeMap<String, String> = report
        .sources
        .iter()
        .map(|(path, text)| (path.to_string_lossy().into_owned(), text.clone()))
        .collect();
    v1::Rejected {
        file: report.first().file.to_string_lossy().into_owned(),
        diagnostics: report.diagnostics.iter().map(diagnostic).collect(),
        sources,
    }
}

fn diagnostic(from: &Diagnostic) -> v1::Diagnostic {
    v1::Diagnostic {
        severity: match from.severity {
            Severity::Error => "error".into(),
            Severity::Warning => "warning".into(),
        },
        file: from.file.to_string_lossy().into_owned(),
        line: from.line,
        column: from.column,
        length: from.length,
        message: from.message.clone(),
        expected: from.expected.clone(),
        help: from.help.clone(),
    }
}

fn in_one_line(warning: &Diagnostic) -> String {
    let Diagnostic { file, line, column, message, .. } = warning;
    match line {
        0 => format!("{}: {message}", file.display()),
        _ => format!("{}:{line}:{column}: {message}", file.display()),
    }
}
