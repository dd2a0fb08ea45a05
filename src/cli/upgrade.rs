//! `stigmer upgrade`: this program takes the daemon's place, and everything runs on.
//!
//! ```text
//!   ask ─► the daemon tries the program out ─► it can take over ─► the connection breaks
//!            └ refused: said, nothing touched                        └ another engine answers: who is it?
//! ```
//!
//! What the daemon promised does not count; what the next one says of itself does.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::Instant;

use super::client::{Client, is_broken};
use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::progress::Format;
use crate::api::v1;
use crate::api::view::SCHEMA_VERSION;
use crate::upgrade::{BUILD, Identity};

/// How long the next engine may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Replace the running daemon by this program; everything runs on.
///
/// The program is tried out first, on a copy of the daemon's state; one that cannot take over is
/// refused, and nothing is touched. Processes, their parent and their exit codes, sockets, counters and
/// deadlines stay; who follows logs or events goes on without a gap.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  stigmer upgrade             after a new stigmer was installed
  stigmer upgrade --dry-run   only see whether it could

Exit codes: 0 done, or nothing to do; 1 refused, and nothing was touched; 4 no daemon.")]
pub(super) struct Upgrade {
    /// The program that takes over; otherwise this very one.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Only try it out.
    #[arg(long)]
    dry_run: bool,
    /// Also if the daemon is of this very build.
    #[arg(long)]
    force: bool,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Serialize)]
struct Document<'a> {
    schema_version: u32,
    upgraded: bool,
    dry_run: bool,
    from: &'a Identity,
    to: &'a Identity,
    daemon: &'a v1::PingResponse,
}

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Did {
    Nothing,
    TriedOut,
    Replaced,
}

impl Upgrade {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, CliError> {
        let client = context.client().await?.without_offer();
        let before = client.ping().await?;
        let old = identity(&before);
        // A program that is named may be any; this one is known.
        if self.program.is_none() && !self.force && before.build == BUILD {
            return self.tell(context, Did::Nothing, &old, &old, &before);
        }
        let program = self.program(context)?;
        let request = v1::UpgradeRequest { program, dry_run: self.dry_run };
        let new = promised(&client, request).await?;
        if self.dry_run {
            return self.tell(context, Did::TriedOut, &old, &new, &before);
        }
        let after = successor(&client, &before).await?;
        if identity(&after) != new {
            return Err(CliError::Daemon(format!(
                "stigmer {} was tried out with success and could not take over after all; the \
                 daemon is {} again, and everything runs on. {} says why",
                new.version,
                after.version,
                context.home.daemon_log().display()
            )));
        }
        self.tell(context, Did::Replaced, &old, &new, &after)
    }

    fn program(&self, context: &Context) -> Result<String, CliError> {
        let path = match &self.program {
            Some(path) => context.folder.join(path),
            None => std::env::current_exe().map_err(|source| CliError::Io {
                what: "cannot find the file of this program".into(),
                source,
            })?,
        };
        path.into_os_string().into_string().map_err(|path| {
            let path = PathBuf::from(path);
            CliError::Usage(format!("the path {} is no UTF-8", path.display()))
        })
    }

    fn tell(
        &self,
        context: &Context,
        did: Did,
        from: &Identity,
        to: &Identity,
        daemon: &v1::PingResponse,
    ) -> Result<Exit, CliError> {
        let output = &context.output;
        if self.output == Format::Json {
            let (schema_version, upgraded) = (SCHEMA_VERSION, did == Did::Replaced);
            let dry_run = self.dry_run;
            output.json(&Document { schema_version, upgraded, dry_run, from, to, daemon })?;
            return Ok(Exit::Done);
        }
        let who = |identity: &Identity| format!("{} (build {})", identity.version, identity.build);
        let text = match did {
            Did::Replaced => format!(
                "the daemon was {} and is {} now; everything runs on (keeper {}, engine {})",
                who(from),
                who(to),
                daemon.pid,
                daemon.engine_pid
            ),
            Did::TriedOut => {
                format!("{} can take over from {}; nothing was done", who(to), who(from))
            }
            Did::Nothing => format!("the daemon is {} already", who(from)),
        };
        output.line(&text)?;
        Ok(Exit::Done)
    }
}

fn identity(daemon: &v1::PingResponse) -> Identity {
    Identity { version: daemon.version.clone(), build: daemon.build.clone() }
}

/// Asks, and hears who takes over.
async fn promised(client: &Client<'_>, request: v1::UpgradeRequest) -> Result<Identity, CliError> {
    let dry_run = request.dry_run;
    let too_old = |error| match error {
        CliError::Older { version } => too_old(version.as_deref()),
        error => error,
    };
    let mut stream = client.upgrade(request).await.map_err(too_old)?;
    let silent = || CliError::Broken("it ended without an answer".into());
    let first = stream.message().await.map_err(|status| client.explain(status))?;
    let v1::UpgradeProgress { version, build } = first.ok_or_else(silent)?;
    if !dry_run {
        // The end of the engine is what we wait for; anything else it says is a refusal.
        match stream.message().await {
            Err(status) if !is_broken(&status) => return Err(client.explain(status)),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(Identity { version, build })
}

fn too_old(version: Option<&str>) -> CliError {
    let version = version.map_or_else(String::new, |version| format!(" ({version})"));
    CliError::Daemon(format!(
        "the daemon{version} is too old to be replaced while everything runs on; `stigmer down --all` \
         and `stigmer apply` replace it with a restart of everything"
    ))
}

/// The engine that answers next.
async fn successor(
    client: &Client<'_>,
    before: &v1::PingResponse,
) -> Result<v1::PingResponse, CliError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        client.connect_again(deadline.saturating_duration_since(Instant::now())).await?;
        match client.ping().await {
            Ok(after) if after.engine_pid != before.engine_pid => return Ok(after),
            Ok(_) | Err(CliError::Broken(_) | CliError::NoDaemon) if Instant::now() < deadline => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            answer => return answer,
        }
    }
}
