//! The runner: effects of the fleet in, answers out.

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OnceCell, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Report;
use super::container::probe::Probed;
use super::container::{Containers, Order};
use super::helper::Helpers;
use super::launch::{self, Recipe};
use super::probe::{CommandFuture, CommandRunner, Failure, Prober, Reach, Target};
use super::sockets::{Key, Sockets, Use};
use super::still::Still;
use crate::container;
use crate::home::Home;
use crate::keeper::client::KeeperClient;
use crate::keeper::explain::{Asked, explain};
use crate::keeper::wire::{FromKeeper, RunPhase, Scope, ToKeeper};
use crate::logs::{self, Stillness};
use crate::machine::phase::probe_spec;
use crate::machine::{Answer, Effect};
use crate::model::event::human_duration;
use crate::model::spec::{Check, ComponentSpec, ProbeSpec, ProcessSpec, Workload};
use crate::model::{Body, InstanceId, LaunchError, LaunchStage, ProbeRole, Retry, RunId, Time};

/// A timeout that is noticed this late was over while this process stood still. A busy machine is not
/// that slow, and where it is, a turn more does no harm.
const LATE: Duration = Duration::from_millis(500);

/// Between two looks for a descriptor.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// The base of a project's environments: PATH, LANG and TZ of its apply.
pub type BaseEnv = Arc<std::collections::BTreeMap<String, String>>;

/// Performs effects.
#[derive(Debug)]
pub struct Runner {
    keeper: Arc<KeeperClient>,
    helpers: Helpers,
    still: Arc<Still>,
    home: Home,
    reports: mpsc::UnboundedSender<Report>,
    runs: HashMap<RunId, Active>,
    containers: Containers,
    sockets: Sockets,
}

/// What is held for a run.
#[derive(Debug)]
struct Active {
    context: Arc<Context>,
    log: PathBuf,
    /// Where in the log the run begins, if a probe reads it; of one that was taken over, or is declared
    /// otherwise since its launch, it is found out when it is needed.
    log_start: Option<u64>,
    /// One a role. Exactly as long as it is: most have one.
    probes: Vec<Slot>,
    /// Launching, or running the stop command.
    task: Option<AbortHandle>,
}

/// A probe of a run, ready for its next turn.
#[derive(Debug)]
struct Slot {
    role: ProbeRole,
    /// Where the probe is declared as it was made.
    spec: Arc<ComponentSpec>,
    prober: Arc<Mutex<Prober>>,
    /// The turn that is under way, by its number. A handle keeps the memory of a task that is done.
    turn: Option<(u64, AbortHandle)>,
}

/// What all processes of a run have in common; prepared when it is first needed.
#[derive(Debug)]
struct Context {
    instance: InstanceId,
    spec: Arc<ComponentSpec>,
    base_env: BaseEnv,
    helpers: Helpers,
    recipe: OnceCell<Box<Recipe>>,
}

impl Context {
    /// What was prepared, or is now. Kept for the run only if more programs will be run for it, which
    /// are to see the same secrets.
    async fn recipe(&self) -> Result<Cow<'_, Recipe>, LaunchError> {
        let prepare = || async {
            let process = process_of(&self.spec)?;
            Recipe::prepare(&self.instance, process, &self.base_env, &self.helpers).await
        };
        if runs_commands(&self.spec) {
            let recipe = self.recipe.get_or_try_init(|| async { prepare().await.map(Box::new) });
            recipe.await.map(|recipe| Cow::Borrowed(&**recipe))
        } else {
            prepare().await.map(Cow::Owned)
        }
    }

    async fn run(&self, argv: Vec<String>) -> Result<super::probe::CommandOutput, LaunchError> {
        let recipe = self.recipe().await?;
        self.helpers.run(&recipe, argv).await
    }
}

/// Exec probes of a component run with its environment and in its folder.
struct Commands(Arc<Context>);

impl CommandRunner for Commands {
    fn run(&self, argv: Vec<String>) -> CommandFuture {
        let context = self.0.clone();
        Box::pin(async move {
            context.run(argv).await.map_err(|error| match error.retry {
                Retry::Counted => Failure::Failed(error.message),
                // A machine without a process to spare says nothing of the component.
                Retry::Soon | Retry::Patient => Failure::Void(error.message),
            })
        })
    }
}

fn process_of(spec: &ComponentSpec) -> Result<&ProcessSpec, LaunchError> {
    match &spec.workload {
        Workload::Process(process) => Ok(process),
        Workload::Container(_) | Workload::External => Err(LaunchError {
            stage: LaunchStage::Prepare,
            errno: None,
            message: "it has no program of its own on this machine".into(),
            hint: Some("use a probe that looks from outside: tcp, http, grpc, unix or file".into()),
            retry: Retry::Counted,
        }),
    }
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
            | FromKeeper::ReloadRequested
            | FromKeeper::Estate
            | FromKeeper::NotReplaced { .. } => return None,
        };
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

    fn probe(
        &mut self,
        run: RunId,
        pid: Option<u32>,
        launched_at: Time,
        role: ProbeRole,
        sequence: u64,
        spec: &Arc<ComponentSpec>,
    ) {
        let reports = self.reports.clone();
        let answer = move |outcome| {
            let outcome = match outcome {
                Ok(()) => Ok(()),
                Err(Failure::Failed(message)) => Err(message),
                Err(Failure::Void(message)) => {
                    tracing::debug!(%run, "the {role} probe was not performed: {message}");
                    let unprobed = Answer::Unprobed { role, sequence };
                    return drop(reports.send(Report::Answer(run, unprobed)));
                }
            };
            let probed = Answer::Probed { role, sequence, outcome };
            drop(reports.send(Report::Answer(run, probed)));
        };
        let Some(declared) = probe_spec(&spec.probes, role) else {
            return answer(Err("the probe is no longer declared".into()));
        };
        let container = self
            .containers
            .shared(run)
            .map(|shared| Probed { engine: self.containers.engine().clone(), shared });
        let engine = container.as_ref().map(|container| container.engine.clone());
        let is_process = container.is_none();
        let Some(active) = self.runs.get_mut(&run) else { return };
        let slot = match active.slot(role, spec, declared, pid, launched_at, container) {
            Ok(slot) => slot,
            Err(message) => return answer(Err(message.into())),
        };
        let prober = slot.prober.clone();
        let timeout = declared.timeout;
        let asked = needs(&declared.check).engine.then_some(engine).flatten();
        // In a container it is the engine that runs commands.
        let slots = (is_process && needs(&declared.check).program).then(|| self.helpers.clone());
        let turn = async move {
            let began = Instant::now();
            loop {
                let looked = || in_time(timeout, &prober);
                let outcome = match &slots {
                    Some(helpers) => helpers.with_slot(looked).await,
                    None => looked().await,
                };
                match outcome {
                    Turn::Answered(Err(_)) if out_of_descriptors() => {
                        tokio::time::sleep(TRY_AGAIN).await;
                    }
                    Turn::Answered(outcome) => return answer(outcome),
                    Turn::StoodStill => {}
                    Turn::Silent => {
                        let late = format!("no answer within {}", human_duration(timeout));
                        return answer(Err(match asked {
                            // An engine that hangs says nothing about what it runs.
                            Some(engine) if !engine.has_spoken_since(began) => {
                                engine.check();
                                Failure::Void(late)
                            }
                            Some(_) | None => late.into(),
                        }));
                    }
                }
            }
        };
        slot.abort();
        slot.turn = Some((sequence, tokio::spawn(turn).abort_handle()));
    }

    /// The turn of a probe is over.
    pub fn probed(&mut self, run: RunId, role: ProbeRole, sequence: u64) {
        let slots = self.runs.get_mut(&run).into_iter().flat_map(|active| &mut active.probes);
        for slot in slots.filter(|slot| slot.role == role) {
            slot.turn.take_if(|(number, _)| *number == sequence);
        }
    }
}

impl Active {
    /// The slot of a probe, made anew where its declaration has changed.
    fn slot(
        &mut self,
        role: ProbeRole,
        spec: &Arc<ComponentSpec>,
        declared: &ProbeSpec,
        pid: Option<u32>,
        launched_at: Time,
        container: Option<Probed>,
    ) -> Result<&mut Slot, String> {
        let known = self.probes.iter().position(|slot| slot.role == role);
        let is_same = |slot: &Slot| {
            Arc::ptr_eq(&slot.spec, spec) || probe_spec(&slot.spec.probes, role) == Some(declared)
        };
        let place = match known {
            Some(place) if is_same(&self.probes[place]) => {
                // The old one is not kept for it.
                self.probes[place].spec.clone_from(spec);
                place
            }
            Some(_) | None => {
                self.remove_slot(role);
                let log_start = if needs(&declared.check).log {
                    *self.log_start.get_or_insert_with(|| {
                        logs::position_before(&self.log, wall_of(launched_at))
                    })
                } else {
                    0
                };
                let target = Target {
                    pid,
                    launched: instant_of(launched_at),
                    log: self.log.clone(),
                    log_start,
                    commands: match &container {
                        Some(probed) => Arc::new(probed.clone()),
                        None => Arc::new(Commands(self.context.clone())),
                    },
                    reach: container.as_ref().map_or(Reach::Local, |probed| probed.shared.reach()),
                    container: container.map(|probed| Arc::new(probed) as _),
                };
                let prober = Arc::new(Mutex::new(Prober::new(&declared.check, target)?));
                self.probes.reserve_exact(1);
                self.probes.push(Slot { role, spec: spec.clone(), prober, turn: None });
                self.probes.len() - 1
            }
        };
        Ok(&mut self.probes[place])
    }

    fn remove_slot(&mut self, role: ProbeRole) {
        if let Some(place) = self.probes.iter().position(|slot| slot.role == role) {
            self.probes.swap_remove(place).abort();
        }
    }

    /// Ends whatever is under way for the run.
    fn quiet(&self) {
        for slot in &self.probes {
            slot.abort();
        }
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Slot {
    fn abort(&self) {
        if let Some((_, turn)) = &self.turn {
            turn.abort();
        }
    }
}

/// What a check needs, besides the component itself.
#[derive(Clone, Copy, Default)]
struct Needs {
    /// The container engine's word, if the component is a container.
    engine: bool,
    /// A program to be run.
    program: bool,
    /// The place in the log where the run begins.
    log: bool,
}

fn needs(check: &Check) -> Needs {
    let nothing = Needs::default();
    match check {
        Check::Exec(_) | Check::Plugin { .. } => Needs { engine: true, program: true, ..nothing },
        Check::Container | Check::Process => Needs { engine: true, ..nothing },
        Check::Log { .. } => Needs { log: true, ..nothing },
        Check::All(checks) => checks.iter().map(needs).fold(nothing, |all, one| Needs {
            engine: all.engine || one.engine,
            program: all.program || one.program,
            log: all.log || one.log,
        }),
        Check::MinUptime(_)
        | Check::Http(_)
        | Check::Tcp { .. }
        | Check::Unix { .. }
        | Check::Grpc { .. }
        | Check::File { .. } => nothing,
    }
}

/// What came of a turn of a probe.
enum Turn {
    /// It has a result.
    Answered(Result<(), Failure>),
    /// There was none within the timeout.
    Silent,
    /// This process was not running when the timeout was over, so that nobody can say what there was.
    StoodStill,
}

/// Performs a probe once, within its timeout. A process that was stopped, or a machine that was
/// suspended, finds the timeout over long ago when it goes on; that is no failure of the component's.
async fn in_time(timeout: Duration, prober: &Mutex<Prober>) -> Turn {
    let until = Instant::now() + timeout;
    match tokio::time::timeout_at(until, async { prober.lock().await.probe().await }).await {
        Ok(outcome) => Turn::Answered(outcome),
        Err(_) if until.elapsed() > LATE => Turn::StoodStill,
        Err(_) => Turn::Silent,
    }
}

/// Whether a probe may have failed for want of a descriptor, which says nothing of the component.
fn out_of_descriptors() -> bool {
    std::fs::File::open("/dev/null")
        .is_err_and(|error| matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)))
}

/// Whether anything but the component itself is run with its environment.
fn runs_commands(spec: &ComponentSpec) -> bool {
    spec.stop.command.is_some() || any_probe(spec, |needs| needs.program)
}

fn any_probe(spec: &ComponentSpec, is_so: impl Fn(Needs) -> bool) -> bool {
    ProbeRole::ALL
        .iter()
        .filter_map(|role| probe_spec(&spec.probes, *role))
        .any(|probe| is_so(needs(&probe.check)))
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

/// A time of the machine's as a time of day.
fn wall_of(time: Time) -> jiff::Timestamp {
    let wall = jiff::Timestamp::now();
    wall.checked_sub(now().since(time)).unwrap_or(wall)
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
