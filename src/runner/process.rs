//! The runner: effects of the fleet in, answers out.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{Mutex, OnceCell, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::helper::Helpers;
use super::launch::Recipe;
use super::probe::{CommandFuture, CommandRunner, Prober, Target};
use crate::home::Home;
use crate::keeper::client::KeeperClient;
use crate::keeper::explain::explain;
use crate::keeper::wire::{FromKeeper, RunPhase, Scope, ToKeeper};
use crate::logs;
use crate::machine::phase::probe_spec;
use crate::machine::{Answer, Effect};
use crate::model::event::human_duration;
use crate::model::spec::{ComponentSpec, ProbeSpec, ProcessSpec, Workload};
use crate::model::{InstanceId, LaunchError, LaunchStage, ProbeRole, RunId, Time};

/// The base of a project's environments: PATH, LANG and TZ of its apply.
pub type BaseEnv = Arc<std::collections::BTreeMap<String, String>>;

/// Performs effects.
#[derive(Debug)]
pub struct Runner {
    keeper: Arc<KeeperClient>,
    helpers: Helpers,
    home: Home,
    answers: mpsc::UnboundedSender<(RunId, Answer)>,
    runs: HashMap<RunId, Active>,
}

/// What is held for a run.
#[derive(Debug)]
struct Active {
    context: Arc<Context>,
    log: PathBuf,
    /// Where in the log the run begins.
    log_start: u64,
    probes: HashMap<ProbeRole, Slot>,
    /// Launching, or running the stop command.
    task: Option<AbortHandle>,
}

/// A probe of a run, ready for its next turn.
#[derive(Debug)]
struct Slot {
    spec: ProbeSpec,
    prober: Arc<Mutex<Prober>>,
    turn: Option<AbortHandle>,
}

/// What all processes of a run have in common; prepared when it is first needed.
#[derive(Debug)]
struct Context {
    instance: InstanceId,
    spec: Arc<ComponentSpec>,
    base_env: BaseEnv,
    helpers: Helpers,
    recipe: OnceCell<Recipe>,
}

impl Context {
    async fn recipe(&self) -> Result<&Recipe, LaunchError> {
        self.recipe
            .get_or_try_init(|| async {
                let process = process_of(&self.spec)?;
                Recipe::prepare(&self.instance, process, &self.base_env, &self.helpers).await
            })
            .await
    }

    async fn run(&self, argv: Vec<String>) -> Result<super::probe::CommandOutput, String> {
        let recipe = self.recipe().await.map_err(|error| error.message)?;
        self.helpers.run(recipe, argv).await
    }
}

/// Exec probes of a component run with its environment and in its folder.
struct Commands(Arc<Context>);

impl CommandRunner for Commands {
    fn run(&self, argv: Vec<String>) -> CommandFuture {
        let context = self.0.clone();
        Box::pin(async move { context.run(argv).await })
    }
}

fn process_of(spec: &ComponentSpec) -> Result<&ProcessSpec, LaunchError> {
    match &spec.workload {
        Workload::Process(process) => Ok(process),
        Workload::External => Err(LaunchError {
            stage: LaunchStage::Prepare,
            errno: None,
            message: "an external component has no program of its own".into(),
            hint: Some("use a probe that looks from outside: tcp, http, grpc, unix or file".into()),
            transient: false,
        }),
    }
}

impl Runner {
    /// A runner that sends its answers to `answers`.
    #[must_use]
    pub fn new(
        keeper: Arc<KeeperClient>,
        home: Home,
        now: Time,
        answers: mpsc::UnboundedSender<(RunId, Answer)>,
    ) -> Self {
        let helpers = Helpers::new(keeper.clone(), now);
        Self { keeper, helpers, home, answers, runs: HashMap::new() }
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
            Effect::Terminate { run, spec } => self.terminate(instance, run, &spec, base_env)?,
            Effect::TerminateRest { run, signal } => {
                let scope = Scope::Tree;
                self.keeper.send(&ToKeeper::Signal { run, signal, scope, resume: true }, &[])?;
            }
            Effect::Kill { run } => self.keeper.send(&ToKeeper::KillTree { run }, &[])?,
            Effect::Forget { run } => {
                if let Some(active) = self.runs.remove(&run) {
                    active.quiet();
                }
                self.keeper.send(&ToKeeper::Ack { run }, &[])?;
            }
            Effect::CancelProbe { run, role } => {
                if let Some(active) = self.runs.get_mut(&run)
                    && let Some(slot) = active.probes.remove(&role)
                {
                    slot.abort();
                }
            }
            Effect::Probe { run, pid, launched_at, role, sequence, spec } => {
                self.active(instance, run, &spec, base_env);
                self.probe(run, pid, launched_at, role, sequence, &spec);
            }
        }
        Ok(())
    }

    /// Takes a message of the keeper's; what it says about a component's run is the answer.
    pub fn told(&mut self, message: &FromKeeper) -> Option<(RunId, Answer)> {
        let run = match message {
            FromKeeper::Spawned(spawned) => spawned.run,
            FromKeeper::SpawnFailed(failure) => failure.run,
            FromKeeper::Exited(exited) => exited.run,
            FromKeeper::Gone { run } => *run,
            FromKeeper::RunState(state) => state.run,
            FromKeeper::Welcome(_)
            | FromKeeper::HeldFd { .. }
            | FromKeeper::ListEnd
            | FromKeeper::Terminate { .. }
            | FromKeeper::ReloadRequested => return None,
        };
        if Helpers::is_helper(run) {
            self.helpers.told(message);
            return None;
        }
        let answer = match message {
            FromKeeper::Spawned(spawned) => Answer::Launched { pid: spawned.pid, at: spawned.at },
            FromKeeper::SpawnFailed(failure) => Answer::LaunchFailed(self.explain(run, failure)),
            FromKeeper::Exited(exited) => {
                Answer::Exited { exit: exited.exit, at: exited.at, empty: exited.empty }
            }
            FromKeeper::Gone { .. } => Answer::Gone,
            FromKeeper::RunState(state) => match &state.phase {
                RunPhase::Running => Answer::Launched { pid: state.pid, at: state.spawned_at },
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
            | FromKeeper::ReloadRequested => return None,
        };
        Some((run, answer))
    }

    fn explain(&self, run: RunId, failure: &crate::keeper::wire::LaunchFailure) -> LaunchError {
        let known = self.runs.get(&run).map(|active| &active.context);
        let recipe = known.and_then(|context| context.recipe.get());
        let process = known.and_then(|context| process_of(&context.spec).ok());
        let argv = process.map(|process| process.command.argv()).unwrap_or_default();
        let program = argv.first().map_or("", String::as_str);
        let asked = recipe.map_or(
            crate::keeper::explain::Asked {
                program,
                search_path: None,
                working_dir: std::path::Path::new("/"),
            },
            |recipe| recipe.asked(program),
        );
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
            log_start: 0,
            probes: HashMap::new(),
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
        let (keeper, answers) = (self.keeper.clone(), self.answers.clone());
        let active = self.active(instance, run, spec, base_env);
        // Where there is no log yet, the run begins at its beginning.
        active.log_start = logs::end_position(&active.log).unwrap_or(0);
        let (context, log) = (active.context.clone(), active.log.clone());
        let mut launching = Box::pin(async move {
            let sent = match context.recipe().await {
                Ok(recipe) => {
                    let spawn = ToKeeper::Spawn(Box::new(recipe.component(run, &log)));
                    keeper.send(&spawn, &[]).map_err(|error| LaunchError {
                        stage: LaunchStage::Fork,
                        errno: error.raw_os_error(),
                        message: format!("cannot ask the keeper to start it: {error}"),
                        hint: None,
                        transient: true,
                    })
                }
                Err(error) => Err(error),
            };
            if let Err(error) = sent {
                drop(answers.send((run, Answer::LaunchFailed(error))));
            }
        });
        // Without a secret that needs a command there is nothing to wait for, and no task is made.
        if !is_done(&mut launching) {
            active.task = Some(tokio::spawn(launching).abort_handle());
        }
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

    fn probe(
        &mut self,
        run: RunId,
        pid: Option<u32>,
        launched_at: Time,
        role: ProbeRole,
        sequence: u64,
        spec: &Arc<ComponentSpec>,
    ) {
        let answers = self.answers.clone();
        let answer = move |outcome| {
            drop(answers.send((run, Answer::Probed { role, sequence, outcome })));
        };
        let Some(declared) = probe_spec(&spec.probes, role) else {
            return answer(Err("the probe is no longer declared".into()));
        };
        let Some(active) = self.runs.get_mut(&run) else { return };
        let slot = match active.slot(role, declared, pid, launched_at) {
            Ok(slot) => slot,
            Err(message) => return answer(Err(message)),
        };
        let prober = slot.prober.clone();
        let timeout = declared.timeout;
        let turn = async move {
            let outcome =
                tokio::time::timeout(timeout, async { prober.lock().await.probe().await })
                    .await
                    .unwrap_or_else(|_| {
                        Err(format!("no answer within {}", human_duration(timeout)))
                    });
            answer(outcome);
        };
        slot.abort();
        slot.turn = Some(tokio::spawn(turn).abort_handle());
    }
}

impl Active {
    /// The slot of a probe, made anew where its declaration has changed.
    fn slot(
        &mut self,
        role: ProbeRole,
        declared: &ProbeSpec,
        pid: Option<u32>,
        launched_at: Time,
    ) -> Result<&mut Slot, String> {
        if self.probes.get(&role).is_some_and(|slot| slot.spec != *declared)
            && let Some(slot) = self.probes.remove(&role)
        {
            slot.abort();
        }
        match self.probes.entry(role) {
            std::collections::hash_map::Entry::Occupied(slot) => Ok(slot.into_mut()),
            std::collections::hash_map::Entry::Vacant(place) => {
                let target = Target {
                    pid,
                    launched: instant_of(launched_at),
                    log: self.log.clone(),
                    log_start: self.log_start,
                    commands: Arc::new(Commands(self.context.clone())),
                };
                let prober = Arc::new(Mutex::new(Prober::new(&declared.check, target)?));
                Ok(place.insert(Slot { spec: declared.clone(), prober, turn: None }))
            }
        }
    }

    /// Ends whatever is under way for the run.
    fn quiet(&self) {
        for slot in self.probes.values() {
            slot.abort();
        }
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Slot {
    fn abort(&self) {
        if let Some(turn) = &self.turn {
            turn.abort();
        }
    }
}

/// Polls a future once; true if it is done.
fn is_done<F: Future<Output = ()>>(future: &mut Pin<Box<F>>) -> bool {
    let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
    future.as_mut().poll(&mut nobody).is_ready()
}

/// The present point on the monotonic clock, which tokio's instants share.
#[must_use]
pub fn now() -> Time {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(clock.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(clock.tv_nsec).unwrap_or(0);
    Time::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// A time of the machine's as an instant of tokio's.
#[must_use]
pub fn instant_of(time: Time) -> Instant {
    let (clock, instant) = (now(), Instant::now());
    if time >= clock {
        instant + time.since(clock)
    } else {
        instant.checked_sub(clock.since(time)).unwrap_or(instant)
    }
}
