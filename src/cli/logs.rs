//! `stigmer logs`: what components wrote, merged by time, with the daemon's events between.
//!
//! Reading goes on through a replaced engine: the stream is opened again from a little before the last
//! line, and what was printed already is left out (see `resume`).

use clap::Args;
use tonic::Streaming;

use super::client::{Client, is_broken};
use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::log_line::Printer;
use super::progress::Format;
use super::resume::Resume;
use super::target::{Chosen, LongTarget, Target};
use super::watch::reconnect;
use super::words;
use crate::api::v1;
use crate::logs::parse_since;

/// How often reading goes on after a broken connection, where nothing is followed.
const TRIES: u32 = 5;

/// Show what components wrote.
///
/// The lines of several components are merged by time, with the daemon's events between them. The
/// bytes of the lines are printed as they are.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  stigmer logs                       the last 100 lines of every component
  stigmer logs -f api worker         go on with new lines
  stigmer logs --since 10m --grep 'error|warn'
  stigmer logs --previous api        the run before the present one

Times: an age (10m, 1h30m), 09:30, today, 2026-05-01 09:30, 2026-05-01T09:30:00Z.
Exit codes: 0 done; 2 a time or pattern that cannot be understood; 4 unknown component, or no daemon.")]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(super) struct Logs {
    /// Components: NAME, NAME.REPLICA, or a pattern such as 'api*'.
    names: Vec<String>,
    /// Go on with new lines, through restarts and rotation.
    #[arg(short, long)]
    follow: bool,
    /// The last so many lines of each component, or all; 100, or all with --since.
    #[arg(short = 'n', long, value_name = "N", value_parser = lines)]
    lines: Option<Lines>,
    /// Only lines from this time on.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only lines up to this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only lines that match this regular expression.
    #[arg(long, value_name = "REGEX")]
    grep: Option<String>,
    /// The run before the present one.
    #[arg(long, conflicts_with = "follow")]
    previous: bool,
    /// Show the time of each line.
    #[arg(short, long)]
    timestamps: bool,
    /// Only the lines themselves: no names before them, no events between them.
    #[arg(long)]
    no_prefix: bool,
    /// Text, or one JSON document a line.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    target: LongTarget,
}

/// How many lines.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lines {
    Last(u32),
    All,
}

fn lines(text: &str) -> Result<Lines, String> {
    if text == "all" {
        return Ok(Lines::All);
    }
    text.parse().map(Lines::Last).map_err(|_| format!("{text:?} is neither a number nor all"))
}

/// A time that was typed, for the interface.
pub(super) fn time(text: Option<&str>, context: &Context) -> Result<String, CliError> {
    let Some(text) = text else { return Ok(String::new()) };
    parse_since(text, context.now()).map(|time| time.to_string()).map_err(CliError::Usage)
}

impl Logs {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let lines = match self.lines {
            Some(Lines::All) => None,
            Some(Lines::Last(count)) => Some(count),
            None if self.since.is_some() || self.previous => None,
            None => Some(100),
        };
        let since = time(self.since.as_deref(), context)?;
        let until = time(self.until.as_deref(), context)?;
        let client = context.client().await?;
        let chosen = Target::from(self.target.clone()).choose(&context.folder, &self.names)?;
        let request = v1::LogsRequest {
            selector: Some(chosen.selector.clone()),
            follow: self.follow,
            lines,
            since,
            until,
            grep: self.grep.clone().unwrap_or_default(),
            events: !self.no_prefix && self.grep.is_none(),
            previous: self.previous,
        };
        let mut printer = Printer::new(context.output.look);
        printer.json = self.output == Format::Json;
        printer.prefix = !self.no_prefix;
        printer.timestamps = self.timestamps;
        if printer.prefix && !printer.json {
            self.align(&client, &chosen, &mut printer).await?;
        }
        let mut tail = Tail { context, printer, resume: Resume::default() };
        let mut next = request.clone();
        let mut tries = 0;
        loop {
            match tail.follow(&client, next, &chosen).await {
                Ok(()) => return Ok(Exit::Done),
                Err(CliError::Broken(_)) if self.follow || tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
            reconnect(context, &client, self.follow).await?;
            next = tail.resume.request(&request);
        }
    }

    /// Learns the names, so that prefixes have one width from the first line on.
    async fn align(
        &self,
        client: &Client<'_>,
        chosen: &Chosen,
        printer: &mut Printer,
    ) -> Result<(), CliError> {
        let request = v1::StatusRequest {
            selector: Some(chosen.selector.clone()),
            usage: false,
            brief: true,
        };
        let status = client.status(&request).await.map_err(|error| chosen.explain(error))?;
        chosen.check(&status.projects)?;
        printer.projects = status.projects.len() > 1;
        for component in &status.components {
            printer.expect(&component.project, &words::name_of(component));
        }
        Ok(())
    }
}

struct Tail<'a> {
    context: &'a Context,
    printer: Printer,
    resume: Resume,
}

impl Tail<'_> {
    /// Prints until the stream ends or breaks.
    async fn follow(
        &mut self,
        client: &Client<'_>,
        request: v1::LogsRequest,
        chosen: &Chosen,
    ) -> Result<(), CliError> {
        let follow = request.follow;
        let mut stream: Streaming<v1::LogLine> =
            client.logs(request).await.map_err(|error| chosen.explain(error))?;
        loop {
            match stream.message().await {
                Ok(Some(line)) => {
                    if self.resume.is_new(&line) {
                        self.context.output.bytes(&self.printer.print(&line))?;
                    }
                }
                // A follower's stream ends only with its engine.
                Ok(None) if follow => return Err(CliError::Broken("the daemon ended".into())),
                Ok(None) => return Ok(()),
                Err(status) if is_broken(&status) => {
                    return Err(CliError::Broken(status.message().to_owned()));
                }
                Err(status) => return Err(chosen.explain(client.explain(status))),
            }
        }
    }
}
