//! `stigmer events`: what happened, oldest first.

use std::collections::BTreeSet;

use clap::Args;

use super::client::{Client, is_broken};
use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::logs::time;
use super::output::{RED, YELLOW};
use super::progress::Format;
use super::table::harmless;
use super::target::{Chosen, LongTarget, Target};
use super::watch::reconnect;
use super::words;
use crate::api::v1;

/// How often reading goes on after a broken connection, where nothing is followed.
const TRIES: u32 = 5;

/// Show what happened: launches, exits, restarts, failures.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  stigmer events             all that are kept
  stigmer events api -n 20   the last 20 of one component
  stigmer events -f -o json  go on, one JSON document a line

Exit codes: 0 done; 2 a time that cannot be understood; 4 unknown component, or no daemon.")]
pub(super) struct Events {
    /// Components: NAME, NAME.REPLICA, or a pattern such as 'api*'.
    names: Vec<String>,
    /// Go on with new events.
    #[arg(short, long)]
    follow: bool,
    /// Only the last so many; otherwise all that are kept.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    lines: u32,
    /// Only events from this time on: an age (10m), 09:30, today, 2026-05-01T09:30:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Text, or one JSON document a line.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    target: LongTarget,
}

impl Events {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let since = time(self.since.as_deref(), context)?;
        let client = context.client().await?;
        let chosen = Target::from(self.target.clone()).choose(&context.folder, &self.names)?;
        let mut request = v1::EventsRequest {
            selector: Some(chosen.selector.clone()),
            follow: self.follow,
            limit: self.lines,
            since,
        };
        let mut teller = Teller {
            context,
            json: self.output == Format::Json,
            last: None,
            told: BTreeSet::new(),
        };
        let mut tries = 0;
        loop {
            match teller.follow(&client, request.clone(), &chosen).await {
                Ok(()) => return Ok(Exit::Done),
                Err(CliError::Broken(_)) if self.follow || tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
            reconnect(context, &client, self.follow).await?;
            if let Some(last) = &teller.last {
                request.since.clone_from(last);
                request.limit = 0;
            }
        }
    }
}

struct Teller<'a> {
    context: &'a Context,
    json: bool,
    /// The time of the last event, to go on from.
    last: Option<String>,
    /// The numbers of those that were told with this time.
    told: BTreeSet<u64>,
}

impl Teller<'_> {
    async fn follow(
        &mut self,
        client: &Client<'_>,
        request: v1::EventsRequest,
        chosen: &Chosen,
    ) -> Result<(), CliError> {
        let follow = request.follow;
        let mut stream = client.events(request).await.map_err(|error| chosen.explain(error))?;
        loop {
            match stream.message().await {
                Ok(Some(event)) => self.tell(&event)?,
                Ok(None) if follow => return Err(CliError::Broken("the daemon ended".into())),
                Ok(None) => return Ok(()),
                Err(status) if is_broken(&status) => {
                    return Err(CliError::Broken(status.message().to_owned()));
                }
                Err(status) => return Err(chosen.explain(client.explain(status))),
            }
        }
    }

    fn tell(&mut self, event: &v1::Event) -> Result<(), CliError> {
        if self.last.as_deref() != Some(&*event.at) {
            self.last = Some(event.at.clone());
            self.told.clear();
        }
        if event.id != 0 && !self.told.insert(event.id) {
            return Ok(());
        }
        let output = &self.context.output;
        if self.json {
            return output.json_line(event);
        }
        let name = if event.component.is_empty() {
            event.project.clone()
        } else {
            format!("{}/{}", event.project, words::display_name(&event.component, event.replica))
        };
        let style = match event.severity.as_str() {
            "error" => RED,
            "warning" => YELLOW,
            _ => anstyle::Style::new(),
        };
        let message = output.look.paint(style, &harmless(&event.message));
        output.line(&format!("{}  {name}  {message}", words::local_time(&event.at)))
    }
}
