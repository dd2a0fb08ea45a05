//! The daemon, as commands see it.
//!
//! A socket that is absent or refuses means that there is no daemon. While an engine is replaced the
//! keeper holds the socket open and a connection waits in its queue: a call has ten seconds. A call
//! that only reads is made again, for five seconds, when the connection breaks under it.
//!
//! Every request carries our version; a daemon of another version or build is told of once, on stderr,
//! with the command that replaces it.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use super::error::CliError;
use super::output::Output;
use crate::api::service::{BUILD_KEY, VERSION_KEY};
use crate::api::{server, v1};
use crate::home::Home;
use crate::upgrade::BUILD;

/// How long a call may wait for its answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// For how long a call that only reads is tried again.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// This program's version.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

type Interceptor = fn(Request<()>) -> Result<Request<()>, Status>;
type Stub = v1::stigmer_client::StigmerClient<InterceptedService<Channel, Interceptor>>;

/// A connection to the daemon of a home.
pub(super) struct Client<'a> {
    home: &'a Home,
    output: &'a Output,
    stub: RefCell<Stub>,
    /// The daemon's version, once an answer told it.
    version: RefCell<Option<String>>,
    /// The difference of versions has been told.
    told: Cell<bool>,
}

impl<'a> Client<'a> {
    /// Connects.
    pub(super) async fn connect(home: &'a Home, output: &'a Output) -> Result<Self, CliError> {
        let stub = RefCell::new(dial(&home.socket()).await?);
        Ok(Self { home, output, stub, version: RefCell::new(None), told: Cell::new(false) })
    }

    /// Connects anew after the connection broke, waiting until somebody answers, for at most
    /// `patience`.
    pub(super) async fn connect_again(&self, patience: Duration) -> Result<(), CliError> {
        let deadline = Instant::now() + patience;
        loop {
            match dial(&self.home.socket()).await {
                Ok(stub) => {
                    *self.stub.borrow_mut() = stub;
                    return Ok(());
                }
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Who is there.
    pub(super) async fn ping(&self) -> Result<v1::PingResponse, CliError> {
        self.read(|mut stub| async move { stub.ping(v1::PingRequest {}).await }).await
    }

    /// What is.
    pub(super) async fn status(
        &self,
        request: &v1::StatusRequest,
    ) -> Result<v1::StatusResponse, CliError> {
        self.read(|mut stub| {
            let request = request.clone();
            async move { stub.status(request).await }
        })
        .await
    }

    /// Components in full.
    pub(super) async fn detail(
        &self,
        request: &v1::DetailRequest,
    ) -> Result<v1::DetailResponse, CliError> {
        self.read(|mut stub| {
            let request = request.clone();
            async move { stub.detail(request).await }
        })
        .await
    }

    /// The manifest in force.
    pub(super) async fn config(&self, selector: &v1::Selector) -> Result<String, CliError> {
        let answer = self
            .read(|mut stub| {
                let request = v1::ConfigRequest { selector: Some(selector.clone()) };
                async move { stub.config(request).await }
            })
            .await?;
        Ok(answer.yaml)
    }

    /// Where and how a command runs. Secrets are resolved for it, each of which may take a minute: there is no
    /// deadline but whoever waits.
    pub(super) async fn exec(
        &self,
        request: &v1::ExecRequest,
    ) -> Result<v1::ExecResponse, CliError> {
        self.read_within(None, |mut stub| {
            let request = request.clone();
            async move { stub.exec(request).await }
        })
        .await
    }

    /// Status, again and again.
    pub(super) async fn watch(
        &self,
        request: v1::StatusRequest,
    ) -> Result<Streaming<v1::StatusResponse>, CliError> {
        let mut stub = self.stub();
        self.open(stub.watch(request).await)
    }

    /// Applies a manifest.
    pub(super) async fn apply(
        &self,
        request: v1::ApplyRequest,
    ) -> Result<Streaming<v1::Progress>, CliError> {
        let mut stub = self.stub();
        self.open(stub.apply(request).await)
    }

    /// Reads manifests again.
    pub(super) async fn reload(
        &self,
        request: v1::ReloadRequest,
    ) -> Result<Streaming<v1::Progress>, CliError> {
        let mut stub = self.stub();
        self.open(stub.reload(request).await)
    }

    /// Tells components something.
    pub(super) async fn control(
        &self,
        request: v1::ControlRequest,
    ) -> Result<Streaming<v1::Progress>, CliError> {
        let mut stub = self.stub();
        self.open(stub.control(request).await)
    }

    /// Lines of logs.
    pub(super) async fn logs(
        &self,
        request: v1::LogsRequest,
    ) -> Result<Streaming<v1::LogLine>, CliError> {
        let mut stub = self.stub();
        self.open(stub.logs(request).await)
    }

    /// What happened.
    pub(super) async fn events(
        &self,
        request: v1::EventsRequest,
    ) -> Result<Streaming<v1::Event>, CliError> {
        let mut stub = self.stub();
        self.open(stub.events(request).await)
    }

    /// Replaces the daemon.
    pub(super) async fn upgrade(
        &self,
        request: v1::UpgradeRequest,
    ) -> Result<Streaming<v1::UpgradeProgress>, CliError> {
        let mut stub = self.stub();
        self.open(stub.upgrade(request).await)
    }

    /// What a failed call means.
    pub(super) fn explain(&self, status: Status) -> CliError {
        if is_broken(&status) {
            return CliError::Broken(innermost(&status));
        }
        match status.code() {
            Code::Unimplemented => CliError::Older { version: self.version.borrow().clone() },
            _ => CliError::Refused(Box::new(status)),
        }
    }

    fn stub(&self) -> Stub {
        self.stub.borrow().clone()
    }

    /// Makes a call that only reads, again while the connection breaks.
    async fn read<T, F>(&self, call: impl Fn(Stub) -> F) -> Result<T, CliError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.read_within(Some(DEADLINE), call).await
    }

    async fn read_within<T, F>(
        &self,
        deadline: Option<Duration>,
        call: impl Fn(Stub) -> F,
    ) -> Result<T, CliError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let patience = Instant::now() + PATIENCE;
        loop {
            let answer = match deadline {
                Some(deadline) => tokio::time::timeout(deadline, call(self.stub())).await.ok(),
                None => Some(call(self.stub()).await),
            };
            let Some(answer) = answer else {
                let log = self.home.daemon_log().display().to_string();
                return Err(CliError::Silent { log });
            };
            match answer {
                Err(status) if is_broken(&status) && Instant::now() < patience => {
                    tokio::time::sleep(PAUSE).await;
                    self.connect_again(PATIENCE).await?;
                }
                answer => return self.open(answer),
            }
        }
    }

    /// Notes the daemon's version and takes the answer out.
    fn open<T>(&self, answer: Result<Response<T>, Status>) -> Result<T, CliError> {
        let metadata = match &answer {
            Ok(response) => response.metadata(),
            Err(status) => status.metadata(),
        };
        let text = |key| metadata.get(key).and_then(|value| value.to_str().ok());
        if let Some(version) = text(VERSION_KEY) {
            self.note_version(version, text(BUILD_KEY));
        }
        answer.map(Response::into_inner).map_err(|status| self.explain(status))
    }

    /// Does not tell that the daemon is another one: the command is about that.
    pub(super) fn without_offer(self) -> Self {
        self.told.set(true);
        self
    }

    fn note_version(&self, version: &str, build: Option<&str>) {
        *self.version.borrow_mut() = Some(version.to_owned());
        if let Some(offer) = offer(version, build)
            && !self.told.replace(true)
        {
            self.output.say_warning(&offer);
        }
    }
}

/// What is told of a daemon that is not this program.
pub(super) fn offer(version: &str, build: Option<&str>) -> Option<String> {
    if version != VERSION {
        let text = if is_newer(version) {
            format!(
                "this is stigmer {VERSION}, older than the daemon ({version}); use the newer one"
            )
        } else {
            format!(
                "this is stigmer {VERSION}, the daemon is {version}; `stigmer upgrade` replaces it \
                 while everything runs on"
            )
        };
        return Some(text);
    }
    // A daemon that does not tell its build is of an older one.
    (build != Some(BUILD)).then(|| {
        format!(
            "the daemon is another build of stigmer {VERSION} than this; `stigmer upgrade` replaces \
             it by this one while everything runs on"
        )
    })
}

/// Whether another version comes after this one.
fn is_newer(version: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
    };
    numbers(version) > numbers(VERSION)
}

/// Connects, with some patience where many others wait already.
async fn knock(socket: &Path) -> Result<UnixStream, CliError> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let error = match server::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::WouldBlock if Instant::now() < deadline => {
                tokio::time::sleep(PAUSE).await;
            }
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                return Err(CliError::NoDaemon);
            }
            _ => return Err(CliError::Socket { socket: socket.to_owned(), source: error }),
        }
    }
}

async fn dial(socket: &Path) -> Result<Stub, CliError> {
    let mut first = Some(knock(socket).await?);
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let stream = first.take().map_or_else(|| server::connect(&path), Ok);
        async move { stream.map(TokioIo::new) }
    });
    // The address is of no meaning: the connector knows the socket.
    let channel = Endpoint::from_static("http://stigmer")
        .connect_with_connector(connector)
        .await
        .map_err(|error| CliError::Broken(error.to_string()))?;
    let stub =
        v1::stigmer_client::StigmerClient::with_interceptor(channel, with_version as Interceptor);
    Ok(stub.max_decoding_message_size(64 * 1024 * 1024))
}

#[expect(clippy::unnecessary_wraps, reason = "what tonic asks for")]
fn with_version(mut request: Request<()>) -> Result<Request<()>, Status> {
    request.metadata_mut().insert(VERSION_KEY, MetadataValue::from_static(VERSION));
    Ok(request)
}

/// Whether the call failed because the connection did, rather than by the daemon's answer.
pub(super) fn is_broken(status: &Status) -> bool {
    let from_transport = std::error::Error::source(status).is_some();
    from_transport || matches!(status.code(), Code::Unavailable | Code::Cancelled)
}

/// The last link of a chain of errors is what the kernel said.
fn innermost(status: &Status) -> String {
    let mut error: &dyn std::error::Error = status;
    while let Some(source) = error.source() {
        error = source;
    }
    match error.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => error.to_string(),
    }
}
