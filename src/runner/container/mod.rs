//! Containers as runs: one task for each, orders in, answers out.
//!
//! ```text
//!   Effect ─▶ Containers ─ Order ─▶ run::Task ─▶ container::Engine
//!                 ▲                    │ Answer
//!   Notice ─ hub ─┘                    ▼
//!   (events, up, down)              supervisor
//! ```
//!
//! The task of a run is the only one that acts on its container, one act after the other, so that the order
//! of what it tells is the order of what happened. What is known of the container (running, paused, healthy,
//! where it is reached) is shared with the probes, which need not ask the engine for it.
//!
//! Invariants: every container of this home belongs to a run that has a task, or is removed as soon as the
//! engine is there; a run's container is made once.
//!
//! Failure paths: an engine that is not there is told to every task (`Order::Gone`), which puts its component
//! in doubt; when it is back each looks again at its container, and whatever could not be launched is tried
//! at once (`Report::Provided`).

mod attended;
mod launch;
mod pen;
pub(super) mod probe;
mod run;
mod shared;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::Report;
use super::helper::Helpers;
use crate::container::{Engine, EngineError, Notice, What, provide, watch};
use crate::home::Home;
use crate::machine::Answer;
use crate::model::spec::ComponentSpec;
use crate::model::{ContainerId, InstanceId, RunId};
use crate::runner::launch::BaseEnv;

pub use pen::Pens;
pub use shared::Shared;

/// What the task of a run is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Something happened to the container.
    Happened(ContainerId, What),
    /// The engine is there (again): see what has become of the container.
    Look,
    /// The engine is not there.
    Gone(EngineError),
    /// The launch is not wanted any more.
    Withdraw,
    /// Begin the end: the stop command or signal.
    Terminate(Arc<ComponentSpec>),
    /// End it now.
    Kill,
    /// Send a signal.
    Signal(i32),
    /// Its limits have changed.
    Reconfigure(Arc<ComponentSpec>),
    /// Nothing of it matters any more.
    Forget,
}

/// A task of a run, from outside.
#[derive(Clone, Debug)]
struct Handle {
    instance: InstanceId,
    orders: mpsc::UnboundedSender<Order>,
    shared: Shared,
}

type Runs = Arc<Mutex<HashMap<RunId, Handle>>>;

/// All runs that are containers.
#[derive(Debug)]
pub struct Containers {
    engine: Engine,
    home: Home,
    helpers: Helpers,
    reports: mpsc::UnboundedSender<Report>,
    runs: Runs,
    pens: Pens,
    /// The watch of the engine, while it is needed.
    watching: Option<AbortHandle>,
}

/// What a task needs of its surroundings.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) engine: Engine,
    pub(super) home: Home,
    pub(super) helpers: Helpers,
    pub(super) reports: mpsc::UnboundedSender<Report>,
    pub(super) pen: pen::Pen,
    pub(super) instance: InstanceId,
    pub(super) run: RunId,
}

impl Containers {
    /// None yet; the engine is not touched before the first.
    #[must_use]
    pub fn new(
        engine: Engine,
        home: Home,
        helpers: Helpers,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Self {
        let (runs, pens) = (Runs::default(), Pens::default());
        Self { engine, home, helpers, reports, runs, pens, watching: None }
    }

    /// The engine.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Who writes the logs of containers.
    #[must_use]
    pub fn pens(&self) -> &Pens {
        &self.pens
    }

    /// Whether a run is a container.
    #[must_use]
    pub fn owns(&self, run: RunId) -> bool {
        lock(&self.runs).contains_key(&run)
    }

    /// Launches a run.
    pub fn launch(
        &mut self,
        instance: &InstanceId,
        run: RunId,
        spec: Arc<ComponentSpec>,
        base_env: BaseEnv,
    ) {
        let (task, shared) = self.task(instance, run);
        drop(shared);
        tokio::spawn(task.launch(spec, base_env));
    }

    /// Takes over a run of the engine before: sees what has become of it, and says so.
    pub fn adopt(&mut self, instance: &InstanceId, run: RunId) {
        let (task, shared) = self.task(instance, run);
        drop(shared);
        tokio::spawn(task.adopt());
    }

    fn task(&mut self, instance: &InstanceId, run: RunId) -> (run::Task, Shared) {
        self.need();
        let (orders, inbox) = mpsc::unbounded_channel();
        let shared = Shared::default();
        let handle = Handle { instance: instance.clone(), orders, shared: shared.clone() };
        lock(&self.runs).insert(run, handle);
        let place = Place {
            engine: self.engine.clone(),
            home: self.home.clone(),
            helpers: self.helpers.clone(),
            reports: self.reports.clone(),
            pen: self.pens.of(instance),
            instance: instance.clone(),
            run,
        };
        (run::Task::new(place, inbox, shared.clone()), shared)
    }

    /// Tells the task of a run. `false`: the run is no container.
    pub(super) fn tell(&self, run: RunId, order: Order) -> bool {
        let runs = lock(&self.runs);
        let Some(handle) = runs.get(&run) else { return false };
        // A task that has ended has nothing to do any more.
        drop(handle.orders.send(order));
        true
    }

    /// Nothing of a run matters any more.
    pub fn forget(&self, run: RunId) -> bool {
        let handle = lock(&self.runs).remove(&run);
        handle.is_some_and(|handle| {
            drop(handle.orders.send(Order::Forget));
            true
        })
    }

    /// What is known of a run's container.
    #[must_use]
    pub fn shared(&self, run: RunId) -> Option<Shared> {
        lock(&self.runs).get(&run).map(|handle| handle.shared.clone())
    }

    /// Removes what was made for the containers of a project, and says when that is done.
    pub fn clear(&mut self, project: String, volumes: bool) {
        let (engine, reports) = (self.engine.clone(), self.reports.clone());
        tokio::spawn(async move {
            let left = match provide::clear(&engine, &project, volumes).await {
                Ok(removed) => {
                    if !removed.is_empty() {
                        tracing::info!(project, "removed {}", removed.join(", "));
                    }
                    None
                }
                Err(error) => Some(error.to_string()),
            };
            drop(reports.send(Report::Cleared { project, left }));
        });
    }

    /// Whether any component is declared as a container: with none, the engine is left alone.
    pub fn expect(&mut self, any: bool) {
        if any {
            self.need();
        } else if lock(&self.runs).is_empty()
            && let Some(watching) = self.watching.take()
        {
            watching.abort();
            self.engine.rest();
        }
    }

    fn need(&mut self) {
        if self.watching.as_ref().is_some_and(|watching| !watching.is_finished()) {
            return;
        }
        let (notices, inbox) = mpsc::unbounded_channel();
        let hub = Hub {
            engine: self.engine.clone(),
            runs: self.runs.clone(),
            reports: self.reports.clone(),
        };
        let engine = self.engine.clone();
        let watching = tokio::spawn(async move {
            tokio::join!(watch::watch(engine, notices), hub.run(inbox));
        });
        self.watching = Some(watching.abort_handle());
    }
}

fn lock(runs: &Runs) -> MutexGuard<'_, HashMap<RunId, Handle>> {
    runs.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives notices to the tasks that they are about.
struct Hub {
    engine: Engine,
    runs: Runs,
    reports: mpsc::UnboundedSender<Report>,
}

impl Hub {
    async fn run(self, mut notices: mpsc::UnboundedReceiver<Notice>) {
        let mut was_down = false;
        while let Some(notice) = notices.recv().await {
            match notice {
                Notice::Event { run, id, what } => {
                    if let Some(handle) = lock(&self.runs).get(&run) {
                        drop(handle.orders.send(Order::Happened(id, what)));
                    }
                }
                Notice::Down(error) => {
                    was_down = true;
                    for handle in lock(&self.runs).values() {
                        drop(handle.orders.send(Order::Gone(error.clone())));
                    }
                }
                Notice::Up(listed) => {
                    for handle in lock(&self.runs).values() {
                        drop(handle.orders.send(Order::Look));
                    }
                    for (id, identity) in listed {
                        // A state that was lost may have begun to count anew.
                        let is_owned = lock(&self.runs)
                            .get(&identity.run)
                            .is_some_and(|handle| handle.instance == identity.instance);
                        if !is_owned {
                            tracing::warn!(
                                "removing the container {id} of {}, whose run nobody owns",
                                identity.instance
                            );
                            tokio::spawn(remove_stranger(self.engine.clone(), id));
                        }
                    }
                    if std::mem::take(&mut was_down) {
                        drop(self.reports.send(Report::Provided));
                    }
                }
            }
        }
    }
}

/// A second copy would be worse than a fresh start.
async fn remove_stranger(engine: Engine, id: ContainerId) {
    if let Err(error) = engine.remove(&id).await {
        tracing::error!("the container {id} cannot be removed: {error}");
    }
}

/// Where it is kept how far the log of a run has come.
fn cursor(home: &Home, run: RunId) -> io::Result<std::path::PathBuf> {
    let folder = home.container_logs();
    crate::home::private_folder(&folder).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(folder.join(run.to_string()))
}

impl Place {
    fn answer(&self, answer: Answer) {
        // The supervisor is gone when the daemon ends.
        drop(self.reports.send(Report::Answer(self.run, answer)));
    }
}
