//! `stigmer status`: what is, now; or, with one name, everything about it; or, watched, every change.

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::detail;
use super::error::CliError;
use super::exit::Exit;
use super::status_table::{self, Detail};
use super::target::{Chosen, Target};
use super::watch;
use crate::api::v1;
use crate::api::view::SCHEMA_VERSION;

/// Log lines in the detail of one component.
const LOG_LINES: u32 = 10;

/// Show what every component is doing.
///
/// With exactly one NAME: everything about it. Never starts a daemon.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  stigmer status             the project of this folder, or all
  stigmer status api         everything about one component
  stigmer status -o wide     also kind, CPU, memory, probes and ports
  stigmer status -w          again after every change

Exit codes: 0 everything that is wanted runs and is healthy, but for what is optional; 3 something is
not; 4 no daemon, or unknown name.")]
pub(super) struct Status {
    /// Components: NAME, NAME.REPLICA, or a pattern such as 'api*'.
    names: Vec<String>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// Go on: show it again after every change.
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    target: Target,
}

/// How the status is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
enum Format {
    /// A table.
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    /// One JSON document.
    Json,
}

/// What is printed where nobody answers.
#[derive(Serialize)]
struct NoDaemon {
    schema_version: u32,
    daemon: Option<()>,
    projects: [(); 0],
    components: [(); 0],
}

impl Status {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let client = match context.client().await {
            Err(CliError::NoDaemon) if self.output == Format::Json => {
                context.output.json(&NoDaemon {
                    schema_version: SCHEMA_VERSION,
                    daemon: None,
                    projects: [],
                    components: [],
                })?;
                return Err(CliError::NoDaemon);
            }
            other => other?,
        };
        let chosen = self.target.choose(&context.folder, &self.names)?;
        let request = v1::StatusRequest {
            selector: Some(chosen.selector.clone()),
            usage: self.output != Format::Table || is_one_name(&self.names),
            brief: self.output == Format::Table,
        };
        let table = if self.output == Format::Wide { Detail::Wide } else { Detail::Usual };
        if self.watch {
            let json = self.output == Format::Json;
            return watch::run(context, &client, request, &chosen, table, json).await;
        }
        if is_one_name(&self.names) && self.output == Format::Table {
            return one(context, &client, &chosen).await;
        }
        let status = client.status(&request).await.map_err(|error| chosen.explain(error))?;
        chosen.check(&status.projects)?;
        if self.output == Format::Json {
            context.output.json(&status)?;
        } else {
            let text = status_table::render(&status, table, context.now(), context.output.look);
            context.output.print(&text)?;
        }
        Ok(exit_of(&status.components))
    }
}

/// Everything about one component, or its replicas.
async fn one(
    context: &Context,
    client: &super::client::Client<'_>,
    chosen: &Chosen,
) -> Result<Exit, CliError> {
    let request =
        v1::DetailRequest { selector: Some(chosen.selector.clone()), log_lines: LOG_LINES };
    let detail = client.detail(&request).await.map_err(|error| chosen.explain(error))?;
    let (now, look) = (context.now(), context.output.look);
    let texts: Vec<String> =
        detail.components.iter().map(|one| detail::render(one, now, look)).collect();
    context.output.print(&texts.join("\n"))?;
    let components: Vec<v1::Component> =
        detail.components.into_iter().filter_map(|one| one.component).collect();
    Ok(exit_of(&components))
}

fn is_one_name(names: &[String]) -> bool {
    matches!(names, [name] if !name.contains(['*', '?', '[', '{']))
}

/// 3 if something that is wanted does not run in health. What has run to its end with success is fine, and
/// what is optional is nobody's failure.
pub(super) fn exit_of(components: &[v1::Component]) -> Exit {
    let is_fine = |component: &v1::Component| {
        component.optional
            || component.wanted != "running"
            || component.state == "running"
            || (component.state == "stopped" && component.reason.as_deref() == Some("completed"))
    };
    if components.iter().all(is_fine) { Exit::Done } else { Exit::NotHealthy }
}
