//! Whether there is room for a project: what its components need at once, against what a daemon may have.
//!
//! Each program needs a process, and after the death of a keeper a descriptor in the next one, by which
//! its end is noticed. A manifest that asks for more than there can ever be is refused before anything is
//! touched, with the limit and how it is raised, rather than half started. Pure but for the reading of
//! the limits, which is `keeper::limits`.
//!
//! Deliberately absent: other projects, and processes that are not ours. They come and go.

use std::path::Path;

use crate::keeper::limits::{self, Limit};
use crate::manifest::{Diagnostic, Report, Severity};
use crate::model::spec::{ProjectSpec, Workload};

/// What the daemon itself and its probes need of processes and threads.
const OWN_PROCESSES: u64 = 100;

/// What the keeper itself needs of descriptors.
const OWN_DESCRIPTORS: u64 = 64;

/// Refuses a project for which there is no room.
pub(super) fn check(file: &Path, project: &ProjectSpec) -> Result<(), Box<Report>> {
    let programs = programs(project);
    // Nothing to look up for what others run.
    if programs == 0 {
        return Ok(());
    }
    let processes = limits::processes().into_iter().next();
    let wants = [
        shortage(programs, OWN_PROCESSES, "processes", processes),
        shortage(programs, OWN_DESCRIPTORS, "descriptors", limits::descriptors()),
    ];
    let diagnostics: Vec<_> =
        wants.into_iter().flatten().map(|words| refusal(file, words)).collect();
    if diagnostics.is_empty() {
        return Ok(());
    }
    Err(Box::new(Report { diagnostics, sources: std::collections::BTreeMap::new() }))
}

/// How many programs a project has when all of it runs.
fn programs(project: &ProjectSpec) -> u64 {
    let each = project.components.values().map(|component| match component.workload {
        Workload::Process(_) => u64::from(component.replicas),
        Workload::Container(_) | Workload::External => 0,
    });
    each.sum()
}

/// What is wrong, what would do, and what to type.
struct Words {
    message: String,
    expected: String,
    help: String,
}

fn shortage(programs: u64, own: u64, what: &str, limit: Option<Limit>) -> Option<Words> {
    let Limit { most, whose, hint } = limit?;
    let needed = programs.saturating_add(own);
    (needed > most).then(|| Words {
        message: format!(
            "{programs} programs need {needed} {what}, and the daemon may have {most} ({whose})"
        ),
        expected: format!("at most {} programs", most.saturating_sub(own)),
        help: format!("declare fewer components or replicas; or {hint}"),
    })
}

fn refusal(file: &Path, words: Words) -> Diagnostic {
    let Words { message, expected, help } = words;
    Diagnostic {
        severity: Severity::Error,
        file: file.to_owned(),
        // Of no single line: it is all of them together.
        line: 0,
        column: 0,
        length: 0,
        message,
        expected,
        help,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(most: u64) -> Limit {
        Limit { most, whose: "kernel.pid_max".into(), hint: "sysctl it".into() }
    }

    #[test]
    fn fault_55_the_limit_its_owner_and_what_would_fit_are_named() {
        let words = shortage(10_000, 100, "processes", Some(limit(4096))).unwrap();
        let message =
            "10000 programs need 10100 processes, and the daemon may have 4096 (kernel.pid_max)";
        assert_eq!(words.message, message);
        assert_eq!(words.expected, "at most 3996 programs");
        assert_eq!(words.help, "declare fewer components or replicas; or sysctl it");
    }

    #[test]
    fn what_just_fits_is_no_mistake() {
        assert!(shortage(3996, 100, "processes", Some(limit(4096))).is_none());
        assert!(shortage(3997, 100, "processes", Some(limit(4096))).is_some());
        assert!(shortage(u64::MAX, 100, "processes", None).is_none());
    }
}
