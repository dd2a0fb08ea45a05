//! The one task that owns the fleet: the only loop. Inputs in, effects out.
//!
//! ```text
//!   keeper ─┐                                   ┌─ 1. store (one transaction for the whole round)
//!   runner ─┼─▶ Input ─▶ round: drain, step ────┼─ 2. effects to the runner
//!   api ────┤                                   └─ 3. events to the log, to followers; replies
//!   sources ┘
//! ```
//!
//! A round takes all inputs that are there (a storm of exits is one transaction), lets the fleet step
//! through them, writes what changed, and only then acts: what runs is never unknown to the store
//! (S38). The loop sleeps until the next input or the fleet's earliest deadline, whichever comes first.
//!
//! Invariants: nobody else touches the fleet; an arm of the loop only translates; nothing in a round
//! waits for anything.
//!
//! Failure paths
//! - The store cannot be written (disk full): supervision goes on, the condition is kept in
//!   `store_error` and said, and changes of what is declared are refused until it can be written again.
//! - The keeper is gone: the loop ends with [`Ended::KeeperLost`], and the engine becomes a new keeper.
//!
//! Deliberately absent: manifests' text (a [`Manifests`] loads them), rendering, sockets.

mod boot;
mod record;
mod round;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::keeper::client::KeeperClient;
use crate::keeper::wire::{FromKeeper, ToKeeper, Welcome};
use crate::machine::{Action, Answer, Fleet};
use crate::model::InstanceId;
use crate::plan::Plan;
use crate::runner::process::{BaseEnv, Runner};
use crate::store::{EventFilter, EventRecord, ProjectRecord, Store, StoreError};

pub use record::{LoadFailure, LoadedProject, Manifests, Project};

/// How many events a follower may lag behind before it is told that it has missed some.
const EVENTS_BUFFERED: usize = 4_096;

/// Everything that reaches the supervisor.
#[derive(Debug)]
pub enum Input {
    /// The keeper says something.
    Keeper(FromKeeper),
    /// The runner reports about a run.
    Answer(crate::model::RunId, Answer),
    /// The interface asks something.
    Request(Request),
    /// The files of a project have changed, or SIGHUP came (`None`: all projects).
    Reload(Option<String>),
    /// The daemon is to end in order.
    Terminate,
}

/// What the interface may ask.
#[derive(Debug)]
pub enum Request {
    /// Apply a manifest.
    Apply {
        /// What is applied.
        record: Box<ProjectRecord>,
        /// Only plan.
        dry_run: bool,
        /// The plan, once it is under way.
        reply: oneshot::Sender<Result<Applied, Refusal>>,
    },
    /// Read the manifests of these projects again; empty means all.
    Reload {
        /// Names of projects.
        projects: Vec<String>,
        /// One answer a project.
        reply: oneshot::Sender<Vec<(String, Result<Applied, Refusal>)>>,
    },
    /// Tell these instances something.
    Control {
        /// What.
        action: Action,
        /// Whom.
        instances: Vec<InstanceId>,
        /// Once it is under way.
        reply: oneshot::Sender<()>,
    },
    /// Send a signal to the main processes of these instances.
    Signal {
        /// Its number.
        signal: i32,
        /// To whom.
        instances: Vec<InstanceId>,
        /// Those that had a process.
        reply: oneshot::Sender<Vec<InstanceId>>,
    },
    /// Look at everything. The closure runs inside the loop and must be short.
    Look(Look),
    /// Read the history.
    Events {
        /// Which part of it.
        filter: EventFilter,
        /// Oldest first.
        reply: oneshot::Sender<Result<Vec<EventRecord>, StoreError>>,
    },
}

/// A look at what the supervisor owns.
pub struct Look(pub Box<dyn FnOnce(&World<'_>) + Send>);

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Look")
    }
}

/// What can be looked at.
#[derive(Debug)]
pub struct World<'a> {
    /// All components.
    pub fleet: &'a Fleet,
    /// All projects.
    pub projects: &'a BTreeMap<String, Project>,
    /// The time of the look.
    pub now: crate::model::Time,
    /// Who the keeper is.
    pub keeper: &'a Welcome,
    /// Why the store cannot be written, if it cannot.
    pub store_error: Option<&'a str>,
}

/// An apply that is under way.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The project's name.
    pub project: String,
    /// What is being done.
    pub plan: Plan,
    /// What the loader has to say besides.
    pub warnings: Vec<String>,
}

/// An apply that was refused. Nothing was touched.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// The manifest cannot be loaded.
    Manifest(Box<LoadFailure>),
    /// Another manifest has the name.
    Taken {
        /// The project's name.
        project: String,
        /// The manifest that has it.
        by: std::path::PathBuf,
    },
    /// The store cannot be written, so nothing may be changed.
    Store(String),
    /// No such project.
    Unknown(String),
}

/// Why the loop has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// In order: everything was stopped, or there is nothing left to do.
    InOrder,
    /// The keeper is gone.
    KeeperLost,
}

/// A handle of the supervisor: send it requests, follow what happens.
#[derive(Clone, Debug)]
pub struct Handle {
    /// For inputs.
    pub inputs: mpsc::UnboundedSender<Input>,
    /// All events from now on.
    pub events: broadcast::Sender<Arc<EventRecord>>,
    /// Counts up with every round that changed something.
    pub changes: watch::Receiver<u64>,
}

/// The supervisor.
pub struct Supervisor {
    fleet: Fleet,
    store: Store,
    runner: Runner,
    keeper: Arc<KeeperClient>,
    welcome: Welcome,
    manifests: Box<dyn Manifests>,
    projects: BTreeMap<String, Project>,
    base_envs: BTreeMap<Arc<str>, BaseEnv>,
    /// Projects that are forgotten once their last component is gone.
    leaving: BTreeSet<String>,
    inputs: mpsc::UnboundedReceiver<Input>,
    answers: mpsc::UnboundedReceiver<(crate::model::RunId, Answer)>,
    events: broadcast::Sender<Arc<EventRecord>>,
    changes: watch::Sender<u64>,
    store_error: Option<String>,
    ending: Ending,
}

/// Whether the daemon is ending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    No,
    /// Everything is being stopped.
    Stopping,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor")
            .field("projects", &self.projects.keys())
            .finish_non_exhaustive()
    }
}

impl Supervisor {
    /// Runs until the daemon ends or the keeper is gone.
    pub async fn run(mut self) -> Ended {
        loop {
            if self.is_over() {
                drop(self.keeper.send(&ToKeeper::Shutdown, &[]));
                return Ended::InOrder;
            }
            let Some(inputs) = self.next_inputs().await else { return Ended::KeeperLost };
            self.round(inputs);
        }
    }

    /// Waits for the next input and takes everything else that is there already.
    async fn next_inputs(&mut self) -> Option<Vec<Input>> {
        let deadline = self.fleet.next_deadline().map(crate::runner::process::instant_of);
        let sleep = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let mut inputs = Vec::new();
        tokio::select! {
            message = self.keeper.recv() => match message {
                Ok(Some((message, _))) => inputs.push(Input::Keeper(message)),
                Ok(None) => return None,
                Err(error) => {
                    tracing::error!(%error, "the keeper cannot be understood");
                    return None;
                }
            },
            Some((run, answer)) = self.answers.recv() => inputs.push(Input::Answer(run, answer)),
            Some(input) = self.inputs.recv() => inputs.push(input),
            () = sleep => {}
        }
        while let Ok((run, answer)) = self.answers.try_recv() {
            inputs.push(Input::Answer(run, answer));
        }
        while let Ok(input) = self.inputs.try_recv() {
            inputs.push(input);
        }
        Some(inputs)
    }

    /// Whether everything that had to end before the daemon has ended.
    fn is_over(&self) -> bool {
        self.ending == Ending::Stopping && !self.fleet.iter().any(|(_, member)| member.is_live())
    }
}
