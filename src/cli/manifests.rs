//! Manifests as commands need them: the values of their variables from our environment, and a report
//! of mistakes, be it ours or the daemon's, printed in one way.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::CliError;
use super::output::Output;
use crate::api::v1;
use crate::manifest::{self, Diagnostic, LoadOptions, Loaded, Report, Severity};

/// How wide a report is where there is no terminal.
const REPORT_WIDTH: usize = 100;

/// The values of those variables that the manifest names. Those that are not set are absent.
pub(super) fn variables(path: &Path) -> BTreeMap<String, String> {
    let names = manifest::variables_named(path);
    names.into_iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?))).collect()
}

/// Loads a manifest here, without a daemon.
pub(super) fn load(
    path: &Path,
    profiles: &[String],
    project: Option<&str>,
) -> Result<Loaded, CliError> {
    let options = LoadOptions {
        variables: variables(path),
        profiles: profiles.to_vec(),
        project: project.map(str::to_owned),
        search_path: std::env::var("PATH").ok(),
    };
    manifest::load(path, &options).map_err(CliError::Manifest)
}

/// Prints the mistakes of a manifest on stderr.
pub(super) fn say_report(report: &Report, output: &Output) {
    let look = output.error_look;
    output.say(&report.render(look.color, look.width.unwrap_or(REPORT_WIDTH)));
}

/// Prints the warnings of a manifest on stderr.
pub(super) fn say_warnings(loaded: &Loaded, path: &Path, output: &Output) {
    if !loaded.warnings.is_empty() {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let sources = BTreeMap::from([(path.to_owned(), text)]);
        say_report(&Report { diagnostics: loaded.warnings.clone(), sources }, output);
    }
}

/// What the daemon found wrong.
pub(super) fn report(rejected: &v1::Rejected) -> Report {
    let diagnostics = rejected.diagnostics.iter().map(diagnostic).collect();
    let sources = rejected.sources.iter().map(|(path, text)| (path.into(), text.clone())).collect();
    Report { diagnostics, sources }
}

fn diagnostic(one: &v1::Diagnostic) -> Diagnostic {
    Diagnostic {
        severity: if one.severity == "warning" { Severity::Warning } else { Severity::Error },
        file: (&one.file).into(),
        line: one.line,
        column: one.column,
        length: one.length,
        message: one.message.clone(),
        expected: one.expected.clone(),
        help: one.help.clone(),
    }
}

/// One mistake, for the JSON.
pub(super) fn message(one: &Diagnostic) -> v1::Diagnostic {
    v1::Diagnostic {
        severity: match one.severity {
            Severity::Error => "error".into(),
            Severity::Warning => "warning".into(),
        },
        file: one.file.display().to_string(),
        line: one.line,
        column: one.column,
        length: one.length,
        message: one.message.clone(),
        expected: one.expected.clone(),
        help: one.help.clone(),
    }
}

/// A report, as the daemon would have sent it.
pub(super) fn rejected(path: &Path, report: &Report) -> v1::Rejected {
    let sources = report.sources.iter();
    v1::Rejected {
        file: path.display().to_string(),
        diagnostics: report.diagnostics.iter().map(message).collect(),
        sources: sources.map(|(path, text)| (path.display().to_string(), text.clone())).collect(),
    }
}
