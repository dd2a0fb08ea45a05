//! All components, and what they owe each other: gates, the order of stopping, rolling replacement.
//!
//! The fleet is driven by [`FleetInput`]s and answers with a [`FleetStep`]. After each step it looks
//! again at those components whose surroundings have changed, until nothing moves any more:
//!
//! ```text
//!   input ─▶ component.step ─▶ touched ─▶ gates of dependents ─▶ held stops ─▶ rolling ─▶ removals
//!                  ▲                                                              │
//!                  └────────────────────────── more inputs ◀──────────────────────┘
//! ```
//!
//! A component that is to stop is held (it is told to retire, and is not restarted any more) while a
//! dependent of it that is to stop as well is still alive; so everything ends in reverse order (S56).
//! Replicas are replaced one at a time, the next when all others are ready (S9).

mod dependents;
mod gates;
mod leaving;
mod rolling;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Deref;
use std::sync::Arc;

use self::dependents::{Dependents, Key, key_of};
use self::gates::in_words;
use self::rolling::Turn;
use super::component::{Answer, Component, Effect, Input, Step};
use super::phase::{Phase, Wish};
use crate::model::spec::{ComponentSpec, Condition};
use crate::model::{Event, InstanceId, RunId, State, StopReason, Time};

/// What the fleet may be told.
#[derive(Clone, Debug)]
pub enum FleetInput {
    /// Time has passed.
    Tick,
    /// The plan of a manifest: carried out as a whole, so that new components see each other.
    Apply(Vec<Change>),
    /// A person asks something of these instances.
    Control(Action, Vec<InstanceId>),
    /// The runner reports about a run.
    Answer(RunId, Answer),
    /// What others provide is back, and these instances may have waited for it.
    Provided(Vec<InstanceId>),
}

/// One line of a plan.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// A new instance, to be started.
    Create(InstanceId, Arc<ComponentSpec>),
    /// A spec that the running program cannot see.
    Update(InstanceId, Arc<ComponentSpec>),
    /// A spec that needs another run.
    Replace(InstanceId, Arc<ComponentSpec>),
    /// A stopped instance is to run again.
    Start(InstanceId),
    /// An instance that is no longer declared.
    Remove(InstanceId),
}

/// What a person may ask of an instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Run.
    Start,
    /// End, in reverse order of the dependencies.
    Stop,
    /// End and run again, at once.
    Restart,
    /// End and run again, one replica at a time, waiting for readiness.
    Roll,
    /// A new chance for what has failed.
    Reset,
    /// End, in reverse order, and be forgotten.
    Remove,
    /// End because the daemon ends; the wish to run is kept.
    Pause,
}

/// What came of an input.
#[must_use = "effects that are not performed leave components waiting for ever"]
#[derive(Default, Debug)]
pub struct FleetStep {
    /// To be performed, in order.
    pub effects: Vec<(InstanceId, Effect)>,
    /// To be told, in order.
    pub events: Vec<Event>,
    /// Something changed that anybody might look at.
    pub is_visible: bool,
    /// Instances of which something else is wanted than before, that have another run, or have heard what they
    /// were to be told. It must outlive the engine, also where no event tells of it yet.
    pub decided: Vec<InstanceId>,
    /// Instances that are gone.
    pub removed: Vec<InstanceId>,
}

/// A component, and when it is told the time.
#[derive(Clone, Debug)]
struct Member {
    component: Component,
    deadline: Option<Time>,
}

impl Member {
    fn boxed(component: Component) -> Box<Self> {
        Box::new(Self { component, deadline: None })
    }
}

impl Deref for Member {
    type Target = Component;

    fn deref(&self) -> &Component {
        &self.component
    }
}

/// The owner of all components.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// Boxed, because the nodes of the map are half empty.
    members: BTreeMap<InstanceId, Box<Member>>,
    dependents: Dependents,
    runs: HashMap<RunId, InstanceId>,
    /// How many are being ended.
    ending: usize,
    deadlines: Deadlines,
    /// Told to stop, and held until their dependents are gone.
    held: BTreeSet<InstanceId>,
    /// Those of them that came from the store, and were not looked at since.
    restored: BTreeSet<Key>,
    /// To be forgotten once they have ended.
    leaving: BTreeSet<InstanceId>,
    /// Replicas that wait for their turn to be replaced.
    rolling: BTreeMap<Key, VecDeque<Turn>>,
    next_run: u64,
}

impl Fleet {
    /// An empty fleet whose first run has the identifier `next_run`.
    #[must_use]
    pub fn new(next_run: u64) -> Self {
        Self { next_run, ..Self::default() }
    }

    /// Takes in a component from the store, before any input.
    pub fn restore(&mut self, instance: &InstanceId, component: Component) {
        if let Some(run) = component.run() {
            self.runs.insert(run, instance.clone());
        }
        // The old engine may have died between asking it to retire and letting it end.
        if component.wish() != Wish::Run && component.is_live() {
            self.held.insert(instance.clone());
            self.restored.insert(key_of(instance));
        }
        self.dependents.declare(instance, component.spec());
        self.ending += usize::from(component.is_ending());
        let mut member = Member::boxed(component);
        self.deadlines.retime(instance, &mut member);
        self.members.insert(instance.clone(), member);
    }

    /// After all components were restored: opens the gates, and starts again what the old daemon had
    /// paused.
    pub fn resume(&mut self, now: Time) -> FleetStep {
        let mut work = Work::default();
        let everybody: Vec<InstanceId> = self.members.keys().cloned().collect();
        for instance in &everybody {
            self.regate(instance, now, &mut work);
        }
        for instance in everybody {
            let paused = self.members.get(&instance).is_some_and(|component| {
                component.wish() == Wish::Run
                    && matches!(
                        component.phase(),
                        Phase::Stopped { reason: StopReason::Daemon | StopReason::New }
                    )
            });
            if paused {
                self.tell(&instance, now, Input::Start, &mut work);
            }
            // What was waiting may go on by now.
            self.tell(&instance, now, Input::Tick, &mut work);
        }
        self.settle(now, work)
    }

    /// One component.
    #[must_use]
    pub fn get(&self, instance: &InstanceId) -> Option<&Component> {
        self.members.get(instance).map(|member| &member.component)
    }

    /// All components in order.
    pub fn iter(&self) -> impl Iterator<Item = (&InstanceId, &Component)> {
        self.members.iter().map(|(instance, member)| (instance, &member.component))
    }

    /// All replicas of a component.
    pub fn replicas(&self, project: &str, component: &str) -> impl Iterator<Item = &Component> {
        let number = |replica| InstanceId::new(project, component, replica);
        self.members.range(number(0)..=number(u32::MAX)).map(|(_, member)| &member.component)
    }

    /// Whose run this is.
    #[must_use]
    pub fn owner(&self, run: RunId) -> Option<&InstanceId> {
        self.runs.get(&run)
    }

    /// The earliest time at which somebody wants a tick.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadlines.0.first().map(|(at, _)| *at)
    }

    /// Whether instances of a project are yet to be forgotten, or wait for their turn to be replaced. What a
    /// component stores of itself does not say so.
    #[must_use]
    pub fn is_in_transit(&self, project: &str) -> bool {
        self.leaving.iter().any(|instance| *instance.project == *project)
            || self.rolling.keys().any(|(of, _)| **of == *project)
    }

    /// The identifier of the next run.
    #[must_use]
    pub const fn next_run(&self) -> u64 {
        self.next_run
    }

    /// Takes an input.
    pub fn step(&mut self, now: Time, input: FleetInput) -> FleetStep {
        let mut work = Work::default();
        match input {
            FleetInput::Tick => self.tick(now, &mut work),
            FleetInput::Apply(changes) => self.apply(now, changes, &mut work),
            FleetInput::Control(action, instances) => {
                self.control(now, action, instances, &mut work);
            }
            FleetInput::Answer(run, answer) => {
                if let Some(instance) = self.runs.get(&run).cloned() {
                    self.tell(&instance, now, Input::Answer(run, answer), &mut work);
                }
            }
            FleetInput::Provided(instances) => {
                for instance in instances {
                    self.tell(&instance, now, Input::Provided, &mut work);
                }
            }
        }
        self.settle(now, work)
    }

    fn tick(&mut self, now: Time, work: &mut Work) {
        let due: Vec<InstanceId> = self
            .deadlines
            .0
            .iter()
            .take_while(|(at, _)| *at <= now)
            .map(|(_, instance)| instance.clone())
            .collect();
        for instance in due {
            self.tell(&instance, now, Input::Tick, work);
        }
    }

    fn apply(&mut self, now: Time, changes: Vec<Change>, work: &mut Work) {
        // First everything is declared, so that gates are right before anybody starts.
        let mut created = Vec::new();
        let mut rest = Vec::new();
        for change in changes {
            match change {
                Change::Create(instance, spec) => {
                    // One that was removed and has not ended yet comes back as the one that it was.
                    if self.members.contains_key(&instance) {
                        rest.push((instance.clone(), Input::Replace(spec)));
                        rest.push((instance, Input::Start));
                        continue;
                    }
                    let seed = seed_of(&instance);
                    self.dependents.declare(&instance, &spec);
                    let member = Member::boxed(Component::new(spec, seed));
                    self.members.insert(instance.clone(), member);
                    created.push(instance);
                }
                Change::Update(instance, spec) => rest.push((instance, Input::Update(spec))),
                Change::Replace(instance, spec) => rest.push((instance, Input::Replace(spec))),
                Change::Start(instance) => rest.push((instance, Input::Start)),
                Change::Remove(instance) => self.leave(now, instance, work),
            }
        }
        for (instance, input) in rest {
            match input {
                Input::Start => {
                    self.leaving.remove(&instance);
                    self.held.remove(&instance);
                    self.tell(&instance, now, Input::Start, work);
                }
                Input::Replace(spec) => self.roll_to(&instance, spec, now, work),
                Input::Update(spec) => {
                    self.forget_turn(&instance, work);
                    self.tell(&instance, now, Input::Update(spec), work);
                }
                other => self.tell(&instance, now, other, work),
            }
        }
        for instance in &created {
            self.regate(instance, now, work);
        }
        for instance in created {
            self.tell(&instance, now, Input::Start, work);
        }
    }

    fn control(&mut self, now: Time, action: Action, instances: Vec<InstanceId>, work: &mut Work) {
        for instance in instances {
            match action {
                Action::Start => {
                    self.held.remove(&instance);
                    self.leaving.remove(&instance);
                    self.tell(&instance, now, Input::Start, work);
                }
                Action::Stop => self.hold(now, instance, Wish::Stop, work),
                Action::Pause => self.hold(now, instance, Wish::Pause, work),
                Action::Remove => self.leave(now, instance, work),
                Action::Restart => {
                    self.held.remove(&instance);
                    self.leaving.remove(&instance);
                    self.tell(&instance, now, Input::Restart, work);
                }
                // What nobody wants to run has nothing to be replaced.
                Action::Roll => {
                    if self.members.get(&instance).is_some_and(|c| c.wish() == Wish::Run) {
                        self.enqueue(&instance, None, work);
                    }
                }
                Action::Reset => self.tell(&instance, now, Input::Reset, work),
            }
        }
    }

    /// Looks again at everything that may have been moved by what happened, until nothing moves. Not at
    /// everybody: of thousands that end, each is an input.
    fn settle(&mut self, now: Time, mut work: Work) -> FleetStep {
        work.releasable.append(&mut self.restored);
        loop {
            while let Some(instance) = work.respecified.pop() {
                self.regate(&instance, now, &mut work);
            }
            while let Some(instance) = work.moved.pop() {
                let dependents: Vec<InstanceId> = self.dependents.of(&instance).cloned().collect();
                for dependent in dependents {
                    self.regate(&dependent, now, &mut work);
                }
                work.releasable.extend(self.dependents.dependencies(&instance).iter().cloned());
                work.rollable.insert(key_of(&instance));
                work.removable.insert(instance);
            }
            self.release(now, &mut work);
            self.roll(now, &mut work);
            self.remove_gone(&mut work);
            if work.is_done() {
                debug_assert!(self.is_settled(), "somebody was not looked at");
                return work.step;
            }
        }
    }

    /// Whether nobody may end, has a turn or is to be forgotten. Looks at everybody, as no step can afford to.
    fn is_settled(&self) -> bool {
        self.held.iter().all(|instance| self.has_retiring_dependent(instance))
            && self.leaving.iter().all(|instance| !self.has_ended(instance))
            && self
                .rolling
                .values()
                .all(|queue| queue.front().is_some_and(|turn| !self.others_are_ready(turn)))
            && self.ending == self.members.values().filter(|member| member.is_ending()).count()
    }

    /// Gives an input to a component and gathers what comes of it.
    fn tell(&mut self, instance: &InstanceId, now: Time, input: Input, work: &mut Work) {
        // A spec comes with its gate: what is launched by it must not slip through the old one.
        let gate = match &input {
            Input::Update(spec) | Input::Replace(spec) => {
                Some(in_words(self.unmet_by(instance, spec)))
            }
            Input::Tick
            | Input::Start
            | Input::Stop
            | Input::Retire(_)
            | Input::Restart
            | Input::Reset
            | Input::Gate(_)
            | Input::Provided
            | Input::Answer(..) => None,
        };
        // What has arrived is not told again by the next engine.
        let has_arrived = matches!(&input, Input::Answer(_, Answer::Told | Answer::Reconfigured));
        let Some(member) = self.members.get_mut(instance) else { return };
        let component = &mut member.component;
        if let Some(gate) = gate {
            component.gate = gate;
        }
        let (before, was_ending) = (component.run(), component.is_ending());
        let old_spec = component.spec().clone();
        let facts = Facts::of(component);
        let next_run = &mut self.next_run;
        let mut runs = || {
            let run = RunId(*next_run);
            *next_run += 1;
            run
        };
        let Step { effects, events } = component.step(now, input, &mut runs);
        let after = component.run();
        let now_seen = Facts::of(component);
        let is_news = facts.wish != now_seen.wish || (before != after && after.is_some());
        if is_news || has_arrived {
            work.step.decided.push(instance.clone());
        }
        if facts != now_seen {
            work.moved.push(instance.clone());
        }
        if !Arc::ptr_eq(&old_spec, component.spec()) {
            // What it does not depend on any more need not wait for it.
            work.releasable.extend(self.dependents.dependencies(instance).iter().cloned());
            self.dependents.declare(instance, component.spec());
            work.respecified.push(instance.clone());
        }
        self.ending += usize::from(component.is_ending());
        self.ending -= usize::from(was_ending);
        if before != after {
            if let Some(run) = before {
                self.runs.remove(&run);
            }
            if let Some(run) = after {
                self.runs.insert(run, instance.clone());
            }
        }
        work.step.is_visible = true;
        work.step.effects.extend(effects.into_iter().map(|effect| (instance.clone(), effect)));
        work.step
            .events
            .extend(events.into_iter().map(|kind| Event { instance: instance.clone(), kind }));
        self.deadlines.retime(instance, member);
    }
}

/// When members are told the time, as each of them says.
#[derive(Clone, Debug, Default)]
struct Deadlines(BTreeSet<(Time, InstanceId)>);

impl Deadlines {
    /// The member may have another one.
    fn retime(&mut self, instance: &InstanceId, member: &mut Member) {
        let next = member.next_deadline();
        if member.deadline == next {
            return;
        }
        self.forget(instance, member);
        if let Some(at) = next {
            self.0.insert((at, instance.clone()));
            member.deadline = next;
        }
    }

    /// The member has none any more.
    fn forget(&mut self, instance: &InstanceId, member: &mut Member) {
        if let Some(old) = member.deadline.take() {
            self.0.remove(&(old, instance.clone()));
        }
    }
}

/// What is gathered while an input is worked off.
#[derive(Default)]
struct Work {
    step: FleetStep,
    /// Instances of which others may have to take note.
    moved: Vec<InstanceId>,
    /// Instances whose dependencies may have changed.
    respecified: Vec<InstanceId>,
    /// Components of which some may end now, if they are held.
    releasable: BTreeSet<Key>,
    /// Components of which some may have their turn now, if they wait for it.
    rollable: BTreeSet<Key>,
    /// Instances that may be gone now, if they are leaving.
    removable: BTreeSet<InstanceId>,
}

impl Work {
    /// Whether nothing moves any more.
    fn is_done(&self) -> bool {
        self.moved.is_empty()
            && self.respecified.is_empty()
            && self.releasable.is_empty()
            && self.rollable.is_empty()
            && self.removable.is_empty()
    }
}

/// What others see of a component.
#[derive(PartialEq, Eq)]
struct Facts {
    live: bool,
    state: State,
    wish: Wish,
    conditions: [bool; 4],
}

impl Facts {
    fn of(component: &Component) -> Self {
        Self {
            live: component.is_live(),
            state: component.state(),
            wish: component.wish(),
            conditions: [
                component.satisfies(Condition::Started),
                component.satisfies(Condition::Healthy),
                component.satisfies(Condition::Ready),
                component.satisfies(Condition::Completed),
            ],
        }
    }
}

/// A seed for the jitter that differs between instances and is the same after a restart (FNV-1a).
fn seed_of(instance: &InstanceId) -> u64 {
    instance.to_string().bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
