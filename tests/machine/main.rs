//! The state machine of a component on a virtual clock: the criteria on probes and restarts, and a
//! table of every phase against every input.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod containers;

use std::sync::Arc;
use std::time::Duration;

use stigmer::machine::{Answer, Component, Effect, Input, Phase};
use stigmer::model::spec::{
    Check, CommandSpec, ComponentSpec, ExitMatch, ProbeSpec, ProcessSpec, RestartPolicy, Workload,
};
use stigmer::model::{
    Body, EventKind, Exit, LaunchError, LaunchStage, ProbeRole, Retry, RunId, State, Time,
};

/// A component with a clock, a runner that obeys, and a record of what it was asked.
struct Bench {
    now: Time,
    component: Component,
    next_run: u64,
    events: Vec<EventKind>,
    effects: Vec<Effect>,
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn process() -> ComponentSpec {
    ComponentSpec {
        workload: Workload::Process(ProcessSpec {
            command: CommandSpec::Exec(vec!["/bin/true".into()]),
            working_dir: "/".into(),
            env: std::collections::BTreeMap::new(),
            user: None,
            group: None,
            umask: None,
            nice: None,
            rlimits: std::collections::BTreeMap::new(),
            sockets: std::collections::BTreeMap::new(),
        }),
        ..ComponentSpec::external()
    }
}

fn probe(interval: u64, timeout: u64, failures: u32, successes: u32) -> ProbeSpec {
    ProbeSpec {
        check: Check::Process,
        interval: secs(interval),
        timeout: secs(timeout),
        failure_threshold: failures,
        success_threshold: successes,
        initial_delay: Duration::ZERO,
    }
}

fn with_probes() -> ComponentSpec {
    let mut spec = process();
    spec.probes.startup = Some(Box::new(probe(1, 5, 30, 1)));
    spec.probes.liveness = Some(Box::new(probe(10, 3, 3, 1)));
    spec.probes.readiness = Some(Box::new(probe(5, 2, 3, 2)));
    spec
}

impl Bench {
    fn new(spec: ComponentSpec) -> Self {
        Self {
            now: Time::from_secs(1_000),
            component: Component::new(Arc::new(spec), 7),
            next_run: 1,
            events: Vec::new(),
            effects: Vec::new(),
        }
    }

    fn tell(&mut self, input: Input) {
        let next_run = &mut self.next_run;
        let before = self.component.state();
        let step = self.component.step(self.now, input, &mut || {
            *next_run += 1;
            RunId(*next_run)
        });
        let mut state = before;
        for event in &step.events {
            if let EventKind::StateChanged { from, to } = event {
                assert_eq!(*from, state, "changes follow each other");
                assert!(from.may_become(*to), "s11: {from} -> {to} is not legal");
                state = *to;
            }
        }
        assert_eq!(state, self.component.state(), "every change of state is told");
        self.events.extend(step.events);
        self.effects.extend(step.effects);
    }

    fn state(&self) -> State {
        self.component.state()
    }

    fn run(&self) -> RunId {
        self.component.run().expect("a run")
    }

    fn answer(&mut self, answer: Answer) {
        let run = self.run();
        self.tell(Input::Answer(run, answer));
    }

    fn launched(&mut self) {
        assert!(matches!(self.component.phase(), Phase::Launching { .. }), "it is being launched");
        let at = self.now;
        self.answer(Answer::Launched { body: Body::Process { pid: 42 }, at });
    }

    fn exit(&mut self, exit: Exit) {
        let at = self.now;
        self.answer(Answer::Exited { exit, at, empty: true });
    }

    /// Starts it and lets the runner launch it.
    fn up(spec: ComponentSpec) -> Self {
        let mut bench = Self::new(spec);
        bench.tell(Input::Start);
        bench.launched();
        bench
    }

    /// Lets time pass, stopping at each deadline.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(deadline) = self.component.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(deadline);
            self.tell(Input::Tick);
        }
        self.now = end;
    }

    /// The probe that the runner was asked for last and has not answered.
    fn asked(&mut self, wanted: ProbeRole) -> Option<u64> {
        let found = self
            .effects
            .iter()
            .rposition(|effect| matches!(effect, Effect::Probe { role, .. } if *role == wanted))?;
        match self.effects.remove(found) {
            Effect::Probe { sequence, .. } => Some(sequence),
            _ => None,
        }
    }

    /// Waits for a probe's turn and answers it.
    fn probe(&mut self, role: ProbeRole, outcome: Result<(), &str>) {
        let sequence = self.due(role);
        let outcome = outcome.map_err(str::to_owned);
        self.answer(Answer::Probed { role, sequence, outcome });
    }

    /// Lets time pass until the probe is asked for; the number of its turn.
    fn due(&mut self, role: ProbeRole) -> u64 {
        for _ in 0..1_000 {
            if let Some(sequence) = self.asked(role) {
                return sequence;
            }
            let deadline = self.component.next_deadline().expect("a probe is due some time");
            self.now = self.now.max(deadline);
            self.tell(Input::Tick);
        }
        panic!("the {role} probe was never asked for");
    }

    fn count(&self, wanted: impl Fn(&EventKind) -> bool) -> usize {
        self.events.iter().filter(|event| wanted(event)).count()
    }

    fn delays(&self) -> Vec<u64> {
        self.events
            .iter()
            .filter_map(|event| match event {
                EventKind::Restarting { delay, .. } => Some(delay.as_secs()),
                _ => None,
            })
            .collect()
    }

    /// Lets it exit at once, again and again, until it is given up.
    fn crash_until_failed(&mut self) {
        while self.state() != State::Failed {
            if matches!(self.component.phase(), Phase::Launching { .. }) {
                self.launched();
            }
            self.exit(Exit::code(1));
            if let Some(deadline) = self.component.next_deadline() {
                self.now = deadline;
                self.tell(Input::Tick);
            }
        }
    }
}

#[test]
fn a_state_is_written_without_what_is_as_in_a_new_component() {
    let mut bench = Bench::up(process());
    let written = |bench: &Bench| serde_json::to_string(&bench.component).expect("it is storable");
    let usual = ["null", "[]", "false", "failures", "exits", "uptime_total", "probes", "made"];
    let text = written(&bench);
    for word in usual {
        assert!(!text.contains(word), "{word} in {text}");
    }
    // What has happened is written, and comes back as it was.
    bench.pass(secs(3));
    bench.exit(Exit::code(1));
    bench.pass(secs(60));
    bench.launched();
    let text = written(&bench);
    let read: Component = serde_json::from_str(&text).expect("it is readable");
    let spec = bench.component.spec().clone();
    assert_eq!(read.restored(spec, bench.now), bench.component, "{text}");
}

#[test]
fn s06_liveness_and_readiness_wait_for_startup() {
    let mut bench = Bench::up(with_probes());
    bench.probe(ProbeRole::Startup, Err("not yet"));
    assert_eq!(bench.state(), State::Starting);
    assert_eq!(bench.asked(ProbeRole::Liveness), None);
    assert_eq!(bench.asked(ProbeRole::Readiness), None);
    bench.probe(ProbeRole::Startup, Ok(()));
    assert_eq!(bench.state(), State::Running);
    assert!(bench.asked(ProbeRole::Liveness).is_some());
    assert!(bench.asked(ProbeRole::Readiness).is_some());
}

#[test]
fn s07_thirty_startup_failures_restart() {
    let mut bench = Bench::up(with_probes());
    let begun = bench.now;
    for _ in 0..29 {
        bench.probe(ProbeRole::Startup, Err("connection refused"));
        assert_eq!(bench.state(), State::Starting);
    }
    bench.probe(ProbeRole::Startup, Err("connection refused"));
    assert_eq!(bench.state(), State::Unhealthy);
    assert_eq!(bench.now.since(begun), secs(29), "s03: one a second, the first at once");
    bench.exit(Exit::signal(15));
    assert_eq!(bench.state(), State::Restarting);
    assert_eq!(bench.delays(), [1]);
    bench.pass(secs(1));
    assert_eq!(bench.state(), State::Starting);
}

#[test]
fn s03_a_deadline_bounds_the_start() {
    let mut spec = with_probes();
    spec.probes.startup_deadline = Some(secs(3));
    let mut bench = Bench::up(spec);
    bench.pass(secs(3));
    assert_eq!(bench.state(), State::Unhealthy);
}

#[test]
fn s08_three_liveness_failures_restart_and_two_do_not() {
    let mut bench = Bench::up(with_probes());
    bench.probe(ProbeRole::Startup, Ok(()));
    for outcome in [Err("timeout"), Err("timeout"), Ok(()), Err("timeout"), Err("timeout")] {
        bench.probe(ProbeRole::Liveness, outcome);
        assert_eq!(bench.state(), State::Running);
    }
    bench.probe(ProbeRole::Liveness, Err("timeout after 3s"));
    assert_eq!(bench.state(), State::Unhealthy);
    let view = bench.component.view(bench.now);
    assert_eq!(view.last_error.expect("an error").message, "liveness: timeout after 3s (3/3)");
    bench.exit(Exit::signal(15));
    assert_eq!(bench.state(), State::Restarting);
}

#[test]
fn s09_readiness_never_restarts() {
    let mut bench = Bench::up(with_probes());
    bench.probe(ProbeRole::Startup, Ok(()));
    bench.probe(ProbeRole::Readiness, Ok(()));
    assert!(!bench.component.is_ready(), "s05: two successes are needed");
    bench.probe(ProbeRole::Readiness, Ok(()));
    assert!(bench.component.is_ready());
    for _ in 0..20 {
        bench.probe(ProbeRole::Readiness, Err("503"));
    }
    assert!(!bench.component.is_ready());
    assert_eq!(bench.state(), State::Running);
    assert_eq!(bench.count(|event| matches!(event, EventKind::NotReady { .. })), 1);
}

#[test]
fn s13_a_success_clears_count_and_last_error() {
    let mut bench = Bench::up(with_probes());
    bench.probe(ProbeRole::Startup, Ok(()));
    bench.probe(ProbeRole::Liveness, Err("refused"));
    assert!(bench.component.view(bench.now).last_error.is_some());
    bench.probe(ProbeRole::Liveness, Ok(()));
    assert!(bench.component.view(bench.now).last_error.is_none());
}

#[test]
fn s12_stopped_and_failed_are_not_probed() {
    let mut bench = Bench::up(with_probes());
    bench.probe(ProbeRole::Startup, Ok(()));
    bench.tell(Input::Stop);
    bench.exit(Exit::signal(15));
    assert_eq!(bench.state(), State::Stopped);
    assert_eq!(bench.component.next_deadline(), None);
    let mut bench = Bench::up(with_probes());
    bench.crash_until_failed();
    assert_eq!(bench.component.next_deadline(), None);
}

#[test]
fn s14_counts_begin_anew_after_a_restart() {
    let mut bench = Bench::up(with_probes());
    bench.probe(ProbeRole::Startup, Ok(()));
    bench.probe(ProbeRole::Liveness, Err("x"));
    bench.probe(ProbeRole::Liveness, Err("x"));
    bench.exit(Exit::code(1));
    bench.pass(secs(1));
    bench.effects.clear();
    bench.launched();
    bench.probe(ProbeRole::Startup, Ok(()));
    bench.probe(ProbeRole::Liveness, Err("x"));
    assert_eq!(bench.state(), State::Running);
}

#[test]
fn stale_answers_change_nothing() {
    let mut bench = Bench::up(with_probes());
    let old = bench.run();
    bench.exit(Exit::code(1));
    bench.pass(secs(1));
    bench.launched();
    let before = bench.component.clone();
    let at = bench.now;
    bench.tell(Input::Answer(old, Answer::Exited { exit: Exit::code(0), at, empty: true }));
    bench.tell(Input::Answer(old, Answer::Gone));
    bench.tell(Input::Answer(old, Answer::Launched { body: Body::Process { pid: 9 }, at }));
    bench.tell(Input::Answer(
        old,
        Answer::Probed { role: ProbeRole::Startup, sequence: 1, outcome: Ok(()) },
    ));
    assert_eq!(bench.component, before);
}

#[test]
fn an_answer_is_awaited_from_the_turn_to_its_answer_or_the_end_of_the_run() {
    let mut bench = Bench::up(with_probes());
    let (run, role) = (bench.run(), ProbeRole::Startup);
    let sequence = bench.due(role);
    let awaits = |bench: &Bench, role, sequence| bench.component.awaits(run, role, sequence);
    assert!(awaits(&bench, role, sequence));
    assert!(!awaits(&bench, role, sequence + 1));
    assert!(!awaits(&bench, ProbeRole::Liveness, sequence));
    assert!(!bench.component.awaits(RunId(run.0 + 1), role, sequence));
    bench.answer(Answer::Probed { role, sequence, outcome: Ok(()) });
    assert!(!awaits(&bench, role, sequence));
    // A program that ends before its probe was begun is not probed any more.
    let sequence = bench.due(ProbeRole::Liveness);
    assert!(awaits(&bench, ProbeRole::Liveness, sequence));
    bench.exit(Exit::code(1));
    assert!(!awaits(&bench, ProbeRole::Liveness, sequence));
}

#[test]
fn s17_and_s20_delays_and_failed_after_303_seconds() {
    let mut bench = Bench::up(process());
    let first_exit = bench.now;
    bench.crash_until_failed();
    assert_eq!(bench.delays(), [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
    assert_eq!(bench.now.since(first_exit), secs(303));
    assert_eq!(bench.component.view(bench.now).restarts_total, 10);
    // s21: one error that names the limit, the window, the last error and what to type.
    let told: Vec<String> = bench
        .events
        .iter()
        .filter(|event| matches!(event, EventKind::Failed { .. }))
        .map(ToString::to_string)
        .collect();
    assert_eq!(told.len(), 1);
    for part in ["10 times", "10m 0s", "exit 1", "stigmer start"] {
        assert!(told[0].contains(part), "{part} in {}", told[0]);
    }
}

#[test]
fn s18_a_stable_run_resets_the_backoff_and_a_short_one_does_not() {
    let mut bench = Bench::up(process());
    bench.exit(Exit::code(1));
    bench.pass(secs(1));
    bench.launched();
    bench.pass(secs(5));
    bench.exit(Exit::code(1));
    bench.pass(secs(2));
    bench.launched();
    bench.pass(secs(15));
    bench.exit(Exit::code(1));
    assert_eq!(bench.delays(), [1, 2, 1]);
}

#[test]
fn s18_an_exit_that_overtakes_the_timer_still_counts_as_stable() {
    let mut bench = Bench::up(process());
    bench.exit(Exit::code(1));
    bench.pass(secs(1));
    bench.launched();
    bench.now = bench.now + secs(11);
    bench.exit(Exit::code(1));
    assert_eq!(bench.delays(), [1, 1]);
}

#[test]
fn s19_a_crash_every_fifteen_seconds_ends_in_failed() {
    let mut bench = Bench::up(process());
    for _ in 0..10 {
        bench.pass(secs(15));
        bench.exit(Exit::code(1));
        bench.pass(secs(1));
        bench.launched();
    }
    bench.pass(secs(15));
    bench.exit(Exit::code(1));
    assert_eq!(bench.state(), State::Failed);
}

#[test]
fn s20_nine_restarts_and_a_window_that_slides_on() {
    let mut bench = Bench::up(process());
    for _ in 0..40 {
        bench.pass(secs(70));
        bench.exit(Exit::code(1));
        bench.pass(secs(1));
        bench.launched();
    }
    assert_eq!(bench.state(), State::Running);
}

#[test]
fn s22_failed_comes_back_by_a_person_or_a_changed_spec_only() {
    let failed = || {
        let mut bench = Bench::up(process());
        bench.crash_until_failed();
        bench
    };
    let mut bench = failed();
    bench.pass(secs(1_000_000));
    assert_eq!(bench.state(), State::Failed);
    let mut changed = process();
    changed.labels.insert("a".into(), "b".into());
    for input in [
        Input::Start,
        Input::Restart,
        Input::Reset,
        Input::Update(Arc::new(changed.clone())),
        Input::Replace(Arc::new(changed)),
    ] {
        let mut bench = failed();
        bench.tell(input);
        assert_eq!(bench.state(), State::Starting);
        assert_eq!(bench.component.view(bench.now).restarts_in_window, 0, "counters are cleared");
    }
}

#[test]
fn s23_policies() {
    let cases = [
        (RestartPolicy::Always, Exit::code(0), State::Restarting),
        (RestartPolicy::Always, Exit::code(1), State::Restarting),
        (RestartPolicy::OnFailure, Exit::code(0), State::Stopped),
        (RestartPolicy::OnFailure, Exit::code(1), State::Restarting),
        (RestartPolicy::OnFailure, Exit::signal(9), State::Restarting),
        (RestartPolicy::OnFailure, Exit::unknown(), State::Restarting),
        (RestartPolicy::OnFailure, Exit::code(77), State::Failed),
        (RestartPolicy::Always, Exit::code(77), State::Failed),
        (RestartPolicy::OnFailure, Exit::signal(15), State::Stopped),
        (RestartPolicy::Never, Exit::code(0), State::Stopped),
        (RestartPolicy::Never, Exit::code(1), State::Failed),
    ];
    for (policy, exit, expected) in cases {
        let mut spec = process();
        spec.restart.policy = policy;
        spec.restart.prevent_exit_status.insert(ExitMatch::Code(77));
        spec.restart.success_exit_status.insert(ExitMatch::Signal(15));
        let mut bench = Bench::up(spec);
        bench.exit(exit);
        assert_eq!(bench.state(), expected, "{policy:?} after {exit}");
    }
}

#[test]
fn s23_an_unhealthy_component_of_policy_never_is_left_alone_and_recovers() {
    let mut spec = with_probes();
    spec.restart.policy = RestartPolicy::Never;
    let mut bench = Bench::up(spec);
    bench.probe(ProbeRole::Startup, Ok(()));
    for _ in 0..5 {
        bench.probe(ProbeRole::Liveness, Err("503"));
    }
    assert_eq!(bench.state(), State::Unhealthy);
    assert!(!bench.effects.iter().any(|effect| matches!(effect, Effect::Terminate { .. })));
    bench.probe(ProbeRole::Liveness, Ok(()));
    assert_eq!(bench.state(), State::Running);
}

#[test]
fn s26_a_launch_that_fails_is_a_failed_start() {
    let error = |retry| LaunchError {
        stage: LaunchStage::Exec,
        errno: Some(2),
        message: "no such file".into(),
        hint: None,
        retry,
    };
    let mut bench = Bench::new(process());
    bench.tell(Input::Start);
    bench.answer(Answer::LaunchFailed(error(Retry::Counted)));
    assert_eq!(bench.state(), State::Restarting);
    assert_eq!(bench.delays(), [1]);
    assert_eq!(bench.component.view(bench.now).last_error.expect("an error").reason, "launch");
    // Fault 16: what the machine lacks for a moment is not charged.
    let mut bench = Bench::new(process());
    bench.tell(Input::Start);
    for _ in 0..50 {
        bench.answer(Answer::LaunchFailed(error(Retry::Soon)));
        bench.pass(secs(1));
    }
    assert_eq!(bench.state(), State::Starting);
    assert_eq!(bench.component.view(bench.now).restarts_in_window, 0);
}

#[test]
fn s27_a_restart_tells_attempt_reason_and_delay() {
    let mut bench = Bench::up(process());
    bench.exit(Exit::signal(9));
    let told = bench
        .events
        .iter()
        .find(|event| matches!(event, EventKind::Restarting { .. }))
        .expect("a restart")
        .to_string();
    assert_eq!(told, "restarting (attempt 1/10) in 1s: SIGKILL");
}

#[test]
fn s28_stop_during_a_backoff_and_during_a_launch() {
    let mut bench = Bench::up(process());
    bench.exit(Exit::code(1));
    bench.tell(Input::Stop);
    assert_eq!(bench.state(), State::Stopped);
    assert_eq!(bench.component.next_deadline(), None);

    let mut bench = Bench::new(process());
    bench.tell(Input::Start);
    bench.tell(Input::Stop);
    bench.launched();
    assert!(matches!(bench.component.phase(), Phase::Ending(_)));
    bench.exit(Exit::signal(15));
    assert_eq!(bench.state(), State::Stopped);

    // Started again before it is gone: one copy after the other.
    let mut bench = Bench::up(process());
    bench.tell(Input::Stop);
    bench.tell(Input::Start);
    assert!(matches!(bench.component.phase(), Phase::Ending(_)));
    bench.exit(Exit::signal(15));
    bench.launched();
    assert_eq!(bench.state(), State::Running);
}

#[test]
fn s30_zero_backoff_restarts_in_the_same_step_and_unlimited_never_fails() {
    let mut spec = process();
    spec.restart.backoff.initial = Duration::ZERO;
    spec.restart.max_restarts = None;
    let mut bench = Bench::up(spec);
    for _ in 0..5_000 {
        bench.exit(Exit::code(1));
        bench.launched();
    }
    assert_eq!(bench.component.view(bench.now).restarts_total, 5_000);
}

#[test]
fn s54_launched_started_and_stable_are_three_things() {
    let mut bench = Bench::up(with_probes());
    assert_eq!(bench.component.view(bench.now).stage, Some("launched"));
    bench.probe(ProbeRole::Startup, Ok(()));
    assert_eq!(bench.component.view(bench.now).stage, Some("started"));
    bench.pass(secs(10));
    assert_eq!(bench.component.view(bench.now).stage, Some("stable"));
    // A crash loop is told as restarts, never as a success.
    let mut bench = Bench::up(with_probes());
    bench.crash_until_failed();
    assert_eq!(bench.count(|event| matches!(event, EventKind::Started)), 0);
}

#[test]
fn s55_what_is_left_behind_is_ended_before_the_restart() {
    let mut bench = Bench::up(process());
    let at = bench.now;
    bench.answer(Answer::Exited { exit: Exit::code(1), at, empty: false });
    assert_eq!(bench.state(), State::Restarting);
    assert!(matches!(bench.effects.last(), Some(Effect::TerminateRest { .. })));
    bench.pass(secs(10));
    assert!(matches!(bench.effects.last(), Some(Effect::Kill { .. })));
    assert!(bench.component.is_live(), "no second copy while something is left");
    bench.answer(Answer::Gone);
    assert_eq!(bench.delays(), [1]);
}

#[test]
fn s55_a_new_engine_that_is_told_all_at_once_does_not_wait_for_what_is_gone() {
    let mut bench = Bench::new(process());
    bench.tell(Input::Start);
    bench.launched();
    bench.tell(Input::Stop);
    let at = bench.now;
    bench.answer(Answer::Exited { exit: Exit::signal(15), at, empty: false });
    assert!(matches!(bench.component.phase(), Phase::Ending(_)));
    // The old engine died before it heard that the rest is gone. How it ended is known already.
    bench.answer(Answer::Exited { exit: Exit::unknown(), at, empty: true });
    assert_eq!(bench.state(), State::Stopped);
    let told = bench.events.iter().filter(|event| matches!(event, EventKind::Exited { .. }));
    assert_eq!(told.count(), 1);
}

#[test]
fn s57_external_components_are_probed_and_never_launched() {
    let mut spec = ComponentSpec::external();
    spec.probes.startup = Some(Box::new(probe(1, 5, 3, 1)));
    spec.probes.liveness = Some(Box::new(probe(10, 3, 3, 1)));
    let mut bench = Bench::new(spec);
    bench.tell(Input::Start);
    for _ in 0..3 {
        bench.probe(ProbeRole::Startup, Err("refused"));
    }
    assert_eq!(bench.state(), State::Unhealthy);
    bench.probe(ProbeRole::Startup, Ok(()));
    assert_eq!(bench.state(), State::Running);
    bench.tell(Input::Stop);
    assert_eq!(bench.state(), State::Stopped);
    assert!(
        bench
            .effects
            .iter()
            .all(|effect| matches!(effect, Effect::Probe { .. } | Effect::Forget { .. }))
    );
}

#[test]
fn term_is_followed_by_kill_at_the_grace_period() {
    let mut bench = Bench::up(process());
    bench.tell(Input::Stop);
    bench.pass(Duration::from_millis(9_999));
    assert!(!bench.effects.iter().any(|effect| matches!(effect, Effect::Kill { .. })));
    bench.pass(Duration::from_millis(1));
    assert!(matches!(bench.effects.last(), Some(Effect::Kill { .. })));
}

#[test]
fn fault_23_what_sigkill_does_not_end_is_told_once_and_never_replaced() {
    let kills = |bench: &Bench| {
        bench.effects.iter().filter(|one| matches!(one, Effect::Kill { .. })).count()
    };
    let told = |bench: &Bench| {
        bench.events.iter().filter(|one| matches!(one, EventKind::Unkillable { .. })).count()
    };
    let mut bench = Bench::up(process());
    let run = bench.run();
    bench.tell(Input::Restart);
    bench.pass(secs(10));
    assert_eq!((kills(&bench), told(&bench)), (1, 0));
    bench.pass(secs(5));
    assert_eq!((kills(&bench), told(&bench)), (2, 1));
    assert!(bench.component.is_stuck());
    assert_eq!(bench.component.next_deadline(), None);
    let view = bench.component.view(bench.now);
    assert_eq!(view.reason.as_deref(), Some("cannot be killed (process 42)"));
    assert_eq!(view.last_error.expect("an error").reason, "unkillable");
    // Whatever anybody wants, it is the run that is there.
    for order in [Input::Start, Input::Stop, Input::Reset, Input::Restart, Input::Tick] {
        bench.tell(order);
        bench.pass(secs(3_600));
        assert_eq!((bench.component.run(), told(&bench)), (Some(run), 1));
    }
    // It ends at last, its child does not, and then that does.
    let at = bench.now;
    bench.answer(Answer::Exited { exit: Exit::signal(9), at, empty: false });
    let reason = bench.component.view(bench.now).reason;
    let expected = "cannot be killed (something that it has left behind)";
    assert_eq!(reason.as_deref(), Some(expected));
    assert_eq!(bench.component.run(), Some(run));
    bench.answer(Answer::Gone);
    assert_ne!(bench.component.run(), Some(run));
    assert!(matches!(bench.component.phase(), Phase::Launching { .. }));
}

#[test]
fn s33_a_kill_that_went_down_with_the_daemon_is_ordered_again() {
    let kills = |bench: &Bench| {
        bench.effects.iter().filter(|effect| matches!(effect, Effect::Kill { .. })).count()
    };
    let mut bench = Bench::up(process());
    bench.tell(Input::Stop);
    bench.pass(secs(10));
    assert_eq!(kills(&bench), 1);
    // A new engine is told what runs: all of it, or what the main process has left behind.
    let at = bench.now;
    bench.answer(Answer::Launched { body: Body::Process { pid: 7 }, at });
    assert_eq!(kills(&bench), 2);
    for count in [3, 4] {
        bench.answer(Answer::Exited { exit: Exit::signal(9), at, empty: false });
        assert_eq!(kills(&bench), count);
    }
    bench.answer(Answer::Gone);
    assert_eq!(bench.state(), State::Stopped);
}

/// Brings a component into a phase.
type Prepare = fn() -> Bench;

/// Every phase against every input: nothing panics, every transition is legal (checked by
/// `Bench::tell`), and the component still ends when it is told to.
#[test]
fn s11_every_phase_answers_every_input() {
    let failed_launch = LaunchError {
        stage: LaunchStage::Fork,
        errno: None,
        message: "no".into(),
        hint: None,
        retry: Retry::Counted,
    };
    let phases: [(&str, Prepare); 11] = [
        ("new", || Bench::new(with_probes())),
        ("waiting", || {
            let mut bench = Bench::new(with_probes());
            bench.tell(Input::Gate(vec!["db ready".into()]));
            bench.tell(Input::Start);
            bench
        }),
        ("launching", || {
            let mut bench = Bench::new(with_probes());
            bench.tell(Input::Start);
            bench
        }),
        ("launching, superseded", || {
            let mut bench = Bench::new(with_probes());
            bench.tell(Input::Start);
            bench.tell(Input::Restart);
            bench
        }),
        ("starting", || Bench::up(with_probes())),
        ("running", || Bench::up(process())),
        ("unhealthy", || {
            let mut bench = Bench::up(with_probes());
            bench.probe(ProbeRole::Startup, Ok(()));
            for _ in 0..3 {
                bench.probe(ProbeRole::Liveness, Err("x"));
            }
            bench
        }),
        ("stopping", || {
            let mut bench = Bench::up(process());
            bench.tell(Input::Stop);
            bench
        }),
        ("restarting", || {
            let mut bench = Bench::up(process());
            bench.tell(Input::Restart);
            bench
        }),
        ("backoff", || {
            let mut bench = Bench::up(process());
            bench.exit(Exit::code(1));
            bench
        }),
        ("failed", || {
            let mut bench = Bench::up(process());
            bench.crash_until_failed();
            bench
        }),
    ];
    let answers = |at| {
        vec![
            Answer::Launched { body: Body::Process { pid: 1 }, at },
            Answer::LaunchFailed(failed_launch.clone()),
            Answer::Exited { exit: Exit::code(1), at, empty: true },
            Answer::Exited { exit: Exit::code(0), at, empty: false },
            Answer::Told,
            Answer::Reconfigured,
            Answer::Over,
            Answer::Gone,
            Answer::Lost,
            Answer::Preparing { message: "fetching".into(), event: true },
            Answer::Doubt(Some("nobody knows".into())),
            Answer::Doubt(None),
            Answer::Unchanged { message: "no".into() },
            Answer::Unprobed { role: ProbeRole::Liveness, sequence: 1 },
            Answer::Probed { role: ProbeRole::Liveness, sequence: 1, outcome: Ok(()) },
            Answer::Probed { role: ProbeRole::Startup, sequence: 2, outcome: Err("x".into()) },
        ]
    };
    let (spec, boxed) = (Arc::new(process()), Arc::new(containers::container(Some(1))));
    for (name, prepare) in phases {
        let probe = prepare();
        let run = probe.component.run().unwrap_or(RunId(99));
        let mut inputs = vec![
            Input::Tick,
            Input::Start,
            Input::Stop,
            Input::Retire(stigmer::machine::Wish::Stop),
            Input::Retire(stigmer::machine::Wish::Pause),
            Input::Restart,
            Input::Reset,
            Input::Gate(Vec::new()),
            Input::Gate(vec!["db ready".into()]),
            Input::Update(spec.clone()),
            Input::Update(boxed.clone()),
            Input::Replace(spec.clone()),
            Input::Replace(boxed.clone()),
            Input::Provided,
        ];
        inputs.extend(answers(probe.now).into_iter().map(|answer| Input::Answer(run, answer)));
        for first in &inputs {
            for second in &inputs {
                let mut bench = prepare();
                bench.tell(first.clone());
                bench.tell(second.clone());
                bench.tell(Input::Retire(stigmer::machine::Wish::Stop));
                bench.tell(Input::Stop);
                for _ in 0..8 {
                    if let Some(run) = bench.component.run() {
                        let at = bench.now;
                        let exit = Exit::code(0);
                        bench.tell(Input::Answer(
                            run,
                            Answer::Launched { body: Body::Process { pid: 5 }, at },
                        ));
                        bench.tell(Input::Answer(run, Answer::Exited { exit, at, empty: true }));
                        bench.tell(Input::Answer(run, Answer::Gone));
                    }
                }
                assert!(!bench.component.is_live(), "{name}: {first:?}, {second:?}");
                assert_eq!(bench.state(), State::Stopped, "{name}: {first:?}, {second:?}");
            }
        }
    }
}
