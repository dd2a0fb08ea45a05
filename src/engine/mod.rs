//! The engine: the process that decides. The keeper starts it, and starts it again when it dies.
//!
//! ```text
//!   keeper's socket (fd 3) ─▶ acquaintance: what runs, what is held
//!   store ─▶ snapshot ───────▶ supervisor ─▶ handle ─┬─▶ service on the control socket
//!                                                     └─▶ watch of manifests
//!   "ready" to whoever started the daemon
//! ```
//!
//! One thread runs everything but the reading of files. The control socket is held by the keeper: while
//! no engine lives, clients wait in its queue rather than being refused.
//!
//! Failure paths
//! - It cannot start (the state is of a newer stigmer): it says why to whoever waits for the daemon. With
//!   nothing running, the daemon ends; otherwise the keeper tries again, and everything runs on.
//! - The keeper dies, also while this process starts: it executes a new keeper in its own place, which
//!   starts a new engine.
//! - It is killed: nothing is lost, see `supervisor::boot`.

mod memory;
mod ready;
mod socket;
mod tell;

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::api::server;
use crate::api::service::Service;
use crate::api::v1::stigmer_server::StigmerServer;
use crate::container::{self, address::Surroundings};
use crate::crash;
use crate::home::{Home, HomeError};
use crate::keeper::wire::ToKeeper;
use crate::keeper::{KeeperClient, KeeperConfig};
use crate::logs::{LogWatcher, system_clock};
use crate::runner::sockets::Sockets;
use crate::sources;
use crate::store::{LAYOUT, Opened, Store, StoreError, backup, checkpoint};
use crate::supervisor::{Acquaintance, Ended, Foundation, Lifetime, Supervisor};
use ready::Ready;

/// Set by whoever starts a daemon that is to end with its last project.
pub const LIFETIME_VARIABLE: &str = "STIGMER_LIFETIME";

/// The value of [`LIFETIME_VARIABLE`] for such a daemon.
pub const LIFETIME_PROJECTS: &str = "projects";

/// How long open streams may take to end with the daemon.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why an engine cannot work.
#[derive(Debug, thiserror::Error)]
enum EngineError {
    #[error("cannot use the connection to the keeper: {0}")]
    Keeper(#[source] io::Error),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Socket(#[from] server::SocketError),
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
}

/// `stigmer __engine`: lives as an engine.
#[must_use]
pub fn main() -> ExitCode {
    crash::begin(crash::Role::Engine);
    // Without a home there is no log to be kept short, and the engine says so soon enough.
    tell::set_up(Home::from_environment().map(|home| home.daemon_log()).unwrap_or_default());
    // The database and what lies beside it are for this user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    crate::blocking::prepare();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(EngineError::Runtime);
    let sockets = Sockets::default();
    let outcome = runtime.and_then(|runtime| {
        let outcome = runtime.block_on(live(sockets.clone()));
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(Ended::InOrder) => ExitCode::SUCCESS,
        Ok(Ended::KeeperLost) => become_keeper(&sockets),
        Err(error) => {
            tracing::error!("the engine ends: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn live(sockets: Sockets) -> Result<Ended, EngineError> {
    let keeper = KeeperClient::inherited().map_err(EngineError::Keeper)?;
    let home = Home::from_environment()?;
    let mut acquaintance = match Acquaintance::make(keeper, &home).await {
        Ok(acquaintance) => acquaintance,
        Err(error) if is_end(&error) => return Ok(Ended::KeeperLost),
        Err(error) => return Err(EngineError::Keeper(error)),
    };
    crash::point("acquainted");
    let ready = Ready::take(&mut acquaintance);
    let keeper = acquaintance.keeper().clone();
    let has_runs = acquaintance.has_runs();
    match start(acquaintance, home, sockets) {
        Ok(engine) => {
            ready.say_ready();
            // A keeper that is about to go is noticed by the supervisor.
            drop(keeper.send(&ToKeeper::AtWork, &[]));
            Ok(engine.run().await)
        }
        Err(error) => {
            ready.say_failed(&error.to_string());
            if has_runs {
                return Err(error);
            }
            tracing::error!("the daemon ends: {error}");
            drop(keeper.send(&ToKeeper::Shutdown, &[]));
            keeper.sent().await;
            Ok(Ended::InOrder)
        }
    }
}

/// Whether an error means that the keeper is gone, rather than that it cannot be understood.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | BrokenPipe | ConnectionReset | NotConnected)
}

/// An engine that is at work.
struct Engine {
    supervisor: Supervisor,
    logs: LogWatcher,
    home: Home,
    close: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<()>,
}

/// Puts it together. Spawns tasks, so it must be called inside of the runtime.
fn start(acquaintance: Acquaintance, home: Home, sockets: Sockets) -> Result<Engine, EngineError> {
    home.prepare()?;
    let (store, opened) = Store::open(&home.database())?;
    match opened {
        Opened::Replaced { kept } => tracing::error!(
            "the state was damaged; it is kept as {}, and a new one has been begun",
            kept.display()
        ),
        Opened::Restored { from, kept } => tracing::error!(
            "the state was {}; the last good copy, {}, has taken its place",
            kept.map_or("gone".into(), |kept| format!(
                "damaged, and is kept as {}",
                kept.display()
            )),
            from.display()
        ),
        Opened::Migrated { from, kept } => tracing::info!(
            "the state was brought from layout {from} to {LAYOUT}; as it was, it is kept as {}",
            kept.display()
        ),
        Opened::Fresh | Opened::Existing => {}
    }
    tokio::spawn(backup::keep(home.database(), store.committed()));
    tokio::spawn(checkpoint::keep(home.database(), store.committed()));
    let snapshot = store.load()?;
    crash::point("loaded");
    let listener = socket::listen(&acquaintance, &home)?;
    crash::point("listening");
    let logs = LogWatcher::start(system_clock());
    let containers = container::Engine::new(home.identity()?, Surroundings::of_process());
    let (reloads, reloads_out) = mpsc::unbounded_channel();
    let lifetime = match std::env::var(LIFETIME_VARIABLE) {
        Ok(word) if word == LIFETIME_PROJECTS => Lifetime::Projects,
        Ok(_) | Err(_) => Lifetime::Unlimited,
    };
    let foundation = Foundation {
        home: home.clone(),
        store,
        snapshot,
        logs: logs.clone(),
        containers: containers.clone(),
        reloads,
        sockets,
        lifetime,
    };
    let (supervisor, handle) = Supervisor::boot(acquaintance, foundation);
    tokio::spawn(sources::watch(handle.clone(), reloads_out));
    let (asked, asked_out) = watch::channel(0);
    tokio::spawn(memory::tidy(handle.changes.clone(), asked_out));
    let service = Service::new(handle, home.clone(), logs.clone(), asked);
    let service = StigmerServer::new(service);
    let (close, closed) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let served = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(server::incoming(listener), async {
                // A sender that is gone says the same.
                drop(closed.await);
            })
            .await;
        if let Err(error) = served {
            tracing::error!("the control socket is not served any more: {error}");
        }
    });
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        "the engine is at work"
    );
    Ok(Engine { supervisor, logs, home, close, server })
}

impl Engine {
    async fn run(self) -> Ended {
        let Self { supervisor, logs, home, close, server } = self;
        let ended = supervisor.run().await;
        if ended == Ended::InOrder {
            // Whoever waits for the end is told before the socket goes.
            let _ = close.send(());
            let _ = tokio::time::timeout(LAST_WORDS, server).await;
            let _ = tokio::time::timeout(LAST_WORDS, logs.close()).await;
            let _ = std::fs::remove_file(home.socket());
            tracing::info!("the daemon ends");
        }
        ended
    }
}

/// The keeper is gone, and all components are alive: a new keeper takes them over.
fn become_keeper(sockets: &Sockets) -> ExitCode {
    tracing::warn!("the keeper is gone; this process becomes a new one");
    let home = match Home::from_environment() {
        Ok(home) => home,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let config =
        KeeperConfig { adopt: true, held: sockets.hand_over(), ..KeeperConfig::for_home(&home) };
    let mut tried = io::Error::from(io::ErrorKind::NotFound);
    // This very program, whatever has become of its file: another one comes only by an upgrade. The
    // file is for a machine without /proc.
    let installed = std::env::current_exe().ok();
    for program in std::iter::once("/proc/self/exe".into()).chain(installed) {
        tried = Command::new(program).arg0("stigmer").args(config.to_arguments()).exec();
    }
    tracing::error!("cannot execute a new keeper: {tried}");
    ExitCode::FAILURE
}
