//! A plan and a failure as text. Pure.

use std::fmt::Write as _;

use super::output::{BOLD, GREEN, GREY, Look, RED, YELLOW};
use super::table::harmless;
use crate::api::v1;

/// What will be done, and why.
pub(super) fn plan(project: &str, plan: &v1::Plan, dry_run: bool, look: Look) -> String {
    let head = if project.is_empty() { "plan" } else { project };
    let head = look.paint(BOLD, &harmless(head));
    let unchanged = format!("{} unchanged", plan.unchanged);
    if plan.steps.is_empty() {
        return format!("{head}: nothing to do, {unchanged}\n");
    }
    let would = if dry_run { " (nothing is done)" } else { "" };
    let width = plan.steps.iter().map(|step| step.component.chars().count()).max().unwrap_or(0);
    let mut text = format!("{head}:{would}\n");
    for step in &plan.steps {
        let (mark, style) = match step.action.as_str() {
            "create" | "start" => ("+", GREEN),
            "remove" => ("-", RED),
            "restart" => ("!", YELLOW),
            _ => ("~", YELLOW),
        };
        let action = look.paint(style, &format!("{mark} {:<7}", step.action));
        let missing = step.changed.iter().filter(|key| !step.reason.contains(key.as_str()));
        let keys = missing.cloned().collect::<Vec<_>>().join(", ");
        let keys = if keys.is_empty() { keys } else { format!(" ({keys})") };
        let line = format!(
            "  {action}  {:<width$}  {}{}",
            harmless(&step.component),
            harmless(&step.reason),
            harmless(&keys)
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if plan.unchanged > 0 {
        text.push_str(&look.paint(GREY, &format!("  {unchanged}")));
        text.push('\n');
    }
    text
}

/// One component that is not as it should be.
pub(super) fn failure(failure: &v1::Failure, look: Look) -> String {
    trouble(failure, |head| look.paint(RED, head))
}

/// One that is not, and may be missing.
pub(super) fn optional(failure: &v1::Failure) -> String {
    format!("optional: {}", trouble(failure, str::to_owned))
}

fn trouble(failure: &v1::Failure, paint: impl Fn(&str) -> String) -> String {
    // Without a state the reason is the whole sentence: `api has no process to signal`.
    let (head, reason) = if failure.state.is_empty() {
        (failure.component.clone(), format!(" {}", failure.reason))
    } else {
        let reason = format!(": {}", failure.reason);
        (format!("{} is {}", failure.component, failure.state), reason)
    };
    let mut text = paint(&harmless(&head));
    if !failure.reason.is_empty() {
        text.push_str(&harmless(&reason));
    }
    text.push('\n');
    if failure.log_tail.is_empty() {
        if !failure.log_file.is_empty() {
            let _ = writeln!(text, "  it has written nothing to {}", failure.log_file);
        }
    } else {
        let _ = writeln!(text, "  the last lines of {}:", failure.log_file);
        for line in &failure.log_tail {
            let _ = writeln!(text, "    {}", harmless(line));
        }
    }
    if !failure.hint.is_empty() {
        let _ = writeln!(text, "  {}", harmless(&failure.hint));
    }
    text
}
