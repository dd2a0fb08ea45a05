//! The engine: how it is reached, whether it is there, and bounded requests to it.
//!
//! ```text
//!            ┌──────────── ping answers ───────────┐
//!            ▼                                     │
//!   Unknown / Down(why) ── connect ─▶ Up(version) ─┴─ a request finds nobody, or no answer ─▶ Down(why)
//! ```
//!
//! `watch` connects; every other request finds out by itself whether the engine is there, and says so to
//! all when it is not. A request never waits longer than its limit, so that an engine which hangs holds
//! up nobody but the container that is asked about.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::{ClientVersion, Docker};
use tokio::sync::watch;
use tokio::time::Instant;

use super::address::{Address, Found, Surroundings};
use super::error::EngineError;
use super::exec::Commands;
use super::raw;

/// A question that the engine answers from memory.
pub(super) const QUICK: Duration = Duration::from_secs(5);

/// Making, starting, removing: disks are involved.
pub(super) const SLOW: Duration = Duration::from_secs(60);

/// A sign of life that is older is asked for anew.
const FRESH: Duration = Duration::from_secs(5);

/// bollard's own limit, in seconds; ours are shorter, but for streams.
const CLIENT_LIMIT: u64 = 600;

/// The version of the interface that is asked for at most; an older engine's is negotiated.
const NEWEST: ClientVersion = ClientVersion { major_version: 1, minor_version: 48 };

/// Whether the engine is there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Link {
    /// Nobody has asked yet.
    #[default]
    Unknown,
    /// It answers.
    Up(Version),
    /// It does not, and why.
    Down(EngineError),
}

/// What the engine is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// Its product and version: `Docker 20.10.24`.
    pub name: String,
    /// The version of the interface: 1 and this.
    pub minor: usize,
}

/// The engine.
#[derive(Clone, Debug)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    home: String,
    surroundings: Surroundings,
    client: Mutex<Option<(Docker, Found)>>,
    link: watch::Sender<Link>,
    commands: Commands,
    /// Held while networks and volumes are made: an engine would make two networks of one name.
    providing: tokio::sync::Mutex<()>,
    /// When it last said anything.
    heard: Mutex<Option<Instant>>,
}

impl Engine {
    /// An engine that nobody has talked to yet. `home` is the identifier of the home folder.
    #[must_use]
    pub fn new(home: String, surroundings: Surroundings) -> Self {
        let (client, link) = (Mutex::new(None), watch::Sender::new(Link::Unknown));
        let (commands, heard) = (Commands::default(), Mutex::new(None));
        let providing = tokio::sync::Mutex::new(());
        Self(Arc::new(Inner { home, surroundings, client, link, commands, providing, heard }))
    }

    /// The right to make networks and volumes, which one has at a time.
    pub(super) async fn providing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.providing.lock().await
    }

    /// Commands inside of containers whose end is waited for.
    pub(super) fn commands(&self) -> &Commands {
        &self.0.commands
    }

    /// The identifier of the home folder, which marks what is ours.
    #[must_use]
    pub fn home(&self) -> &str {
        &self.0.home
    }

    /// Whether it is there, and news of that.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.0.link.subscribe()
    }

    /// Where it is, as far as that is known.
    #[must_use]
    pub fn place(&self) -> Option<Found> {
        self.client().as_ref().map(|(_, found)| found.clone())
    }

    /// Whether it runs on this machine, so that its processes are seen here.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.place().is_some_and(|found| matches!(found.address, Address::Unix(_)))
    }

    /// Waits until it is known whether the engine is there.
    ///
    /// # Errors
    /// It is not.
    pub async fn version(&self) -> Result<Version, EngineError> {
        let mut link = self.link();
        loop {
            match &*link.borrow_and_update() {
                Link::Up(version) => return Ok(version.clone()),
                Link::Down(error) => return Err(error.clone()),
                Link::Unknown => {}
            }
            // The sender lives as long as the engine does.
            if link.changed().await.is_err() {
                return Err(EngineError::unreachable("the daemon is ending"));
            }
        }
    }

    /// Connects anew.
    pub(super) async fn connect(&self) -> Result<Version, EngineError> {
        let outcome = self.negotiate().await;
        match &outcome {
            Ok(version) => self.0.link.send_replace(Link::Up(version.clone())),
            Err(error) => self.0.link.send_replace(Link::Down(error.clone())),
        };
        outcome
    }

    async fn negotiate(&self) -> Result<Version, EngineError> {
        let found =
            self.0.surroundings.find().map_err(|message| EngineError::unreachable(&message))?;
        let place = found.address.as_url();
        if let Address::Tls { certificates, .. } = &found.address {
            raw::check(certificates).map_err(|message| EngineError::certificates(&message))?;
        }
        let client =
            client(&found.address).map_err(|error| EngineError::of("connect", &place, &error))?;
        let negotiated = within(QUICK, "version", &place, client.negotiate_version()).await?;
        let said = within(QUICK, "version", &place, negotiated.version()).await?;
        let minor = negotiated.client_version().minor_version;
        let name = match said.components.as_deref() {
            // Docker's says no more of its name than this.
            Some([first, ..]) if first.name == "Engine" => format!("Docker {}", first.version),
            Some([first, ..]) => format!("{} {}", first.name, first.version),
            Some([]) | None => said.version.unwrap_or_default(),
        };
        *self.client() = Some((negotiated, found));
        Ok(Version { name, minor })
    }

    /// Asks something, within a limit.
    ///
    /// # Errors
    /// See [`EngineError`]. Where the engine itself is the trouble, the link goes down for all.
    pub(super) async fn ask<T, F>(
        &self,
        what: &'static str,
        limit: Duration,
        request: impl FnOnce(Docker) -> F,
    ) -> Result<T, EngineError>
    where
        F: Future<Output = Result<T, bollard::errors::Error>>,
    {
        let (client, place) = self.handle()?;
        let outcome = within(limit, what, &place, request(client)).await;
        match &outcome {
            // A refusal is a sign of life as well.
            Ok(_) | Err(EngineError::Refused { .. }) => self.heard(),
            // One container that hangs is not an engine that hangs.
            Err(EngineError::Silent { .. }) => drop(self.ping().await),
            Err(error) => self.suspect(error),
        }
        outcome
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// There is none; everybody knows by then.
    pub(super) async fn ping(&self) -> Result<(), EngineError> {
        let (client, place) = self.handle()?;
        let outcome = within(QUICK, "ping", &place, client.ping()).await;
        outcome.map(|_| self.heard()).inspect_err(|error| self.suspect(error))
    }

    /// Makes sure that what is known of it by its events can be relied on: it has given a sign of life
    /// just now, or gives one.
    ///
    /// # Errors
    /// It does not.
    pub async fn vouch(&self) -> Result<(), EngineError> {
        self.handle()?;
        let heard = *self.0.heard.lock().unwrap_or_else(PoisonError::into_inner);
        match heard {
            Some(at) if at.elapsed() < FRESH => Ok(()),
            Some(_) | None => self.ping().await,
        }
    }

    /// Whether it has said anything since then.
    #[must_use]
    pub fn has_spoken_since(&self, then: Instant) -> bool {
        let heard = *self.0.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.is_some_and(|at| at >= then)
    }

    /// Finds out beside everything else whether it is still there, for whoever could not wait for it.
    pub fn check(&self) {
        let engine = self.clone();
        tokio::spawn(async move { engine.ping().await });
    }

    /// It has said something.
    pub(super) fn heard(&self) {
        *self.0.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Nobody needs it any more: what is known of it is forgotten.
    pub fn rest(&self) {
        *self.client() = None;
        self.0.link.send_replace(Link::Unknown);
    }

    /// The client, for streams. Whoever uses it bounds its own waiting.
    pub(super) fn handle(&self) -> Result<(Docker, String), EngineError> {
        if let Link::Down(error) = &*self.0.link.borrow() {
            return Err(error.clone());
        }
        match &*self.client() {
            Some((client, found)) => Ok((client.clone(), found.address.as_url())),
            None => Err(EngineError::unreachable("nobody has connected to it yet")),
        }
    }

    /// Lets everybody know of an error that is the engine's.
    pub(super) fn suspect(&self, error: &EngineError) {
        if error.is_engine() {
            self.0.link.send_if_modified(|link| {
                let is_news = !matches!(link, Link::Down(_));
                if is_news {
                    *link = Link::Down(error.clone());
                }
                is_news
            });
        }
    }

    fn client(&self) -> std::sync::MutexGuard<'_, Option<(Docker, Found)>> {
        self.0.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn client(address: &Address) -> Result<Docker, bollard::errors::Error> {
    match address {
        Address::Unix(path) => {
            Docker::connect_with_unix(&path.to_string_lossy(), CLIENT_LIMIT, &NEWEST)
        }
        Address::Tcp(host) => {
            Docker::connect_with_http(&format!("http://{host}"), CLIENT_LIMIT, &NEWEST)
        }
        Address::Tls { host, certificates } => Docker::connect_with_ssl(
            &format!("https://{host}"),
            &certificates.join("key.pem"),
            &certificates.join("cert.pem"),
            &certificates.join("ca.pem"),
            CLIENT_LIMIT,
            &NEWEST,
        ),
    }
}

/// Performs a request within a limit.
pub(super) async fn within<T>(
    limit: Duration,
    what: &'static str,
    place: &str,
    request: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(limit, request).await {
        Ok(outcome) => outcome.map_err(|error| EngineError::of(what, place, &error)),
        Err(_) => Err(EngineError::Silent { what, limit }),
    }
}
