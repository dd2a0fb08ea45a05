//! The start of a supervisor: the store's memory meets what the keeper knows to be running.
//!
//! ```text
//!   store: Launching, Alive, Ending ... run 7 ─┐
//!                                              ├─▶ run 7: Launched | Exited | Gone | Lost
//!   keeper: RunState{7: running | ended} ──────┘   run 8, unknown to the store: killed
//! ```
//!
//! What the keeper holds is the truth about what runs. A run that it does not know was never launched,
//! or is a survivor of a keeper that was killed: its record tells, and the keeper adopts it. After
//! another boot nothing is adopted and nothing is signalled; everything that is wanted starts anew.
//!
//! A state that could not be written for some time, or that was lost and restored from a copy, knows an
//! older run of a component than the one that is alive. The run says in its record whose it is, and is
//! taken over. Only a run whose owner is not known at all is ended.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::alarm::Alarm;
use super::ends::Ends;
use super::round::Round;
use super::succession::Succession;
use super::{Announcer, Ending, Handle, Input, Lifetime, Project, Supervisor, Unwritten};
use crate::clock::now;
use crate::home::Home;
use crate::keeper::client::KeeperClient;
use crate::keeper::record;
use crate::keeper::wire::{Adopt, FromKeeper, RunPhase, RunState, ToKeeper, VERSION, Welcome};
use crate::logs::LogWatcher;
use crate::machine::{Answer, Change, Component, Fleet, FleetInput, Means};
use crate::model::{InstanceId, RunId, Time, Wanted};
use crate::runner::effects::Runner;
use crate::runner::helper::Helpers;
use crate::runner::launch::BaseEnv;
use crate::runner::sockets::Sockets;
use crate::store::{Snapshot, Store};

/// The keeper, and what it has told: the first thing that an engine needs.
#[derive(Debug)]
pub struct Acquaintance {
    keeper: Arc<KeeperClient>,
    welcome: Welcome,
    known: BTreeMap<RunId, RunState>,
    /// What the keeper holds for the engine.
    pub held: Held,
    /// What it asked for meanwhile, which it says once.
    orders: Vec<FromKeeper>,
}

impl Acquaintance {
    /// Makes friends with the keeper, and lets it adopt what a keeper before it has left behind.
    pub async fn make(keeper: KeeperClient, home: &Home) -> io::Result<Self> {
        keeper.send(&ToKeeper::Hello { version: VERSION }, &[])?;
        let welcome = welcome(&keeper).await?;
        let mut told = Self {
            keeper: Arc::new(keeper),
            welcome,
            known: BTreeMap::new(),
            held: Held::new(),
            orders: Vec::new(),
        };
        told.ask(home).await?;
        Ok(told)
    }

    /// What the keeper knows, after it has adopted whatever a keeper before it has left behind.
    async fn ask(&mut self, home: &Home) -> io::Result<()> {
        self.list().await?;
        let records = record::read_all(&home.records())?;
        // Whoever wrote them died with his keeper. One that is being written is of a run that is known.
        for (run, torn) in records.torn {
            if !self.known.contains_key(&run) {
                remove_record(&torn);
            }
        }
        let mut adopted = false;
        for left in records.complete {
            if self.known.contains_key(&left.run) {
                continue;
            }
            // Its number may be given again, if the state was lost as well.
            if left.boot_id != self.welcome.boot_id {
                remove_record(&home.records().join(record::file_name(left.run)));
                continue;
            }
            adopted = true;
            let adopt = Adopt {
                run: left.run,
                key: left.key,
                pid: left.identity.pid,
                inode: left.identity.inode,
                start_ticks: left.identity.start_ticks,
            };
            self.keeper.send(&ToKeeper::Adopt(adopt), &[])?;
        }
        if adopted {
            self.list().await?;
        }
        Ok(())
    }

    async fn list(&mut self) -> io::Result<()> {
        self.keeper.send(&ToKeeper::List, &[])?;
        self.known.clear();
        while let Some((message, descriptor)) = self.keeper.recv().await? {
            match message {
                FromKeeper::HeldFd { name } => self.held.extend(descriptor.map(|fd| (name, fd))),
                FromKeeper::RunState(state) => {
                    self.known.insert(state.run, *state);
                }
                FromKeeper::ListEnd => return Ok(()),
                // Asked for before this engine was there, and perhaps not carried out by the last one.
                FromKeeper::Terminate { .. } | FromKeeper::ReloadRequested => {
                    self.orders.push(message);
                }
                // Told again by the list itself.
                FromKeeper::Welcome(_)
                | FromKeeper::Spawned(_)
                | FromKeeper::SpawnFailed(_)
                | FromKeeper::Exited(_)
                | FromKeeper::Gone { .. }
                | FromKeeper::Estate
                | FromKeeper::NotReplaced { .. } => {}
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// The connection.
    #[must_use]
    pub fn keeper(&self) -> &Arc<KeeperClient> {
        &self.keeper
    }

    /// Whether anything runs, or has ended without an engine having heard of it.
    #[must_use]
    pub fn has_runs(&self) -> bool {
        !self.known.is_empty()
    }
}

/// What a supervisor stands on.
#[derive(Debug)]
pub struct Foundation {
    /// The folders.
    pub home: Home,
    /// The database.
    pub store: Store,
    /// What was read from it.
    pub snapshot: Snapshot,
    /// Watches the logs of components.
    pub logs: LogWatcher,
    /// The container engine.
    pub containers: crate::container::Engine,
    /// Told when all manifests are to be read again.
    pub reloads: mpsc::UnboundedSender<()>,
    /// What components listen on.
    pub sockets: Sockets,
    /// How long the daemon lives.
    pub lifetime: Lifetime,
}

/// Descriptors that the keeper holds for the engine, by name.
pub type Held = BTreeMap<String, OwnedFd>;

impl Supervisor {
    /// Takes over what runs. Must be called inside of a tokio runtime.
    #[must_use]
    pub fn boot(acquaintance: Acquaintance, foundation: Foundation) -> (Self, Handle) {
        let Foundation { home, store, snapshot, logs, containers, reloads, sockets, lifetime } =
            foundation;
        let Acquaintance { keeper, welcome, known, held, orders } = acquaintance;
        sockets.restore(held);

        let (reports_in, reports) = mpsc::unbounded_channel();
        let (inputs_in, inputs) = mpsc::unbounded_channel();
        for order in orders {
            drop(inputs_in.send(Input::Keeper(order, None)));
        }
        let events = Announcer::default();
        let (changes, changes_out) = watch::channel(0);
        let runner =
            Runner::new(keeper.clone(), containers, home.clone(), sockets, now(), reports_in);
        let projects: BTreeMap<String, Project> = snapshot
            .projects
            .iter()
            .map(|(name, record)| {
                let record = record.clone();
                (name.clone(), Project { record, error: None, error_at: None })
            })
            .collect();
        let (projects_out, projects_in) = watch::channel(Arc::new(projects.clone()));
        let handle = Handle {
            inputs: inputs_in,
            events: events.clone(),
            changes: changes_out,
            projects: projects_in,
        };
        let mut supervisor = Self {
            fleet: Fleet::new(next_run(snapshot.next_run, &known)),
            store,
            runner,
            keeper,
            base_envs: projects
                .iter()
                .map(|(name, project)| {
                    (name.as_str().into(), BaseEnv::new(project.record.base_env.clone()))
                })
                .collect(),
            had_projects: !projects.is_empty(),
            projects,
            projects_out,
            reloads,
            welcome,
            logs,
            home,
            unfinished: snapshot
                .projects
                .iter()
                .filter(|(_, record)| record.in_transit)
                .map(|(name, _)| name.clone())
                .collect(),
            unwritten: Unwritten::default(),
            boot_is_noted: false,
            leaving: BTreeMap::new(),
            inputs,
            reports,
            events,
            changes,
            store_error: None,
            stored: BTreeMap::new(),
            stored_next_run: 0,
            succession: Succession::default(),
            probes: VecDeque::new(),
            ends: Ends::default(),
            alarm: Alarm::new(),
            ending: Ending::No,
            lifetime,
        };
        supervisor.take_over(snapshot, &known);
        (supervisor, handle)
    }

    fn take_over(&mut self, snapshot: Snapshot, known: &BTreeMap<RunId, RunState>) {
        let at = now();
        let mut round = Round::default();
        for line in &snapshot.unreadable {
            tracing::error!("not understood in the state: {line}");
        }
        if snapshot.boot_id.as_deref() == Some(&*self.welcome.boot_id) {
            for (instance, spec, component) in snapshot.components {
                let mut component = component.restored(spec, at);
                if let Some(run) = lost_run(&instance, &component, known) {
                    tracing::warn!(%instance, %run, "running, and not in the state: taken over");
                    component = component.found_alive(run);
                    round.declare(&instance);
                }
                self.fleet.restore(&instance, component);
            }
            self.reconcile(at, known, &mut round);
            self.go_on_leaving(at, &mut round);
            let resumed = self.fleet.resume(at);
            round.gather(resumed);
        } else {
            // Times of another boot mean nothing, and nothing of it runs any more.
            let mut changes = Vec::new();
            for (instance, spec, component) in snapshot.components {
                let leaves = self
                    .projects
                    .get(&*instance.project)
                    .is_some_and(|project| project.record.leaving.is_some());
                match component.wish().wanted() {
                    Wanted::Running if !leaves => changes.push(Change::Create(instance, spec)),
                    // Stopped by a person, and still declared, or about to be forgotten.
                    Wanted::Running | Wanted::Stopped => {
                        round.declare(&instance);
                        self.fleet.restore(&instance, Component::new(spec, 0));
                    }
                }
            }
            self.feed(at, FleetInput::Apply(changes), &mut round);
            self.go_on_leaving(at, &mut round);
        }
        self.end_strangers(known);
        for (instance, _) in self.fleet.iter() {
            // A launch tries it once more, and says what is wrong with it.
            drop(self.home.prepare_log(instance));
            self.watch_log(instance);
        }
        self.find_sockets(known);
        // What was held for a component that is gone by now.
        self.close_sockets();
        self.finish(round);
    }

    /// Tells each component that has a run what became of it.
    fn reconcile(&mut self, at: Time, known: &BTreeMap<RunId, RunState>, round: &mut Round) {
        let mut runs: Vec<RunId> = Vec::new();
        for (instance, component) in self.fleet.iter() {
            match (component.run(), component.means()) {
                (Some(run), Some(Means::Keeper)) => runs.push(run),
                // Its engine knows, and is asked.
                (Some(run), Some(Means::Engine)) => self.runner.adopt(instance, run),
                // External components have runs that nobody knows of.
                (Some(_), Some(Means::Others) | None) | (None, _) => {}
            }
        }
        for run in runs {
            let Some(state) = known.get(&run) else {
                self.feed(at, FleetInput::Answer(run, Answer::Lost), round);
                continue;
            };
            if let RunPhase::Running = state.phase
                && let Some(owner) = self.fleet.owner(run)
            {
                tracing::info!(instance = %owner, pid = state.pid, "taken over");
            }
            let message = FromKeeper::RunState(Box::new(state.clone()));
            if let Some((run, answer)) = self.runner.told(&message) {
                self.feed(at, FleetInput::Answer(run, answer), round);
            }
        }
    }

    /// What components listen on, and the keeper does not hold, because it was killed with its engine.
    fn find_sockets(&self, known: &BTreeMap<RunId, RunState>) {
        for state in known.values().filter(|state| matches!(state.phase, RunPhase::Running)) {
            let Some(instance) = self.fleet.owner(state.run) else { continue };
            let Some(component) = self.fleet.get(instance) else { continue };
            let process = (state.pid, state.inode);
            self.runner.find_sockets(instance, component.spec(), process);
        }
    }

    /// Runs that nobody owns: their launch was asked for by an engine that died before it could write
    /// that down, or the state was lost. A second copy would be worse than a fresh start.
    fn end_strangers(&self, known: &BTreeMap<RunId, RunState>) {
        for (run, state) in known {
            if Helpers::is_helper(*run) || self.fleet.owner(*run).is_some() {
                continue;
            }
            let order = match &state.phase {
                RunPhase::Failed(_) => ToKeeper::Ack { run: *run },
                RunPhase::Ended(exited) if exited.empty => ToKeeper::Ack { run: *run },
                RunPhase::Ended(_) | RunPhase::Launching | RunPhase::Running => {
                    tracing::warn!(%run, key = state.key, "ending a run that nobody owns");
                    ToKeeper::KillTree { run: *run }
                }
            };
            drop(self.keeper.send(&order, &[]));
        }
    }
}

/// The run of an instance that is alive, where the state knows of an older one that is not, or of none.
/// The keeper may know the older one as well: what is left of it is removed when there is time for it.
fn lost_run(
    instance: &InstanceId,
    component: &Component,
    known: &BTreeMap<RunId, RunState>,
) -> Option<RunId> {
    let is_alive = |state: &RunState| match state.phase {
        RunPhase::Launching | RunPhase::Running => true,
        RunPhase::Failed(_) | RunPhase::Ended(_) => false,
    };
    // What the keeper does not start, it does not know either.
    let is_of_others = matches!(component.means(), Some(Means::Engine | Means::Others));
    if is_of_others || component.run().and_then(|run| known.get(&run)).is_some_and(is_alive) {
        return None;
    }
    let key = instance.to_string();
    let after = component.run().map_or(Bound::Unbounded, Bound::Excluded);
    let mut newer = known.range((after, Bound::Unbounded)).rev().map(|(_, state)| state);
    newer
        .find(|state| state.key == key && is_alive(state) && !Helpers::is_helper(state.run))
        .map(|state| state.run)
}

/// The number of the next run. What was launched while the state could not be written is not in it, and
/// the keeper, which starts no run twice, would answer for the old run.
fn next_run(stored: u64, known: &BTreeMap<RunId, RunState>) -> u64 {
    let of_components = known.keys().filter(|run| !Helpers::is_helper(**run));
    of_components.map(|run| run.0.saturating_add(1)).fold(stored, u64::max)
}

async fn welcome(keeper: &KeeperClient) -> io::Result<Welcome> {
    match keeper.recv().await? {
        Some((FromKeeper::Welcome(welcome), _)) => Ok(welcome),
        Some((other, _)) => Err(io::Error::other(format!("expected a welcome, got {other:?}"))),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// One that cannot be removed is met again by the next engine.
fn remove_record(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!("cannot remove {}: {error}", path.display());
    }
}
