//! Everything about one component, as text. Pure.

use std::fmt::Write;

use jiff::Timestamp;

use super::output::{BOLD, GREEN, Look, RED};
use super::table::harmless;
use super::words;
use crate::api::v1;

/// The page of one component.
pub(super) fn render(detail: &v1::ComponentDetail, now: Timestamp, look: Look) -> String {
    let Some(component) = &detail.component else { return String::new() };
    let mut page = Page { text: String::new(), look };
    page.head(component);
    page.facts(component, now);
    page.probes(component, now);
    page.dependencies(detail);
    page.exits(detail, now);
    page.processes(detail);
    page.block("Spec", detail.spec.lines().map(str::to_owned));
    page.block("Last events", detail.events.iter().map(event_line));
    page.block("Last log lines", detail.log_tail.iter().map(|line| harmless(&line.text)));
    page.text
}

/// `2026-05-01 09:30:00  restarting (attempt 1/10) in 1s: SIGKILL`
fn event_line(event: &v1::Event) -> String {
    format!("{}  {}", words::local_time(&event.at), harmless(&event.message))
}

struct Page {
    text: String,
    look: Look,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn head(&mut self, component: &v1::Component) {
        let (symbol, style) = words::symbol(component, self.look);
        let name = format!("{}/{}", component.project, words::name_of(component));
        let ready = match words::ready(component).0 {
            "yes" => ", ready",
            "no" => ", not ready",
            _ => "",
        };
        let state = format!("{}{ready}", words::state(component));
        let line = format!(
            "{} {}  {}",
            self.look.paint(style, symbol),
            self.look.paint(BOLD, &name),
            self.look.paint(style, &state)
        );
        self.line(&line);
    }

    fn fact(&mut self, name: &str, value: &str) {
        self.line(&format!("  {:<12} {}", format!("{name}:"), harmless(value)));
    }

    fn facts(&mut self, component: &v1::Component, now: Timestamp) {
        self.fact("kind", &component.kind);
        self.fact("wanted", &component.wanted);
        match component.container_id {
            Some(_) => self.fact("container", &words::identity(component)),
            None if component.pid.is_some() => self.fact("process", &words::identity(component)),
            None => {}
        }
        if let Some(started) = &component.started_at {
            let stage = component.stage.as_ref().map_or_else(String::new, |one| format!(", {one}"));
            let since = words::local_time(started);
            self.fact("uptime", &format!("{} (since {since}{stage})", words::uptime(component)));
        }
        self.restarts(component, now);
        if let Some(exit) = &component.last_exit {
            self.fact("last exit", &format!("{}{}", words::exit(exit), ago(now, &exit.at)));
        }
        if let Some(error) = &component.last_error {
            self.fact("last error", &format!("{}{}", error.message, ago(now, &error.at)));
            if let Some(hint) = &error.hint {
                self.fact("what to do", hint);
            }
        }
        if let Some(mtbf) = component.mtbf_seconds {
            let value = format!("{} between failures, on average", words::whole_seconds(mtbf));
            self.fact("MTBF", &value);
        }
        if let Some(seconds) = component.cpu_seconds_total {
            self.fact("CPU", &format!("{seconds:.1} s"));
        }
        if let Some(memory) = component.memory_bytes {
            self.fact("memory", &words::bytes(memory));
        }
        if !component.ports.is_empty() {
            let ports: Vec<String> = component.ports.iter().map(ToString::to_string).collect();
            self.fact("ports", &ports.join(", "));
        }
        if !component.labels.is_empty() {
            let labels: Vec<String> =
                component.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            self.fact("labels", &labels.join(", "));
        }
        self.fact("log file", &component.log_file);
        if let Some(problem) = &component.log_problem {
            self.fact("log problem", problem);
        }
    }

    fn restarts(&mut self, component: &v1::Component, now: Timestamp) {
        let Some(restarts) = &component.restarts else { return };
        let limit = restarts.limit.map_or_else(
            || "no limit".to_owned(),
            |limit| {
                let window = words::whole_seconds(restarts.window_seconds);
                format!("{} of {limit} within {window}", restarts.in_window)
            },
        );
        let mut text = format!("{} since it was applied, {limit}", restarts.total);
        if let Some(next) = restarts.next_at.as_deref().and_then(words::parse) {
            let left = next.duration_since(now).as_secs_f64().ceil();
            let _ = write!(text, "; next in {}", words::whole_seconds(left));
        }
        if let Some(last) = restarts.last_at.as_deref().and_then(words::parse) {
            let reason = restarts.last_reason.as_deref().unwrap_or("unknown");
            let _ = write!(text, "; last {} ago ({reason})", words::age(now, last));
        }
        self.fact("restarts", &text);
    }

    fn probes(&mut self, component: &v1::Component, now: Timestamp) {
        let Some(probes) = &component.probes else { return };
        let roles = [
            ("startup", &probes.startup),
            ("liveness", &probes.liveness),
            ("readiness", &probes.readiness),
        ];
        if roles.iter().all(|(_, probe)| probe.is_none()) {
            return;
        }
        self.title("Probes");
        for (name, probe) in roles {
            let Some(probe) = probe else { continue };
            let (word, style) = match probe.result.as_deref() {
                Some("success") => (format!("ok x{}", probe.consecutive), GREEN),
                Some(_) => {
                    (format!("failing {}/{}", probe.consecutive, probe.failure_threshold), RED)
                }
                None => ("no result yet".into(), anstyle::Style::new()),
            };
            let word = self.look.paint(style, &word);
            let took = probe
                .duration_seconds
                .map_or_else(String::new, |took| format!(", took {:.0} ms", took * 1_000.0));
            let message = probe.message.as_ref().map_or_else(String::new, |one| format!(": {one}"));
            let age = probe.at.as_deref().map_or_else(String::new, |at| ago(now, at));
            let line =
                format!("  {name:<10} {word}{}{age}{took}  [{}]", harmless(&message), probe.check);
            self.line(&line);
        }
    }

    fn dependencies(&mut self, detail: &v1::ComponentDetail) {
        let lines = detail.depends_on.iter().map(|one| {
            let verdict = if one.holds { "holds".to_owned() } else { one.why.clone() };
            harmless(&format!("{} ({}): {verdict}", one.name, one.condition))
        });
        self.block("Depends on", lines);
    }

    fn exits(&mut self, detail: &v1::ComponentDetail, now: Timestamp) {
        let lines = detail.exits.iter().map(|record| {
            let exit = record.exit.clone().unwrap_or_default();
            let cause = if record.cause.is_empty() {
                String::new()
            } else {
                format!(": {}", harmless(&record.cause))
            };
            let uptime = words::whole_seconds(record.uptime_seconds);
            format!("{} after {uptime}{}{cause}", words::exit(&exit), ago(now, &exit.at))
        });
        self.block("Last exits", lines);
    }

    fn processes(&mut self, detail: &v1::ComponentDetail) {
        let nodes = &detail.processes;
        let lines = nodes.iter().map(|node| {
            let indent = "  ".repeat(depth(nodes, node));
            let state = match node.state.as_str() {
                "D" => "  (state D: it waits inside of the kernel)",
                "T" => "  (state T: it was stopped by a signal)",
                _ => "",
            };
            format!("{indent}{} {}{state}", node.pid, harmless(&node.command))
        });
        self.block("Processes", lines);
    }

    fn title(&mut self, title: &str) {
        let title = self.look.paint(BOLD, title);
        self.text.push('\n');
        self.line(&title);
    }

    /// A titled block, unless there is nothing in it.
    fn block(&mut self, title: &str, lines: impl Iterator<Item = String>) {
        let mut lines = lines.peekable();
        if lines.peek().is_none() {
            return;
        }
        self.title(title);
        for line in lines {
            self.line(&format!("  {line}"));
        }
    }
}

/// How deep a process is below the first of its tree. A circle, which cannot be, ends the count.
fn depth(nodes: &[v1::ProcessNode], node: &v1::ProcessNode) -> usize {
    let mut parent = node.parent;
    for depth in 0..nodes.len() {
        match nodes.iter().find(|other| other.pid == parent) {
            Some(other) => parent = other.parent,
            None => return depth,
        }
    }
    0
}

/// `, 5m ago`, if the time is known.
fn ago(now: Timestamp, at: &str) -> String {
    words::parse(at).map_or_else(String::new, |at| format!(", {} ago", words::age(now, at)))
}
