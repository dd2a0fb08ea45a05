//! `stigmer status --watch`: the table again after every change; in a pipe, a line for each change.
//!
//! Nothing is polled: the daemon sends. When it goes away, that is said once, and it is waited for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::client::{Client, is_broken};
use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::live::Canvas;
use super::status_table::{self, Detail};
use super::target::Chosen;
use super::words;
use crate::api::v1;

/// A daemon that is replaced is back within this; longer, and it is said.
const A_MOMENT: Duration = Duration::from_millis(1_500);
/// For how long a daemon that went away is waited for. For ever, as far as people are concerned.
const FOR_EVER: Duration = Duration::from_secs(86_400 * 365);

/// Shows the status until somebody ends it.
pub(super) async fn run(
    context: &Context,
    client: &Client<'_>,
    request: v1::StatusRequest,
    chosen: &Chosen,
    detail: Detail,
    json: bool,
) -> Result<Exit, CliError> {
    let mut screen =
        Screen { context, detail, json, canvas: Canvas::default(), seen: BTreeMap::new() };
    let mut first = true;
    loop {
        match follow(client, request.clone(), chosen, &mut screen).await {
            Err(CliError::Broken(_)) => {}
            Err(CliError::NoDaemon) if !first => {}
            other => return other,
        }
        first = false;
        reconnect(context, client, true).await?;
    }
}

/// Connects again. Who follows waits for ever, and is told if it takes longer than a moment.
pub(super) async fn reconnect(
    context: &Context,
    client: &Client<'_>,
    follows: bool,
) -> Result<(), CliError> {
    let connected = client.connect_again(A_MOMENT).await;
    if connected.is_ok() || !follows {
        return connected;
    }
    context.output.say_warning("the daemon is gone; waiting for it (Ctrl-C ends this)");
    client.connect_again(FOR_EVER).await?;
    context.output.say("the daemon is back");
    Ok(())
}

async fn follow(
    client: &Client<'_>,
    request: v1::StatusRequest,
    chosen: &Chosen,
    screen: &mut Screen<'_>,
) -> Result<Exit, CliError> {
    let mut stream = client.watch(request).await.map_err(|error| chosen.explain(error))?;
    loop {
        match stream.message().await {
            Ok(Some(status)) => {
                chosen.check(&status.projects)?;
                screen.show(&status)?;
            }
            Ok(None) => return Err(CliError::Broken("the daemon ended".into())),
            Err(status) if is_broken(&status) => {
                return Err(CliError::Broken(status.message().to_owned()));
            }
            Err(status) => return Err(chosen.explain(client.explain(status))),
        }
    }
}

struct Screen<'a> {
    context: &'a Context,
    detail: Detail,
    json: bool,
    canvas: Canvas,
    /// The last line of each component, so that only changes are appended.
    seen: BTreeMap<(String, String), String>,
}

impl Screen<'_> {
    fn show(&mut self, status: &v1::StatusResponse) -> Result<(), CliError> {
        let output = &self.context.output;
        if self.json {
            return output.json_line(status);
        }
        let now = self.context.now();
        if output.live {
            let text = status_table::render(status, self.detail, now, output.look);
            return self.canvas.draw(output, &text);
        }
        for component in &status.components {
            let name = words::name_of(component);
            let line = change(component);
            let key = (component.project.clone(), name.clone());
            if self.seen.get(&key) != Some(&line) {
                let at = words::local_time(&now.to_string());
                output.line(&format!("{at}  {}/{name}  {line}", component.project))?;
                self.seen.insert(key, line);
            }
        }
        Ok(())
    }
}

/// What is told of a component in a line.
pub(super) fn change(component: &v1::Component) -> String {
    let mut line = words::state(component);
    if component.state == "running" && !component.ready {
        line.push_str(", not ready");
    }
    if let Some(pid) = component.pid {
        let _ = write!(line, ", process {pid}");
    }
    let trouble = matches!(component.state.as_str(), "unhealthy" | "restarting" | "failed");
    if let Some(error) = component.last_error.as_ref().filter(|_| trouble) {
        line.push_str(": ");
        line.push_str(error.message.lines().next().unwrap_or_default());
    }
    line
}
