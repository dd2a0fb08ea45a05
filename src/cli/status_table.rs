//! The status as a table, with what stands above and below it. Pure.

use jiff::Timestamp;
use std::fmt::Write as _;

use super::output::{Look, RED, YELLOW};
use super::table::{Cell, Column, Table, harmless};
use super::words;
use crate::api::v1;

/// How much is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Detail {
    /// What everybody needs.
    Usual,
    /// Also kind, CPU, memory, probes, ports, project.
    Wide,
}

/// The whole: rejected manifests, problems of logs, table, summary, information lines.
pub(super) fn render(
    status: &v1::StatusResponse,
    detail: Detail,
    now: Timestamp,
    look: Look,
) -> String {
    let mut text = rejected(status, look);
    text.push_str(&log_problems(status, look));
    if !status.components.is_empty() {
        text.push_str(&table(status, detail, now, look));
        text.push('\n');
    }
    text.push_str(&summary(&status.components));
    text.push('\n');
    text.push_str(&information(&status.projects));
    text
}

/// One red line for each manifest that was refused.
fn rejected(status: &v1::StatusResponse, look: Look) -> String {
    let mut text = String::new();
    for project in &status.projects {
        let Some(manifest) = &project.manifest else { continue };
        let Some(error) = &manifest.error else { continue };
        let file = if error.file.is_empty() { &manifest.path } else { &error.file };
        let place = match (error.line, error.column) {
            (0, _) => file.clone(),
            (line, column) => format!("{file}:{line}:{column}"),
        };
        let line = harmless(&format!("{place}: {}", error.message));
        text.push_str(&look.paint(RED, &line));
        text.push('\n');
    }
    text
}

/// One yellow line for each log with which something is wrong.
fn log_problems(status: &v1::StatusResponse, look: Look) -> String {
    let mut text = String::new();
    for component in &status.components {
        let Some(problem) = &component.log_problem else { continue };
        let line = harmless(&format!("{}: {problem}", words::name_of(component)));
        text.push_str(&look.paint(YELLOW, &line));
        text.push('\n');
    }
    text
}

fn table(status: &v1::StatusResponse, detail: Detail, now: Timestamp, look: Look) -> String {
    let wide = detail == Detail::Wide;
    let column = |head, shed| Column { head, shed };
    let with_project = wide || several_projects(status);
    let mut columns = vec![column("", 0)];
    if with_project {
        columns.push(column("PROJECT", 3));
    }
    columns.extend([column("COMPONENT", 0), column("STATE", 0), column("READY", 1)]);
    if wide {
        columns.extend([
            column("KIND", 10),
            column("CPU", 8),
            column("MEMORY", 7),
            column("PROBES", 11),
            column("PORTS", 9),
        ]);
    }
    columns.extend([
        column("PID/CONTAINER", 5),
        column("UPTIME", 6),
        column("RESTARTS", 4),
        column("LAST ERROR", 2),
    ]);
    let mut table = Table::new(columns);
    for component in &status.components {
        table.row(row(component, with_project, wide, now, look));
    }
    table.render(look)
}

fn row(
    component: &v1::Component,
    with_project: bool,
    wide: bool,
    now: Timestamp,
    look: Look,
) -> Vec<Cell> {
    let (symbol, style) = words::symbol(component, look);
    let (ready, ready_style) = words::ready(component);
    let (error, error_style) = words::last_error(component);
    let mut cells = vec![Cell::styled(symbol, style)];
    if with_project {
        cells.push(Cell::plain(component.project.clone()));
    }
    cells.extend([
        Cell::plain(words::name_of(component)),
        Cell::styled(words::state(component), style),
        Cell::styled(ready, ready_style),
    ]);
    if wide {
        let ports: Vec<String> = component.ports.iter().map(ToString::to_string).collect();
        cells.extend([
            Cell::plain(component.kind.clone()),
            Cell::plain(
                component
                    .cpu_seconds_total
                    .map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1}s")),
            ),
            Cell::plain(component.memory_bytes.map_or_else(|| "-".to_owned(), words::bytes)),
            Cell::plain(words::probes(component)),
            Cell::plain(if ports.is_empty() { "-".to_owned() } else { ports.join(",") }),
        ]);
    }
    cells.extend([
        Cell::plain(words::identity(component)),
        Cell::plain(words::uptime(component)),
        Cell::plain(words::restarts(component, now)),
        Cell::styled(error, error_style),
    ]);
    cells
}

fn several_projects(status: &v1::StatusResponse) -> bool {
    let mut names = status.components.iter().map(|component| &component.project);
    let first = names.next();
    names.any(|name| Some(name) != first)
}

/// `5 components: 2 running (1 not ready), 1 failed, 2 stopped`.
pub(super) fn summary(components: &[v1::Component]) -> String {
    let count = components.len();
    if count == 0 {
        return "no components".into();
    }
    let mut parts = Vec::new();
    for state in crate::model::State::ALL {
        let of_state = || components.iter().filter(|one| one.state == state.as_str());
        let (number, unready) = (of_state().count(), of_state().filter(|one| !one.ready).count());
        if number == 0 {
            continue;
        }
        let unready = if state == crate::model::State::Running && unready > 0 {
            format!(" ({unready} not ready)")
        } else {
            String::new()
        };
        parts.push(format!("{number} {state}{unready}"));
    }
    let noun = if count == 1 { "component" } else { "components" };
    format!("{count} {noun}: {}", parts.join(", "))
}

/// The information lines of the manifests (S46), aligned.
fn information(projects: &[v1::Project]) -> String {
    let lines = || projects.iter().flat_map(|project| &project.info);
    let width = lines().map(|line| line.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for line in lines() {
        let name = harmless(&line.name);
        let padding = " ".repeat(width.saturating_sub(name.chars().count()));
        let _ = writeln!(text, "  {name}:{padding} {}", harmless(&line.value));
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

#[cfg(test)]
#[path = "status_table_tests.rs"]
mod tests;
