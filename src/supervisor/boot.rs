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

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, watch};

use super::round::Round;
use super::{EVENTS_BUFFERED, Ending, Handle, Manifests, Project, Supervisor};
use crate::home::Home;
use crate::keeper::client::KeeperClient;
use crate::keeper::record;
use crate::keeper::wire::{Adopt, FromKeeper, RunPhase, RunState, ToKeeper, VERSION, Welcome};
use crate::machine::{Answer, Change, Component, Fleet, FleetInput, Phase};
use crate::model::{RunId, Time};
use crate::runner::helper::Helpers;
use crate::runner::process::{BaseEnv, Runner, now};
use crate::store::{Snapshot, Store};

impl Supervisor {
    /// Makes friends with the keeper and takes over what runs.
    pub async fn boot(
        keeper: KeeperClient,
        home: Home,
        store: Store,
        snapshot: Snapshot,
        manifests: Box<dyn Manifests>,
    ) -> io::Result<(Self, Handle)> {
        let keeper = Arc::new(keeper);
        keeper.send(&ToKeeper::Hello { version: VERSION }, &[])?;
        let welcome = welcome(&keeper).await?;
        let known = known_runs(&keeper, &home, &welcome).await?;

        let (answers_in, answers) = mpsc::unbounded_channel();
        let (inputs_in, inputs) = mpsc::unbounded_channel();
        let (events, _) = broadcast::channel(EVENTS_BUFFERED);
        let (changes, changes_out) = watch::channel(0);
        let handle = Handle { inputs: inputs_in, events: events.clone(), changes: changes_out };
        let runner = Runner::new(keeper.clone(), home, now(), answers_in);
        let projects: BTreeMap<String, Project> = snapshot
            .projects
            .iter()
            .map(|(name, record)| {
                let record = record.clone();
                (name.clone(), Project { record, error: None, error_at: None })
            })
            .collect();
        let mut supervisor = Self {
            fleet: Fleet::new(snapshot.next_run),
            store,
            runner,
            keeper,
            base_envs: projects
                .iter()
                .map(|(name, project)| {
                    (name.as_str().into(), BaseEnv::new(project.record.base_env.clone()))
                })
                .collect(),
            projects,
            welcome,
            manifests,
            leaving: BTreeSet::new(),
            inputs,
            answers,
            events,
            changes,
            store_error: None,
            ending: Ending::No,
        };
        supervisor.take_over(snapshot, &known);
        Ok((supervisor, handle))
    }

    fn take_over(&mut self, snapshot: Snapshot, known: &BTreeMap<RunId, RunState>) {
        let at = now();
        let mut round = Round::default();
        for line in &snapshot.unreadable {
            tracing::error!("not understood in the state: {line}");
        }
        if snapshot.boot_id.as_deref() == Some(&*self.welcome.boot_id) {
            for (instance, spec, component) in snapshot.components {
                self.fleet.restore(&instance, component.restored(spec, at));
            }
            self.reconcile(at, known, &mut round);
            let resumed = self.fleet.resume(at);
            round.gather(resumed);
        } else {
            // Times of another boot mean nothing, and nothing of it runs any more.
            let changes = snapshot
                .components
                .into_iter()
                .filter(|(_, _, component)| {
                    component.wish().wanted() == crate::model::Wanted::Running
                })
                .map(|(instance, spec, _)| Change::Create(instance, spec))
                .collect();
            self.feed(at, FleetInput::Apply(changes), &mut round);
        }
        self.end_strangers(known);
        round.note_boot(&self.welcome.boot_id);
        self.finish(round);
    }

    /// Tells each component that has a run what became of it.
    fn reconcile(&mut self, at: Time, known: &BTreeMap<RunId, RunState>, round: &mut Round) {
        let runs: Vec<RunId> = self
            .fleet
            .iter()
            .filter(|(_, component)| !is_external(component))
            .filter_map(|(_, component)| component.run())
            .collect();
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

/// External components have runs that no keeper knows of.
fn is_external(component: &Component) -> bool {
    matches!(component.phase(), Phase::Alive(alive) if alive.run.is_external())
}

async fn welcome(keeper: &KeeperClient) -> io::Result<Welcome> {
    match keeper.recv().await? {
        Some((FromKeeper::Welcome(welcome), _)) => Ok(welcome),
        Some((other, _)) => Err(io::Error::other(format!("expected a welcome, got {other:?}"))),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// What the keeper knows, after it has adopted whatever a keeper before it has left behind.
async fn known_runs(
    keeper: &KeeperClient,
    home: &Home,
    welcome: &Welcome,
) -> io::Result<BTreeMap<RunId, RunState>> {
    let mut known = list(keeper).await?;
    let records = record::read_all(&home.records())?;
    let mut adopted = false;
    for left in records.complete {
        if known.contains_key(&left.run) || left.boot_id != welcome.boot_id {
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
        keeper.send(&ToKeeper::Adopt(adopt), &[])?;
    }
    if adopted {
        known = list(keeper).await?;
    }
    Ok(known)
}

async fn list(keeper: &KeeperClient) -> io::Result<BTreeMap<RunId, RunState>> {
    keeper.send(&ToKeeper::List, &[])?;
    let mut known = BTreeMap::new();
    while let Some((message, _)) = keeper.recv().await? {
        match message {
            FromKeeper::RunState(state) => {
                known.insert(state.run, *state);
            }
            FromKeeper::ListEnd => return Ok(known),
            // Told again by the list itself.
            FromKeeper::Welcome(_)
            | FromKeeper::Spawned(_)
            | FromKeeper::SpawnFailed(_)
            | FromKeeper::Exited(_)
            | FromKeeper::Gone { .. }
            | FromKeeper::HeldFd { .. }
            | FromKeeper::Terminate { .. }
            | FromKeeper::ReloadRequested => {}
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}
