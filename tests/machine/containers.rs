//! Containers: what others provide, doubts, and orders that have yet to arrive.

use std::sync::Arc;
use std::time::Duration;

use stigmer::machine::{Answer, Component, Effect, Input, Phase};
use stigmer::model::container::ContainerSpec;
use stigmer::model::spec::{ComponentSpec, RestartPolicy, Workload};
use stigmer::model::{
    Body, ContainerId, EventKind, Exit, LaunchError, LaunchStage, ProbeRole, Retry, State,
};

use crate::{Bench, secs, with_probes};

pub(super) fn container(mem_limit: Option<u64>) -> ComponentSpec {
    let mut spec = ContainerSpec { image: "postgres:16".into(), ..ContainerSpec::default() };
    spec.resources.mem_limit = mem_limit;
    ComponentSpec { workload: Workload::Container(Box::new(spec)), ..with_probes() }
}

fn absent(stage: LaunchStage) -> Answer {
    Answer::LaunchFailed(LaunchError {
        stage,
        errno: None,
        message: "it is not there".into(),
        hint: Some("start it".into()),
        retry: Retry::Patient,
    })
}

#[test]
fn s35_what_others_provide_is_waited_for_with_backoff_and_for_ever() {
    let mut bench = Bench::new(container(None));
    bench.tell(Input::Start);
    let mut delays = Vec::new();
    for _ in 0..40 {
        bench.answer(absent(LaunchStage::Engine));
        assert_eq!(bench.state(), State::Restarting);
        let until = bench.component.next_deadline().expect("it is tried again");
        delays.push(until.since(bench.now).as_secs());
        bench.pass(until.since(bench.now));
    }
    assert_eq!(delays[..9], [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(bench.component.view(bench.now).restarts_in_window, 0);
    // Once it is back nobody waits for the end of the delay, and the next want begins anew.
    bench.answer(absent(LaunchStage::Image));
    bench.tell(Input::Provided);
    assert!(matches!(bench.component.phase(), Phase::Launching { .. }));
    bench.launched();
    bench.exit(Exit::code(1));
    bench.pass(secs(1));
    bench.answer(absent(LaunchStage::Engine));
    assert_eq!(bench.component.next_deadline().expect("a delay").since(bench.now), secs(1));
}

#[test]
fn a_component_that_backs_off_by_its_own_fault_is_not_helped_by_others() {
    let mut bench = Bench::up(container(None));
    bench.exit(Exit::code(1));
    bench.tell(Input::Provided);
    assert_eq!(bench.state(), State::Restarting);
}

#[test]
fn s45_what_nobody_can_vouch_for_is_not_ready_and_not_restarted() {
    let mut bench = Bench::up(container(None));
    bench.probe(ProbeRole::Startup, Ok(()));
    bench.probe(ProbeRole::Readiness, Ok(()));
    bench.probe(ProbeRole::Readiness, Ok(()));
    assert!(bench.component.is_ready());
    bench.answer(Answer::Doubt(Some("the engine does not answer".into())));
    assert!(!bench.component.is_ready());
    let view = bench.component.view(bench.now);
    assert_eq!((view.state, view.doubt), (State::Running, Some("the engine does not answer")));
    assert_eq!(view.reason.as_deref(), Some("unknown (the engine does not answer)"));
    bench.answer(Answer::Doubt(None));
    assert!(bench.component.is_ready());
    let told = |kind: &str| bench.events.iter().filter(|event| event.name() == kind).count();
    assert_eq!((told("doubtful"), told("vouched"), told("restarting")), (1, 1, 0));
    // Whoever tells how it ended knows, before what is left of it is removed.
    bench.answer(Answer::Doubt(Some("gone".into())));
    let told = bench.events.len();
    bench.answer(Answer::Exited { exit: Exit::code(0), at: bench.now, empty: false });
    assert_eq!(bench.component.view(bench.now).doubt, None);
    let names: Vec<&str> = bench.events[told..].iter().map(EventKind::name).collect();
    assert_eq!(names[..2], ["vouched", "exited"]);
    // The doubt ends with the run.
    bench.answer(Answer::Doubt(Some("gone".into())));
    bench.answer(Answer::Gone);
    assert_eq!(bench.component.view(bench.now).doubt, None);
    let mut bench = Bench::up(container(None));
    bench.answer(Answer::Doubt(Some("gone".into())));
    bench.exit(Exit::unknown());
    assert_eq!(bench.component.view(bench.now).doubt, None);
}

#[test]
fn what_has_ended_is_neither_ready_nor_probed_until_it_is_known_how() {
    let mut spec = container(None);
    spec.restart.policy = RestartPolicy::OnFailure;
    spec.probes.liveness.as_mut().expect("it has one").failure_threshold = 1;
    let min_uptime = spec.restart.min_uptime;
    let mut bench = Bench::up(spec);
    bench.probe(ProbeRole::Startup, Ok(()));
    bench.probe(ProbeRole::Readiness, Ok(()));
    bench.probe(ProbeRole::Readiness, Ok(()));
    assert!(bench.component.is_ready());
    let sequence = bench.due(ProbeRole::Liveness);
    let told = bench.events.len();
    bench.answer(Answer::Over);
    let died = bench.now;
    assert!(!bench.component.is_ready());
    assert_eq!(bench.component.next_deadline(), None);
    bench.now = bench.now + min_uptime;
    let outcome = Err("nobody is there".into());
    bench.answer(Answer::Probed { role: ProbeRole::Liveness, sequence, outcome });
    assert_eq!(bench.state(), State::Running);
    assert_eq!(bench.events.len(), told, "how it ended is told next");
    assert!(bench.component.view(bench.now).last_error.is_none());
    bench.answer(Answer::Exited { exit: Exit::code(0), at: died, empty: true });
    let view = bench.component.view(bench.now);
    assert_eq!((view.state, view.reason.as_deref()), (State::Stopped, Some("completed")));
}

#[test]
fn a_first_turn_that_could_not_be_made_is_made_up_for() {
    let mut spec = container(None);
    let readiness = spec.probes.readiness.as_mut().expect("it has one");
    readiness.interval = Duration::from_secs(3600);
    readiness.success_threshold = 1;
    let mut bench = Bench::up(spec);
    bench.probe(ProbeRole::Startup, Ok(()));
    let sequence = bench.due(ProbeRole::Readiness);
    bench.answer(Answer::Unprobed { role: ProbeRole::Readiness, sequence });
    let before = bench.now;
    // A new daemon has found it.
    bench.answer(Answer::Launched { body: Body::Process { pid: 42 }, at: before });
    bench.probe(ProbeRole::Readiness, Ok(()));
    assert_eq!(bench.now, before);
    assert!(bench.component.is_ready());
}

impl Bench {
    /// A container that runs.
    fn up_in_container() -> Self {
        let mut bench = Self::new(container(None));
        bench.tell(Input::Start);
        bench.found();
        bench
    }

    fn found(&mut self) {
        let body = Body::Container { id: ContainerId::new("c0ffee"), pid: None };
        let at = self.now;
        self.answer(Answer::Launched { body, at });
    }

    /// The same in the hands of the next engine, which finds the container.
    fn found_by_the_next_engine(&mut self) {
        let stored = serde_json::to_string(&self.component).expect("it can be stored");
        let component: Component = serde_json::from_str(&stored).expect("it can be read");
        self.component = component.restored(self.component.spec().clone(), self.now);
        self.effects.clear();
        self.found();
    }

    /// How often something was asked for since then.
    fn asked_for(&self, is_it: impl Fn(&Effect) -> bool) -> usize {
        self.effects.iter().filter(|effect| is_it(effect)).count()
    }

    fn has_killed(&self) -> bool {
        self.events.iter().any(|event| event.name() == "killed")
    }
}

#[test]
fn the_time_of_a_container_to_end_counts_from_when_it_has_heard_of_it() {
    let mut bench = Bench::up_in_container();
    let time = bench.component.spec().stop.timeout;
    bench.tell(Input::Stop);
    assert_eq!(bench.component.next_deadline(), None);
    bench.now = bench.now + time * 100;
    bench.tell(Input::Tick);
    assert!(!bench.has_killed());
    bench.answer(Answer::Told);
    assert_eq!(bench.component.next_deadline(), Some(bench.now + time));
    // Told again, it has no more time.
    bench.now = bench.now + time;
    bench.answer(Answer::Told);
    bench.tell(Input::Tick);
    assert!(bench.has_killed());
}

#[test]
fn an_end_that_did_not_arrive_is_ordered_again_by_the_next_engine() {
    let mut bench = Bench::up_in_container();
    bench.tell(Input::Stop);
    bench.found_by_the_next_engine();
    assert_eq!(bench.asked_for(|effect| matches!(effect, Effect::Terminate { .. })), 1);
    bench.answer(Answer::Told);
    bench.found_by_the_next_engine();
    assert_eq!(
        bench.asked_for(|effect| matches!(effect, Effect::Terminate { .. })),
        0,
        "it has heard of it"
    );
}

#[test]
fn limits_that_did_not_arrive_are_told_again_by_the_next_engine() {
    let mut bench = Bench::up_in_container();
    bench.tell(Input::Update(Arc::new(container(Some(1 << 26)))));
    bench.found_by_the_next_engine();
    assert_eq!(bench.asked_for(|effect| matches!(effect, Effect::Reconfigure { .. })), 1);
    bench.answer(Answer::Reconfigured);
    bench.found_by_the_next_engine();
    assert_eq!(
        bench.asked_for(|effect| matches!(effect, Effect::Reconfigure { .. })),
        0,
        "it has them"
    );
}

#[test]
fn nothing_is_late_while_nobody_can_probe_it() {
    let mut spec = container(None);
    let limit = Duration::from_secs(60);
    spec.probes.startup_deadline = Some(limit);
    let mut bench = Bench::up(spec);
    bench.answer(Answer::Doubt(Some("gone".into())));
    bench.now = bench.now + limit * 2;
    bench.tell(Input::Tick);
    assert_eq!(bench.state(), State::Starting);
    bench.answer(Answer::Doubt(None));
    // A change that is not about it leaves it alone.
    let mut changed = ComponentSpec::clone(bench.component.spec());
    changed.restart.max_restarts = Some(3);
    bench.tell(Input::Update(Arc::new(changed)));
    bench.now = bench.now + limit - Duration::from_secs(1);
    bench.tell(Input::Tick);
    assert_eq!(bench.state(), State::Starting, "it has its whole time again");
    bench.now = bench.now + Duration::from_secs(1);
    bench.tell(Input::Tick);
    assert_eq!(bench.state(), State::Unhealthy);
}

#[test]
fn a_probe_that_could_not_be_made_counts_for_nothing() {
    let mut bench = Bench::up(container(None));
    bench.probe(ProbeRole::Startup, Ok(()));
    for _ in 0..2 {
        bench.probe(ProbeRole::Liveness, Err("no"));
    }
    for _ in 0..10 {
        let role = ProbeRole::Liveness;
        let sequence = bench.due(role);
        bench.answer(Answer::Unprobed { role, sequence });
    }
    assert_eq!(bench.state(), State::Running);
    bench.probe(ProbeRole::Liveness, Err("no"));
    assert_eq!(bench.state(), State::Unhealthy, "the third failure");
}

#[test]
fn changed_limits_are_told_to_what_runs_and_replace_what_cannot_be_told() {
    let mut bench = Bench::up(container(None));
    bench.tell(Input::Update(Arc::new(container(Some(7)))));
    assert!(matches!(
        bench.effects.last(),
        Some(Effect::Probe { .. } | Effect::Reconfigure { .. })
    ));
    let told = bench.effects.iter().filter(|one| matches!(one, Effect::Reconfigure { .. })).count();
    assert_eq!(told, 1);
    assert_eq!(bench.state(), State::Starting);
    bench.answer(Answer::Unchanged { message: "the limit is too low".into() });
    assert!(matches!(bench.component.phase(), Phase::Ending(_)));
    bench.exit(Exit::signal(15));
    assert!(matches!(bench.component.phase(), Phase::Launching { .. }), "started anew, uncounted");
    assert_eq!(bench.component.view(bench.now).restarts_total, 0);
    // While it is launched nobody knows which limits it will get.
    let run = bench.run();
    bench.tell(Input::Update(Arc::new(container(Some(8)))));
    bench.answer(Answer::LaunchFailed(LaunchError {
        stage: LaunchStage::Prepare,
        errno: None,
        message: "withdrawn".into(),
        hint: None,
        retry: Retry::Counted,
    }));
    assert_ne!(bench.run(), run);
}
