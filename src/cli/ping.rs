//! `stigmer ping`: who is there, and whether it is of our version.

use clap::Args;
use serde::Serialize;

use super::client::{VERSION, offer};
use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::progress::Format;
use super::words;
use crate::api::v1;
use crate::api::view::SCHEMA_VERSION;
use crate::upgrade::BUILD;

/// Ask whether the daemon answers, and which version it is of.
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 it answers; 1 it does not; 4 there is none.")]
pub(super) struct Ping {
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Serialize)]
struct Document<'a> {
    schema_version: u32,
    client: Client<'a>,
    daemon: &'a v1::PingResponse,
}

#[derive(Serialize)]
struct Client<'a> {
    version: &'a str,
    build: &'a str,
}

impl Ping {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let client = context.client().await?.without_offer();
        let daemon = client.ping().await?;
        if self.output == Format::Json {
            let client = Client { version: VERSION, build: BUILD };
            let document = Document { schema_version: SCHEMA_VERSION, client, daemon: &daemon };
            context.output.json(&document)?;
            return Ok(Exit::Done);
        }
        let output = &context.output;
        output.line(&format!("stigmer {VERSION}"))?;
        output.line(&format!(
            "daemon  {} (keeper {}, engine {}, since {})",
            daemon.version,
            daemon.pid,
            daemon.engine_pid,
            words::local_time(&daemon.started_at)
        ))?;
        if let Some(offer) = offer(&daemon.version, Some(&daemon.build)) {
            output.line(&offer)?;
        }
        Ok(Exit::Done)
    }
}
