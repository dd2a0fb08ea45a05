//! The runner: effects of the fleet in, answers of the keeper's out.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{OnceCell, mpsc};

use super::Report;
use super::active::Active;
use super::container::{Containers, Order};
use super::context::{Context, process_of, runs_commands};
use super::helper::Helpers;
use super::launch::{self, BaseEnv};
use super::needs::any_probe;
use super::sockets::{Key, Sockets, Use};
use super::still::Still;
use crate::container;
use crate::home::Home;
use crate::keeper::client::KeeperClient;
use crate::keeper::explain::{Asked, explain};
use crate::keeper::wire::{FromKeeper, RunPhase, Scope, ToKeeper};
use crate::logs::{self, Stillness};
use crate::machine::{Answer, Effect};
use crate::model::spec::{ComponentSpec, Workload};
use crate::model::{Body, InstanceId, LaunchError, LaunchStage, Retry, RunId, Time};

/// Performs effects.
#[derive(Debug)]
pub struct Runner {
    keeper: Arc<KeeperClient>,
    pub(super) helpers: Helpers,
    still: Arc<Still>,
    home: Home,
    pub(super) reports: mpsc::UnboundedSender<Report>,
    pub(super) runs: HashMap<RunId, Active>,
    pub(super) containers: Containers,
    sockets: Sockets,
}

impl Runner {
    /// A runner that sends what it has to say to `reports`.
    #[must_use]
    pub fn new(
        keeper: Arc<KeeperClient>,
        engine: container::Engine,
        home: Home,
        sockets: Sockets,
        now: Time,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Self {
        let helpers = Helpers::new(keeper.clone(), now);
        let containers = Containers::new(engine, home.clone(), helpers.clone(), reports.clone());
        let still = Arc::new(Still::new(keeper.clone()));
        let runs = HashMap::new();
        Self { keeper, helpers, still, home, reports, runs, containers, sockets }
    }

    /// Who holds components of this kind still while their logs are emptied; a launch waits for it.
    #[must_use]
    pub fn stillness(&self, workload: &Workload) -> Arc<dyn Stillness> {
        match workload {
            // The log of a container is written here.
            Workload::Container(_) => Arc::new(self.containers.pens().clone()),
            Workload::Process(_) | Workload::External => self.still.clone(),
        }
    }

    /// Performs an effect. Fails only when the keeper is gone.
    pub fn perform(
        &mut self,
        instance: &InstanceId,
        effect: Effect,
        base_env: &BaseEnv,
    ) -> io::Result<()> {
        match effect {
            Effect::Launch { run, spec } => self.launch(instance, run, &spec, base_env),
            Effect::Withdraw { run } => {
                if !self.containers.tell(run, Order::Withdraw) {
                    self.withdraw(run);
                }
            }
            // Processes have no limits that can be changed.
            Effect::Reconfigure { run, spec } => {
                self.containers.tell(run, Order::Reconfigure(spec));
            }
            Effect::Terminate { run, spec } if self.containers.owns(run) => {
                if let Some(active) = self.runs.get(&run) {
                    active.quiet();
                }
                self.containers.tell(run, Order::Terminate(spec));
            }
            Effect::Terminate { run, spec } => self.terminate(instance, run, &spec, base_env)?,
            // With its first process all of a container ends.
            Effect::TerminateRest { run, .. } if self.containers.owns(run) => {}
            Effect::TerminateRest { run, signal } => {
                let scope = Scope::Tree;
                self.keeper.send(&ToKeeper::Signal { run, signal, scope, resume: true }, &[])?;
            }
            Effect::Kill { run } => {
                if !self.containers.tell(run, Order::Kill) {
                    self.keeper.send(&ToKeeper::KillTree { run }, &[])?;
                }
            }
            Effect::Forget { run } => {
                if let Some(active) = self.runs.remove(&run) {
                    active.quiet();
                }
                if !self.containers.forget(run) {
                    self.keeper.send(&ToKeeper::Ack { run }, &[])?;
                }
            }
            Effect::CancelProbe { run, role } => {
                if let Some(active) = self.runs.get_mut(&run) {
                    active.remove_slot(role);
                }
            }
            Effect::Probe { run, body, launched_at, role, sequence, spec } => {
                self.active(instance, run, &spec, base_env);
                self.probe(run, body.pid(), launched_at, role, sequence, &spec);
            }
        }
        Ok(())
    }

    /// Whether a run is a container.
    #[must_use]
    pub fn has_container(&self, run: RunId) -> bool {
        self.containers.owns(run)
    }

    /// Sends a signal to the main process of a run.
    pub fn signal(&self, run: RunId, signal: i32) -> io::Result<()> {
        if self.containers.tell(run, Order::Signal(signal)) {
            return Ok(());
        }
        self.keeper.send(&ToKeeper::Signal { run, signal, scope: Scope::Main, resume: false }, &[])
    }

    /// Takes over a container of the engine before.
    pub fn adopt(&mut self, instance: &InstanceId, run: RunId) {
        self.containers.adopt(instance, run);
    }

    /// Removes what was made for the containers of a project: its networks, with `volumes` those as well.
    pub fn clear(&mut self, project: &str, volumes: bool) {
        self.containers.clear(project.to_owned(), volumes);
    }

    /// A process has outlived engine and keeper, with the inode of its pidfd: what it listens on is taken
    /// over.
    pub fn find_sockets(&self, instance: &InstanceId, spec: &ComponentSpec, process: (u32, u64)) {
        if let Workload::Process(declared) = &spec.workload {
            self.sockets.find(instance, declared, process);
        }
    }

    /// Closes the sockets that nobody needs any more.
    pub fn close_sockets(&self, usage: impl Fn(&Key) -> Use) {
        if self.sockets.is_empty() {
            return;
        }
        for name in self.sockets.close(usage) {
            // A keeper that is gone holds nothing.
            drop(self.keeper.send(&ToKeeper::Release { name }, &[]));
        }
    }

    /// Starts commands on behalf of components.
    #[must_use]
    pub const fn helpers(&self) -> &Helpers {
        &self.helpers
    }

    /// The container engine.
    #[must_use]
    pub const fn engine(&self) -> &container::Engine {
        self.containers.engine()
    }

    /// Whether any component is declared as a container.
    pub fn expect_containers(&mut self, any: bool) {
        self.containers.expect(any);
    }

    /// Takes a message of the keeper's; what it says about a component's run is the answer.
    pub fn told(&mut self, message: &FromKeeper) -> Option<(RunId, Answer)> {
        let run = message.run()?;
        if Helpers::is_helper(run) {
            self.helpers.told(message);
            return None;
        }
        let answer = match message {
            FromKeeper::Spawned(spawned) => {
                self.launched(run);
                Answer::Launched { body: Body::Process { pid: spawned.pid }, at: spawned.at }
            }
            FromKeeper::SpawnFailed(failure) => Answer::LaunchFailed(self.explain(run, failure)),
            FromKeeper::Exited(exited) => {
                Answer::Exited { exit: exited.exit, at: exited.at, empty: exited.empty }
            }
            FromKeeper::Gone { .. } => Answer::Gone,
            FromKeeper::RunState(state) => match &state.phase {
                RunPhase::Running => {
                    let body = Body::Process { pid: state.pid };
                    Answer::Launched { body, at: state.spawned_at }
                }
                RunPhase::Failed(failure) => Answer::LaunchFailed(self.explain(run, failure)),
                RunPhase::Ended(exited) => {
                    Answer::Exited { exit: exited.exit, at: exited.at, empty: exited.empty }
                }
                // `Spawned` or `SpawnFailed` is still to come.
                RunPhase::Launching => return None,
            },
            FromKeeper::Welcome(_)
            | FromKeeper::HeldFd { .. }
            | FromKeeper::ListEnd
            | FromKeeper::Terminate { .. }
            | FromKeeper::ReloadRequested
            | FromKeeper::Estate
            | FromKeeper::NotReplaced { .. } => return None,
        };
        Some((run, answer))
    }

    /// What was needed for the launch alone is not kept.
    fn launched(&mut self, run: RunId) {
        let Some(active) = self.runs.get_mut(&run) else { return };
        active.task = None;
        let spec = &active.context.spec;
        if !(any_probe(spec, |_| true) || runs_commands(spec)) {
            self.runs.remove(&run);
        }
    }

    fn explain(&self, run: RunId, failure: &crate::keeper::wire::LaunchFailure) -> LaunchError {
        let known = self.runs.get(&run).map(|active| &active.context);
        let process = known.and_then(|context| process_of(&context.spec).ok());
        let argv = process.map(|process| process.command.argv()).unwrap_or_default();
        let program = argv.first().map_or("", String::as_str);
        let asked = Asked {
            program,
            search_path: known
                .zip(process)
                .and_then(|(context, process)| launch::search_path(process, &context.base_env)),
            working_dir: process.map_or(Path::new("/"), |process| &process.working_dir),
        };
        explain(failure, &asked)
    }

    /// What is held for a run, made if the run was adopted.
    fn active(
        &mut self,
        instance: &InstanceId,
        run: RunId,
        spec: &Arc<ComponentSpec>,
        base_env: &BaseEnv,
    ) -> &mut Active {
        let (home, helpers) = (&self.home, &self.helpers);
        self.runs.entry(run).or_insert_with(|| Active {
            context: Arc::new(Context {
                instance: instance.clone(),
                spec: spec.clone(),
                base_env: base_env.clone(),
                helpers: helpers.clone(),
                recipe: OnceCell::new(),
            }),
            log: home.component_log(instance),
            log_start: None,
            probes: Vec::new(),
            task: None,
        })
    }

    fn launch(
        &mut self,
        instance: &InstanceId,
        run: RunId,
        spec: &Arc<ComponentSpec>,
        base_env: &BaseEnv,
    ) {
        let (keeper, reports) = (self.keeper.clone(), self.reports.clone());
        if let Err(error) = self.home.prepare_log(instance) {
            let failed = Answer::LaunchFailed(LaunchError {
                stage: LaunchStage::Log,
                errno: None,
                message: error.to_string(),
                hint: Some("the folder of the logs must be yours, and writable".into()),
                retry: if error.is_shortage() { Retry::Soon } else { Retry::Counted },
            });
            return drop(reports.send(Report::Answer(run, failed)));
        }
        let (still, whom, sockets) = (self.still.clone(), instance.clone(), self.sockets.clone());
        let active = self.active(instance, run, spec, base_env);
        if any_probe(spec, |needs| needs.log) {
            // Where there is no log yet, the run begins at its beginning.
            active.log_start = Some(logs::end_position(&active.log).unwrap_or(0));
        }
        if let Workload::Container(_) = spec.workload {
            return self.containers.launch(instance, run, spec.clone(), base_env.clone());
        }
        let (context, log) = (active.context.clone(), active.log.clone());
        let mut launching = Box::pin(async move {
            let ask = async {
                let recipe = context.recipe().await?;
                let process = process_of(&context.spec)?;
                let is_alone = context.spec.replicas == 1;
                sockets.provide(&whom, process, recipe.user(), is_alone, &keeper).await?;
                still.pass(&whom).await;
                let handed_down = Sockets::handed_down(&whom, process);
                let spawn = recipe.component(run, &log, handed_down);
                keeper.send(&ToKeeper::Spawn(Box::new(spawn)), &[]).map_err(|error| LaunchError {
                    stage: LaunchStage::Fork,
                    errno: error.raw_os_error(),
                    message: format!("cannot ask the keeper to start it: {error}"),
                    hint: None,
                    retry: Retry::Soon,
                })
            };
            if let Err(error) = ask.await {
                drop(reports.send(Report::Answer(run, Answer::LaunchFailed(error))));
            }
        });
        // Without a secret that needs a command, or the file of a socket, there is nothing to wait for,
        // and no task is made.
        if !is_done(&mut launching) {
            active.task = Some(tokio::spawn(launching).abort_handle());
        }
    }

    /// A launch that still waits for a secret ends here; one that the keeper has been asked for goes
    /// its way.
    fn withdraw(&self, run: RunId) {
        let task = self.runs.get(&run).and_then(|active| active.task.as_ref());
        let Some(task) = task.filter(|task| !task.is_finished()) else { return };
        task.abort();
        let withdrawn = Answer::LaunchFailed(LaunchError {
            stage: LaunchStage::Prepare,
            errno: None,
            message: "it is not wanted any more".into(),
            hint: None,
            retry: Retry::Counted,
        });
        // Nobody hears it when the daemon ends.
        let _ = self.reports.send(Report::Answer(run, withdrawn));
    }

    fn terminate(
        &mut self,
        instance: &InstanceId,
        run: RunId,
        spec: &Arc<ComponentSpec>,
        base_env: &BaseEnv,
    ) -> io::Result<()> {
        let keeper = self.keeper.clone();
        let signal =
            ToKeeper::Signal { run, signal: spec.stop.signal, scope: Scope::Main, resume: true };
        let active = self.active(instance, run, spec, base_env);
        // What is about to end is not probed any more.
        active.quiet();
        let Some(command) = &spec.stop.command else { return keeper.send(&signal, &[]) };
        let (context, argv) = (active.context.clone(), command.argv());
        let stopping = async move {
            let outcome = context.run(argv).await;
            let worked = outcome
                .as_ref()
                .is_ok_and(|output| output.status == crate::model::ExitStatus::Code(0));
            // A stop command that fails must not leave the component to the kill alone.
            if !worked {
                tracing::warn!(instance = %context.instance, ?outcome, "the stop command failed");
                drop(keeper.send(&signal, &[]));
            }
        };
        active.task = Some(tokio::spawn(stopping).abort_handle());
        Ok(())
    }
}

/// Polls a future once; true if it is done.
fn is_done<F: Future<Output = ()>>(future: &mut Pin<Box<F>>) -> bool {
    let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
    future.as_mut().poll(&mut nobody).is_ready()
}
