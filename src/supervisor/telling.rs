//! What is told of events: to those who look, to the log of the daemon, and to later readers.

use std::time::Duration;

use crate::clock::now;
use crate::model::{Event, InstanceId, Severity};
use crate::store::NewEvent;

/// What is kept of an event. Changes of state are told by the events that caused them.
pub(super) fn record_of(event: &Event) -> Option<NewEvent> {
    if let crate::model::EventKind::StateChanged { .. } = event.kind {
        return None;
    }
    let name = event.instance.display_name();
    // The machine does not know whose it is; what is told to be typed must work as it stands.
    let message = event.kind.to_string().replace("start NAME", &format!("start {name}"));
    // A program is quicker with its first line than its launch is told here.
    let ago = if let crate::model::EventKind::Launched { at, .. } = event.kind {
        now().since(at)
    } else {
        Duration::ZERO
    };
    Some(NewEvent {
        at: wall_nanos().saturating_sub(i64::try_from(ago.as_nanos()).unwrap_or(0)),
        project: event.instance.project.to_string(),
        component: event.instance.component.to_string(),
        replica: event.instance.replica,
        kind: event.kind.name().to_owned(),
        severity: event.kind.severity(),
        message,
    })
}

/// Tells an event of a component in the log of the daemon. Those of projects are told where they happen.
pub(super) fn log(event: &NewEvent) {
    if event.component.is_empty() {
        return;
    }
    let (project, message) = (&*event.project, &event.message);
    let instance = InstanceId::new(project, &event.component, event.replica);
    let name = instance.display_name();
    match event.severity {
        Severity::Info => tracing::info!(project, "{name} {message}"),
        Severity::Warning => tracing::warn!(project, "{name} {message}"),
        Severity::Error => tracing::error!(project, "{name} {message}"),
    }
}

pub(super) fn of_project(
    project: &str,
    kind: &str,
    severity: Severity,
    message: String,
) -> NewEvent {
    NewEvent {
        at: wall_nanos(),
        project: project.to_owned(),
        component: String::new(),
        replica: 0,
        kind: kind.to_owned(),
        severity,
        message,
    }
}

/// Unix nanoseconds; for showing, never for deciding.
pub(super) fn wall_nanos() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
