//! A daemon without an engine: the service of the interface with answers that are made up, on a real
//! socket, in a thread of its own.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use stigmer::api::server;
use stigmer::api::v1::{self, stigmer_server};
use stigmer::home::Home;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

/// What the daemon says. Streams end after their last item, unless they are `endless`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    pub(crate) version: Option<&'static str>,
    pub(crate) status: v1::StatusResponse,
    /// Said in place of every answer.
    pub(crate) refusal: Option<Status>,
    pub(crate) progress: Vec<v1::Progress>,
    /// By component.
    pub(crate) details: BTreeMap<String, v1::ComponentDetail>,
    /// One list for each time that logs are asked for; the last one again and again.
    pub(crate) logs: Vec<Vec<v1::LogLine>>,
    pub(crate) events: Vec<v1::Event>,
    pub(crate) config: String,
    pub(crate) exec: v1::ExecResponse,
    /// Said in place of it.
    pub(crate) exec_refusal: Option<Status>,
    pub(crate) endless: bool,
}

/// How a command ended and what it said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) stderr: String,
}

/// A home folder, a project folder, and a daemon if there is one.
pub(crate) struct Scene {
    root: TempDir,
    asked: Arc<Mutex<Vec<String>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Scene {
    /// No daemon.
    pub(crate) fn empty() -> Self {
        let root = tempfile::Builder::new().prefix("stigmer-cli-").tempdir().unwrap();
        std::fs::create_dir(root.path().join("p")).unwrap();
        Self { root, asked: Arc::default(), stop: None, thread: None }
    }

    /// A daemon with these answers.
    pub(crate) fn with(answers: Answers) -> Self {
        let mut scene = Self::empty();
        let home = Home::at(&scene.home());
        home.prepare().unwrap();
        let socket = home.socket();
        let service = Fake { answers, asked: scene.asked.clone(), logs_asked: Arc::default() };
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        scene.thread = Some(thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let incoming = server::incoming(server::bind(&socket).unwrap());
                ready.send(()).unwrap();
                let serving = tonic::transport::Server::builder()
                    .add_service(stigmer_server::StigmerServer::new(service))
                    .serve_with_incoming(incoming);
                tokio::select! {
                    result = serving => result.unwrap(),
                    _ = stopped => {}
                }
            });
        }));
        is_ready.recv().unwrap();
        scene.stop = Some(stop);
        scene
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.root.path().join("h")
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.root.path().canonicalize().unwrap().join("p")
    }

    /// Writes stigmer.yaml into the folder in which commands are given.
    pub(crate) fn manifest(&self, text: &str) -> PathBuf {
        let path = self.folder().join("stigmer.yaml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A command, ready to be run.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stigmer"));
        command
            .args(arguments)
            .current_dir(self.folder())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("STIGMER_HOME", self.home())
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        Self::finish(self.command(arguments))
    }

    /// Runs a command that was changed to its end.
    pub(crate) fn finish(mut command: Command) -> Said {
        let output = command.output().unwrap();
        Said {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            bytes: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What the daemon was asked, in the words of `Debug`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A component that runs and is ready.
pub(crate) fn component(name: &str) -> v1::Component {
    v1::Component {
        project: "shop".into(),
        name: name.into(),
        kind: "process".into(),
        wanted: "running".into(),
        state: "running".into(),
        ready: true,
        pid: Some(42),
        uptime_seconds: Some(45.0),
        restarts: Some(v1::Restarts { limit: Some(10), ..v1::Restarts::default() }),
        probes: Some(v1::Probes::default()),
        ..v1::Component::default()
    }
}

/// A status of these components.
pub(crate) fn status(components: Vec<v1::Component>) -> v1::StatusResponse {
    v1::StatusResponse {
        schema_version: 1,
        daemon: Some(v1::Daemon {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: 1,
            engine_pid: 2,
            started_at: "2026-05-01T00:00:00Z".into(),
        }),
        projects: vec![v1::Project {
            name: "shop".into(),
            manifest: Some(v1::Manifest {
                path: "/shop/stigmer.yaml".into(),
                ..v1::Manifest::default()
            }),
            info: vec![
                v1::InfoLine { name: "Web".into(), value: "http://localhost".into() },
                v1::InfoLine { name: "Admin".into(), value: "http://localhost/admin".into() },
            ],
        }],
        components,
    }
}

/// The path of a manifest in text, for comparing.
pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}

struct Fake {
    answers: Answers,
    asked: Arc<Mutex<Vec<String>>>,
    logs_asked: Arc<Mutex<usize>>,
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Fake {
    fn hear<T: std::fmt::Debug>(&self, request: &Request<T>) -> Result<(), Status> {
        let mut text = String::new();
        write!(text, "{:?}", request.get_ref()).unwrap();
        assert!(request.metadata().contains_key("stigmer-version"));
        self.asked.lock().unwrap().push(text);
        self.answers.refusal.clone().map_or(Ok(()), Err)
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is what every call answers")]
    fn answer<T>(&self, message: T) -> Result<Response<T>, Status> {
        let mut response = Response::new(message);
        let version = self.answers.version.unwrap_or(env!("CARGO_PKG_VERSION"));
        response.metadata_mut().insert("stigmer-version", version.parse().unwrap());
        response.metadata_mut().insert("stigmer-build", stigmer::upgrade::BUILD.parse().unwrap());
        Ok(response)
    }

    fn stream<T: Send + Clone + 'static>(&self, items: &[T]) -> Messages<T> {
        use tokio_stream::StreamExt;
        let items = tokio_stream::iter(items.iter().cloned().map(Ok).collect::<Vec<_>>());
        if self.answers.endless {
            Box::pin(items.chain(tokio_stream::pending()))
        } else {
            Box::pin(items)
        }
    }
}

#[tonic::async_trait]
impl stigmer_server::Stigmer for Fake {
    async fn ping(
        &self,
        request: Request<v1::PingRequest>,
    ) -> Result<Response<v1::PingResponse>, Status> {
        self.hear(&request)?;
        self.answer(v1::PingResponse {
            version: self.answers.version.unwrap_or(env!("CARGO_PKG_VERSION")).into(),
            api_revision: 1,
            pid: 1,
            engine_pid: 2,
            started_at: "2026-05-01T00:00:00Z".into(),
            build: stigmer::upgrade::BUILD.into(),
            program: "/usr/bin/stigmer".into(),
        })
    }

    type ApplyStream = Messages<v1::Progress>;
    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<Self::ApplyStream>, Status> {
        self.hear(&request)?;
        self.answer(self.stream(&self.answers.progress))
    }

    type ReloadStream = Messages<v1::Progress>;
    async fn reload(
        &self,
        request: Request<v1::ReloadRequest>,
    ) -> Result<Response<Self::ReloadStream>, Status> {
        self.hear(&request)?;
        self.answer(self.stream(&self.answers.progress))
    }

    type ControlStream = Messages<v1::Progress>;
    async fn control(
        &self,
        request: Request<v1::ControlRequest>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        self.hear(&request)?;
        self.answer(self.stream(&self.answers.progress))
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        self.hear(&request)?;
        self.answer(self.answers.status.clone())
    }

    type WatchStream = Messages<v1::StatusResponse>;
    async fn watch(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.hear(&request)?;
        self.answer(self.stream(std::slice::from_ref(&self.answers.status)))
    }

    async fn detail(
        &self,
        request: Request<v1::DetailRequest>,
    ) -> Result<Response<v1::DetailResponse>, Status> {
        self.hear(&request)?;
        let names = request.into_inner().selector.unwrap_or_default().names;
        let components = names.iter().filter_map(|name| self.answers.details.get(name).cloned());
        self.answer(v1::DetailResponse { components: components.collect() })
    }

    type LogsStream = Messages<v1::LogLine>;
    async fn logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        self.hear(&request)?;
        let mut asked = self.logs_asked.lock().unwrap();
        let last = self.answers.logs.len().saturating_sub(1);
        let is_last = *asked >= last;
        let lines = self.answers.logs.get((*asked).min(last)).cloned().unwrap_or_default();
        *asked += 1;
        if is_last {
            return self.answer(self.stream(&lines));
        }
        // All but the last one break off.
        let broken = Status::unavailable("the daemon is ending");
        let items = lines.into_iter().map(Ok).chain([Err(broken)]);
        self.answer(Box::pin(tokio_stream::iter(items.collect::<Vec<_>>())) as Self::LogsStream)
    }

    type EventsStream = Messages<v1::Event>;
    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        self.hear(&request)?;
        self.answer(self.stream(&self.answers.events))
    }

    async fn config(
        &self,
        request: Request<v1::ConfigRequest>,
    ) -> Result<Response<v1::ConfigResponse>, Status> {
        self.hear(&request)?;
        self.answer(v1::ConfigResponse { yaml: self.answers.config.clone() })
    }

    type UpgradeStream = Messages<v1::UpgradeProgress>;
    async fn upgrade(
        &self,
        request: Request<v1::UpgradeRequest>,
    ) -> Result<Response<Self::UpgradeStream>, Status> {
        self.hear(&request)?;
        self.answer(self.stream(&[]))
    }

    async fn exec(
        &self,
        request: Request<v1::ExecRequest>,
    ) -> Result<Response<v1::ExecResponse>, Status> {
        self.hear(&request)?;
        self.answers.exec_refusal.clone().map_or(Ok(()), Err)?;
        self.answer(self.answers.exec.clone())
    }
}
