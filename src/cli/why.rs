//! `stigmer why NAME`: what it is doing and why, in plain words, down to the cause.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::Args;
use jiff::Timestamp;

use super::client::Client;
use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::progress::Format;
use super::table::harmless;
use super::target::{Chosen, Target};
use super::{status, words};
use crate::api::v1;

/// Events that are told.
const EVENTS: usize = 5;
/// Log lines that are asked for, to show where something failed.
const LOG_LINES: u32 = 5;

/// Say what a component is doing, and why.
///
/// Follows what it waits for down to the cause.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: stigmer why api

Exit codes: 0 it runs in health, or nobody wants it to run; 3 it should and does not; 4 unknown
component, or no daemon.")]
pub(super) struct Why {
    /// The component: NAME or NAME.REPLICA.
    name: String,
    /// Text, or the details of the component as JSON.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    target: Target,
}

impl Why {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let client = context.client().await?;
        let chosen = self.target.choose(&context.folder, std::slice::from_ref(&self.name))?;
        let request =
            v1::DetailRequest { selector: Some(chosen.selector.clone()), log_lines: LOG_LINES };
        let detail = client.detail(&request).await.map_err(|error| chosen.explain(error))?;
        let components: Vec<v1::Component> =
            detail.components.iter().filter_map(|one| one.component.clone()).collect();
        if self.output == Format::Json {
            context.output.json(&detail)?;
            return Ok(status::exit_of(&components));
        }
        let now = context.now();
        let texts: Vec<String> = detail.components.iter().map(|one| explain(one, now)).collect();
        for (one, text) in detail.components.iter().zip(texts) {
            context.output.print(&text)?;
            let mut chain = Chain { client: &client, chosen: &chosen, seen: BTreeSet::new() };
            context.output.print(&chain.follow(one).await?)?;
            context.output.print(&epilogue(one))?;
        }
        Ok(status::exit_of(&components))
    }
}

/// What it is doing and why, without what it waits for.
fn explain(detail: &v1::ComponentDetail, now: Timestamp) -> String {
    let Some(component) = &detail.component else { return String::new() };
    let name = words::name_of(component);
    let mut text = format!("{name} {}.\n", doing(component, now));
    if component.state == "running" && !component.ready {
        text.push_str("It runs, but it is not ready:\n");
    }
    for line in failing_probes(component) {
        let _ = writeln!(text, "  {line}");
    }
    if let Some(error) = &component.last_error
        && component.state != "running"
    {
        let _ = write!(text, "The last error: {}", harmless(&error.message));
        match words::parse(&error.at) {
            Some(at) => {
                let _ = writeln!(text, " ({} ago).", words::age(now, at));
            }
            None => text.push_str(".\n"),
        }
        if let Some(hint) = &error.hint {
            let _ = writeln!(text, "What to do: {}.", harmless(hint));
        }
    }
    text
}

/// The sentence about the state.
fn doing(component: &v1::Component, now: Timestamp) -> String {
    let reason = component.reason.as_deref().unwrap_or_default();
    let uptime = words::uptime(component);
    let pid = match (&component.container_id, component.pid) {
        (Some(id), _) => format!(" as container {}", id.chars().take(12).collect::<String>()),
        (None, Some(pid)) => format!(" as process {pid}"),
        (None, None) => String::new(),
    };
    if let Some(why) = &component.unknown {
        let state = &component.state;
        return format!(
            "was {state}{pid} when it was last heard of; now nobody knows: {}",
            harmless(why)
        );
    }
    match component.state.as_str() {
        "running" if reason.starts_with("stopping") => "is being stopped".into(),
        "running" => format!("has been running{pid} for {uptime}"),
        "starting" if reason.starts_with("waiting") => {
            format!("waits for {}", component.waiting_for.join(", "))
        }
        "starting" if reason == "launching" => "is being launched".into(),
        "starting" if reason.starts_with("stopping") => "is being stopped".into(),
        "starting" if reason != "probing" => format!("is being made ready: {}", harmless(reason)),
        "starting" => {
            format!("was launched{pid} {uptime} ago, and its startup probe has not passed yet")
        }
        "unhealthy" => format!("is alive{pid}, but a probe has failed as often as it may"),
        "restarting" => match next_restart(component, now) {
            Some(left) => format!("is restarted in {left} ({})", words::restarts(component, now)),
            None => "is being ended, to be started again".into(),
        },
        "stopped" if reason == "completed" => "has run to its end with success".into(),
        "stopped" if component.wanted == "stopped" => {
            "is stopped, because nobody wants it to run".into()
        }
        "stopped" => "is stopped".into(),
        "failed" if reason.is_empty() => "was given up".into(),
        "failed" => format!("was given up: {}", harmless(reason)),
        other => format!("is {}", harmless(other)),
    }
}

fn next_restart(component: &v1::Component, now: Timestamp) -> Option<String> {
    let next = component.restarts.as_ref()?.next_at.as_deref().and_then(words::parse)?;
    Some(words::whole_seconds(next.duration_since(now).as_secs_f64().max(0.0).ceil()))
}

fn failing_probes(component: &v1::Component) -> Vec<String> {
    let Some(probes) = &component.probes else { return Vec::new() };
    let roles = [
        ("startup", &probes.startup),
        ("liveness", &probes.liveness),
        ("readiness", &probes.readiness),
    ];
    roles
        .iter()
        .filter_map(|(name, probe)| {
            let probe = probe.as_ref()?;
            let failing = probe.result.as_deref() == Some("failure");
            let pending =
                probe.result.is_none() && component.state == "running" && !component.ready;
            if failing {
                let message = harmless(probe.message.as_deref().unwrap_or("no message"));
                Some(format!(
                    "its {name} probe fails ({} of {} in a row): {message}  [{}]",
                    probe.consecutive, probe.failure_threshold, probe.check
                ))
            } else if pending {
                Some(format!("its {name} probe has no result yet  [{}]", probe.check))
            } else {
                None
            }
        })
        .collect()
}

/// Follows unmet dependencies.
struct Chain<'a> {
    client: &'a Client<'a>,
    chosen: &'a Chosen,
    seen: BTreeSet<String>,
}

impl Chain<'_> {
    /// A line for each dependency that does not hold, and below it those of the dependency itself.
    async fn follow(&mut self, detail: &v1::ComponentDetail) -> Result<String, CliError> {
        let mut text = String::new();
        let project = detail.component.as_ref().map(|one| one.project.clone()).unwrap_or_default();
        // Last in, first out; each with how deep it is.
        let mut open = unmet(detail, 1);
        while let Some((dependency, depth)) = open.pop() {
            let indent = "  ".repeat(depth);
            let _ = writeln!(text, "{indent}{}", sentence(&dependency));
            if !self.seen.insert(dependency.name.clone()) {
                continue;
            }
            if let Some(below) = self.detail(&project, &dependency.name).await? {
                if let Some(component) = &below.component {
                    for line in failing_probes(component) {
                        let _ = writeln!(text, "{indent}  {line}");
                    }
                }
                open.extend(unmet(&below, depth + 1));
            }
        }
        Ok(text)
    }

    async fn detail(
        &self,
        project: &str,
        name: &str,
    ) -> Result<Option<v1::ComponentDetail>, CliError> {
        let selector = v1::Selector {
            project: project.to_owned(),
            names: vec![name.to_owned()],
            ..v1::Selector::default()
        };
        let request = v1::DetailRequest { selector: Some(selector), log_lines: 0 };
        let answer = self.client.detail(&request).await;
        let detail = answer.map_err(|error| self.chosen.explain(error))?;
        Ok(detail.components.into_iter().next())
    }
}

fn unmet(detail: &v1::ComponentDetail, depth: usize) -> Vec<(v1::Dependency, usize)> {
    let unmet = detail.depends_on.iter().filter(|one| !one.holds).rev();
    unmet.map(|one| (one.clone(), depth)).collect()
}

fn sentence(dependency: &v1::Dependency) -> String {
    let v1::Dependency { name, condition, state, why, .. } = dependency;
    let why = if why.is_empty() { String::new() } else { format!(": {}", harmless(why)) };
    format!("{name} is to be {condition}, and is {state}{why}")
}

/// The last events, the last lines where something is wrong, and what to type.
fn epilogue(detail: &v1::ComponentDetail) -> String {
    let Some(component) = &detail.component else { return String::new() };
    let name = words::name_of(component);
    let mut text = String::new();
    let events = &detail.events[detail.events.len().saturating_sub(EVENTS)..];
    if !events.is_empty() {
        text.push_str("\nWhat happened last:\n");
        for event in events {
            let at = words::local_time(&event.at);
            let _ = writeln!(text, "  {at}  {}", harmless(&event.message));
        }
    }
    let trouble = matches!(component.state.as_str(), "restarting" | "failed" | "unhealthy");
    if trouble && !detail.log_tail.is_empty() {
        let _ = writeln!(text, "\nThe last lines of {}:", component.log_file);
        for line in &detail.log_tail {
            let _ = writeln!(text, "  {}", harmless(&line.text));
        }
    }
    let advice = match component.state.as_str() {
        "failed" => format!("once its cause is mended: stigmer start {name}"),
        "restarting" => format!("stigmer logs {name}; to try at once: stigmer restart {name}"),
        "unhealthy" | "starting" => format!("stigmer logs {name}"),
        "running" if !component.ready => format!("stigmer logs {name}"),
        "stopped" if component.wanted == "stopped" => format!("stigmer start {name}"),
        _ => return text,
    };
    let _ = writeln!(text, "\nWhat to type: {advice}");
    text
}
