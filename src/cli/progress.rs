//! Following what the daemon does until it is done: the plan, each change, and how it ended.
//!
//! ```text
//!   plan ─► change ─► change ─► ... ─► outcome       a stream of the daemon
//!     │        │ a line drawn again, or a line each     │ failures: why, last lines, what to type
//! ```
//!
//! Failure paths: a manifest that is refused ends with 5 and nothing was touched; a connection that
//! breaks is opened again where asking twice does no harm; `--timeout` ends with 6 and names what is
//! not there yet; Ctrl-C ends this command alone, and the daemon goes on.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::Instant;
use tonic::Streaming;

use super::client::{Client, is_broken};
use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::live::{Canvas, fit};
use super::output::{Look, RED, YELLOW};
use super::status_table;
use super::table::harmless;
use super::words;
use super::{manifests, progress_text, watch};
use crate::api::v1;
use crate::api::view::SCHEMA_VERSION;
use crate::model::event::human_duration;

/// How often a connection that breaks is opened again.
const TRIES: u32 = 5;
/// How long a daemon that is being replaced is waited for.
const BACK_WITHIN: Duration = Duration::from_secs(2);

/// The options of commands that wait.
#[derive(Args, Clone, Debug)]
pub(super) struct Waiting {
    /// Return as soon as the daemon has accepted it.
    #[arg(long)]
    pub(super) no_wait: bool,
    /// How long to wait at most, such as 90s, 5m or 1h30m.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub(super) timeout: Duration,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Format,
}

/// Text for people, or JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// What the command makes of components, to know which of them are not there yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Goal {
    /// They run and are ready.
    Ready,
    /// They are stopped.
    Stopped,
    /// They are stopped and forgotten.
    Gone,
}

/// `90s`, `5m`, `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok();
    parsed
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| format!("{text:?} is no duration; write 90s, 5m or 1h30m"))
}

/// The JSON of commands that do something.
#[derive(Serialize, Default)]
pub(super) struct Document {
    pub(super) schema_version: u32,
    pub(super) project: Option<String>,
    pub(super) plan: Option<v1::Plan>,
    pub(super) outcome: Option<v1::Outcome>,
    pub(super) status: Option<v1::StatusResponse>,
    pub(super) rejected: Option<v1::Rejected>,
}

/// What a command shows while it waits.
pub(super) struct Progress<'a> {
    context: &'a Context,
    format: Format,
    goal: Goal,
    dry_run: bool,
    no_wait: bool,
    canvas: Canvas,
    document: Document,
}

impl<'a> Progress<'a> {
    /// Nothing has happened yet.
    pub(super) fn new(context: &'a Context, waiting: &Waiting, goal: Goal) -> Self {
        let document = Document { schema_version: SCHEMA_VERSION, ..Document::default() };
        Self {
            context,
            format: waiting.output,
            goal,
            dry_run: false,
            no_wait: waiting.no_wait,
            canvas: Canvas::default(),
            document,
        }
    }

    /// It is only asked what would be done.
    pub(super) fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Opens a stream of progress, follows it to its end and says how it ended.
    ///
    /// `repeatable`: asking twice is the same as asking once.
    pub(super) async fn run<F>(
        mut self,
        client: &Client<'_>,
        timeout: Duration,
        repeatable: bool,
        open: impl Fn() -> F,
    ) -> Result<Exit, CliError>
    where
        F: Future<Output = Result<Streaming<v1::Progress>, CliError>>,
    {
        match self.follow(client, timeout, repeatable, open).await? {
            Some(exit) => Ok(exit),
            None => self.finish(),
        }
    }

    /// The same without the last word, unless the time was over.
    pub(super) async fn follow<F>(
        &mut self,
        client: &Client<'_>,
        timeout: Duration,
        repeatable: bool,
        open: impl Fn() -> F,
    ) -> Result<Option<Exit>, CliError>
    where
        F: Future<Output = Result<Streaming<v1::Progress>, CliError>>,
    {
        let deadline = Instant::now().checked_add(timeout);
        let mut tries = 0;
        loop {
            let attempt = async {
                let mut stream = open().await?;
                self.take_all(client, &mut stream).await
            };
            let ended = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, attempt).await,
                None => Ok(attempt.await),
            };
            match ended {
                Err(_) => return self.timed_out(timeout).map(Some),
                Ok(Err(CliError::Broken(_))) if repeatable && tries < TRIES => {
                    tries += 1;
                    client.connect_again(BACK_WITHIN).await?;
                }
                // Forgotten before the connection broke.
                Ok(Err(CliError::Refused(status)))
                    if tries > 0
                        && self.goal == Goal::Gone
                        && status.code() == tonic::Code::NotFound =>
                {
                    return Ok(None);
                }
                Ok(result) => {
                    result?;
                    return Ok(None);
                }
            }
        }
    }

    async fn take_all(
        &mut self,
        client: &Client<'_>,
        stream: &mut Streaming<v1::Progress>,
    ) -> Result<(), CliError> {
        loop {
            match stream.message().await {
                Ok(Some(message)) => self.take(message)?,
                Ok(None) if self.is_complete() => return Ok(()),
                Ok(None) => return Err(CliError::Broken("it ended in the middle".into())),
                Err(status) if is_broken(&status) => {
                    return Err(CliError::Broken(status.message().to_owned()));
                }
                Err(status) => return Err(client.explain(status)),
            }
        }
    }

    /// Whether the stream has said all that it is to say.
    fn is_complete(&self) -> bool {
        let Document { outcome, rejected, .. } = &self.document;
        self.dry_run || self.no_wait || outcome.is_some() || rejected.is_some()
    }

    /// One message of the daemon.
    fn take(&mut self, message: v1::Progress) -> Result<(), CliError> {
        self.context.under_way.set(!self.dry_run);
        if let Some(plan) = message.plan {
            self.planned(&message.project, plan)?;
        }
        if let Some(rejected) = message.rejected {
            if self.format == Format::Text {
                manifests::say_report(&manifests::report(&rejected), &self.context.output);
            }
            self.document.rejected = Some(rejected);
        }
        self.happened(&message.events)?;
        if let Some(status) = message.status {
            self.draw(&status)?;
            self.document.status = Some(status);
        }
        if let Some(outcome) = message.outcome {
            self.document.outcome = Some(outcome);
        }
        Ok(())
    }

    /// The plan. One that comes again after a broken connection is not shown again.
    pub(super) fn planned(&mut self, project: &str, plan: v1::Plan) -> Result<(), CliError> {
        let output = &self.context.output;
        for warning in &plan.warnings {
            output.say_warning(warning);
        }
        let known = self.document.plan.take();
        let again = known.is_some() && self.document.project.as_deref() == Some(project);
        if self.format == Format::Text && !again {
            output.print(&progress_text::plan(project, &plan, self.dry_run, output.look))?;
        }
        match known {
            None => {
                self.document.project = Some(project.to_owned()).filter(|name| !name.is_empty());
                self.document.plan = Some(plan);
            }
            Some(known) if again => self.document.plan = Some(known),
            Some(mut known) => {
                // Of several projects: one plan with the steps of all.
                self.document.project = None;
                known.steps.extend(plan.steps);
                known.unchanged += plan.unchanged;
                known.warnings.extend(plan.warnings);
                self.document.plan = Some(known);
            }
        }
        Ok(())
    }

    /// Says what happened, a line each.
    fn happened(&self, events: &[v1::Event]) -> Result<(), CliError> {
        let output = &self.context.output;
        if self.format == Format::Json || output.live {
            return Ok(());
        }
        let lines: String = events
            .iter()
            .filter(|event| is_told(event))
            .map(|event| line(event, output.look))
            .collect();
        if lines.is_empty() { Ok(()) } else { output.print(&lines) }
    }

    /// Draws each component in its line, on a terminal.
    fn draw(&mut self, status: &v1::StatusResponse) -> Result<(), CliError> {
        let output = &self.context.output;
        if self.format == Format::Json || !output.live {
            return Ok(());
        }
        let names: Vec<String> = status.components.iter().map(words::name_of).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for (component, name) in status.components.iter().zip(&names) {
            let (symbol, style) = words::symbol(component, output.look);
            let line =
                format!("{symbol:<2} {name:<width$}  {}", harmless(&watch::change(component)));
            text.push_str(&output.look.paint(style, &fit(output, &line)));
            text.push('\n');
        }
        self.canvas.draw(output, &text)
    }

    /// Says how it ended.
    pub(super) fn finish(self) -> Result<Exit, CliError> {
        let output = &self.context.output;
        let document = &self.document;
        if self.format == Format::Json {
            output.json(document)?;
        } else if document.rejected.is_none() {
            match &document.status {
                Some(status) if !status.components.is_empty() => {
                    output.line(&status_table::summary(&status.components))?;
                }
                Some(_) => output.line("done")?,
                None => {}
            }
            for failure in document.outcome.iter().flat_map(|outcome| &outcome.failures) {
                output.say(&progress_text::failure(failure, output.error_look));
            }
        }
        for warning in document.outcome.iter().flat_map(|outcome| &outcome.warnings) {
            output.say_warning(&progress_text::optional(warning));
        }
        if document.rejected.is_some() {
            return Ok(Exit::Invalid);
        }
        Ok(match &document.outcome {
            Some(outcome) if !outcome.ok => Exit::NotHealthy,
            _ => Exit::Done,
        })
    }

    /// Whether there is something to do.
    pub(super) fn has_changes(&self) -> bool {
        self.document.plan.as_ref().is_some_and(|plan| !plan.steps.is_empty())
    }

    fn timed_out(&self, timeout: Duration) -> Result<Exit, CliError> {
        let output = &self.context.output;
        if self.format == Format::Json {
            output.json(&self.document)?;
        }
        let components = || self.document.status.iter().flat_map(|status| &status.components);
        let (optional, late): (Vec<_>, Vec<_>) = components()
            .filter(|component| !is_there(component, self.goal))
            .partition(|component| component.optional && self.goal == Goal::Ready);
        for component in &optional {
            let within = human_duration(timeout);
            let name = words::name_of(component);
            output.say_warning(&format!(
                "optional: {name} is not ready within {within}: {}",
                why(component)
            ));
        }
        // What has come back after a crash may be about to crash again.
        let settled = components().all(|component| component.optional || is_settled(component));
        if late.is_empty() && !optional.is_empty() && settled {
            return Ok(Exit::Done);
        }
        let what = match self.goal {
            Goal::Ready => "not ready",
            Goal::Stopped | Goal::Gone => "not stopped",
        };
        let mut text = format!("{what} within {}", human_duration(timeout));
        for (index, component) in late.iter().enumerate() {
            let colon = if index == 0 { ":" } else { "" };
            let _ = write!(text, "{colon}\n  {}: {}", words::name_of(component), why(component));
        }
        output.say_error(&text);
        output.say("The daemon goes on with it; `stigmer why NAME` tells more.");
        Ok(Exit::TimedOut)
    }
}

fn is_there(component: &v1::Component, goal: Goal) -> bool {
    match goal {
        Goal::Ready => {
            component.wanted != "running"
                || component.ready
                || component.reason.as_deref() == Some("completed")
        }
        Goal::Stopped | Goal::Gone => matches!(component.state.as_str(), "stopped" | "failed"),
    }
}

fn is_settled(component: &v1::Component) -> bool {
    let restarts = component.restarts.as_ref().map_or(0, |restarts| restarts.total);
    restarts == 0 || component.wanted != "running" || component.stage.as_deref() == Some("stable")
}

fn why(component: &v1::Component) -> String {
    let line = watch::change(component);
    let readiness = component.probes.as_ref().and_then(|probes| probes.readiness.as_ref());
    match readiness.and_then(|probe| probe.message.as_ref()) {
        Some(message) if component.state == "running" => format!("{line}: readiness: {message}"),
        _ => line,
    }
}

/// Whether an event is more than what the plan has told, and tells something of its own.
fn is_told(event: &v1::Event) -> bool {
    let of_project = event.component.is_empty() && event.severity == "info";
    !of_project && !matches!(event.kind.as_str(), "state_changed" | "stable" | "waiting")
}

/// `api: stopping: asked to stop`.
fn line(event: &v1::Event, look: Look) -> String {
    let name = if event.component.is_empty() {
        event.project.clone()
    } else {
        words::display_name(&event.component, event.replica)
    };
    let message = look.paint(severity(&event.severity), &harmless(&event.message));
    format!("{name}: {message}\n")
}

fn severity(word: &str) -> anstyle::Style {
    match word {
        "error" => RED,
        "warning" => YELLOW,
        _ => anstyle::Style::new(),
    }
}
