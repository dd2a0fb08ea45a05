//! The one task that owns the fleet: the only loop. Inputs in, effects out.
//!
//! ```text
//!   keeper ─┐                                   ┌─ 1. store (one transaction for the whole round)
//!   runner ─┼─▶ Input ─▶ round: drain, step ────┼─ 2. effects to the runner
//!   api ────┤                                   └─ 3. events to the log, to followers; replies
//!   sources ┘
//! ```
//!
//! A round takes all inputs that are there (a storm of exits is one transaction; ends from which nothing
//! follows may wait, see `ends`), lets the fleet step through them, writes what changed, and only then
//! acts: what runs is never unknown to the store (S38). The loop sleeps until the next input or the
//! earliest deadline, whichever comes first.
//!
//! Invariants: nobody else touches the fleet; an arm of the loop only translates; nothing in a round
//! waits for anything.
//!
//! Failure paths
//! - The store cannot be written (disk full): supervision goes on, the condition is kept in
//!   `store_error` and said, and changes of what is declared are refused until it can be written again.
//! - The keeper is gone: the loop ends with [`Ended::KeeperLost`], and the engine becomes a new keeper.
//!
//! - Nothing is declared any more, and the daemon was started by an `apply`: it ends.
//!
//! Deliberately absent: manifests' text (it is loaded elsewhere, because that takes time), rendering,
//! sockets.

mod alarm;
mod announce;
mod boot;
mod converging;
mod ends;
mod leaving;
mod record;
mod round;
mod succession;
mod telling;
mod writing;

pub use announce::{Announcer, Events};
pub use boot::{Acquaintance, Foundation, Held};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::now;
use crate::home::Home;
use crate::keeper::client::KeeperClient;
use crate::keeper::wire::{FromKeeper, ToKeeper, Welcome};
use crate::logs::LogWatcher;
use crate::machine::{Action, Effect, Fleet};
use crate::model::spec::ComponentSpec;
use crate::model::{InstanceId, Time};
use crate::plan::Plan;
use crate::runner::Report;
use crate::runner::effects::Runner;
use crate::runner::launch::BaseEnv;
use crate::store::{EventFilter, EventRecord, ProjectRecord, RowId, Store, StoreError};

use alarm::Alarm;
use ends::Ends;
use leaving::Leaving;
pub use record::{LoadFailure, LoadedProject, Project, Projects};
use succession::Succession;
use writing::Unwritten;

/// How long a daemon without projects waits for the apply that started it.
const FIRST_APPLY: Duration = Duration::from_secs(30);

/// How long it stays for those who ask what became of the last project.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Everything that reaches the supervisor.
#[derive(Debug)]
pub enum Input {
    /// The keeper says something, perhaps with a descriptor beside it.
    Keeper(FromKeeper, Option<OwnedFd>),
    /// The runner has something to say.
    Report(Report),
    /// The interface asks something.
    Request(Request),
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
        /// What the manifest says.
        loaded: Box<LoadedProject>,
        /// Only plan.
        dry_run: bool,
        /// The plan, once it is under way.
        reply: oneshot::Sender<Result<Applied, Refusal>>,
    },
    /// The manifest of a project was read again.
    Reload {
        /// The project's name.
        project: String,
        /// Its generation at that time. What was read with another's variables is not used.
        generation: u64,
        /// What the manifest says, or why it cannot be loaded.
        outcome: Result<Box<LoadedProject>, Box<LoadFailure>>,
        /// The plan, once it is under way.
        reply: oneshot::Sender<Result<Applied, Refusal>>,
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
    /// Stop everything of these projects, in reverse order, and forget them.
    Down {
        /// Their names.
        projects: Vec<String>,
        /// Also what the volumes of their containers hold.
        volumes: bool,
        /// What is being ended.
        reply: oneshot::Sender<Vec<InstanceId>>,
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
    /// Show what the keeper would hand over to another program.
    Rehearse {
        /// A memory that holds it, or why not.
        reply: oneshot::Sender<Result<OwnedFd, String>>,
    },
    /// Replace the daemon by another program. With success the engine ends.
    Replace {
        /// Its absolute path.
        program: PathBuf,
        /// Why nothing was replaced.
        reply: oneshot::Sender<String>,
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
    pub now: Time,
    /// Who the keeper is.
    pub keeper: &'a Welcome,
    /// Who carries things out.
    pub runner: &'a Runner,
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
    /// The project was applied anew while its manifest was read.
    Stale,
    /// The daemon is ending.
    Ending,
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
    pub events: Announcer,
    /// Counts up with every round that changed something.
    pub changes: watch::Receiver<u64>,
    /// The projects, told anew when one of them changes.
    pub projects: watch::Receiver<Projects>,
}

/// The supervisor.
pub struct Supervisor {
    fleet: Fleet,
    store: Store,
    runner: Runner,
    keeper: Arc<KeeperClient>,
    welcome: Welcome,
    logs: LogWatcher,
    home: Home,
    projects: BTreeMap<String, Project>,
    projects_out: watch::Sender<Projects>,
    /// SIGHUP: all manifests are to be read again.
    reloads: mpsc::UnboundedSender<()>,
    base_envs: BTreeMap<Arc<str>, BaseEnv>,
    /// Projects whose plan the last engine has not carried out to its end, and this one has not taken up yet.
    unfinished: BTreeSet<String>,
    /// What the store does not have yet.
    unwritten: Unwritten,
    /// The store knows that the states in it are of this boot.
    boot_is_noted: bool,
    /// Projects that are forgotten once their last component is gone.
    leaving: BTreeMap<String, Leaving>,
    inputs: mpsc::UnboundedReceiver<Input>,
    reports: mpsc::UnboundedReceiver<Report>,
    events: Announcer,
    changes: watch::Sender<u64>,
    store_error: Option<String>,
    /// The specs that the store holds, and where.
    stored: BTreeMap<InstanceId, (Arc<ComponentSpec>, RowId)>,
    /// All runs that were handed out have lower numbers, and the store knows it.
    stored_next_run: u64,
    succession: Succession,
    /// Probes whose turn it is, and that are not begun yet.
    probes: VecDeque<(InstanceId, Effect)>,
    /// Ends that can wait for others.
    ends: Ends,
    alarm: Alarm,
    ending: Ending,
    lifetime: Lifetime,
    had_projects: bool,
}

/// How long a daemon lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lifetime {
    /// Until it is told to end.
    Unlimited,
    /// For as long as something is declared: it was started by an `apply`.
    Projects,
}

/// Whether the daemon is ending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    No,
    /// Nothing is declared, and nobody will miss the daemon from then on.
    Idle(Time),
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

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.events.close();
    }
}

impl Supervisor {
    /// Runs until the daemon ends or the keeper is gone.
    pub async fn run(mut self) -> Ended {
        loop {
            self.consider_ending();
            if self.is_over() {
                self.catch_up_writing();
                drop(self.keeper.send(&ToKeeper::Shutdown, &[]));
                // Behind the acknowledgements of a thousand runs there may be no room for it at once.
                self.keeper.sent().await;
                return Ended::InOrder;
            }
            let Some(inputs) = self.next_inputs().await else {
                // The keeper has taken with it what it was not told is known; nobody tells it again.
                self.hear_all_ends();
                return Ended::KeeperLost;
            };
            self.round(inputs);
        }
    }

    /// Waits for the next input and takes everything else that is there already.
    async fn next_inputs(&mut self) -> Option<Vec<Input>> {
        let idle = match self.ending {
            Ending::Idle(until) => Some(until),
            Ending::No | Ending::Stopping => None,
        };
        // A disk does not say when it has room again.
        let others = idle.into_iter().chain(self.unwritten.again).chain(self.ends.due());
        let deadline = self.fleet.next_deadline().into_iter().chain(others).min();
        let mut inputs = Vec::new();
        let has_more = !self.probes.is_empty() || self.ends.are_complete(self.fleet.ending());
        if has_more {
            // Until the runtime has looked what else there is.
            tokio::task::yield_now().await;
        }
        tokio::select! {
            biased;
            message = self.keeper.recv() => match message {
                Ok(Some((message, descriptor))) => {
                    inputs.push(Input::Keeper(message, descriptor));
                }
                Ok(None) => return None,
                Err(error) => {
                    tracing::error!(%error, "the keeper cannot be understood");
                    return None;
                }
            },
            Some(report) = self.reports.recv() => inputs.push(Input::Report(report)),
            Some(input) = self.inputs.recv() => inputs.push(input),
            () = std::future::ready(()), if has_more => {}
            () = self.alarm.at(deadline) => {}
        }
        while let Ok(report) = self.reports.try_recv() {
            inputs.push(Input::Report(report));
        }
        while let Ok(input) = self.inputs.try_recv() {
            inputs.push(input);
        }
        Some(inputs)
    }

    /// A daemon that was started by an `apply` ends with the last project.
    fn consider_ending(&mut self) {
        let is_empty = self.projects.is_empty() && self.fleet.iter().next().is_none();
        self.ending = match self.ending {
            Ending::No if is_empty && self.lifetime == Lifetime::Projects => {
                // The first apply is still to come, or the last `down` is still being told about.
                let patience = if self.had_projects { LAST_WORDS } else { FIRST_APPLY };
                Ending::Idle(now() + patience)
            }
            Ending::Idle(_) if !is_empty => Ending::No,
            other => other,
        };
        self.had_projects |= !is_empty;
    }

    /// Whether everything that had to end before the daemon has ended.
    fn is_over(&self) -> bool {
        match self.ending {
            Ending::No => false,
            Ending::Idle(until) => until <= now(),
            Ending::Stopping => !self.fleet.iter().any(|(_, member)| member.is_live()),
        }
    }
}
