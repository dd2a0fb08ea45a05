//! The gRPC service: a request in, a question to the supervisor, its answer out.
//!
//! ```text
//!   call ─▶ select (who is meant) ─▶ Request ─▶ supervisor
//!                                      └─▶ Look: a short look at what it owns, inside its loop
//!   stream ◀─ progress, logs, events ◀─ told of changes, never asking at intervals
//! ```
//!
//! Each stream is one task with a bounded channel: a client that does not read holds up only itself.
//!
//! Failure paths: a supervisor that is ending answers nothing more, which is UNAVAILABLE; streams end
//! with the client, with the supervisor, or when they are done.
//!
//! Deliberately absent: decisions. What may be done is up to the supervisor.

mod ask;
mod detail;
mod events;
mod exec;
mod goal;
mod logs;
mod pace;
mod progress;
mod reply;
mod upgrade;
mod usage;

use std::pin::Pin;

use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::v1::{self, stigmer_server};
use crate::home::Home;
use crate::logs::LogWatcher;
use crate::supervisor::Handle;
use crate::upgrade::{BUILD, Upgrader};

use reply::reply;
pub use reply::{BUILD_KEY, VERSION_KEY};

/// Counts up with every addition to the interface.
pub const API_REVISION: u32 = 5;

/// How many messages of a stream may wait for their reader.
const STREAM_BUFFERED: usize = 64;

/// The service.
#[derive(Clone, Debug)]
pub struct Service {
    handle: Handle,
    home: Home,
    logs: LogWatcher,
    upgrader: Upgrader,
    /// Counts the questions.
    asked: watch::Sender<u64>,
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Sender<T> = mpsc::Sender<Result<T, Status>>;

/// A stream that a task fills.
fn stream<T: Send + 'static, F: Future<Output = ()> + Send + 'static>(
    fill: impl FnOnce(Sender<T>) -> F,
) -> Messages<T> {
    let (sender, receiver) = mpsc::channel(STREAM_BUFFERED);
    tokio::spawn(fill(sender));
    Box::pin(ReceiverStream::new(receiver))
}

/// The file that this process executes; empty where that cannot be said.
fn program() -> String {
    let link = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    link.to_string_lossy().into_owned()
}

impl Service {
    /// A service over a supervisor. Every question counts `asked` up.
    #[must_use]
    pub fn new(handle: Handle, home: Home, logs: LogWatcher, asked: watch::Sender<u64>) -> Self {
        let upgrader = Upgrader::new(handle.clone(), home.clone());
        Self { handle, home, logs, upgrader, asked }
    }
}

#[tonic::async_trait]
impl stigmer_server::Stigmer for Service {
    async fn ping(
        &self,
        _: Request<v1::PingRequest>,
    ) -> Result<Response<v1::PingResponse>, Status> {
        let daemon = self.look(|world, _| super::view::daemon(world)).await?;
        Ok(reply(v1::PingResponse {
            version: daemon.version,
            api_revision: API_REVISION,
            pid: daemon.pid,
            engine_pid: daemon.engine_pid,
            started_at: daemon.started_at,
            build: BUILD.into(),
            program: program(),
        }))
    }

    type ApplyStream = Messages<v1::Progress>;

    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<Self::ApplyStream>, Status> {
        progress::apply(self, request.into_inner()).map(reply)
    }

    type ReloadStream = Messages<v1::Progress>;

    async fn reload(
        &self,
        request: Request<v1::ReloadRequest>,
    ) -> Result<Response<Self::ReloadStream>, Status> {
        progress::reload(self, request.into_inner()).map(reply)
    }

    type ControlStream = Messages<v1::Progress>;

    async fn control(
        &self,
        request: Request<v1::ControlRequest>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        progress::control(self, request.into_inner()).await.map(reply)
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        self.status_of(&request.into_inner()).await.map(reply)
    }

    type WatchStream = Messages<v1::StatusResponse>;

    async fn watch(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        progress::watch(self, request.into_inner()).await.map(reply)
    }

    async fn detail(
        &self,
        request: Request<v1::DetailRequest>,
    ) -> Result<Response<v1::DetailResponse>, Status> {
        detail::detail(self, request.into_inner()).await.map(reply)
    }

    type LogsStream = Messages<v1::LogLine>;

    async fn logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        logs::logs(self, request.into_inner()).await.map(reply)
    }

    type EventsStream = Messages<v1::Event>;

    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        events::events(self, request.into_inner()).await.map(reply)
    }

    async fn config(
        &self,
        request: Request<v1::ConfigRequest>,
    ) -> Result<Response<v1::ConfigResponse>, Status> {
        detail::config(self, request.into_inner()).await.map(reply)
    }

    type UpgradeStream = Messages<v1::UpgradeProgress>;

    async fn upgrade(
        &self,
        request: Request<v1::UpgradeRequest>,
    ) -> Result<Response<Self::UpgradeStream>, Status> {
        Ok(reply(upgrade::upgrade(self, request.into_inner())))
    }

    async fn exec(
        &self,
        request: Request<v1::ExecRequest>,
    ) -> Result<Response<v1::ExecResponse>, Status> {
        exec::exec(self, request.into_inner()).await.map(reply)
    }
}
