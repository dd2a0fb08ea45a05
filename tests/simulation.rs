//! Whole fleets under random faults: a simulated runner, a virtual clock, seeded schedules, and the
//! invariants of `machine` checked after every step.
//!
//! `STIGMER_SIM_SEEDS=N` sets the number of schedules (100,000 by default), `STIGMER_SIM_SEED=S`
//! replays one of them. A failing seed is printed.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use stigmer::machine::{Action, Answer, Change, Effect, Fleet, FleetInput, FleetStep, Phase, Wish};
use stigmer::model::container::ContainerSpec;
use stigmer::model::spec::{
    Check, CommandSpec, ComponentSpec, Condition, ProbeSpec, ProcessSpec, RestartPolicy, Workload,
};
use stigmer::model::{
    Body, ContainerId, EventKind, Exit, InstanceId, LaunchError, LaunchStage, ProbeRole, Retry,
    RunId, State, StopReason, Time,
};

const STEPS: u32 = 60;

/// A splitmix64: the whole schedule follows from one number.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn small(&mut self, bound: u32) -> u32 {
        u32::try_from(self.below(bound.into())).expect("below a u32")
    }

    fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).expect("an index")]
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// What a run is in the simulated world.
#[derive(Clone, Debug, PartialEq)]
enum Program {
    /// Asked for, and not executed yet.
    Pending,
    /// It runs.
    Up,
    /// Its main process is gone, something of it is left.
    Rest,
}

struct World {
    now: Time,
    fleet: Fleet,
    dice: Dice,
    programs: BTreeMap<RunId, (InstanceId, Program)>,
    probes: Vec<(RunId, ProbeRole, u64)>,
    /// Everything that was ever launched: no run is launched twice.
    launched: BTreeSet<RunId>,
    states: BTreeMap<InstanceId, State>,
    declared: BTreeMap<InstanceId, Arc<ComponentSpec>>,
    /// What the store holds: an engine writes a component when an event says so, or a wish, a run or a declaration.
    stored: BTreeMap<InstanceId, (Arc<ComponentSpec>, String)>,
    /// Containers that are to hear that they are to end: what the present engine keeps.
    untold: BTreeSet<RunId>,
    /// Containers that have heard it.
    told: BTreeSet<RunId>,
    /// A new engine opens gates once it has heard of all runs.
    is_taking_over: bool,
}

/// Every other run is a container.
fn body_of(run: RunId) -> Body {
    if run.0.is_multiple_of(2) {
        Body::Container { id: ContainerId::new("c0ffee"), pid: None }
    } else {
        Body::Process { pid: 7 }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            now: Time::from_secs(100),
            fleet: Fleet::new(1),
            dice: Dice(seed),
            programs: BTreeMap::new(),
            probes: Vec::new(),
            launched: BTreeSet::new(),
            untold: BTreeSet::new(),
            told: BTreeSet::new(),
            states: BTreeMap::new(),
            declared: BTreeMap::new(),
            stored: BTreeMap::new(),
            is_taking_over: false,
        }
    }

    fn spec(&mut self, index: u64) -> ComponentSpec {
        let mut spec = ComponentSpec {
            workload: Workload::Process(ProcessSpec::new(
                CommandSpec::Exec(vec![format!("/bin/{}", self.dice.below(4))]),
                "/",
            )),
            ..ComponentSpec::external()
        };
        if self.dice.one_in(8) {
            spec.workload = Workload::External;
        } else if self.dice.one_in(3) {
            let mut container = ContainerSpec::default();
            container.resources.mem_limit = self.dice.choose(&[None, Some(1), Some(2)]);
            spec.workload = Workload::Container(Box::new(container));
        }
        spec.restart.policy = match self.dice.below(4) {
            0 => RestartPolicy::OnFailure,
            1 => RestartPolicy::Never,
            _ => RestartPolicy::Always,
        };
        if self.dice.one_in(4) {
            spec.restart.backoff.initial = Duration::ZERO;
        }
        spec.restart.max_restarts = self.dice.choose(&[None, Some(0), Some(2), Some(10)]);
        for role in ProbeRole::ALL {
            if self.dice.one_in(2) {
                let probe = Some(Box::new(ProbeSpec {
                    check: Check::Process,
                    interval: Duration::from_secs(1 + self.dice.below(10)),
                    timeout: Duration::from_secs(3),
                    failure_threshold: 1 + self.dice.small(3),
                    success_threshold: 1,
                    initial_delay: Duration::ZERO,
                }));
                match role {
                    ProbeRole::Startup => spec.probes.startup = probe,
                    ProbeRole::Liveness => spec.probes.liveness = probe,
                    ProbeRole::Readiness => spec.probes.readiness = probe,
                }
            }
        }
        if index > 0 && self.dice.one_in(2) {
            let condition = match self.dice.below(3) {
                0 => Condition::Started,
                1 => Condition::Healthy,
                _ => Condition::Ready,
            };
            spec.depends_on.insert(format!("c{}", self.dice.below(index)), condition);
        }
        spec
    }

    fn feed(&mut self, input: FleetInput) {
        let step = self.fleet.step(self.now, input);
        self.absorb(step);
    }

    fn absorb(&mut self, step: FleetStep) {
        for event in &step.events {
            if let EventKind::StateChanged { from, to } = event.kind {
                let state = self.states.entry(event.instance.clone()).or_insert(State::Stopped);
                assert_eq!(*state, from, "{}: changes follow each other", event.instance);
                assert!(from.may_become(to), "{}: {from} -> {to}", event.instance);
                *state = to;
            }
        }
        for instance in step.events.iter().map(|event| &event.instance).chain(&step.decided) {
            self.store(instance);
        }
        for instance in step.removed {
            self.states.remove(&instance);
            self.stored.remove(&instance);
            assert!(
                !self.programs.values().any(|(owner, _)| *owner == instance),
                "{instance} was removed while something of it is left"
            );
        }
        for (instance, effect) in step.effects {
            self.perform(&instance, &effect);
        }
        self.check();
    }

    fn store(&mut self, instance: &InstanceId) {
        let Some(component) = self.fleet.get(instance) else { return };
        let state = serde_json::to_string(component).expect("a component is storable");
        self.stored.insert(instance.clone(), (component.spec().clone(), state));
    }

    fn perform(&mut self, instance: &InstanceId, effect: &Effect) {
        match *effect {
            Effect::Launch { run, .. } => {
                assert!(
                    !self.programs.values().any(|(owner, _)| owner == instance),
                    "{instance}: a second copy"
                );
                assert!(self.launched.insert(run), "run {run} was launched twice");
                self.programs.insert(run, (instance.clone(), Program::Pending));
            }
            Effect::Reconfigure { run, .. } => {
                assert!(self.programs.contains_key(&run), "{instance}: nothing to tell");
            }
            Effect::Withdraw { run } => {
                assert!(self.programs.contains_key(&run), "{instance}: nothing to withdraw");
            }
            Effect::Terminate { run, .. } => {
                assert!(self.programs.contains_key(&run), "{instance}: a signal to nobody");
                self.untold.insert(run);
            }
            Effect::TerminateRest { run, .. } => {
                assert!(self.programs.contains_key(&run), "{instance}: a signal to nobody");
            }
            Effect::Kill { run } => {
                assert!(self.programs.contains_key(&run), "{instance}: a kill of nobody");
                self.untold.insert(run);
            }
            Effect::Forget { run } => {
                if let Some((_, program)) = self.programs.remove(&run) {
                    panic!("{instance}: forgotten while {program:?}");
                }
                self.probes.retain(|(probed, _, _)| *probed != run);
            }
            Effect::CancelProbe { run, role } => {
                self.probes.retain(|(probed, which, _)| (*probed, *which) != (run, role));
            }
            Effect::Probe { run, role, sequence, .. } => {
                assert!(
                    !self.probes.iter().any(|(r, p, _)| *r == run && *p == role),
                    "{instance}: the {role} probe overlaps itself"
                );
                self.probes.push((run, role, sequence));
            }
        }
    }

    fn check(&self) {
        for (instance, component) in self.fleet.iter() {
            let live = self.programs.values().filter(|(owner, _)| owner == instance).count();
            assert!(live <= 1, "{instance}: {live} copies");
            let external = matches!(
                component.phase(),
                Phase::Alive(alive) if alive.run.is_external()
            );
            assert!(
                component.is_live() == (live == 1) || external,
                "{instance}: it thinks {:?}, the world has {live}",
                component.phase()
            );
            match (component.wish(), component.phase()) {
                (Wish::Run, Phase::Waiting) => {
                    assert!(
                        self.is_taking_over || !self.fleet.unmet(instance).is_empty(),
                        "{instance} waits for nothing: {component:#?}"
                    );
                }
                (Wish::Run, Phase::Backoff { .. }) => {
                    assert!(component.next_deadline().is_some(), "{instance} waits for ever");
                }
                (Wish::Stop | Wish::Pause, Phase::Waiting | Phase::Backoff { .. }) => {
                    panic!("{instance}: nobody wants it, and it is {:?}", component.phase());
                }
                _ => {}
            }
        }
    }

    /// An end of which it is said that nothing follows makes nobody else move, and may be told of later.
    fn check_what_follows(&self, run: RunId, answer: &Answer) {
        let Some(owner) = self.fleet.owner(run).filter(|_| self.fleet.nothing_follows(run)) else {
            return;
        };
        let step = self.fleet.clone().step(self.now, FleetInput::Answer(run, answer.clone()));
        assert!(step.events.iter().all(|event| event.instance == *owner), "{:?}", step.events);
        for (instance, effect) in &step.effects {
            let is_own = *effect == Effect::Forget { run };
            assert!(is_own, "{instance} does {effect:?} when {owner} ends");
        }
        assert!(self.fleet.ending() > 0);
    }

    fn answer(&mut self, run: RunId, answer: Answer) {
        self.feed(FleetInput::Answer(run, answer));
    }

    /// The world moves: a launch is answered, a program ends, a probe has a result, time passes.
    fn happen(&mut self) {
        let runs: Vec<RunId> = self.programs.keys().copied().collect();
        let at = self.now;
        match self.dice.below(10) {
            0..4 if !runs.is_empty() => {
                let run = self.dice.choose(&runs);
                self.advance(run);
            }
            4 if self.dice.one_in(4) && !runs.is_empty() => {
                let run = self.dice.choose(&runs);
                self.rumour(run);
            }
            4..6 if !self.probes.is_empty() => {
                let index = self.dice.below(self.probes.len() as u64);
                let (run, role, sequence) =
                    self.probes.swap_remove(usize::try_from(index).expect("an index"));
                if self.dice.one_in(6) {
                    return self.answer(run, Answer::Unprobed { role, sequence });
                }
                let outcome = if self.dice.one_in(3) { Err("no".into()) } else { Ok(()) };
                self.answer(run, Answer::Probed { role, sequence, outcome });
            }
            6 => {
                // An answer about a run that nobody knows any more.
                let run = RunId(self.dice.below(1 + self.fleet.next_run()));
                if !self.programs.contains_key(&run) && self.fleet.owner(run).is_none() {
                    self.answer(run, Answer::Exited { exit: Exit::code(0), at, empty: true });
                    self.answer(run, Answer::Gone);
                }
            }
            7 => self.command(),
            _ => {
                let next = self.fleet.next_deadline().unwrap_or(self.now);
                let jump = Duration::from_millis(self.dice.below(3_000));
                self.now = if self.dice.one_in(2) { self.now.max(next) } else { self.now + jump };
                self.feed(FleetInput::Tick);
            }
        }
    }

    /// What an engine of containers has to say besides.
    fn rumour(&mut self, run: RunId) {
        let answer = match self.dice.below(5) {
            0 => Answer::Doubt(Some("nobody knows".into())),
            1 => Answer::Doubt(None),
            2 => Answer::Preparing { message: "fetching".into(), event: self.dice.one_in(2) },
            3 => Answer::Unchanged { message: "no".into() },
            _ => {
                let everybody = self.fleet.iter().map(|(instance, _)| instance.clone()).collect();
                return self.feed(FleetInput::Provided(everybody));
            }
        };
        self.answer(run, answer);
    }

    /// A container hears that it is to end, if the engine has something to say to it.
    fn hear(&mut self, run: RunId) -> bool {
        let hears = self.untold.remove(&run);
        if hears {
            self.told.insert(run);
            self.answer(run, Answer::Told);
        }
        hears
    }

    fn advance(&mut self, run: RunId) {
        let Some((_, program)) = self.programs.get(&run).cloned() else { return };
        let at = self.now;
        if self.dice.one_in(2) && self.hear(run) {
            return;
        }
        match program {
            Program::Pending if self.dice.one_in(5) => {
                self.programs.remove(&run);
                let retry = self.dice.choose(&[Retry::Counted, Retry::Soon, Retry::Patient]);
                self.answer(
                    run,
                    Answer::LaunchFailed(LaunchError {
                        stage: LaunchStage::Exec,
                        errno: None,
                        message: "no".into(),
                        hint: None,
                        retry,
                    }),
                );
            }
            Program::Pending => {
                self.set(run, Program::Up);
                self.answer(run, Answer::Launched { body: body_of(run), at });
            }
            Program::Up => {
                // Of a container it is known that it has ended before it is known how.
                if self.dice.one_in(2) {
                    self.answer(run, Answer::Over);
                }
                let exit = match self.dice.below(4) {
                    0 => Exit::code(0),
                    1 => Exit::signal(9),
                    2 => Exit::unknown(),
                    _ => Exit::code(1),
                };
                let empty = !self.dice.one_in(3);
                if empty {
                    self.programs.remove(&run);
                } else {
                    self.set(run, Program::Rest);
                }
                if empty {
                    self.check_what_follows(run, &Answer::Exited { exit, at, empty });
                }
                self.answer(run, Answer::Exited { exit, at, empty });
            }
            Program::Rest => {
                self.programs.remove(&run);
                self.answer(run, Answer::Gone);
            }
        }
    }

    fn set(&mut self, run: RunId, program: Program) {
        if let Some((_, known)) = self.programs.get_mut(&run) {
            *known = program;
        }
    }

    /// A person does something.
    fn command(&mut self) {
        let known: Vec<InstanceId> = self.declared.keys().cloned().collect();
        let chosen: Vec<InstanceId> =
            known.iter().filter(|_| self.dice.one_in(2)).cloned().collect();
        match self.dice.below(9) {
            0 => self.feed(FleetInput::Control(Action::Start, chosen)),
            1 => self.feed(FleetInput::Control(Action::Stop, chosen)),
            2 => self.feed(FleetInput::Control(Action::Restart, chosen)),
            3 => self.feed(FleetInput::Control(Action::Reset, chosen)),
            4 => self.feed(FleetInput::Control(Action::Roll, chosen)),
            5 => self.takeover(),
            6 => self.end(),
            _ => self.edit(),
        }
    }

    /// The daemon is told to end, and killed before or after everything has ended.
    fn end(&mut self) {
        let everybody = self.fleet.iter().map(|(instance, _)| instance.clone()).collect();
        self.feed(FleetInput::Control(Action::Pause, everybody));
        for _ in 0..self.dice.below(12) {
            let runs: Vec<RunId> = self.programs.keys().copied().collect();
            if !runs.is_empty() {
                let run = self.dice.choose(&runs);
                self.advance(run);
            }
        }
        self.takeover();
    }

    /// The manifest is edited: some are added, some changed, some removed.
    fn edit(&mut self) {
        let mut changes = Vec::new();
        for index in 0..5 {
            // All replicas of a component have one spec, as a plan always makes them.
            let replicas = 1 + self.dice.small(2);
            let choice = self.dice.below(4);
            let spec = Arc::new(self.spec(index));
            let name = format!("c{index}");
            let first = InstanceId::new("p", &name, 0);
            let mut updated = (*spec).clone();
            if let Some(component) = self.fleet.get(&first) {
                // In place only what a running program cannot see.
                updated.workload = component.spec().workload.clone();
                // Or what it can be told of.
                if let Workload::Container(container) = &mut updated.workload {
                    container.resources.mem_limit = self.dice.choose(&[None, Some(1), Some(2)]);
                }
            }
            let updated = Arc::new(updated);
            for replica in 0..2 {
                let instance = InstanceId::new("p", &name, replica);
                let present = self.declared.contains_key(&instance);
                match choice {
                    0 | 1 if present && (choice == 0 || replica >= replicas) => {
                        self.declared.remove(&instance);
                        changes.push(Change::Remove(instance));
                    }
                    1 if present => changes.push(Change::Replace(instance, spec.clone())),
                    2 if present => changes.push(Change::Update(instance, updated.clone())),
                    1..=2 if !present && replica < replicas => {
                        let spec = if choice == 1 { &spec } else { &updated };
                        self.declared.insert(instance.clone(), spec.clone());
                        changes.push(Change::Create(instance, spec.clone()));
                    }
                    _ => {}
                }
            }
        }
        let declared: Vec<InstanceId> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Create(instance, _)
                | Change::Update(instance, _)
                | Change::Replace(instance, _) => Some(instance.clone()),
                Change::Start(_) | Change::Remove(_) => None,
            })
            .collect();
        self.feed(FleetInput::Apply(changes));
        for instance in &declared {
            self.store(instance);
        }
    }

    /// The engine is killed, and a new one takes over from the store.
    fn takeover(&mut self) {
        let mut fleet = Fleet::new(self.fleet.next_run());
        assert_eq!(self.stored.len(), self.fleet.iter().count());
        for (instance, (spec, state)) in &self.stored {
            let restored: stigmer::machine::Component =
                serde_json::from_str(state).expect("and readable");
            let restored = restored.restored(spec.clone(), self.now);
            let live = self.fleet.get(instance).expect("what is stored is there");
            let wanted = live.clone().restored(spec.clone(), self.now).wish();
            assert_eq!(restored.wish(), wanted, "{instance}: what is wanted is lost");
            fleet.restore(instance, restored);
        }
        let leaving: Vec<InstanceId> = fleet
            .iter()
            .filter(|(instance, _)| !self.declared.contains_key(*instance))
            .map(|(instance, _)| instance.clone())
            .collect();
        self.fleet = fleet;
        self.probes.clear();
        self.untold.clear();
        self.is_taking_over = true;
        self.report_runs();
        self.is_taking_over = false;
        let step = self.fleet.resume(self.now);
        self.absorb(step);
        self.feed(FleetInput::Control(Action::Remove, leaving));
    }

    /// The keeper tells a new engine of every run; what ended meanwhile, it knows from this alone.
    fn report_runs(&mut self) {
        let at = self.now;
        for (run, (_, program)) in self.programs.clone() {
            let has_ended = program == Program::Rest || self.dice.one_in(4);
            let empty = self.dice.one_in(2);
            match program {
                // The launch is still to be answered.
                Program::Pending => {}
                Program::Up | Program::Rest if has_ended => {
                    if empty {
                        self.programs.remove(&run);
                    } else {
                        self.set(run, Program::Rest);
                    }
                    self.answer(run, Answer::Exited { exit: Exit::code(1), at, empty });
                }
                Program::Up | Program::Rest => {
                    self.answer(run, Answer::Launched { body: body_of(run), at });
                }
            }
        }
    }

    /// From now on nothing fails any more: everything must get to where it is wanted.
    fn converge(&mut self) {
        // Nothing is doubtful any more either.
        let runs: Vec<RunId> = self.programs.keys().copied().collect();
        for run in runs {
            self.answer(run, Answer::Doubt(None));
        }
        for _ in 0..20_000 {
            let pending: Vec<RunId> = self
                .programs
                .iter()
                .filter(|(run, (owner, program))| {
                    let ending = self.fleet.get(owner).is_some_and(|component| {
                        component.run() == Some(**run)
                            && matches!(component.phase(), Phase::Ending(_))
                    });
                    *program != Program::Up || ending
                })
                .map(|(run, _)| *run)
                .collect();
            let at = self.now;
            if let Some(run) = pending.first().copied() {
                match self.programs[&run].1.clone() {
                    Program::Pending => {
                        self.set(run, Program::Up);
                        self.answer(run, Answer::Launched { body: body_of(run), at });
                    }
                    Program::Up if self.hear(run) => {}
                    Program::Up => {
                        // What has not heard that it is to end goes on for ever.
                        let is_container = matches!(body_of(run), Body::Container { .. });
                        assert!(!is_container || self.told.contains(&run), "{run} was never told");
                        self.programs.remove(&run);
                        let exit = Exit::signal(15);
                        self.answer(run, Answer::Exited { exit, at, empty: true });
                    }
                    Program::Rest => {
                        self.programs.remove(&run);
                        self.answer(run, Answer::Gone);
                    }
                }
            } else if let Some((run, role, sequence)) = self.probes.pop() {
                self.answer(run, Answer::Probed { role, sequence, outcome: Ok(()) });
            } else if self.settled() {
                return;
            } else if let Some(next) = self.fleet.next_deadline() {
                self.now = self.now.max(next);
                self.feed(FleetInput::Tick);
            } else {
                break;
            }
        }
        let stuck: Vec<String> = self
            .fleet
            .iter()
            .map(|(instance, component)| {
                let unmet = self.fleet.unmet(instance);
                format!("{instance} {:?} {:?} {unmet:?}", component.wish(), component.phase())
            })
            .collect();
        panic!("no convergence: {stuck:#?}");
    }

    fn settled(&self) -> bool {
        self.fleet.iter().all(|(instance, component)| match component.wish() {
            Wish::Run => match component.phase() {
                Phase::Alive(_) => component.state() == State::Running && component.is_ready(),
                Phase::Failed { .. } => true,
                Phase::Stopped { reason } => *reason == StopReason::Completed,
                // Rightly so, if what it waits for will never be there.
                Phase::Waiting => self.hopeless(instance),
                Phase::Launching { .. } | Phase::Ending(_) | Phase::Backoff { .. } => false,
            },
            Wish::Stop | Wish::Pause => {
                matches!(component.phase(), Phase::Stopped { .. } | Phase::Failed { .. })
            }
        })
    }

    /// It waits for something that is stopped, failed, not there, or waiting in vain itself.
    fn hopeless(&self, instance: &InstanceId) -> bool {
        self.fleet.unmet(instance).iter().any(|(name, _)| {
            let mut replicas =
                self.fleet.iter().filter(|(id, _)| *id.component == **name).peekable();
            replicas.peek().is_none()
                || replicas.any(|(id, component)| match component.phase() {
                    Phase::Stopped { .. } | Phase::Failed { .. } => true,
                    Phase::Waiting => self.hopeless(id),
                    Phase::Launching { .. }
                    | Phase::Alive(_)
                    | Phase::Ending(_)
                    | Phase::Backoff { .. } => false,
                })
        })
    }

    /// Everything is stopped in reverse order, and nothing is left.
    fn down(&mut self) {
        let everybody: Vec<InstanceId> =
            self.fleet.iter().map(|(instance, _)| instance.clone()).collect();
        self.feed(FleetInput::Control(Action::Remove, everybody));
        self.converge();
        assert_eq!(self.fleet.iter().count(), 0, "everything is forgotten");
        assert!(self.programs.is_empty(), "nothing is left running");
    }
}

fn schedule(seed: u64) {
    let mut world = World::new(seed);
    world.edit();
    for _ in 0..STEPS {
        world.happen();
    }
    world.converge();
    world.down();
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn fleets_under_random_faults_keep_their_invariants() {
    if let Some(seed) = number("STIGMER_SIM_SEED") {
        return schedule(seed);
    }
    let seeds = number("STIGMER_SIM_SEEDS").unwrap_or(100_000);
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get) as u64;
    std::thread::scope(|scope| {
        for worker in 0..workers {
            scope.spawn(move || {
                for seed in (worker..seeds).step_by(usize::try_from(workers).expect("few")) {
                    let outcome = std::panic::catch_unwind(|| schedule(seed));
                    if let Err(panic) = outcome {
                        eprintln!("replay with STIGMER_SIM_SEED={seed}");
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
}
